//! What a run does with crashes, trouble and order.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order, orders};
use std::fs;

/// How many batches the instance began to settle; see `RECOUNT_STEP_FILE`.
fn settled(world: &World) -> u64 {
    let text = fs::read_to_string(world.path("step")).unwrap_or_default();
    text.get(8..).and_then(|count| count.trim().parse().ok()).unwrap_or(0)
}

#[test]
fn killed_in_mid_run_again_and_again_every_event_is_applied_once() {
    let world = World::stock("batch = { events = 20 }");
    world.put("a", 50_000);
    let events = 4_000;
    let mut lines = orders(0..events, "a");
    lines[17] = order("o17", "zz", 1);
    world.lines(&lines);
    let mut killed = 0;
    for _ in 0..6 {
        let _ = fs::remove_file(world.path("step"));
        let (out, err) =
            (fs::File::create(world.path("out")).unwrap(), fs::File::create(world.path("err")).unwrap());
        let mut command = world.command(&["run", "--json"]);
        let mut child =
            command.env("RECOUNT_STEP_FILE", world.path("step")).stdout(out).stderr(err).spawn().unwrap();
        let ended = {
            let mut ended = false;
            eventually("three batches are settled", || {
                ended = child.try_wait().unwrap().is_some();
                ended || settled(&world) >= 3 + killed
            });
            ended
        };
        if !ended {
            killed += 1;
        }
        let _ = child.kill();
        child.wait().unwrap();
    }
    assert!(killed >= 3, "it was killed under way: {killed}");
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 50_000 - (events as i64 - 1));
    assert_eq!(world.number("SELECT count(*) FROM recount_effect"), events as i64 - 1);
    assert_eq!(world.number("SELECT count(DISTINCT \"offset\") FROM recount_effect"), events as i64 - 1);
    let decisions = world.decisions();
    assert_eq!(decisions.len() as u64, events);
    assert!(decisions.iter().enumerate().all(|(offset, d)| d["offset"] == offset && d["current"] == true));
    world.audit().expect(0);
}

#[test]
fn a_retry_holds_its_key_in_order_and_others_go_on() {
    // An article that is not there yet: an event of another key brings it.
    let apply = r#"
[flow.stock.retry]
attempts = 20
backoff = "30ms"
backoff_max = "100ms"

[[flow.stock.apply]]
when = "event.sku == 'bring'"
database = "shop"
sql = "INSERT INTO stock VALUES ('late', :quantity)"
with = { quantity = "event.quantity" }
rows = 1

[[flow.stock.apply]]
database = "shop"
sql = ["UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku", "INSERT INTO log (id) VALUES (:id)"]
with = { quantity = "event.quantity", sku = "event.sku", id = "event.id" }
rows = [1, 1]

[[flow.stock.apply.otherwise]]
verdict = "retry"
reason = "not_yet"
because = "the article may come"
"#;
    let world = World::new(&config("batch = { events = 1 }", apply));
    world.shop().execute_batch("CREATE TABLE log (n INTEGER PRIMARY KEY, id TEXT)").unwrap();
    world.lines(&[
        order("r0", "late", 1),
        order("r1", "late", 1),
        order("r2", "a", 1),
        order("r3", "late", 1),
        order("r4", "bring", 50),
        order("r5", "a", 1),
    ]);
    world.run().expect(0);
    assert_eq!(world.fates(), ["applied"; 6]);
    assert_eq!(world.on_hand("late"), 47);
    let log: String = world
        .shop()
        .query_row("SELECT group_concat(id, ' ') FROM (SELECT id FROM log ORDER BY n)", [], |row| row.get(0))
        .unwrap();
    let of_key: Vec<&str> = log.split(' ').filter(|id| ["r0", "r1", "r3"].contains(id)).collect();
    assert_eq!(of_key, ["r0", "r1", "r3"], "in order within the key: {log}");
    assert!(log.starts_with("r2"), "others went on: {log}");
    let first = &world.decisions()[0];
    assert!(first["attempt"].as_u64().unwrap() > 1, "{first}");
    world.audit().expect(0);
}

#[test]
fn the_first_apply_whose_when_holds_is_taken_and_none_is_no_route() {
    let route = |when: &str, sign: &str| {
        format!(
            "[[flow.stock.apply]]\nwhen = \"{when}\"\ndatabase = \"shop\"\n\
             sql = \"UPDATE stock SET on_hand = on_hand {sign} :quantity WHERE sku = :sku\"\n\
             with = {{ quantity = \"event.quantity\", sku = \"event.sku\" }}\nrows = 1\n"
        )
    };
    let tables = format!("{}{}", route("meta.type == 'placed'", "-"), route("meta.type == 'returned'", "+"));
    let world = World::new(&config("type = \"event.type\"\nignore = [\"viewed\"]", &tables));
    let line = |id: &str, kind: &str| {
        format!("{{\"id\":\"{id}\",\"type\":\"{kind}\",\"sku\":\"a\",\"quantity\":10}}")
    };
    world.lines(&[
        line("t0", "placed"),
        line("t1", "returned"),
        line("t2", "returned"),
        line("t3", "lost"),
        line("t4", "viewed"),
    ]);
    world.run();
    assert_eq!(
        world.fates(),
        ["applied", "applied", "applied", "dead-lettered no_route", "skipped not_for_this_flow"]
    );
    assert_eq!(world.on_hand("a"), 110);
}

