//! Sentences about single records.

use recount_ledger::{JournalEntry, JournalKind, StoredConfig, StoredDecision};
use recount_model::{Decision, Fate, Origin};
use serde_json::Value;
use std::collections::BTreeMap;

/// `1 event`, `2 events`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// `was applied`, `was dead-lettered, insufficient_stock: less on hand than asked for`.
pub(crate) fn fate(fate: &Fate) -> String {
    match fate.reason() {
        None => format!("was {}", fate.word()),
        Some(reason) if reason.sentence.is_empty() => format!("was {}, {}", fate.word(), reason.code),
        Some(reason) => format!("was {}, {}: {}", fate.word(), reason.code, reason.sentence),
    }
}

/// `applied`, `skipped zero_quantity`; of an observed consumer's event what was to become of it.
pub(crate) fn became(decision: &Decision) -> String {
    match decision.origin {
        Origin::Ran | Origin::Reported => decision.fate.to_string(),
        Origin::Expected => format!("to be {}", decision.fate),
    }
}

/// One decision as a sentence, with its position.
pub(crate) fn decision(stored: &StoredDecision, asked: &str) -> String {
    let decision = &stored.decision;
    let id = match decision.event_id.as_deref() {
        Some(id) => format!("event {id}"),
        None => "an event without an id".to_owned(),
    };
    let key = match decision.key.as_deref() {
        Some(key) if key != asked => format!(" (key {key})"),
        _ => String::new(),
    };
    let position = stored.header.at.position(decision.offset);
    let (became, by_whom) = match decision.origin {
        Origin::Ran => (fate(&decision.fate), ""),
        Origin::Reported => (fate(&decision.fate), ", as its consumer reported"),
        Origin::Expected => (
            fate(&decision.fate).replacen("was", "ought to have been", 1),
            "; its consumer is only observed, and recount audit says what it left",
        ),
    };
    format!("{id}{key} at {position} {became}{by_whom}")
}

/// Which config decides from here on.
pub(crate) fn config(version: u32, configs: &BTreeMap<u32, &StoredConfig>) -> String {
    match configs.get(&version) {
        Some(config) => format!(
            "config {version} decides from here: by {}, revision {}, since {}",
            config.author, config.revision, config.since
        ),
        None => format!("config {version} decides from here; its text is not in the ledger"),
    }
}

/// What an operator or the flow itself did.
pub(crate) fn journal(entry: &JournalEntry) -> String {
    let who = match entry.kind {
        JournalKind::Operator => match text_of(&entry.detail, &["by", "author", "operator"]) {
            Some(name) => format!("operator {name}"),
            None => "an operator".to_owned(),
        },
        JournalKind::Flow => "the flow itself".to_owned(),
        JournalKind::Config => "the config".to_owned(),
        JournalKind::Audit => "the audit".to_owned(),
        JournalKind::Alert => "an alert".to_owned(),
    };
    let flow = entry.flow.as_ref().map(|flow| format!(" {flow}")).unwrap_or_default();
    let why = text_of(&entry.detail, &["because", "sentence", "cause", "reason"]);
    format!("{who}:{flow} {}{}", entry.what, why.map(|text| format!(", {text}")).unwrap_or_default())
}

fn text_of<'a>(detail: &'a Value, names: &[&str]) -> Option<&'a str> {
    names.iter().find_map(|name| detail.get(name)?.as_str()).filter(|text| !text.is_empty())
}
