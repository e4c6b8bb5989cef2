//! Whatever the bytes, there is a verdict, and its reason is one that somebody declared.

use crate::{ORDER, check, compile, inventory, raw};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use recount_checks::{CheckResult, Decode, FlowChecks, FlowRules, MeasureRule, Otherwise};
use recount_model::reason::{BuiltinKind, builtin};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

const SECRET: &str = "TOP-SECRET";

static FLOWS: LazyLock<Vec<FlowChecks>> = LazyLock::new(|| {
    let mut with_schema = inventory();
    with_schema.schema = Some(serde_json::json!({
        "type": "object", "required": ["sku"],
        "properties": { "quantity": { "type": "integer" }, "sku": { "pattern": "^[0-9a-z]+$" } },
        "additionalProperties": { "type": ["string", "number"] }
    }));
    let mut with_everything = inventory();
    with_everything.checks.push(check("lines", "event.lines.all(l, l.n * 2 > 0)", Otherwise::Flag, ""));
    with_everything.checks.push(check("optional", "event.?note.orValue('') != 'x'", Otherwise::Skip, ""));
    with_everything.measures =
        vec![MeasureRule { sum: "event.quantity * 2".to_owned(), by: Some("event.store".to_owned()) }];
    let text = FlowRules { decode: Decode::Text, ..FlowRules::default() };
    let bytes = FlowRules { decode: Decode::Bytes, ..FlowRules::default() };
    [inventory(), with_schema, with_everything, FlowRules::default(), text, bytes]
        .iter()
        .map(compile)
        .collect()
});

const DECLARED: &[&str] = &["zero_quantity", "bulk_order", "too_many", "lines", "optional"];

/// Every flow gives a verdict, twice the same, that tells no secret.
fn has_a_verdict(payload: &[u8], headers: &[(&str, &str)]) {
    for flow in FLOWS.iter() {
        let result = flow.check(raw(payload, headers));
        let again = flow.check(raw(payload, headers));
        assert_eq!(format!("{result:?}"), format!("{again:?}"));
        let CheckResult::Refused(refused) = &result else { continue };
        let reason = refused.verdict.reason().expect("a refused event has a reason");
        let code = reason.code.as_str();
        let known = builtin(code).is_some_and(|b| b.kind != BuiltinKind::Finding) || DECLARED.contains(&code);
        assert!(known, "{code}");
        assert!(!reason.sentence.is_empty() && reason.sentence.len() < 2000, "{}", reason.sentence);
        assert!(serde_json::from_str::<serde_json::Value>(&refused.evidence).unwrap().is_object());
        assert!(refused.evidence.len() < 20_000, "{} bytes of evidence", refused.evidence.len());
        assert!(refused.decoded || code == "decode_failed" || code == "payload_too_large", "{code}");
    }
}

fn mutated_order() -> impl Strategy<Value = Vec<u8>> {
    let edit = (any::<prop::sample::Index>(), 0..4_u8, any::<u8>());
    prop::collection::vec(edit, 0..6).prop_map(|edits| {
        let mut bytes = ORDER.as_bytes().to_vec();
        for (at, kind, byte) in edits {
            let at = at.index(bytes.len().max(1));
            match kind {
                0 if at < bytes.len() => bytes[at] = byte,
                1 => bytes.insert(at.min(bytes.len()), byte),
                2 if at < bytes.len() => drop(bytes.remove(at)),
                _ => bytes.truncate(at),
            }
        }
        bytes
    })
}

/// An order whose fields hold any JSON.
fn odd_order() -> impl Strategy<Value = Vec<u8>> {
    let scalar = prop_oneof![
        Just("null".to_owned()),
        any::<bool>().prop_map(|b| b.to_string()),
        any::<i64>().prop_map(|i| i.to_string()),
        any::<u64>().prop_map(|u| u.to_string()),
        any::<f64>().prop_filter("finite", |f| f.is_finite()).prop_map(|f| format!("{f:e}")),
        any::<u128>().prop_map(|u| u.to_string()),
        ".{0,12}".prop_map(|text| serde_json::Value::from(text).to_string()),
    ];
    let json = scalar.prop_recursive(5, 20, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(|items| format!("[{}]", items.join(","))),
            prop::collection::vec(inner, 0..4).prop_map(|items| {
                let fields: Vec<_> = items.iter().enumerate().map(|(i, v)| format!("\"n{i}\":{v}")).collect();
                format!("{{{}}}", fields.join(",").replace("n0", "n"))
            }),
        ]
    });
    let names =
        vec!["id", "type", "sku", "quantity", "placed_at", "lines", "note", "specversion", "data", "store"];
    prop::collection::btree_map(prop::sample::select(names), json, 0..8).prop_map(|fields| {
        let fields: Vec<_> = fields.iter().map(|(name, json)| format!("{name:?}:{json}")).collect();
        format!("{{{}}}", fields.join(",")).into_bytes()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_have_a_verdict(payload in prop::collection::vec(any::<u8>(), 0..300)) {
        has_a_verdict(&payload, &[]);
    }

    #[test]
    fn mutated_orders_have_a_verdict(payload in mutated_order()) {
        has_a_verdict(&payload, &[]);
    }

    #[test]
    fn orders_of_any_json_have_a_verdict(payload in odd_order()) {
        has_a_verdict(&payload, &[]);
    }

    #[test]
    fn any_headers_have_a_verdict(name in "(?i)ce[-_](id|type|time|specversion)", value in ".{0,20}") {
        has_a_verdict(ORDER.as_bytes(), &[("ce-specversion", "1.0"), (&name, &value)]);
    }

    #[test]
    fn no_secret_is_told(secret in any::<u64>(), field in prop::sample::select(vec!["quantity", "sku", "id", "x"])) {
        let secret = format!("{SECRET}-{secret}");
        let mut rules = inventory();
        rules.secret = vec![format!("event.{field}")];
        rules.checks.push(check("x", "event.x == 1 || event.quantity == 7 || event.sku == ''", Otherwise::Skip, ""));
        let payload = crate::order_with(field, Some(&format!("{secret:?}")));
        if let CheckResult::Refused(refused) = compile(&rules).check(raw(payload.as_bytes(), &[])) {
            let sentence = &refused.verdict.reason().unwrap().sentence;
            prop_assert!(!refused.evidence.contains(&secret), "{}", refused.evidence);
            prop_assert!(!sentence.contains(&secret), "{}", sentence);
        } else {
            prop_assert!(false, "it passed");
        }
    }
}

/// The fuzz targets under `fuzz/` do this with coverage; where they can't run, this has the time that
/// `RECOUNT_PROPERTY_SECONDS` gives it.
#[test]
fn mutated_orders_have_a_verdict_for_as_long_as_asked() {
    let seconds = std::env::var("RECOUNT_PROPERTY_SECONDS").ok().and_then(|s| s.parse().ok()).unwrap_or(1);
    let until = Instant::now() + Duration::from_secs(seconds);
    let mut runner = proptest::test_runner::TestRunner::deterministic();
    let any = prop_oneof![mutated_order(), odd_order(), prop::collection::vec(any::<u8>(), 0..100)];
    let mut cases = 0_u64;
    while Instant::now() < until {
        has_a_verdict(&any.new_tree(&mut runner).unwrap().current(), &[]);
        cases += 1;
    }
    assert!(cases > 0);
}
