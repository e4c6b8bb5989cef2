//! Where events come from: HTTP, publish, standard input, a folder of files.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order, orders};
use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::process::Stdio;

const HTTP: &str = "source = { http = \"/orders\" }";
const JSON: (&str, &str) = ("content-type", "application/json");

#[test]
fn what_is_posted_is_answered_with_a_receipt_and_applied() {
    let world = World::stock(HTTP);
    let running = world.start(&["run", "--json"]);
    let (status, body) = running.post("/orders", &[JSON], &order("h0", "a", 1));
    assert_eq!(status, 202, "{body}");
    let receipt: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(receipt["receipts"][0]["position"], "stock/0/0");

    let event = json!({
        "specversion": "1.0", "id": "h1", "source": "/till", "type": "order.placed",
        "data": { "id": "h1", "sku": "a", "quantity": 2 },
    });
    let structured = ("content-type", "application/cloudevents+json");
    assert_eq!(running.post("/orders", &[structured], &event.to_string()).0, 202);
    let batch = ("content-type", "application/cloudevents-batch+json");
    let mut other = event.clone();
    other["id"] = "h2".into();
    other["data"]["id"] = "h2".into();
    let (status, body) = running.post("/orders", &[batch], &json!([event, other]).to_string());
    assert_eq!(status, 202, "{body}");
    let binary = [
        JSON,
        ("ce-specversion", "1.0"),
        ("ce-id", "h3"),
        ("ce-source", "/till"),
        ("ce-type", "order.placed"),
    ];
    assert_eq!(running.post("/orders", &binary, &order("h3", "b", 1)).0, 202);

    eventually("all are decided", || world.on_hand("b") == 99);
    assert_eq!(world.on_hand("a"), 95);
    assert_eq!(running.post("/orders", &[JSON], "").0 / 100, 4, "an empty body is no event");
    running.terminate().expect(0);
    assert_eq!(world.fates(), ["applied", "applied", "skipped duplicate", "applied", "applied"]);
    world.audit().expect(0);
}

#[test]
fn a_receipt_given_before_a_kill_is_kept() {
    let world = World::stock(HTTP);
    let running = world.start(&["run"]);
    for n in 0..20 {
        assert_eq!(running.post("/orders", &[JSON], &order(&format!("k{n}"), "a", 1)).0, 202);
    }
    running.kill();
    let running = world.start(&["run"]);
    eventually("all are applied", || world.on_hand("a") == 80);
    running.terminate().expect(0);
    world.audit().expect(0);
}

#[test]
fn senders_show_the_token_where_one_is_set() {
    let text = config(HTTP, TAKE_FROM_STOCK).replace("[log]", "token = { file = \"token\" }\n\n[log]");
    let world = World::new(&text);
    fs::write(world.path("token"), "open sesame\n").unwrap();
    let running = world.start(&["run"]);
    assert_eq!(running.post("/orders", &[JSON], &order("t0", "a", 1)).0, 401);
    assert_eq!(
        running.post("/orders", &[JSON, ("authorization", "Bearer wrong")], &order("t0", "a", 1)).0,
        401
    );
    assert_eq!(
        running.post("/orders", &[JSON, ("authorization", "Bearer open sesame")], &order("t0", "a", 1)).0,
        202
    );
    eventually("it is applied", || world.on_hand("a") == 99);
    let told = running.terminate().expect(0);
    assert!(!told.all().contains("sesame"));
}

#[test]
fn published_events_are_applied_with_and_without_an_instance() {
    let world = World::stock(HTTP);
    fs::write(world.path("more.ndjson"), orders(0..5, "a").join("\n")).unwrap();
    let told = world.recount(&["publish", "stock", "--file", "more.ndjson", "--json"]).expect(0);
    assert_eq!(told.json()["receipt"], json!({ "from": 0, "to": 5, "events": 5 }));
    let running = world.start(&["run"]);
    eventually("they are applied", || world.on_hand("a") == 95);
    let mut publish =
        world.command(&["publish", "stock"]).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    publish.stdin.take().unwrap().write_all(order("p9", "a", 2).as_bytes()).unwrap();
    let output = publish.wait_with_output().unwrap();
    let out = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(out.contains("stock/0/5"), "{out}");
    eventually("so is this one", || world.on_hand("a") == 93);
    running.terminate().expect(0);
    world.audit().expect(0);
}

#[test]
fn standard_input_is_spooled_and_its_end_is_the_end() {
    let world = World::stock("source = { file = \"-\" }");
    for (from, to, left) in [(0, 5, 95), (5, 7, 93)] {
        let mut run = world
            .command(&["run", "--json"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = run.stdin.take().unwrap();
        stdin.write_all(orders(from..to, "a").join("\n").as_bytes()).unwrap();
        drop(stdin);
        let output = run.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        assert_eq!(world.on_hand("a"), left);
    }
    world.audit().expect(0);
}

#[test]
fn each_file_of_a_folder_is_a_partition() {
    let world = World::stock("source = { file = \"days\" }");
    fs::create_dir(world.path("days")).unwrap();
    for (name, sku) in [("monday.ndjson", "a"), ("tuesday.ndjson", "b"), ("wednesday.ndjson", "c")] {
        let lines: Vec<String> = (0..10).map(|n| order(&format!("{name}-{n}"), sku, 1)).collect();
        fs::write(world.path("days").join(name), lines.join("\n") + "\n").unwrap();
    }
    let summary = world.run().expect(0).json();
    let partitions = summary["flows"][0]["partitions"].as_array().unwrap();
    let names: Vec<&str> = partitions.iter().map(|p| p["partition"].as_str().unwrap()).collect();
    assert_eq!(names, ["monday.ndjson", "tuesday.ndjson", "wednesday.ndjson"]);
    assert_eq!(["a", "b", "c"].map(|sku| world.on_hand(sku)), [90; 3]);
    fs::write(world.path("days/thursday.ndjson"), order("new", "c", 5) + "\n").unwrap();
    world.run().expect(0);
    assert_eq!(world.on_hand("c"), 85);
    world.audit().expect(0);
}

#[test]
fn a_rotated_file_is_read_to_its_end_and_the_new_one_goes_on() {
    let world = World::stock("source = { file = \"orders.ndjson\", follow = true }");
    world.lines(&orders(0..5, "a"));
    let running = world.start(&["run"]);
    eventually("the first are applied", || world.on_hand("a") == 95);
    fs::rename(world.path("orders.ndjson"), world.path("orders.ndjson.1")).unwrap();
    world.lines(&orders(10..15, "b"));
    eventually("those of the new file too", || world.on_hand("b") == 95);
    running.terminate().expect(0);
    assert_eq!(world.on_hand("a"), 95);
    assert_eq!(world.decisions().len(), 10);
}
