//! Where the loop stands, and what came of each batch, for whoever looks on.

use crate::plan::Plan;
use recount_model::{BatchRecord, Header, PartitionId};
use std::time::Duration;

/// The steps of one batch, in the order of `PROTOCOL`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Asking the source for a batch.
    Take,
    /// Decoding and checking.
    Check,
    /// Inside the effect's transaction: claim and statements.
    Effect,
    /// The record is made; the transaction is about to commit.
    Commit,
    /// Committed; the ledger does not have it yet.
    Ledger,
    /// The ledger has it; the source has not been told yet.
    Settle,
    /// Waiting for something to happen.
    Idle,
}

impl Step {
    /// Every step, in order.
    pub const ALL: [Self; 7] =
        [Self::Take, Self::Check, Self::Effect, Self::Commit, Self::Ledger, Self::Settle, Self::Idle];

    /// One lower-case word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Take => "take",
            Self::Check => "check",
            Self::Effect => "effect",
            Self::Commit => "commit",
            Self::Ledger => "ledger",
            Self::Settle => "settle",
            Self::Idle => "idle",
        }
    }
}

/// Is told each step as the loop reaches it. It must be quick and must not fail.
pub trait Probe: Send + Sync {
    /// The loop is about to do this step.
    fn reached(&self, step: Step);

    /// A batch has committed, or was given up. Told before the ledger has it.
    fn batch_over(&self, _: &BatchOver<'_>) {}
}

/// One batch that is over.
#[derive(Debug)]
pub struct BatchOver<'b> {
    pub(crate) plan: &'b Plan,
    /// What was committed; none where the batch was given up (it will be taken again).
    pub record: Option<&'b BatchRecord>,
    /// From the beginning of the first attempt at the effect to the commit.
    pub took: Duration,
    /// How often the effect could not be done for a reason that is not the events'.
    pub faults: u32,
    /// The last of these, in words.
    pub last_fault: Option<&'b str>,
}

impl BatchOver<'_> {
    /// The partition.
    pub fn at(&self) -> &PartitionId {
        &self.plan.at
    }

    /// The batch's ordinal in its partition.
    pub fn seq(&self) -> u64 {
        self.plan.seq
    }

    /// Each event's offset and headers, in the order to be decided. What a structured CloudEvent brings, and the
    /// flow's `traceparent`, stand among the headers.
    pub fn events(&self) -> impl ExactSizeIterator<Item = (u64, &[Header])> {
        self.plan.events.iter().map(|underway| (underway.offset, underway.meta().headers.as_slice()))
    }

    /// The lowest and the highest offset that the batch has an event of or passes over.
    pub fn offsets(&self) -> Option<(u64, u64)> {
        let of_events = self.plan.events.iter().map(|underway| (underway.offset, underway.offset));
        let of_gaps = self.plan.gaps.iter().map(|gap| (gap.from, gap.to.saturating_sub(1)));
        of_events.chain(of_gaps).reduce(|all, one| (all.0.min(one.0), all.1.max(one.1)))
    }
}

/// Listens to nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoProbe;

impl Probe for NoProbe {
    fn reached(&self, _: Step) {}
}

/// Guards that the simulator takes away one at a time, to show that it would notice. All true in every
/// other use.
#[doc(hidden)]
#[derive(Debug, Clone, Copy)]
pub struct Guards {
    /// Settle only what the ledger has.
    pub ledger_before_settle: bool,
    /// After a crash, append from `recount_batch` what the ledger lacks.
    pub redo_from_batch_rows: bool,
    /// Compare a redelivered position with what was decided.
    pub payload_compare: bool,
}

impl Default for Guards {
    fn default() -> Self {
        Self { ledger_before_settle: true, redo_from_batch_rows: true, payload_compare: true }
    }
}
