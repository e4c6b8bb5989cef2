//! Our evaluation, by table and against the `cel` crate's own.

use super::*;
use cel::objects::{Key, Map};
use proptest::prelude::*;
use recount_model::{Header, Meta, Timestamp};
use serde_json::{Value as Json, json};
use std::sync::Arc;

fn meta() -> Meta {
    Meta {
        id: Some("77".into()),
        event_type: Some("order.placed".into()),
        time: Some(Timestamp(1000)),
        headers: vec![
            Header { name: "tenant".into(), value: "a".into() },
            Header { name: "tenant".into(), value: "b".into() },
        ],
        partition: "0".into(),
        offset: 12,
        taken_at: Timestamp(5000),
        ..Meta::default()
    }
}

/// What an expression comes to, written as text.
fn outcome(text: &str, event: &Json) -> String {
    let expr = match Expr::compile(text) {
        Ok(expr) => expr,
        Err(message) => return format!("fault: {message}"),
    };
    let meta = meta();
    let mut scope = Scope::new(event, false, &meta);
    match expr.evaluate(&mut scope) {
        Ok(value) => shown(&value),
        Err(error) => format!("error: {error}"),
    }
}

fn shown(value: &Val<'_>) -> String {
    match value {
        Val::Null => "null".to_owned(),
        Val::Bool(truth) => truth.to_string(),
        Val::Int(int) => int.to_string(),
        Val::UInt(uint) => format!("{uint}u"),
        Val::Double(double) => format!("{double:?}"),
        Val::Str(text) => format!("{text:?}"),
        Val::Text(text) => format!("{text:?}"),
        Val::List(items) => format!("[{}]", items.iter().map(shown).collect::<Vec<_>>().join(", ")),
        Val::Array(items) => {
            let items = items.iter().map(|item| shown(&Val::from_json(item, false).unwrap()));
            format!("[{}]", items.collect::<Vec<_>>().join(", "))
        }
        Val::Object(fields) => {
            let mut fields: Vec<_> = fields
                .iter()
                .map(|(name, value)| format!("{name:?}: {}", shown(&Val::from_json(value, false).unwrap())))
                .collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        Val::Headers(headers) => format!("{} headers", headers.len()),
    }
}

#[test]
fn expressions_come_to_what_cel_says() {
    let event = json!({
        "quantity": 3, "whole": 3.0, "amount": 0.5, "sku": "a-1", "none": null, "yes": true,
        "big": 18_446_744_073_709_551_615_u64, "lines": [{ "n": 1 }, { "n": 2 }, { "n": 3 }],
        "address": { "city": "Köln" }, "list": [1, 2.0, "x"], "a b": 1
    });
    for (text, expected) in [
        ("event.quantity > 0", "true"),
        ("event.quantity == event.whole", "true"),
        ("event.quantity in [1, 3]", "true"),
        ("event.whole in [1, 3]", "true"),
        ("event.quantity + 1", "4"),
        ("event.amount * 2", "1.0"),
        ("event.quantity / 2", "1"),
        ("event.whole / 2", "1.5"),
        ("event.big > 0", "true"),
        ("event.big - 1", "18446744073709551614u"),
        ("event.big + 1", "error: the result is beyond 64-bit integers"),
        ("event.missing > 0", "error: event.missing is missing"),
        ("event.address.zip == ''", "error: event.address.zip is missing"),
        ("event.sku.zip == ''", "error: event.sku is text and holds nothing"),
        ("event.lines[7].n == 1", "error: event.lines[7] is beyond the end of its list"),
        ("event.sku > 1", "error: a comparison can't take text and an integer"),
        ("event.sku == 1", "false"),
        ("event.none == null", "true"),
        ("event.none > 0", "error: a comparison can't take null and an integer"),
        ("has(event.none)", "true"),
        ("has(event.missing)", "false"),
        ("has(event.missing.deeper)", "error: event.missing is missing"),
        ("has(event.lines[0].n) && has(event.lines[0].m) == false", "true"),
        ("event.missing > 0 || event.yes", "true"),
        ("event.yes || event.missing > 0", "true"),
        ("event.missing > 0 && !event.yes", "false"),
        ("event.missing > 0 && event.yes", "error: event.missing is missing"),
        ("event.yes && 1", "error: && can't take an integer"),
        ("event.quantity ? 1 : 2", "error: ?: can't take an integer"),
        ("event.yes ? 'y' : event.missing", "\"y\""),
        ("event.sku + '/' + string(event.quantity)", "\"a-1/3\""),
        ("size(event.address.city) == 4 && event.lines.size() == 3", "true"),
        ("event['a b'] == 1", "true"),
        ("event.sku.startsWith('a') && event.sku.endsWith('1') && event.sku.contains('-')", "true"),
        ("event.sku.matches('^[a-z]-[0-9]$')", "true"),
        ("event.lines.all(l, l.n > 0)", "true"),
        ("event.lines.all(l, l.m > 0)", "error: the field m is missing"),
        ("event.lines.exists(l, l.n == 2)", "true"),
        ("event.list.exists(x, x > 5 || x == 'x')", "true"),
        ("event.lines.exists_one(l, l.n > 2)", "true"),
        ("event.lines.map(l, l.n * 2)", "[2, 4, 6]"),
        ("event.lines.map(l, l.n > 1, l.n)", "[2, 3]"),
        ("event.lines.filter(l, l.n > 1).size()", "2"),
        ("event.address.map(name, name)", "[\"city\"]"),
        ("event.lines.all(event, event.n > 0)", "true"),
        ("int('12') + int(3.9) + int(event.big)", "error: the result is beyond 64-bit integers"),
        ("int('x')", "error: a text is not the number it should be"),
        ("double(event.big)", "error: an integer beyond 2^53 can't be made a floating-point number exactly"),
        ("-event.quantity", "-3"),
        ("-(-9223372036854775808)", "error: the result is beyond 64-bit integers"),
        ("9223372036854775807 + 1", "error: the result is beyond 64-bit integers"),
        ("1 / 0", "error: it divides by zero"),
        ("meta.type == 'order.placed' && meta.id == '77'", "true"),
        ("meta.key == null && !has(meta.key) && has(meta.id)", "true"),
        ("meta.taken_at - meta.time < 10000", "true"),
        ("meta.headers.tenant", "\"b\""),
        ("meta.headers['absent'] == ''", "error: a value is missing"),
        ("'tenant' in meta.headers && size(meta.headers) == 1", "true"),
        ("meta.offset", "12"),
        ("event.?missing.orValue(0) == 0", "true"),
        ("{'a': 1, 'b': 2}['b'] == 2", "true"),
        ("type(event.quantity) == int", "true"),
        ("dyn(event.quantity) == 3", "true"),
        ("quantity > 0", "fault: quantity is not known; expressions know event.… and meta.…"),
        ("meta", "fault: name a field of meta: id, key, type, time, headers, partition, offset, taken_at"),
        ("lenght(event.sku)", "fault: there is no function lenght()"),
        ("event.sku.matches(event.sku)", "fault: the pattern of matches() must be written out"),
        ("  ", "fault: it is empty; write an expression such as event.id"),
    ] {
        assert_eq!(outcome(text, &event), expected, "{text}");
    }
    assert!(outcome("event.quantity >", &event).starts_with("fault: it is not CEL"));
    assert!(outcome("meta.colour == 1", &event).starts_with("fault: meta has no field colour"));
    assert!(outcome("timestamp(event.sku)", &event).contains("meta.time and meta.taken_at"));
    assert!(outcome("event.?lines.orValue([]).all(l, l.n > 0)", &event).starts_with("fault: an optional"));
}

#[test]
fn a_rounded_integer_is_an_error_wherever_it_is_used() {
    let event = json!({ "n": 1e20, "list": [1e20], "small": 0.5 });
    let meta = meta();
    for text in ["event.n > 5", "event.n == 1.0", "event.list == [1]", "1 in event.list", "event.list[0] > 0"]
    {
        let expr = Expr::compile(text).unwrap();
        let result = expr.evaluate(&mut Scope::new(&event, true, &meta)).map(|value| shown(&value));
        assert!(result.is_err(), "{text}: {result:?}");
        let exact = expr.evaluate(&mut Scope::new(&event, false, &meta)).map(|value| shown(&value));
        assert!(exact.is_ok(), "{text}: {exact:?}");
    }
    let small = Expr::compile("event.small > 0.0").unwrap();
    assert!(small.evaluate(&mut Scope::new(&event, true, &meta)).is_ok());
}

#[test]
fn work_on_one_event_is_bounded() {
    let event = json!({ "list": (0..2000).collect::<Vec<_>>() });
    let nested = "event.list.all(a, event.list.all(b, event.list.all(c, a + b + c >= 0)))";
    assert_eq!(outcome(nested, &event), "error: it takes more than 1000000 steps on this event");
    assert_eq!(outcome("event.list.all(a, a >= 0)", &event), "true");
}

#[test]
fn the_common_subset_does_not_need_the_library() {
    for (text, needed) in [
        ("event.quantity > 0 && event.sku in ['a'] && event.lines.all(l, l.n > 0)", false),
        ("event.?a.hasValue()", true),
        ("{'a': event.b} == {'a': 1}", true),
    ] {
        assert_eq!(Expr::compile(text).unwrap().needs_library(), needed, "{text}");
    }
}

#[test]
fn a_test_that_can_only_give_a_number_is_a_fault() {
    for text in ["event.a + 1", "1", "size(event.a)", "event.yes ? 1 : 2", "meta.offset"] {
        assert!(Expr::compile_test(text).is_err(), "{text}");
    }
    for text in ["event.a", "event.a > 1", "event.yes ? true : 2", "event.list.exists(x, x)"] {
        assert!(Expr::compile_test(text).is_ok(), "{text}");
    }
}

#[test]
fn the_fields_that_an_expression_names_are_listed() {
    for (text, expected) in [
        ("event.quantity > 0 && event.quantity <= 100", "event.quantity"),
        ("has(event.a.b) || meta.key == ''", "event.a.b"),
        ("event['a b'][0] == event[\"c\"]", "event[\"a b\"][0] event.c"),
        ("event.lines.all(l, l.price > event.min)", "event.lines event.lines[].price event.min"),
        (
            "event.lines.exists(l, l.parts.exists(p, p.id == l.id))",
            "event.lines event.lines[].parts event.lines[].parts[].id event.lines[].id",
        ),
        ("event[event.field] == 1", "event.field event"),
        ("event.?a.orValue(0) == 1", "event.a"),
        ("size(event) > 0", "event"),
    ] {
        assert_eq!(fields_named(text).unwrap().join(" "), expected, "{text}");
    }
    assert!(fields_named("event.").is_err());
}

#[test]
fn a_secret_is_read_by_what_holds_it_and_by_what_it_holds() {
    let secret =
        ["event.customer.id", "event.lines[].price", "meta.headers.token", "meta.headers[\"x-customer\"]"]
            .map(str::to_owned);
    for (expression, expected) in [
        ("event.customer.id", true),
        ("event.customer.id.local", true),
        ("size(event.customer.id) > 3 && event.sku != ''", true),
        ("event.customer.name", false),
        ("event.customer.identity", false),
        ("string(event.lines[0].price)", true),
        ("meta.headers.token", true),
        ("meta.headers['token']", true),
        ("meta.headers[\"x-customer\"]", true),
        ("meta.headers.?token.orValue('')", true),
        ("meta.headers.tenant", false),
        ("meta.id", false),
        ("not CEL (", false),
    ] {
        assert_eq!(reads_any_of(expression, &secret), expected, "{expression}");
    }
}

/// As the `cel` crate takes JSON: whole numbers as they are.
fn to_cel(json: &Json) -> cel::Value {
    match json {
        Json::Null => cel::Value::Null,
        Json::Bool(truth) => cel::Value::Bool(*truth),
        Json::String(text) => cel::Value::String(Arc::new(text.clone())),
        Json::Number(number) => match (number.as_i64(), number.as_u64()) {
            (Some(int), _) => cel::Value::Int(int),
            (None, Some(uint)) => cel::Value::UInt(uint),
            (None, None) => cel::Value::Float(number.as_f64().unwrap()),
        },
        Json::Array(items) => cel::Value::List(Arc::new(items.iter().map(to_cel).collect())),
        Json::Object(fields) => {
            let fields =
                fields.iter().map(|(name, value)| (Key::String(Arc::new(name.clone())), to_cel(value)));
            cel::Value::Map(Map { map: Arc::new(fields.collect()) })
        }
    }
}

fn shown_by_cel(value: &cel::Value) -> String {
    match value {
        cel::Value::Null => "null".to_owned(),
        cel::Value::Bool(truth) => truth.to_string(),
        cel::Value::Int(int) => int.to_string(),
        cel::Value::UInt(uint) => format!("{uint}u"),
        cel::Value::Float(double) => format!("{double:?}"),
        cel::Value::String(text) => format!("{text:?}"),
        cel::Value::List(items) => {
            format!("[{}]", items.iter().map(shown_by_cel).collect::<Vec<_>>().join(", "))
        }
        cel::Value::Map(map) => {
            let named = |(key, value): (&Key, &cel::Value)| match key {
                Key::String(name) => format!("{name:?}: {}", shown_by_cel(value)),
                other => format!("{other}: {}", shown_by_cel(value)),
            };
            let mut fields: Vec<_> = map.map.iter().map(named).collect();
            fields.sort();
            format!("{{{}}}", fields.join(", "))
        }
        other => format!("{other:?}"),
    }
}

fn outcome_by_cel(text: &str, event: &Json) -> Option<String> {
    let program = cel::Program::compile(text).unwrap();
    let mut context = cel::Context::default();
    context.add_variable_from_value("event", to_cel(event));
    program.execute(&context).ok().map(|value| shown_by_cel(&value))
}

/// Numbers on which the crate's rounded comparison of integers and doubles is exact too.
const SMALL_NUMBERS: &[&str] = &["0", "1", "-1", "3", "3.0", "2.5", "-0.5", "100", "9007199254740992"];
/// Without doubles.
const EXTREME_NUMBERS: &[&str] = &[
    "0",
    "1",
    "-1",
    "9223372036854775807",
    "-9223372036854775808",
    "9223372036854775808",
    "18446744073709551615",
];

fn event_of(numbers: &'static [&'static str]) -> impl Strategy<Value = Json> {
    let scalar = prop_oneof![
        6 => prop::sample::select(numbers).prop_map(|text| serde_json::from_str(text).unwrap()),
        2 => prop::sample::select(vec!["", "a", "ab", "3", "köln"]).prop_map(Json::from),
        1 => Just(Json::Null),
        1 => any::<bool>().prop_map(Json::from),
    ];
    let list = prop::collection::vec(scalar.clone(), 0..4).prop_map(Json::from);
    // One field: the crate goes through an object in no certain order.
    let object = scalar.clone().prop_map(|x| json!({ "x": x }));
    let value = prop_oneof![5 => scalar, 1 => list.clone()];
    (value.clone(), value.clone(), value, list, object)
        .prop_map(|(a, b, c, list, object)| json!({ "a": a, "b": b, "c": c, "list": list, "object": object }))
}

