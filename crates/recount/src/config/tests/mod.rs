//! Faults of a config, one line a case; and what a right one comes to.

use super::*;
use expect_test::expect;
use recount_engine::RowRange;
use recount_model::decide::AfterLast;
use std::fmt::Write as _;

mod brokers;
mod faults;
mod faults_of_effects;
mod shared_ledger;
mod watched;

/// A config without a fault. Each case changes one thing in it.
const RIGHT: &str = r#"[ledger]
path = "book"
[database.shop]
url = "sqlite:shop.db"
[flow.reserve-stock]
owner = "inventory team"
purpose = "takes ordered units out of stock"
source = { file = "orders.ndjson" }
id = "event.id"
key = "event.sku"
schema = "order.schema.json"
secret = ["event.customer_id"]
[[flow.reserve-stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "2% of 1000"
because = "an order line for nothing takes nothing out of stock"
[[flow.reserve-stock.check]]
reason = "bulk_order"
that = "event.quantity <= 100"
otherwise = "flag"
at_most = "3% of 1000"
review_by = 2027-06-01
because = "we assume that few order more than 100 units of one thing"
[flow.reserve-stock.apply]
database = "shop"
sql = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku"
with = { quantity = "event.quantity", sku = "event.sku" }
rows = 1
[[flow.reserve-stock.apply.otherwise]]
when = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)"
verdict = "dead-letter"
reason = "unknown_sku"
because = "no such article"
[[flow.reserve-stock.apply.otherwise]]
verdict = "retry"
reason = "insufficient_stock"
because = "less on hand than asked for"
[[reconcile]]
name = "units"
left = { flow = "reserve-stock", sum = "event.quantity", less = ["unknown_sku"] }
right = { database = "shop", sql = "SELECT sum(10000 - on_hand) FROM stock" }
within = "60s"
"#;

const SCHEMA: &str = r#"{"type": "object", "required": ["id"], "properties": {
    "id": {"type": "string"}, "sku": {"type": "string"}, "quantity": {"type": "integer"},
    "customer_id": {"type": "string"}, "type": {"type": "string"}}}"#;

fn load(text: &str) -> Result<Config, Faults> {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("order.schema.json"), SCHEMA).unwrap();
    std::fs::write(folder.path().join("broken.json"), "{").unwrap();
    std::fs::write(folder.path().join("wrong.json"), r#"{"type": "no such type"}"#).unwrap();
    Config::from_text(text, &folder.path().join("recount.toml"))
}

/// Every fault as `line key: message`.
fn told(faults: &[Fault]) -> String {
    let mut out = String::new();
    for fault in faults {
        let _ = writeln!(out, "{} {}: {}", fault.line, fault.key, fault.message);
    }
    out
}

/// Replaces `old` by `new` in the right config and expects faults that hold each of `expected`, in order,
/// and no others.
fn check(old: &str, new: &str, expected: &[&str]) {
    assert!(RIGHT.contains(old), "the right config doesn't hold {old}");
    check_text(&RIGHT.replacen(old, new, 1), expected);
}

/// Expects faults that hold each of `expected`, in order, and no others.
fn check_text(text: &str, expected: &[&str]) {
    let faults = match load(text) {
        Ok(_) => Vec::new(),
        Err(faults) => faults.faults,
    };
    let found = told(&faults);
    let matches = faults.len() == expected.len()
        && faults
            .iter()
            .zip(expected)
            .all(|(fault, part)| format!("{} {}: {}", fault.line, fault.key, fault.message).contains(part));
    assert!(matches, "{text}\ngave\n{found}but must give\n{}", expected.join("\n"));
    for fault in &faults {
        assert!(!fault.message.ends_with('.'), "{}", fault.message);
    }
}

#[test]
fn the_right_config_has_no_fault() {
    let config = load(RIGHT).unwrap();
    assert_eq!(told(&config.warnings), "");
    let flow = config.flow("reserve-stock").unwrap();
    assert_eq!(flow.spec.retry.attempts_max, 5);
    assert_eq!(flow.spec.retry.after_last, AfterLast::GoOn);
    assert!((flow.spec.retry.jitter - 0.2).abs() < f64::EPSILON);
    assert_eq!((flow.spec.take.events_max, flow.spec.take.wait_ms), (500, 50));
    assert_eq!((flow.spec.dedupe_events, flow.spec.keep_skipped_bytes_max), (100_000, 65_536));
    assert_eq!((flow.spec.breaker.share_ppm, flow.spec.breaker.of_last), (500_000, 1000));
    assert_eq!(flow.rules.payload_bytes_max, 1 << 20);
    assert_eq!(config.server.listen, "127.0.0.1:7601");
    assert_eq!((config.ledger.segment_ms, config.ledger.segment_bytes), (3_600_000, 1 << 30));
    assert_eq!((config.ledger.retention_ms, config.ledger.retention_bytes), (None, None));
    assert!(config.ledger.path.ends_with("book"));
    assert!(
        matches!(config.databases["shop"].place(), Ok(DatabasePlace::Sqlite(path)) if path.ends_with("shop.db"))
    );
    let EffectConfig::Sql { routes, effects, .. } = &flow.effect else { panic!("{:?}", flow.effect) };
    assert_eq!(routes[0].params, ["quantity", "sku"]);
    assert_eq!(routes[0].statements[0].rows, RowRange { min: 1, max: 1 });
    assert_eq!((routes[0].otherwise.len(), effects), (2, &EffectRows::Table));
    assert_eq!(config.reconciles[0].left.measure, 0);
    assert_eq!(flow.rules.measures[0].sum, "event.quantity");
}

