//! A consumer that keeps its loop and posts its verdicts to `/v1/decisions`.

use crate::harness::{Running, World, config, eventually, fate, order, orders, statement};
use serde_json::{Value, json};
use std::time::Duration;

const REPORT: &str = "mode = \"report\"";

/// What the consumer may leave out, and where its effects are seen.
const APPLY: &str = r#"
[flow.stock.apply]
database = "shop"
effects = { sql = "SELECT order_id FROM movement", id = "order_id" }
within = "1s"

[[flow.stock.apply.reason]]
reason = "zero_quantity"
verdict = "skip"
at_most = "5% of 1000"
because = "an order line for nothing takes nothing out of stock"

[[flow.stock.apply.reason]]
reason = "unknown_sku"
verdict = "dead-letter"
because = "no such article"
"#;

const CHECKED: &str = r#"
[[flow.stock.check]]
reason = "not_positive"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "any"
because = "nothing to take"
"#;

fn world(flow_keys: &str, tables: &str) -> World {
    let world = World::new(&config(&format!("{REPORT}\n{flow_keys}"), &format!("{APPLY}{tables}")));
    world.shop().execute_batch("CREATE TABLE movement (order_id TEXT NOT NULL)").unwrap();
    world
}

fn applied(offset: u64) -> Value {
    json!({ "offset": offset, "verdict": "applied" })
}

fn skipped(offset: u64, reason: &str) -> Value {
    json!({ "offset": offset, "verdict": "skipped", "reason": reason })
}

/// The consumer's own transaction.
fn effects(world: &World, ids: impl IntoIterator<Item = u64>) {
    let mut shop = world.shop();
    let transaction = shop.transaction().unwrap();
    for id in ids {
        transaction.execute("INSERT INTO movement VALUES (?1)", [format!("o{id}")]).unwrap();
    }
    transaction.commit().unwrap();
}

/// Posts as a consumer does: again and again while the instance says that it starts.
fn post(running: &Running, body: &Value) -> Value {
    loop {
        let (status, answer) = running.post("/v1/decisions", &[], &body.to_string());
        let answer: Value = serde_json::from_str(&answer).unwrap();
        if status == 503 && answer["error"]["code"] == "starting" {
            std::thread::sleep(Duration::from_millis(20));
            continue;
        }
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["recount"], 1);
        return answer;
    }
}

fn report(running: &Running, decisions: Vec<Value>, committed: Option<u64>) -> Value {
    let mut body = json!({ "flow": "stock", "decisions": decisions });
    if let Some(committed) = committed {
        body["committed"] = committed.into();
    }
    post(running, &body)
}

#[test]
fn a_correct_consumer_is_not_accused() {
    let world = world("", "");
    let mut lines = orders(0..200, "a");
    lines[17] = order("o17", "a", 0);
    lines.insert(100, String::new());
    world.lines(&lines);
    let mut running = world.start(&["run", "--json"]);
    let mut said: Vec<Value> = (0..201).filter(|offset| *offset != 100).map(applied).collect();
    said[17] = skipped(17, "zero_quantity");
    effects(&world, (0..200).filter(|id| *id != 17));
    for some in said.chunks(64) {
        let last = some.last().unwrap()["offset"].as_u64().unwrap();
        assert_eq!(report(&running, some.to_vec(), Some(last + 1))["accepted"], some.len());
    }
    let told = running.wait().expect(0);
    assert!(told.err.contains("/v1/decisions"), "the log names the endpoint: {}", told.err);
    let audit = world.recount(&["audit", "--json"]).expect(0).json();
    let books = &audit["flows"][0]["books"];
    assert_eq!((&books["applied"], &books["skipped"]), (&json!(199), &json!(1)), "{books}");
    assert_eq!(statement(&audit, "E2")["status"], "balanced", "{audit:#}");
    assert_eq!(audit["flows"][0]["working"], true, "{audit:#}");
    let decisions = world.decisions();
    assert!(decisions.iter().all(|decision| decision["origin"] == "reported"), "{:?}", decisions[0]);
    assert_eq!(fate(&decisions[17]), "skipped zero_quantity");
}

