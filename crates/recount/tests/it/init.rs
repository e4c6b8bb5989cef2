//! `recount init`: what it proposes, what it warns of, and that what it writes can be used at once.

use crate::harness::World;
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::Stdio;

/// A world with this file, and neither config nor orders.
fn world_with(file: &str, bytes: impl AsRef<[u8]>) -> World {
    let world = World::new("");
    for name in ["recount.toml", "orders.ndjson"] {
        fs::remove_file(world.path(name)).unwrap();
    }
    fs::write(world.path(file), bytes).unwrap();
    world
}

fn lines(events: impl IntoIterator<Item = Value>) -> String {
    events.into_iter().map(|event| format!("{event}\n")).collect()
}

fn order(n: u64) -> Value {
    json!({
        "id": format!("o{n}"), "type": "order.placed", "order_id": n / 3, "sku": format!("s{}", n % 40),
        "quantity": if n % 100 == 7 { 0 } else { n % 4 + 1 }, "email": format!("u{n}@example.com"),
        "placed_at": format!("2026-01-01T{:02}:{:02}:00Z", n / 60 % 24, n % 60),
    })
}

fn init(world: &World, file: &str) -> Value {
    world.recount(&["init", "--from", file, "--json"]).expect(0).json()
}

fn codes(report: &Value) -> Vec<&str> {
    report["warnings"].as_array().unwrap().iter().map(|warning| warning["code"].as_str().unwrap()).collect()
}

#[track_caller]
fn sentence_of<'r>(report: &'r Value, code: &str) -> &'r str {
    let warnings = report["warnings"].as_array().unwrap();
    let warning = warnings.iter().find(|warning| warning["code"] == code);
    warning.unwrap_or_else(|| panic!("no {code}: {warnings:?}"))["sentence"].as_str().unwrap()
}

#[test]
fn what_is_written_validates_and_runs_dry_at_once_and_no_event_is_refused() {
    let world = world_with("orders-2026-01.ndjson", lines((0..3000).map(order)));
    let told = world.recount(&["init", "--from", "orders-2026-01.ndjson"]).expect(0);
    for part in [
        "sampled 1,000 lines of orders-2026-01.ndjson (500 from the head, 500 spread over the rest)",
        "`event.id` has 1,000 different values in 1,000 events; second choice: `event.email`",
        "key   event.order_id",
        "time  event.placed_at",
        "warning: `event.email` looks like somebody's own",
        "wrote recount.toml and orders.schema.json",
        "recount run recount.toml --dry-run",
    ] {
        assert!(told.out.contains(part), "{part}\n{}", told.out);
    }
    assert!(!told.out.contains("@example.com"), "{}", told.out);
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    assert!(config.contains("sampled events have `event.quantity` 0 or less"), "{config}");
    assert!(!config.contains("@example.com"), "{config}");
    world.recount(&["validate"]).expect(0);
    let dry = world.recount(&["run", "--dry-run", "--json"]).expect(0).json();
    let books = &dry["flows"][0]["books"];
    assert_eq!((&books["published"], &books["applied"]), (&json!(3000), &json!(3000)));
    assert!(!world.path("recount-data").exists());
}

#[test]
fn switched_on_its_checks_decide_and_its_statement_is_the_users_to_name() {
    let world = world_with("orders.ndjson", lines((0..500).map(order)));
    init(&world, "orders.ndjson");
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    let (checks, apply) = config.split_once("#[database.main]").unwrap();
    let on = |text: &str| -> String {
        let on = |line: &str| match line.strip_prefix('#') {
            Some(rest) if !rest.is_empty() && !rest.starts_with(' ') => format!("{rest}\n"),
            _ => format!("{line}\n"),
        };
        text.lines().map(on).collect()
    };
    world.configure(&on(checks));
    let dry = world.recount(&["run", "--dry-run", "--json"]).json();
    assert_eq!(dry["flows"][0]["books"]["dead-lettered"], 5, "{dry:#}");
    let main = rusqlite::Connection::open(world.path("main.db")).unwrap();
    main.execute_batch("CREATE TABLE orders (id TEXT PRIMARY KEY, order_id, sku, quantity, placed_at)")
        .unwrap();
    world.configure(&format!("{checks}{}", on(&format!("#[database.main]{apply}"))));
    world.recount(&["validate"]).expect(0);
    world.recount(&["run"]).expect(0);
    let applied: i64 = main.query_row("SELECT count(*) FROM orders", [], |row| row.get(0)).unwrap();
    assert_eq!(applied, 500);
}