#[test]
fn a_handler_in_rust_has_its_own_reasons_and_those_of_its_kind() {
    let (head, _) = RIGHT.split_once("[flow.reserve-stock.apply]").unwrap();
    let handler = "[flow.reserve-stock.apply]\nhandler = \"reserve\"\ndatabase = \"shop\"\n\
         [[flow.reserve-stock.apply.reason]]\nreason = \"sold_out\"\nverdict = \"skip\"\n\
         at_most = \"4% of 1000\"\nbecause = \"none left\"\n";
    let config = load(&format!("{head}{handler}")).unwrap();
    assert_eq!(told(&config.warnings), "");
    let EffectConfig::Handler { database, name, effects, reasons } = &config.flows[0].effect else {
        panic!("{:?}", config.flows[0].effect)
    };
    assert_eq!((database.as_str(), name.as_str(), effects), ("shop", "reserve", &EffectRows::Table));
    assert_eq!(reasons.keys().map(ReasonCode::as_str).collect::<Vec<_>>(), ["sold_out"]);
    let budgets = &config.flows[0].spec.budgets;
    let found: String = budgets.iter().map(|(code, budget)| format!("{code} {budget}\n")).collect();
    expect![[r#"
        accepted any
        bulk_order 3% of 1000
        check_unevaluable 1% of 1000
        decode_failed 1% of 1000
        duplicate 1% of 1000
        handler_panicked 1% of 1000
        id_reused 1% of 1000
        killed_the_process 1% of 1000
        no_id 1% of 1000
        no_key 1% of 1000
        payload_too_large 1% of 1000
        retries_exhausted 1% of 1000
        schema_mismatch 1% of 1000
        sold_out 4% of 1000
        statement_failed 1% of 1000
        undeclared_reason 1% of 1000
        zero_quantity 2% of 1000
    "#]]
    .assert_eq(&found);
}

#[test]
fn an_id_or_key_taken_from_a_secret_header_is_secret() {
    let from_headers = RIGHT
        .replace(r#"id = "event.id""#, r#"id = 'meta.headers["x-order"]'"#)
        .replace(r#"key = "event.sku""#, r#"key = "meta.headers.customer""#);
    let secret_of = |listed: &str| {
        let text = from_headers.replace("secret = [", &format!("secret = [{listed}"));
        let config = load(&text).unwrap();
        (config.flows[0].spec.id_is_secret, config.flows[0].spec.key_is_secret)
    };
    assert_eq!(secret_of(""), (false, false));
    assert_eq!(secret_of(r#"'meta.headers["x-order"]', "#), (true, false));
    assert_eq!(secret_of(r#""meta.headers.customer", "#), (false, true));
    assert_eq!(secret_of(r#""meta.headers", "#), (true, true));
}

#[test]
fn every_reason_that_a_flow_may_give_has_a_budget() {
    let text =
        RIGHT.replace("secret = [", "ignore = [\"a.b\"]\nat_most = { duplicate = \"any\" }\nsecret = [");
    let config = load(&text).unwrap();
    let budgets = &config.flows[0].spec.budgets;
    let found: String = budgets.iter().map(|(code, budget)| format!("{code} {budget}\n")).collect();
    expect![[r#"
        accepted any
        bulk_order 3% of 1000
        check_unevaluable 1% of 1000
        decode_failed 1% of 1000
        duplicate any
        id_reused 1% of 1000
        insufficient_stock 1% of 1000
        killed_the_process 1% of 1000
        no_id 1% of 1000
        no_key 1% of 1000
        not_for_this_flow any
        parameter_missing 1% of 1000
        payload_too_large 1% of 1000
        retries_exhausted 1% of 1000
        rows_unexpected 1% of 1000
        schema_mismatch 1% of 1000
        statement_failed 1% of 1000
        unknown_sku 1% of 1000
        zero_quantity 2% of 1000
    "#]]
    .assert_eq(&found);
}

#[test]
fn faults_are_shown_as_rustc_shows_them() {
    let text = RIGHT
        .replace("otherwise = \"skip\"", "otherwize = \"skip\"")
        .replace("because = \"no such", "becuase = \"no such");
    let mut faults = load(&text).unwrap_err();
    for fault in &mut faults.faults {
        fault.file = "recount.toml".into();
    }
    expect![[r#"
        error: `[[flow.NAME.check]]` has no `otherwise`
          --> recount.toml:13:1
           |
        13 | [[flow.reserve-stock.check]]
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = help: write: otherwise = "dead-letter"
                   (What then. `flag`: it passes and is counted, an assumption)

        error: unknown key `otherwize` in `[[flow.NAME.check]]`
          --> recount.toml:16:1
           |
        16 | otherwize = ******
           | ^^^^^^^^^
           = help: did you mean `otherwise`?

        error: `[[flow.NAME.apply.otherwise]]` has no `because`
          --> recount.toml:31:1
           |
        31 | [[flow.reserve-stock.apply.otherwise]]
           | ^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^^
           = help: write: because = "no such article"
                   (Why, in one sentence)

        error: unknown key `becuase` in `[[flow.NAME.apply.otherwise]]`
          --> recount.toml:35:1
           |
        35 | becuase = *****************
           | ^^^^^^^
           = help: did you mean `because`?

        4 faults in recount.toml; nothing was started"#]]
    .assert_eq(&faults.to_string());
}

#[test]
fn all_defaults_and_examples_can_be_read() {
    fn visit(spec: &'static spec::TableSpec) {
        for key in spec.keys {
            if let spec::Need::Default(text) = key.need {
                assert!(raw::read_default(key, text).is_some(), "{} {} = {text}", spec.header, key.name);
            } else if !key.example.is_empty()
                && !matches!(key.kind, spec::Kind::Later(_) | spec::Kind::Table(_))
            {
                assert!(raw::read_default(key, key.example).is_some(), "{} {}", spec.header, key.name);
            }
            match key.kind {
                spec::Kind::Table(within)
                | spec::Kind::WordOrTable(_, within)
                | spec::Kind::Named(within)
                | spec::Kind::Tables(within)
                | spec::Kind::OneOrMore(within) => visit(within),
                _ => {}
            }
        }
    }
    visit(&ROOT);
}

#[test]
fn the_config_reference_is_what_the_description_says() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/config-reference.md");
    if std::env::var_os("RECOUNT_WRITE_DOCS").is_some() {
        std::fs::write(path, reference::markdown()).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == reference::markdown(),
        "docs/config-reference.md is not up to date: RECOUNT_WRITE_DOCS=1 cargo test -p recount config_reference"
    );
}

#[test]
fn a_config_version_is_its_text_and_schemas() {
    let one = load(RIGHT).unwrap();
    let other = load(&RIGHT.replace("60s", "61s")).unwrap();
    assert_ne!(one.hash(), other.hash());
    assert_eq!(one.hash(), load(RIGHT).unwrap().hash());
    let stored = one.stored(recount_model::Timestamp(0));
    assert_eq!((stored.text.as_str(), stored.files[0].0.as_str()), (RIGHT, "order.schema.json"));
    assert!(!stored.author.is_empty() && !stored.revision.is_empty());
}

/// Damages the right config at random (splitmix64 from a seed), in ways that people and editors do.
#[test]
fn no_text_makes_reading_panic_and_every_fault_has_a_line_of_it() {
    const BITS: [&str; 12] =
        ["\"", "'", "[", "]]", "=", "{", "}", "\n", "ü", "\0", "\"\"\"", "[flow.reserve-stock.apply]\n"];
    for seed in 0..400u64 {
        let mut state = seed;
        let mut next = |below: usize| {
            state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
            let mut mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
            usize::try_from((mixed ^ (mixed >> 31)) % below as u64).unwrap()
        };
        let mut chars: Vec<char> = RIGHT.chars().collect();
        for _ in 0..=next(3) {
            let from = next(chars.len());
            let to = (from + next(30)).min(chars.len());
            match next(3) {
                0 => drop(chars.drain(from..to)),
                1 => drop(chars.splice(from..from, BITS[next(BITS.len())].chars())),
                _ => {
                    let copied: Vec<char> = chars[from..to].to_vec();
                    let at = next(chars.len());
                    drop(chars.splice(at..at, copied));
                }
            }
        }
        let text: String = chars.into_iter().collect();
        let lines = text.matches('\n').count() + 1;
        if let Err(faults) = load(&text) {
            assert!(!faults.faults.is_empty(), "seed {seed}");
            let all = faults.faults.iter().chain(&faults.warnings);
            assert!(all.clone().all(|fault| (1..=lines).contains(&fault.line)), "seed {seed}: {faults}");
            assert!(!faults.to_string().is_empty());
        }
    }
}
