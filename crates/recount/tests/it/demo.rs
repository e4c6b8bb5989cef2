//! `recount demo`: its figures against what a test counts in the folder that it leaves behind.

use rusqlite::Connection;
use serde_json::Value;
use std::collections::{BTreeMap, HashMap};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

fn recount(folder: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_recount"));
    command.args(args).current_dir(folder).stdin(Stdio::null()).env_remove("RECOUNT_CONFIG");
    command.output().unwrap()
}

fn text(output: &Output) -> (String, String) {
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (text(&output.stdout), text(&output.stderr))
}

/// The demo in a folder of its own: figures and folder.
fn demo(parent: &Path, args: &[&str]) -> (Value, PathBuf) {
    let args = [&["demo", "--json", "--folder", "left"], args].concat();
    let output = recount(parent, &args);
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    (serde_json::from_str(&out).unwrap(), parent.join("left"))
}

/// What must come of the orders in a folder, counted here.
#[derive(Default)]
struct Count {
    orders: u64,
    fates: BTreeMap<&'static str, u64>,
    units: i64,
    units_after_rename: i64,
    first_renamed: Option<u64>,
    renamed: u64,
    on_hand: HashMap<String, i64>,
}

fn count(folder: &Path, orders: &str) -> Count {
    let stock = fs::read_to_string(folder.join("stock.csv")).unwrap();
    let article = |line: &str| {
        let (sku, units) = line.split_once(',').unwrap();
        (sku.to_owned(), units.parse().unwrap())
    };
    let mut count = Count { on_hand: stock.lines().skip(1).map(article).collect(), ..Count::default() };
    for line in fs::read_to_string(folder.join(orders)).unwrap().lines() {
        let order: Value = serde_json::from_str(line).unwrap();
        let is_renamed = order.get("quantity").is_none();
        let units = if is_renamed { &order["qty"] } else { &order["quantity"] }.as_i64().unwrap();
        if is_renamed {
            count.first_renamed.get_or_insert(count.orders);
            count.renamed += 1;
        }
        count.orders += 1;
        let fate = match count.on_hand.get_mut(order["sku"].as_str().unwrap()) {
            _ if units == 0 => "zero_quantity",
            None => "unknown_sku",
            Some(left) if *left < units => "insufficient_stock",
            Some(left) => {
                *left -= units;
                count.units += units;
                count.units_after_rename += if count.first_renamed.is_some() { units } else { 0 };
                "applied"
            }
        };
        *count.fates.entry(fate).or_default() += 1;
    }
    count
}

fn on_hand(folder: &Path) -> HashMap<String, i64> {
    let shop = Connection::open(folder.join("shop.db")).unwrap();
    let mut rows = shop.prepare("SELECT sku, on_hand FROM stock").unwrap();
    let rows = rows.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    rows.map(Result::unwrap).collect()
}

