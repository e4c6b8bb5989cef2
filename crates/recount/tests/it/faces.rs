//! What is shown: metrics, health, and never a secret.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order};
use std::fs;

const SECRET: &str = "s3cr3t-c0st0mer";

const CHECKS: &str = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "any"
because = "an order line for nothing"

[[flow.stock.check]]
reason = "bulk_order"
that = "event.quantity <= 50"
otherwise = "flag"
at_most = "any"
because = "an assumption"
"#;

#[test]
fn the_metrics_of_a_run_have_every_declared_reason() {
    let world = World::new(&config("", &format!("{CHECKS}{TAKE_FROM_STOCK}")));
    world.lines(&[order("m0", "a", 1), order("m1", "a", 60), order("m2", "zz", 1)]);
    world.recount(&["run", "--metrics-file", "metrics.txt"]).expect(0);
    let text = fs::read_to_string(world.path("metrics.txt")).unwrap();
    for line in [
        "recount_decisions_total{flow=\"stock\",verdict=\"applied\",reason=\"\"} 2",
        "recount_decisions_total{flow=\"stock\",verdict=\"skipped\",reason=\"zero_quantity\"} 0",
        "recount_decisions_total{flow=\"stock\",verdict=\"skipped\",reason=\"duplicate\"} 0",
        "recount_decisions_total{flow=\"stock\",verdict=\"dead-lettered\",reason=\"unknown_sku\"} 1",
        "recount_decisions_total{flow=\"stock\",verdict=\"dead-lettered\",reason=\"insufficient_stock\"} 0",
        "recount_decisions_total{flow=\"stock\",verdict=\"dead-lettered\",reason=\"decode_failed\"} 0",
        "recount_flags_total{flow=\"stock\",reason=\"bulk_order\"} 1",
        "recount_open_events{flow=\"stock\"} 0",
        "recount_held_events{flow=\"stock\"} 0",
        "recount_flow_paused{flow=\"stock\"} 0",
        "recount_lost_positions_total{flow=\"stock\"} 0",
        "recount_unexplained_positions{flow=\"stock\"} 0",
        "recount_dead_letters{flow=\"stock\"} 1",
        "recount_book_status{flow=\"stock\",book=\"E1 source = ledger\",status=\"balanced\"} 1",
        "recount_book_status{flow=\"stock\",book=\"E1 source = ledger\",status=\"imbalanced\"} 0",
    ] {
        assert!(text.contains(line), "{line} is missing:\n{text}");
    }
    assert!(text.contains("recount_attempts_total{flow=\"stock\"} "), "{text}");
    assert!(text.contains("recount_audit_completed_timestamp_seconds{flow=\"stock\"} "), "{text}");
    assert!(text.ends_with("# EOF\n"), "{text}");
    for family in text.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let name = family.split(' ').next().unwrap();
        assert!(text.contains(&format!("# HELP {name} ")), "{family}");
    }
}

#[test]
fn running_and_working_are_two_questions() {
    let world = World::stock("source = { file = \"orders.ndjson\", follow = true }");
    world.lines(&[order("r0", "a", 1)]);
    let running = world.start(&["run"]);
    eventually("it is applied", || world.on_hand("a") == 99);
    let (status, page) = running.get("/health/running");
    assert_eq!((status, page.contains("\"running\":true")), (200, true), "{page}");
    let (status, page) = running.get("/health/working");
    assert_eq!(status, 200, "{page}");
    eventually("the books balance", || running.get("/health/working").1.contains("\"status\":\"balanced\""));
    assert!(page.contains("shares"), "balanced never stands alone: {page}");
    running.terminate().expect(0);
}

