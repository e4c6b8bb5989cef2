//! Whatever the text: an expression compiles or is refused with a sentence, and evaluates without a panic.

#![no_main]

use libfuzzer_sys::fuzz_target;
use recount_checks::{FlowChecks, FlowRules, MeasureRule, RawEvent, RouteRule, fields_named, path_in_schema};
use recount_model::{FlowName, Timestamp};

const EVENT: &[u8] =
    br#"{"id":"7-1","type":"order.placed","sku":"1","quantity":2,"amount":0.5,"lines":[{"n":1},{"n":null}],"big":18446744073709551615}"#;

fuzz_target!(|text: &str| {
    match fields_named(text) {
        Ok(fields) => {
            let schema = serde_json::json!({ "properties": { "sku": {}, "lines": { "items": { "$ref": "#" } } } });
            for field in fields {
                path_in_schema(&schema, &field);
            }
        }
        Err(message) => assert!(!message.is_empty()),
    }
    let rules = FlowRules {
        id: Some("event.id".to_owned()),
        key: Some(text.to_owned()),
        routes: vec![RouteRule { when: None, with: vec![("p".to_owned(), text.to_owned())] }],
        measures: vec![MeasureRule { sum: text.to_owned(), by: None }],
        ..FlowRules::default()
    };
    let Ok(flow) = FlowName::new("fuzzed") else { return };
    if let Ok(checks) = FlowChecks::compile(&rules, &flow) {
        let raw = RawEvent {
            payload: EVENT.into(),
            payload_bytes: EVENT.len() as u64,
            headers: Vec::new(),
            broker_key: None,
            partition: "0".into(),
            offset: 7,
            taken_at: Timestamp(0),
        };
        let _ = checks.check(raw);
    }
});
