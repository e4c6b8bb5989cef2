//! `recount replay` after a wrong rule: skipped events come back from what was kept, else from the source, and
//! what can't be had is said beforehand.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order, orders};
use std::fs;

/// Skips everything that asks for less than two: wrong, as it turns out.
const WRONG: &str = r#"
[[flow.stock.check]]
reason = "too_little"
that = "event.quantity > 1"
otherwise = "skip"
at_most = "any"
because = "we do not ship single units"
"#;

fn wrong(keys: &str) -> String {
    config(keys, &format!("{WRONG}{TAKE_FROM_STOCK}"))
}

fn corrected(keys: &str) -> String {
    config(keys, &format!("{}{TAKE_FROM_STOCK}", WRONG.replace("quantity > 1", "quantity > 0")))
}

/// A world in which three of four events were skipped, and the rule corrected since.
fn skipped(keys: &str) -> World {
    let world = World::new(&wrong(keys));
    let mut lines = orders(0..3, "a");
    lines.push(order("big", "a", 5));
    world.lines(&lines);
    if keys.contains(".gz") {
        let packed =
            std::process::Command::new("gzip").arg("-c").arg(world.path("orders.ndjson")).output().unwrap();
        fs::write(world.path("orders.ndjson.gz"), packed.stdout).unwrap();
    }
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 95);
    world.configure(&corrected(keys));
    world
}

const ARGS: [&str; 4] = ["replay", "stock", "--reason", "too_little"];

fn dry_run(world: &World) -> serde_json::Value {
    world.recount(&[&ARGS[..], &["--dry-run", "--json"]].concat()).expect(0).json()
}

#[test]
fn skipped_events_come_back_once_from_what_was_kept_or_from_the_source() {
    for keys in ["", "keep_skipped = 0", "keep_skipped = 0\nsource = { file = \"orders.ndjson.gz\" }"] {
        let world = skipped(keys);
        let foreseen = dry_run(&world);
        assert_eq!(foreseen["selected"]["skipped too_little"]["can_be_had"], 3, "{keys}: {foreseen:#}");
        assert_eq!(foreseen["would_be"]["applied"], 3, "{keys}: {foreseen:#}");
        assert_eq!(world.on_hand("a"), 95, "{keys}: a dry run leaves the database alone");
        let told = world.recount(&[&ARGS[..], &["--because", "the rule was wrong"]].concat()).expect(0);
        assert!(
            told.out.contains("3  now applied") && told.out.ends_with("next: recount status\n"),
            "{}",
            told.out
        );
        assert_eq!((world.on_hand("a"), world.fates()), (92, vec!["applied".to_owned(); 4]), "{keys}");
        world.audit().expect(0);
        let again = world.recount(&[&ARGS[..], &["--because", "once more"]].concat()).expect(0);
        assert!(again.out.contains("0 events"), "{}", again.out);
        assert_eq!(world.on_hand("a"), 92, "{keys}: none is applied twice");
    }
}

#[test]
fn kept_events_outlive_their_file_and_for_the_others_it_says_that_they_are_gone() {
    let world = skipped("");
    fs::remove_file(world.path("orders.ndjson")).unwrap();
    world.recount(&[&ARGS[..], &["--because", "the rule was wrong"]].concat()).expect(0);
    assert_eq!(world.on_hand("a"), 92);

    let world = skipped("keep_skipped = 0");
    fs::remove_file(world.path("orders.ndjson")).unwrap();
    let dry = world.recount(&[&ARGS[..], &["--dry-run"]].concat()).expect(0);
    for part in ["3 events", "0 of them can be had", "the bytes of 3 can't be had any more", "orders.ndjson"]
    {
        assert!(dry.out.contains(part), "{part}: {}", dry.out);
    }
    let told = world.recount(&[&ARGS[..], &["--because", "the rule was wrong"]].concat()).expect(1);
    assert!(told.out.contains("3  left as they are"), "{}", told.out);
    assert_eq!((world.on_hand("a"), world.fates()[0].as_str()), (95, "skipped too_little"));
}

#[test]
fn one_event_is_chosen_by_position_or_id_and_a_range_by_offsets() {
    let world = skipped("");
    let replay = |args: &[&str]| {
        world.recount(&[&["replay", "stock", "--because", "the rule was wrong"][..], args].concat())
    };
    replay(&["--event", "stock/0/1"]).expect(0);
    assert_eq!(world.on_hand("a"), 94);
    replay(&["--event", "o0"]).expect(0);
    assert_eq!(world.on_hand("a"), 93);
    replay(&["--from", "0", "--to", "3"]).expect(0);
    assert_eq!(world.on_hand("a"), 92);
    let told = replay(&["--event", "o9"]).expect(1);
    assert!(told.err.contains("recount story o9"), "{}", told.err);
}

#[test]
fn a_dry_run_says_what_would_still_not_be_applied() {
    let world = skipped("");
    world.shop().execute("UPDATE stock SET on_hand = 1 WHERE sku = 'a'", []).unwrap();
    let foreseen = dry_run(&world);
    let expected = serde_json::json!({ "applied": 1, "dead-lettered insufficient_stock": 2 });
    assert_eq!(foreseen["would_be"], expected, "{foreseen:#}");
}

