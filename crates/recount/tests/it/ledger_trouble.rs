//! DESIGN §12: a ledger that is full, damaged, or held by somebody else.

use crate::harness::{TAKE_FROM_STOCK, World, config, copy_folder, eventually, order, orders, statement};
use rusqlite::Connection;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;

#[test]
fn a_full_ledger_stops_the_flow_which_loses_nothing_and_goes_on_later() {
    let check = "[[flow.stock.check]]\nreason = \"too_long\"\nthat = \"event.note.size() < 10\"\notherwise = \"dead-letter\"\n\
                 at_most = \"any\"\nbecause = \"dead letters keep their bytes in the ledger\"\n";
    let world = World::new(&config("batch = { events = 5 }", &format!("{check}{TAKE_FROM_STOCK}")));
    let long: String = (0..40_000)
        .map(|n: u32| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26))
        .collect();
    let line = |n: u32| {
        format!(
            "{{\"id\":\"f{n}\",\"sku\":\"a\",\"quantity\":1,\"note\":\"{}\"}}",
            if n.is_multiple_of(2) { &long } else { "short" }
        )
    };
    world.lines(&(0..100).map(line).collect::<Vec<_>>());

    // No file may grow beyond 1 MiB: the ledger needs twice that for the bodies.
    let binary = env!("CARGO_BIN_EXE_recount");
    let limited = Command::new("bash")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f 1024; exec '{binary}' run --json")])
        .current_dir(world.path(""))
        .output()
        .unwrap();
    let told =
        format!("{}\n{}", String::from_utf8_lossy(&limited.stdout), String::from_utf8_lossy(&limited.stderr));
    assert_eq!(limited.status.code(), Some(1), "{told}");
    assert!(told.contains("ledger_full"), "{told}");
    let decided = world.decisions().len();
    assert!(0 < decided && decided < 100, "it stopped on the way: {decided}");

    world.run().expect(0);
    let applied = world.fates().iter().filter(|fate| *fate == "applied").count();
    assert_eq!((applied, world.decisions().len()), (50, 100));
    assert_eq!(world.on_hand("a"), 50);
    world.audit().expect(0);
}

fn decided_world() -> World {
    let world = World::stock("batch = { events = 50 }");
    world.put("a", 10_000);
    let mut lines = orders(0..600, "a");
    lines.push(order("none", "zz", 1));
    world.lines(&lines);
    world.run().expect(0);
    world
}

#[test]
fn a_damaged_ledger_is_reported_and_nothing_is_taken() {
    let world = decided_world();
    let segment = world.path("recount-data/segment-000001.db");
    let file = fs::OpenOptions::new().read(true).write(true).open(&segment).unwrap();
    let bytes = file.metadata().unwrap().len();
    assert!(bytes > 8192, "the ledger is in its file after a run: {bytes}");
    // Every page but the first, so that it can't fall into free space.
    for page in 1..bytes / 4096 {
        file.write_all_at(&[0x5a; 512], page * 4096 + 1024).unwrap();
        file.write_all_at(&[0x5a; 64], page * 4096 + 8).unwrap();
    }
    drop(file);
    let told = world.audit();
    assert_eq!(told.code, Some(1), "{}", told.all());
    assert!(told.all().contains("ledger"), "{}", told.all());
    world.append(&orders(600..610, "a"));
    let told = world.run();
    assert_eq!(told.code, Some(1), "{}", told.all());
    assert!(told.all().contains("corrupt") || told.all().contains("damaged"), "{}", told.all());
    assert_eq!(world.on_hand("a"), 9_400, "nothing was taken");
}

#[test]
fn a_ledger_that_is_lost_is_not_replaced_by_an_empty_one() {
    let world = decided_world();
    fs::remove_dir_all(world.path("recount-data")).unwrap();
    world.append(&orders(600..610, "a"));
    let told = world.run().expect(1);
    assert!(told.all().contains("ledger_foreign"), "{}", told.all());
    let told = world.recount(&["audit"]).expect(3).all();
    assert!(told.contains("look: recount explain ledger_foreign"), "{told}");
    assert!(!told.contains("recover --adopt"), "there is no such option: {told}");
    assert_eq!(world.on_hand("a"), 9_400, "nothing was taken");
}

#[test]
fn a_ledger_restored_from_earlier_is_adopted_only_on_request_and_stays_unprovable() {
    let world = World::stock("batch = { events = 1 }");
    world.lines(&orders(0..20, "a"));
    world.run().expect(0);
    copy_folder(&world.path("recount-data"), &world.path("backup"));
    world.append(&orders(20..40, "a"));
    world.run().expect(0);
    fs::remove_dir_all(world.path("recount-data")).unwrap();
    copy_folder(&world.path("backup"), &world.path("recount-data"));
    world.append(&orders(40..50, "a"));

    let told = world.run().expect(1);
    assert!(told.all().contains("positions_unrecorded"), "{}", told.all());
    assert!(told.all().contains("stock/0/20"), "the range is named: {}", told.all());
    assert_eq!(world.on_hand("a"), 60, "nothing was taken");

    world.recount(&["run", "--adopt"]);
    assert_eq!(world.on_hand("a"), 50, "it goes on where the database was, and applies nothing twice");
    for told in [world.audit(), world.run()] {
        assert_ne!(told.code, Some(0), "unrecorded is never balanced: {}", told.all());
        let report = told.json();
        assert_eq!(report["flows"][0]["books"]["unrecorded"], 20, "{report:#}");
        assert_eq!(statement(&report, "E1")["status"], "unprovable", "{report:#}");
    }
}

#[test]
fn a_ledger_that_another_process_holds_is_not_taken() {
    let world = World::stock("source = { file = \"orders.ndjson\", follow = true }");
    let running = world.start(&["run"]);
    running.address();
    let told = world.run();
    assert_eq!(told.code, Some(4), "{}", told.all());
    running.terminate().expect(0);
}

#[test]
fn commands_that_read_say_where_there_is_no_ledger() {
    let world = World::stock("");
    for args in [&["audit"][..], &["story", "a"], &["dead-letters", "list"], &["ledger", "export"]] {
        let told = world.recount(args);
        assert_eq!(told.code, Some(4), "{args:?}: {}", told.all());
        assert!(told.err.contains("recount-data"), "{args:?}: {}", told.all());
    }
}

#[test]
fn after_a_kill_one_batch_goes_one_by_one_and_the_rest_as_usual() {
    let keys = |follow: bool| {
        format!("source = {{ file = \"orders.ndjson\", follow = {follow} }}\nbatch = {{ events = 5 }}")
    };
    let world = World::new(&config(&keys(true), TAKE_FROM_STOCK));
    world.lines(&orders(0..5, "a"));
    let running = world.start(&["run"]);
    eventually("the first are decided", || world.decided() == 5);
    running.kill();
    let batches = || -> i64 {
        let segment = Connection::open(world.path("recount-data/segment-000001.db")).unwrap();
        segment.query_row("SELECT count(*) FROM batch", [], |row| row.get(0)).unwrap()
    };
    let before = batches();
    world.configure(&config(&keys(false), TAKE_FROM_STOCK));
    world.append(&orders(5..60, "a"));
    let told = world.run().expect(0);
    assert!(told.err.contains("up to 5 events go one by one"), "{}", told.err);
    assert_eq!(world.on_hand("a"), 40);
    let made = batches() - before;
    assert!((15..=18).contains(&made), "five alone and fifty in batches of five, not {made} batches");
}
