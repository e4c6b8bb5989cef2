//! A consumer that stays as it is, observed: what it leaves out is found and named, and a correct one is not accused.

use crate::harness::{Running, Told, World, config, eventually, order, statement};
use rusqlite::Connection;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

const SEEN: &str = "{ sql = \"SELECT order_id FROM movement\", id = \"order_id\" }";

const ZERO_IS_SKIPPED: &str = "
[[flow.stock.check]]
reason = \"zero_quantity\"
that = \"event.quantity > 0\"
otherwise = \"skip\"
at_most = \"10% of 1000\"
because = \"nothing ordered\"
";

/// A world with an observed flow: where effects are seen, and for how long one may be missing.
fn observed(effects: &str, within: &str, flow_keys: &str, tables: &str) -> World {
    let apply =
        format!("[flow.stock.apply]\ndatabase = \"shop\"\neffects = {effects}\nwithin = \"{within}\"\n");
    let keys = format!("mode = \"observe\"\nat_most = {{ duplicate = \"any\" }}\n{flow_keys}");
    let world = World::new(&config(&keys, &format!("{tables}{apply}")));
    let tables = "CREATE TABLE movement (order_id TEXT, units INTEGER); \
         CREATE TABLE refusal (order_id TEXT, why TEXT)";
    world.shop().execute_batch(tables).unwrap();
    world
}

/// `o0`, `o1` … with the quantities 1 to 9.
fn many(count: u64) -> Vec<String> {
    (0..count).map(|n| order(&format!("o{n}"), "a", n as i64 % 9 + 1)).collect()
}

/// An ordinary consumer: reads every line, and writes what `movement` gives for it. A movement is made once.
fn consume(folder: &Path, mut statement_for: impl FnMut(&str, i64) -> Option<&'static str>) {
    let shop = Connection::open(folder.join("shop.db")).unwrap();
    shop.busy_timeout(Duration::from_secs(60)).unwrap();
    for line in fs::read_to_string(folder.join("orders.ndjson")).unwrap().lines() {
        let order: Value = serde_json::from_str(line).unwrap();
        let (id, units) = (order["id"].as_str().unwrap(), order["quantity"].as_i64().unwrap());
        if let Some(sql) = statement_for(id, units) {
            shop.execute(sql, (id, units)).unwrap();
        }
    }
}

const MOVE: &str = "INSERT INTO movement SELECT ?1, ?2 WHERE ?1 NOT IN (SELECT order_id FROM movement)";
const REFUSE: &str = "INSERT INTO refusal VALUES (?1, 'not ' || ?2)";

fn finding<'j>(report: &'j Value, code: &str) -> &'j Value {
    let findings = statement(report, "E2")["findings"].as_array().unwrap();
    findings.iter().find(|f| f["code"] == code).unwrap_or_else(|| panic!("no {code}: {report:#}"))
}

/// The ids in a finding's names, which are `flow/partition/offset (id X)`.
fn ids(finding: &Value) -> BTreeSet<String> {
    let names = finding["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    let id = |name: &str| name.split_once("(id ").unwrap().1.trim_end_matches(')').to_owned();
    names.map(id).collect()
}

#[track_caller]
fn is_working(told: &Told) {
    let report = told.json();
    let e2 = statement(&report, "E2");
    assert_eq!((told.code, e2["status"].as_str()), (Some(0), Some("balanced")), "{report:#}");
    assert_eq!(report["flows"][0]["working"], true, "{report:#}");
    assert_eq!(e2["findings"].as_array().unwrap().len(), 0);
}

#[test]
fn a_consumer_that_leaves_nothing_at_all_is_found() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(200));
    let told = world.run().expect(1);
    let report = told.json();
    let missing = finding(&report, "expected_effect_missing");
    assert_eq!(missing["count"], 200);
    assert!(missing["sentence"].as_str().unwrap().contains("no event of the flow has an effect"));
    assert_eq!(
        (&report["flows"][0]["decisions"], &report["flows"][0]["working"]),
        (&"expected".into(), &false.into())
    );
    assert!(told.err.contains("now waits for the consumer's effects"), "{}", told.err);
}