#[test]
fn positions_that_were_committed_and_not_reported_are_named_by_id() {
    let world = world("", "");
    world.lines(&orders(100..200, "a"));
    let mut running = world.start(&["run", "--json"]);
    let is_silent = |offset: &u64| offset % 20 == 7;
    effects(&world, (0..100).filter(|offset| !is_silent(offset)).map(|offset| offset + 100));
    let said = (0..100).filter(|offset| !is_silent(offset)).map(applied).collect();
    assert_eq!(report(&running, said, Some(100))["accepted"], 95);
    let told = running.wait().expect(1);
    let report = told.json();
    let finding = &statement(&report, "E1")["findings"][0];
    assert_eq!((&finding["code"], &finding["count"]), (&json!("unreported"), &json!(5)), "{report:#}");
    let names = finding["names"].to_string();
    for silent in ["stock/0/7 (id o107)", "stock/0/27 (id o127)", "stock/0/87 (id o187)"] {
        assert!(names.contains(silent), "{names}");
    }
    let sentences = report["flows"][0]["not_working"].to_string();
    assert!(sentences.contains("5 positions were committed and not reported"), "{sentences}");
    assert!(told.err.contains("o147") && told.err.contains("\"unreported\""), "{}", told.err);
    let text = world.recount(&["audit"]).expect(1).out;
    assert!(text.contains("o167") && text.contains("recount resume stock"), "{text}");
    assert_eq!(statement(&report, "E2")["status"], "balanced", "{report:#}");
}

#[test]
fn an_acceptance_covers_what_was_unreported_before_it_and_nothing_later() {
    let world = world("", "");
    world.lines(&orders(0..4, "a"));
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [0, 2, 3]);
    report(&running, vec![applied(0), applied(2), applied(3)], Some(4));
    running.wait().expect(1);
    world.recount(&["resume", "stock", "--because", "o1 was looked up by hand"]).expect(0);
    let audit = world.audit().expect(3).json();
    assert!(!audit["flows"][0]["not_working"].to_string().contains("not reported"), "{audit:#}");
    world.append(&orders(4..6, "a"));
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [4]);
    report(&running, vec![applied(4)], Some(6));
    let json = running.wait().expect(1).json();
    let sentences = json["flows"][0]["not_working"].to_string();
    assert!(sentences.contains("1 position was committed and not reported"), "{sentences}");
    assert_eq!(statement(&json, "E1")["findings"][0]["names"], json!(["stock/0/5 (id o5)"]), "{json:#}");
}

#[test]
fn a_later_report_passes_an_earlier_one_that_is_missing_after_a_while() {
    let world = world("", "");
    world.lines(&orders(0..10, "a"));
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [0, 1, 2, 4, 5, 6, 7, 8, 9]);
    report(&running, [0, 1, 2, 9, 8, 7, 6, 5, 4].map(applied).to_vec(), None);
    eventually("what was reported is decided before what was not", || world.decided() == 9);
    let report = running.wait().expect(1).json();
    let names = &statement(&report, "E1")["findings"][0]["names"];
    assert_eq!(*names, json!(["stock/0/3 (id o3)"]), "{report:#}");
}

#[test]
fn a_repeated_post_is_harmless_and_another_verdict_is_refused() {
    let world = world("", "");
    world.lines(&orders(0..3, "a"));
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [0, 2]);
    let first = vec![applied(0), skipped(1, "zero_quantity")];
    assert_eq!(report(&running, first.clone(), None)["accepted"], 2);
    for _ in 0..2 {
        let again = report(&running, first.clone(), None);
        assert_eq!((&again["accepted"], &again["already"]), (&json!(0), &json!(2)), "{again}");
        let other = report(&running, vec![skipped(0, "zero_quantity"), applied(1)], None);
        assert_eq!((&other["accepted"], &other["already"]), (&json!(0), &json!(0)), "{other}");
        let why = other["refused"].to_string();
        assert!(why.contains("reported as applied before") && why.contains("skipped zero_quantity"), "{why}");
        eventually("the ledger has both", || world.decided() == 2);
    }
    report(&running, vec![applied(2)], None);
    running.wait().expect(0);
    assert_eq!(world.fates(), ["applied", "skipped zero_quantity", "applied"]);
}

