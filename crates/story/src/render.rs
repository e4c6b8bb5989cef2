//! A story for people.

use crate::sentence::plural;
use crate::story::{DecisionEntry, Entry, Story};
use recount_model::Fate;
use std::fmt::Write;

/// Details stand below their sentence, as far in.
const INDENT: &str = "    ";

/// Summary first, then a line an entry with its details below.
pub fn text(story: &Story) -> String {
    let mut out = format!("{}\n", story.summary);
    if !story.entries.is_empty() {
        out.push('\n');
    }
    for entry in &story.entries {
        match entry {
            Entry::Decision(entry) => decision_text(&mut out, entry),
            Entry::Applied { at, until, count, first, last, incarnation } => {
                let events = plural(*count, "event");
                let of = incarnation.as_ref().map(|of| format!(", {of}")).unwrap_or_default();
                let _ = match count {
                    1 => writeln!(out, "{at}  {events} applied, at {first}{of}"),
                    _ => writeln!(out, "{at}  {events} applied until {until}, from {first} to {last}{of}"),
                };
            }
            Entry::Config { at, sentence, .. } | Entry::Journal { at, sentence, .. } => {
                let _ = writeln!(out, "{at}  {sentence}");
            }
        }
    }
    if story.more > 0 {
        let _ = writeln!(out, "and {} more: narrow it with --from and --to", plural(story.more, "decision"));
    }
    out
}

fn decision_text(out: &mut String, entry: &DecisionEntry) {
    let (header, decision) = (&entry.stored.header, &entry.stored.decision);
    let _ = writeln!(out, "{}  {}", header.decided_at, entry.sentence);
    let mut details: Vec<String> = Vec::new();
    details.extend(decision.event_time.map(|at| format!("happened {at}")));
    details.extend(entry.incarnation.clone());
    if !decision.flags.is_empty() {
        let flags: Vec<&str> = decision.flags.iter().map(|flag| flag.as_str()).collect();
        details.push(format!("flags {}", flags.join(", ")));
    }
    if decision.attempt > 1 {
        details.push(format!("at attempt {}", decision.attempt));
    }
    if !details.is_empty() {
        let _ = writeln!(out, "{INDENT}{}", details.join("; "));
    }
    for attempt in &entry.attempts {
        let _ = writeln!(out, "{INDENT}attempt {} at {}: {}", attempt.number, attempt.at, attempt.found);
    }
    if let Some(evidence) = &decision.evidence {
        let _ = writeln!(out, "{INDENT}found {evidence}");
    }
    for sentence in entry.replaced.iter().chain(&entry.replaced_by) {
        let _ = writeln!(out, "{INDENT}{sentence}");
    }
    if entry.stored.current && matches!(decision.fate, Fate::DeadLettered(_)) {
        let position = header.at.position(decision.offset);
        let _ = writeln!(out, "{INDENT}next: recount dead-letters show {position}");
    }
}
