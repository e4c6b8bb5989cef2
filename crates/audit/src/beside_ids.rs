//! The effects of a consumer that Recount doesn't run, id by id.
//!
//! Ids are summed in buckets first; only those of buckets that differ are held, by their hashes, so many at
//! a time that memory stays bounded, and as often as it takes.

use crate::beside::{Compared, Comparing, Standing};
use crate::beside_group::GroupLooks;
use crate::fingerprint::{Sum, id_hash};
use crate::history::{History, ID_BUCKETS, id_bucket};
use crate::names::Names;
use crate::report::{Finding, Strength, plural};
use crate::witness::WitnessError;
use recount_ledger::{DecisionFilter, LedgerError};
use recount_model::{PartitionId, ReasonCode, Timestamp, reason};
use std::collections::HashMap;
use std::ops::ControlFlow;

/// So many ids are held at once; where more differ, everything is read once more for the next.
const IDS_A_PASS: u64 = 250_000;
/// At most so many passes; what differs beyond is not looked at, and that is said.
const PASSES_MAX: u32 = 40;
/// So many are named in the sentence itself.
const NAMED_INLINE: usize = 3;

/// Where an event stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    decided_at: Timestamp,
    fold: usize,
    offset: u64,
}

/// What is known of one id.
#[derive(Default)]
struct Known {
    effects: u64,
    applied: u64,
    /// Of the first decision that expects an effect.
    expected: Option<Place>,
    /// Of a decision that says there ought to be none.
    refused: Option<(Place, ReasonCode)>,
}

/// What the passes found.
struct Found {
    missing: Vec<Place>,
    missing_count: u64,
    waited_for: u64,
    not_committed: u64,
    twice: Vec<(Place, u64)>,
    twice_count: u64,
    unexpected: Vec<(Place, ReasonCode)>,
    unexpected_count: u64,
    /// Hashes of effects that no decision has the id of.
    unknown: Vec<u128>,
    unknown_count: u64,
    /// For each fold: the last event with an effect, and the first without.
    last_present: Vec<Option<u64>>,
    first_missing: Vec<Option<u64>>,
}

/// Compares the ids of the consumer's effects with those that are expected.
pub(crate) fn compare(
    comparing: &Comparing<'_>,
    id: &str,
    history: &History,
) -> Result<Result<Compared, WitnessError>, LedgerError> {
    let (mut buckets, mut effects, mut without_id) = (vec![Sum::default(); ID_BUCKETS], 0, 0);
    let visited = visit(comparing, id, &mut |hash, _| {
        effects += 1;
        match hash {
            Some(hash) => buckets[id_bucket(hash)].add(hash),
            None => without_id += 1,
        }
    });
    if let Err(error) = visited {
        return Ok(Err(error));
    }
    let (passes, pass_of, left_out) = plan(&buckets, &history.applied_ids);
    let mut found = Found::new(comparing.folds.len());
    for pass in 1..=passes {
        match look(comparing, id, pass, &pass_of, &mut found)? {
            Ok(known) => found.tally(comparing, known),
            Err(error) => return Ok(Err(error)),
        }
    }
    let unknown = match unknown_names(comparing, id, &found) {
        Ok(unknown) => unknown,
        Err(error) => return Ok(Err(error)),
    };
    let (mut blind, mut unprovable) = (Vec::new(), Vec::new());
    let mut unknown_of = |code, count: u64, sentence: String| {
        if count > 0 {
            blind.push(sentence.clone());
            unprovable.push(Finding { code, sentence, names: Vec::new(), count, since: None });
        }
    };
    let sentence = format!("{left_out} more ids differ than were looked at");
    unknown_of(comparing.missing_code(), left_out, sentence);
    let sentence = format!("{} without an id can't be told apart", plural(without_id, "effect"));
    unknown_of(reason::EFFECTS_WITHOUT_DECISION, without_id, sentence);
    if history.applied_without_id > 0 {
        let decisions = plural(history.applied_without_id, "decision");
        blind.push(format!("{decisions} without an id can't be looked for"));
    }
    if comparing.has_dropped() {
        blind.push("effects of events that left the ledger with retention are not looked at".to_owned());
    }
    let may_be_hidden = comparing.has_dropped() || found.unknown_count <= history.applied_without_id;
    let told = found.tell(comparing, unknown, may_be_hidden, effects, blind)?;
    Ok(Ok(Compared { unprovable, ..told }))
}

/// Visits the effects, hash and id; none where the column is empty.
fn visit(
    comparing: &Comparing<'_>,
    id: &str,
    each: &mut dyn FnMut(Option<u128>, &str),
) -> Result<(), WitnessError> {
    comparing.side.snapshot.custom_ids(comparing.seen.sql, id, &mut |id| {
        let hash = (!id.is_empty()).then(|| id_hash(&comparing.inputs.identity_key, id));
        each(hash, id);
        ControlFlow::Continue(())
    })
}