#[test]
fn a_report_that_comes_too_late_is_refused_with_the_time() {
    let world = world("", "");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    report(&running, vec![applied(1)], Some(2));
    eventually("it is recorded", || world.recount(&["audit"]).out.contains("unreported"));
    let late = report(&running, vec![applied(0)], None);
    let why = late["refused"][0]["why"].as_str().unwrap();
    assert_eq!(late["refused"][0]["offset"], 0);
    assert!(why.contains("recorded as unreported at 20") && why.contains("too late"), "{why}");
}

#[test]
fn an_undeclared_reason_loses_no_report() {
    let world = world("", "");
    world.lines(&orders(0..3, "a"));
    let mut running = world.start(&["run", "--json"]);
    let said = vec![
        skipped(0, "not_today"),
        json!({ "offset": 1, "verdict": "dead-letter", "reason": "zero_quantity", "because": "odd" }),
        json!({ "position": "stock/0/2", "verdict": "skip", "reason": "No Code!" }),
    ];
    assert_eq!(report(&running, said.clone(), None)["accepted"], 3);
    eventually("they are decided", || running.child.try_wait().unwrap().is_some());
    running.wait().expect(1);
    let decisions = world.decisions();
    let fates: Vec<String> = decisions.iter().map(fate).collect();
    assert_eq!(
        fates,
        ["skipped undeclared_reason", "dead-lettered undeclared_reason", "skipped undeclared_reason"]
    );
    assert!(decisions[0]["evidence"].to_string().contains("not_today"), "{}", decisions[0]);
    assert!(decisions[2]["evidence"].to_string().contains("No Code!"), "{}", decisions[2]);
    let replay = ["replay", "stock", "--reason", "undeclared_reason", "--because", "declared now"];
    let told = world.recount(&replay).expect(2);
    assert!(told.err.contains("its consumer applies"), "{}", told.err);
}

#[test]
fn a_budget_that_the_consumer_exceeds_is_not_working() {
    let world = world("", "");
    world.lines(&orders(0..1000, "a"));
    let mut running = world.start(&["run", "--json"]);
    let is_skipped = |offset: &u64| offset.is_multiple_of(15);
    effects(&world, (0..1000).filter(|offset| !is_skipped(offset)));
    let one = |offset| if is_skipped(&offset) { skipped(offset, "zero_quantity") } else { applied(offset) };
    report(&running, (0..1000).map(one).collect(), Some(1000));
    let json = running.wait().expect(1).json();
    let sentences = json["flows"][0]["not_working"].to_string();
    assert!(sentences.contains("zero_quantity exceeded its budget of 5% of 1000"), "{sentences}");
    assert_eq!(json["flows"][0]["status"], "balanced", "{json:#}");
}

#[test]
fn the_consumers_verdict_wins_over_the_checks_and_a_flag_says_so() {
    let world = world("", CHECKED);
    world.lines(&[order("o0", "a", 0), order("o1", "a", 5), order("o2", "a", 0), "no json".to_owned()]);
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [0]);
    let said = vec![applied(0), skipped(1, "not_positive"), skipped(2, "not_positive"), applied(3)];
    report(&running, said, Some(4));
    running.wait();
    let decisions = world.decisions();
    let fates: Vec<String> = decisions.iter().map(fate).collect();
    assert_eq!(fates, ["applied", "skipped not_positive", "skipped not_positive", "applied"]);
    let flags: Vec<bool> = decisions
        .iter()
        .map(|decision| decision["flags"].to_string().contains("contradicts_check"))
        .collect();
    assert_eq!(flags, [true, true, false, true]);
    assert_eq!(decisions[0]["evidence"]["checks_say"], "not_positive", "{}", decisions[0]);
    assert_eq!(decisions[3]["evidence"]["checks_say"], "decode_failed", "{}", decisions[3]);
}

