//! The account that is made without Recount: what was published against the rows in the database; and then
//! Recount's own word, which must equal it.

use super::event::Event;
use crate::verify::{shortened, told};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet, HashMap};

/// What must have come of the events of one property.
#[derive(Debug, Default)]
pub struct Expected {
    /// Each has one effect.
    pub applied: Vec<u64>,
    /// Dead letters with their reasons; no effect.
    pub dead: Vec<(u64, &'static str)>,
    /// Gone before they were taken; neither decision nor effect.
    pub lost: u64,
    /// A sender that had no answer sent some of them again: each further one is skipped as a duplicate.
    pub sent_again: bool,
}

impl Expected {
    /// All of these applied, and nothing else.
    pub fn applied(numbers: impl IntoIterator<Item = u64>) -> Self {
        Self { applied: numbers.into_iter().collect(), ..Self::default() }
    }
}

/// An effect, in the order in which they were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effect {
    /// The event's number.
    pub number: u64,
    /// Its key.
    pub key: String,
}

/// What is wrong with the effects; all empty where each is there once, in the order of its key.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Events that must have had an effect and have none.
    pub lost: Vec<u64>,
    /// Events with more than one.
    pub twice: Vec<u64>,
    /// Effects of events that must have none, or that nobody published.
    pub unexplained: Vec<u64>,
    /// Effects that came after one of a later event of the same key.
    pub disordered: Vec<u64>,
}

impl Effects {
    /// Holds the rows against what must be there.
    pub fn check(expected: &Expected, found: &[Effect]) -> Self {
        let mut times: BTreeMap<u64, u32> = expected.applied.iter().map(|number| (*number, 0)).collect();
        let mut last: HashMap<&str, u64> = HashMap::new();
        let mut effects = Self::default();
        for effect in found {
            match times.get_mut(&effect.number) {
                Some(times) if effect.key == Event(effect.number).key() => *times += 1,
                _ => effects.unexplained.push(effect.number),
            }
            let last = last.entry(&effect.key).or_default();
            if effect.number < *last {
                effects.disordered.push(effect.number);
            }
            *last = effect.number.max(*last);
        }
        for (number, times) in times {
            match times {
                0 => effects.lost.push(number),
                1 => {}
                _ => effects.twice.push(number),
            }
        }
        effects
    }

    /// Each kind as a sentence.
    pub fn faults(&self) -> Vec<String> {
        let kinds = [
            ("acknowledged, and without an effect", &self.lost),
            ("with more than one effect", &self.twice),
            ("with an effect that nobody asked for", &self.unexplained),
            ("with an effect after that of a later event of the key", &self.disordered),
        ];
        kinds.iter().filter_map(|(what, numbers)| told(what, numbers)).collect()
    }

    /// Whether these are what the same effects look like with one lost, one doubled, one foreign, in reverse.
    pub fn sees_spoilt(&self, spoilt: &Self) -> bool {
        let one_more = |now: &Vec<u64>, then: &Vec<u64>| now.len() == then.len() + 1;
        one_more(&spoilt.lost, &self.lost)
            && one_more(&spoilt.twice, &self.twice)
            && one_more(&spoilt.unexplained, &self.unexplained)
            && spoilt.disordered.len() > self.disordered.len()
    }
}

