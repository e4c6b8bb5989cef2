//! DESIGN §12: the same id again.

use crate::harness::{TAKE_FROM_STOCK, World, config, order};

#[test]
fn the_same_event_again_is_skipped_and_names_the_first() {
    let world = World::stock("");
    let line = order("d1", "a", 1);
    world.lines(&[line.clone(), order("d2", "a", 1), line]);
    world.run();
    assert_eq!(world.fates(), ["applied", "applied", "skipped duplicate"]);
    let duplicate = &world.decisions()[2];
    assert!(duplicate.to_string().contains("stock/0/0"), "it names the first: {duplicate}");
    assert_eq!(world.on_hand("a"), 98);
}

#[test]
fn a_duplicate_is_found_across_runs() {
    let world = World::stock("");
    world.lines(&[order("d1", "a", 1)]);
    world.run();
    world.append(&[order("d1", "a", 1)]);
    world.run();
    assert_eq!(world.fates(), ["applied", "skipped duplicate"]);
}

#[test]
fn beyond_the_declared_window_nothing_is_claimed() {
    let world = World::stock("dedupe = { events = 2 }\nbatch = { events = 1 }");
    let ids = ["w1", "w2", "w3", "w1"];
    world.lines(&ids.map(|id| order(id, "a", 1)));
    world.run();
    assert_eq!(world.fates(), ["applied"; 4]);
}

#[test]
fn an_id_with_another_payload_is_a_dead_letter() {
    let world = World::stock("");
    world.lines(&[order("d1", "a", 1), order("d1", "a", 2)]);
    world.run();
    assert_eq!(world.fates(), ["applied", "dead-lettered id_reused"]);
}

#[test]
fn a_repetition_of_a_dead_letter_is_processed_and_linked() {
    let world = World::stock("");
    world.lines(&[order("d1", "new", 1)]);
    world.run();
    assert_eq!(world.fates(), ["dead-lettered unknown_sku"]);
    world.put("new", 10);
    world.append(&[order("d1", "new", 1)]);
    world.run();
    assert_eq!(world.fates(), ["dead-lettered unknown_sku", "applied"]);
    assert_eq!(world.on_hand("new"), 9);
    let story = world.recount(&["story", "d1", "--json"]).expect(0);
    assert!(story.out.contains("stock/0/0"), "{}", story.out);
    let second = &world.decisions()[1];
    assert_eq!(second["evidence"]["linked_to_dead_letter"], 0, "the second names the first: {second}");
}

#[test]
fn a_repetition_of_an_event_that_is_still_open_waits_behind_it() {
    // The first waits for a row that another event of another key brings.
    let apply = TAKE_FROM_STOCK.replace(
        "verdict = \"dead-letter\"\nreason = \"unknown_sku\"",
        "verdict = \"retry\"\nreason = \"unknown_sku\"",
    );
    let world = World::new(&config(
        "key = \"event.id\"\n[flow.stock.retry]\nattempts = 3\nbackoff = \"50ms\"",
        &apply,
    ));
    world.lines(&[order("d1", "late", 1), order("d1", "late", 1), order("d2", "a", 1)]);
    world.run();
    let fates = world.fates();
    assert_eq!(fates[0], "dead-lettered retries_exhausted");
    // The first became a dead letter, so the second was processed as an event of its own.
    assert_eq!(fates[1], "dead-lettered retries_exhausted");
    assert_eq!(fates[2], "applied");
    let order_decided: Vec<u64> = {
        let mut decisions = world.decisions();
        decisions.sort_by_key(|d| d["seq"].as_u64());
        decisions.iter().map(|d| d["offset"].as_u64().unwrap()).collect()
    };
    assert_eq!(order_decided[0], 2, "the other key went on first");
    world.audit();
}