#[test]
fn what_the_consumer_did_with_a_repeated_event_stands() {
    let world = world("", "");
    world.lines(&[order("o0", "a", 1), order("o0", "a", 1), order("o1", "a", 1), order("o1", "a", 2)]);
    let mut running = world.start(&["run", "--json"]);
    effects(&world, [0, 1, 1]);
    report(&running, vec![applied(0), skipped(1, "duplicate"), applied(2), applied(3)], Some(4));
    running.wait();
    assert_eq!(world.fates(), ["applied", "skipped duplicate", "applied", "applied"]);
}

#[test]
fn an_accepted_report_survives_a_kill_and_is_recorded_once() {
    let world = world("", "");
    world.lines(&orders(0..300, "a"));
    let told = world.recount(&["run", "--dry-run"]).expect(2);
    assert!(told.err.contains("its consumer decides"), "{}", told.err);
    let mut running = world.start(&["run", "--json"]);
    for round in 0..10_u64 {
        let said: Vec<Value> = (round * 30..round * 30 + 30).map(applied).collect();
        effects(&world, round * 30..round * 30 + 30);
        assert_eq!(report(&running, said.clone(), None)["accepted"], 30);
        if round < 9 {
            running.kill();
            running = world.start(&["run", "--json"]);
            let again = report(&running, said, None);
            assert_eq!((&again["already"], &again["accepted"]), (&json!(30), &json!(0)), "{round}: {again}");
        }
    }
    let json = running.wait().expect(0).json();
    assert_eq!(json["flows"][0]["books"]["applied"], 300);
    assert_eq!(world.decisions().len(), 300);
    world.recount(&["audit"]).expect(0);
}

#[test]
fn a_report_that_was_accepted_and_not_yet_recorded_survives_a_kill() {
    let world = world("", "");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    report(&running, vec![applied(0)], None);
    eventually("the first is decided", || world.decided() == 1);
    world.recount(&["pause", "stock", "--because", "to look at it"]).expect(0);
    assert_eq!(report(&running, vec![applied(1), applied(2)], None)["accepted"], 2);
    running.kill();
    assert!(world.decided() < 3, "the flow was paused");
    world.recount(&["resume", "stock", "--because", "looked at"]).expect(0);
    effects(&world, 0..3);
    world.start(&["run"]).wait().expect(0);
    assert_eq!(world.fates(), ["applied"; 3]);
}

#[test]
fn a_silent_consumer_leaves_everything_open_where_everyone_can_see_it() {
    let world = world("open_max = \"1s\"", "");
    world.lines(&orders(0..5, "a"));
    let running = world.start(&["run", "--json"]);
    report(&running, vec![applied(0)], None);
    effects(&world, [0]);
    eventually("the first is decided", || world.decided() == 1);
    std::thread::sleep(Duration::from_millis(1500));
    let told = running.terminate().expect(1);
    let json = told.json();
    let flow = &json["flows"][0];
    assert_eq!((&flow["books"]["open"], &flow["end"]), (&json!(4), &json!("shut down")), "{json:#}");
    let sentences = flow["not_working"].to_string();
    assert!(sentences.contains("4 positions open"), "{sentences}");
    assert!(sentences.contains("/v1/decisions"), "it says what to look at: {sentences}");
}

#[test]
fn a_consumer_that_was_silent_from_the_first_event_on_is_not_working() {
    let world = world("open_max = \"1s\"", "");
    world.lines(&orders(0..5, "a"));
    let running = world.start(&["run", "--json"]);
    std::thread::sleep(Duration::from_millis(2500));
    let told = running.terminate().expect(1);
    let sentences = told.json()["flows"][0]["not_working"].to_string();
    assert!(sentences.contains("5 positions open"), "{sentences}");
}