#[test]
fn a_secret_field_is_nowhere_but_in_the_ledger() {
    let flow = "secret = [\"event.customer\"]\nschema = \"order.json\"";
    let text = config(flow, &format!("{CHECKS}{TAKE_FROM_STOCK}"))
        .replace("format = \"json\"", "format = \"json\"\nlevel = \"trace\"");
    let world = World::new(&text);
    fs::write(
        world.path("order.json"),
        r#"{"type":"object","properties":{"id":{"type":"string"},"sku":{"type":"string"},"customer":{"type":"string","maxLength":20},"quantity":{"type":"integer"}}}"#,
    )
    .unwrap();
    let line = |n: usize, sku: &str, quantity: &str, customer: &str| {
        format!("{{\"id\":\"s{n}\",\"sku\":\"{sku}\",\"quantity\":{quantity},\"customer\":\"{customer}\"}}")
    };
    let long = format!("{SECRET}-{SECRET}");
    world.lines(&[
        line(0, "a", "1", SECRET),
        line(1, "a", "0", SECRET),
        line(2, "zz", "1", SECRET),
        line(3, "a", "100000", SECRET),
        line(4, "a", "1", &long),
        line(5, "a", "\"x\"", SECRET),
        line(0, "a", "2", SECRET),
        line(0, "a", "1", SECRET),
    ]);
    let mut shown = vec![world.recount(&["run", "--json", "--metrics-file", "metrics.txt"]).all()];
    shown.push(fs::read_to_string(world.path("metrics.txt")).unwrap_or_else(|_| panic!("{}", shown[0])));
    let decisions = world.recount(&["ledger", "export"]);
    assert_eq!(decisions.out.lines().count(), 8, "{}", decisions.all());
    shown.push(decisions.out.clone());
    for args in [
        &["audit"][..],
        &["audit", "--json"],
        &["story", "a", "--all"],
        &["story", "a", "--all", "--json"],
        &["dead-letters", "list"],
        &["dead-letters", "list", "--json"],
        &["validate"],
        &["ledger", "export", "--form", "csv"],
    ] {
        shown.push(world.recount(args).all());
    }
    for position in world.decisions().iter().map(|d| d["position"].as_str().unwrap().to_owned()) {
        shown.push(world.recount(&["dead-letters", "show", &position]).all());
        shown.push(world.recount(&["dead-letters", "show", &position, "--json"]).all());
        shown.push(world.recount(&["story", &position, "--json"]).all());
    }
    for text in shown {
        let at = text.find(SECRET);
        let around = at.map(|at| &text[at.saturating_sub(300)..(at + 40).min(text.len())]);
        assert_eq!(around, None, "the secret is shown");
    }
}

#[test]
fn log_lines_of_what_was_not_applied_carry_the_fixed_fields() {
    let world = World::stock("");
    world.lines(&[order("l0", "zz", 1)]);
    let told = world.run();
    let lines: Vec<serde_json::Value> =
        told.err.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let line =
        lines.iter().find(|line| line["reason"] == "unknown_sku").unwrap_or_else(|| panic!("{}", told.err));
    assert_eq!(
        (&line["flow"], &line["event_id"], &line["key"]),
        (&"stock".into(), &"l0".into(), &"zz".into())
    );
    assert!(line["partition"].is_string() && line["offset"] == 0, "{line}");
}

#[test]
fn explain_has_a_page_for_each_reason_that_an_audit_or_a_run_can_give() {
    let world = World::new(&config("", &format!("{CHECKS}{TAKE_FROM_STOCK}")));
    let told = world.recount(&["explain", "--json"]).expect(0);
    let list = told.json();
    let codes: Vec<String> = list["built_in"]
        .as_array()
        .unwrap()
        .iter()
        .map(|r| r["reason"].as_str().unwrap().to_owned())
        .collect();
    assert!(codes.len() > 20);
    for code in codes.iter().step_by(7) {
        assert!(world.recount(&["explain", code]).expect(0).out.len() > 100, "{code}");
    }
    let own = world.recount(&["explain", "zero_quantity", "-c", "recount.toml"]).expect(0);
    assert!(
        own.out.contains("An order line for nothing") || own.out.contains("an order line for nothing"),
        "{}",
        own.out
    );
    world.recount(&["explain", "no_such_reason"]).expect(2);
}

#[test]
fn a_reader_that_has_enough_is_no_defect() {
    let world = World::stock("");
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let output = world.command(&["explain"]).stdout(writer).output().unwrap();
    assert_eq!(output.status.code(), Some(141));
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
}
