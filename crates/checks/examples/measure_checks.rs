//! Microseconds an event for decoding and checking, on events of a file (one JSON object a line):
//! `cargo run --release -p recount-checks --example measure_checks -- orders.ndjson`

use recount_checks::{
    CheckResult, CheckRule, FlowChecks, FlowRules, MeasureRule, Otherwise, RawEvent, RouteRule,
};
use recount_model::{FlowName, ReasonCode, Timestamp};
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

fn check(reason: &str, that: &str, otherwise: Otherwise) -> CheckRule {
    let reason = ReasonCode::new(reason).expect("the example's codes are snake_case");
    CheckRule { reason, that: that.to_owned(), otherwise, because: "an example".to_owned() }
}

fn rules() -> FlowRules {
    FlowRules {
        id: Some("event.id".to_owned()),
        event_type: Some("event.type".to_owned()),
        time: Some("event.placed_at".to_owned()),
        key: Some("event.sku".to_owned()),
        ignore: vec!["order.viewed".to_owned()],
        routes: vec![RouteRule {
            when: None,
            with: vec![
                ("quantity".to_owned(), "event.quantity".to_owned()),
                ("sku".to_owned(), "event.sku".to_owned()),
            ],
        }],
        measures: vec![MeasureRule { sum: "event.quantity".to_owned(), by: None }],
        secret: vec!["event.customer_id".to_owned()],
        ..FlowRules::default()
    }
}

fn schema() -> serde_json::Value {
    let text = serde_json::json!({ "type": "string", "minLength": 1 });
    serde_json::json!({
        "type": "object",
        "required": ["id", "type", "order_id", "sku", "quantity", "placed_at"],
        "properties": {
            "id": text, "type": { "const": "order.placed" }, "order_id": text, "customer_id": text,
            "store_id": text, "sku": text, "quantity": { "type": "integer", "minimum": 0 },
            "amount": { "type": "number", "minimum": 0 }, "placed_at": text
        },
        "additionalProperties": false
    })
}

fn three_checks() -> Vec<CheckRule> {
    vec![
        check("zero_quantity", "event.quantity > 0", Otherwise::Skip),
        check("bulk_order", "event.quantity <= 100", Otherwise::Flag),
        check("negative_amount", "has(event.amount) && event.amount >= 0.0", Otherwise::DeadLetter),
    ]
}

fn main() {
    let path = std::env::args().nth(1).expect("name a file of events");
    let text = std::fs::read_to_string(&path).expect("the file can be read");
    let payloads: Vec<Arc<[u8]>> = text.lines().map(|line| line.as_bytes().into()).collect();
    println!("{} events, {} bytes on average", payloads.len(), text.len() / payloads.len().max(1));
    for (name, with_schema, with_checks) in [
        ("decode, id, key, time, parameters, measure, hash", false, false),
        ("the same with three checks", false, true),
        ("the same with the schema", true, false),
        ("the same with the schema and three checks", true, true),
    ] {
        let mut rules = rules();
        rules.schema = with_schema.then(schema);
        rules.checks = if with_checks { three_checks() } else { Vec::new() };
        let flow = FlowName::new("reserve-stock").expect("the example's name is a flow name");
        let checks = FlowChecks::compile(&rules, &flow).expect("the example's rules compile");
        let mut best = f64::MAX;
        let mut counts = BTreeMap::new();
        for _ in 0..5 {
            counts = BTreeMap::new();
            let start = Instant::now();
            for (offset, payload) in payloads.iter().enumerate() {
                let raw = RawEvent {
                    payload: Arc::clone(payload),
                    payload_bytes: payload.len() as u64,
                    headers: Vec::new(),
                    broker_key: None,
                    partition: "0".into(),
                    offset: offset as u64,
                    taken_at: Timestamp(0),
                };
                let label = match checks.check(raw) {
                    CheckResult::Passed(event) => {
                        if event.flags.is_empty() {
                            "passed"
                        } else {
                            "passed, flagged"
                        }
                    }
                    CheckResult::Refused(_) => "refused",
                };
                *counts.entry(label).or_insert(0_u64) += 1;
            }
            best = best.min(start.elapsed().as_secs_f64());
        }
        println!("{:6.2} us an event: {name} {counts:?}", best * 1e6 / payloads.len() as f64);
    }
}
