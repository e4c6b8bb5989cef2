//! Worlds that are not as the ledger says: each is found, and named.

use crate::harness::{
    TAKE_FROM_STOCK, World, back_up, config, copy_folder, eventually, order, orders, restore, statement,
};
use rusqlite::Connection;
use serde_json::Value;
use std::fs;

const BY_ARTICLE: &str = r#"
[[reconcile]]
name = "units ordered leave the stock"
left = { flow = "stock", sum = "event.quantity", of = "received", less = ["insufficient_stock", "unknown_sku"], by = "event.sku" }
right = { database = "shop", sql = "SELECT sku, 100 - on_hand FROM stock WHERE on_hand <> 100" }
"#;

const FIRST_BATCH: &str = "DELETE FROM batch WHERE ordinal = 1; DELETE FROM run WHERE ordinal = 1; \
     DELETE FROM block WHERE block_no = 1; DELETE FROM block_ids WHERE block_no = 1; \
     DELETE FROM block_keys WHERE block_no = 1; DELETE FROM decision WHERE ordinal = 1";

fn balanced_world() -> World {
    balanced_world_of(500)
}

/// A world of twenty-one events, so many a batch.
fn balanced_world_of(batch: usize) -> World {
    let keys = format!("batch = {{ events = {batch} }}");
    let world = World::new(&config(&keys, &format!("{TAKE_FROM_STOCK}{BY_ARTICLE}")));
    let mut lines = orders(0..10, "a");
    lines.push(order("none", "zz", 1));
    lines.extend(orders(10..20, "b"));
    world.lines(&lines);
    world.run().expect(0);
    world.audit().expect(0);
    world
}

fn findings(report: &Value) -> String {
    let statements = report["flows"][0]["statements"].as_array().unwrap();
    statements.iter().map(|s| format!("{} {}\n", s["equation"], s["findings"])).collect()
}

#[test]
fn a_decision_deleted_from_the_ledger_is_named_by_its_position() {
    let cases = [
        ("the dead letter's row", "DELETE FROM decision WHERE offset = 10", "stock/0/10"),
        ("a run", "DELETE FROM run WHERE offset_from = 0", "stock/0/"),
        ("a packed block", "DELETE FROM block WHERE block_no = 1", "stock/0, offsets 0..5"),
        ("a batch with all that belongs to it", FIRST_BATCH, "stock/0/0-4"),
    ];
    for (what, sql, position) in cases {
        let world = balanced_world_of(5);
        let segment = Connection::open(world.path("recount-data/segment-000001.db")).unwrap();
        segment.execute_batch(sql).unwrap();
        drop(segment);
        let told = world.audit();
        assert_eq!(told.code, Some(1), "{what}: {}", told.all());
        assert!(told.out.contains(position), "{what}: {position} is named: {:#}", told.json());
    }
}

#[test]
fn the_last_batch_lost_from_the_ledger_of_a_killed_flow_comes_back_from_the_database() {
    let followed = "source = { file = \"orders.ndjson\", follow = true }\n";
    let world = World::new(&config(followed, &format!("{TAKE_FROM_STOCK}{BY_ARTICLE}")));
    let mut lines = orders(0..10, "a");
    lines.push(order("none", "zz", 1));
    world.lines(&lines);
    let running = world.start(&["run"]);
    eventually("all are decided", || world.decided() == 11);
    running.kill();
    let fates = world.fates();
    world.configure(&config("", &format!("{TAKE_FROM_STOCK}{BY_ARTICLE}")));
    let segment = Connection::open(world.path("recount-data/segment-000001.db")).unwrap();
    segment.execute_batch(FIRST_BATCH).unwrap();
    drop(segment);
    let report = world.audit().json();
    assert_eq!(report["flows"][0]["books"]["open"], 11, "as after a crash before the ledger had it");
    assert_ne!(report["flows"][0]["status"], "balanced");
    world.run().expect(0);
    assert_eq!(world.fates(), fates);
    assert_eq!(world.on_hand("a"), 90, "nothing is applied twice");
    world.audit().expect(0);
}

/// A world whose database was restored to where it was before the last ten of twenty events.
fn restored_world() -> World {
    let world = World::new(&config("", &format!("{TAKE_FROM_STOCK}{BY_ARTICLE}")));
    world.lines(&orders(0..10, "a"));
    world.run().expect(0);
    back_up(&world, "backup.db");
    world.append(&orders(10..20, "a"));
    world.run().expect(0);
    restore(&world, "backup.db");
    assert_eq!(world.on_hand("a"), 90);
    world
}

