//! DESIGN §12: a file that is run again, made anew, or cut short.

use crate::harness::{World, order, orders};
use std::fs;

#[test]
fn the_same_file_again_holds_nothing_new_and_again_reads_it_as_another() {
    let world = World::stock("");
    world.lines(&orders(0..5, "a"));
    world.run().expect(0);
    let told = world.recount(&["run"]).expect(0);
    assert!(told.out.contains("5 already decided, nothing new"), "{}", told.out);
    assert_eq!(world.on_hand("a"), 95);

    world.recount(&["run", "--again"]).expect(0);
    let decisions = world.decisions();
    assert_eq!(decisions.len(), 10);
    let sources: std::collections::BTreeSet<&str> =
        decisions.iter().map(|d| d["source"].as_str().unwrap()).collect();
    assert_eq!(sources.len(), 2, "another incarnation: {sources:?}");
    assert_eq!(world.on_hand("a"), 90, "and its events are applied as events of that incarnation");
}

#[test]
fn a_file_that_grew_goes_on_where_it_was() {
    let world = World::stock("");
    world.lines(&orders(0..5, "a"));
    world.run().expect(0);
    world.append(&orders(5..8, "a"));
    let summary = world.run().expect(0).json();
    assert_eq!(summary["flows"][0]["decided_now"], 3);
    assert_eq!(summary["flows"][0]["decided_before"], 5);
    assert_eq!(world.on_hand("a"), 92);
    world.audit().expect(0);
}

#[test]
fn a_file_made_anew_or_cut_short_stops_the_flow_and_nothing_is_taken() {
    let whole = orders(0..5, "a");
    let cases: &[(&str, Vec<String>)] = &[
        ("made anew", orders(100..107, "b")),
        ("cut short", whole[..3].to_vec()),
        ("emptied", Vec::new()),
        ("another line at a position", {
            let mut lines = whole.clone();
            lines[1] = order("x", "b", 1);
            lines.extend(orders(5..7, "b"));
            lines
        }),
    ];
    for (what, lines) in cases {
        let world = World::stock("");
        world.lines(&whole);
        world.run().expect(0);
        world.lines(lines);
        let told = world.run();
        assert_eq!(told.code, Some(1), "{what}: {}", told.all());
        let summary = told.json();
        assert_eq!(summary["flows"][0]["end"], "stopped", "{what}");
        assert_eq!(summary["flows"][0]["stops"][0]["reason"], "source_changed", "{what}: {summary:#}");
        assert_eq!(world.decisions().len(), 5, "{what}: nothing was decided");
        assert_eq!((world.on_hand("a"), world.on_hand("b")), (95, 100), "{what}");
        // With the old file back, it goes on as if nothing had been.
        world.lines(&whole);
        world.append(&orders(5..6, "a"));
        world.run().expect(0);
        assert_eq!(world.on_hand("a"), 94, "{what}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    let world = World::stock("");
    fs::remove_file(world.path("orders.ndjson")).unwrap();
    let told = world.run();
    assert_ne!(told.code, Some(0), "{}", told.all());
    assert!(told.all().contains("orders.ndjson"), "{}", told.all());
}

#[test]
fn compressed_files_are_read_as_they_are() {
    for (name, command) in [("orders.ndjson.gz", "gzip"), ("orders.ndjson.zst", "zstd")] {
        let world = World::stock(&format!("source = {{ file = \"{name}\" }}"));
        world.lines(&orders(0..5, "a"));
        let packed = std::process::Command::new(command).arg("-c").arg(world.path("orders.ndjson")).output();
        let Ok(packed) = packed else { continue };
        fs::write(world.path(name), packed.stdout).unwrap();
        world.run().expect(0);
        assert_eq!(world.on_hand("a"), 95, "{name}");
        world.audit().expect(0);
    }
}