#[test]
fn a_schema_is_held_against_each_event() {
    let world = World::stock("schema = \"order.json\"");
    fs::write(
        world.path("order.json"),
        r#"{"type":"object","required":["id","sku","quantity"],"properties":{"id":{"type":"string"},"sku":{"type":"string"},"quantity":{"type":"integer"}}}"#,
    )
    .unwrap();
    world.lines(&[order("s0", "a", 1), "{\"id\":\"s1\",\"sku\":\"a\",\"quantity\":\"one\"}".to_owned()]);
    world.run();
    assert_eq!(world.fates(), ["applied", "dead-lettered schema_mismatch"]);
}

#[test]
fn replayed_once_the_cause_is_gone_a_dead_letter_is_applied_and_the_books_move() {
    let world = World::stock("");
    world.lines(&[order("p0", "a", 1), order("p1", "new", 1), order("p2", "new", 2)]);
    world.run();
    assert_eq!(world.fates(), ["applied", "dead-lettered unknown_sku", "dead-lettered unknown_sku"]);
    world.put("new", 10);
    let dry = world.recount(&["replay", "stock", "--reason", "unknown_sku", "--dry-run"]).expect(0);
    assert!(dry.out.contains("2 events"), "{}", dry.out);
    assert_eq!(world.on_hand("new"), 10, "a dry run decides nothing");
    world
        .recount(&["replay", "stock", "--reason", "unknown_sku", "--because", "the list is complete now"])
        .expect(0);
    assert_eq!(world.fates(), ["applied"; 3]);
    assert_eq!(world.on_hand("new"), 7);
    let report = world.audit().expect(0).json();
    assert_eq!(report["flows"][0]["books"]["applied"], 3);
    assert_eq!(report["flows"][0]["books"]["dead-lettered"], 0);
    let again =
        world.recount(&["replay", "stock", "--reason", "unknown_sku", "--because", "again"]).expect(0);
    assert!(again.out.contains("0 events"), "{}", again.out);
    assert_eq!(world.on_hand("new"), 7);
}

#[test]
fn a_dry_run_decides_everything_and_leaves_nothing_behind() {
    let world = World::stock("");
    world.lines(&[order("y0", "a", 1), order("y1", "zz", 1)]);
    let before: i64 = world.number("SELECT count(*) FROM sqlite_schema");
    let summary = world.recount(&["run", "--dry-run", "--json"]).expect(0).json();
    assert_eq!(summary["flows"][0]["books"]["applied"], 1);
    assert_eq!(summary["flows"][0]["books"]["dead-lettered"], 1);
    assert_eq!(world.on_hand("a"), 100);
    assert_eq!(world.number("SELECT count(*) FROM sqlite_schema"), before, "not even tables");
    assert!(!world.path("recount-data").exists());
    world.run().expect(0);
    assert_eq!(world.on_hand("a"), 99);
}

#[test]
fn fail_on_makes_a_script_stop() {
    let check = "[[flow.stock.check]]\nreason = \"zero_quantity\"\nthat = \"event.quantity > 0\"\notherwise = \"skip\"\nat_most = \"any\"\nbecause = \"so\"\n\
                 [[flow.stock.check]]\nreason = \"bulk_order\"\nthat = \"event.quantity < 5\"\notherwise = \"flag\"\nat_most = \"any\"\nbecause = \"so\"\n";
    for (line, fail_on, exit) in [
        (order("f0", "a", 1), "dead-letters,skips,flags", 0),
        (order("f0", "zz", 1), "dead-letters", 1),
        (order("f0", "zz", 1), "skips,flags", 0),
        (order("f0", "a", 0), "skips", 1),
        (order("f0", "a", 0), "dead-letters", 0),
        (order("f0", "a", 9), "flags", 1),
    ] {
        let world = World::new(&config("", &format!("{check}{TAKE_FROM_STOCK}")));
        world.lines(&[order("f-", "a", 1), line.clone()]);
        let told = world.recount(&["run", "--fail-on", fail_on]);
        assert_eq!(told.code, Some(exit), "{line} --fail-on {fail_on}: {}", told.all());
    }
}
