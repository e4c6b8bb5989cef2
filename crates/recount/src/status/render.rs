//! The answer as one screen.

use super::answer::{Change, FlowStatus, ReasonStatus, Status};
use std::fmt::Write;

/// No line is longer, unless one word is.
const COLUMNS: usize = 100;
/// At most so many reasons of a flow; the rest is counted.
const REASONS_MAX: usize = 8;
/// At most so many reasons for not working.
const WHY_MAX: usize = 4;
/// At most so many reasons with dead letters.
const LETTERS_MAX: usize = 3;

/// The screen. `command` adds what a command needs to mean the same config.
pub fn text(status: &Status, command: &dyn Fn(&str) -> String) -> String {
    let mut out = String::new();
    wrapped(&mut out, "", &status.answer);
    for note in &status.notes {
        wrapped(&mut out, "note: ", note);
    }
    if let Some(error) = &status.ledger_error {
        wrapped(&mut out, "the ledger could not be read to the end: ", error);
    }
    for flow in &status.flows {
        out.push('\n');
        flow_text(&mut out, flow, status);
    }
    let _ = writeln!(out, "\nnext:");
    for next in &status.next {
        let _ = writeln!(out, "  {}", command(next));
    }
    out
}

fn flow_text(out: &mut String, flow: &FlowStatus, status: &Status) {
    let works = match flow.working {
        Some(true) => "working",
        Some(false) => "not working",
        None => "can't say",
    };
    wrapped(out, "", &format!("flow {}: {works}; {}", flow.flow, running(flow, status)));
    wrapped(out, "  ", &format!("{}, for: {}", flow.owner, flow.purpose));
    let why = flow.not_working.iter().map(|why| ("not working: ", why));
    let unknown = flow.not_known.iter().map(|why| ("not known: ", why));
    let all: Vec<_> = why.chain(unknown).collect();
    for (word, sentence) in all.iter().take(WHY_MAX) {
        wrapped(out, "  ", &format!("{word}{sentence}"));
    }
    if all.len() > WHY_MAX {
        let _ = writeln!(out, "  and {} more: recount audit tells all", all.len() - WHY_MAX);
    }
    wrapped(out, "  ", &books(flow));
    reasons(out, flow);
    wrapped(out, "  ", &waiting(flow));
    group(out, flow);
    dead_letters(out, flow);
    // What it is not working for stands above already, in the same words.
    let topic = flow.dead_letter_topic.iter().map(|topic| &topic.sentence);
    for sentence in topic.filter(|sentence| !flow.not_working.contains(sentence)) {
        wrapped(out, "  ", sentence);
    }
    if let Some(change) = &flow.change {
        wrapped(out, "  ", &change_text(change));
    }
}

fn running(flow: &FlowStatus, status: &Status) -> String {
    let last = match &flow.last_decided_at {
        Some(at) => format!(", last decided {at}"),
        None => ", nothing decided yet".to_owned(),
    };
    match (&status.running_since, flow.running) {
        (Some(since), true) => format!("running since {since}{last}"),
        _ => format!("not running{last}"),
    }
}

/// `published 10 → decided 10 [counted] → applied 9 = 9 effects [counted]; balanced; 10% skipped …`.
fn books(flow: &FlowStatus) -> String {
    let terms = &flow.books;
    let strength = |equation: &str| {
        let found = flow.statements.iter().find(|statement| statement.equation == equation);
        found.map_or("not counted", |statement| statement.strength.as_str())
    };
    let published = match flow.published_known {
        true => terms.published.to_string(),
        false => format!("{} (as far as the ledger knows)", terms.published),
    };
    let mut text = format!(
        "published {published} → decided {} [{}] → applied {} [{}]",
        terms.decided,
        strength("E1"),
        terms.applied,
        strength("E2")
    );
    let effects = flow.statements.iter().find(|statement| statement.equation == "E2");
    if let Some((left, right)) = effects.and_then(|e| Some((e.left.as_ref()?, e.right.as_ref()?)))
        && left != right
    {
        let _ = write!(text, ", {right} in the database");
    }
    let _ = write!(text, "; {}, {}", flow.status, flow.shares);
    let other = [
        ("lost", i128::from(terms.lost)),
        ("not-an-event", i128::from(terms.not_an_event)),
        ("unrecorded", i128::from(terms.unrecorded)),
        ("unexplained", i128::from(terms.unexplained)),
    ];
    for (word, count) in other.iter().filter(|(_, count)| *count != 0) {
        let _ = write!(text, ", {count} {word}");
    }
    for reconcile in flow.statements.iter().filter(|statement| statement.equation == "E3") {
        let _ = write!(text, "; {}: {} [{}]", reconcile.name, reconcile.status, reconcile.strength);
    }
    text
}

fn reasons(out: &mut String, flow: &FlowStatus) {
    // What is exceeded is never among those that are left out.
    let mut shown: Vec<&ReasonStatus> = flow.reasons.iter().collect();
    shown.sort_by_key(|reason| reason.budget_status != "exceeded");
    shown.truncate(REASONS_MAX);
    for reason in flow.reasons.iter().filter(|reason| shown.contains(reason)) {
        let ReasonStatus { verdict, reason: code, events, share, .. } = reason;
        let _ = writeln!(out, "    {verdict:<13} {code:<22} {events:>8} {share:>11}  {}", budget(reason));
    }
    if flow.reasons.len() > REASONS_MAX {
        let more = flow.reasons.len() - REASONS_MAX;
        let _ = writeln!(out, "    and {more} more {}", if more == 1 { "reason" } else { "reasons" });
    }
}