#[test]
fn a_restored_database_is_found_by_position_and_refused() {
    let world = restored_world();
    let told = world.audit();
    assert_eq!(told.code, Some(1), "{}", told.all());
    let report = told.json();
    assert_eq!(statement(&report, "E2")["status"], "imbalanced");
    let named = findings(&report);
    assert!(named.contains("\"stock/0/10-19\""), "{named}");

    world.append(&orders(20..22, "a"));
    let told = world.run().expect(1);
    assert!(told.all().contains("effects_rolled_back"), "{}", told.all());
    assert!(told.all().contains("stock/0/10"), "the range is named: {}", told.all());
    assert_eq!(world.on_hand("a"), 90, "nothing was taken");
}

#[test]
fn reapplying_mends_a_restored_database() {
    let world = restored_world();
    world
        .recount(&["ledger", "recover", "--reapply", "--because", "restored after the fire", "--json"])
        .expect(0);
    assert_eq!(world.on_hand("a"), 80);
    world.audit().expect(0);
    world.append(&orders(20..22, "a"));
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 78);
    world.audit().expect(0);
    assert_eq!(world.decisions().len(), 22, "each position has one current decision");
    let again = world.recount(&["ledger", "recover", "--reapply", "--because", "once more"]).expect(0);
    assert!(again.out.contains("nothing to mend"), "{}", again.out);
    assert!(
        world
            .journal()
            .iter()
            .any(|(what, d)| what == "recovered" && d["because"] == "restored after the fire")
    );
}

#[test]
fn accepting_records_that_the_effects_are_gone() {
    let world = restored_world();
    world.recount(&["ledger", "recover", "--accept", "--because", "they were paid back by hand"]).expect(0);
    assert_eq!(world.on_hand("a"), 90);
    let fates = world.fates();
    assert_eq!(fates[..10], ["applied"; 10].map(str::to_owned));
    assert_eq!(fates[10..], ["skipped accepted"; 10].map(str::to_owned));
    let report = world.audit().json();
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
    assert_eq!(statement(&report, "E2")["status"], "balanced", "{report:#}");
    world.append(&orders(20..22, "a"));
    world.run();
    assert_eq!(world.on_hand("a"), 88);
}

#[test]
fn a_movement_that_no_event_made_is_named_by_article_and_amount() {
    let world = balanced_world();
    world.shop().execute("UPDATE stock SET on_hand = on_hand - 7 WHERE sku = 'b'", []).unwrap();
    let told = world.audit().expect(1);
    let report = told.json();
    assert_eq!(statement(&report, "E1")["status"], "balanced");
    assert_eq!(statement(&report, "E2")["status"], "balanced", "E2 counts effects, and can't see it");
    let business = statement(&report, "E3");
    assert_eq!(business["status"], "imbalanced");
    let finding = business["findings"].to_string();
    assert!(finding.contains("\"b") && finding.contains('7'), "article and amount: {finding}");
    assert!(!finding.contains("\"a"), "and no other article: {finding}");
    let text = world.recount(&["audit"]).expect(1).out;
    assert!(text.contains("reconcile_differs") || text.contains('7'), "{text}");
}

#[test]
fn an_effect_that_is_gone_or_there_twice_is_named() {
    for (sql, code) in [
        ("DELETE FROM recount_effect WHERE \"offset\" = 4", "effects_missing"),
        ("INSERT INTO recount_effect SELECT * FROM recount_effect WHERE \"offset\" = 4", "effects_twice"),
    ] {
        let world = balanced_world();
        world.shop().execute(sql, []).unwrap();
        let told = world.audit().expect(1);
        let named = findings(&told.json());
        assert!(named.contains(code) && named.contains("stock/0/4"), "{code}: {named}");
    }
}

#[test]
fn a_copied_ledger_with_the_source_away_is_unprovable() {
    let world = balanced_world();
    let copy = World::new(&config("", &format!("{TAKE_FROM_STOCK}{BY_ARTICLE}")));
    fs::remove_file(copy.path("orders.ndjson")).unwrap();
    copy_folder(&world.path("recount-data"), &copy.path("recount-data"));
    back_up(&world, "backup.db");
    fs::copy(world.path("backup.db"), copy.path("backup.db")).unwrap();
    restore(&copy, "backup.db");
    let told = copy.audit();
    assert_eq!(told.code, Some(3), "{}", told.all());
    let report = told.json();
    assert_eq!(statement(&report, "E1")["status"], "unprovable", "{report:#}");
}
