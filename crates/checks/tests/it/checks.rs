//! Rows of DESIGN §12 about events that can be decoded.

use crate::{ORDER, check, compile, evidence, inventory, judged, order_with, raw, told};
use recount_checks::{CheckResult, FlowRules, MeasureRule, Otherwise, RouteRule};
use serde_json::json;

#[test]
fn each_order_has_its_verdict() {
    for (field, json, expected) in [
        ("quantity", Some("2"), r#"passed [] [Integer(2), Text("1")]"#),
        ("quantity", Some("101"), r#"passed ["bulk_order"] [Integer(101), Text("1")]"#),
        ("quantity", Some("0"), "skip zero_quantity: quantity = 0; nothing leaves the stock"),
        ("quantity", Some("1000"), "dead-letter too_many: quantity = 1000"),
        (
            "quantity",
            Some("null"),
            "dead-letter check_unevaluable: zero_quantity can't be evaluated: a comparison can't take null and an integer",
        ),
        (
            "quantity",
            Some("\"2\""),
            "dead-letter check_unevaluable: zero_quantity can't be evaluated: a comparison can't take text and an integer",
        ),
        (
            "quantity",
            None,
            "dead-letter check_unevaluable: zero_quantity can't be evaluated: event.quantity is missing",
        ),
        (
            "type",
            Some("\"order.viewed\""),
            "skip not_for_this_flow: events of type order.viewed are not for this flow",
        ),
        ("id", None, "dead-letter no_id: the event has no id: event.id is missing"),
        ("id", Some("null"), "dead-letter no_id: the event has no id: event.id is null"),
        ("id", Some("\"\""), "dead-letter no_id: the event has no id: it is empty"),
        ("id", Some("\"a\\u0000b\""), "dead-letter no_id: the event has no id: it holds a zero byte"),
        (
            "id",
            Some("{}"),
            "dead-letter no_id: the event has no id: it gives an object; text or an integer is needed",
        ),
        (
            "id",
            Some("true"),
            "dead-letter no_id: the event has no id: it gives a truth value; text or an integer is needed",
        ),
        ("sku", None, "dead-letter no_key: the event has no key: event.sku is missing"),
        ("sku", Some("null"), "dead-letter no_key: the event has no key: event.sku is null"),
        ("type", None, r#"passed [] [Integer(2), Text("1")]"#),
    ] {
        assert_eq!(judged(&inventory(), order_with(field, json).as_bytes()), expected, "{field} {json:?}");
    }
    let long = order_with("id", Some(&format!("\"{}\"", "x".repeat(1025))));
    assert!(judged(&inventory(), long.as_bytes()).contains("it has 1025 bytes; the longest is 1024"));
    assert!(
        judged(&inventory(), b"3").starts_with("dead-letter no_id: the event has no id: event is a number")
    );
}

#[test]
fn evidence_names_check_expression_and_fields() {
    let checks = compile(&inventory());
    let zero = order_with("quantity", Some("0"));
    assert_eq!(
        evidence(checks.check(raw(zero.as_bytes(), &[]))),
        json!({ "check": "zero_quantity", "that": "event.quantity > 0", "fields": { "event.quantity": 0 } })
    );
    let missing = order_with("quantity", None);
    assert_eq!(
        evidence(checks.check(raw(missing.as_bytes(), &[]))),
        json!({
            "check": "zero_quantity", "that": "event.quantity > 0",
            "fields": { "event.quantity": "(missing)" }, "error": "event.quantity is missing"
        })
    );
}

#[test]
fn flags_before_a_refusal_are_kept_and_order_decides() {
    let mut rules = inventory();
    rules.checks = vec![
        check("first_flag", "false", Otherwise::Flag, ""),
        check("second", "event.quantity > 5", Otherwise::DeadLetter, ""),
        check("third", "false", Otherwise::Skip, ""),
        check("never_flag", "false", Otherwise::Flag, ""),
    ];
    let CheckResult::Refused(refused) = compile(&rules).check(raw(ORDER.as_bytes(), &[])) else { panic!() };
    assert_eq!(refused.verdict.reason().unwrap().code.as_str(), "second");
    assert_eq!(refused.flags.len(), 1);
    assert_eq!(refused.flags[0].as_str(), "first_flag");
}

#[test]
fn a_check_that_gives_no_truth_value_never_passes() {
    for (that, otherwise) in [("event.sku", Otherwise::Flag), ("event.quantity", Otherwise::Skip)] {
        let rules = FlowRules { checks: vec![check("odd", that, otherwise, "")], ..inventory() };
        let told = judged(&rules, ORDER.as_bytes());
        assert!(
            told.starts_with("dead-letter check_unevaluable: odd can't be evaluated: it gives "),
            "{told}"
        );
    }
}

#[test]
fn the_first_route_that_is_meant_takes_the_event() {
    let route = |when: Option<&str>, with: &[(&str, &str)]| RouteRule {
        when: when.map(str::to_owned),
        with: with.iter().map(|(name, expr)| ((*name).to_owned(), (*expr).to_owned())).collect(),
    };
    let mut rules = inventory();
    rules.routes = vec![
        route(Some("meta.type == 'order.cancelled'"), &[]),
        route(Some("meta.type == 'order.placed'"), &[("sku", "event.sku")]),
        route(Some("true"), &[]),
    ];
    let CheckResult::Passed(event) = compile(&rules).check(raw(ORDER.as_bytes(), &[])) else { panic!() };
    assert_eq!((event.route, event.params.len()), (1, 1));
    rules.routes.truncate(1);
    assert_eq!(
        judged(&rules, ORDER.as_bytes()),
        r#"dead-letter no_route: no apply is meant for it: meta.type = "order.placed""#
    );
    rules.routes[0].when = Some("event.absent == 1".to_owned());
    assert_eq!(
        judged(&rules, ORDER.as_bytes()),
        "dead-letter check_unevaluable: apply[0].when can't be evaluated: event.absent is missing"
    );
    rules.routes = vec![route(None, &[("coupon", "event.coupon")])];
    assert_eq!(
        judged(&rules, ORDER.as_bytes()),
        "dead-letter parameter_missing: parameter coupon can't be had: event.coupon is missing"
    );
    assert_eq!(judged(&rules, order_with("coupon", Some("null")).as_bytes()), "passed [] [Null]");
    let list = judged(&rules, order_with("coupon", Some("[1]")).as_bytes());
    assert!(list.contains("it gives a list, which can't be bound"), "{list}");
    rules.routes = vec![route(None, &[("share", "1.0 / (event.quantity - 2.0)")])];
    let infinite = judged(&rules, ORDER.as_bytes());
    assert!(infinite.contains("parameter share can't be had: it is not a finite number"), "{infinite}");
}

#[test]
fn what_does_not_fit_the_schema_is_told_without_values() {
    let mut rules = inventory();
    rules.schema = Some(json!({
        "type": "object",
        "required": ["sku"],
        "properties": {
            "quantity": { "type": "integer", "minimum": 0 },
            "customer_id": { "type": "string", "maxLength": 4 },
            "lines": { "items": { "properties": { "n": { "enum": [1, 2] } } } }
        },
        "propertyNames": { "maxLength": 20 }
    }));
    rules.checks.clear();
    for (field, json, sentence, first) in [
        (
            "quantity",
            "\"TOP-SECRET\"",
            "/quantity does not fit the schema's type (integer is needed)",
            json!({"path": "/quantity", "keyword": "type", "wanted": "integer is needed"}),
        ),
        (
            "quantity",
            "-5",
            "/quantity does not fit the schema's minimum (at least 0)",
            json!({"path": "/quantity", "keyword": "minimum", "wanted": "at least 0"}),
        ),
        (
            "customer_id",
            "\"TOP-SECRET\"",
            "/customer_id does not fit the schema's maxLength (at most 4 characters)",
            json!({"path": "/customer_id", "keyword": "maxLength", "wanted": "at most 4 characters"}),
        ),
        (
            "lines",
            r#"[{"n":1},{"n":"TOP-SECRET"}]"#,
            "/lines/1/n does not fit the schema's enum",
            json!({"path": "/lines/1/n", "keyword": "enum"}),
        ),
        (
            "TOP-SECRET-AND-VERY-LONG",
            "1",
            "the event does not fit the schema's propertyNames",
            json!({"path": "", "keyword": "propertyNames"}),
        ),
    ] {
        let mut payload = order_with(field, Some(json));
        if field != "customer_id" {
            payload = payload.replace("\"customer_id\":\"TOP-SECRET\"", "\"customer_id\":\"abc\"");
        }
        let result = compile(&rules).check(raw(payload.as_bytes(), &[]));
        assert_eq!(told(&result), format!("dead-letter schema_mismatch: {sentence}"), "{field}");
        assert_eq!(evidence(result)["schema"][0], first, "{field}");
    }
    let payload = order_with("quantity", Some("18446744073709551616")).replace("TOP-SECRET", "a");
    let told = judged(&rules, payload.as_bytes());
    assert!(told.contains("schema_mismatch: the event holds an integer beyond 64 bits"), "{told}");
    // Names below a secret may be values themselves.
    rules.secret = vec!["event.customer_id".to_owned(), "event.cards".to_owned()];
    rules.schema =
        Some(json!({ "properties": { "cards": { "additionalProperties": { "type": "integer" } } } }));
    let payload = order_with("cards", Some(r#"{"TOP-SECRET": "x"}"#));
    let shown = evidence(compile(&rules).check(raw(payload.as_bytes(), &[])));
    assert_eq!(shown["schema"][0]["path"], "/cards");
}

#[test]
fn secrets_reach_neither_evidence_nor_sentence() {
    for (that, shown) in [
        ("event.customer_id == ''", json!({ "event.customer_id": "(secret)" })),
        ("event.customer_id > 3", json!({ "event.customer_id": "(secret)" })),
        ("int(event.customer_id) > 3", json!({ "event.customer_id": "(secret)" })),
        ("event.customer_id.startsWith('x')", json!({ "event.customer_id": "(secret)" })),
        ("event[event.name] == ''", json!({ "event.name": "customer_id", "event": "(secret)" })),
        ("event.all(name, name == '')", json!({ "event": "(secret)" })),
        ("meta.key == ''", json!({ "meta.key": "(secret)" })),
        ("{'a': event.customer_id}['a'] == 1", json!({ "event.customer_id": "(secret)" })),
        ("size(event.customers) > 5", json!({ "event.customers": ["b"] })),
    ] {
        let mut rules = inventory();
        rules.key = Some("event.customer_id".to_owned());
        rules.checks = vec![check("looked_at_it", that, Otherwise::DeadLetter, "because")];
        let payload = order_with("name", Some("\"customer_id\""));
        let payload = payload.replace("\"name\"", "\"customers\":[\"b\"],\"name\"");
        let result = compile(&rules).check(raw(payload.as_bytes(), &[]));
        told(&result);
        assert_eq!(evidence(result)["fields"], shown, "{that}");
    }
}

#[test]
fn secrets_within_lists_are_hidden_with_their_list() {
    let mut rules = inventory();
    rules.secret = vec!["event.lines[].card".to_owned()];
    rules.checks = vec![check("no_card", "event.lines.all(l, l.card == '')", Otherwise::DeadLetter, "")];
    let payload = order_with("lines", Some(r#"[{"card":"4111"}]"#));
    let shown = evidence(compile(&rules).check(raw(payload.as_bytes(), &[])));
    assert_eq!(shown["fields"], json!({ "event.lines": "(secret)" }));
}

#[test]
fn long_values_are_cut_in_evidence_and_sentence() {
    let rules = FlowRules {
        checks: vec![check("short_note", "size(event.note) < 10", Otherwise::DeadLetter, "notes are short")],
        ..inventory()
    };
    let payload = order_with("note", Some(&format!("\"{}\"", "ü".repeat(500))));
    let result = compile(&rules).check(raw(payload.as_bytes(), &[]));
    let told = told(&result);
    assert!(told.ends_with("ü…; notes are short"), "{told}");
    assert!(told.len() < 150, "{told}");
    let shown = evidence(result);
    assert!(shown["fields"]["event.note"].as_str().unwrap().len() <= 203 + 3);
}

#[test]
fn measures_are_taken_of_refused_events_too() {
    let measure =
        |sum: &str, by: Option<&str>| MeasureRule { sum: sum.to_owned(), by: by.map(str::to_owned) };
    let mut rules = inventory();
    rules.measures = vec![
        measure("event.quantity", None),
        measure("event.amount", Some("event.store_id")),
        measure("event.quantity", Some("event.sku")),
        measure("event.sku", None),
    ];
    let amounts = |result: CheckResult| {
        let measures = match result {
            CheckResult::Passed(event) => event.measures.clone(),
            CheckResult::Refused(refused) => refused.measures,
        };
        let shown = |m: recount_model::decision::Measure| format!("{} {:?}", m.amount, m.group);
        measures.into_iter().map(|m| m.map(shown)).collect::<Vec<_>>()
    };
    let with_amount = ORDER.replace("\"quantity\":2", "\"quantity\":0,\"amount\":0.1,\"store_id\":330");
    let seen = amounts(compile(&rules).check(raw(with_amount.as_bytes(), &[])));
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(seen, [some("0 None"), some("0.1 Some(\"330\")"), some("0 None"), None]);
    let without_id = order_with("id", None);
    assert_eq!(amounts(compile(&rules).check(raw(without_id.as_bytes(), &[])))[0], some("2 None"));
    assert_eq!(amounts(compile(&rules).check(raw(b"{", &[]))), [None, None, None, None]);
}

#[test]
fn the_brokers_key_stands_in_where_the_flow_names_none() {
    let rules = FlowRules { key: None, ..inventory() };
    let mut delivery = raw(ORDER.as_bytes(), &[]);
    delivery.broker_key = Some("k".into());
    assert_eq!(compile(&rules).check(delivery.clone()).meta().key.as_deref(), Some("k"));
    assert_eq!(compile(&inventory()).check(delivery.clone()).meta().key.as_deref(), Some("1"));
    delivery.payload = order_with("sku", None).as_bytes().into();
    assert_eq!(compile(&inventory()).check(delivery.clone()).meta().key, None);
    let of_broker = FlowRules { key: Some("meta.key".to_owned()), ..inventory() };
    assert_eq!(compile(&of_broker).check(delivery).meta().key.as_deref(), Some("k"));
}
