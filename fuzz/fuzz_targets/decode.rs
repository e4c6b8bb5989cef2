//! Whatever the bytes: a verdict with a known reason, the same one twice, and no panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use recount_checks::{
    CheckResult, CheckRule, Decode, FlowChecks, FlowRules, MeasureRule, Otherwise, RawEvent, RouteRule,
};
use recount_model::reason::{BuiltinKind, builtin};
use recount_model::{FlowName, Header, ReasonCode, Timestamp};
use std::sync::LazyLock;

static FLOWS: LazyLock<Vec<FlowChecks>> = LazyLock::new(|| {
    let text = |text: &str| Some(text.to_owned());
    let check = |reason: &str, that: &str, otherwise| CheckRule {
        reason: ReasonCode::new(reason).expect("a code"),
        that: that.to_owned(),
        otherwise,
        because: "fuzzed".to_owned(),
    };
    let inventory = FlowRules {
        payload_bytes_max: 4096,
        depth_max: 64,
        id: text("event.id"),
        event_type: text("event.type"),
        time: text("event.placed_at"),
        key: text("event.sku"),
        ignore: vec!["order.viewed".to_owned()],
        schema: Some(serde_json::json!({
            "type": "object", "required": ["sku"],
            "properties": { "quantity": { "type": "integer" }, "sku": { "pattern": "^[0-9a-z]+$" } }
        })),
        checks: vec![
            check("zero_quantity", "event.quantity > 0", Otherwise::Skip),
            check("bulk_order", "event.quantity <= 100", Otherwise::Flag),
            check("lines", "!has(event.lines) || event.lines.all(l, l.n * 2 > 0)", Otherwise::DeadLetter),
            check("note", "event.?note.orValue('') != 'x'", Otherwise::Skip),
        ],
        routes: vec![RouteRule { when: None, with: vec![("quantity".to_owned(), "event.quantity".to_owned())] }],
        measures: vec![MeasureRule { sum: "event.quantity * 2".to_owned(), by: text("event.store") }],
        secret: vec!["event.customer_id".to_owned()],
        ..FlowRules::default()
    };
    let plain = FlowRules::default();
    let text_flow = FlowRules { decode: Decode::Text, ..FlowRules::default() };
    let flow = FlowName::new("fuzzed").expect("a name");
    [inventory, plain, text_flow]
        .iter()
        .map(|rules| FlowChecks::compile(rules, &flow).expect("the rules compile"))
        .collect()
});

const DECLARED: &[&str] = &["zero_quantity", "bulk_order", "lines", "note"];

fuzz_target!(|input: &[u8]| {
    // Up to two header lines `name:value`, then a blank line, then the payload; or the payload alone.
    let (headers, payload) = split(input);
    for flow in FLOWS.iter() {
        let raw = || RawEvent {
            payload: payload.into(),
            payload_bytes: payload.len() as u64,
            headers: headers.clone(),
            broker_key: None,
            partition: "0".into(),
            offset: 7,
            taken_at: Timestamp(0),
        };
        let result = flow.check(raw());
        assert_eq!(format!("{result:?}"), format!("{:?}", flow.check(raw())));
        if let CheckResult::Refused(refused) = result {
            let reason = refused.verdict.reason().expect("a refused event has a reason");
            let code = reason.code.as_str();
            let known = builtin(code).is_some_and(|b| b.kind != BuiltinKind::Finding);
            assert!(known || DECLARED.contains(&code), "{code}");
            assert!(!reason.sentence.is_empty() && reason.sentence.len() < 4000);
            assert!(serde_json::from_str::<serde_json::Value>(&refused.evidence).is_ok_and(|e| e.is_object()));
        }
    }
});

fn split(input: &[u8]) -> (Vec<Header>, &[u8]) {
    let Some(end) = input.windows(2).take(200).position(|pair| pair == b"\n\n") else {
        return (Vec::new(), input);
    };
    let Ok(text) = std::str::from_utf8(&input[..end]) else { return (Vec::new(), input) };
    let header = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some(Header { name: name.into(), value: value.into() })
    };
    (text.lines().take(4).filter_map(header).collect(), &input[end + 2..])
}
