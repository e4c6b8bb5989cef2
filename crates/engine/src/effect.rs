//! Where events are applied, and the arbiter that says what was.

use async_trait::async_trait;
use recount_checks::{Checked, Event};
use recount_ledger::LedgerId;
use recount_model::{BatchRecord, OffsetSet, PartitionId, Verdict};
use std::sync::Arc;

/// One event that goes to the effect.
#[derive(Debug, Clone)]
pub struct EffectEvent {
    /// The checked event.
    pub event: Arc<Checked<Event>>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// Set when a replay decides it anew.
    pub replay: Option<Replay>,
}

/// Guards a replayed event: the effect's transaction inserts `recount_replay` and a conflict means that
/// it already happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Replay {
    /// The replay.
    pub replay_id: u64,
    /// The seq of the batch whose decision is replaced.
    pub corrects_seq: u64,
}

/// Under which ownership a batch is committed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// The epoch we took the partition with.
    pub epoch: u64,
    /// The seq that the row must still have; the batch makes it one more.
    pub expected_seq: u64,
}

/// What came of one event.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// The statements, `otherwise` or handler say; with evidence as one JSON object (row counts, SQLSTATE,
    /// the handler's answer). A verdict other than `Applied` has left nothing in the transaction.
    Said {
        /// The verdict.
        verdict: Verdict,
        /// Evidence without secrets, where there is any.
        evidence: Option<Box<str>>,
    },
    /// Not tried, since an earlier event of its key in the batch is to be retried.
    Behind,
    /// A replay of it was committed before; nothing was done.
    AlreadyReplayed,
}

/// What is to be committed beside the effects.
#[derive(Debug, Clone)]
pub struct Conclusion {
    /// The record.
    pub record: Arc<BatchRecord>,
    /// Its bytes, for `recount_batch`.
    pub bytes: Arc<[u8]>,
}

/// Turns outcomes (one an event, in order) into the batch's record. Pure; may be called again when the
/// batch is done again.
pub type Conclude = Box<dyn FnMut(&[Outcome]) -> Conclusion + Send>;

/// One batch for one transaction of one partition.
pub struct EffectBatch {
    /// The partition.
    pub at: PartitionId,
    /// The claim: the transaction's first statement.
    pub claim: Claim,
    /// In the order in which they must be applied. May be empty: the batch is claimed all the same.
    pub events: Vec<EffectEvent>,
    /// `recount_batch` rows up to this seq are in the ledger and may be deleted.
    pub ledger_has_seq: u64,
    /// Makes the record from the outcomes.
    pub conclude: Conclude,
}

/// A committed batch.
#[derive(Debug, Clone)]
pub struct Committed {
    /// What was committed.
    pub conclusion: Conclusion,
    /// One an event, in order.
    pub outcomes: Vec<Outcome>,
}

/// What the arbiter knows of a partition, after `epoch` was made ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taken {
    /// Our epoch.
    pub epoch: u64,
    /// The last committed seq; 0 before the first.
    pub seq: u64,
    /// The first offset that isn't decided.
    pub next_offset: u64,
    /// Offsets decided beyond it.
    pub decided_above: OffsetSet,
    /// Whether there was a row before.
    pub existed: bool,
    /// Whether the owner before drained cleanly.
    pub clean: bool,
    /// An event that was alone under way at the last unclean stop, and at how many in a row.
    pub alone: Option<(u64, u32)>,
}

/// Why a batch was not committed. None of these is the event's fault.
#[derive(Debug, thiserror::Error)]
pub enum EffectFault {
    /// Another process owns the partition. Drop the batch: no verdict, no attempt.
    #[error("another process took the partition")]
    NotMine,
    /// Deadlock or serialisation: the batch again, no attempt counted.
    #[error("the database asks to try again: {0}")]
    Again(String),
    /// It can't be reached or refuses to work (table missing, read-only, disk full): pause with backoff.
    #[error("{0}")]
    Away(String),
    /// Nobody knows whether COMMIT happened: recover from the position row.
    #[error("the outcome of the commit is unknown: {0}")]
    CommitUnknown(String),
    /// The database belongs to another ledger, or its recount tables have another format. The flow stops.
    #[error("{0}")]
    Foreign(String),
}

/// Applies batches and keeps the arbiter's rows: `recount_position`, `recount_batch`, `recount_replay`,
/// `recount_effect`, `recount_inbox`. For effects without a transaction of their own the arbiter lies in
/// the ledger's folder.
#[async_trait]
pub trait Effect: Send + Sync {
    /// Reads the row without taking it; `None` where there is none.
    async fn peek(&self, at: &PartitionId) -> Result<Option<Taken>, EffectFault>;

    /// Takes a partition: commits `epoch + 1` and "not clean". Fails with `Foreign` where the row names
    /// another ledger.
    async fn take(&self, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault>;

    /// One batch, one transaction: claim, statements, `recount_effect`, `recount_batch`, `next_offset` and
    /// `decided_above` of the record, commit. Events whose key an earlier `Retry` of the batch holds are
    /// not tried (`Behind`). On an error nothing was committed, except `CommitUnknown`.
    async fn apply(&self, batch: EffectBatch) -> Result<Committed, EffectFault>;

    /// Makes it durable, before the attempt, that this event is alone under way; returns at how many
    /// unclean stops in a row it was before. The next `apply` clears it.
    async fn mark_alone(&self, at: &PartitionId, claim: Claim, offset: u64) -> Result<u32, EffectFault>;

    /// The batches above `seq` that `recount_batch` still holds, ascending: seq and bytes.
    async fn stored_batches(
        &self,
        at: &PartitionId,
        above_seq: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, EffectFault>;

    /// Sets the row to what the ledger or the operator says (`recover`, `--adopt`): a new epoch, this seq
    /// and prefix. Used by commands only, never by the loop.
    async fn reset(
        &self,
        at: &PartitionId,
        ledger: &LedgerId,
        seq: u64,
        next_offset: u64,
        decided_above: &OffsetSet,
    ) -> Result<(), EffectFault>;

    /// A clean drain: the next owner need not go one by one. Everything up to `claim.expected_seq` is in the
    /// ledger by then, and its `recount_batch` rows are deleted.
    async fn release(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault>;
}
