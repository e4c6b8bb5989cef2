//! Consumers and handlers in other languages, as the examples have them, on the real binary. A test whose toolchain is
//! not on this machine says so and tests nothing.

use crate::harness::{Running, Told, World, eventually, statement};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::LazyLock;

/// A consumer of `examples/report`: its folder, its toolchain, and its command as the example's page has it.
const REPORTING: [(&str, &str, &str); 4] = [
    ("python", "python3", "python3 consumer.py http://127.0.0.1:7621 ../orders.ndjson"),
    ("go", "go", "go run . http://127.0.0.1:7621 ../orders.ndjson"),
    ("node", "node", "node consumer.mjs http://127.0.0.1:7621 ../orders.ndjson"),
    ("java", "java", "java Consumer.java http://127.0.0.1:7621 ../orders.ndjson"),
];

/// The place of a blank line among the orders.
const BLANK_AT: usize = 900;

/// Without blank lines, comments, the package and what is imported.
const CONSUMER_LINES_MAX: usize = 40;
/// Without blank lines and comments.
const OBSERVE_CONFIG_LINES_MAX: usize = 20;

fn examples() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples")
}

/// Whether a tool is there; where it isn't, the test says so.
fn is_there(tool: &str) -> bool {
    let folders = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&folders).any(|folder| folder.join(tool).is_file());
    if !found {
        eprintln!("NOT TESTED: there is no `{tool}` on this machine");
    }
    found
}

/// Runs a command of an example's page to its end, in a folder of the world.
fn run_as_written(world: &World, folder: &str, command: &str, is_silent: bool) -> Told {
    let mut shell = Command::new("sh");
    shell.args(["-c", command]).current_dir(world.path(folder)).stdin(Stdio::null()).env_remove("SILENT");
    if is_silent {
        shell.env("SILENT", "1");
    }
    Told::of(&shell.output().unwrap())
}

/// Real orders, of which the producer has renamed a field in some, and one blank line.
struct Orders {
    lines: Vec<String>,
    /// Ids and quantities of those that a consumer can take out of stock.
    to_apply: BTreeMap<String, i64>,
    /// Ids of the others.
    others: BTreeSet<String>,
}

static ORDERS: LazyLock<Orders> = LazyLock::new(|| {
    let file = fs::read_to_string(examples().join("inventory/orders.ndjson")).unwrap();
    let (mut to_apply, mut others) = (BTreeMap::new(), BTreeSet::new());
    let mut lines: Vec<String> = file.lines().take(1_500).map(str::to_owned).collect();
    for (place, line) in lines.iter_mut().enumerate() {
        if place > 700 && place % 100 == 37 {
            *line = line.replace("\"quantity\"", "\"qty\"");
        }
        let order: Value = serde_json::from_str(line).unwrap();
        let id = order["id"].as_str().unwrap().to_owned();
        match order["quantity"].as_i64() {
            Some(quantity) if quantity > 0 => drop(to_apply.insert(id, quantity)),
            _ => drop(others.insert(id)),
        }
    }
    lines.insert(BLANK_AT, String::new());
    assert!(others.len() > 12 && others.len() < 40, "{others:?}");
    Orders { lines, to_apply, others }
});

/// What the consumer did, by order.
fn movements(world: &World, folder: &str) -> BTreeMap<String, i64> {
    if folder == "python" {
        let shop = rusqlite::Connection::open(world.path("python/shop.db")).unwrap();
        let mut rows = shop.prepare("SELECT order_id, quantity FROM movement").unwrap();
        let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
        return rows.map(Result::unwrap).collect();
    }
    let file = fs::read_to_string(world.path(folder).join("movements.csv")).unwrap();
    let movement = |line: &str| {
        let fields: Vec<&str> = line.split(',').collect();
        (fields[0].to_owned(), fields[2].parse().unwrap())
    };
    file.lines().map(movement).collect()
}

/// Runs a consumer beside Recount: what Recount said of it in the end.
fn reported(world: &World, folder: &str, command: &str, is_silent: bool) -> Told {
    let mut running: Running = world.start(&["run", "--json"]);
    let command = command.replace("http://127.0.0.1:7621", &running.address());
    let consumer = run_as_written(world, folder, &command, is_silent).expect(0);
    // The blank line is no event: a verdict about it is refused, and what the consumer logs says so.
    let refused = consumer.err.matches("\"why\"").count();
    let of_blank = consumer.err.matches(&format!("\"offset\":{BLANK_AT},\"why\"")).count();
    assert!(refused == of_blank && refused <= 1, "{folder}: {}", consumer.err);
    assert_eq!(movements(world, folder), ORDERS.to_apply, "{folder}: each order once");
    running.wait()
}

