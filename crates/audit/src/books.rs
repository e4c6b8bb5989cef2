//! The ledger's side of the books, as a fold over its batches.

use crate::fingerprint::ChunkSums;
use crate::report::{ReasonReport, counts_json};
use recount_ledger::store::Run;
use recount_ledger::{ClosedBook, DecisionFilter, LedgerError, LedgerRead, Mark, StoredBatch};
use recount_model::{
    BookCounts, BookStatus, Fate, FlowName, Gap, GapKind, OffsetSet, PartitionId, Reason, ReasonCode,
    Timestamp,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, HashMap};
use std::ops::ControlFlow;

/// Counts by verdict and reason. Exactly one decision of each position counts: the current one.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Books {
    /// The law's terms.
    pub counts: BookCounts,
    /// Skipped, by reason.
    pub skipped: BTreeMap<ReasonCode, u64>,
    /// Dead-lettered, by reason.
    pub dead_lettered: BTreeMap<ReasonCode, u64>,
    /// Assumptions that events broke, whatever became of them.
    pub flagged: BTreeMap<ReasonCode, u64>,
    /// Decisions that replaced an earlier one.
    pub corrections: u64,
}

impl Books {
    /// Adds `count` current decisions of this fate.
    pub fn add_fate(&mut self, fate: &Fate, count: u64) {
        let (total, by_reason) = self.places(fate);
        *total += count;
        if let (Some(map), Some(reason)) = (by_reason, fate.reason()) {
            match map.get_mut(&reason.code) {
                Some(n) => *n += count,
                None => drop(map.insert(reason.code.clone(), count)),
            }
        }
    }

    /// Takes one decision back, since another corrects it.
    pub fn remove_fate(&mut self, fate: &Fate) {
        let (total, by_reason) = self.places(fate);
        *total = total.saturating_sub(1);
        if let (Some(map), Some(reason)) = (by_reason, fate.reason())
            && let Some(n) = map.get_mut(&reason.code)
        {
            *n = n.saturating_sub(1);
        }
    }

    fn places(&mut self, fate: &Fate) -> (&mut u64, Option<&mut BTreeMap<ReasonCode, u64>>) {
        match fate {
            Fate::Applied => (&mut self.counts.applied, None),
            Fate::Skipped(_) => (&mut self.counts.skipped, Some(&mut self.skipped)),
            Fate::DeadLettered(_) => (&mut self.counts.dead_lettered, Some(&mut self.dead_lettered)),
        }
    }

    /// Adds another partition's books.
    pub fn add(&mut self, other: &Self) {
        self.counts.add(&other.counts);
        self.corrections += other.corrections;
        for (mine, theirs) in [
            (&mut self.skipped, &other.skipped),
            (&mut self.dead_lettered, &other.dead_lettered),
            (&mut self.flagged, &other.flagged),
        ] {
            for (code, count) in theirs {
                *mine.entry(code.clone()).or_default() += count;
            }
        }
    }

    /// Each reason and flag with its count; those without any are left out.
    pub fn reasons(&self) -> Vec<ReasonReport> {
        [("skipped", &self.skipped), ("dead-lettered", &self.dead_lettered), ("flagged", &self.flagged)]
            .into_iter()
            .flat_map(|(verdict, map)| {
                map.iter().filter(|(_, n)| **n > 0).map(move |(reason, n)| ReasonReport {
                    verdict,
                    reason: reason.clone(),
                    events: *n,
                })
            })
            .collect()
    }

    /// A share of what was decided, in percent.
    pub fn percent_of_decided(&self, events: u64) -> f64 {
        match self.counts.decided() {
            0 => 0.0,
            decided => 100.0 * events as f64 / decided as f64,
        }
    }

    /// The JSON form, with the law's terms as keys.
    pub fn json(&self) -> Value {
        let mut json = counts_json(&self.counts);
        json["corrections"] = self.corrections.into();
        json["share_skipped_percent"] = self.percent_of_decided(self.counts.skipped).into();
        json["share_dead-lettered_percent"] = self.percent_of_decided(self.counts.dead_lettered).into();
        json["reasons"] = self
            .reasons()
            .iter()
            .map(|r| json!({ "verdict": r.verdict, "reason": r.reason.as_str(), "events": r.events }))
            .collect();
        json
    }
}

