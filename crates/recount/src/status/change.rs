//! What last changed in a flow's config, told from the versions that the ledger keeps.

use super::answer::Change;
use recount_ledger::StoredConfig;
use std::collections::BTreeSet;
use toml::{Table, Value};

/// At most so many versions are looked at, newest first.
const VERSIONS_MAX: usize = 50;

/// A flow as one version has it: its table, and the texts of the schemas that it names.
struct FlowText {
    table: Table,
    schema: Option<String>,
}

/// The newest version in which the flow is not as in the one before.
pub fn last_change(configs: &[StoredConfig], flow: &str) -> Option<Change> {
    let newest: Vec<&StoredConfig> = configs.iter().rev().take(VERSIONS_MAX).collect();
    for pair in newest.windows(2) {
        if pair[0].hash == pair[1].hash {
            continue;
        }
        let what = differences(flow_text(pair[1], flow), flow_text(pair[0], flow));
        if !what.is_empty() {
            return Some(change(pair[0], what));
        }
    }
    newest.last().map(|first| change(first, Vec::new()))
}

fn change(version: &StoredConfig, what: Vec<String>) -> Change {
    Change {
        config: version.version.0,
        author: version.author.clone(),
        revision: version.revision.clone(),
        since: version.since.to_string(),
        what,
    }
}

fn flow_text(version: &StoredConfig, flow: &str) -> Option<FlowText> {
    let mut config: Table = version.text.parse().ok()?;
    let Some(Value::Table(mut flows)) = config.remove("flow") else { return None };
    let Some(Value::Table(table)) = flows.remove(flow) else { return None };
    let named = table.get("schema").and_then(Value::as_str);
    let schema = named.and_then(|name| version.files.iter().find(|(file, _)| file == name));
    let schema = schema.map(|(_, text)| text.clone());
    Some(FlowText { table, schema })
}

fn differences(old: Option<FlowText>, new: Option<FlowText>) -> Vec<String> {
    let (old, new) = match (old, new) {
        (Some(old), Some(new)) => (old, new),
        (None, Some(_)) => return vec!["the flow was added".to_owned()],
        (_, None) => return Vec::new(),
    };
    let mut what = checks(&old.table, &new.table);
    let names: BTreeSet<&String> = old.table.keys().chain(new.table.keys()).collect();
    for name in names.into_iter().filter(|name| *name != "check") {
        match (old.table.get(name), new.table.get(name)) {
            (None, Some(_)) => what.push(format!("{name} added")),
            (Some(_), None) => what.push(format!("{name} removed")),
            (old, new) if old != new => what.push(format!("{name} changed")),
            _ => {}
        }
    }
    if old.schema != new.schema && !what.iter().any(|sentence| sentence.starts_with("schema ")) {
        what.push("schema changed (the text of its file)".to_owned());
    }
    what
}

/// `check zero_quantity: that changed`, by reason.
fn checks(old: &Table, new: &Table) -> Vec<String> {
    let (old, new) = (checks_of(old), checks_of(new));
    let find = |checks: &[(String, Table)], reason: &str| {
        checks.iter().find(|(code, _)| code == reason).map(|(_, check)| check.clone())
    };
    let reasons: BTreeSet<&String> = old.iter().chain(&new).map(|(reason, _)| reason).collect();
    let mut what = Vec::new();
    for reason in reasons {
        match (find(&old, reason), find(&new, reason)) {
            (None, Some(_)) => what.push(format!("check {reason} added")),
            (Some(_), None) => what.push(format!("check {reason} removed")),
            (Some(old), Some(new)) if old != new => {
                let keys: BTreeSet<&String> = old.keys().chain(new.keys()).collect();
                let changed: Vec<&str> = keys
                    .into_iter()
                    .filter(|key| old.get(*key) != new.get(*key))
                    .map(String::as_str)
                    .collect();
                what.push(format!("check {reason}: {} changed", changed.join(", ")));
            }
            _ => {}
        }
    }
    let order = |checks: &[(String, Table)]| checks.iter().map(|(code, _)| code.clone()).collect::<Vec<_>>();
    if what.is_empty() && order(&old) != order(&new) {
        what.push("the checks stand in another order".to_owned());
    }
    what
}

/// Reason and table of each check, in order.
fn checks_of(flow: &Table) -> Vec<(String, Table)> {
    let checks = flow.get("check").and_then(Value::as_array).into_iter().flatten();
    checks
        .filter_map(|check| {
            let check = check.as_table()?;
            Some((check.get("reason")?.as_str()?.to_owned(), check.clone()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_model::{ConfigVersion, Timestamp};

    fn version(number: u32, text: &str, schema: &str) -> StoredConfig {
        StoredConfig {
            version: ConfigVersion(number),
            hash: format!("{text}{schema}"),
            text: text.to_owned(),
            files: vec![("s.json".to_owned(), schema.to_owned())],
            author: "ada".to_owned(),
            revision: "r".to_owned(),
            since: Timestamp(i64::from(number) * 1000),
        }
    }

    fn told(texts: &[(&str, &str)]) -> String {
        let versions: Vec<_> =
            texts.iter().zip(1..).map(|((text, schema), number)| version(number, text, schema)).collect();
        let change = last_change(&versions, "f").unwrap();
        format!("{}: {}", change.config, change.what.join("; "))
    }

    #[test]
    fn the_last_change_names_what_is_not_as_before() {
        let first = "[flow.f]\nid = \"a\"\n[[flow.f.check]]\nreason = \"zero\"\nthat = \"x\"\n";
        assert_eq!(told(&[(first, "")]), "1: ");
        let changed = first.replace("\"x\"", "\"y\"");
        assert_eq!(told(&[(first, ""), (&changed, "")]), "2: check zero: that changed");
        let more = format!("{first}[[flow.f.check]]\nreason = \"bulk\"\n");
        assert_eq!(told(&[(first, ""), (&more, "")]), "2: check bulk added");
        assert_eq!(told(&[(&more, ""), (first, "")]), "2: check bulk removed");
        let other_flow = format!("{first}[flow.g]\nid = \"b\"\n");
        assert_eq!(
            told(&[(first, ""), (&changed, ""), (&changed, ""), (&other_flow, "")]),
            "4: check zero: that changed"
        );
        assert_eq!(
            told(&[(first, ""), (&other_flow, "")]),
            "1: ",
            "another flow's change is none of this one"
        );
        let with_schema = first.replace("id = \"a\"", "schema = \"s.json\"");
        assert_eq!(
            told(&[(&with_schema, "a"), (&with_schema, "b")]),
            "2: schema changed (the text of its file)"
        );
    }
}