fn reporting(folder: &str) {
    let (_, tool, command) = REPORTING.into_iter().find(|(name, ..)| *name == folder).unwrap();
    if !is_there(tool) {
        return;
    }
    let world = World::of_example("report");
    world.lines(&ORDERS.lines);

    let report = reported(&world, folder, command, true).expect(1).json();
    assert_eq!(report["flows"][0]["books"]["applied"], ORDERS.to_apply.len(), "{report:#}");
    let audit = world.recount(&["audit", "--json", "--names", "100"]).expect(1).json();
    let finding = &statement(&audit, "E1")["findings"][0];
    assert_eq!(finding["code"], "unreported", "{audit:#}");
    let names: Vec<&str> = finding["names"].as_array().unwrap().iter().map(|n| n.as_str().unwrap()).collect();
    let ids: BTreeSet<String> = names
        .iter()
        .filter_map(|name| Some(name.split_once("(id ")?.1.trim_end_matches(')').to_owned()))
        .collect();
    assert_eq!(ids, ORDERS.others, "{folder}: {names:?}");
    assert_eq!(finding["count"], ids.len(), "{finding:#}");

    fs::remove_dir_all(world.path("recount-data")).unwrap();
    let correct = reported(&world, folder, command, false).expect(0).json();
    let flow = &correct["flows"][0];
    assert_eq!((&flow["working"], &flow["books"]["unrecorded"]), (&json!(true), &json!(0)), "{correct:#}");
    let fates = world.decisions();
    let applied: BTreeSet<&str> =
        fates.iter().filter(|d| d["verdict"] == "applied").map(|d| d["event_id"].as_str().unwrap()).collect();
    assert_eq!(applied, ORDERS.to_apply.keys().map(String::as_str).collect());
    assert_eq!(fates.len(), ORDERS.to_apply.len() + ORDERS.others.len());
}

#[test]
fn a_consumer_in_python_reports_and_its_silent_line_is_found_by_id() {
    reporting("python");
}

#[test]
fn a_consumer_in_go_reports_and_its_silent_line_is_found_by_id() {
    reporting("go");
}

#[test]
fn a_consumer_in_node_reports_and_its_silent_line_is_found_by_id() {
    reporting("node");
}

#[test]
fn a_consumer_in_java_reports_and_its_silent_line_is_found_by_id() {
    reporting("java");
}