/// How far a partition is read, so that all sides show the same instant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Cut {
    /// Batches above are younger than the audit and left out.
    pub ledger_seq: u64,
    /// What the effects' snapshot had committed; none where there is no snapshot.
    pub effect_seq: Option<u64>,
    /// What the ledger had before that snapshot: an effect below is missing if the snapshot lacks it.
    pub ledger_seq_before: u64,
}

impl Cut {
    /// The last batch that both the ledger and the snapshot have.
    pub fn common_seq(&self) -> u64 {
        self.effect_seq.map_or(self.ledger_seq, |seq| seq.min(self.ledger_seq))
    }
}

/// One partition, as its batches add up.
#[derive(Debug, Clone)]
pub(crate) struct PartitionFold {
    pub at: PartitionId,
    pub cut: Cut,
    pub books: Books,
    /// Positions with a fate.
    pub covered: OffsetSet,
    /// Positions for which the source's record, if it has one, is not looked up in the ledger.
    pub lost_or_unrecorded: OffsetSet,
    /// Positions with a correction.
    pub corrected: OffsetSet,
    /// Positions that were decided twice, neither correcting the other.
    pub twice: OffsetSet,
    /// Corrections of positions that were never decided.
    pub correction_of_nothing: OffsetSet,
    /// Applied at the common cut, before corrections are taken into account.
    pub applied: ChunkSums,
    /// Positions whose batches the effects' snapshot lacks although the ledger had them before.
    pub rolled_back: OffsetSet,
    pub rolled_back_since: Option<Timestamp>,
    /// `next_offset` and `decided_above` of the batch at the effects' seq.
    pub at_effect_seq: Option<(u64, OffsetSet)>,
    /// After the last batch.
    pub next_offset: u64,
    pub decided_above: OffsetSet,
    pub last_seq: u64,
    pub missing_batches: OffsetSet,
    pub last_decided_at: Option<Timestamp>,
    /// Positions without an event that nothing follows so far, such as a transaction's marker.
    pub no_event_at_end: Option<(u64, u64)>,
    /// When a loss, and when an unrecorded range that was adopted, was last recorded.
    pub lost_at: Option<Timestamp>,
    pub unrecorded_at: Option<Timestamp>,
    /// Positions that the flow's own consumer went past without a report; and those of them that were recorded
    /// since an operator last accepted.
    pub unreported: OffsetSet,
    pub unreported_waiting: OffsetSet,
    /// When an operator last accepted what was recorded until then.
    pub accepted_at: Option<Timestamp>,
    /// Positions whose decisions left with retention, and the last batch of theirs.
    pub dropped: OffsetSet,
    pub dropped_seq: u64,
    /// Decisions told by runs, corrections included: applied, skipped, dead-lettered.
    pub told_by_runs: [u64; 3],
    position_key: u64,
}

/// The place of a fate in arrays of three.
pub(crate) fn fate_index(fate: &Fate) -> usize {
    match fate {
        Fate::Applied => 0,
        Fate::Skipped(_) => 1,
        Fate::DeadLettered(_) => 2,
    }
}

impl PartitionFold {
    pub fn new(at: PartitionId, cut: Cut, position_key: u64) -> Self {
        Self {
            at,
            cut,
            books: Books::default(),
            covered: OffsetSet::new(),
            lost_or_unrecorded: OffsetSet::new(),
            corrected: OffsetSet::new(),
            twice: OffsetSet::new(),
            correction_of_nothing: OffsetSet::new(),
            applied: ChunkSums::default(),
            rolled_back: OffsetSet::new(),
            rolled_back_since: None,
            at_effect_seq: None,
            next_offset: 0,
            decided_above: OffsetSet::new(),
            last_seq: 0,
            missing_batches: OffsetSet::new(),
            last_decided_at: None,
            no_event_at_end: None,
            lost_at: None,
            unrecorded_at: None,
            unreported: OffsetSet::new(),
            unreported_waiting: OffsetSet::new(),
            accepted_at: None,
            dropped: OffsetSet::new(),
            dropped_seq: 0,
            told_by_runs: [0; 3],
            position_key,
        }
    }

    /// Whether a position ought to have a fate: everything below the prefix, and what is decided beyond.
    pub fn is_closed(&self, offset: u64) -> bool {
        offset < self.next_offset || self.decided_above.contains(offset) || self.covered.contains(offset)
    }

