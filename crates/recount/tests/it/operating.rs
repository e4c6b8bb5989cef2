//! Pausing, resuming, the breaker, and stopping.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order, orders};
use std::time::Duration;

fn following(keys: &str) -> World {
    World::stock(&format!("source = {{ file = \"orders.ndjson\", follow = true }}\n{keys}"))
}

fn journal_of(world: &World, what: &str) -> Vec<(String, String)> {
    let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
    let entries = world.journal().into_iter().filter(|(w, _)| w == what);
    entries.map(|(_, d)| (text(&d["by"]), text(&d["because"]))).collect()
}

#[test]
fn a_running_flow_is_paused_and_resumed_and_both_are_recorded() {
    let world = following("");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run", "--json"]);
    eventually("three are applied", || world.on_hand("a") == 97);

    let told = world.recount(&["pause", "stock", "--because", "stocktaking"]).expect(0);
    assert!(told.out.contains("running instance"), "{}", told.out);
    world.append(&orders(3..5, "a"));
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(world.on_hand("a"), 97, "nothing is taken while paused");
    let (status, page) = running.get("/health/working");
    assert_eq!(status, 503, "{page}");
    assert!(page.contains("stocktaking"), "{page}");
    assert!(running.get("/metrics").1.contains("recount_flow_paused{flow=\"stock\"} 1"));

    world.recount(&["resume", "stock", "--because", "all counted"]).expect(0);
    eventually("the others are applied", || world.on_hand("a") == 95);
    let ended = running.terminate().expect(0);
    assert_eq!(ended.json()["flows"][0]["end"], "shut down");
    assert_eq!(journal_of(&world, "paused"), [("ada".to_owned(), "stocktaking".to_owned())]);
    assert_eq!(journal_of(&world, "resumed"), [("ada".to_owned(), "all counted".to_owned())]);
    let story = world.recount(&["story", "a"]).expect(0).out;
    assert!(story.contains("stocktaking"), "the story tells it: {story}");
}

#[test]
fn a_pause_without_an_instance_is_heeded_by_the_next_start() {
    let world = following("");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    eventually("three are applied", || world.on_hand("a") == 97);
    running.terminate().expect(0);

    let told = world.recount(&["pause", "stock", "--because", "stocktaking"]).expect(0);
    assert!(told.out.contains("no instance runs"), "{}", told.out);
    world.append(&orders(3..5, "a"));
    let running = world.start(&["run"]);
    running.address();
    std::thread::sleep(Duration::from_millis(1500));
    assert_eq!(world.on_hand("a"), 97, "it began paused");
    world.recount(&["resume", "stock", "--because", "all counted"]).expect(0);
    eventually("the others are applied", || world.on_hand("a") == 95);
    running.terminate().expect(0);

    world.recount(&["pause", "stock", "--because", "again"]).expect(0);
    world.recount(&["resume", "stock", "--because", "never mind"]).expect(0);
    world.append(&orders(5..6, "a"));
    let running = world.start(&["run"]);
    eventually("it begins as if nothing had been", || world.on_hand("a") == 94);
    running.terminate().expect(0);
}

#[test]
fn the_breaker_opens_above_half_and_waits_for_somebody() {
    let world = World::new(&config(
        "batch = { events = 4 }\nbreaker = { share = \"50% of 20\", then = \"pause\" }",
        TAKE_FROM_STOCK,
    ));
    let lines: Vec<String> =
        (0..40).map(|n| order(&format!("b{n}"), if n < 20 { "zz" } else { "a" }, 1)).collect();
    world.lines(&lines);
    let running = world.start(&["run", "--json"]);
    eventually("the breaker opens", || running.log().contains("breaker_open"));
    std::thread::sleep(Duration::from_millis(500));
    let decided = world.decisions().len();
    assert!((11..20).contains(&decided), "it stopped after the batch in which it opened: {decided}");
    let (status, page) = running.get("/health/working");
    assert_eq!(status, 503);
    assert!(page.contains("breaker_open"), "{page}");
    world.recount(&["resume", "stock", "--because", "the article list is wrong, let them go"]).expect(0);
    let ended = { running }.wait();
    assert_eq!(world.decisions().len(), 40, "{}", ended.all());
    assert_eq!(world.on_hand("a"), 80);
    assert_eq!(world.journal().iter().filter(|(what, _)| what == "breaker_open").count(), 1);
}

