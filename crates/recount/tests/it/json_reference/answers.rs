//! What each command prints with `--json`, in worlds in which every field occurs.

use crate::harness::{TAKE_FROM_STOCK, World, back_up, config, eventually, order, orders, restore};
use serde_json::Value;
use std::fs;

type Answer = (&'static str, Value);

/// All answers, with the command's name in the reference.
pub fn all() -> Vec<Answer> {
    [
        of_a_file(),
        of_a_stopped_flow(),
        of_a_restored_database(),
        of_http(),
        #[cfg(feature = "kafka")]
        of_a_topic(),
        #[cfg(feature = "kafka")]
        of_an_observed_group(),
        of_init(),
        of_demo(),
        of_configs(),
    ]
    .concat()
}

const TABLES: &str = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "1% of 10"
because = "an order line for nothing"

[[flow.stock.check]]
reason = "bulk_order"
that = "event.quantity <= 2"
otherwise = "flag"
at_most = "any"
review_by = 2020-01-01
because = "we assume that few order much of one thing"

[flow.stock.retry]
attempts = 2
backoff = "10ms"

[[reconcile]]
name = "units ordered leave the stock"
left = { flow = "stock", sum = "event.quantity", of = "received", less = ["insufficient_stock", "unknown_sku", "retries_exhausted", "zero_quantity"], by = "event.sku" }
right = { database = "shop", sql = "SELECT sku, 100 - on_hand FROM stock WHERE on_hand <> 100 AND sku < 'x'" }

[[reconcile]]
name = "orders"
left = { flow = "stock", sum = "1", by = "event.id" }
right = { database = "shop", sql = "SELECT sku, 0 FROM stock" }
tolerance = 100
"#;

/// The usual effect, but what is not on hand may come.
fn retrying() -> String {
    let (dead, retry) = ("verdict = \"dead-letter\"\nreason = \"ins", "verdict = \"retry\"\nreason = \"ins");
    TAKE_FROM_STOCK.replace(dead, retry)
}

fn of_a_file() -> Vec<Answer> {
    let world = World::new(&config("time = \"event.at\"", &format!("{TABLES}{}", retrying())));
    let timed = |id: &str, sku: &str, quantity: i64| {
        let line = order(id, sku, quantity);
        format!("{},\"at\":\"2026-01-31T09:30:00Z\"}}", line.trim_end_matches('}'))
    };
    world.lines(&[
        timed("j0", "a", 1),
        timed("j1", "a", 3),
        timed("j2", "a", 0),
        timed("j3", "b", 0),
        timed("j4", "zz", 1),
        timed("j5", "a", 500),
        timed("j6", "a", 1),
        timed("j7", "a", 1),
        "no JSON".to_owned(),
        timed("j0", "a", 1),
    ]);
    let ask = |args: &[&str]| world.recount(args).json();
    let mut answers = vec![("recount run", world.run().json())];
    world.shop().execute("UPDATE stock SET on_hand = on_hand - 7 WHERE sku = 'b'", []).unwrap();
    answers.push(("recount audit", world.audit().json()));
    answers.push((
        "recount pause, recount resume",
        ask(&["pause", "stock", "--because", "stocktaking", "--json"]),
    ));
    answers
        .push(("recount pause, recount resume", ask(&["resume", "stock", "--because", "counted", "--json"])));
    answers.push(("recount audit", world.audit().json()));
    answers.push(("recount dead-letters list", ask(&["dead-letters", "list", "--json"])));
    for id in ["j4", "j5", "stock/0/8"] {
        answers.push(("recount dead-letters show", ask(&["dead-letters", "show", id, "--json"])));
    }
    answers.push(("recount status", ask(&["status", "--json"])));
    answers.push(("recount reproduce", ask(&["reproduce", "stock/0/4", "--json"])));
    world.put("zz", 10);
    answers.push((
        "recount replay --dry-run",
        ask(&["replay", "stock", "--reason", "unknown_sku", "--dry-run", "--json"]),
    ));
    answers.push((
        "recount replay",
        ask(&["replay", "stock", "--reason", "unknown_sku", "--because", "listed now", "--json"]),
    ));
    for asked in ["a", "zz", "stock/0/1"] {
        answers.push(("recount story", ask(&["story", asked, "--json"])));
    }
    answers
        .push(("recount ledger forget", ask(&["ledger", "forget", "b", "--because", "asked to", "--json"])));
    let export = world.recount(&["ledger", "export", "--superseded"]).expect(0);
    answers.extend(
        export.out.lines().map(|line| ("recount ledger export", serde_json::from_str(line).unwrap())),
    );
    answers.push(("recount explain", ask(&["explain", "-c", "recount.toml", "--json"])));
    for reason in ["zero_quantity", "duplicate"] {
        answers.push(("recount explain REASON", ask(&["explain", reason, "-c", "recount.toml", "--json"])));
    }
    answers
}

fn of_a_stopped_flow() -> Vec<Answer> {
    let world = World::stock("");
    world.lines(&orders(0..50, "a"));
    world.run().expect(0);
    let story = world.recount(&["story", "a", "--json"]).json();
    world.lines(&orders(0..2, "a"));
    let report = world.run().json();
    world.shop().execute_batch("DELETE FROM recount_effect").unwrap();
    vec![("recount story", story), ("recount run", report), ("recount run", world.run().json())]
}

fn of_a_restored_database() -> Vec<Answer> {
    let world = World::stock("");
    world.lines(&orders(0..5, "a"));
    world.run().expect(0);
    back_up(&world, "backup.db");
    world.append(&orders(5..9, "a"));
    world.run().expect(0);
    let recover = ["ledger", "recover", "--reapply", "--because", "restored", "--json"];
    let nothing = world.recount(&recover).json();
    restore(&world, "backup.db");
    let audit = world.audit().json();
    vec![
        ("recount ledger recover", nothing),
        ("recount audit", audit),
        ("recount ledger recover", world.recount(&recover).json()),
    ]
}

#[cfg(feature = "kafka")]
fn of_a_topic() -> Vec<Answer> {
    let Some(kafka) = recount_services::kafka() else { return Vec::new() };
    let topic = crate::kafka::topic::Topic::make(&kafka.servers(), "answers", 1);
    let source = format!(
        "source = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}\ndead_letters = {{ topic = \"{0}.DLT\" }}\n",
        topic.name
    );
    let broker = format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers());
    let world = World::new(&config(&source, &format!("{TAKE_FROM_STOCK}{broker}")));
    // No broker takes a record of two megabytes, unless it is told to.
    let large = order(&"9".repeat(2 << 20), "a", 1);
    fs::write(world.path("more.ndjson"), [orders(0..3, "a").join("\n"), large].join("\n")).unwrap();
    let publish = ["publish", "stock", "--file", "more.ndjson", "--json"];
    let published = world.recount(&publish).expect(1).json();
    let running = world.start(&["run"]);
    eventually("what is there is decided", || world.decided() == 3);
    let status = world.recount(&["status", "--json"]).json();
    running.terminate();
    vec![(super::fields::TO_A_TOPIC, published), ("recount status", status)]
}