    /// Adds a batch; batches of a partition come in the order of their seq.
    pub fn add(&mut self, batch: &StoredBatch) {
        let header = &batch.header;
        if header.seq > self.cut.ledger_seq {
            return;
        }
        // Only a batch that adopts unrecorded positions may leave seqs out.
        let adopts = batch.gaps.iter().any(Gap::is_adopted);
        if self.last_seq > 0 && !adopts {
            self.missing_batches.insert_range(self.last_seq + 1, header.seq);
        }
        self.last_seq = header.seq;
        self.next_offset = header.next_offset;
        self.decided_above = header.decided_above.clone();
        self.last_decided_at = self.last_decided_at.max(Some(header.decided_at));
        if Some(header.seq) == self.cut.effect_seq {
            self.at_effect_seq = Some((header.next_offset, header.decided_above.clone()));
        }
        let rolled_back = self.cut.effect_seq.is_some_and(|seq| header.seq > seq)
            && header.seq <= self.cut.ledger_seq_before;
        if rolled_back && self.rolled_back_since.is_none() {
            self.rolled_back_since = Some(header.decided_at);
        }
        self.note_end_without_event(batch);
        for run in &batch.runs {
            self.add_run(run, header.seq);
            if rolled_back {
                self.rolled_back.insert_range(run.from, run.to);
            }
        }
        for gap in &batch.gaps {
            note_overlap(&self.covered, gap.from, gap.to, &mut self.twice);
            self.covered.insert_range(gap.from, gap.to);
            self.books.counts.add_gap(gap.kind, gap.to.saturating_sub(gap.from));
            match gap.kind {
                // The source may hold events there; they are not this flow's.
                GapKind::NotAnEvent if gap.is_before_start() => {}
                GapKind::NotAnEvent => continue,
                GapKind::Lost => self.lost_at = Some(header.decided_at),
                GapKind::Unrecorded if gap.is_unreported() => {
                    self.unreported.insert_range(gap.from, gap.to);
                    if self.accepted_at < Some(header.decided_at) {
                        self.unreported_waiting.insert_range(gap.from, gap.to);
                    }
                }
                GapKind::Unrecorded => self.unrecorded_at = Some(header.decided_at),
            }
            self.lost_or_unrecorded.insert_range(gap.from, gap.to);
        }
    }

    /// Keeps the last positions where they carry no event, merged with those that they adjoin.
    fn note_end_without_event(&mut self, batch: &StoredBatch) {
        let mut last = self.no_event_at_end;
        for gap in batch.gaps.iter().filter(|gap| gap.kind == GapKind::NotAnEvent && !gap.is_before_start()) {
            last = match last {
                Some((from, to)) if gap.from == to => Some((from, gap.to)),
                Some((_, to)) if gap.to <= to => last,
                _ => Some((gap.from, gap.to)),
            };
        }
        let last_event = batch.runs.iter().map(|run| run.to).max().unwrap_or(0);
        self.no_event_at_end = last.filter(|(_, to)| *to > last_event);
    }

    /// Adds what is left of dropped decisions, before any batch is added.
    pub fn add_dropped(&mut self, book: &ClosedBook) {
        for &(from, to) in book.covered.ranges() {
            self.covered.insert_range(from, to);
            self.dropped.insert_range(from, to);
        }
        let counts = &mut self.books.counts;
        counts.add_gap(GapKind::Lost, book.lost);
        counts.add_gap(GapKind::NotAnEvent, book.not_an_event);
        counts.add_gap(GapKind::Unrecorded, book.unrecorded);
        for line in &book.lines {
            let reason = line.reason.clone().map(|code| Reason::new(code, ""));
            let fate = match (line.verdict, reason) {
                ("skipped", Some(reason)) => Fate::Skipped(reason),
                ("dead-lettered", Some(reason)) => Fate::DeadLettered(reason),
                _ => Fate::Applied,
            };
            self.books.add_fate(&fate, line.decisions);
            self.books.corrections += if line.correction { line.decisions } else { 0 };
        }
        self.dropped_seq = self.dropped_seq.max(book.seq_to);
        self.last_seq = self.dropped_seq;
    }

    /// Whether a decision left with retention, apart from its copy if it is a dead letter that nobody
    /// resolved.
    pub fn is_dropped(&self, seq: u64) -> bool {
        seq <= self.dropped_seq
    }

    /// Closes the fold with what the ledger itself says of the partition at the cut.
    pub fn close(&mut self, mark: &Mark) {
        self.missing_batches.insert_range(self.last_seq + 1, mark.seq + 1);
        self.next_offset = self.next_offset.max(mark.next_offset);
        for &(from, to) in mark.decided_above.ranges() {
            self.decided_above.insert_range(from, to);
        }
    }

