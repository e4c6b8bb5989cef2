//! E1: every position that was published has a fate.

use crate::books::PartitionFold;
use crate::fingerprint::{CHUNK_POSITIONS, ChunkSums, IdentityHash};
use crate::history::PartitionHistory;
use crate::inputs::{AuditInputs, FlowAudit};
use crate::report::{Equation, Finding, PartitionReport, Side, Statement, Strength, plural};
use crate::witness::{Published, WitnessError};
use recount_ledger::{DecisionFilter, LedgerError, LedgerRead};
use recount_model::{BookStatus, ConfigVersion, OffsetSet, PartitionId, ReasonCode, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

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
        if self.names.len() < self.max {
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

    pub fn finding(self, code: ReasonCode, sentence: impl Into<String>) -> Option<Finding> {
        let Self { names, count, .. } = self;
        (count > 0).then(|| Finding { code, sentence: sentence.into(), names, count, since: None })
    }
}

/// `flow/partition/7`, or `flow/partition/7-9`.
pub(crate) fn range_name(at: &PartitionId, from: u64, to: u64) -> String {
    if to == from + 1 { format!("{at}/{from}") } else { format!("{at}/{from}-{}", to - 1) }
}

/// What the source's side gave for one partition.
pub(crate) type SourceSide = Result<Published, WitnessError>;

/// What the source said of every partition that it or the ledger knows.
#[derive(Default)]
pub(crate) struct Sources {
    pub sides: BTreeMap<PartitionId, SourceSide>,
    /// Why it could not list its partitions: there may be some that nobody knows of.
    pub unlisted: Option<WitnessError>,
}

impl Sources {
    pub fn get(&self, at: &PartitionId) -> Option<&SourceSide> {
        self.sides.get(at)
    }
}

/// Completes one partition's books with the source's side.
pub(crate) fn partition_report(fold: &mut PartitionFold, source: Option<&SourceSide>) -> PartitionReport {
    let published = source.and_then(|side| side.as_ref().ok()).copied();
    let counts = fold.books.counts;
    let fated = counts.decided() + counts.lost + counts.not_an_event + counts.unrecorded;
    let status = match published {
        Some(Published { first, end }) => {
            let (from, to) = counted_range(&fold.covered, first, end);
            let open = fold.open(from, to);
            let counts = &mut fold.books.counts;
            counts.published = end.saturating_sub(from);
            counts.open = open;
            counts.status()
        }
        None => {
            fold.books.counts.published = fated;
            BookStatus::Unprovable
        }
    };
    PartitionReport { at: fold.at.clone(), published, counts: fold.books.counts, status }
}

/// The range over which the books are closed: from the lowest position that either side knows, to the end.
/// What retention removed from the source's head after it was decided stays in, by the ledger's word.
fn counted_range(covered: &OffsetSet, first: u64, end: u64) -> (u64, u64) {
    let lowest = covered.ranges().first().map_or(first, |r| r.0.min(first));
    (lowest, end)
}

/// E1 counted: the source's count of positions against runs and gaps.
pub(crate) fn counted(
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
    sources: &Sources,
    reports: &[PartitionReport],
    histories: &[PartitionHistory],
    corrupt: &[String],
    names_max: usize,
) -> Statement {
    let fresh = || Names::new(names_max);
    let (mut missing, mut beyond, mut twice, mut orphans) = (fresh(), fresh(), fresh(), fresh());
    let (mut unrecorded, mut batches, mut inner, mut replaced) = (fresh(), fresh(), fresh(), fresh());
    let mut unreadable = fresh();
    corrupt.iter().for_each(|error| unreadable.add(|| error.clone()));
    for (fold, history) in folds.iter().zip(histories) {
        let (runs, rows) = (fold.told_by_runs, history.told_by_decisions);
        if runs != rows {
            inner.add(|| {
                let at = &fold.at;
                format!("{at}: runs tell {runs:?}, decisions {rows:?} (applied, skipped, dead-lettered)")
            });
        }
        for offset in &history.corrected_twice {
            replaced.add(|| format!("{}/{offset}", fold.at));
        }
    }
    let mut unknown: Vec<String> = sources.unlisted.iter().map(ToString::to_string).collect();
    let (mut published, mut fated, mut open) = (0, 0, 0);
    for (fold, report) in folds.iter().zip(reports) {
        let at = &fold.at;
        twice.add_positions(at, &fold.twice);
        orphans.add_positions(at, &fold.correction_of_nothing);
        for &(from, to) in fold.missing_batches.ranges() {
            batches.add_many(to - from, || format!("{at} batches {from} to {}", to - 1));
        }
        if report.counts.unrecorded > 0 {
            let positions = report.counts.unrecorded;
            unrecorded.add_many(positions, || format!("{at}: {}", plural(positions, "position")));
        }
        match sources.get(at) {
            Some(Ok(Published { first, end })) => {
                let (from, to) = counted_range(&fold.covered, *first, *end);
                missing.add_positions(at, &fold.missing(from, to));
                let mut past_end = fold.covered.clone();
                past_end.remove_range(0, to);
                beyond.add_positions(at, &past_end);
                published += report.counts.published;
                fated += report.counts.published.saturating_sub(report.counts.open);
                open += report.counts.open;
            }
            Some(Err(error)) => unknown.push(format!("{at}: {error}")),
            None => unknown.push(format!("{at}: the source does not know it")),
        }
        if !matches!(sources.get(at), Some(Ok(_))) {
            let lowest = fold.covered.ranges().first().map_or(0, |r| r.0);
            missing.add_positions(at, &fold.missing(lowest, fold.next_offset));
        }
    }
    let missing_count = missing.count;
    let findings: Vec<Finding> = [
        missing.finding(reason::POSITIONS_MISSING, "published or passed over, and without a fate"),
        beyond.finding(reason::POSITION_REUSED, "decided, but the source does not hold so many"),
        twice.finding(reason::POSITION_REUSED, "decided twice, and neither decision corrects the other"),
        orphans.finding(reason::LEDGER_CORRUPT, "corrected, but never decided before"),
        unreadable.finding(reason::LEDGER_CORRUPT, "the ledger can't be read as it was written"),
        replaced.finding(reason::POSITION_REUSED, "corrected twice: two decisions replace the same one"),
        inner.finding(reason::LEDGER_CORRUPT, "the ledger's runs and its decisions disagree"),
        batches.finding(reason::LEDGER_CORRUPT, "missing from the ledger between batches that are there"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let unrecorded = unrecorded.finding(
        reason::POSITIONS_UNRECORDED,
        "consumed without a record: nobody can ever tell what became of them",
    );
    let status = if !findings.is_empty() {
        BookStatus::Imbalanced
    } else if !unknown.is_empty() || unrecorded.is_some() {
        BookStatus::Unprovable
    } else if open > 0 {
        BookStatus::Open
    } else {
        BookStatus::Balanced
    };
    let with_fate = fated.saturating_sub(missing_count);
    let sentence = match status {
        _ if !unknown.is_empty() => {
            format!("what was published can't be counted: {}", shorten(&unknown, names_max))
        }
        BookStatus::Balanced => format!("each of {published} published positions has a fate{}", left(folds)),
        BookStatus::Open => {
            format!("{with_fate} of {published} published positions have a fate, {open} are open")
        }
        BookStatus::Unprovable => {
            format!("each of {published} published positions is accounted for, but some without a record")
        }
        BookStatus::Imbalanced => {
            format!("{published} positions were published, {with_fate} have a fate, {open} are open")
        }
    };
    let sides = unknown
        .is_empty()
        .then(|| (Side::new("published", published), Side::new("with a fate or open", with_fate + open)));
    let mut look = Vec::new();
    let named = findings.iter().find(|f| f.code != reason::LEDGER_CORRUPT);
    if !corrupt.is_empty() {
        look.push("keep a copy of the ledger's folder before anything else".to_owned());
    }
    if let Some(name) = named.and_then(|f| f.names.first()) {
        look.push(format!("recount story {}", first_of_range(name)));
    }
    if !unknown.is_empty() {
        look.push(format!("bring back the source of {}, or read it where it is now", flow.flow));
    }
    let any_counted = folds.iter().any(|fold| matches!(sources.get(&fold.at), Some(Ok(_))));
    let strength = if any_counted || unknown.is_empty() { Strength::Counted } else { Strength::None };
    let findings = findings.into_iter().chain(unrecorded).collect();
    Statement {
        equation: Equation::E1,
        name: "source = ledger".into(),
        status,
        strength,
        sides,
        sentence,
        findings,
        look,
    }
}

/// Says how many decisions are only known by their counts.
fn left(folds: &[PartitionFold]) -> String {
    match folds.iter().map(|fold| fold.dropped.count()).sum() {
        0_u64 => String::new(),
        dropped => format!("; {dropped} of them left the ledger with retention and are only counted"),
    }
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

/// What the auditor's own reader found in one partition.
struct Compared<'a> {
    missing: &'a mut Names,
    without_source: &'a mut Names,
    differing: &'a mut Names,
    twice: &'a mut Names,
}

/// E1 identified: the auditor's own reader against the ledger's ids. `None` where no reader is declared or
/// the source could not be counted at all, which E1 counted says already.
pub(crate) fn identified(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    folds: &[PartitionFold],
    histories: &[PartitionHistory],
    sources: &Sources,
) -> Result<Option<Statement>, LedgerError> {
    let (Some(source), Some(identify)) = (flow.source, flow.identify) else { return Ok(None) };
    let fresh = || Names::new(inputs.names_max);
    let (mut missing, mut without_source, mut differing) = (fresh(), fresh(), fresh());
    let mut twice = fresh();
    let (mut read, mut decided) = (0, 0);
    let mut unknown = Vec::new();
    for (fold, history) in folds.iter().zip(histories) {
        let at = &fold.at;
        decided += u64::try_from(history.identities.count()).unwrap_or(0);
        let published = match sources.get(at) {
            Some(Ok(published)) => *published,
            Some(Err(error)) => {
                unknown.push(format!("{at}: {error}"));
                continue;
            }
            None => continue,
        };
        let mut sums = ChunkSums::default();
        let mut hasher = IdentityHash::of_partition(&inputs.identity_key, at);
        let outcome = source.read(at, published.first, published.end, &mut |raw| {
            if is_compared(fold, raw.offset) {
                sums.add(raw.offset, hasher.of(raw.offset, identify.event_id(None, raw).as_deref()));
            }
            ControlFlow::Continue(())
        });
        if let Err(error) = outcome {
            unknown.push(format!("{at}: {error}"));
            continue;
        }
        read += u64::try_from(sums.count()).unwrap_or(0);
        let mut compared = Compared {
            missing: &mut missing,
            without_source: &mut without_source,
            differing: &mut differing,
            twice: &mut twice,
        };
        for (from, to) in sums.differing(&history.identities) {
            let range = (from.max(published.first), to.min(published.end));
            let wide = (from, to);
            match compare_chunk(inputs, flow, fold, range, wide, &mut compared)? {
                Ok(()) => {}
                Err(error) => unknown.push(format!("{at}: {error}")),
            }
        }
    }
    let nothing_to_read = folds.iter().all(|fold| !matches!(sources.get(&fold.at), Some(Ok(_))));
    let all_left = read == 0 && folds.iter().any(|fold| !fold.dropped.is_empty());
    if nothing_to_read || (all_left && decided == 0) {
        return Ok(None);
    }
    let findings: Vec<Finding> = [
        missing.finding(
            reason::POSITIONS_MISSING,
            "an event stands in the source, and the ledger has no decision for it",
        ),
        without_source.finding(
            reason::POSITION_REUSED,
            "the ledger decided an event that the source does not carry there",
        ),
        differing.finding(
            reason::POSITION_REUSED,
            "another id stands in the source than the one that was decided",
        ),
        twice.finding(reason::POSITION_REUSED, "decided twice, and neither decision corrects the other"),
    ]
    .into_iter()
    .flatten()
    .collect();
    let status = if !findings.is_empty() {
        BookStatus::Imbalanced
    } else if !unknown.is_empty() {
        BookStatus::Unprovable
    } else {
        BookStatus::Balanced
    };
    let sentence = match status {
        BookStatus::Imbalanced => {
            format!(
                "{read} events were read from the source again, {decided} are decided; they are not the same"
            )
        }
        BookStatus::Unprovable => {
            format!("the source could not be read again: {}", shorten(&unknown, inputs.names_max))
        }
        _ => format!(
            "{read} events were read from the source again: position and id of each are the ones decided"
        ),
    };
    let sides = (Side::new("events in the source", read), Side::new("decided events", decided));
    let look = findings
        .iter()
        .find_map(|f| f.names.first())
        .map(|name| vec![format!("recount story {}", first_of_range(name))])
        .unwrap_or_default();
    Ok(Some(Statement {
        equation: Equation::E1,
        name: "source = ledger".into(),
        status,
        strength: Strength::Identified,
        sides: Some(sides),
        sentence,
        findings,
        look,
    }))
}

/// Whether the event of the source at this position has to have a decision that can be looked at.
fn is_compared(fold: &PartitionFold, offset: u64) -> bool {
    fold.is_closed(offset) && !fold.lost_or_unrecorded.contains(offset) && !fold.dropped.contains(offset)
}

/// A chunk whose sums differ: both sides in full, at most [`CHUNK_POSITIONS`] positions at once.
fn compare_chunk(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    fold: &PartitionFold,
    (from, to): (u64, u64),
    wide: (u64, u64),
    compared: &mut Compared<'_>,
) -> Result<Result<(), WitnessError>, LedgerError> {
    let (Some(source), Some(identify)) = (flow.source, flow.identify) else { return Ok(Ok(())) };
    debug_assert!(to.saturating_sub(from) <= CHUNK_POSITIONS);
    if from >= to {
        return Ok(Ok(()));
    }
    let mut decided = decided_in(inputs.ledger, fold, wide, compared.twice)?;
    let name = |offset: u64, text: String| {
        if flow.id_is_secret {
            format!("{}/{offset}", fold.at)
        } else {
            format!("{}/{offset}{text}", fold.at)
        }
    };
    let told = |id: &Option<Box<str>>| id.as_ref().map_or(" (no id)".to_owned(), |id| format!(" (id {id})"));
    let outcome = source.read(&fold.at, from, to, &mut |raw| {
        if !is_compared(fold, raw.offset) {
            return ControlFlow::Continue(());
        }
        match decided.remove(&raw.offset) {
            None => {
                let id = identify.event_id(None, raw);
                let gap = fold.covered.contains(raw.offset) && !fold.corrected.contains(raw.offset);
                let more = if gap { ", recorded as no event or by a run without a decision" } else { "" };
                compared.missing.add(|| name(raw.offset, format!("{}{more}", told(&id))));
            }
            Some((ledger_id, config)) => {
                let same = identify.event_id(None, raw) == ledger_id
                    || identify.event_id(Some(config), raw) == ledger_id;
                if !same {
                    let source_id = identify.event_id(None, raw);
                    let text = format!(" (source{}, ledger{})", told(&source_id), told(&ledger_id));
                    compared.differing.add(|| name(raw.offset, text));
                }
            }
        }
        ControlFlow::Continue(())
    });
    if let Err(error) = outcome {
        return Ok(Err(error));
    }
    // What lies below the source's present head was removed by retention: no witness, no finding.
    for (offset, (id, _)) in decided.into_iter().filter(|(offset, _)| *offset >= from) {
        compared.without_source.add(|| name(offset, told(&id)));
    }
    Ok(Ok(()))
}

/// Offset → id and config version.
type Decided = BTreeMap<u64, (Option<Box<str>>, ConfigVersion)>;

/// The current decisions of a range. What stands twice is named.
fn decided_in(
    ledger: &dyn LedgerRead,
    fold: &PartitionFold,
    (from, to): (u64, u64),
    twice: &mut Names,
) -> Result<Decided, LedgerError> {
    let filter = DecisionFilter {
        flow: Some(fold.at.flow.clone()),
        partition: Some(fold.at.partition.as_str().to_owned()),
        offset_from: Some(from),
        offset_to: Some(to),
        superseded: true,
        ..Default::default()
    };
    let mut decided = Decided::new();
    ledger.decisions(&filter, &mut |stored| {
        let decision = &stored.decision;
        let of_fold = stored.header.at == fold.at && stored.header.seq <= fold.cut.ledger_seq;
        if !of_fold || fold.dropped.contains(decision.offset) {
            return ControlFlow::Continue(());
        }
        let entry = (decision.event_id.clone(), stored.header.config);
        if decided.insert(decision.offset, entry).is_some() && decision.corrects.is_none() {
            twice.add(|| format!("{}/{}", fold.at, decision.offset));
        }
        ControlFlow::Continue(())
    })?;
    Ok(decided)
}
