//! Faults of a config: where, what is wrong, what to write instead; all of them at once.

use serde::Serialize;
use std::fmt::{self, Write as _};
use std::ops::Range;

/// One fault (or warning) of a config file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Fault {
    /// The file, as it was named.
    pub file: String,
    /// From 1; 0 where the fault is of the file as a whole.
    pub line: usize,
    /// In characters, from 1.
    pub column: usize,
    /// The dotted key that it is about: `flow.reserve-stock.check[1].otherwise`.
    pub key: String,
    /// What is wrong; lower case, no full stop.
    pub message: String,
    /// What to write instead, where that can be said.
    pub write_instead: Option<String>,
    /// The line as written, with what may be secret left out.
    #[serde(skip)]
    quote: String,
    /// How many characters the caret underlines.
    #[serde(skip)]
    underline: usize,
}

/// Everything that is wrong with a config, sorted by line. Never empty.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, thiserror::Error)]
pub struct Faults {
    /// What keeps it from being used.
    pub faults: Vec<Fault>,
    /// What doesn't.
    pub warnings: Vec<Fault>,
}

impl Fault {
    /// A fault of the file as a whole: it can't be read.
    pub(super) fn of_file(file: &str, message: String, write_instead: Option<String>) -> Self {
        Self {
            file: file.to_owned(),
            line: 0,
            column: 0,
            key: String::new(),
            message,
            write_instead,
            quote: String::new(),
            underline: 0,
        }
    }

    /// Writes it as `rustc` does: what, where, the line, a caret, help.
    pub fn render(&self, level: &str) -> String {
        let mut out = format!("{level}: {}\n", self.message);
        if self.line == 0 {
            let _ = writeln!(out, " --> {}", self.file);
        } else {
            let margin = " ".repeat(self.line.to_string().len());
            let _ = writeln!(out, "{margin}--> {}:{}:{}", self.file, self.line, self.column);
            let _ = writeln!(out, "{margin} |");
            let _ = writeln!(out, "{} | {}", self.line, self.quote);
            let indent: String = self
                .quote
                .chars()
                .take(self.column.saturating_sub(1))
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect();
            let _ = writeln!(out, "{margin} | {indent}{}", "^".repeat(self.underline.max(1)));
        }
        if let Some(help) = &self.write_instead {
            let margin = " ".repeat(self.line.max(1).to_string().len());
            for (index, line) in help.lines().enumerate() {
                let lead = if index == 0 { "= help: " } else { "        " };
                let _ = writeln!(out, "{margin} {lead}{line}");
            }
        }
        out
    }
}

/// So many are shown to people; JSON has them all.
const FAULTS_SHOWN_MAX: usize = 50;

impl Faults {
    /// For people, as [`Display`](fmt::Display) writes it.
    pub fn render(&self) -> String {
        self.to_string()
    }

    /// One JSON object: `version`, `valid`, `faults`, `warnings`.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!({
            "recount": 1, "command": "validate", "valid": false, "faults": self.faults, "warnings": self.warnings,
        })
    }
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for warning in &self.warnings {
            writeln!(f, "{}", warning.render("warning"))?;
        }
        for fault in self.faults.iter().take(FAULTS_SHOWN_MAX) {
            writeln!(f, "{}", fault.render("error"))?;
        }
        let left_out = self.faults.len().saturating_sub(FAULTS_SHOWN_MAX);
        if left_out > 0 {
            writeln!(f, "… and {left_out} more: many of them may come from the first\n")?;
        }
        let file = self.faults.first().map_or("", |fault| fault.file.as_str());
        write!(f, "{} in {file}; nothing was started", count(self.faults.len(), "fault"))
    }
}

/// `1 fault`, `2 faults`.
pub(crate) fn count(number: usize, noun: &str) -> String {
    format!("{number} {noun}{}", if number == 1 { "" } else { "s" })
}

/// Collects faults while a text is read; knows where its lines begin and what of it may be secret.
#[derive(Debug)]
pub(super) struct Sink<'t> {
    file: &'t str,
    text: &'t str,
    faults: Vec<(usize, Fault)>,
    warnings: Vec<(usize, Fault)>,
    masks: Vec<Range<usize>>,
}

/// A place in the text and its dotted key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// Bytes of the text.
    pub span: Range<usize>,
    /// The dotted key.
    pub key: String,
}

impl<'t> Sink<'t> {
    pub(super) fn new(file: &'t str, text: &'t str) -> Self {
        Self { file, text, faults: Vec::new(), warnings: Vec::new(), masks: Vec::new() }
    }

    /// This part of the text is never quoted.
    pub(super) fn mask(&mut self, span: Range<usize>) {
        self.masks.push(span);
    }

    pub(super) fn fault(&mut self, at: &Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        let fault = self.make(at, message.into(), help.into());
        self.faults.push((at.span.start, fault));
    }

