//! Rules that can't be used are refused, all at once, with what to write instead.

use crate::{check, compile, inventory, raw};
use recount_checks::{FlowChecks, FlowRules, MeasureRule, Otherwise, RouteRule};
use recount_model::FlowName;
use serde_json::json;

#[test]
fn every_fault_is_told_at_once_and_where() {
    let rules = FlowRules {
        payload_bytes_max: 0,
        depth_max: 128,
        id: Some("event.".to_owned()),
        event_type: Some("kind".to_owned()),
        time: Some(String::new()),
        key: Some("meta.nothing".to_owned()),
        schema: Some(json!({ "type": "strnig" })),
        checks: vec![
            check("fine", "event.a > 1", Otherwise::Skip, ""),
            check("odd", "event.a + 1", Otherwise::Skip, ""),
        ],
        routes: vec![RouteRule {
            when: Some("1".to_owned()),
            with: vec![("sku".to_owned(), "upper(event.sku)".to_owned())],
        }],
        measures: vec![MeasureRule { sum: "(".to_owned(), by: Some(")".to_owned()) }],
        secret: vec!["customer_id".to_owned()],
        ..FlowRules::default()
    };
    let faults = FlowChecks::compile(&rules, &FlowName::new("f").unwrap()).unwrap_err();
    let rules: Vec<&str> = faults.iter().map(|fault| fault.rule.as_str()).collect();
    assert_eq!(
        rules,
        [
            "payload_bytes_max",
            "depth_max",
            "id",
            "type",
            "time",
            "key",
            "schema",
            "check[1].that",
            "apply[0].when",
            "apply[0].with.sku",
            "measure[0].sum",
            "measure[0].by",
            "secret[0]"
        ]
    );
    for fault in &faults {
        assert!(!fault.message.is_empty() && !fault.message.contains('\n'), "{fault:?}");
    }
}

#[test]
fn a_schema_can_not_reach_out_and_a_loop_in_it_is_no_danger() {
    let with = |schema| FlowRules { schema: Some(schema), ..inventory() };
    let flow = FlowName::new("f").unwrap();
    let far = with(json!({ "$ref": "https://example.com/order.json" }));
    assert!(
        FlowChecks::compile(&far, &flow).unwrap_err()[0].message.contains("references must lie within it")
    );
    let file = with(json!({ "$ref": "file:///etc/passwd" }));
    assert!(FlowChecks::compile(&file, &flow).is_err());
    let tree = json!({ "properties": { "child": { "$ref": "#" } } });
    compile(&with(tree));
}

#[test]
fn expressions_of_any_length_and_depth_are_taken_or_refused() {
    let compiles = |text: String| {
        let rules = FlowRules { id: Some(text), ..FlowRules::default() };
        let compiled = FlowChecks::compile(&rules, &FlowName::new("f").unwrap());
        // Evaluating goes as deep as the expression.
        compiled.map(|checks| checks.check(raw(br#"{"a":[true]}"#, &[]))).is_ok()
    };
    assert!(!compiles("(".repeat(4000)));
    assert!(!compiles("-".repeat(4000)));
    assert!(!compiles(format!("{}1{}", "[".repeat(1500), "]".repeat(1500))));
    assert!(!compiles("event.a + ".repeat(1000)));
    for (part, times) in [(".a", 299), (" + 1", 298), (" && a", 149), (" == 1", 149), ("[0]", 298)] {
        assert!(!compiles(format!("event.a{}", part.repeat(1000))), "{part}");
        compiles(format!("event.a{}", part.repeat(times)));
    }
    assert!(!compiles(format!("r'\\' == event.a{}", " + 1".repeat(1000))));
    assert!(!compiles(format!("'''a'b''' == event.a{}", " + 1".repeat(1000))));
    compiles(format!("{}event.a", "!".repeat(300)));
    compiles(format!("{}1{}", "[".repeat(90), "]".repeat(90)));
    compiles(format!("event.a{}", " ? event.a".repeat(100)));
    compiles(format!("event.a{}", ".all(a, a)".repeat(100)));
    compiles(format!("{}true{}", "event.a.all(a, ".repeat(95), ")".repeat(95)));
}

#[test]
fn checks_are_shared_between_threads() {
    fn shared<T: Send + Sync>() {}
    shared::<FlowChecks>();
}
