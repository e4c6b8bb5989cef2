//! `recount reproduce`: a folder that decides one event again, whatever happened to config and source since.

use crate::harness::{TAKE_FROM_STOCK, Told, World, config, eventually, order, orders};
use serde_json::Value;
use std::fs;
use std::process::{Command, Stdio};

const SKIP_ZERO: &str = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "any"
because = "an order line for nothing"
"#;

/// Runs the command that was printed, as a shell would, and gives the fates of the folder's ledger.
fn run_printed(world: &World, printed: &Value) -> Vec<String> {
    let command = printed["run"].as_str().unwrap().replacen("recount", env!("CARGO_BIN_EXE_recount"), 1);
    let folder = printed["folder"].as_str().unwrap();
    let done = Command::new("sh")
        .args(["-c", &command])
        .current_dir(world.path(""))
        .env_remove("RECOUNT_CONFIG")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let told = format!("{}{}", String::from_utf8_lossy(&done.stdout), String::from_utf8_lossy(&done.stderr));
    assert!(matches!(done.status.code(), Some(0 | 1)), "{command}: {told}");
    let exported = world.recount(&["ledger", "export", "-c", &format!("{folder}/recount.toml")]).expect(0);
    exported.out.lines().map(|line| crate::harness::fate(&serde_json::from_str(line).unwrap())).collect()
}

fn reproduce(world: &World, position: &str) -> Told {
    world.recount(&["reproduce", position, "--json"])
}

fn packed(world: &World) {
    let packed = Command::new("gzip").arg("-c").arg(world.path("orders.ndjson")).output().unwrap();
    fs::write(world.path("orders.ndjson.gz"), packed.stdout).unwrap();
}

#[test]
fn each_event_is_decided_again_as_it_was_by_the_config_of_then() {
    for source in ["orders.ndjson", "orders.ndjson.gz"] {
        let keys = format!("source = {{ file = \"{source}\" }}\nschema = \"order.schema.json\"");
        let world = World::new(&config(&keys, &format!("{SKIP_ZERO}{TAKE_FROM_STOCK}")));
        let schema = r#"{"type":"object","properties":{"id":{"type":"string"},"sku":{"type":"string"},"quantity":{"type":"integer"}}}"#;
        fs::write(world.path("order.schema.json"), schema).unwrap();
        world.lines(&[
            order("e0", "a", 1),
            order("e1", "a", 0),
            order("e2", "zz", 1),
            order("e3", "a", 5000),
            "{\"id\":\"e4\",\"sku\":\"a\",\"quantity\":\"1\"}".to_owned(),
            "no JSON".to_owned(),
            order("e0", "a", 1),
        ]);
        if source.ends_with("gz") {
            packed(&world);
        }
        world.run();
        let then = world.decisions();
        assert_eq!(then.len(), 7);
        // Since then both were changed so that everything would be decided otherwise.
        fs::write(
            world.path("order.schema.json"),
            "{\"required\":[\"color\"],\"properties\":{\"id\":{}, \"sku\":{}, \"quantity\":{}}}",
        )
        .unwrap();
        world.configure(&config(&keys, TAKE_FROM_STOCK));
        let on_hand = world.on_hand("a");
        for decision in &then {
            let position = decision["position"].as_str().unwrap();
            let printed = reproduce(&world, position).expect(0).json();
            let fates = run_printed(&world, &printed);
            assert_eq!(fates.last().unwrap(), &crate::harness::fate(decision), "{source}: {position}");
            assert_eq!(printed["verdict"], decision["verdict"]);
            assert_eq!(printed["reason"], decision["reason"]);
        }
        assert_eq!(world.on_hand("a"), on_hand, "the database itself is left alone");
        world.audit();
        let folder = world.path("reproduce-stock-0-1");
        let line = fs::read_to_string(folder.join("event.ndjson")).unwrap();
        assert_eq!(line, order("e1", "a", 0) + "\n");
        let readme = fs::read_to_string(folder.join("README.md")).unwrap();
        for part in
            ["skipped zero_quantity", "config 1", "AS OF NOW", "recount run reproduce-stock-0-1/recount.toml"]
        {
            assert!(readme.contains(part), "{part}: {readme}");
        }
        let told = reproduce(&world, "stock/0/1").expect(2);
        assert!(told.err.contains("is there already"), "{}", told.err);
        let elsewhere = world.recount(&["reproduce", "stock/0/1", "--to", "other"]).expect(0);
        assert!(elsewhere.out.ends_with("next: recount run other/recount.toml\n"), "{}", elsewhere.out);
    }
}

