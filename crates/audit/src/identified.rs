//! E1 identified: the auditor's own reader of the source against the ledger's ids.

use crate::books::PartitionFold;
use crate::fingerprint::{CHUNK_POSITIONS, ChunkSums, IdentityHash};
use crate::history::PartitionHistory;
use crate::inputs::{AuditInputs, FlowAudit, Identify};
use crate::names::{Names, first_of_range, shorten};
use crate::published::Sources;
use crate::report::{Equation, Finding, Side, Statement, Strength};
use crate::witness::{Published, SourceWitness, WitnessError};
use recount_checks::RawEvent;
use recount_ledger::{DecisionFilter, LedgerError};
use recount_model::{BookStatus, ConfigVersion, PayloadHash, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The auditor's own reader, and what it found so far.
struct Reading<'a> {
    inputs: &'a AuditInputs<'a>,
    source: &'a dyn SourceWitness,
    identify: &'a dyn Identify,
    id_is_secret: bool,
    read: u64,
    decided: u64,
    unknown: Vec<String>,
    missing: Names,
    without_source: Names,
    differing: Names,
    twice: Names,
}

/// E1 identified. `None` where no reader is declared, or nothing could be read, which E1 counted says
/// already.
pub(crate) fn identified(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
    histories: &[PartitionHistory],
    sources: &Sources,
) -> Result<Option<Statement>, LedgerError> {
    let (Some(source), Some(identify)) = (flow.source, flow.identify) else { return Ok(None) };
    let fresh = || Names::new(inputs.names_max);
    let mut reading = Reading {
        inputs,
        source,
        identify,
        id_is_secret: flow.id_is_secret,
        read: 0,
        decided: 0,
        unknown: Vec::new(),
        missing: fresh(),
        without_source: fresh(),
        differing: fresh(),
        twice: fresh(),
    };
    for (fold, history) in folds.iter().zip(histories) {
        reading.decided += u64::try_from(history.identities.count()).unwrap_or(0);
        let outcome = match sources.get(&fold.at) {
            Some(Ok(published)) => reading.partition(fold, history, *published)?,
            Some(Err(error)) => Err(error.clone()),
            None => Ok(()),
        };
        if let Err(error) = outcome {
            reading.unknown.push(format!("{}: {error}", fold.at));
        }
    }
    let nothing_to_read = folds.iter().all(|fold| !matches!(sources.get(&fold.at), Some(Ok(_))));
    let all_left = reading.decided == 0 && folds.iter().any(|fold| !fold.dropped.is_empty());
    if nothing_to_read || (all_left && reading.read == 0) {
        return Ok(None);
    }
    Ok(Some(reading.statement()))
}

/// Whether the event of the source at this position has to have a decision that can be looked at.
fn is_compared(fold: &PartitionFold, offset: u64) -> bool {
    fold.is_closed(offset) && !fold.lost_or_unrecorded.contains(offset) && !fold.dropped.contains(offset)
}

/// The hash of an event as [`PayloadHash`] describes it.
fn payload_hash(event_id: Option<&str>, payload: &[u8]) -> PayloadHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(event_id.unwrap_or_default().as_bytes()).update(&[0]).update(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    PayloadHash(u64::from_be_bytes(first))
}

/// What the ledger has of one position.
struct Recorded {
    event_id: Option<Box<str>>,
    payload_hash: PayloadHash,
    config: ConfigVersion,
}

fn told(id: Option<&str>) -> String {
    id.map_or(" (no id)".to_owned(), |id| format!(" (id {id})"))
}

/// The ledger's errors outside, the source's inside.
type Outcome = Result<Result<(), WitnessError>, LedgerError>;