    /// Positions of `from..to` that ought to have a fate and have none.
    pub fn missing(&self, from: u64, to: u64) -> OffsetSet {
        let mut missing = self.covered.missing_within(from, to.min(self.next_offset));
        for &(begin, end) in self.decided_above.ranges() {
            for &(begin, end) in self.covered.missing_within(begin, end).ranges() {
                missing.insert_range(begin, end);
            }
        }
        missing
    }

    /// How many positions of `from..to` are not decided yet.
    pub fn open(&self, from: u64, to: u64) -> u64 {
        let mut open = self.covered.missing_within(from.max(self.next_offset), to);
        for &(begin, end) in self.decided_above.ranges() {
            open.remove_range(begin, end);
        }
        open.count()
    }

    fn add_run(&mut self, run: &Run, seq: u64) {
        let events = run.to.saturating_sub(run.from);
        self.books.add_fate(&run.fate, events);
        self.told_by_runs[fate_index(&run.fate)] += events;
        if run.correction {
            self.books.corrections += events;
            self.corrected.insert_range(run.from, run.to);
            let mut covered = OffsetSet::new();
            note_overlap(&self.covered, run.from, run.to, &mut covered);
            for &(from, to) in covered.missing_within(run.from, run.to).ranges() {
                self.correction_of_nothing.insert_range(from, to);
            }
            return;
        }
        for flag in &run.flags {
            match self.books.flagged.get_mut(flag) {
                Some(n) => *n += events,
                None => drop(self.books.flagged.insert(flag.clone(), events)),
            }
        }
        note_overlap(&self.covered, run.from, run.to, &mut self.twice);
        self.covered.insert_range(run.from, run.to);
        if matches!(run.fate, Fate::Applied) && seq <= self.cut.common_seq() {
            self.applied.add_positions(self.position_key, run.from, run.to);
        }
    }
}

/// Adds to `overlap` what of `from..to` is in `set` already.
fn note_overlap(set: &OffsetSet, from: u64, to: u64, overlap: &mut OffsetSet) {
    let ranges = set.ranges();
    let first = ranges.partition_point(|&(_, end)| end <= from);
    for &(begin, end) in ranges[first..].iter().take_while(|&&(begin, _)| begin < to) {
        overlap.insert_range(begin.max(from), end.min(to));
    }
}

/// The ledger's side of a flow only, without any witness: `published` is what has a fate. For the summary
/// at the end of a run.
pub fn books(ledger: &dyn LedgerRead, flow: &FlowName) -> Result<Books, LedgerError> {
    let mut folds: HashMap<PartitionId, PartitionFold> = HashMap::new();
    let cut = Cut { ledger_seq: u64::MAX, effect_seq: Some(0), ledger_seq_before: 0 };
    for book in ledger.dropped()?.iter().filter(|book| book.at.flow == *flow) {
        let empty = || PartitionFold::new(book.at.clone(), cut.clone(), 0);
        folds.entry(book.at.clone()).or_insert_with(empty).add_dropped(book);
    }
    ledger.batches(Some(flow), &mut |batch| {
        let at = &batch.header.at;
        if !folds.contains_key(at) {
            folds.insert(at.clone(), PartitionFold::new(at.clone(), cut.clone(), 0));
        }
        if let Some(fold) = folds.get_mut(at) {
            fold.add(batch);
        }
        ControlFlow::Continue(())
    })?;
    if folds.values().any(|fold| !fold.corrected.is_empty()) {
        let filter = DecisionFilter { flow: Some(flow.clone()), superseded: true, ..Default::default() };
        ledger.decisions(&filter, &mut |stored| {
            if !stored.current
                && let Some(fold) = folds.get_mut(&stored.header.at)
            {
                fold.books.remove_fate(&stored.decision.fate);
            }
            ControlFlow::Continue(())
        })?;
    }
    let mut total = Books::default();
    folds.values().for_each(|fold| total.add(&fold.books));
    let counts = &mut total.counts;
    counts.published = counts.decided() + counts.lost + counts.not_an_event + counts.unrecorded;
    Ok(total)
}

impl Books {
    /// What the counts allow to be said; see [`BookCounts::status`].
    pub fn status(&self) -> BookStatus {
        self.counts.status()
    }
}
