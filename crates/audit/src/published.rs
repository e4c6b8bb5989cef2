//! E1 counted: every position that was published has a fate.

use crate::books::PartitionFold;
use crate::history::PartitionHistory;
use crate::inputs::FlowAudit;
use crate::names::{Names, first_of_range, shorten};
use crate::report::{Equation, Finding, PartitionReport, Side, Statement, Strength, plural};
use crate::witness::{Published, WitnessError};
use recount_model::{BookStatus, OffsetSet, Origin, PartitionId, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

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

/// What E1 counted is made from.
pub(crate) struct Counting<'a> {
    pub flow: &'a FlowAudit<'a>,
    pub folds: &'a [PartitionFold],
    pub reports: &'a [PartitionReport],
    pub histories: &'a [PartitionHistory],
    pub sources: &'a Sources,
    /// What could not be read of the ledger.
    pub corrupt: &'a [String],
    pub names_max: usize,
}

/// What was counted over all partitions.
#[derive(Default)]
struct Totals {
    published: u64,
    open: u64,
    missing: u64,
    unknown: Vec<String>,
}

impl Counting<'_> {
    /// E1 counted: the source's count of positions against runs and gaps.
    pub fn statement(&self) -> Statement {
        let mut totals = Totals::default();
        totals.unknown.extend(self.sources.unlisted.iter().map(ToString::to_string));
        let mut findings = self.source_findings(&mut totals);
        findings.extend(self.ledger_findings());
        let unrecorded = [self.unreported(), self.unrecorded()];
        let status = if !findings.is_empty() {
            BookStatus::Imbalanced
        } else if !totals.unknown.is_empty() || unrecorded.iter().any(Option::is_some) {
            BookStatus::Unprovable
        } else if totals.open > 0 {
            BookStatus::Open
        } else {
            BookStatus::Balanced
        };
        let with_fate = totals.published.saturating_sub(totals.open + totals.missing);
        let explained = with_fate + totals.open;
        let sides = totals
            .unknown
            .is_empty()
            .then(|| (Side::new("published", totals.published), Side::new("with a fate or open", explained)));
        let any_counted = self.folds.iter().any(|fold| matches!(self.sources.get(&fold.at), Some(Ok(_))));
        let strength =
            if any_counted || totals.unknown.is_empty() { Strength::Counted } else { Strength::None };
        Statement {
            equation: Equation::E1,
            name: "source = ledger".into(),
            status,
            strength,
            sides,
            sentence: self.sentence(status, &totals, with_fate),
            look: self.look(&findings, &totals),
            findings: findings.into_iter().chain(unrecorded.into_iter().flatten()).collect(),
        }
    }

    /// Positions without a fate, and fates without a position.
    fn source_findings(&self, totals: &mut Totals) -> Vec<Finding> {
        let (mut missing, mut beyond) = (Names::new(self.names_max), Names::new(self.names_max));
        for (fold, report) in self.folds.iter().zip(self.reports) {
            let at = &fold.at;
            let known = match self.sources.get(at) {
                Some(Ok(Published { first, end })) => Ok(counted_range(&fold.covered, *first, *end)),
                Some(Err(error)) => Err(format!("{at}: {error}")),
                None => Err(format!("{at}: the source does not know it")),
            };
            match known {
                Ok((from, to)) => {
                    missing.add_positions(at, &fold.missing(from, to));
                    let mut past_end = fold.covered.clone();
                    past_end.remove_range(0, to);
                    beyond.add_positions(at, &past_end);
                    totals.published += report.counts.published;
                    totals.open += report.counts.open;
                }
                Err(error) => {
                    totals.unknown.push(error);
                    let lowest = fold.covered.ranges().first().map_or(0, |r| r.0);
                    missing.add_positions(at, &fold.missing(lowest, fold.next_offset));
                }
            }
        }
        totals.missing = missing.count;
        let missing =
            missing.finding(reason::POSITIONS_MISSING, "published or passed over, and without a fate");
        let beyond = beyond.finding(reason::POSITION_REUSED, "decided, but the source does not hold so many");
        missing.into_iter().chain(beyond).collect()
    }

    /// What is wrong within the ledger itself.
    fn ledger_findings(&self) -> Vec<Finding> {
        let fresh = || Names::new(self.names_max);
        let (mut twice, mut orphans, mut batches) = (fresh(), fresh(), fresh());
        let (mut unreadable, mut inner, mut replaced) = (fresh(), fresh(), fresh());
        self.corrupt.iter().for_each(|error| unreadable.add(|| error.clone()));
        for fold in self.folds {
            let at = &fold.at;
            twice.add_positions(at, &fold.twice);
            orphans.add_positions(at, &fold.correction_of_nothing);
            for &(from, to) in fold.missing_batches.ranges() {
                batches.add_many(to - from, || format!("{at} batches {from} to {}", to - 1));
            }
        }
        for (fold, history) in self.folds.iter().zip(self.histories) {
            let at = &fold.at;
            let (runs, rows) = (fold.told_by_runs, history.told_by_decisions);
            if runs != rows {
                inner.add(|| {
                    format!("{at}: runs tell {runs:?}, decisions {rows:?} (applied, skipped, dead-lettered)")
                });
            }
            history.corrected_twice.iter().for_each(|offset| replaced.add(|| format!("{at}/{offset}")));
        }
        [
            twice.finding(reason::POSITION_REUSED, "decided twice, and neither decision corrects the other"),
            orphans.finding(reason::LEDGER_CORRUPT, "corrected, but never decided before"),
            unreadable.finding(reason::LEDGER_CORRUPT, "the ledger can't be read as it was written"),
            replaced.finding(reason::POSITION_REUSED, "corrected twice: two decisions replace the same one"),
            inner.finding(reason::LEDGER_CORRUPT, "the ledger's runs and its decisions disagree"),
            batches.finding(reason::LEDGER_CORRUPT, "missing from the ledger between batches that are there"),
        ]
        .into_iter()
        .flatten()
        .collect()
    }

    /// What the consumer went past: named by the ids that stand in the source. What was accepted is only
    /// counted, unless there is nothing else.
    fn unreported(&self) -> Option<Finding> {
        let total: u64 = self.folds.iter().map(|fold| fold.unreported.count()).sum();
        let waiting: u64 = self.folds.iter().map(|fold| fold.unreported_waiting.count()).sum();
        let mut names = Names::new(self.names_max);
        for fold in self.folds {
            let set = if waiting > 0 { &fold.unreported_waiting } else { &fold.unreported };
            let named = self.names_max.saturating_sub(names.names.len());
            let mut ids = self.ids(fold, set, named);
            let mut left = set.count();
            for &(from, to) in set.ranges() {
                for offset in from..to.min(from.saturating_add(named as u64)) {
                    let id = ids.remove(&offset).map_or(String::new(), |id| format!(" (id {id})"));
                    names.add(|| format!("{}/{offset}{id}", fold.at));
                    left -= 1;
                }
                if names.names.len() >= self.names_max {
                    break;
                }
            }
            names.add_many(left, || format!("{}: {left} more", fold.at));
        }
        let sentence = match (waiting, total) {
            (0, _) => "committed and not reported by the consumer, and accepted by an operator".to_owned(),
            (waiting, total) if waiting == total => "committed and not reported by the consumer".to_owned(),
            (waiting, total) => format!(
                "committed and not reported by the consumer; {} more were accepted by an operator",
                total - waiting
            ),
        };
        names.finding(reason::UNREPORTED, sentence)
    }

    /// The ids of the first positions of a set, as the auditor's own reader finds them.
    fn ids(&self, fold: &PartitionFold, set: &OffsetSet, max: usize) -> BTreeMap<u64, Box<str>> {
        let mut ids = BTreeMap::new();
        let (Some(source), Some(naming)) = (self.flow.source, self.flow.naming) else { return ids };
        let (Some(&(first, _)), Some(&(_, end))) = (set.ranges().first(), set.ranges().last()) else {
            return ids;
        };
        if self.flow.id_is_secret {
            return ids;
        }
        let mut left = max;
        let read = source.read(&fold.at, first, end, &mut |raw| {
            if set.contains(raw.offset) {
                left = left.saturating_sub(1);
                ids.extend(naming.event_id(None, raw).map(|id| (raw.offset, id)));
            }
            if left == 0 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        });
        // A source that can't be read again is told elsewhere; the positions are named all the same.
        drop(read);
        ids
    }

    fn unrecorded(&self) -> Option<Finding> {
        let mut unrecorded = Names::new(self.names_max);
        for (report, fold) in self.reports.iter().zip(self.folds) {
            let positions = report.counts.unrecorded.saturating_sub(fold.unreported.count());
            unrecorded.add_many(positions, || format!("{}: {}", report.at, plural(positions, "position")));
        }
        unrecorded.finding(
            reason::POSITIONS_UNRECORDED,
            "consumed without a record: nobody can ever tell what became of them",
        )
    }

    fn sentence(&self, status: BookStatus, totals: &Totals, with_fate: u64) -> String {
        let Totals { published, open, unknown, .. } = totals;
        match status {
            _ if !unknown.is_empty() => {
                format!("what was published can't be counted: {}", shorten(unknown, self.names_max))
            }
            BookStatus::Balanced => {
                format!("each of {published} published positions has a fate{}", left(self.folds))
            }
            BookStatus::Open => {
                format!("{with_fate} of {published} published positions have a fate, {open} are open")
            }
            BookStatus::Unprovable if *open > 0 => {
                format!(
                    "{with_fate} of {published} published positions have a fate, some without a record, and {open} are open"
                )
            }
            BookStatus::Unprovable => {
                format!("each of {published} published positions is accounted for, but some without a record")
            }
            BookStatus::Imbalanced => {
                format!("{published} positions were published, {with_fate} have a fate, {open} are open")
            }
        }
    }

    fn look(&self, findings: &[Finding], totals: &Totals) -> Vec<String> {
        let mut look = Vec::new();
        if !self.corrupt.is_empty() {
            look.push("keep a copy of the ledger's folder before anything else".to_owned());
        }
        if self.folds.iter().any(|fold| !fold.unreported_waiting.is_empty()) {
            look.push(format!(
                "recount resume {} --because … (once it is known what became of them)",
                self.flow.flow
            ));
        }
        if totals.open > 0 && self.flow.origin == Origin::Reported {
            look.push(
                "whether the consumer runs, and what its posts to /v1/decisions are answered".to_owned(),
            );
        }
        let named = findings.iter().find(|f| f.code != reason::LEDGER_CORRUPT);
        if let Some(name) = named.and_then(|f| f.names.first()) {
            look.push(format!("recount story {}", first_of_range(name)));
        }
        if !totals.unknown.is_empty() {
            look.push(format!("bring back the source of {}, or read it where it is now", self.flow.flow));
        }
        look
    }
}

/// Says how many decisions are only known by their counts.
fn left(folds: &[PartitionFold]) -> String {
    match folds.iter().map(|fold| fold.dropped.count()).sum() {
        0_u64 => String::new(),
        dropped => format!("; {dropped} of them left the ledger with retention and are only counted"),
    }
}
