//! Every field of every command's `--json` output stands in `docs/json-reference.md`, and nothing else does.

mod answers;
mod fields;
mod fields_of_demo;
mod fields_of_group;

use fields::{Page, pages};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

/// Every path of keys in a value: `flows[].books.published`.
fn paths(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                found.insert(path.clone());
                paths(value, &path, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| paths(item, &format!("{at}[]"), found)),
        _ => {}
    }
}

/// Whether a listed path speaks of a found one. `decided.*` speaks of whatever stands in `decided`.
fn speaks_of(listed: &str, found: &str) -> bool {
    match listed.strip_suffix(".*") {
        Some(above) => found.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '['])),
        None => listed == found,
    }
}

#[test]
fn every_field_that_occurs_is_listed_and_every_listed_field_occurs() {
    let mut found: BTreeMap<&str, BTreeSet<String>> = BTreeMap::new();
    for (command, answer) in answers::all() {
        paths(&answer, "", found.entry(command).or_default());
    }
    let mut faults = String::new();
    let pages = pages();
    let has_broker = cfg!(feature = "kafka") && !recount_services::is_left_out("kafka");
    for Page { command, fields, .. } in &pages {
        if *command == fields::TO_A_TOPIC && !has_broker {
            continue;
        }
        let found = found.remove(command).unwrap_or_default();
        for path in found.iter().filter(|path| !fields.iter().any(|(listed, _)| speaks_of(listed, path))) {
            let _ = writeln!(faults, "{command}: {path} occurs and is not listed");
        }
        let expected =
            fields.iter().filter(|(listed, _)| has_broker || !fields_of_group::needs_broker(listed));
        for (listed, _) in expected.filter(|(listed, _)| !found.iter().any(|path| speaks_of(listed, path))) {
            let _ = writeln!(faults, "{command}: {listed} is listed and never occurred");
        }
    }
    assert!(found.is_empty(), "commands without a page: {:?}", found.keys());
    assert!(faults.is_empty(), "tests/it/json_reference/fields.rs and the program differ:\n{faults}");
}

#[test]
fn the_json_reference_is_up_to_date() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/json-reference.md");
    let text = render();
    if std::env::var_os("RECOUNT_WRITE_DOCS").is_some() {
        std::fs::write(&path, &text).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        written == text,
        "docs/json-reference.md is old: RECOUNT_WRITE_DOCS=1 cargo test -p recount --test it json_reference"
    );
}

fn render() -> String {
    let mut text = String::from(fields::HEAD);
    for Page { command, intro, fields } in pages() {
        let _ = write!(text, "\n## `{command}`\n\n{intro}\n\n| field | |\n|---|---|\n");
        for (path, sentence) in fields {
            let _ = writeln!(text, "| `{path}` | {sentence} |");
        }
    }
    text
}
