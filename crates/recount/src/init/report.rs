//! What `recount init` prints.

use super::identity::Proposal;
use super::input::Unusable;
use super::learn::{IdChoice, Learned};
use super::warn::Warning;
use super::write::{count, one_line};
use crate::exit::Exit;
use recount_checks::Decode;
use serde_json::{Value, json};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The files written.
#[derive(Debug)]
pub struct Written {
    /// The config.
    pub config: PathBuf,
    /// The schema, where events are JSON.
    pub schema: Option<PathBuf>,
}

impl Written {
    fn shown(&self) -> Vec<String> {
        [Some(&self.config), self.schema.as_ref()]
            .into_iter()
            .flatten()
            .map(|path| path.display().to_string())
            .collect()
    }
}

/// What to type next, ready to be pasted.
fn next(learned: &Learned, config: &Path) -> Vec<String> {
    let config = quoted(&config.display().to_string());
    let piped = if learned.from == "-" { "YOUR-PRODUCER | " } else { "" };
    vec![
        format!("recount validate {config}"),
        format!("{piped}recount run {config} --dry-run"),
        format!("{piped}recount run {config}"),
    ]
}

fn quoted(text: &str) -> String {
    let is_plain = |c: char| c.is_alphanumeric() || "/._-".contains(c);
    if !text.is_empty() && text.chars().all(is_plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', "'\\''"))
    }
}

/// For people.
pub fn text(learned: &Learned, written: &Written) -> String {
    let mut out = String::new();
    let sample = &learned.input.sample;
    let lines = sample.lines.len() as u64;
    let how = if sample.is_whole {
        "all of it".to_owned()
    } else {
        format!(
            "{} from the head, {} spread over the rest",
            sample.from_heads,
            lines - sample.from_heads as u64
        )
    };
    let files = if sample.files_found > 1 {
        format!(", {} of {} files", sample.files.len(), sample.files_found)
    } else {
        String::new()
    };
    let from = if learned.from == "-" { "standard input" } else { &learned.from };
    let _ = writeln!(out, "sampled {} of {} ({how}{files})\n", count(lines, "line"), one_line(from));
    let _ = writeln!(out, "  flow  {}", learned.flow);
    for (name, expression, why) in proposals(learned) {
        let _ = writeln!(out, "  {name:<5} {}", one_line(&expression));
        if !why.is_empty() {
            let _ = writeln!(out, "        {why}");
        }
    }
    if !learned.warnings.is_empty() {
        out.push('\n');
    }
    for warning in &learned.warnings {
        let _ = writeln!(out, "warning: {}", warning.sentence);
    }
    let _ = writeln!(out, "\n{}", tried(learned));
    let _ = writeln!(out, "wrote {}", written.shown().join(" and "));
    let _ = writeln!(out, "\nnext:");
    let comments =
        ["", "   # decides every event, keeps nothing", "   # once [flow.….apply] says what is done"];
    for (command, comment) in next(learned, &written.config).iter().zip(comments) {
        let comment = comment.replace('…', &learned.flow);
        let _ = writeln!(out, "  {command}{comment}");
    }
    out
}

fn proposals(learned: &Learned) -> Vec<(&'static str, String, String)> {
    let mut found = vec![match &learned.id {
        IdChoice::CloudEvent if learned.input.decode == Decode::Text => {
            ("id", "the position".to_owned(), "lines of text have no other".to_owned())
        }
        IdChoice::CloudEvent => {
            ("id", "the CloudEvent's own".to_owned(), "and so are type and time".to_owned())
        }
        IdChoice::Field(proposal) | IdChoice::Composed(proposal) => {
            ("id", proposal.expression.clone(), with_others(proposal))
        }
        IdChoice::Position => ("id", "the position".to_owned(), "nothing differs in each event".to_owned()),
    }];
    let optional = [("type", &learned.event_type), ("time", &learned.times.proposal), ("key", &learned.key)];
    for (name, proposal) in optional {
        found.extend(proposal.as_ref().map(|found| (name, found.expression.clone(), with_others(found))));
    }
    found
}

