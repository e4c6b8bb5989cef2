//! DESIGN §12: what bad input gets.

use crate::harness::{TAKE_FROM_STOCK, World, config, fate, order};

/// Runs the lines through a flow and holds each fate against what is expected.
#[track_caller]
fn check(world: &World, cases: &[(&[u8], &str, &str)]) {
    let lines: Vec<&[u8]> = cases.iter().map(|(line, _, _)| *line).collect();
    world.lines(&lines);
    let told = world.run();
    assert!(told.code == Some(0) || told.code == Some(1), "{}", told.all());
    let decisions = world.decisions();
    let mut found = String::new();
    let mut expected = String::new();
    for (decision, (line, fate_expected, said)) in decisions.iter().zip(cases) {
        let line = String::from_utf8_lossy(&line[..line.len().min(60)]).into_owned();
        let sentence = decision["sentence"].as_str().unwrap_or_default();
        let told = if sentence.contains(said) { *said } else { sentence };
        found.push_str(&format!("{line} => {} ({told})\n", fate(decision)));
        expected.push_str(&format!("{line} => {fate_expected} ({said})\n"));
    }
    assert_eq!(found, expected);
    assert_eq!(decisions.len(), cases.len());
}

#[test]
fn bytes_that_are_no_event_are_dead_letters_that_say_what_they_look_like() {
    let world = World::stock("payload_max = \"512B\"\ndepth_max = 8\n");
    let deep = format!("{}{}", "[".repeat(20), "]".repeat(20));
    let large = order(&"x".repeat(600), "a", 1);
    let utf_16: Vec<u8> = "{\"id\":1}".encode_utf16().flat_map(u16::to_be_bytes).collect();
    let registry = [&[0, 0, 0, 0, 7][..], b"\x02\x0babcde"].concat();
    let cases: &[(&[u8], &str, &str)] = &[
        (b"not JSON", "dead-lettered decode_failed", "JSON"),
        (b"{\"id\":\"x1\",", "dead-lettered decode_failed", ""),
        (b"{\"id\":\"\xff\xfe\"}", "dead-lettered decode_failed", "UTF-8"),
        (&utf_16, "dead-lettered decode_failed", "UTF-16"),
        (&registry, "dead-lettered decode_failed", "registry"),
        (b"\x1f\x8b\x08\x00aaaa", "dead-lettered decode_failed", "gzip"),
        (b"<order id='1'/>", "dead-lettered decode_failed", "XML"),
        (deep.as_bytes(), "dead-lettered decode_failed", "8"),
        (large.as_bytes(), "dead-lettered payload_too_large", "512"),
        (br#"{"id":"o9","sku":"a","quantity":1}"#, "applied", ""),
    ];
    check(&world, cases);
    assert_eq!(world.on_hand("a"), 99);
    let shown = world.recount(&["dead-letters", "show", "stock/0/8", "--json"]);
    let shown = if shown.code == Some(0) { shown } else { show_at(&world, 8) };
    let letter = shown.json();
    assert_eq!(letter["payload_bytes"], large.len());
    assert!(shown.out.contains(&"x".repeat(400)), "the bytes are kept up to the limit: {}", shown.out);
    assert!(!shown.out.contains(&"x".repeat(513)), "and not beyond it");
}

fn show_at(world: &World, offset: usize) -> crate::harness::Told {
    let position = world.decisions()[offset]["position"].as_str().unwrap().to_owned();
    world.recount(&["dead-letters", "show", &position, "--json"]).expect(0)
}

#[test]
fn what_is_missing_or_can_not_be_evaluated_is_never_a_pass() {
    let checks = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "any"
because = "an order line for nothing"
"#;
    let world = World::new(&config("", &format!("{checks}{TAKE_FROM_STOCK}")));
    let cases: &[(&[u8], &str, &str)] = &[
        (br#"{"sku":"a","quantity":1}"#, "dead-lettered no_id", ""),
        (br#"{"id":null,"sku":"a","quantity":1}"#, "dead-lettered no_id", ""),
        (br#"{"id":"i3","quantity":1}"#, "dead-lettered no_key", ""),
        (br#"{"id":"i4","sku":"a"}"#, "dead-lettered check_unevaluable", "quantity"),
        (br#"{"id":"i5","sku":"a","quantity":"3"}"#, "dead-lettered check_unevaluable", ""),
        (br#"{"id":"i6","sku":"a","quantity":null}"#, "dead-lettered check_unevaluable", ""),
        (br#"{"id":"i7","sku":"a","quantity":3}"#, "applied", ""),
        (br#"{"id":"i8","sku":"a","quantity":3.0}"#, "applied", ""),
        (br#"{"id":"i9","sku":"a","quantity":0}"#, "skipped zero_quantity", ""),
        (br#"{"id":"i10","sku":"a","quantity":9007199254740993}"#, "dead-lettered insufficient_stock", ""),
        (br#"{"id":"i11","sku":"zz","quantity":1}"#, "dead-lettered unknown_sku", ""),
        (br#"{"id":12,"sku":"b","quantity":1}"#, "applied", ""),
    ];
    check(&world, cases);
    assert_eq!((world.on_hand("a"), world.on_hand("b")), (94, 99));
}

#[test]
fn a_parameter_that_can_not_be_had_is_a_dead_letter() {
    let world = World::stock("");
    let cases: &[(&[u8], &str, &str)] = &[
        (br#"{"id":"i0","sku":"a"}"#, "dead-lettered parameter_missing", "quantity"),
        (br#"{"id":"i1","sku":"a","quantity":1}"#, "applied", ""),
    ];
    check(&world, cases);
}

#[test]
fn a_statement_that_changes_no_row_or_too_many_or_errs_leaves_nothing() {
    let apply = r#"
[flow.stock.apply]
database = "shop"
sql = "UPDATE stock SET on_hand = on_hand + :quantity WHERE sku = :sku OR :sku = 'all'"
with = { quantity = "event.quantity", sku = "event.sku" }
rows = 1
"#;
    let world = World::new(&config("", apply));
    let cases: &[(&[u8], &str, &str)] = &[
        (br#"{"id":"i0","sku":"a","quantity":1}"#, "applied", ""),
        (br#"{"id":"i1","sku":"zz","quantity":1}"#, "dead-lettered rows_unexpected", "0"),
        (br#"{"id":"i2","sku":"all","quantity":1}"#, "dead-lettered rows_unexpected", "3"),
        (br#"{"id":"i3","sku":"a","quantity":100000}"#, "dead-lettered statement_failed", "CHECK"),
        (br#"{"id":"i4","sku":"b","quantity":1}"#, "applied", ""),
    ];
    check(&world, cases);
    let left = (world.on_hand("a"), world.on_hand("b"), world.on_hand("c"));
    assert_eq!(left, (101, 101, 100), "an event that is not applied leaves nothing");
    world.audit().expect(0);
}

#[test]
fn integers_fractions_large_numbers_and_null_are_compared_as_they_are() {
    let checks = r#"
[[flow.stock.check]]
reason = "not_three"
that = "event.quantity == 3"
otherwise = "skip"
at_most = "any"
because = "only threes are taken here"
"#;
    let world = World::new(&config("", &format!("{checks}{TAKE_FROM_STOCK}")));
    let cases: &[(&[u8], &str, &str)] = &[
        (br#"{"id":"n0","sku":"a","quantity":3}"#, "applied", ""),
        (br#"{"id":"n1","sku":"a","quantity":3.0}"#, "applied", ""),
        (br#"{"id":"n2","sku":"a","quantity":3.5}"#, "skipped not_three", ""),
        (br#"{"id":"n3","sku":"a","quantity":9007199254740992}"#, "skipped not_three", ""),
        (br#"{"id":"n4","sku":"a","quantity":18446744073709551615}"#, "skipped not_three", ""),
        (br#"{"id":"n5","sku":"a"}"#, "dead-lettered check_unevaluable", "quantity"),
    ];
    check(&world, cases);
}