    pub(super) fn warn(&mut self, at: &Place, message: impl Into<String>, help: impl Into<Option<String>>) {
        let fault = self.make(at, message.into(), help.into());
        self.warnings.push((at.span.start, fault));
    }

    /// The line of a place, from 1.
    pub(super) fn line(&self, at: &Place) -> usize {
        self.make(at, String::new(), None).line
    }

    pub(super) fn is_clean(&self) -> bool {
        self.faults.is_empty()
    }

    /// Faults and warnings in the order of the text.
    pub(super) fn finish(mut self) -> (Vec<Fault>, Vec<Fault>) {
        let (faults, warnings) = (std::mem::take(&mut self.faults), std::mem::take(&mut self.warnings));
        let (faults, warnings) = (self.quoted(faults), self.quoted(warnings));
        (faults, warnings)
    }

    fn make(&self, at: &Place, message: String, write_instead: Option<String>) -> Fault {
        let start = floor_boundary(self.text, at.span.start);
        let line_start = self.text[..start].rfind('\n').map_or(0, |newline| newline + 1);
        let line_end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let end = floor_boundary(self.text, at.span.end.min(line_end)).max(start);
        Fault {
            file: self.file.to_owned(),
            line: self.text[..start].matches('\n').count() + 1,
            column: self.text[line_start..start].chars().count() + 1,
            key: at.key.clone(),
            message,
            write_instead,
            quote: String::new(),
            underline: self.text[start..end].chars().count(),
        }
    }

    /// Quotes are cut out last, when all masks are known.
    fn quoted(&self, mut found: Vec<(usize, Fault)>) -> Vec<Fault> {
        found.sort_by_key(|(start, _)| *start);
        let broken: Vec<usize> =
            found.iter().filter(|(_, f)| f.message.starts_with(NOT_TOML)).map(|(_, f)| f.line).collect();
        found.retain(|(_, f)| f.message.starts_with(NOT_TOML) || !broken.contains(&f.line));
        let mut faults: Vec<Fault> = found
            .into_iter()
            .map(|(start, mut fault)| {
                fault.quote = self.quote(start);
                fault.underline = fault.underline.min(QUOTE_CHARS_MAX);
                fault
            })
            .collect();
        faults.dedup();
        faults
    }

    fn quote(&self, at: usize) -> String {
        let at = floor_boundary(self.text, at);
        let start = self.text[..at].rfind('\n').map_or(0, |newline| newline + 1);
        let end = self.text[at..].find('\n').map_or(self.text.len(), |newline| at + newline);
        let hidden = |offset: usize| self.masks.iter().any(|mask| mask.contains(&offset));
        let line = self.text[start..end].trim_end_matches('\r');
        line.char_indices()
            .take(QUOTE_CHARS_MAX)
            .map(|(index, c)| if hidden(start + index) { '*' } else { c })
            .collect()
    }
}

/// How faults of the syntax begin; nothing else is said of such a line.
pub(super) const NOT_TOML: &str = "not TOML: ";

const QUOTE_CHARS_MAX: usize = 400;

/// The index, or the nearest one before it that doesn't cut a character.
pub(super) fn floor_boundary(text: &str, mut index: usize) -> usize {
    index = index.min(text.len());
    while !text.is_char_boundary(index) {
        index -= 1;
    }
    index
}

/// The closest of `candidates`, if it is close enough to be what was meant.
pub(crate) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let allowed = (word.chars().count() / 3).max(1);
    candidates
        .into_iter()
        .map(|candidate| (distance(word, candidate), candidate))
        .filter(|(distance, _)| *distance <= allowed)
        .min()
        .map(|(_, candidate)| candidate)
}

/// How many letters must be changed, added, left out or swapped (optimal string alignment).
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.chars().take(100).collect();
    let b: Vec<char> = b.chars().take(100).collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i; b.len() + 1];
        for j in 1..=b.len() {
            let changed = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1).min(row[j - 1] + 1).min(rows[i - 1][j - 1] + changed);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row[j] = best;
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_word_is_one_that_could_be_meant() {
        for (word, expected) in [
            ("otherwize", Some("otherwise")),
            ("becuase", Some("because")),
            ("schemas", Some("schema")),
            ("x", None),
            ("completely", None),
        ] {
            assert_eq!(nearest(word, ["otherwise", "because", "schema"]), expected, "{word}");
        }
    }

    #[test]
    fn what_is_masked_is_never_quoted() {
        let text = "[server]\ntoken = \"hunter2\"\n";
        let mut sink = Sink::new("recount.toml", text);
        let at = Place { span: 17..26, key: "server.token".into() };
        sink.mask(at.span.clone());
        sink.fault(&at, "a secret stands in the file", None);
        let (faults, _) = sink.finish();
        let shown = faults[0].render("error");
        assert!(shown.contains("2 | token = *********"), "{shown}");
        assert!(!shown.contains("hunter2"));
    }
}
