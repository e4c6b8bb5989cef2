//! The config of then, changed so that it runs alone. Comments and order stay as they were written.

use super::Effects;
use crate::config::FlowMode;
use std::path::Path;
use toml_edit::{Array, DocumentMut, InlineTable, Item, TableLike, Value, value};

/// What the changed config points at.
#[derive(Debug, Clone, Copy)]
pub struct Changes<'a> {
    /// The only flow that stays.
    pub flow: &'a str,
    /// Who owned its loop.
    pub mode: FlowMode,
    /// What its source reads: a file in the folder, or `-`.
    pub source: &'a str,
    /// The schema in the folder, where it has one.
    pub schema: Option<&'a str>,
    /// The database that it applies to.
    pub database: Option<&'a Effects>,
    /// Where the config lay: files of secrets are found from there.
    pub original_folder: &'a Path,
}

/// The changed text and a sentence for each change; `None` where the text is not TOML or lacks the flow.
pub fn changed(text: &str, changes: Changes<'_>) -> Option<(String, Vec<String>)> {
    let mut document: DocumentMut = text.parse().ok()?;
    let mut told = Vec::new();
    document.as_table().get("flow")?.as_table_like()?.get(changes.flow)?;
    set(document.as_table_mut(), "ledger", "path", value("ledger"));
    told.push("[ledger] path: a ledger of its own in this folder".to_owned());
    set(document.as_table_mut(), "server", "listen", value("127.0.0.1:0"));
    if let Some(server) = document["server"].as_table_like_mut() {
        server.remove("token");
        server.remove("hmac");
    }
    told.push("[server]: any free port of this machine, and no token".to_owned());
    for table in ["reconcile", "alert", "broker"] {
        if document.remove(table).is_some() {
            told.push(format!("[{table}]: left out"));
        }
    }
    if keep_only(&mut document["flow"], changes.flow) {
        told.push("other flows: left out".to_owned());
    }
    databases(&mut document, changes.database, &mut told);
    let flow = document["flow"][changes.flow].as_table_like_mut()?;
    flow_table(flow, &changes, &mut told);
    Some((document.to_string(), told))
}

/// Sets a key of a table that may not be there.
fn set(document: &mut toml_edit::Table, table: &str, key: &str, to: Item) {
    if document.get(table).is_none_or(|item| !item.is_table_like()) {
        document.insert(table, Item::Table(toml_edit::Table::new()));
    }
    if let Some(table) = document.get_mut(table).and_then(Item::as_table_like_mut) {
        table.insert(key, to);
    }
}

/// Leaves only one entry of a table; whether there were others.
fn keep_only(item: &mut Item, name: &str) -> bool {
    let Some(table) = item.as_table_like_mut() else { return false };
    let others: Vec<String> = table.iter().map(|(key, _)| key.to_owned()).filter(|key| key != name).collect();
    for other in &others {
        table.remove(other);
    }
    !others.is_empty()
}

fn databases(document: &mut DocumentMut, used: Option<&Effects>, told: &mut Vec<String>) {
    let (name, url, sentence) = match used {
        None => {
            document.remove("database");
            return;
        }
        Some(Effects::Copied { name, file }) => (
            name,
            format!("sqlite:{file}"),
            "a copy, with the schema and the rows AS OF NOW, not as of then; without Recount's own rows",
        ),
        Some(Effects::Tried { name, url }) => {
            (name, url.clone(), "that of today; the command is a dry run, which changes nothing there")
        }
    };
    if document.get("database").is_some() {
        keep_only(&mut document["database"], name);
        if let Some(table) = document["database"][name].as_table_like_mut() {
            table.insert("url", value(url));
        }
    }
    told.push(format!("[database.{name}] url: {sentence}"));
}

fn flow_table(flow: &mut dyn TableLike, changes: &Changes<'_>, told: &mut Vec<String>) {
    let mut source = InlineTable::new();
    source.insert("file", changes.source.into());
    flow.insert("source", value(source));
    told.push("source: the event".to_owned());
    if let Some(schema) = changes.schema {
        flow.insert("schema", value(schema));
        told.push("schema: the text that was in force, in this folder".to_owned());
    }
    flow.insert("breaker", value("alert"));
    flow.remove("expect");
    if flow.remove("dead_letters").is_some() {
        told.push("dead_letters: left out, nothing is sent anywhere".to_owned());
    }
    told.push(
        "breaker and expect: one event alone must neither pause the flow nor count as silence".to_owned(),
    );
    if changes.mode == FlowMode::Observe {
        flow.insert("mode", value("run"));
        flow.remove("apply");
        told.push(
            "mode: the checks decide it again; what the observed consumer applied is not looked at"
                .to_owned(),
        );
        return;
    }
    let Some(apply) = flow.get_mut("apply") else { return };
    let mut own_effects = false;
    each_table(apply, &mut |apply| {
        own_effects |= apply.get("effects").is_some_and(|effects| effects.is_table_like());
        if own_effects {
            apply.remove("effects");
        }
        if let Some(file) =
            apply.get_mut("token").and_then(Item::as_table_like_mut).and_then(|t| t.get_mut("file"))
            && let Some(path) = file.as_str()
        {
            *file = value(changes.original_folder.join(path).display().to_string());
        }
    });
    if own_effects {
        told.push("effects: counted by Recount, since yours hold more than this event".to_owned());
    }
}

/// A table, or each of an array of tables.
fn each_table(item: &mut Item, visit: &mut dyn FnMut(&mut dyn TableLike)) {
    match item {
        Item::ArrayOfTables(tables) => tables.iter_mut().for_each(|table| visit(table)),
        Item::Value(Value::Array(array)) => inline_tables(array, visit),
        other => {
            if let Some(table) = other.as_table_like_mut() {
                visit(table);
            }
        }
    }
}

fn inline_tables(array: &mut Array, visit: &mut dyn FnMut(&mut dyn TableLike)) {
    for table in array.iter_mut().filter_map(Value::as_inline_table_mut) {
        visit(table);
    }
}
