//! Who is asked besides the ledger: the source, and the database.

use recount_checks::RawEvent;
use recount_model::{Amount, FlowName, OffsetSet, PartitionId};
use std::ops::ControlFlow;

/// Why a witness can't tell. Whatever depends on it is *unprovable*, never balanced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum WitnessError {
    /// What was asked about is no longer there: the file was removed, the table was dropped.
    #[error("{0}")]
    Gone(String),
    /// Another incarnation stands where the recorded one was.
    #[error("{0}")]
    Changed(String),
    /// It can't be asked now: no connection, no permission, an answer that can't be read.
    #[error("{0}")]
    Unreachable(String),
}

/// What a source says it holds of a partition: `first..end`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Published {
    /// The lowest offset that can still be read.
    pub first: u64,
    /// One past the highest.
    pub end: u64,
}

/// The source, asked again by the auditor's own reader.
///
/// * Every method may be called in any order and any number of times; none changes anything.
/// * An error means "can't tell"; it never stands for an empty answer.
pub trait SourceWitness {
    /// The partitions that are there now, with their present incarnation.
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError>;

    /// What the partition holds. `Changed` where the incarnation that `at` names is not the one there.
    fn published(&self, at: &PartitionId) -> Result<Published, WitnessError>;

    /// Visits the records that carry an event, `from..to`, in the order of their offsets. Positions that
    /// carry none (blank lines, control records) are passed over. `taken_at` of the records is not used.
    fn read(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError>;
}

/// A row of `recount_position`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PositionRow {
    /// The partition.
    pub at: PartitionId,
    /// The seq of the last batch that the database committed.
    pub seq: u64,
    /// After that batch.
    pub next_offset: u64,
    /// After that batch.
    pub decided_above: OffsetSet,
    /// The ledger that the database belongs to.
    pub ledger_id: String,
}

/// The database, or whatever else holds the effects.
pub trait EffectWitness {
    /// Begins one snapshot: everything that is asked of it shows the same instant.
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError>;
}

/// One snapshot of the effects.
pub trait EffectSnapshot {
    /// The flow's position rows: the *cut* of this snapshot. Empty where the flow never committed here.
    fn positions(&self, flow: &FlowName) -> Result<Vec<PositionRow>, WitnessError>;

    /// Seqs above `above_seq` that `recount_batch` holds, ascending.
    fn stored_batches(&self, at: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError>;

    /// Visits the partition's rows of `recount_effect` with an offset in `from..to`, in any order; an
    /// offset that stands twice is visited twice.
    fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError>;

    /// Visits column `id` of each row of the user's own query, as text, in any order.
    fn custom_ids(
        &self,
        sql: &str,
        id: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError>;

    /// How many effects the user's own query tells: the number in its only row and column, else how many
    /// rows it gives.
    fn custom_count(&self, sql: &str) -> Result<u64, WitnessError>;

    /// The right side of a reconcile: visits `(group, amount)` where `by_group`, else one row without a
    /// group. NULL is nothing. A value that is no number is `Unreachable` with a sentence that says so.
    fn reconcile(
        &self,
        sql: &str,
        by_group: bool,
        visit: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError>;
}