#[test]
fn decisions_that_are_null_are_none_as_a_nil_slice_in_go() {
    let world = world("", "");
    world.lines(&orders(0..1, "a"));
    let running = world.start(&["run"]);
    let body = json!({ "flow": "stock", "decisions": null }).to_string();
    eventually("the source is open", || running.post("/v1/decisions", &[], &body).0 == 200);
}

#[test]
fn validate_says_what_becomes_of_what_is_not_reported() {
    let world = world("", "");
    let told = world.recount(&["validate", "recount.toml"]).expect(0);
    for said in [
        "the consumer's own",
        "found as unreported",
        "contradicts_check",
        "what the consumer reported stands",
    ] {
        assert!(told.out.contains(said), "{said}: {}", told.out);
    }
    assert!(!told.out.contains("dead letter decode_failed"), "{}", told.out);
}

#[test]
fn a_token_is_asked_for_where_one_is_configured() {
    let text = config(REPORT, APPLY).replace("[server]\n", "[server]\ntoken = \"${REPORT_TOKEN}\"\n");
    let world = World::new(&text);
    world.shop().execute_batch("CREATE TABLE movement (order_id TEXT NOT NULL)").unwrap();
    world.lines(&orders(0..1, "a"));
    let running = world.start_with(&["run"], &[("REPORT_TOKEN", "s3cret")]);
    let body = json!({ "flow": "stock", "decisions": [] }).to_string();
    for (headers, expected) in [
        (vec![], 401),
        (vec![("authorization", "Bearer wrong")], 401),
        (vec![("authorization", "Bearer s3cret")], 200),
    ] {
        eventually("the source is open", || running.post("/v1/decisions", &headers, &body).0 != 503);
        let (status, answer) = running.post("/v1/decisions", &headers, &body);
        assert_eq!(status, expected, "{answer}");
        assert!(!answer.contains("s3cret"), "{answer}");
    }
    assert!(!running.log().contains("s3cret"));
}

#[test]
fn a_bad_body_is_told_what_to_write() {
    let text = format!(
        "{}\n[flow.other]\nowner = \"x\"\npurpose = \"y\"\nsource = {{ http = \"/other\" }}\nid = \"event.id\"\n",
        config(REPORT, APPLY)
    );
    let world = World::new(&text);
    world.shop().execute_batch("CREATE TABLE movement (order_id TEXT NOT NULL)").unwrap();
    world.lines(&orders(0..1, "a"));
    let running = world.start(&["run", "--checks-only"]);
    report(&running, vec![], None);
    let too_many: Vec<Value> = (0..10_001).map(|_| json!({ "offset": 0, "verdict": "applied" })).collect();
    for (body, status, why) in [
        ("".to_owned(), 400, "write: {"),
        ("[]".to_owned(), 400, "write: {"),
        (json!({ "flow": "stock", "decision": [] }).to_string(), 400, "unknown field `decision`"),
        (
            json!({ "flow": "stock", "decisions": [{ "offset": -1, "verdict": "applied" }] }).to_string(),
            400,
            "write: {",
        ),
        (json!({ "flow": "stok", "decisions": [] }).to_string(), 404, "flows that take reports: stock"),
        (json!({ "flow": "other", "decisions": [] }).to_string(), 409, "mode = \"report\""),
        (json!({ "flow": "stock", "partition": "7", "decisions": [] }).to_string(), 404, "it has 0"),
        (json!({ "flow": "stock", "decisions": too_many }).to_string(), 413, "split it"),
    ] {
        let (got, answer) = running.post("/v1/decisions", &[], &body);
        let sentence = serde_json::from_str::<Value>(&answer).unwrap()["error"]["sentence"].clone();
        assert_eq!(got, status, "{answer}");
        assert!(sentence.as_str().unwrap().contains(why), "{sentence}");
    }
    let items = report(
        &running,
        vec![json!({ "offset": 0, "verdict": "skipped" }), json!({ "verdict": "applied" }), applied(5)],
        None,
    );
    assert_eq!((&items["accepted"], items["refused"].as_array().unwrap().len()), (&json!(0), 3), "{items}");
    assert_eq!(running.get("/v1/decisions").0, 405);
}
