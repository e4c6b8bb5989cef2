//! What the checks make of the sample under the rules that are proposed: a proposal is tried before it is
//! written.

use super::input::{Input, compiled, delivery};
use recount_checks::{CheckResult, FlowRules};
use recount_model::Verdict;
use recount_model::decision::PayloadHash;
use std::collections::{BTreeMap, HashMap};

/// Ids that repeat are named up to here.
const NAMED_MAX: usize = 3;

/// What came of it.
#[derive(Debug, Default)]
pub struct Trial {
    /// Events that pass.
    pub passed: u64,
    /// Events that don't, by reason; with the first one's line and sentence.
    pub refused: BTreeMap<String, (u64, usize, String)>,
    /// Passing events whose time was found.
    pub with_time: u64,
    /// Events whose id an earlier one had, with the same payload.
    pub repeated: u64,
    /// The same with another payload.
    pub reused: u64,
    /// The ids that repeat most.
    pub named: Vec<Repeated>,
}

/// An id that repeats.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Repeated {
    /// The id.
    pub id: String,
    /// How often it is there.
    pub times: u64,
    /// Whether all payloads are the same.
    pub is_same: bool,
    /// Its first line.
    pub first: usize,
}

struct Known {
    times: u64,
    first: usize,
    payload: PayloadHash,
    is_same: bool,
}

/// Checks each sampled line.
///
/// # Errors
/// The rule that doesn't compile.
pub fn trial(input: &Input, rules: &FlowRules) -> Result<Trial, String> {
    let checks = compiled(rules)?;
    let mut trial = Trial::default();
    let mut known: HashMap<Box<str>, Known> = HashMap::new();
    for (index, line) in input.sample.lines.iter().enumerate() {
        let result = checks.check(delivery(line, index));
        match &result {
            CheckResult::Passed(event) => {
                trial.passed += 1;
                trial.with_time += u64::from(event.meta.time.is_some());
            }
            CheckResult::Refused(refused) => {
                let reason = match &refused.verdict {
                    Verdict::Skip(reason) | Verdict::DeadLetter(reason) | Verdict::Retry(reason) => reason,
                    Verdict::Applied => continue,
                };
                let first = || (0, index, reason.sentence.to_string());
                trial.refused.entry(reason.code.to_string()).or_insert_with(first).0 += 1;
            }
        }
        let payload = result.payload_hash();
        let Some(id) = result.meta().id.clone() else { continue };
        let seen = known.entry(id).or_insert(Known { times: 0, first: index, payload, is_same: true });
        seen.times += 1;
        if seen.times > 1 {
            let is_same = seen.payload == payload;
            seen.is_same &= is_same;
            *(if is_same { &mut trial.repeated } else { &mut trial.reused }) += 1;
        }
    }
    trial.named = most_repeated(known);
    Ok(trial)
}

fn most_repeated(known: HashMap<Box<str>, Known>) -> Vec<Repeated> {
    let repeated = known.into_iter().filter(|(_, seen)| seen.times > 1);
    let mut named: Vec<Repeated> = repeated
        .map(|(id, seen)| Repeated {
            id: id.into(),
            times: seen.times,
            is_same: seen.is_same,
            first: seen.first,
        })
        .collect();
    named.sort_by_key(|one| (std::cmp::Reverse(one.times), one.first));
    named.truncate(NAMED_MAX);
    named
}
