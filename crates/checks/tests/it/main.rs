//! What the checks make of deliveries, by table and at random.

#![allow(clippy::unwrap_used)]

mod checks;
mod decode;
mod numbers;
mod properties;
mod rules;

use recount_checks::{CheckResult, CheckRule, FlowChecks, FlowRules, Otherwise, RawEvent, RouteRule};
use recount_model::{FlowName, Header, ReasonCode, Timestamp, Verdict};

/// The rules of the inventory example.
fn inventory() -> FlowRules {
    let text = |text: &str| Some(text.to_owned());
    FlowRules {
        payload_bytes_max: 2000,
        depth_max: 16,
        id: text("event.id"),
        event_type: text("event.type"),
        time: text("event.placed_at"),
        key: text("event.sku"),
        ignore: vec!["order.viewed".to_owned()],
        checks: vec![
            check("zero_quantity", "event.quantity > 0", Otherwise::Skip, "nothing leaves the stock"),
            check("bulk_order", "event.quantity <= 100", Otherwise::Flag, "few order more"),
            check("too_many", "event.quantity < 1000", Otherwise::DeadLetter, ""),
        ],
        routes: vec![RouteRule {
            when: None,
            with: vec![
                ("quantity".to_owned(), "event.quantity".to_owned()),
                ("sku".to_owned(), "event.sku".to_owned()),
            ],
        }],
        secret: vec!["event.customer_id".to_owned()],
        ..FlowRules::default()
    }
}

const ORDER: &str = r#"{"id":"7-1","type":"order.placed","customer_id":"TOP-SECRET","sku":"1","quantity":2,"placed_at":"2017-01-01T11:53:26Z"}"#;

/// The order with one field's JSON replaced, or taken out.
fn order_with(field: &str, json: Option<&str>) -> String {
    let mut order: serde_json::Map<String, serde_json::Value> = serde_json::from_str(ORDER).unwrap();
    order.shift_remove(field);
    let mut fields: Vec<String> = order.iter().map(|(name, value)| format!("{name:?}:{value}")).collect();
    fields.extend(json.map(|json| format!("{field:?}:{json}")));
    format!("{{{}}}", fields.join(","))
}

fn check(reason: &str, that: &str, otherwise: Otherwise, because: &str) -> CheckRule {
    let reason = ReasonCode::new(reason).unwrap();
    CheckRule { reason, that: that.to_owned(), otherwise, because: because.to_owned() }
}

fn compile(rules: &FlowRules) -> FlowChecks {
    FlowChecks::compile(rules, &FlowName::new("reserve-stock").unwrap()).unwrap()
}

fn raw(payload: &[u8], headers: &[(&str, &str)]) -> RawEvent {
    RawEvent {
        payload: payload.into(),
        payload_bytes: payload.len() as u64,
        headers: headers.iter().map(|(n, v)| Header { name: (*n).into(), value: (*v).into() }).collect(),
        broker_key: None,
        partition: "orders.ndjson".into(),
        offset: 12,
        taken_at: Timestamp(1_483_300_000_000),
    }
}

/// Verdict, reason and sentence on one line; a refusal never tells the secret, and its evidence is one
/// JSON object.
fn told(result: &CheckResult) -> String {
    match result {
        CheckResult::Passed(event) => {
            let flags: Vec<&str> = event.flags.iter().map(ReasonCode::as_str).collect();
            format!("passed {flags:?} {:?}", event.params)
        }
        CheckResult::Refused(refused) => {
            let reason = refused.verdict.reason().unwrap();
            let evidence: serde_json::Value = serde_json::from_str(&refused.evidence).unwrap();
            assert!(evidence.is_object(), "{evidence}");
            assert!(!refused.evidence.contains("TOP-SECRET"), "{}", refused.evidence);
            assert!(!reason.sentence.contains("TOP-SECRET"), "{}", reason.sentence);
            assert!(refused.evidence.len() < 8000, "{} bytes", refused.evidence.len());
            let verdict = match refused.verdict {
                Verdict::Skip(_) => "skip",
                Verdict::DeadLetter(_) => "dead-letter",
                Verdict::Applied | Verdict::Retry(_) => panic!("checks never say so"),
            };
            format!("{verdict} {}: {}", reason.code, reason.sentence)
        }
    }
}

fn judged(rules: &FlowRules, payload: &[u8]) -> String {
    told(&compile(rules).check(raw(payload, &[])))
}

fn evidence(result: CheckResult) -> serde_json::Value {
    match result {
        CheckResult::Passed(event) => panic!("it passed: {:?}", event.meta),
        CheckResult::Refused(refused) => serde_json::from_str(&refused.evidence).unwrap(),
    }
}