#[test]
fn a_dry_run_whose_breaker_opens_ends_since_nobody_can_resume_it() {
    let world = World::new(&config(
        "batch = { events = 4 }\nbreaker = { share = \"50% of 20\", then = \"pause\" }",
        TAKE_FROM_STOCK,
    ));
    world.lines(&(0..40).map(|n| order(&format!("b{n}"), "zz", 1)).collect::<Vec<_>>());
    let told = world.start(&["run", "--dry-run"]).wait().expect(1);
    assert!(told.err.contains("flow stock is paused: breaker_open"), "{}", told.err);
    assert!(told.err.contains("the dry run ends here"), "{}", told.err);
    assert!(
        !told.err.contains("recount resume stock --because 'why"),
        "there is nothing to resume: {}",
        told.err
    );
    world.recount(&["run", "--dry-run"]).expect(1);
}

#[test]
fn a_flow_whose_breaker_opened_begins_paused_after_a_restart() {
    let world = World::new(&config(
        "batch = { events = 4 }\nbreaker = { share = \"50% of 20\", then = \"pause\" }",
        TAKE_FROM_STOCK,
    ));
    let lines: Vec<String> = (0..40).map(|n| order(&format!("b{n}"), "zz", 1)).collect();
    world.lines(&lines);
    let running = world.start(&["run"]);
    eventually("the breaker opens", || running.log().contains("breaker_open"));
    eventually("and that is recorded", || world.journal().iter().any(|(what, _)| what == "breaker_open"));
    running.kill();
    let decided = world.decisions().len();
    let told = world.recount(&["run"]).expect(1);
    assert_eq!(world.decisions().len(), decided, "a restart must not close the breaker: {}", told.all());
    assert!(told.err.contains("flow stock is paused: breaker_open"), "{}", told.err);
}

#[test]
fn the_breaker_may_only_say_so() {
    let world = World::new(&config(
        "batch = { events = 4 }\nbreaker = { share = \"50% of 20\", then = \"alert\" }",
        TAKE_FROM_STOCK,
    ));
    world.lines(&(0..40).map(|n| order(&format!("b{n}"), "zz", 1)).collect::<Vec<_>>());
    let told = world.run();
    assert!(told.err.contains("breaker_open"), "{}", told.err);
    assert_eq!(world.decisions().len(), 40);
}

#[test]
fn asked_to_stop_it_drains_what_is_under_way() {
    let world = World::stock("batch = { events = 10 }");
    world.put("a", 90_000);
    world.lines(&orders(0..20_000, "a"));
    let running = world.start(&["run", "--json"]);
    eventually("it is under way", || world.on_hand("a") < 89_900);
    let ended = running.terminate();
    let summary = ended.json();
    assert_eq!(summary["flows"][0]["end"], "shut down", "{summary:#}");
    let decided = world.decisions().len() as i64;
    assert!(decided < 20_000, "it stopped on the way: {decided}");
    assert_eq!(world.on_hand("a"), 90_000 - decided, "what was applied is recorded, and nothing else");
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 70_000);
    world.audit().expect(0);
}

#[test]
fn commands_that_write_need_the_token_that_lies_in_the_ledger() {
    let world = following("");
    let running = world.start(&["run"]);
    let operation = r#"{"by":"eve","because":"because"}"#;
    let json = ("content-type", "application/json");
    assert_eq!(running.post("/v1/flows/stock/pause", &[json], operation).0, 401);
    assert_eq!(
        running.post("/v1/flows/stock/pause", &[json, ("authorization", "Bearer guess")], operation).0,
        401
    );
    assert!(!running.get("/metrics").1.contains("recount_flow_paused{flow=\"stock\"} 1"));
    running.terminate().expect(0);
}