fn budget(reason: &ReasonStatus) -> String {
    match (reason.budget_status.as_str(), reason.allowed) {
        ("any", _) => "any".to_owned(),
        // More than is allowed, and yet not exceeded: somebody accepted it.
        ("within", Some(allowed)) if reason.worst > allowed => {
            format!("accepted: {}/{allowed} at worst ({})", reason.worst, reason.budget)
        }
        (word, Some(allowed)) => {
            format!("{word}: {}/{allowed} at worst ({})", reason.worst, reason.budget)
        }
        (word, None) => format!("{word}: {} at worst ({})", reason.worst, reason.budget),
    }
}

fn waiting(flow: &FlowStatus) -> String {
    let backlog = match flow.backlog {
        Some(backlog) => backlog.to_string(),
        None => "not known".to_owned(),
    };
    let mut text = format!("backlog {backlog}");
    match (flow.oldest_open_age_ms, flow.running) {
        (Some(age), true) => {
            let _ = write!(text, "; the oldest open event is {} old", age_text(age));
        }
        (Some(age), false) => {
            let _ = write!(text, "; nothing decided for {}", age_text(age));
        }
        (None, _) => text.push_str("; nothing open"),
    }
    if let Some(held) = flow.held.filter(|held| *held > 0) {
        let _ = write!(text, "; {held} held behind their key");
    }
    if flow.keys_held > 0 {
        let _ = write!(text, "; {} keys stay held until the flow is resumed", flow.keys_held);
    }
    if let Some(why) = &flow.paused {
        let _ = write!(text, "; paused: {why}");
    }
    text
}

/// How the group of an observed consumer stands, and what was moved last.
fn group(out: &mut String, flow: &FlowStatus) {
    let Some(group) = &flow.group else { return };
    // What it is not working for stands above already, in the same words.
    let sentence = group["sentence"].as_str().unwrap_or_default();
    if !flow.not_working.iter().any(|why| why == sentence) {
        wrapped(out, "  ", sentence);
    }
    if let Some(moved) = group["moves"].as_array().and_then(|moves| moves.last()) {
        let text = |field: &str| moved[field].as_str().unwrap_or_default();
        wrapped(out, "  ", &format!("{}: {}", text("at"), text("sentence")));
    }
}

/// `850 ms`, `12 s`, `3 min`, `5 h`, `2 d`: the largest unit that it is at least two of.
fn age_text(ms: u64) -> String {
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "min"), (1_000, "s"), (1, "ms")];
    let unit = units.iter().find(|(length, _)| ms >= 2 * length);
    unit.map_or_else(|| format!("{ms} ms"), |(length, name)| format!("{} {name}", ms / length))
}

fn dead_letters(out: &mut String, flow: &FlowStatus) {
    for letter in flow.dead_letters.iter().take(LETTERS_MAX) {
        let text = format!(
            "{} dead {} {}, the newest {}: recount dead-letters show {}",
            letter.events,
            if letter.events == 1 { "letter" } else { "letters" },
            letter.reason,
            letter.newest_at,
            letter.newest
        );
        wrapped(out, "  ", &text);
    }
    if flow.dead_letters.len() > LETTERS_MAX {
        let more = flow.dead_letters.len() - LETTERS_MAX;
        let reasons = if more == 1 { "reason" } else { "reasons" };
        let _ = writeln!(out, "  and {more} more {reasons}: recount dead-letters list --flow {}", flow.flow);
    }
}

fn change_text(change: &Change) -> String {
    let Change { config, author, since, what, .. } = change;
    match what.as_slice() {
        [] => format!("unchanged since config {config}, by {author}, {since}"),
        what => format!("last change: config {config}, by {author}, {since}: {}", what.join("; ")),
    }
}

/// Writes a sentence, broken between words where it would be too wide; further lines stand further in.
fn wrapped(out: &mut String, indent: &str, sentence: &str) {
    let mut line = indent.to_owned();
    let mut is_empty = true;
    for word in sentence.split(' ') {
        if !is_empty && line.chars().count() + 1 + word.chars().count() > COLUMNS {
            let _ = writeln!(out, "{line}");
            line = format!("{}    ", if indent.trim().is_empty() { indent } else { "" });
            is_empty = true;
        }
        if !is_empty {
            line.push(' ');
        }
        line.push_str(word);
        is_empty = false;
    }
    let _ = writeln!(out, "{line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_sentences_break_between_words_and_ages_read_well() {
        let mut out = String::new();
        wrapped(&mut out, "  ", &"word ".repeat(60));
        assert!(out.lines().all(|line| line.chars().count() <= COLUMNS), "{out}");
        assert_eq!(out.matches("word").count(), 60);
        let told = [0, 1999, 2000, 119_999, 120_000, 7_200_000, 172_800_000].map(age_text);
        assert_eq!(told, ["0 ms", "1999 ms", "2 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
