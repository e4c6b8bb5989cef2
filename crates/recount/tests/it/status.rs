//! `recount status`: one screen whose first line answers, in the words of the audit, offline and over HTTP.

use crate::harness::{TAKE_FROM_STOCK, Told, World, config, eventually, order, orders};
use serde_json::Value;

/// A rule that skips what asks for nothing, with a budget of one in ten.
const SKIP_ZERO: &str = r#"
[[flow.stock.check]]
reason = "zero_quantity"
that = "event.quantity > 0"
otherwise = "skip"
at_most = "10% of 10"
because = "an order line for nothing"
"#;

fn status(world: &World) -> Told {
    world.recount(&["status", "--json"])
}

fn first_line(world: &World) -> String {
    world.recount(&["status"]).out.lines().next().unwrap().to_owned()
}

fn strings(value: &Value) -> Vec<String> {
    value.as_array().unwrap().iter().map(|text| text.as_str().unwrap().to_owned()).collect()
}

/// A line of a screen as a shell takes it, with single quotes.
fn words(command: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    let mut quoted = false;
    for c in command.chars() {
        match c {
            '\'' => quoted = !quoted,
            ' ' if !quoted => words.push(String::new()),
            c => words.last_mut().unwrap().push(c),
        }
    }
    words
}

#[test]
fn a_flow_that_works_is_said_to_work_and_not_to_run() {
    let world = World::stock("");
    world.lines(&orders(0..10, "a"));
    world.run().expect(0);
    assert_eq!(first_line(&world), "working; not running");
    let told = status(&world).expect(0).json();
    assert_eq!((&told["working"], &told["running"]), (&true.into(), &false.into()));
    let flow = &told["flows"][0];
    assert_eq!(
        (flow["books"]["published"].as_u64(), flow["books"]["decided"].as_u64()),
        (Some(10), Some(10))
    );
    assert_eq!(flow["backlog"], 0);
    assert_eq!(flow["change"]["config"], 1);
    world.append(&orders(10..13, "a"));
    let told = status(&world).json();
    assert_eq!(told["flows"][0]["backlog"], 3, "{told:#}");
    assert!(strings(&told["next"]).contains(&"recount run".to_owned()), "{told:#}");
}

#[test]
fn what_is_not_working_is_said_in_the_words_of_the_audit_and_every_next_command_runs() {
    let world = World::new(&config("", &format!("{SKIP_ZERO}{TAKE_FROM_STOCK}")));
    let mut lines = orders(0..20, "a");
    lines.extend([order("z0", "a", 0), order("z1", "a", 0), order("u0", "zz", 1)]);
    world.lines(&lines);
    world.run().expect(1);
    let told = status(&world).expect(1).json();
    let audit = world.audit().expect(1).json();
    assert_eq!(told["flows"][0]["not_working"], audit["flows"][0]["not_working"]);
    let cause = strings(&audit["flows"][0]["not_working"]).remove(0);
    assert!(cause.contains("zero_quantity exceeded its budget of 10% of 10"), "{cause}");
    assert_eq!(told["answer"], format!("not working: {cause}; not running"));
    let reasons = told["flows"][0]["reasons"].as_array().unwrap();
    let zero = reasons.iter().find(|reason| reason["reason"] == "zero_quantity").unwrap();
    assert_eq!((&zero["events"], &zero["worst"], &zero["allowed"]), (&2.into(), &2.into(), &1.into()));
    assert_eq!(zero["budget_status"], "exceeded");
    assert_eq!(told["flows"][0]["dead_letters"][0]["newest"], "stock/0/22");

    let next = strings(&told["next"]);
    assert!(next.iter().any(|command| command.starts_with("recount replay stock --reason zero_quantity")));
    for command in &next {
        let words = words(command);
        let args: Vec<&str> = words[1..].iter().map(String::as_str).collect();
        let done = world.recount(&args);
        assert!(matches!(done.code, Some(0 | 1)), "{command}: {}", done.all());
    }
    let told = status(&world).expect(0).json();
    assert_eq!(told["working"], true, "the resume among them accepted it: {told:#}");
}

#[test]
fn without_the_database_it_cannot_say_and_without_a_ledger_it_says_where_to_begin() {
    let world = World::stock("");
    let told = world.recount(&["status"]).expect(4);
    assert!(told.err.contains("there is no ledger"), "{}", told.err);
    world.lines(&orders(0..3, "a"));
    world.run().expect(0);
    std::fs::rename(world.path("shop.db"), world.path("away.db")).unwrap();
    let told = world.recount(&["status"]).expect(3);
    assert!(told.out.starts_with("can't say: E2 ledger = effects is unprovable"), "{}", told.out);
}