#[test]
fn one_in_twenty_left_out_in_silence_is_named_by_id() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(1000));
    let left_out = |id: &str| id[1..].parse::<u64>().unwrap() % 20 == 7;
    consume(&world.path(""), |id, _| (!left_out(id)).then_some(MOVE));
    let told = world.recount(&["run"]).expect(1);
    assert!(
        told.out.contains("50 of 1000 expected effects are not in the database: id o7 (stock/0/7), "),
        "{}",
        told.out
    );
    assert!(told.out.contains("the consumer went past these and left nothing"), "{}", told.out);
    let report = world.recount(&["audit", "--json", "--names", "100"]).expect(1).json();
    let missing = finding(&report, "expected_effect_missing");
    let expected: BTreeSet<String> = (0..1000).map(|n| format!("o{n}")).filter(|id| left_out(id)).collect();
    assert_eq!((missing["count"].as_u64(), ids(missing)), (Some(50), expected));
    let few = world.recount(&["audit", "--names", "5"]).expect(1);
    assert!(few.out.contains("and 45 more"), "{}", few.out);
}

#[test]
fn a_correct_consumer_is_not_accused() {
    let world = observed(SEEN, "10s", "", ZERO_IS_SKIPPED);
    let mut lines = many(300);
    lines.push(order("o7", "a", 8));
    lines.extend((300..320).map(|n| order(&format!("o{n}"), "b", 0)));
    lines.push(order("o7", "a", 8));
    world.lines(&lines);
    consume(&world.path(""), |_, units| (units > 0).then_some(MOVE));
    let began = Instant::now();
    is_working(&world.run());
    assert!(began.elapsed() < Duration::from_secs(9), "it waited although all was there");
    is_working(&world.audit());
    let mut fates = world.fates();
    fates.sort();
    fates.dedup();
    assert_eq!(fates, ["applied", "skipped duplicate", "skipped zero_quantity"]);
}

#[test]
fn nothing_is_written_to_the_consumers_database() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(20));
    consume(&world.path(""), |_, _| Some(MOVE));
    world.shop().execute_batch("PRAGMA wal_checkpoint(TRUNCATE); PRAGMA journal_mode = DELETE").unwrap();
    let before = fs::read(world.path("shop.db")).unwrap();
    is_working(&world.run());
    world.recount(&["validate"]).expect(0);
    is_working(&world.audit());
    assert!(fs::read(world.path("shop.db")).unwrap() == before, "shop.db has changed");
    assert_eq!(world.number("SELECT count(*) FROM sqlite_schema WHERE name LIKE 'recount%'"), 0);
}

#[test]
fn a_consumer_that_comes_late_is_waited_for() {
    let world = observed(SEEN, "45s", "", "");
    world.lines(&many(100));
    let began = Instant::now();
    let mut running = world.start(&["run", "--json"]);
    eventually("it waits", || running.log().contains("now waits for the consumer's effects"));
    consume(&world.path(""), |_, _| Some(MOVE));
    is_working(&running.wait());
    assert!(began.elapsed() < Duration::from_secs(40), "it waited longer than it had to");
}

#[test]
fn an_interrupt_ends_the_wait_and_shows_the_books() {
    let world = observed(SEEN, "10m", "", "");
    world.lines(&many(10));
    let running = world.start(&["run", "--json"]);
    eventually("it waits", || running.log().contains("now waits for the consumer's effects"));
    let told = running.terminate().expect(0);
    let report = told.json();
    let e2 = statement(&report, "E2");
    assert_eq!(e2["status"], "open");
    assert!(
        e2["sentence"].as_str().unwrap().contains("10 expected effects, 0 there; 10 not there yet"),
        "{e2:#}"
    );
}

#[test]
fn a_consumer_that_lags_is_said_to_be_behind_and_is_well_once_it_has_caught_up() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(100));
    consume(&world.path(""), |id, _| (id[1..].parse::<u64>().unwrap() < 60).then_some(MOVE));
    let report = world.run().expect(1).json();
    let missing = finding(&report, "expected_effect_missing");
    assert_eq!(missing["count"], 40);
    let sentence = missing["sentence"].as_str().unwrap();
    assert!(sentence.contains("the consumer is behind, or has stopped"), "{sentence}");
    consume(&world.path(""), |_, _| Some(MOVE));
    is_working(&world.audit());
    is_working(&world.run());
}

#[test]
fn refusals_that_it_records_elsewhere_are_listed_with_a_union() {
    let left = "SELECT order_id FROM movement UNION ALL SELECT order_id FROM refusal";
    let world = observed(&format!("{{ sql = \"{left}\", id = \"order_id\" }}"), "1s", "", "");
    world.lines(&many(90));
    consume(&world.path(""), |_, units| Some(if units > 7 { REFUSE } else { MOVE }));
    is_working(&world.run());
    assert_eq!(world.number("SELECT count(*) FROM refusal"), 20);
    let without = fs::read_to_string(world.path("recount.toml")).unwrap();
    world.configure(&without.replace(" UNION ALL SELECT order_id FROM refusal", ""));
    eventually("the time of the last decision is over", || world.audit().code == Some(1));
    assert_eq!(finding(&world.audit().expect(1).json(), "expected_effect_missing")["count"], 20);
}

