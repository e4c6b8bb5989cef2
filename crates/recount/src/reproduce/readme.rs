//! What lies in the folder, for whoever opens it.

use super::Written;
use super::found::Found;
use crate::config::FlowConfig;
use recount_ledger::StoredDecision;
use std::fmt::Write;

/// The README.
pub fn text(found: &Found, flow: &FlowConfig, written: &Written) -> String {
    let stored = found.decided();
    let position = stored.header.at.position(stored.decision.offset);
    let mut out = format!("# {position}, decided again\n\n## What was decided\n\n");
    for decided in &found.history {
        decision(&mut out, flow, decided);
    }
    let config = &found.config;
    let _ = writeln!(
        out,
        "\nConfig {}, which decided it, is from {}, by {}, revision {}.",
        config.version.0, config.since, config.author, config.revision
    );
    let _ = writeln!(out, "\n## Decide it again\n\n    {}\n", written.command);
    out.push_str(if written.is_dry {
        "It prints the books of this one event, and nothing is kept, neither here nor in the database: it can be run again.\n"
    } else {
        "It prints the books of this one event; the decision is then in the ledger of this folder. Run a second time it\n\
         says that nothing is new: to decide it once more, let `recount reproduce` write another folder.\n"
    });
    out.push_str(
        "`meta.partition`, `meta.offset` and `meta.taken_at` are those of the new run.\n\n## What was changed in the config\n\n",
    );
    for change in &written.changes {
        let _ = writeln!(out, "- {change}");
    }
    out.push_str("\n## To be known\n\n- The event is here as it was delivered, secret fields included: keep this folder to yourself.\n");
    for note in &written.notes {
        let _ = writeln!(out, "- {note}");
    }
    out
}

fn decision(out: &mut String, flow: &FlowConfig, stored: &StoredDecision) {
    let decision = &stored.decision;
    let _ = write!(out, "- {}: {}", stored.header.decided_at, decision.fate);
    if let Some(reason) = decision.fate.reason().filter(|reason| !reason.sentence.is_empty()) {
        let _ = write!(out, ": {}", reason.sentence);
    }
    let _ = writeln!(
        out,
        "\n  - attempt {}, config {}, {}",
        decision.attempt,
        stored.header.config.0,
        if stored.current { "current" } else { "corrected since" }
    );
    let shown = |secret: bool, text: &Option<Box<str>>| match text {
        Some(_) if secret => "(secret)".to_owned(),
        Some(text) => text.to_string(),
        None => "none".to_owned(),
    };
    let id = shown(flow.spec.id_is_secret, &decision.event_id);
    let key = shown(flow.spec.key_is_secret, &decision.key);
    let _ = writeln!(out, "  - id {id}, key {key}");
    if !decision.flags.is_empty() {
        let flags: Vec<&str> = decision.flags.iter().map(|flag| flag.as_str()).collect();
        let _ = writeln!(out, "  - flags {}", flags.join(", "));
    }
    if let Some(evidence) = &decision.evidence {
        let _ = writeln!(out, "  - found `{evidence}`");
    }
}

/// The schema that a flow of a config names.
pub fn schema_of(config: &str, flow: &str) -> Option<String> {
    let config: toml::Table = config.parse().ok()?;
    Some(config.get("flow")?.get(flow)?.get("schema")?.as_str()?.to_owned())
}
