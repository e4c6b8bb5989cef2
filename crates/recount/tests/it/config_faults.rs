//! DESIGN §12: a config with faults is refused at start, with file, line and what to write instead.

use crate::harness::{TAKE_FROM_STOCK, World, config};

const CHECK: &str = "[[flow.stock.check]]\nreason = \"odd\"\nthat = \"event.quantity > 0\"\notherwise = \"skip\"\nat_most = \"any\"\nbecause = \"so\"\n";

#[test]
fn each_fault_is_refused_with_its_line_and_what_to_write() {
    let without = |line: &str| CHECK.replace(line, "");
    let cases: &[(&str, String, &str, &str)] = &[
        (
            "an unknown key",
            format!("[flow.stock.retry]\nattemps = 3\n{TAKE_FROM_STOCK}"),
            "attemps",
            "attempts",
        ),
        (
            "a check without otherwise",
            format!("{}{TAKE_FROM_STOCK}", without("otherwise = \"skip\"\n")),
            "[[flow.stock.check]]",
            "otherwise",
        ),
        (
            "a skip without a budget",
            format!("{}{TAKE_FROM_STOCK}", without("at_most = \"any\"\n")),
            "[[flow.stock.check]]",
            "at_most",
        ),
        ("a reason declared twice", format!("{CHECK}{CHECK}{TAKE_FROM_STOCK}"), "reason = \"odd\"", "odd"),
        (
            "a built-in reason",
            format!("{}{TAKE_FROM_STOCK}", CHECK.replace("odd", "duplicate")),
            "reason = \"duplicate\"",
            "duplicate",
        ),
        (
            "an expression that does not parse",
            format!("{}{TAKE_FROM_STOCK}", CHECK.replace("> 0", ">")),
            "that = ",
            "that",
        ),
        (
            "a transaction of one's own",
            TAKE_FROM_STOCK.replace("UPDATE stock", "UPDATE OR ROLLBACK stock"),
            "sql = ",
            "ROLLBACK",
        ),
        ("sql without rows", TAKE_FROM_STOCK.replace("rows = 1\n", ""), "[flow.stock.apply]", "rows"),
        (
            "an unknown database",
            TAKE_FROM_STOCK.replace("database = \"shop\"", "database = \"shed\""),
            "shed",
            "database",
        ),
    ];
    for (what, tables, where_, said) in cases {
        let text = config("", tables);
        let world = World::new(&text);
        let told = world.run();
        assert_eq!(told.code, Some(2), "{what}: {}", told.all());
        let lines: Vec<usize> =
            text.lines().enumerate().filter(|(_, line)| line.contains(where_)).map(|(n, _)| n + 1).collect();
        let named = lines.iter().any(|line| told.err.contains(&format!("recount.toml:{line}")));
        assert!(named, "{what}: one of lines {lines:?} is named: {}", told.err);
        assert!(told.err.contains(said), "{what}: {}", told.err);
        assert!(!world.path("recount-data").exists(), "{what}: nothing was begun");
        assert_eq!(world.recount(&["validate"]).code, Some(2), "{what}");
    }
}

#[test]
fn every_fault_is_shown_at_once() {
    let tables = format!(
        "{}{}",
        CHECK.replace("otherwise = \"skip\"\n", ""),
        TAKE_FROM_STOCK.replace("rows = 1\n", "")
    );
    let told = World::new(&config("", &tables)).recount(&["validate"]).expect(2);
    let all = told.all();
    assert!(all.contains("otherwise") && all.contains("rows"), "{all}");
}

#[test]
fn a_statement_that_the_database_refuses_is_a_fault_with_its_line() {
    let text = config("", &TAKE_FROM_STOCK.replace("on_hand - :quantity", "on_hnad - :quantity"));
    let world = World::new(&text);
    let told = world.run().expect(2);
    assert!(told.err.contains("on_hnad"), "{}", told.err);
    let line = text.lines().position(|line| line.starts_with("sql = ")).unwrap() + 1;
    assert!(told.err.contains(&format!("recount.toml:{line}")), "line {line}: {}", told.err);
}

#[test]
fn a_flow_that_is_not_there_is_a_usage_error_that_names_those_that_are() {
    let world = World::stock("");
    for args in [&["run", "--flow", "sock"][..], &["pause", "sock", "--because", "x"], &["publish", "sock"]] {
        let told = world.recount(args).expect(2);
        assert!(told.err.contains("stock"), "{args:?}: {}", told.err);
    }
}

#[test]
fn a_source_that_is_not_there_yet_is_a_warning_and_no_fault() {
    let world = World::stock("");
    std::fs::remove_file(world.path("orders.ndjson")).unwrap();
    let told = world.recount(&["validate", "recount.toml"]).expect(0).all();
    assert!(told.contains("orders.ndjson does not exist"), "{told}");
    assert!(told.contains("source ="), "the line is shown: {told}");
}

#[test]
fn a_source_that_never_was_there_is_unprovable_and_not_balanced() {
    let world = World::stock("");
    std::fs::remove_file(world.path("orders.ndjson")).unwrap();
    let told = world.run().expect(1).all();
    assert!(told.contains("orders.ndjson does not exist: correct source.file"), "{told}");
    let told = world.recount(&["audit"]).expect(3).all();
    assert!(told.contains("can't be said to work"), "{told}");
    assert!(told.contains("what was published can't be counted: file"), "{told}");
    world.recount(&["status"]).expect(3);
    world.lines(&["{\"id\":\"o0\",\"sku\":\"a\",\"quantity\":1}"]);
    world.run().expect(0);
    world.recount(&["audit"]).expect(0);
}

#[test]
fn a_flow_without_an_effect_is_only_run_where_that_is_said() {
    let world = World::new(&config("", ""));
    world.lines(&["{\"id\":\"o0\",\"sku\":\"a\",\"quantity\":1}"]);
    let told = world.run().expect(2).all();
    assert!(told.contains("has no apply") && told.contains("--checks-only"), "{told}");
    assert!(!world.path("recount-data").exists(), "nothing is on record for good");
    world.recount(&["run", "recount.toml", "--dry-run"]).expect(0);
    world.recount(&["run", "recount.toml", "--checks-only"]).expect(0);
    assert_eq!(world.fates(), ["applied"]);
}
