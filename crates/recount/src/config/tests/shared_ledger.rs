//! `[ledger] database`: what may not stand beside it.

use crate::config::Config;
use std::path::Path;

fn with(ledger: &str, apply: &str) -> Result<Config, String> {
    let text = format!(
        "[database.ops]\nurl = \"postgres://recount@db/ops\"\n[ledger]\ndatabase = \"ops\"\n{ledger}\n[flow.stock]\nowner = \"a\"\n\
         purpose = \"b\"\nsource = {{ file = \"orders.ndjson\" }}\nid = \"event.id\"\n[flow.stock.apply]\n{apply}\n"
    );
    Config::from_text(&text, Path::new("recount.toml")).map_err(|faults| faults.render())
}

const SQL: &str = "database = \"ops\"\nsql = \"DELETE FROM stock\"\nrows = \"any\"";

#[test]
fn a_ledger_in_a_database_is_taken_with_its_folder() {
    let config = with("path = \"replica\"", SQL).unwrap();
    let shared = config.ledger.database.unwrap();
    assert_eq!((shared.name.as_str(), shared.database.url.as_str()), ("ops", "postgres://recount@db/ops"));
    assert!(config.ledger.path.ends_with("replica"));
}

#[test]
fn what_one_folder_alone_would_know_is_refused_beside_it() {
    let told = with("retention = { age = \"90d\" }", SQL).unwrap_err();
    assert!(told.contains("kept whole for now") && told.contains("leave [ledger.retention] out"), "{told}");
    let told = with("", "http = \"http://localhost:8000/\"").unwrap_err();
    assert!(told.contains("flow stock applies nothing to a database"), "{told}");
}