#[test]
fn without_an_id_it_says_how_many_and_that_it_cannot_say_which() {
    let world = observed("{ sql = \"SELECT count(*) FROM movement\" }", "1s", "", "");
    world.lines(&many(100));
    consume(&world.path(""), |id, _| (!id.ends_with('3')).then_some(MOVE));
    let told = world.run().expect(1);
    let report = told.json();
    let (e2, missing) = (statement(&report, "E2"), finding(&report, "expected_effect_missing"));
    assert_eq!((missing["count"].as_u64(), missing["names"].as_array().unwrap().len()), (Some(10), 0));
    assert_eq!(e2["strength"], "counted in total only, without a cut");
    assert!(e2["sentence"].as_str().unwrap().contains("which ones can't be told"), "{e2:#}");
    consume(&world.path(""), |_, _| Some(MOVE));
    is_working(&world.audit());
    world.shop().execute("INSERT INTO movement VALUES ('x', 1), ('y', 1)", []).unwrap();
    eventually("the time of the last decision is over", || world.audit().code == Some(1));
    assert_eq!(finding(&world.audit().expect(1).json(), "effects_without_decision")["count"], 2);
}

#[test]
fn an_effect_that_a_check_rules_out_is_named_with_its_reason() {
    let world = observed(SEEN, "1s", "", ZERO_IS_SKIPPED);
    let mut lines = many(20);
    lines.push(order("nothing", "a", 0));
    world.lines(&lines);
    consume(&world.path(""), |_, _| Some(MOVE));
    let report = world.run().expect(1).json();
    let names = &finding(&report, "unexpected_effect")["names"];
    assert_eq!(names, &serde_json::json!(["stock/0/20 (id nothing, zero_quantity)"]));
}

#[test]
fn an_effect_that_stands_twice_is_named() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(20));
    consume(&world.path(""), |_, _| Some(MOVE));
    world.shop().execute("INSERT INTO movement VALUES ('o11', 3)", []).unwrap();
    let report = world.run().expect(1).json();
    let names = &finding(&report, "effects_twice")["names"];
    assert_eq!(names, &serde_json::json!(["stock/0/11 (id o11, 2 times)"]));
}

#[test]
fn rows_from_before_the_events_are_told_and_can_be_left_out_in_the_query() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(20));
    consume(&world.path(""), |_, _| Some(MOVE));
    world.shop().execute("INSERT INTO movement VALUES ('last-year-1', 3)", []).unwrap();
    let report = world.run().expect(1).json();
    let extra = finding(&report, "effects_without_decision");
    assert_eq!(extra["names"], serde_json::json!(["id last-year-1"]));
    assert!(extra["sentence"].as_str().unwrap().contains("left out in the query"));
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    world.configure(&config.replace("FROM movement", "FROM movement WHERE order_id NOT LIKE 'last%'"));
    is_working(&world.audit());
}

#[test]
fn a_consumer_that_is_ahead_of_recount_is_not_accused() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(20));
    consume(&world.path(""), |_, _| Some(MOVE));
    is_working(&world.run());
    world.append(&[order("new-1", "a", 1), order("new-2", "a", 1)]);
    consume(&world.path(""), |_, _| Some(MOVE));
    thread::sleep(Duration::from_millis(1200));
    let report = world.audit().expect(0).json();
    let e2 = statement(&report, "E2");
    assert_eq!(e2["status"], "open");
    assert!(
        e2["sentence"].as_str().unwrap().contains("2 effects of events that Recount has not decided yet")
    );
    is_working(&world.run());
}

#[test]
fn an_id_that_comes_again_beyond_the_window_is_not_held_against_the_consumer() {
    let world = observed(SEEN, "1s", "dedupe = { events = 3 }\nbatch = { events = 2 }\n", "");
    let mut lines = many(20);
    lines.push(order("o1", "a", 2));
    world.lines(&lines);
    consume(&world.path(""), |_, _| Some(MOVE));
    let told = world.run();
    assert_eq!(told.json()["flows"][0]["books"]["applied"], 21);
    is_working(&told);
}

#[test]
fn a_secret_id_is_not_named() {
    let world = observed(SEEN, "1s", "secret = [\"event.id\"]\n", "");
    world.lines(&[order("hush-77", "a", 1), order("hush-78", "a", 1)]);
    world.shop().execute("INSERT INTO movement VALUES ('hush-77', 1), ('hush-99', 1)", []).unwrap();
    let told = world.recount(&["run"]).expect(1);
    assert!(told.out.contains("stock/0/1 (id secret)"), "{}", told.out);
    assert!(!told.all().contains("hush"), "{}", told.all());
}