#[test]
fn nothing_is_overwritten_unless_that_is_asked_for() {
    let world = world_with("orders.ndjson", lines((0..30).map(order)));
    fs::write(world.path("orders.schema.json"), "mine").unwrap();
    let told = world.recount(&["init", "--from", "orders.ndjson"]).expect(2);
    assert!(told.err.contains("orders.schema.json is there already"), "{}", told.err);
    assert!(!world.path("recount.toml").exists(), "nothing is half done");
    world.recount(&["init", "--from", "orders.ndjson", "--flow", "other"]).expect(0);
    let told = world.recount(&["init", "--from", "orders.ndjson", "--flow", "third"]).expect(2);
    assert!(told.err.contains("recount.toml is there already"), "{}", told.err);
    assert_eq!(fs::read_to_string(world.path("orders.schema.json")).unwrap(), "mine");
    world.recount(&["init", "--from", "orders.ndjson", "--force"]).expect(0);
    assert!(fs::read_to_string(world.path("orders.schema.json")).unwrap().contains("2020-12"));
    world.recount(&["init", "--from", "orders.ndjson", "--folder", "new/shop"]).expect(0);
    let config = fs::read_to_string(world.path("new/shop/recount.toml")).unwrap();
    assert!(config.contains("{ file = \"../../orders.ndjson\" }"), "{config}");
    world.recount(&["validate", "new/shop/recount.toml"]).expect(0);
    world.recount(&["run", "new/shop/recount.toml", "--dry-run"]).expect(0);
}

#[test]
fn an_id_that_repeats_is_told_with_its_values_and_whether_payloads_differ() {
    let mut events: Vec<Value> = (0..200).map(order).collect();
    events[20] = events[19].clone();
    events[50]["id"] = json!("o40");
    let world = world_with("orders.ndjson", lines(events));
    let report = init(&world, "orders.ndjson");
    let sentence = sentence_of(&report, "id_repeats");
    for part in [
        "repeats in 2 of",
        "o19 is there 2 times with the same payload (first: line 20)",
        "o40 is there 2 times with another payload",
    ] {
        assert!(sentence.contains(part), "{sentence}");
    }
    assert_eq!((&report["trial"]["ids_repeated"], &report["trial"]["ids_reused"]), (&json!(1), &json!(1)));
    let dry = world.recount(&["run", "--dry-run", "--json"]).json();
    let books = &dry["flows"][0]["books"];
    assert_eq!((&books["skipped"], &books["dead-lettered"]), (&json!(1), &json!(1)), "as init foretold");
}

#[test]
fn without_a_field_that_differs_an_id_is_composed_else_it_is_the_position() {
    let reading = |n: u64| json!({ "sensor": format!("s{}", n % 5), "at": format!("2026-01-01T00:{:02}:00Z", n / 5), "value": n as f64 / 3.0 });
    let world = world_with("readings.ndjson", lines((0..100).map(reading)));
    let report = init(&world, "readings.ndjson");
    assert_eq!((&report["id_is"], &report["trial"]["passed"]), (&json!("composed"), &json!(100)));
    sentence_of(&report, "composed_id");
    world.recount(&["run", "--dry-run"]).expect(0);
    let world = world_with("same.ndjson", lines((0..100).map(|n| json!({ "state": n % 2 }))));
    let report = init(&world, "same.ndjson");
    assert_eq!(report["id_is"], "position");
    sentence_of(&report, "no_unique_id");
    world.recount(&["run", "--dry-run"]).expect(0);
}

#[test]
fn what_varies_or_loses_something_is_warned_of_with_figures_and_a_place() {
    let event = |n: u64| {
        let mut event = order(n);
        event["price"] = json!(9.99);
        event["amount_text"] = json!(format!("{n}.50"));
        event["at_local"] = json!("2026-01-01 10:00:00");
        event["big"] = json!(9_007_199_254_740_993_u64 + n);
        event["note"] = if n == 60 { json!(7) } else { json!("x") };
        event["state"] = if n == 70 { Value::Null } else { json!("open") };
        if n == 80 {
            event.as_object_mut().unwrap().remove("sku");
        }
        event["names"] =
            (0..10).map(|k| (format!("k{n}-{k}"), json!(1))).collect::<serde_json::Map<_, _>>().into();
        event
    };
    let mut text = lines((0..200).map(event));
    text.push_str("not JSON\n\u{1}");
    let world = world_with("mixed.ndjson", &text);
    let report = init(&world, "mixed.ndjson");
    for (code, part) in [
        (
            "type_varies",
            "`event.note` has changing types: string 199 times (first: line 1), integer 1 times (first: line 61)",
        ),
        ("sometimes_null", "`event.state` is null in 1 of 200 (first: line 71)"),
        ("sometimes_missing", "`event.sku` is missing in 1 of 200"),
        ("money_as_float", "`event.price`"),
        ("numeric_text", "double(event.amount_text)"),
        ("time_without_zone", "event.at_local + 'Z'"),
        ("large_number", "`event.big` holds 200 integers beyond 2^53"),
        ("map_like", "`event.names`"),
        ("looks_secret", "`event.email`"),
        ("not_json", "line 201"),
    ] {
        assert!(sentence_of(&report, code).contains(part), "{code}: {}", sentence_of(&report, code));
    }
    world.recount(&["validate"]).expect(0);
    let dry = world.recount(&["run", "--dry-run", "--json"]).json();
    assert_eq!(dry["flows"][0]["books"]["applied"], 200, "{dry:#}");
}