#[test]
fn names_that_nothing_is_called_are_refused_with_what_could_be_meant() {
    let world = skipped("");
    for (args, meant) in [
        (&["replay", "stock", "--reason", "too_litle", "--dry-run"][..], "did you mean too_little?"),
        (&["replay", "stok", "--reason", "too_little", "--dry-run"], "it has stock"),
        (&["dead-letters", "list", "--reason", "unknown_sk"], "did you mean unknown_sku?"),
        (&["dead-letters", "list", "--flow", "stok"], "did you mean stock?"),
        (&["ledger", "export", "--flow", "stok"], "did you mean stock?"),
        (&["ledger", "export", "--reason", "too_mch"], "it has"),
        (&["ledger", "export", "--verdict", "skip"], "did you mean skipped?"),
        (&["ledger", "export", "--verdict", "aplied"], "did you mean applied?"),
    ] {
        let told = world.recount(args).expect(2);
        assert!(told.err.contains(meant), "{args:?}: {}", told.err);
        assert_eq!(told.out, "", "{args:?}");
    }
    for args in [
        &["dead-letters", "list", "--reason", "duplicate"][..],
        &["ledger", "export", "--reason", "duplicate"],
    ] {
        world.recount(args).expect(0);
    }
}

#[test]
fn a_because_that_says_nothing_is_refused_everywhere() {
    let world = skipped("");
    for args in [
        &["replay", "stock", "--reason", "too_little"][..],
        &["pause", "stock"],
        &["resume", "stock"],
        &["ledger", "recover", "--accept"],
        &["ledger", "forget", "a"],
    ] {
        let told = world.recount(&[args, &["--because", " "]].concat()).expect(2);
        assert!(told.err.contains("--because is empty"), "{args:?}: {}", told.err);
    }
    assert_eq!(world.on_hand("a"), 95);
}

#[test]
fn an_instance_with_the_config_of_before_does_not_replay_by_it() {
    let keys = "source = { file = \"orders.ndjson\", follow = true }";
    let world = World::new(&wrong(keys));
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    eventually("three are skipped", || world.decided() == 3);
    world.configure(&corrected(keys));
    let told = world.recount(&[&ARGS[..], &["--because", "the rule was wrong"]].concat()).expect(1);
    assert!(told.err.contains("restart it, then replay"), "{}", told.err);
    running.terminate();
    let running = world.start(&["run"]);
    running.address();
    world.recount(&[&ARGS[..], &["--because", "the rule was wrong"]].concat()).expect(0);
    assert_eq!(world.on_hand("a"), 97);
    running.terminate();
}

#[test]
fn a_handler_of_ones_own_program_is_asked_for_by_name() {
    let world = skipped("");
    world.configure(&config("", "[flow.stock.apply]\ndatabase = \"shop\"\nhandler = \"reserve\"\n"));
    let told = world.recount(&["replay", "stock", "--from", "0", "--because", "it is mended"]).expect(2);
    assert!(told.err.contains("its handler reserve is in your own program"), "{}", told.err);
    assert!(!world.journal().iter().any(|(what, _)| what == "replayed"), "nothing was begun");
}

#[test]
fn a_run_over_a_file_whose_flow_is_paused_says_so_and_ends() {
    let world = World::stock("");
    world.lines(&orders(0..3, "a"));
    world.run().expect(0);
    world.recount(&["pause", "stock", "--because", "stocktaking"]).expect(0);
    world.append(&orders(3..5, "a"));
    let told = world.recount(&["run"]).expect(1);
    for part in ["flow stock is paused: ada: stocktaking", "recount resume stock --because"] {
        assert!(told.err.contains(part), "{part}: {}", told.err);
    }
    assert!(told.out.contains("not working: it is paused"), "{}", told.out);
    assert_eq!(world.on_hand("a"), 97);
    world.recount(&["resume", "stock", "--because", "counted"]).expect(0);
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 95);
}

#[test]
fn the_story_tells_incarnations_apart_where_there_are_several() {
    let world = World::stock("dedupe = { events = 0 }");
    world.lines(&[order("o0", "zz", 1)]);
    world.run();
    assert!(!world.recount(&["story", "zz"]).expect(0).out.contains("incarnation"));
    world.recount(&["run", "--again"]);
    let told = world.recount(&["story", "stock/0/0"]).expect(0);
    for part in ["incarnation 1 of 2 of the source (file:", "incarnation 2 of 2 of the source (file:"] {
        assert!(told.out.contains(part), "{part}: {}", told.out);
    }
}

#[test]
fn whoever_operates_is_named_also_where_no_variable_says_so() {
    let world = skipped("");
    let mut command = world.command(&["pause", "stock", "--because", "who am I"]);
    for name in ["RECOUNT_AUTHOR", "USER", "LOGNAME"] {
        command.env_remove(name);
    }
    assert!(command.status().unwrap().success());
    let user = std::process::Command::new("id").arg("-un").output().unwrap();
    let by = world.journal().last().unwrap().1["by"].as_str().unwrap().to_owned();
    assert_eq!(by, String::from_utf8_lossy(&user.stdout).trim());
}