#[test]
fn a_database_that_is_away_makes_it_unprovable_and_not_wrong() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(5));
    for name in ["shop.db", "shop.db-wal", "shop.db-shm"] {
        let _ = fs::remove_file(world.path(name));
    }
    let report = world.run().expect(3).json();
    assert_eq!(statement(&report, "E2")["status"], "unprovable");
    assert!(!world.path("shop.db").exists(), "it made a database of its own");
}

#[test]
fn a_query_that_the_database_refuses_is_a_fault_with_its_line() {
    let world = observed("{ sql = \"SELECT order_id FROM movment\", id = \"order_id\" }", "1s", "", "");
    let told = world.recount(&["validate"]).expect(2);
    assert!(told.out.contains("no such table: movment"), "{}", told.out);
    let world = observed("{ sql = \"SELECT order_id FROM movement\", id = \"id\" }", "1s", "", "");
    let told = world.recount(&["validate"]).expect(2);
    assert!(told.out.contains("has no column \"id\""), "{}", told.out);
}

#[test]
fn a_reconcile_beside_an_observed_consumer_has_no_cut_and_says_so() {
    let reconcile = "[[reconcile]]\nname = \"units\"\nleft = { flow = \"stock\", sum = \"event.quantity\" }\n\
         right = { database = \"shop\", sql = \"SELECT sum(units) FROM movement\" }\nwithin = \"1s\"\n";
    let world = observed(SEEN, "1s", "", reconcile);
    world.lines(&many(50));
    consume(&world.path(""), |_, _| Some(MOVE));
    let told = world.run();
    is_working(&told);
    let report = told.json();
    let e3 = statement(&report, "E3");
    assert_eq!((&e3["status"], &e3["strength"]), (&"balanced".into(), &"summed without a cut".into()));
    assert!(e3["sentence"].as_str().unwrap().contains("there is no cut"));
    world.shop().execute("UPDATE movement SET units = units + 1 WHERE order_id = 'o4'", []).unwrap();
    eventually("the time of the last decision is over", || world.audit().code == Some(1));
    let report = world.audit().expect(1).json();
    assert_eq!(statement(&report, "E3")["status"], "imbalanced");
    assert_eq!(statement(&report, "E2")["status"], "balanced");
}

#[test]
fn the_story_of_an_observed_event_says_what_ought_to_have_been() {
    let world = observed(SEEN, "1s", "", ZERO_IS_SKIPPED);
    world.lines(&[order("o1", "a", 1), order("o2", "a", 0)]);
    world.run().expect(1);
    let told = world.recount(&["story", "o1"]).expect(0);
    assert!(told.out.contains("o1 (key a) at stock/0/0 ought to have been applied"), "{}", told.out);
    let told = world.recount(&["story", "o2"]).expect(0);
    assert!(told.out.contains("ought to have been skipped, zero_quantity"), "{}", told.out);
}

fn health(running: &Running) -> (u16, String) {
    running.get("/health/working")
}

#[test]
fn a_running_instance_says_when_the_consumer_stops_and_when_it_has_caught_up() {
    let source = "source = { file = \"orders.ndjson\", follow = true }\n";
    let world = observed(SEEN, "1s", source, "");
    world.lines(&many(10));
    consume(&world.path(""), |_, _| Some(MOVE));
    let running = world.start(&["run"]);
    eventually("it works", || health(&running).0 == 200);
    world.append(&[order("silent-1", "a", 1)]);
    eventually("it does not work any more", || {
        let (status, body) = health(&running);
        status == 503 && body.contains("silent-1")
    });
    consume(&world.path(""), |_, _| Some(MOVE));
    eventually("it works again", || health(&running).0 == 200);
    running.terminate().expect(0);
}

#[test]
fn effects_without_an_id_are_never_called_balanced() {
    let world = observed(SEEN, "1s", "", "");
    world.lines(&many(50));
    consume(&world.path(""), |_, _| Some(MOVE));
    world.shop().execute_batch("INSERT INTO movement VALUES (NULL, 3), (NULL, 4)").unwrap();
    let report = world.run().expect(3).json();
    let e2 = statement(&report, "E2");
    assert_eq!(e2["status"], "unprovable", "{report:#}");
    assert!(e2["sentence"].as_str().unwrap().contains("2 effects without an id"), "{report:#}");
}