fn with_others(proposal: &Proposal) -> String {
    match proposal.others.first() {
        Some((other, different)) => {
            format!("{}; second choice: `{other}`, {different} different", proposal.why)
        }
        None => proposal.why.clone(),
    }
}

fn tried(learned: &Learned) -> String {
    let trial = &learned.trial;
    let lines = learned.input.sample.lines.len() as u64;
    let mut sentence =
        format!("of the sampled lines, {} pass as the config stands", count(trial.passed, "line"));
    if trial.passed == lines {
        sentence = format!("all {} pass as the config stands", count(lines, "sampled line"));
    }
    for (reason, (events, first, why)) in &trial.refused {
        let place = learned.input.place(*first);
        let _ = write!(sentence, "\n  {events} don't: {reason} (first: {place}: {})", one_line(why));
    }
    sentence
}

/// For programs.
pub fn json(learned: &Learned, written: &Written) -> Value {
    let sample = &learned.input.sample;
    let proposal = |found: &Option<Proposal>| found.as_ref().map(proposal_json);
    let trial = &learned.trial;
    json!({
        "recount": 1,
        "command": "init",
        "exit_code": Exit::Well.code(),
        "from": learned.from,
        "sampled": {
            "lines": sample.lines.len(),
            "from_heads": sample.from_heads,
            "files": sample.files.len(),
            "files_found": sample.files_found,
            "whole": sample.is_whole,
            "cloud_events": learned.input.cloud_events,
        },
        "flow": learned.flow,
        "decode": if learned.input.decode == Decode::Text { "text" } else { "json" },
        "id_is": match &learned.id {
            IdChoice::CloudEvent if learned.input.decode == Decode::Text => "position",
            IdChoice::CloudEvent => "cloud_event",
            IdChoice::Field(_) => "field",
            IdChoice::Composed(_) => "composed",
            IdChoice::Position => "position",
        },
        "id": match &learned.id {
            IdChoice::Field(found) | IdChoice::Composed(found) => proposal_json(found),
            _ => Value::Null,
        },
        "type": proposal(&learned.event_type),
        "time": proposal(&learned.times.proposal),
        "key": proposal(&learned.key),
        "secret": learned.secret.iter().map(|secret| secret.path.as_str()).collect::<Vec<_>>(),
        "checks": learned.suggestions.iter().map(|one| json!({
            "reason": one.reason,
            "that": one.that,
            "otherwise": one.otherwise,
            "at_most": one.at_most,
            "figures": one.figures,
        })).collect::<Vec<_>>(),
        "warnings": learned.warnings.iter().map(warning_json).collect::<Vec<_>>(),
        "trial": {
            "passed": trial.passed,
            "refused": trial.refused.iter().map(|(reason, (events, first, sentence))| json!({
                "reason": reason,
                "events": events,
                "first": learned.input.place(*first),
                "sentence": sentence,
            })).collect::<Vec<_>>(),
            "with_time": trial.with_time,
            "ids_repeated": trial.repeated,
            "ids_reused": trial.reused,
        },
        "written": written.shown(),
        "next": next(learned, &written.config),
    })
}

fn proposal_json(found: &Proposal) -> Value {
    let others =
        found.others.iter().map(|(other, different)| json!({ "expression": other, "different": different }));
    json!({
        "expression": found.expression,
        "different": found.different,
        "why": found.why,
        "others": others.collect::<Vec<_>>(),
    })
}

fn warning_json(warning: &Warning) -> Value {
    json!({
        "code": warning.code,
        "field": warning.field,
        "events": warning.events,
        "sentence": warning.sentence,
    })
}

/// For programs, where nothing could be learned.
pub fn unusable_json(from: &str, unusable: &Unusable) -> Value {
    json!({
        "recount": 1,
        "command": "init",
        "exit_code": Exit::Usage.code(),
        "from": from,
        "warnings": [{ "code": unusable.code, "field": null, "events": 0, "sentence": unusable.sentence }],
        "written": [],
    })
}