/// The figures of a demo are those that the folder holds.
fn check(figures: &Value, folder: &Path) {
    let counted = count(folder, "orders.ndjson");
    assert_eq!(figures["orders"]["published"], counted.orders);
    assert_eq!(figures["orders"]["rename_offset"], counted.first_renamed.unwrap());
    assert_eq!(figures["expected"]["units"], counted.units);
    assert_eq!(figures["expected"]["units_after_rename"], counted.units_after_rename);
    let fates = figures["expected"]["fates"].as_object().unwrap();
    for (fate, events) in fates {
        assert_eq!(
            events.as_u64().unwrap(),
            counted.fates.get(fate.as_str()).copied().unwrap_or(0),
            "{fate}"
        );
    }

    let total = |on_hand: &HashMap<String, i64>| on_hand.values().sum::<i64>();
    let at_first = total(&counted.on_hand) + counted.units;
    let ordinary = &figures["ordinary"];
    assert_eq!(ordinary["metrics"]["processed"], counted.orders);
    assert_eq!(ordinary["metrics"]["errors"], 0);
    assert_eq!(ordinary["units"], at_first - total(&on_hand(&folder.join("ordinary"))));
    assert_eq!(ordinary["units"], counted.units - counted.units_after_rename);
    assert_eq!(ordinary["units_after_rename"], 0);
    assert!(counted.units_after_rename > 0);

    let dead_letter = &figures["dead_letter"];
    let first = counted.first_renamed.unwrap();
    assert_eq!(dead_letter["first_sign"]["position"], format!("reserve-stock/0/{first}"));
    assert_eq!(dead_letter["first_sign"]["events"], 1);
    assert_eq!(dead_letter["exceeded"]["events"], 11, "1% of 1000 is ten, and one more");
    assert!(dead_letter["paused"]["events"].as_u64().unwrap() <= 1000, "{dead_letter:#}");
    assert_eq!(dead_letter["run"]["decided"].as_u64().unwrap() - first, dead_letter["paused"]["events"]);
    assert_eq!(figures["skip"]["run"]["status"], "balanced");
    assert_eq!(figures["skip"]["renamed"], counted.renamed);

    for (name, act) in [("dead-letter", dead_letter), ("skip", &figures["skip"])] {
        assert_eq!(act["run"]["working"], false, "{name}");
        let corrected = &act["corrected"];
        assert_eq!(on_hand(&folder.join(name)), counted.on_hand, "{name}");
        assert_eq!(corrected["end"]["units"], counted.units, "{name}");
        assert_eq!(corrected["end"]["decisions"]["applied"], counted.fates["applied"], "{name}");
        assert_eq!(corrected["end"]["working"], true, "{name}");
        let audit = recount(&folder.join(name), &["audit"]);
        assert_eq!(audit.status.code(), Some(0), "{name}: {}", text(&audit).0);
    }
    check_one_in_20(figures, folder);
}

/// About one in twenty is renamed, and where the budget was exceeded is where it must have been.
fn check_one_in_20(figures: &Value, folder: &Path) {
    let counted = count(folder, "orders-one-in-20.ndjson");
    let act = &figures["one_in_20"];
    let after = counted.orders - figures["orders"]["rename_offset"].as_u64().unwrap();
    assert!((after * 3 / 100..after * 7 / 100).contains(&counted.renamed), "{} of {after}", counted.renamed);
    assert_eq!(act["renamed"], counted.renamed);
    assert_eq!(act["run"]["status"], "balanced");
    assert_eq!(act["run"]["working"], false);
    let allowed: u64 =
        figures["budget"].as_str().unwrap().strip_suffix("% of 1000").unwrap().parse().unwrap();
    let orders = fs::read_to_string(folder.join("orders-one-in-20.ndjson")).unwrap();
    let skipped: Vec<bool> = orders
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["quantity"].as_i64().unwrap_or(0) == 0)
        .collect();
    let exceeds = |n: &usize| {
        let window = &skipped[n.saturating_sub(999)..=*n];
        window.iter().filter(|skipped| **skipped).count() as u64 > allowed * 10
    };
    let exceeded = (0..skipped.len()).find(exceeds).unwrap();
    assert_eq!(act["exceeded"]["position"], format!("reserve-stock/0/{exceeded}"));
    let events = exceeded as u64 + 1 - counted.first_renamed.unwrap();
    assert_eq!(act["exceeded"]["events"], events);
    assert!(events <= 1000);
    let audit = recount(&folder.join("one-in-20"), &["audit"]);
    assert_eq!(audit.status.code(), Some(1), "it is left for the reader to correct");
}

#[test]
fn what_the_demo_says_is_what_its_folder_holds_wherever_the_rename_is() {
    for args in [["--orders", "4000", "--rename-at", "1300"], ["--orders", "5000", "--rename-at", "70%"]] {
        let parent = tempfile::tempdir().unwrap();
        let (figures, folder) = demo(parent.path(), &args);
        assert_eq!(figures["held"], true);
        check(&figures, &folder);
    }
}