fn expression_of(literals: &'static [&'static str]) -> impl Strategy<Value = String> {
    let names =
        vec!["event.a", "event.b", "event.c", "event.list", "event.object", "event.object.x", "event.none"];
    let leaf = prop_oneof![
        6 => prop::sample::select(names).prop_map(str::to_owned),
        3 => prop::sample::select(literals).prop_map(|text| if text.parse::<i64>().is_err() && !text.contains('.') {
            format!("{text}u")
        } else {
            format!("({text})")
        }),
        2 => prop::sample::select(vec!["''", "'a'", "'x'", "'ab'", "true", "false", "null", "[]"]).prop_map(str::to_owned),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let operators = vec![
            "==", "!=", "<", "<=", ">", ">=", "&&", "||", "+", "-", "*", "/", "%", "in", "==", "<", "&&", "||",
        ];
        let methods = vec!["startsWith", "endsWith", "contains"];
        let functions = vec!["size", "int", "uint", "double", "string", "!", "-"];
        let macros = vec!["all", "exists", "exists_one", "map", "filter"];
        prop_oneof![
            8 => (inner.clone(), prop::sample::select(operators), inner.clone())
                .prop_map(|(a, operator, b)| format!("({a} {operator} {b})")),
            1 => (inner.clone(), inner.clone(), inner.clone()).prop_map(|(a, b, c)| format!("({a} ? {b} : {c})")),
            1 => (inner.clone(), prop::sample::select(methods), inner.clone())
                .prop_map(|(a, method, b)| format!("({a}).{method}({b})")),
            2 => (prop::sample::select(functions), inner.clone()).prop_map(|(function, a)| format!("{function}({a})")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("({a})[{b}]")),
            1 => (inner.clone(), inner.clone()).prop_map(|(a, b)| format!("[{a}, {b}]")),
            1 => prop::sample::select(vec!["has(event.a)", "has(event.none)", "has(event.object.y)", "has(event.a.x)"])
                .prop_map(str::to_owned),
            2 => (inner.clone(), prop::sample::select(macros), inner)
                .prop_map(|(range, name, body)| format!("({range}).{name}(i, i == event.a || ({body}))")),
        ]
    })
}