#[test]
fn what_is_no_file_of_events_is_named_and_nothing_is_written() {
    let registry = |n: u8| [&[0, 0, 0, 0, 7, 0xff, n][..], b"\n"].concat();
    for (bytes, code, way_out) in [
        (Vec::new(), "empty", "holds no event"),
        (b"[{\"id\":1},\n{\"id\":2}]\n".to_vec(), "json_array", "jq -c '.[]' 'events'"),
        (b"{\n \"id\": 1\n}\n{\n \"id\": 2\n}\n".to_vec(), "pretty_printed", "jq -c . 'events'"),
        (
            b"timestamp,value\n2014-04-01 00:00:00,18\n2014-04-01 00:05:00,19\n".to_vec(),
            "csv",
            "csv.DictReader",
        ),
        ((128..200).flat_map(registry).collect(), "schema_registry", "schema-registry framing"),
    ] {
        let world = world_with("events", &bytes);
        let told = world.recount(&["init", "--from", "events", "--json"]).expect(2);
        assert_eq!(codes(&told.json()), [code]);
        assert!(told.err.contains(way_out), "{}", told.err);
        assert!(!world.path("recount.toml").exists());
    }
    let world = world_with("events", "");
    let told = world.recount(&["init", "--from", "elsewhere"]).expect(2);
    assert!(told.err.contains("elsewhere"), "{}", told.err);
}

#[test]
fn packed_files_folders_standard_input_text_and_cloud_events_are_sampled_too() {
    let world = world_with("orders.ndjson", lines((0..50).map(order)));
    fs::create_dir(world.path("many")).unwrap();
    for n in 0..3 {
        fs::write(world.path(&format!("many/part-{n}.ndjson")), lines((n * 50..n * 50 + 50).map(order)))
            .unwrap();
    }
    let report = world.recount(&["init", "--from", "many", "--json"]).expect(0).json();
    assert_eq!((&report["sampled"]["lines"], &report["sampled"]["files"]), (&json!(150), &json!(3)));
    world.recount(&["run", "--dry-run"]).expect(0);
    world.recount(&["init", "--from", "many/part-*.ndjson", "--force"]).expect(0);
    world.recount(&["run", "--dry-run"]).expect(0);

    let mut command = world.command(&["init", "--from", "-", "--folder", "piped", "--json"]);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(lines((0..50).map(order)).as_bytes()).unwrap();
    let report: Value = serde_json::from_slice(&child.wait_with_output().unwrap().stdout).unwrap();
    assert_eq!((&report["flow"], &report["sampled"]["lines"]), (&json!("order-placed"), &json!(50)));
    world.recount(&["validate", "piped/recount.toml"]).expect(0);

    let cloud = |n: u64| json!({ "specversion": "1.0", "id": n.to_string(), "source": "/shop", "type": "com.shop.order.placed", "data": { "order_id": n / 2, "quantity": 1 } });
    let world = world_with("events.ndjson", lines((0..60).map(cloud)));
    let report = init(&world, "events.ndjson");
    assert_eq!(
        (&report["id_is"], &report["key"]["expression"]),
        (&json!("cloud_event"), &json!("event.order_id"))
    );
    world.recount(&["run", "--dry-run"]).expect(0);

    let world = world_with("access.log", "GET /a 200\nGET /b 404\n");
    assert_eq!(init(&world, "access.log")["decode"], "text");
    world.recount(&["run", "--dry-run"]).expect(0);
}

#[test]
fn adversarial_input_ends_soon_and_what_is_written_is_valid() {
    let deep = format!("{{\"id\":1,\"a\":{}1{}}}\n", "[".repeat(5000), "]".repeat(5000));
    let wide = format!(
        "{}\n",
        (0..10_000)
            .map(|n| (format!("k{n}"), json!(n)))
            .collect::<serde_json::Map<_, _>>()
            .into_iter()
            .collect::<Value>()
    );
    let long = format!("{{\"id\":\"{}\"}}\n", "x".repeat(3 << 20));
    let odd = lines([
        json!({ "id": "a\nb", "quote\"d": "it's \u{0}", "größe": 1, "a.b": { "c-d": 1 }, "in": true }),
    ])
    .repeat(3);
    for text in [deep + "{\"id\":2}\n", wide, long + "{\"id\":2}\n", odd, "1\n\"x\"\nnull\n[]\n".to_owned()] {
        let world = world_with("events.ndjson", &text);
        init(&world, "events.ndjson");
        world.recount(&["validate"]).expect(0);
        let dry = world.recount(&["run", "--dry-run", "--json"]).json();
        let books = &dry["flows"][0]["books"];
        assert_eq!((&books["published"], &books["unexplained"]), (&json!(text.lines().count()), &json!(0)));
    }
}