/// Orders of which every thirtieth asks for nothing: more than the demo's usual budget allows.
fn other_data(folder: &Path) {
    let order = |n: u64| {
        let (sku, quantity) = (n * 7 % 40, if n.is_multiple_of(30) { 0 } else { n % 5 + 1 });
        format!("{{\"id\":\"n-{n}\",\"sku\":\"s{sku}\",\"quantity\":{quantity}}}\n")
    };
    let (first, second) = (0..1500, 1500..2600);
    fs::write(folder.join("orders-1.ndjson"), first.map(order).collect::<String>()).unwrap();
    fs::write(folder.join("orders-2.ndjson"), second.map(order).collect::<String>()).unwrap();
    // The last article is missing, and the first has too little.
    let stock: String = (1..39).map(|n| format!("s{n},\"a thing, a good one\",5000\n")).collect();
    fs::write(folder.join("stock.csv"), format!("sku,name,on_hand\ns0,few,150\n{stock}")).unwrap();
}

#[test]
fn other_orders_give_other_figures_and_the_same_story() {
    let parent = tempfile::tempdir().unwrap();
    other_data(parent.path());
    let (figures, folder) = demo(parent.path(), &["--data", "."]);
    assert_eq!(figures["orders"]["published"], 2600);
    assert_eq!(figures["budget"], "5% of 1000", "34 of 1,000 ask for nothing");
    check(&figures, &folder);

    let parent = tempfile::tempdir().unwrap();
    let again = recount(&folder, &["demo", "--json", "--folder", parent.path().to_str().unwrap()]);
    let (_, err) = text(&again);
    assert_eq!(again.status.code(), Some(0), "a folder that is there and empty will do: {err}");
}

#[test]
fn the_story_names_its_figures_and_the_folder() {
    let parent = tempfile::tempdir().unwrap();
    let output = recount(parent.path(), &["demo", "--folder", "left", "--orders", "3000"]);
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(0), "{out}\n{err}");
    let folder = parent.path().join("left").canonicalize().unwrap();
    let counted = count(&folder, "orders.ndjson");
    for told in [
        "errors 0, alerts 0, lag 0".to_owned(),
        format!("$ cd {}/dead-letter && recount run", folder.display()),
        "dead-lettered check_unevaluable".to_owned(),
        "balanced: 3,000 published".to_owned(),
        "All of it held".to_owned(),
    ] {
        assert!(out.contains(&told), "{told} is not in:\n{out}");
    }
    assert_eq!(
        out.matches(&format!("{},{:03} ", counted.units / 1000, counted.units % 1000)).count(),
        3,
        "{out}"
    );
    assert!(out.lines().count() < 85, "{out}");
    assert!(!out.contains('\u{1b}'), "no colours in a pipe");
}

#[test]
fn a_folder_that_holds_something_and_orders_too_few_are_refused() {
    let parent = tempfile::tempdir().unwrap();
    fs::write(parent.path().join("mine"), "keep me").unwrap();
    for (args, told) in [
        (&["demo", "--folder", "."][..], "is not empty"),
        (&["demo", "--orders", "1000"], "at least 1 and 1000 are needed"),
        (&["demo", "--rename-at", "soon"], "--rename-at soon"),
        (&["demo", "--data", "."], "has no orders-*.ndjson"),
    ] {
        let output = recount(parent.path(), args);
        let (out, err) = text(&output);
        assert_eq!(output.status.code(), Some(2), "{args:?}: {out}{err}");
        assert!(err.contains(told), "{args:?}: {err}");
    }
    assert_eq!(fs::read_dir(parent.path()).unwrap().count(), 1);
}

#[test]
fn what_does_not_hold_is_told_and_ends_with_1() {
    let parent = tempfile::tempdir().unwrap();
    // Nothing on the list is ordered, so no stock is missed, with or without the rename.
    let order = |n: u64| format!("{{\"id\":\"n-{n}\",\"sku\":\"nowhere\",\"quantity\":1}}\n");
    fs::write(parent.path().join("orders-1.ndjson"), (0..1600).map(order).collect::<String>()).unwrap();
    fs::write(parent.path().join("stock.csv"), "sku,on_hand\nsomewhere,5\n").unwrap();
    let output = recount(parent.path(), &["demo", "--data", ".", "--folder", "left", "--rename-at", "600"]);
    let (out, err) = text(&output);
    assert_eq!(output.status.code(), Some(1), "{out}\n{err}");
    assert!(out.contains("This did not hold in this run:"), "{out}");
    assert!(out.contains("ordinary: units should have left the stock since the rename"), "{out}");
    assert!(!out.contains("All of it held"), "{out}");
}