impl Reading<'_> {
    fn partition(
        &mut self,
        fold: &PartitionFold,
        history: &PartitionHistory,
        published: Published,
    ) -> Outcome {
        let mut sums = ChunkSums::default();
        let mut hasher = IdentityHash::of_partition(&self.inputs.identity_key, &fold.at);
        let identify = self.identify;
        let outcome = self.source.read(&fold.at, published.first, published.end, &mut |raw| {
            if is_compared(fold, raw.offset) {
                sums.add(raw.offset, hasher.of(raw.offset, identify.event_id(None, raw).as_deref()));
            }
            ControlFlow::Continue(())
        });
        if outcome.is_err() {
            return Ok(outcome);
        }
        self.read += u64::try_from(sums.count()).unwrap_or(0);
        for (from, to) in sums.differing(&history.identities) {
            let there = (from.max(published.first), to.min(published.end));
            let outcome = self.chunk(fold, there, to)?;
            if outcome.is_err() {
                return Ok(outcome);
            }
        }
        Ok(Ok(()))
    }

    /// A chunk whose sums differ: both sides in full, at most [`CHUNK_POSITIONS`] positions at once. What
    /// lies below the source's present head was removed by its retention: no witness, no finding.
    fn chunk(&mut self, fold: &PartitionFold, (from, to): (u64, u64), chunk_end: u64) -> Outcome {
        debug_assert!(to.saturating_sub(from) <= CHUNK_POSITIONS);
        if from >= to {
            return Ok(Ok(()));
        }
        let mut recorded = self.recorded_in(fold, from, chunk_end)?;
        let source = self.source;
        let outcome = source.read(&fold.at, from, to, &mut |raw| {
            if is_compared(fold, raw.offset) {
                self.event(fold, raw, recorded.remove(&raw.offset));
            }
            ControlFlow::Continue(())
        });
        for (offset, recorded) in recorded.iter().filter(|_| outcome.is_ok()) {
            let name = self.name(fold, *offset, &told(recorded.event_id.as_deref()));
            self.without_source.add(|| name);
        }
        Ok(outcome)
    }

    fn event(&mut self, fold: &PartitionFold, raw: &RawEvent, recorded: Option<Recorded>) {
        let source_id = self.identify.event_id(None, raw);
        let Some(recorded) = recorded else {
            let gap = fold.covered.contains(raw.offset) && !fold.corrected.contains(raw.offset);
            let more = if gap { ", recorded as no event or by a run without a decision" } else { "" };
            let name = self.name(fold, raw.offset, &format!("{}{more}", told(source_id.as_deref())));
            return self.missing.add(|| name);
        };
        let is_same = recorded.event_id == source_id
            || recorded.event_id == self.identify.event_id(Some(recorded.config), raw)
            // An id that was forgotten on request is no longer there; the hash of id and payload is. An event
            // that killed the process was never decoded: its record has no id, and the hash of the payload alone.
            || (recorded.event_id.is_none()
                && [source_id.as_deref(), None]
                    .iter()
                    .any(|id| recorded.payload_hash == payload_hash(*id, &raw.payload)));
        if !is_same {
            let (source, ledger) = (told(source_id.as_deref()), told(recorded.event_id.as_deref()));
            let name = self.name(fold, raw.offset, &format!(" (source{source}, ledger{ledger})"));
            self.differing.add(|| name);
        }
    }

    fn name(&self, fold: &PartitionFold, offset: u64, about: &str) -> String {
        format!("{}/{offset}{}", fold.at, if self.id_is_secret { "" } else { about })
    }

    /// The last decision of each position of a range. What stands twice is named.
    fn recorded_in(
        &mut self,
        fold: &PartitionFold,
        from: u64,
        to: u64,
    ) -> Result<BTreeMap<u64, Recorded>, LedgerError> {
        let filter = DecisionFilter {
            flow: Some(fold.at.flow.clone()),
            partition: Some(fold.at.partition.as_str().to_owned()),
            offset_from: Some(from),
            offset_to: Some(to),
            superseded: true,
            ..Default::default()
        };
        let mut recorded = BTreeMap::new();
        let twice = &mut self.twice;
        self.inputs.ledger.decisions(&filter, &mut |stored| {
            let decision = &stored.decision;
            let of_fold = stored.header.at == fold.at && stored.header.seq <= fold.cut.ledger_seq;
            if !of_fold || fold.dropped.contains(decision.offset) {
                return ControlFlow::Continue(());
            }
            let one = Recorded {
                event_id: decision.event_id.clone(),
                payload_hash: decision.payload_hash,
                config: stored.header.config,
            };
            if recorded.insert(decision.offset, one).is_some() && decision.corrects.is_none() {
                twice.add(|| format!("{}/{}", fold.at, decision.offset));
            }
            ControlFlow::Continue(())
        })?;
        Ok(recorded)
    }

    fn findings(&mut self) -> Vec<Finding> {
        let max = self.inputs.names_max;
        let take = |names: &mut Names| std::mem::replace(names, Names::new(max));
        [
            take(&mut self.missing).finding(
                reason::POSITIONS_MISSING,
                "an event stands in the source, and the ledger has no decision for it",
            ),
            take(&mut self.without_source).finding(
                reason::POSITION_REUSED,
                "the ledger decided an event that the source does not carry there",
            ),
            take(&mut self.differing).finding(
                reason::POSITION_REUSED,
                "another id stands in the source than the one that was decided",
            ),
            take(&mut self.twice)
                .finding(reason::POSITION_REUSED, "decided twice, and neither decision corrects the other"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    fn statement(mut self) -> Statement {
        let findings = self.findings();
        let (read, decided) = (self.read, self.decided);
        let (status, sentence) = if !findings.is_empty() {
            let sentence = format!(
                "{read} events were read from the source again, {decided} are decided; they are not the same"
            );
            (BookStatus::Imbalanced, sentence)
        } else if !self.unknown.is_empty() {
            let why = shorten(&self.unknown, self.inputs.names_max);
            (BookStatus::Unprovable, format!("the source could not be read again: {why}"))
        } else {
            let sentence = format!(
                "{read} events were read from the source again: position and id of each are the ones decided"
            );
            (BookStatus::Balanced, sentence)
        };
        let first = findings.iter().find_map(|finding| finding.names.first());
        let look = first.map(|name| format!("recount story {}", first_of_range(name)));
        Statement {
            equation: Equation::E1,
            name: "source = ledger".into(),
            status,
            strength: Strength::Identified,
            sides: Some((Side::new("events in the source", read), Side::new("decided events", decided))),
            sentence,
            findings,
            look: look.into_iter().collect(),
        }
    }
}