#[test]
fn a_running_instance_replays_what_it_is_asked_to() {
    let world = following("");
    world.lines(&[order("p0", "new", 1), order("p1", "a", 1)]);
    let running = world.start(&["run"]);
    eventually("both are decided", || world.decided() == 2);
    world.put("new", 10);
    let told = world
        .recount(&[
            "replay",
            "stock",
            "--reason",
            "unknown_sku",
            "--because",
            "it is on the list now",
            "--json",
        ])
        .expect(0);
    assert_eq!(told.json()["receipt"]["decided"]["applied"], 1, "{}", told.out);
    assert_eq!(world.on_hand("new"), 9);
    running.terminate().expect(0);
    assert_eq!(world.fates(), ["applied"; 2]);
    world.audit().expect(0);
}

#[test]
fn a_key_that_stays_held_stays_so_over_a_restart_until_somebody_resumes() {
    let held = "\n[flow.stock.retry]\nattempts = 2\nbackoff = \"10ms\"\nafter_last = \"stay-held\"\n";
    let retried = format!("{TAKE_FROM_STOCK}{held}").replacen(
        "[[flow.stock.apply.otherwise]]",
        "[[flow.stock.apply.otherwise]]\nwhen = \"SELECT on_hand < 0 FROM stock WHERE sku = :sku\"\nverdict = \"retry\"\n\
         reason = \"shelf_closed\"\nbecause = \"the shelf is closed\"\n\n[[flow.stock.apply.otherwise]]",
        1,
    );
    let world = World::new(&config("", &retried));
    world.put("a", -1);
    world.lines(&[order("o0", "a", 1), order("o1", "b", 1)]);
    world.run();
    assert_eq!(world.fates(), ["dead-lettered retries_exhausted", "applied"]);

    // The shelf is open again, but nobody has said that the key may go on.
    world.put("a", 100);
    world.append(&[order("o2", "a", 1), order("o3", "b", 1)]);
    let told = world.run();
    assert_eq!(world.on_hand("a"), 100, "{}", told.all());
    assert_eq!(world.on_hand("b"), 98);

    world.recount(&["resume", "stock", "--because", "the shelf is open"]).expect(0);
    world.run();
    assert_eq!(world.on_hand("a"), 99, "what waited is applied now");
}

#[test]
fn a_pause_that_could_not_be_recorded_is_no_success() {
    let world = following("");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    eventually("three are applied", || world.on_hand("a") == 97);
    let refuse = "CREATE TRIGGER full BEFORE INSERT ON journal BEGIN SELECT RAISE(ABORT, 'no room'); END";
    let catalog = rusqlite::Connection::open(world.path("recount-data/catalog.db")).unwrap();
    catalog.busy_timeout(crate::harness::WAIT_MAX).unwrap();
    catalog.execute_batch(refuse).unwrap();
    let told = world.recount(&["pause", "stock", "--because", "stocktaking"]).expect(1);
    assert!(told.err.contains("could not be recorded") && told.err.contains("no room"), "{}", told.err);
    let told = world.recount(&["resume", "stock", "--because", "counted"]).expect(1);
    assert!(told.err.contains("is as it was"), "{}", told.err);
    assert!(journal_of(&world, "paused").is_empty());
    running.kill();
}

#[test]
fn two_signals_of_one_request_stop_in_order() {
    let world = World::stock("source = { file = \"orders.ndjson\", follow = true }");
    world.lines(&orders(0..5, "a"));
    let mut running = world.start(&["run"]);
    eventually("they are decided", || world.decided() == 5);
    running.address();
    // As `timeout` sends two, to the process and to its group; of two kinds, or the system makes one of them.
    let process = running.child.id().to_string();
    let sent =
        std::process::Command::new("sh").args(["-c", "kill -TERM $0; kill -INT $0", &process]).status();
    assert!(sent.unwrap().success());
    let told = running.wait().expect(0);
    assert!(told.out.contains("5 decided"), "{}", told.all());
}