#[cfg(feature = "kafka")]
fn of_an_observed_group() -> Vec<Answer> {
    let Some(kafka) = recount_services::kafka() else { return Vec::new() };
    let topic = crate::kafka::topic::Topic::make(&kafka.servers(), "answers", 1);
    let source = format!(
        "mode = \"observe\"\nsource = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}\n",
        topic.name
    );
    let tables = format!(
        "[flow.stock.apply]\ndatabase = \"shop\"\neffects = {{ sql = \"SELECT sku FROM stock WHERE 0\" }}\n\n\
         [broker.main]\nkafka = {{ servers = \"{}\" }}\n",
        kafka.servers()
    );
    let world = World::new(&config(&source, &tables));
    topic.publish(0, &orders(0..5, "a").iter().map(String::as_str).collect::<Vec<_>>());
    topic.move_group(&topic.name, 0, 4);
    let running = world.start(&["run", "--json"]);
    eventually("all are decided", || world.decided() == 5);
    eventually("the group is looked at", || world.audit().json()["flows"][0]["group"]["committed"] == 4);
    topic.move_group(&topic.name, 0, 2);
    let audit = world.audit().json();
    let status = world.recount(&["status", "--json"]).json();
    vec![("recount audit", audit), ("recount status", status), ("recount run", running.terminate().json())]
}

fn of_http() -> Vec<Answer> {
    let world = World::stock("source = { http = \"/orders\" }");
    fs::write(world.path("more.ndjson"), orders(0..3, "a").join("\n")).unwrap();
    let published = world.recount(&["publish", "stock", "--file", "more.ndjson", "--json"]).json();
    let running = world.start(&["run"]);
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ];
    assert_eq!(running.post("/orders", &headers, &order("h0", "zz", 1)).0, 202);
    eventually("all are decided", || world.decided() == 4);
    let shown = world.recount(&["dead-letters", "show", "h0", "--json"]).json();
    running.terminate();
    vec![("recount publish", published), ("recount dead-letters show", shown)]
}

fn of_init() -> Vec<Answer> {
    let world = World::new("");
    let line = |n: u64| {
        let quantity = if n == 7 { 0 } else { n % 4 + 1 };
        let at = format!("2026-01-31T09:{n:02}:00Z");
        format!(
            "{{\"id\":\"o{n}\",\"type\":\"placed\",\"sku\":\"s{}\",\"store_id\":{},\"order_id\":{},\"quantity\":{quantity},\"mail\":\"x\",\"at\":\"{at}\"}}",
            n % 9,
            n % 5,
            n / 2
        )
    };
    let lines: Vec<String> = (0..40).map(line).chain(["not JSON".to_owned()]).collect();
    world.lines(&lines);
    let report =
        world.recount(&["init", "--from", "orders.ndjson", "--folder", "new", "--json"]).expect(0).json();
    world.lines::<&str>(&[]);
    let refused =
        world.recount(&["init", "--from", "orders.ndjson", "--folder", "newer", "--json"]).expect(2).json();
    vec![("recount init", report), ("recount init", refused)]
}

fn of_demo() -> Vec<Answer> {
    let world = World::new("");
    let args = ["demo", "--json", "--orders", "2000", "--rename-at", "900", "--folder", "left"];
    vec![("recount demo", world.recount(&args).json())]
}

fn of_configs() -> Vec<Answer> {
    let good = World::new(&config("", &format!("{TABLES}{}", retrying())));
    let bad = World::new(&config("", &TAKE_FROM_STOCK.replace("rows = 1\n", "")));
    let refused = World::new(&config("", &TAKE_FROM_STOCK.replace("on_hand - ", "on_hnad - ")));
    [good, bad, refused]
        .map(|world| ("recount validate", world.recount(&["validate", "--json"]).json()))
        .to_vec()
}