/// What differs between the ledger's current decisions and what must be there.
pub fn decisions(expected: &Expected, export: &[Value]) -> Vec<String> {
    let (mut applied, mut dead, mut faults) = (Vec::new(), BTreeSet::new(), Vec::new());
    // What killed the process was not looked into again, so its decision has no id: it is the one that is
    // neither applied nor has another dead letter.
    let mut nameless = expected.dead.iter().filter(|(_, reason)| *reason == "killed_the_process");
    for decision in export {
        let text = |name: &str| decision[name].as_str().unwrap_or_default();
        let number = Event::number_of(text("event_id"));
        match (number, text("verdict"), text("reason")) {
            (Some(number), "applied", "") => applied.push(number),
            (Some(number), "dead-lettered", reason) => drop(dead.insert((number, reason.to_owned()))),
            (None, "dead-lettered", "killed_the_process") => match nameless.next() {
                Some((number, reason)) => drop(dead.insert((*number, (*reason).to_owned()))),
                None => faults.push(format!("more than one killed the process: {decision}")),
            },
            (Some(_), "skipped", "duplicate") if expected.sent_again => {}
            _ => faults.push(format!("a decision that nobody asked for: {decision}")),
        }
    }
    let mut faults = shortened(faults);
    applied.sort_unstable();
    let mut must = expected.applied.clone();
    must.sort_unstable();
    if applied != must {
        let (is, must): (BTreeSet<_>, BTreeSet<_>) =
            (applied.iter().copied().collect(), must.into_iter().collect());
        let missing: Vec<u64> = must.difference(&is).copied().collect();
        let more: Vec<u64> = is.difference(&must).copied().collect();
        faults.extend(told("not applied, says the ledger", &missing));
        faults.extend(told("applied, says the ledger, and ought not to be", &more));
        if missing.is_empty() && more.is_empty() {
            faults.push("the ledger has more than one current decision of an event".to_owned());
        }
    }
    let must: BTreeSet<_> =
        expected.dead.iter().map(|(number, reason)| (*number, (*reason).to_owned())).collect();
    if dead != must {
        faults.push(format!("dead letters are {dead:?}, must be {must:?}"));
    }
    faults
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rows(numbers: &[u64]) -> Vec<Effect> {
        numbers.iter().map(|number| Effect { number: *number, key: Event(*number).key() }).collect()
    }

    #[test]
    fn a_lost_a_doubled_a_foreign_and_a_disordered_effect_are_each_found() {
        let expected = Expected::applied(0..20);
        let check = |numbers: &[u64]| Effects::check(&expected, &rows(numbers));
        let right: Vec<u64> = (0..20).collect();
        assert_eq!(check(&right), Effects::default());
        let mut spoilt = right.clone();
        spoilt.retain(|number| *number != 9);
        spoilt.extend([19, 40]);
        let effects = check(&spoilt);
        assert_eq!((effects.lost, effects.twice, effects.unexplained), (vec![9], vec![19], vec![40]));
        let other_key = Effect { number: 3, key: "k0".to_owned() };
        assert_eq!(Effects::check(&Expected::applied([3]), &[other_key]).unexplained, [3]);
        // 2 and 8 have the same key; 3 has another one, and may come at any time.
        assert_eq!(check(&[&[8, 3, 2], &right[9..]].concat()).disordered, [2]);
    }

    #[test]
    fn a_missing_a_second_and_a_wrong_decision_are_each_found() {
        let decision = |number: u64, verdict: &str, reason: &str| json!({ "event_id": format!("e-{number}"), "verdict": verdict, "reason": reason });
        let expected = Expected { dead: vec![(2, "killed_the_process")], ..Expected::applied(0..2) };
        let check = |decisions_found: &[Value]| decisions(&expected, decisions_found).len();
        let right = [
            decision(0, "applied", ""),
            decision(1, "applied", ""),
            decision(2, "dead-lettered", "killed_the_process"),
        ];
        assert_eq!(check(&right), 0);
        let nameless = json!({ "verdict": "dead-lettered", "reason": "killed_the_process" });
        assert_eq!(check(&[&right[..2], std::slice::from_ref(&nameless)].concat()), 0);
        assert_eq!(check(&[&right[..2], &[nameless.clone(), nameless]].concat()), 1);
        assert_eq!(check(&right[1..]), 1);
        assert_eq!(check(&right[..2]), 1);
        assert_eq!(check(&[&right[..], &right[..1]].concat()), 1);
        assert_eq!(check(&[&right[..], &[decision(1, "skipped", "duplicate")]].concat()), 1);
        assert_eq!(check(&[&right[..2], &[decision(2, "dead-lettered", "no_verdict")]].concat()), 1);
    }
}