#[test]
fn an_id_stands_for_its_event_unless_there_are_several() {
    let world = World::stock("");
    world.lines(&[order("e0", "zz", 1), order("e1", "a", 1), order("e1", "a", 1)]);
    world.run();
    assert_eq!(reproduce(&world, "e0").expect(0).json()["position"], "stock/0/0");
    let told = reproduce(&world, "e1").expect(2);
    assert!(told.err.contains("stock/0/1, stock/0/2"), "{}", told.err);
    let told = reproduce(&world, "e7").expect(2);
    assert!(told.err.contains("nothing was decided about e7"), "{}", told.err);
}

#[test]
fn what_is_neither_kept_nor_in_the_source_is_not_reproduced_and_leaves_no_folder() {
    let world = World::stock("");
    world.lines(&orders(0..2, "a"));
    world.run().expect(0);
    fs::remove_file(world.path("orders.ndjson")).unwrap();
    let told = reproduce(&world, "stock/0/1").expect(1);
    assert!(told.err.contains("can't be had any more") && told.err.contains("orders.ndjson"), "{}", told.err);
    assert!(!world.path("reproduce-stock-0-1").exists());
}

#[test]
fn an_event_with_headers_and_line_breaks_comes_back_exactly() {
    let world = World::new(&config(
        "source = { http = \"/orders\" }",
        &format!(
            "[[flow.stock.check]]\nreason = \"no_tenant\"\nthat = \"meta.headers['x-tenant'] == 'acme'\"\notherwise = \"dead-letter\"\n\
             because = \"whose order is it\"\n{TAKE_FROM_STOCK}"
        ),
    ));
    let running = world.start(&["run"]);
    let headers = [("content-type", "application/json"), ("x-tenant", "other")];
    let body = "{\n  \"id\": \"h0\",\n  \"sku\": \"a\",\n  \"quantity\": 1\n}";
    assert_eq!(running.post("/orders", &headers, body).0, 202);
    eventually("it is decided", || world.decided() == 1);
    running.terminate();
    let then = world.fates();
    let printed = reproduce(&world, "h0").expect(0).json();
    assert_eq!(run_printed(&world, &printed), then);
    let folder = world.path(printed["folder"].as_str().unwrap());
    assert_eq!(fs::read_to_string(folder.join("event.bin")).unwrap(), body);
}

#[test]
fn of_a_flow_with_a_handler_it_says_that_running_calls_it() {
    let world = World::new(&config(
        "",
        "[flow.stock.apply]\nhttp = \"http://127.0.0.1:9/reserve\"\ntoken = \"${NEVER_SET_TOKEN}\"\n\
         [[flow.stock.check]]\nreason = \"zero_quantity\"\nthat = \"event.quantity > 0\"\notherwise = \"skip\"\nat_most = \"any\"\n\
         because = \"nothing\"\n",
    ));
    world.lines(&[order("e0", "a", 0)]);
    let mut command = world.command(&["run"]);
    command.env("NEVER_SET_TOKEN", "hunter2").output().unwrap();
    let printed = reproduce(&world, "stock/0/0").expect(0).json();
    let notes = printed["notes"].to_string();
    assert!(notes.contains("CALLS THE HANDLER at http://127.0.0.1:9/reserve"), "{notes}");
    let folder = world.path(printed["folder"].as_str().unwrap());
    let config = fs::read_to_string(folder.join("recount.toml")).unwrap();
    assert!(config.contains("${NEVER_SET_TOKEN}") && !config.contains("hunter2"), "{config}");
}
