//! The total-queue checker: what was published against what is in the database and on record.
//!
//! After Jepsen's checker of the same name: every event that was acknowledged to the producer comes out exactly
//! once, and nothing comes out that was not put in.

use crate::verify::told;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What must become of an event, by its number alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fate {
    /// One row in the database.
    Applied,
    /// A check skips it.
    Skipped,
    /// A check dead-letters it.
    Refused,
    /// The database refuses the row.
    Failed,
}

impl Fate {
    /// Of the event with this number: mostly applied, the rest strewn among them.
    pub fn of(number: u64) -> Self {
        match number {
            n if n % 50 == 7 => Self::Skipped,
            n if n % 61 == 5 => Self::Refused,
            n if n % 499 == 11 => Self::Failed,
            _ => Self::Applied,
        }
    }

    /// The quantity that leads to it.
    pub fn quantity(self) -> i64 {
        match self {
            Self::Applied => 1,
            Self::Skipped => 0,
            Self::Refused => -1,
            Self::Failed => 1000,
        }
    }

    /// Verdict and reason on record.
    pub fn on_record(self) -> (&'static str, &'static str) {
        match self {
            Self::Applied => ("applied", ""),
            Self::Skipped => ("skipped", "zero_quantity"),
            Self::Refused => ("dead-lettered", "negative_quantity"),
            Self::Failed => ("dead-lettered", "statement_failed"),
        }
    }
}

/// What is wrong with the effects; all empty where each is there once.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Events that must have had an effect and have none.
    pub lost: Vec<u64>,
    /// Events with more than one.
    pub twice: Vec<u64>,
    /// Effects of events that must have none, or that nobody published.
    pub unexplained: Vec<u64>,
}

impl Effects {
    /// Holds the numbers in the table, as often as they stand there, against the events from 0 to below
    /// `published`.
    pub fn check(published: u64, found: impl IntoIterator<Item = u64>) -> Self {
        let mut times = vec![0_u32; usize::try_from(published).unwrap_or_default()];
        let mut effects = Self::default();
        for number in found {
            match usize::try_from(number).ok().and_then(|at| times.get_mut(at)) {
                Some(times) if Fate::of(number) == Fate::Applied => *times += 1,
                _ => effects.unexplained.push(number),
            }
        }
        for (number, times) in (0..published).zip(times) {
            match times {
                0 if Fate::of(number) == Fate::Applied => effects.lost.push(number),
                0 | 1 => {}
                _ => effects.twice.push(number),
            }
        }
        effects
    }

    /// Each kind as a sentence.
    pub fn faults(&self) -> Vec<String> {
        let kinds = [
            ("lost: published and without an effect", &self.lost),
            ("twice: with more than one effect", &self.twice),
            ("unexplained: with an effect that nobody asked for", &self.unexplained),
        ];
        kinds.iter().filter_map(|(what, numbers)| told(what, numbers)).collect()
    }

    /// The three counts.
    pub fn figures(&self) -> Value {
        json!({ "lost": self.lost.len(), "twice": self.twice.len(), "unexplained": self.unexplained.len() })
    }
}

/// What the ledger's current decisions come to, one a published event.
#[derive(Debug)]
pub struct Verdicts {
    current: Vec<u32>,
    wrong: Vec<u64>,
    foreign: u64,
    /// How often each verdict with its reason stands there.
    pub counts: BTreeMap<String, u64>,
}

impl Verdicts {
    /// Before the first decision, for the events from 0 to below `published`.
    pub fn new(published: u64) -> Self {
        let current = vec![0; usize::try_from(published).unwrap_or_default()];
        Self { current, wrong: Vec::new(), foreign: 0, counts: BTreeMap::new() }
    }

    /// One current decision; the number is none where its id is none of ours.
    pub fn see(&mut self, number: Option<u64>, verdict: &str, reason: &str) {
        *self.counts.entry(format!("{verdict} {reason}").trim_end().to_owned()).or_default() += 1;
        let of_ours = number.and_then(|number| usize::try_from(number).ok());
        match (number, of_ours.and_then(|at| self.current.get_mut(at))) {
            (Some(number), Some(times)) => {
                *times += 1;
                if Fate::of(number).on_record() != (verdict, reason) {
                    self.wrong.push(number);
                }
            }
            _ => self.foreign += 1,
        }
    }

    /// What is wrong with them, a kind a sentence.
    pub fn faults(&self) -> Vec<String> {
        let numbered = || (0_u64..).zip(&self.current);
        let none: Vec<u64> = numbered().filter(|(_, times)| **times == 0).map(|(n, _)| n).collect();
        let several: Vec<u64> = numbered().filter(|(_, times)| **times > 1).map(|(n, _)| n).collect();
        let kinds = [
            ("without a current verdict", &none),
            ("with more than one current verdict", &several),
            ("with another verdict than the rules say", &self.wrong),
        ];
        let foreign = (self.foreign > 0).then(|| format!("{} decisions of no event of ours", self.foreign));
        kinds.iter().filter_map(|(what, numbers)| told(what, numbers)).chain(foreign).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn right(published: u64) -> Vec<u64> {
        (0..published).filter(|number| Fate::of(*number) == Fate::Applied).collect()
    }

    #[test]
    fn a_lost_a_doubled_and_an_unexplained_effect_are_each_found() {
        let check = |found: Vec<u64>| Effects::check(1000, found);
        assert_eq!(check(right(1000)), Effects::default());
        let mut found = right(1000);
        found.retain(|number| *number != 300);
        found.extend([42, 57, 1000]);
        let effects = check(found);
        // 57 is skipped, 1000 was never published.
        assert_eq!((effects.lost, effects.twice), (vec![300], vec![42]));
        assert_eq!(effects.unexplained, [57, 1000]);
    }

    #[test]
    fn one_lost_and_one_twice_do_not_cancel() {
        let mut found = right(1000);
        found.retain(|number| *number != 300);
        found.push(42);
        assert_eq!(found.len(), right(1000).len());
        assert_eq!(Effects::check(1000, found).faults().len(), 2);
    }

    #[test]
    fn a_missing_a_second_a_wrong_and_a_foreign_verdict_are_each_found() {
        let seen = |change: &dyn Fn(&mut Verdicts)| {
            let mut verdicts = Verdicts::new(100);
            for number in 1..100 {
                let (verdict, reason) = Fate::of(number).on_record();
                verdicts.see(Some(number), verdict, reason);
            }
            change(&mut verdicts);
            verdicts.faults()
        };
        assert_eq!(seen(&|verdicts| verdicts.see(Some(0), "applied", "")), Vec::<String>::new());
        assert_eq!(seen(&|_| ()).len(), 1);
        let wrong = seen(&|verdicts| verdicts.see(Some(0), "skipped", "zero_quantity"));
        assert!(wrong.len() == 1 && wrong[0].contains("another verdict"), "{wrong:?}");
        let several = seen(&|verdicts| {
            verdicts.see(Some(0), "applied", "");
            verdicts.see(Some(0), "applied", "");
            verdicts.see(None, "applied", "");
        });
        assert_eq!(several.len(), 2, "{several:?}");
    }
}
