//! Integers, 3 and 3.0, large integers, floats and null: one table for everything that takes a value.
//!
//! What it shows: 3 and 3.0 are one id and one key, are equal in expressions, and are bound as they are
//! written (SQL divides them differently). An integer is exact up to 64 bits, unsigned, as id, key and in
//! expressions, and up to 64 bits, signed, as a parameter; beyond that it is refused, never rounded.

use crate::{check, compile, inventory, order_with, raw};
use recount_checks::{CheckResult, FlowRules, MeasureRule, Otherwise, RouteRule};

/// What became of the event where `n` is used in one way: the value, or the reason's code.
fn used(json: Option<&str>, rules: &FlowRules) -> String {
    let payload = order_with("n", json);
    match compile(rules).check(raw(payload.as_bytes(), &[])) {
        CheckResult::Refused(refused) => refused.verdict.reason().unwrap().code.to_string(),
        CheckResult::Passed(event) => match event.params.first() {
            Some(param) => format!("{param:?}"),
            None => {
                let measure = event.measures.first().map(|m| m.as_ref().map(|m| m.amount.to_string()));
                let flagged =
                    || if event.flags.is_empty() { "holds".to_owned() } else { "doesn't".to_owned() };
                measure.map_or_else(flagged, |amount| amount.unwrap_or("none".to_owned()))
            }
        },
    }
}

fn identified(json: Option<&str>, rules: &FlowRules, key: bool) -> String {
    let payload = order_with("n", json);
    match compile(rules).check(raw(payload.as_bytes(), &[])) {
        CheckResult::Refused(refused) => refused.verdict.reason().unwrap().code.to_string(),
        CheckResult::Passed(event) => {
            let text = if key { event.meta.key.clone() } else { event.meta.id.clone() };
            text.unwrap().to_string()
        }
    }
}

#[test]
fn numbers_are_exact_or_refused() {
    let bare = FlowRules { checks: Vec::new(), routes: Vec::new(), ..inventory() };
    let as_id = FlowRules { id: Some("event.n".to_owned()), ..bare.clone() };
    let as_key = FlowRules { key: Some("event.n".to_owned()), ..bare.clone() };
    let flag = |that: &str| FlowRules { checks: vec![check("f", that, Otherwise::Flag, "")], ..bare.clone() };
    let (equals_3, below) = (flag("event.n == 3"), flag("event.n < 9007199254740993"));
    let with = vec![("n".to_owned(), "event.n".to_owned())];
    let as_param = FlowRules { routes: vec![RouteRule { when: None, with }], ..bare.clone() };
    let as_measure =
        FlowRules { measures: vec![MeasureRule { sum: "event.n".to_owned(), by: None }], ..bare.clone() };
    let (no_id, no_key) = ("no_id", "no_key");
    let (cant, unbound) = ("check_unevaluable", "parameter_missing");
    #[rustfmt::skip]
    let table = [
        // json                   id             key            == 3      < 2^53 + 1 parameter               measure
        (Some("3"),               "3",           "3",           "holds",   "holds",   "Integer(3)",           "3"),
        (Some("3.0"),             "3",           "3",           "holds",   "holds",   "Real(3.0)",            "3"),
        (Some("3e0"),             "3",           "3",           "holds",   "holds",   "Real(3.0)",            "3"),
        (Some("-3"),              "-3",          "-3",          "doesn't", "holds",   "Integer(-3)",          "-3"),
        (Some("-0"),              "0",           "0",           "doesn't", "holds",   "Real(-0.0)",           "0"),
        (Some("3.5"),             no_id,         no_key,        "doesn't", "holds",   "Real(3.5)",            "3.5"),
        (Some("0.1"),             no_id,         no_key,        "doesn't", "holds",   "Real(0.1)",            "0.1"),
        (Some("9007199254740992"), "9007199254740992", "9007199254740992", "doesn't", "holds", "Integer(9007199254740992)", "9007199254740992"),
        (Some("9007199254740993"), "9007199254740993", "9007199254740993", "doesn't", "doesn't", "Integer(9007199254740993)", "9007199254740993"),
        (Some("9007199254740992.0"), "9007199254740992", "9007199254740992", "doesn't", "holds", "Real(9007199254740992.0)", "9007199254740992"),
        (Some("9007199254740994.0"), no_id,      no_key,        "doesn't", "doesn't", "Real(9007199254740994.0)", "9007199254740994"),
        (Some("9223372036854775807"), "9223372036854775807", "9223372036854775807", "doesn't", "doesn't", "Integer(9223372036854775807)", "9223372036854775807"),
        (Some("-9223372036854775808"), "-9223372036854775808", "-9223372036854775808", "doesn't", "holds", "Integer(-9223372036854775808)", "-9223372036854775808"),
        (Some("9223372036854775808"), "9223372036854775808", "9223372036854775808", "doesn't", "doesn't", unbound, "9223372036854775808"),
        (Some("18446744073709551615"), "18446744073709551615", "18446744073709551615", "doesn't", "doesn't", unbound, "18446744073709551615"),
        (Some("18446744073709551616"), no_id,    no_key,        cant,      cant,      unbound,                "none"),
        (Some("-9223372036854775809"), no_id,    no_key,        cant,      cant,      unbound,                "none"),
        (Some("123456789012345678901234567890"), no_id, no_key, cant,      cant,      unbound,                "none"),
        (Some("1e20"),            no_id,         no_key,        "doesn't", "doesn't", "Real(1e20)",           "100000000000000000000"),
        (Some("1e300"),           no_id,         no_key,        "doesn't", "doesn't", "Real(1e300)",          "none"),
        (Some("\"3\""),           "3",           "3",           "doesn't", cant,      "Text(\"3\")",          "none"),
        (Some("null"),            no_id,         no_key,        "doesn't", cant,      "Null",                 "none"),
        (Some("true"),            no_id,         no_key,        "doesn't", cant,      "Bool(true)",           "none"),
        (Some("[3]"),             no_id,         no_key,        "doesn't", cant,      unbound,                "none"),
        (None,                    no_id,         no_key,        cant,      cant,      unbound,                "none"),
    ];
    for (json, id, key, equal, less, param, measure) in table {
        assert_eq!(identified(json, &as_id, false), id, "{json:?} as id");
        assert_eq!(identified(json, &as_key, true), key, "{json:?} as key");
        assert_eq!(used(json, &equals_3), equal, "{json:?} == 3");
        assert_eq!(used(json, &below), less, "{json:?} < 2^53 + 1");
        assert_eq!(used(json, &as_param), param, "{json:?} as parameter");
        assert_eq!(used(json, &as_measure), measure, "{json:?} as measure");
    }
}

#[test]
fn the_library_never_sees_a_number_that_it_would_round() {
    let rules = FlowRules {
        checks: vec![check("f", "event.?n.orValue(0) == 9007199254740992.0", Otherwise::Flag, "")],
        routes: Vec::new(),
        ..inventory()
    };
    assert_eq!(used(Some("3"), &rules), "doesn't");
    assert_eq!(used(None, &rules), "doesn't");
    assert_eq!(used(Some("9007199254740993"), &rules), "check_unevaluable");
    assert_eq!(used(Some("18446744073709551615"), &rules), "check_unevaluable");
    assert_eq!(used(Some("18446744073709551616"), &rules), "check_unevaluable");
}
