//! Names in findings: bounded lists, ranges of positions.

use crate::report::Finding;
use recount_model::{OffsetSet, PartitionId, ReasonCode};

/// A list that is named up to a bound and counted beyond.
pub(crate) struct Names {
    pub names: Vec<String>,
    pub count: u64,
    max: usize,
}

impl Names {
    pub fn new(max: usize) -> Self {
        Self { names: Vec::new(), count: 0, max }
    }

    pub fn add(&mut self, name: impl FnOnce() -> String) {
        self.add_many(1, name);
    }

    /// Adds something that stands for `count`.
    pub fn add_many(&mut self, count: u64, name: impl FnOnce() -> String) {
        if count > 0 && self.names.len() < self.max {
            self.names.push(name());
        }
        self.count += count;
    }

    /// Adds the positions of a set, a range as one name.
    pub fn add_positions(&mut self, at: &PartitionId, set: &OffsetSet) {
        for &(from, to) in set.ranges() {
            self.add_many(to - from, || range_name(at, from, to));
        }
    }

    /// The same names, of so many in all.
    pub fn of(self, count: u64) -> Self {
        Self { count, ..self }
    }

    pub fn finding(self, code: ReasonCode, sentence: impl Into<String>) -> Option<Finding> {
        let Self { names, count, .. } = self;
        (count > 0).then(|| Finding { code, sentence: sentence.into(), names, count, since: None })
    }
}

/// `flow/partition/7`, or `flow/partition/7-9`.
pub(crate) fn range_name(at: &PartitionId, from: u64, to: u64) -> String {
    if to == from + 1 { format!("{at}/{from}") } else { format!("{at}/{from}-{}", to - 1) }
}

/// The first position of a name such as `flow/partition/7-9` or `flow/partition/7 (id a-b)`.
pub(crate) fn first_of_range(name: &str) -> &str {
    let name = name.split(" (").next().unwrap_or(name);
    let name = name.split(" batches ").next().unwrap_or(name);
    match name.rfind('-') {
        Some(dash) if name.rfind('/').is_some_and(|slash| slash < dash) => &name[..dash],
        _ => name,
    }
}

/// Joins with `; `, at most `max` and the number of the rest.
pub(crate) fn shorten(sentences: &[String], max: usize) -> String {
    let mut text = sentences[..sentences.len().min(max)].join("; ");
    if sentences.len() > max {
        text.push_str(&format!("; and {} more", sentences.len() - max));
    }
    text
}