#[test]
fn a_running_instance_is_asked_and_says_the_same_as_its_health() {
    let world = World::stock("source = { file = \"orders.ndjson\", follow = true }");
    world.lines(&orders(0..3, "a"));
    let running = world.start(&["run"]);
    eventually("three are applied", || world.on_hand("a") == 97);
    eventually("and settled", || first_line(&world) == "working; running");
    let asked = world.recount(&["status", "--json", "--at", &running.address()]).expect(0).json();
    let found = status(&world).expect(0).json();
    assert_eq!(asked["instance"], running.address());
    let stable = |told: &Value| (told["answer"].clone(), told["flows"][0]["books"].clone());
    assert_eq!(stable(&asked), stable(&found));
    assert!(asked["flows"][0]["running"].as_bool().unwrap());

    world.recount(&["pause", "stock", "--because", "stocktaking"]).expect(0);
    world.append(&orders(3..5, "a"));
    let told = status(&world).expect(1).json();
    assert!(
        told["answer"].as_str().unwrap().starts_with("not working: it is paused: ada: stocktaking"),
        "{told:#}"
    );
    assert!(strings(&told["next"]).iter().any(|command| command.starts_with("recount resume stock")));
    assert!(told["flows"][0]["paused"].as_str().unwrap().starts_with("ada: stocktaking"));
    let health: Value = serde_json::from_str(&running.get("/health/working").1).unwrap();
    let sentences = strings(&health["flows"][0]["sentences"]);
    assert!(
        sentences.iter().any(|sentence| sentence.starts_with("it is paused: ada: stocktaking")),
        "{sentences:?}"
    );
    let audit = world.audit().json();
    assert_eq!(strings(&audit["flows"][0]["not_working"]), strings(&told["flows"][0]["not_working"]));

    let changed = std::fs::read_to_string(world.path("recount.toml")).unwrap() + "# a comment\n";
    world.configure(&changed);
    let notes = strings(&status(&world).json()["notes"]);
    assert!(
        notes.iter().any(|note| note.contains("was changed since the instance was started")),
        "{notes:?}"
    );
    running.terminate();
    assert!(first_line(&world).ends_with("not running"), "{}", first_line(&world));
    let told = world.recount(&["status", "--at", "http://127.0.0.1:1"]).expect(4);
    assert!(told.err.contains("can't be asked"), "{}", told.err);
}

#[test]
fn the_last_change_says_which_check_by_whom_and_since_when() {
    let world = World::new(&config("", &format!("{SKIP_ZERO}{TAKE_FROM_STOCK}")));
    world.lines(&orders(0..3, "a"));
    world.run().expect(0);
    let changed = SKIP_ZERO.replace("quantity > 0", "quantity >= 0");
    world.configure(&config("", &format!("{changed}{TAKE_FROM_STOCK}")));
    let notes = strings(&status(&world).json()["notes"]);
    assert!(notes.iter().any(|note| note.contains("the next start makes it config 2")), "{notes:?}");
    world.run().expect(0);
    let told = status(&world).json();
    let change = &told["flows"][0]["change"];
    assert_eq!((&change["config"], &change["author"]), (&2.into(), &"ada".into()));
    assert_eq!(strings(&change["what"]), ["check zero_quantity: that changed"]);
    assert_eq!(strings(&told["notes"]), [""; 0]);
}

#[test]
fn two_flows_fit_on_one_screen() {
    let one = format!("{SKIP_ZERO}{TAKE_FROM_STOCK}");
    let first = config("", &one);
    let second = first[first.find("[flow.stock]").unwrap()..].replace("flow.stock", "flow.again");
    let world = World::new(&format!("{first}{second}"));
    let mut lines = orders(0..20, "a");
    lines.extend((0..3).map(|n| order(&format!("z{n}"), "a", 0)));
    lines.push(order("u0", "zz", 1));
    world.lines(&lines);
    world.run().expect(1);
    let told = world.recount(&["status"]).expect(1);
    assert!(told.out.lines().count() <= 40, "{}", told.out);
    let wide: Vec<&str> = told.out.lines().filter(|line| line.chars().count() > 100).collect();
    assert!(wide.is_empty(), "{wide:#?}");
    assert!(told.out.starts_with("not working: flow stock: "), "{}", told.out);
    assert!(told.out.contains("flow again: not working"), "{}", told.out);
}