#[test]
fn a_consumer_that_reports_waits_for_recount_and_repeats_without_harm() {
    if !is_there("python3") {
        return;
    }
    let world = World::of_example("report");
    let port = free_port();
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    world.configure(&config.replace("127.0.0.1:0", &format!("127.0.0.1:{port}")));
    let mut consumer = Command::new("python3")
        .args(["python/consumer.py", &format!("http://127.0.0.1:{port}"), "orders.ndjson"])
        .current_dir(world.path("."))
        .stderr(fs::File::create(world.path("consumer.err")).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(world.path("consumer.err")).unwrap();
    eventually("the consumer finds that Recount is away", || said().contains("Recount is away"));
    let mut running = world.start(&["run", "--json"]);
    assert!(consumer.wait().unwrap().success(), "{}", said());
    running.wait().expect(0);
    // Everything again, the last post may have been lost on its way back: nothing changes.
    let before = world.decisions();
    let mut running = world.start(&["run", "--json"]);
    let told = running.wait().expect(0);
    assert_eq!(told.json()["flows"][0]["books"]["applied"], 6, "{}", told.out);
    assert_eq!(world.decisions(), before);
}

/// Observes what a consumer of `examples/observe` did before, and gives the statement about its effects.
fn observed(world: &World, code: i32) -> Value {
    let report = world.run().expect(code).json();
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
    statement(&report, "E2").clone()
}

fn observing(folder: &str, source: &str, command: &str) {
    let world = World::of_example("observe");
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    let (start, within) = config.split_once("within").expect("it says how late an effect may be");
    let (_, end) = within.split_once('\n').unwrap_or_default();
    let config = format!("{start}within = \"300ms\"\n{end}");
    world.configure(&config);
    let orders = fs::read_to_string(world.path("orders.ndjson")).unwrap();
    let orders: Vec<Value> = orders.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let lost = |order: &&Value| order["quantity"].as_i64().is_some_and(|quantity| quantity > 24);
    let lost: BTreeSet<&str> = orders.iter().filter(lost).map(|o| o["id"].as_str().unwrap()).collect();
    assert!(!lost.is_empty());

    let consumer = run_as_written(&world, folder, command, false).expect(0);
    assert!(consumer.out.contains("0 errors, 0 alerts"), "{}", consumer.all());
    let missing = observed(&world, 1);
    assert_eq!(missing["status"], "imbalanced", "{missing:#}");
    let finding = &missing["findings"][0];
    assert_eq!(finding["count"], lost.len(), "{missing:#}");
    for id in &lost {
        assert!(finding["names"].to_string().contains(&format!("(id {id})")), "{id}: {finding:#}");
    }

    // A bare count says how many, and that it can't say which.
    fs::remove_dir_all(world.path("recount-data")).unwrap();
    let counted = config.replace("SELECT order_id FROM movement", "SELECT count(*) FROM movement");
    world.configure(&counted.replace(", id = \"order_id\"", ""));
    let missing = observed(&world, 1);
    assert_eq!(missing["status"], "imbalanced", "{missing:#}");
    let told = missing.to_string();
    assert!(told.contains(&format!("{} of", lost.len())), "{told}");
    assert!(lost.iter().all(|id| !told.contains(id)), "{told}");

    // The line is mended, as the page says, and the consumer is not accused.
    let mended = fs::read_to_string(world.path(source)).unwrap().replace("<= 24", "<= 1000000");
    fs::write(world.path(source), mended).unwrap();
    fs::remove_file(world.path("shop.db")).unwrap();
    fs::remove_dir_all(world.path("recount-data")).unwrap();
    world.configure(&config);
    run_as_written(&world, folder, command, false).expect(0);
    let all = observed(&world, 0);
    assert_eq!(all["status"], "balanced", "{all:#}");
}

#[test]
fn an_ordinary_consumer_in_python_is_observed_and_its_silent_line_is_found_by_id() {
    if is_there("python3") {
        observing(".", "consumer.py", "python3 consumer.py");
    }
}

#[test]
fn an_ordinary_consumer_in_go_is_observed_and_its_silent_line_is_found_by_id() {
    if !is_there("go") {
        return;
    }
    // Go has no SQLite of its own: the driver is part of the toolchain that this needs.
    let fetched =
        Command::new("go").args(["mod", "download"]).current_dir(examples().join("observe/go")).output();
    let fetched = fetched.unwrap();
    if !fetched.status.success() {
        let why = String::from_utf8_lossy(&fetched.stderr);
        eprintln!("NOT TESTED: Go's SQLite driver can't be had on this machine: {why}");
        return;
    }
    observing("go", "go/consumer.go", "go run . ../orders.ndjson ../shop.db");
}

/// Code without blank lines, comments, the package and what is imported.
fn code_lines(file: &str) -> usize {
    let text = fs::read_to_string(examples().join(file)).unwrap();
    let (mut count, mut is_in_imports, mut is_in_doc) = (0, false, false);
    for line in text.lines().map(str::trim) {
        let quotes = line.matches("\"\"\"").count();
        if quotes == 1 && (is_in_doc || line.starts_with("\"\"\"")) {
            is_in_doc = !is_in_doc;
            continue;
        }
        is_in_imports = (is_in_imports || line == "import (") && line != ")";
        let is_import =
            is_in_imports || line == ")" || ["import ", "package "].iter().any(|w| line.starts_with(w));
        let is_comment = is_in_doc || ["//", "#"].iter().any(|mark| line.starts_with(mark));
        count += usize::from(!(line.is_empty() || is_import || is_comment));
    }
    count
}

#[test]
fn the_config_of_observe_and_the_consumers_that_report_are_short() {
    let config = fs::read_to_string(examples().join("observe/recount.toml")).unwrap();
    let is_counted = |line: &&str| !line.trim().is_empty() && !line.trim_start().starts_with('#');
    let config = config.lines().filter(is_counted).count();
    assert!(config < OBSERVE_CONFIG_LINES_MAX, "{config} lines");
    for file in ["report/python/consumer.py", "report/go/consumer.go", "report/node/consumer.mjs"] {
        let lines = code_lines(file);
        assert!((20..CONSUMER_LINES_MAX).contains(&lines), "{file}: {lines} lines");
    }
    let page = fs::read_to_string(examples().join("report/README.md")).unwrap();
    for file in ["python/consumer.py", "go/consumer.go", "node/consumer.mjs", "java/Consumer.java"] {
        let told = format!("({file}) | {} |", code_lines(&format!("report/{file}")));
        assert!(page.contains(&told), "the page doesn't say {told}");
    }
}

/// A process that is ended with the test.
struct Started(Child);

impl Drop for Started {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn a_handler_in_python_behind_http_takes_each_order_out_of_stock_once() {
    if !is_there("python3") {
        return;
    }
    let world = World::of_example("http-handler");
    let port = free_port();
    let config = fs::read_to_string(world.path("recount.toml")).unwrap();
    world.configure(&config.replace(":7623/", &format!(":{port}/")));
    let start = || {
        let mut handler = Command::new("python3");
        handler.args(["handler.py", &port.to_string()]).current_dir(world.path("."));
        let handler = Started(handler.stderr(Stdio::null()).spawn().unwrap());
        let is_up = || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok();
        eventually("the handler listens", is_up);
        handler
    };
    let handler = start();
    let report = world.run().expect(0).json();
    assert_eq!(report["flows"][0]["working"], true, "{report:#}");
    let expected = [
        "applied",
        "applied",
        "applied",
        "skipped zero_quantity",
        "dead-lettered insufficient_stock",
        "applied",
        "dead-lettered unknown_sku",
        "applied",
        "dead-lettered insufficient_stock",
        "applied",
    ];
    assert_eq!(world.fates(), expected);
    assert_eq!(statement(&report, "E3")["status"], "balanced", "{report:#}");
    let on_hand = || ["mug", "tray", "lamp"].map(|sku| world.on_hand(sku));
    assert_eq!(on_hand(), [0, 7, 0]);

    // The same events, asked about again by an instance that knows nothing: the keys are the same.
    drop(handler);
    let _handler = start();
    fs::remove_dir_all(world.path("recount-data")).unwrap();
    world.run().expect(0);
    assert_eq!(world.fates(), expected);
    assert_eq!(on_hand(), [0, 7, 0]);
}