/// Which pass looks at which bucket (0: none, since it is even), and how many ids no pass looks at.
fn plan(effects: &[Sum], applied: &[Sum]) -> (u32, Vec<u32>, u64) {
    let (mut pass, mut held, mut left_out) = (1, 0, 0);
    let mut pass_of = vec![0; ID_BUCKETS];
    let mut any = false;
    for bucket in (0..ID_BUCKETS).filter(|bucket| effects[*bucket] != applied[*bucket]) {
        let ids = u64::try_from(effects[bucket].count + applied[bucket].count).unwrap_or(0);
        if held > 0 && held + ids > IDS_A_PASS {
            (pass, held) = (pass + 1, 0);
        }
        if pass > PASSES_MAX {
            left_out += ids;
            continue;
        }
        held += ids;
        any = true;
        pass_of[bucket] = pass;
    }
    (if any { pass.min(PASSES_MAX) } else { 0 }, pass_of, left_out)
}

/// One pass over effects and decisions.
fn look(
    comparing: &Comparing<'_>,
    id: &str,
    pass: u32,
    pass_of: &[u32],
    found: &mut Found,
) -> Result<Result<HashMap<u128, Known>, WitnessError>, LedgerError> {
    let mut known: HashMap<u128, Known> = HashMap::new();
    let visited = visit(comparing, id, &mut |hash, _| {
        if let Some(hash) = hash.filter(|hash| pass_of[id_bucket(*hash)] == pass) {
            known.entry(hash).or_default().effects += 1;
        }
    });
    if let Err(error) = visited {
        return Ok(Err(error));
    }
    let folds: HashMap<&PartitionId, usize> =
        comparing.folds.iter().enumerate().map(|(place, fold)| (&fold.at, place)).collect();
    let filter = DecisionFilter { flow: Some(comparing.flow.flow.clone()), ..Default::default() };
    comparing.inputs.ledger.decisions(&filter, &mut |stored| {
        let decision = &stored.decision;
        let (Some(id), Some(&fold)) = (&decision.event_id, folds.get(&stored.header.at)) else {
            return ControlFlow::Continue(());
        };
        let hash = id_hash(&comparing.inputs.identity_key, id);
        let of_bucket = pass_of[id_bucket(hash)];
        let place = Place { decided_at: stored.header.decided_at, fold, offset: decision.offset };
        match decision.fate.reason() {
            None if of_bucket == 0 => found.present(fold, decision.offset),
            None if of_bucket == pass => {
                let known = known.entry(hash).or_default();
                known.applied += 1;
                known.expected.get_or_insert(place);
                if known.effects > 0 {
                    found.present(fold, decision.offset);
                }
            }
            Some(reason) if of_bucket == pass => {
                if let Some(known) = known.get_mut(&hash) {
                    known.refused.get_or_insert_with(|| (place, reason.code.clone()));
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    })?;
    Ok(Ok(known))
}

impl Found {
    fn new(folds: usize) -> Self {
        Self {
            missing: Vec::new(),
            missing_count: 0,
            waited_for: 0,
            not_committed: 0,
            twice: Vec::new(),
            twice_count: 0,
            unexpected: Vec::new(),
            unexpected_count: 0,
            unknown: Vec::new(),
            unknown_count: 0,
            last_present: vec![None; folds],
            first_missing: vec![None; folds],
        }
    }

    fn present(&mut self, fold: usize, offset: u64) {
        self.last_present[fold] = self.last_present[fold].max(Some(offset));
    }

    /// Takes one pass in; of each kind the earliest are kept, as many as are named.
    fn tally(&mut self, comparing: &Comparing<'_>, known: HashMap<u128, Known>) {
        for (hash, id) in known {
            match (id.expected, id.refused) {
                (Some(place), _) if id.effects == 0 => {
                    let first = &mut self.first_missing[place.fold];
                    *first = Some(first.map_or(place.offset, |offset| offset.min(place.offset)));
                    match comparing.standing(place.fold, place.offset, place.decided_at) {
                        Standing::NotCommitted => self.not_committed += 1,
                        Standing::HasTime => self.waited_for += 1,
                        Standing::Due => {
                            self.missing_count += 1;
                            self.missing.push(place);
                        }
                    }
                }
                // An id that came again beyond the window of duplicates may have as many effects.
                (Some(place), _) if id.effects > id.applied => {
                    self.twice_count += 1;
                    self.twice.push((place, id.effects));
                }
                (Some(_), _) => {}
                // The event that it repeats left the ledger with retention, and the effect is that one's.
                (None, Some((_, code))) if repeats(&code) && comparing.has_dropped() => {}
                (None, Some(refused)) => {
                    self.unexpected_count += 1;
                    self.unexpected.push(refused);
                }
                (None, None) => {
                    self.unknown_count += 1;
                    self.unknown.push(hash);
                }
            }
        }
        let max = comparing.inputs.names_max.max(NAMED_INLINE);
        self.missing.sort_unstable();
        self.missing.truncate(max);
        self.twice.sort_unstable();
        self.twice.truncate(max);
        self.unexpected.sort_unstable();
        self.unexpected.truncate(max);
        self.unknown.sort_unstable();
        self.unknown.truncate(max);
    }

    fn tell(
        self,
        comparing: &Comparing<'_>,
        unknown: Names,
        may_be_hidden: bool,
        effects: u64,
        blind: Vec<String>,
    ) -> Result<Compared, LedgerError> {
        let what = comparing.expected_effects();
        let (mut findings, mut told, mut open) = (Vec::new(), None, Vec::new());
        let mut find = |finding: Option<Finding>, headline: String| {
            told = told.take().or(finding.is_some().then_some(headline));
            findings.extend(finding);
        };
        let (missing, inline) = name_places(comparing, self.missing.iter().map(|place| (*place, None)))?;
        let why = comparing.side.group.map_or_else(|| self.diagnosis().to_owned(), went_past);
        let headline = format!(
            "{} of {} {what} are not in the database: {inline}; {why}",
            self.missing_count, comparing.expected
        );
        let since = self.missing.first().map(|place| place.decided_at);
        let within = comparing.within();
        let sentence = match comparing.side.group {
            Some(_) => {
                format!("passed by the group more than {within} ago, and not among the consumer's effects")
            }
            None => format!("decided more than {within} ago, and not among the consumer's effects; {why}"),
        };
        let missing = missing.of(self.missing_count).finding(comparing.missing_code(), sentence);
        find(missing.map(|finding| Finding { since, ..finding }), headline);

        let refused = self.unexpected.iter().map(|(place, code)| (*place, Some(code.to_string())));
        let (unexpected, inline) = name_places(comparing, refused)?;
        let count = self.unexpected_count;
        let headline = format!("{} of events that were not to have one: {inline}", plural(count, "effect"));
        let sentence = "among the consumer's effects, although a check or the decoding says that there ought to be none; \
                        refusals that it records in the same query are to be left out there";
        find(unexpected.of(count).finding(reason::UNEXPECTED_EFFECT, sentence), headline);

        let times = self.twice.iter().map(|(place, times)| (*place, Some(format!("{times} times"))));
        let (twice, inline) = name_places(comparing, times)?;
        let count = self.twice_count;
        let headline = format!("{} more often than expected: {inline}", stand(count));
        let sentence = "the effect stands more often in the consumer's database than its event came";
        find(twice.of(count).finding(reason::EFFECTS_TWICE, sentence), headline);

        if self.unknown_count > 0 && comparing.may_be_ahead() {
            let effects = plural(self.unknown_count, "effect");
            open.push(format!("{effects} of events that Recount has not decided yet"));
        } else if !may_be_hidden {
            let count = self.unknown_count;
            let headline = format!("{} of which the source has no event", plural(count, "effect"));
            let sentence = "among the consumer's effects, and no event of the flow has the id; rows from before the \
                            events began are to be left out in the query";
            find(unknown.of(count).finding(reason::EFFECTS_WITHOUT_DECISION, sentence), headline);
        }
        if self.waited_for > 0 {
            open.push(format!("{} not there yet", self.waited_for));
        }
        if self.not_committed > 0 {
            open.push(comparing.not_committed_yet(self.not_committed));
        }
        let strength = Strength::ByIdWithoutCut;
        Ok(Compared { strength, effects, findings, unprovable: Vec::new(), open, blind, told })
    }

    /// Whether the consumer left events out, or is behind them.
    fn diagnosis(&self) -> &'static str {
        if self.last_present.iter().all(Option::is_none) {
            return "no event of the flow has an effect";
        }
        let behind = self.last_present.iter().zip(&self.first_missing).all(|(present, missing)| {
            match (present, missing) {
                (Some(present), Some(missing)) => missing > present,
                _ => true,
            }
        });
        if behind {
            "nothing after the last effect is there: the consumer is behind, or has stopped"
        } else {
            "effects of later events are there, so the consumer went past these and left nothing"
        }
    }
}

/// What the committed offsets say of what is missing.
fn went_past(group: &GroupLooks) -> String {
    format!("the group {} committed past these and left nothing", group.group)
}

/// Whether an event with the same id came before it.
fn repeats(code: &ReasonCode) -> bool {
    [reason::DUPLICATE, reason::ID_REUSED].contains(code)
}

fn stand(count: u64) -> String {
    if count == 1 { "1 effect stands".to_owned() } else { format!("{count} effects stand") }
}

/// Names events by position and id; and the first few in one line. What stands beside a place is told too.
fn name_places(
    comparing: &Comparing<'_>,
    places: impl Iterator<Item = (Place, Option<String>)>,
) -> Result<(Names, String), LedgerError> {
    let mut names = Names::new(comparing.inputs.names_max);
    let (mut inline, mut more) = (Vec::new(), false);
    for (place, beside) in places {
        let at = &comparing.folds[place.fold].at;
        let id = match comparing.flow.id_is_secret {
            true => Some("secret".to_owned()),
            false => id_at(comparing, at, place.offset)?,
        };
        let beside = beside.map(|text| format!(", {text}")).unwrap_or_default();
        let id = id.map_or("its id was forgotten".to_owned(), |id| format!("id {id}"));
        let name = format!("{at}/{} ({id}{beside})", place.offset);
        if inline.len() < NAMED_INLINE {
            inline.push(format!("{id} ({at}/{}{beside})", place.offset));
        } else {
            more = true;
        }
        names.add(|| name);
    }
    let dots = if more { ", …" } else { "" };
    Ok((names, format!("{}{dots}", inline.join(", "))))
}

/// The id that the ledger has at a position.
fn id_at(comparing: &Comparing<'_>, at: &PartitionId, offset: u64) -> Result<Option<String>, LedgerError> {
    let filter = DecisionFilter {
        flow: Some(at.flow.clone()),
        partition: Some(at.partition.as_str().to_owned()),
        offset_from: Some(offset),
        offset_to: Some(offset + 1),
        ..Default::default()
    };
    let mut id = None;
    comparing.inputs.ledger.decisions(&filter, &mut |stored| {
        if stored.header.at == *at && stored.decision.offset == offset {
            id = stored.decision.event_id.as_deref().map(str::to_owned);
        }
        ControlFlow::Continue(())
    })?;
    Ok(id)
}

/// Ids of effects that belong to no decision, in the order of the query.
fn unknown_names(comparing: &Comparing<'_>, id: &str, found: &Found) -> Result<Names, WitnessError> {
    let mut names = Names::new(comparing.inputs.names_max);
    if found.unknown.is_empty() {
        return Ok(names);
    }
    visit(comparing, id, &mut |hash, id| {
        if hash.is_some_and(|hash| found.unknown.binary_search(&hash).is_ok()) {
            let secret = comparing.flow.id_is_secret;
            names.add(|| if secret { "(id is secret)".to_owned() } else { format!("id {id}") });
        }
    })?;
    Ok(names)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sums(count: i64) -> Vec<Sum> {
        vec![Sum { count, hash: u128::from(count.unsigned_abs()) }; ID_BUCKETS]
    }

    #[test]
    fn only_buckets_that_differ_are_looked_at() {
        let (mut effects, applied) = (sums(10), sums(10));
        effects[7].add(1);
        let (passes, pass_of, left_out) = plan(&effects, &applied);
        assert_eq!((passes, left_out), (1, 0));
        assert_eq!(pass_of.iter().position(|pass| *pass > 0), Some(7));
        assert_eq!(pass_of.iter().sum::<u32>(), 1);
        assert_eq!(plan(&applied, &applied).0, 0);
    }

    #[test]
    fn no_pass_holds_more_than_it_may_and_none_is_left_out_below_the_bound() {
        let (effects, applied) = (sums(0), sums(1000));
        let (passes, pass_of, left_out) = plan(&effects, &applied);
        assert_eq!(left_out, 0);
        for pass in 1..=passes {
            let ids = pass_of.iter().filter(|of| **of == pass).count() as u64 * 1000;
            assert!(ids > 0 && ids <= IDS_A_PASS, "pass {pass} holds {ids}");
        }
        assert!(pass_of.iter().all(|pass| (1..=passes).contains(pass)));
    }

    #[test]
    fn what_no_pass_looks_at_is_counted() {
        let (effects, applied) = (sums(0), sums(10_000));
        let (passes, pass_of, left_out) = plan(&effects, &applied);
        let looked_at = pass_of.iter().filter(|pass| **pass > 0).count() as u64 * 10_000;
        assert_eq!((passes, looked_at + left_out), (PASSES_MAX, ID_BUCKETS as u64 * 10_000));
        assert!(left_out > 0);
    }
}
