//! Counters of a running flow, for metrics and status. The books never come from here.

use recount_model::{BatchRecord, ReasonCode, Timestamp};
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// A flow's counters since it was started.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Decisions by verdict word and reason (empty for applied).
    pub decisions: BTreeMap<(&'static str, String), u64>,
    /// Events that raised each assumption's flag.
    pub flags: BTreeMap<String, u64>,
    /// Attempts that ended in a retry, by reason.
    pub retries: BTreeMap<String, u64>,
    /// Attempts at effects.
    pub attempts: u64,
    /// Positions that never reached us.
    pub lost_positions: u64,
    /// Taken from the source and not decided yet, by partition.
    pub open: BTreeMap<String, u64>,
    /// When the oldest of these was taken, by partition.
    pub oldest_open: BTreeMap<String, Timestamp>,
    /// Waiting behind a held key, by partition.
    pub held: BTreeMap<String, u64>,
    /// Known to exist beyond what was taken, by partition.
    pub backlog: BTreeMap<String, u64>,
    /// Batches committed.
    pub batches: u64,
    /// Why the flow is paused.
    pub paused: Option<String>,
    /// What the effect's database or handler said when it was last away; empty again once it works.
    pub away: Option<String>,
    /// The event time or decision time of the last decision, in Unix milliseconds.
    pub last_decided_ms: Option<i64>,
}

/// Shared counters of a flow.
#[derive(Debug, Default)]
pub struct FlowStats {
    counts: Mutex<FlowCounts>,
}

impl FlowStats {
    /// Counters at zero, with every declared reason present.
    pub fn new<'a>(skips_and_dead_letters: impl IntoIterator<Item = (&'static str, &'a ReasonCode)>) -> Self {
        let stats = Self::default();
        {
            let mut counts = stats.lock();
            counts.decisions.insert(("applied", String::new()), 0);
            for (verdict, code) in skips_and_dead_letters {
                counts.decisions.insert((verdict, code.to_string()), 0);
            }
        }
        stats
    }

    /// A copy of them all.
    pub fn snapshot(&self) -> FlowCounts {
        self.lock().clone()
    }

    /// Adds a committed batch.
    pub fn observe(&self, record: &BatchRecord, attempts: u64) {
        let mut counts = self.lock();
        counts.batches += 1;
        counts.attempts += attempts;
        for decision in &record.decisions {
            let code = decision.fate.reason().map_or("", |r| r.code.as_str());
            match counts.decisions.get_mut(&(decision.fate.word(), code.to_owned())) {
                Some(count) => *count += 1,
                None => {
                    counts.decisions.insert((decision.fate.word(), code.to_owned()), 1);
                }
            }
            for flag in &decision.flags {
                *counts.flags.entry(flag.to_string()).or_default() += 1;
            }
        }
        for gap in record.gaps.iter().filter(|g| g.kind == recount_model::GapKind::Lost) {
            counts.lost_positions += gap.to - gap.from;
        }
        counts.last_decided_ms = Some(record.decided_at.0);
    }

    /// A partition is not this process's any more.
    pub(crate) fn forget(&self, partition: &str) {
        let mut counts = self.lock();
        counts.open.remove(partition);
        counts.oldest_open.remove(partition);
        counts.held.remove(partition);
        counts.backlog.remove(partition);
    }

    /// Changes some of them.
    pub fn update(&self, change: impl FnOnce(&mut FlowCounts)) {
        change(&mut self.lock());
    }

    fn lock(&self) -> MutexGuard<'_, FlowCounts> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
