//! The config as text. Prose begins with `# `; a line that begins with `#` and no blank is config that is
//! off: it is valid as soon as the sign is taken away.

use super::identity::{Proposal, expression};
use super::learn::{IdChoice, Learned};
use super::profile::Kind;
use super::suggest::Suggestion;
use recount_checks::Decode;
use std::fmt::Write as _;

/// Prose is broken before here.
const WIDTH: usize = 110;
/// Parameters of the sample statement.
const PARAMETERS_MAX: usize = 6;
/// Warnings that the file repeats.
const WARNINGS_MAX: usize = 30;
/// Of one value or name in prose.
const TOLD_CHARS_MAX: usize = 80;

/// `1,000 different values`.
pub fn count(number: u64, noun: &str) -> String {
    format!("{} {noun}{}", grouped(number), if number == 1 { "" } else { "s" })
}

/// `1,000`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut grouped = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Text from outside as it may stand in a comment or a message: one line, not too long.
pub fn one_line(text: &str) -> String {
    let mut out = String::new();
    for c in text.chars().take(TOLD_CHARS_MAX) {
        match c {
            c if c.is_control() => drop(write!(out, "\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    if text.chars().nth(TOLD_CHARS_MAX).is_some() {
        out.push('…');
    }
    out
}

/// A TOML basic string.
pub fn toml_text(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            c if c.is_control() => drop(write!(out, "\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The file while it is written.
#[derive(Default)]
struct Text(String);

impl Text {
    fn line(&mut self, line: &str) {
        self.0.push_str(line);
        self.0.push('\n');
    }

    /// Sentences as comment lines.
    fn prose(&mut self, sentences: &str) {
        let safe: String = sentences
            .chars()
            .flat_map(|c| {
                if c.is_control() { format!("\\u{{{:x}}}", u32::from(c)).chars().collect() } else { vec![c] }
            })
            .collect();
        let mut line = String::from("#");
        for word in safe.split(' ') {
            if line.len() > 1 && line.chars().count() + 1 + word.chars().count() > WIDTH {
                self.line(&line);
                line = String::from("#");
            }
            line.push(' ');
            line.push_str(word);
        }
        self.line(&line);
    }

    fn blank(&mut self) {
        self.0.push('\n');
    }
}

/// The config; `schema` is the name of the schema's file.
pub fn config(learned: &Learned, schema: Option<&str>) -> String {
    let mut text = Text::default();
    head(&mut text, learned);
    let flow = &learned.flow;
    text.blank();
    text.line(&format!("[flow.{flow}]"));
    text.line("owner   = \"(your team)\"                    # who answers for it");
    text.line("purpose = \"(what it is for, in one line)\"");
    text.line(&format!("source  = {{ file = {} }}", toml_text(&learned.from)));
    text.line("mode    = \"run\"                            # or \"observe\": read beside a consumer that stays as it is");
    let decode = if learned.input.decode == Decode::Text { "text" } else { "json" };
    text.line(&format!("decode  = \"{decode}\""));
    id(&mut text, learned);
    what_and_when(&mut text, learned);
    if let Some(schema) = schema {
        text.blank();
        text.prose("What doesn't fit is dead-lettered, reason schema_mismatch. It allows all that was sampled: tighten it.");
        text.line(&format!("schema  = {}", toml_text(schema)));
    }
    secret(&mut text, learned);
    at_most(&mut text, learned);
    checks(&mut text, flow, &learned.suggestions);
    apply(&mut text, learned);
    text.0
}

fn head(text: &mut Text, learned: &Learned) {
    let events = learned.input.sample.lines.len() as u64;
    let how = if learned.input.sample.is_whole {
        "all of them"
    } else {
        "its head, and blocks spread over the rest"
    };
    text.prose(&format!(
        "Written by recount init from {} of {} ({how}).",
        count(events, "line"),
        one_line(&learned.from)
    ));
    text.prose(
        "Lines that begin with # and no blank are config that is off: take the # away where you agree.",
    );
    text.prose(
        "Every key: docs/config-reference.md. Look at it with: recount validate, then recount run --dry-run.",
    );
    if !learned.warnings.is_empty() {
        text.line("#");
        text.prose("What was found on the way:");
        for warning in learned.warnings.iter().take(WARNINGS_MAX) {
            text.prose(&format!("- {}: {}", warning.code, warning.sentence));
        }
        let more = learned.warnings.len().saturating_sub(WARNINGS_MAX);
        if more > 0 {
            text.prose(&format!("- and {}", count(more as u64, "more warning")));
        }
    }
    text.blank();
    text.line("[ledger]");
    text.line("path = \"recount-data\"                      # the durable book of what was decided about each event, and why");
}

fn id(text: &mut Text, learned: &Learned) {
    text.blank();
    match &learned.id {
        IdChoice::CloudEvent if learned.input.decode == Decode::Text => {
            text.prose("Lines of text have no id but their position.");
            return;
        }
        IdChoice::CloudEvent => {
            text.prose("CloudEvents bring their own id, type and time.");
            return;
        }
        IdChoice::Field(found) | IdChoice::Composed(found) => text.prose(&figures(found)),
        IdChoice::Position => {
            text.prose("Nothing differs in each event, so this is where it stands: an event published twice is applied twice.");
        }
    }
    line_of(text, "id", learned.id.expression().unwrap_or_default(), "");
}

fn line_of(text: &mut Text, name: &str, expression: &str, off: &str) {
    text.line(&format!("{off}{name:<7} = {}", toml_text(expression)));
}

fn figures(found: &Proposal) -> String {
    let others: Vec<String> = found
        .others
        .iter()
        .map(|(other, different)| format!("`{other}`, {}", count(*different, "different value")))
        .collect();
    match others.as_slice() {
        [] => format!("{}.", found.why),
        [only] => format!("{}; second choice: {only}.", found.why),
        several => format!("{}; other choices: {}.", found.why, several.join("; ")),
    }
}

fn proposal(text: &mut Text, name: &str, found: Option<&Proposal>, what: &str) {
    text.blank();
    match found {
        Some(found) => {
            text.prose(&figures(found));
            line_of(text, name, &found.expression, "");
        }
        None => {
            text.prose(&format!("Nothing in the sample looks like one: {what}."));
            line_of(text, name, &format!("event.{name}"), "# for example: ");
        }
    }
}

/// Type, time and key; CloudEvents bring the first two, and of text there is nothing to name.
fn what_and_when(text: &mut Text, learned: &Learned) {
    if learned.input.decode == Decode::Text {
        return;
    }
    if learned.id != IdChoice::CloudEvent {
        let what = "what kind of event it is; `ignore` and `when` use it as meta.type";
        proposal(text, "type", learned.event_type.as_ref(), what);
        time(text, learned);
    }
    let what = "what must stay in order: events of one key wait behind one that is retried, and `recount story KEY` tells it";
    proposal(text, "key", learned.key.as_ref(), what);
}

fn time(text: &mut Text, learned: &Learned) {
    match (&learned.times.proposal, learned.times.without_zone.first()) {
        (None, Some((field, in_utc))) => {
            text.blank();
            text.prose(&format!("`{field}` has no zone. If it is UTC:"));
            line_of(text, "time", in_utc, "#");
        }
        (found, _) => {
            proposal(text, "time", found.as_ref(), "when it happened, as RFC 3339 text or Unix milliseconds")
        }
    }
}

fn secret(text: &mut Text, learned: &Learned) {
    text.blank();
    text.prose("Never in logs, metrics, pages, evidence or alerts.");
    if learned.secret.is_empty() {
        text.line("# for example: secret = [\"event.customer_id\"]");
        return;
    }
    text.line("secret  = [");
    for secret in &learned.secret {
        text.line(&format!("    {},  # {}", toml_text(&secret.path), one_line(&secret.why)));
    }
    text.line("]");
}

/// Budgets of built-in reasons that the sample itself would exceed.
fn at_most(text: &mut Text, learned: &Learned) {
    let trial = &learned.trial;
    let events = learned.input.sample.lines.len() as u64;
    let seen = [
        ("duplicate", trial.repeated),
        ("id_reused", trial.reused),
        ("decode_failed", trial.refused.get("decode_failed").map_or(0, |(n, ..)| *n)),
        ("no_id", trial.refused.get("no_id").map_or(0, |(n, ..)| *n)),
    ];
    let over: Vec<(&str, u64)> = seen.into_iter().filter(|(_, n)| n * 100 > events).collect();
    if over.is_empty() {
        return;
    }
    text.blank();
    let told: Vec<String> = over.iter().map(|(reason, n)| format!("{reason} {n} of {events}")).collect();
    text.prose(&format!(
        "More of these were sampled than built-in reasons are allowed, 1% of 1000: {}. First ask the producer why.",
        told.join(", ")
    ));
    let budgets: Vec<String> = over
        .iter()
        .map(|(reason, n)| format!("{reason} = \"{}% of 1000\"", (n * 200).div_ceil(events).min(100)))
        .collect();
    text.line(&format!("#at_most = {{ {} }}", budgets.join(", ")));
}

fn checks(text: &mut Text, flow: &str, suggestions: &[Suggestion]) {
    text.blank();
    text.prose("Checks: what must hold, and what becomes of an event that it doesn't hold for: skip, dead-letter, or flag \
                (it passes and is counted). `at_most` is how many may be so before it is no exception any more.");
    if suggestions.is_empty() {
        text.prose("Nothing in the figures of the sample asks for one.");
    }
    for suggestion in suggestions {
        text.blank();
        text.prose(&one_sentence(&suggestion.figures));
        text.line(&format!("#[[flow.{flow}.check]]"));
        text.line(&format!("#reason    = {}", toml_text(&suggestion.reason)));
        text.line(&format!("#that      = {}", toml_text(&suggestion.that)));
        text.line(&format!("#otherwise = \"{}\"", suggestion.otherwise));
        text.line(&format!("#at_most   = \"{}\"", suggestion.at_most));
        text.line("#because   = \"(say why this is right)\"");
    }
}

fn one_sentence(text: &str) -> String {
    text.chars().take(400).collect()
}

/// The effect: what is done is nothing that a sample shows.
fn apply(text: &mut Text, learned: &Learned) {
    let flow = &learned.flow;
    let table = flow.replace('-', "_");
    let parameters = parameters(learned);
    let names: Vec<&str> = parameters.iter().map(|(name, _)| name.as_str()).collect();
    let with: Vec<String> =
        parameters.iter().map(|(name, path)| format!("{name} = {}", toml_text(path))).collect();
    let bound: Vec<String> = names.iter().map(|name| format!(":{name}")).collect();
    text.blank();
    text.prose(
        "What is done with an event that passes. Until this is filled in, nothing is done, and only a dry run is \
         possible: recount run says so and ends. Statements are tried by recount validate \
         and recount run --dry-run on a copy of the database.",
    );
    text.prose("A handler of your own over HTTP instead: http = \"http://localhost:8000/events\". A consumer that stays as it \
                is: mode = \"observe\", or let it report its verdicts to /v1/decisions.");
    for line in [
        "#[database.main]".to_owned(),
        "#url = \"sqlite:main.db\"".to_owned(),
        "#".to_owned(),
        format!("#[flow.{flow}.apply]"),
        "#database = \"main\"".to_owned(),
        format!("#sql      = {}", toml_text(&format!("INSERT INTO {table} ({}) VALUES ({})", names.join(", "), bound.join(", ")))),
        format!("#with     = {{ {} }}", with.join(", ")),
        "#rows     = 1                               # anything else is not applied, and leaves nothing behind".to_owned(),
        "#".to_owned(),
        format!("#[[flow.{flow}.apply.otherwise]]           # a statement that changes another number of rows"),
        "#verdict  = \"dead-letter\"".to_owned(),
        "#reason   = \"not_taken\"".to_owned(),
        "#because  = \"(say what it means)\"".to_owned(),
    ] {
        text.line(&line);
    }
}

/// Names and expressions that a statement could bind: the id, and fields that are always there.
fn parameters(learned: &Learned) -> Vec<(String, String)> {
    let mut found = vec![("id".to_owned(), "meta.id".to_owned())];
    let scalar = [Kind::String, Kind::Integer, Kind::Number, Kind::Boolean];
    for field in learned.profile.fields() {
        let name = field.name().to_ascii_lowercase();
        let is_plain = name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
            && name.starts_with(|c: char| c.is_ascii_alphabetic())
            && !SQL_WORDS.contains(&name.as_str());
        let fits = is_plain
            && !learned.is_secret(&field.path)
            && field.is_always(learned.profile.events)
            && field.node.is_only(&scalar);
        let path = expression(&field.path).filter(|_| fits && found.len() < PARAMETERS_MAX);
        if let Some(path) = path
            && found.iter().all(|(known, _)| *known != name)
            && learned.event_type.as_ref().is_none_or(|found| found.expression != path)
        {
            found.push((name, path));
        }
    }
    found
}

/// Names that a column can't have without quotes.
const SQL_WORDS: &[&str] = &[
    "all",
    "and",
    "as",
    "by",
    "case",
    "check",
    "column",
    "create",
    "default",
    "delete",
    "distinct",
    "drop",
    "else",
    "exists",
    "from",
    "group",
    "having",
    "in",
    "index",
    "insert",
    "into",
    "is",
    "join",
    "limit",
    "not",
    "null",
    "on",
    "or",
    "order",
    "primary",
    "references",
    "select",
    "set",
    "table",
    "then",
    "to",
    "union",
    "unique",
    "update",
    "using",
    "values",
    "when",
    "where",
    "add",
    "alter",
    "between",
    "collate",
    "commit",
    "constraint",
    "cross",
    "end",
    "escape",
    "foreign",
    "if",
    "inner",
    "isnull",
    "left",
    "natural",
    "notnull",
    "outer",
    "right",
    "transaction",
    "user",
    "desc",
    "asc",
    "key",
    "like",
    "group",
    "with",
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_from_outside_stays_within_its_line_and_its_string() {
        assert_eq!(one_line("a\nb\u{7f}"), "a\\u{a}b\\u{7f}");
        assert_eq!(one_line(&"x".repeat(200)).chars().count(), 81);
        for text in ["plain", "a\"b\\c", "line\nbreak\u{0}\u{7f}\u{85}", "ü 🦀"] {
            let parsed: toml::Table = format!("x = {}", toml_text(text)).parse().unwrap();
            assert_eq!(parsed["x"].as_str(), Some(text));
        }
        let mut text = Text::default();
        text.prose(&format!("bad \u{1} {}", "word ".repeat(60)));
        assert!(
            text.0.lines().all(|line| line.starts_with("# ") && line.chars().count() <= WIDTH + 1),
            "{}",
            text.0
        );
        assert_eq!(count(1_234_567, "event"), "1,234,567 events");
        assert_eq!(count(1, "event"), "1 event");
    }
}