/// Where CEL defines a value, ours is the same. Where ours defines one and CEL does not, it is one of the
/// differences that `eval.rs` names, all of which need arithmetic.
fn agree(text: &str, event: &Json) -> Result<(), TestCaseError> {
    let Ok(expr) = Expr::compile(text) else {
        return Err(TestCaseError::fail(format!("{text} does not compile: {:?}", Expr::compile(text))));
    };
    prop_assert!(!expr.needs_library());
    let meta = meta();
    let mut scope = Scope::new(event, false, &meta);
    let ours = expr.evaluate(&mut scope);
    let theirs = outcome_by_cel(text, event);
    // The crate rounds large integers where it makes them doubles or compares them with doubles.
    let large = |text: &str| {
        ["9007199254740992", "922337203685477580", "18446744073709551615"]
            .iter()
            .any(|number| text.contains(number))
    };
    if text.contains("double(") && (large(text) || large(&event.to_string())) {
        return Ok(());
    }
    match (ours, theirs) {
        (Ok(ours), Some(theirs)) => prop_assert_eq!(shown(&ours), theirs, "{} on {}", text, event),
        (Err(error), Some(theirs)) => {
            // The crate, unlike CEL, adds an object's names to a list.
            let adds_names = text.contains('+') && text.contains("event.object");
            prop_assert!(adds_names, "{} on {}: {} but {}", text, event, error, theirs);
        }
        (Ok(ours), None) => {
            let arithmetic = ["+", "-", "*", "/", "%"].iter().any(|operator| text.contains(operator));
            prop_assert!(arithmetic, "{} on {}: {} but undefined", text, event, shown(&ours));
        }
        (Err(_), None) => {}
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 3000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn ours_agrees_with_the_library(text in expression_of(SMALL_NUMBERS), event in event_of(SMALL_NUMBERS)) {
        agree(&text, &event)?;
    }

    #[test]
    fn ours_agrees_with_the_library_at_the_edges(
        text in expression_of(EXTREME_NUMBERS), event in event_of(EXTREME_NUMBERS)
    ) {
        agree(&text, &event)?;
    }
}
