//! The seam of the ledger's storage: what the engine writes and what readers ask. SQLite is inside this
//! crate; another store (PostgreSQL) is an adapter.

use recount_model::{
    BatchRecord, ConfigVersion, Decision, Fate, FlowName, Gap, KeptBody, OffsetSet, PartitionId, PayloadHash,
    ReasonCode, Timestamp,
};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Names one ledger; the arbiter remembers it, so that a database can't be used under another.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct LedgerId(pub String);

/// Why the ledger could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// The disk is full, the folder is read-only, or the file system refused.
    #[error("the ledger can't be written: {0}")]
    Unwritable(String),
    /// The database that holds it can't be reached.
    #[error("the ledger's database can't be reached: {0}")]
    Away(String),
    /// A record can't be read back, or breaks what must hold.
    #[error("the ledger is corrupt: {0}")]
    Corrupt(String),
    /// An earlier commit failed; nothing more is written until a restart.
    #[error("the ledger stopped after a failed commit: {0}")]
    Poisoned(String),
    /// Another process has it.
    #[error("the ledger {path} is in use by process {holder}: ask that instance, or stop it first")]
    Locked {
        /// The folder.
        path: String,
        /// What the lock file says.
        holder: String,
    },
    /// There is none there.
    #[error("there is no ledger at {0}: run a flow first, or name the folder")]
    Missing(String),
    /// The folder and the config don't belong together.
    #[error("{0}")]
    Foreign(String),
    /// It was written by a newer program.
    #[error(
        "the ledger was written in format {found}, this program reads up to {known}: use a newer recount"
    )]
    TooNew {
        /// Its version.
        found: u32,
        /// Ours.
        known: u32,
    },
}

/// A batch and its bytes as the codec packed them; the same bytes travel in `recount_batch`.
#[derive(Debug, Clone)]
pub struct EncodedBatch {
    /// The record.
    pub record: Arc<BatchRecord>,
    /// `codec::encode(&record)`.
    pub bytes: Arc<[u8]>,
}

/// How far the ledger is in one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mark {
    /// The highest seq it holds.
    pub seq: u64,
    /// After that batch.
    pub next_offset: u64,
    /// After that batch.
    pub decided_above: OffsetSet,
}

/// What the duplicate window needs of an earlier event.
#[derive(Debug, Clone, PartialEq)]
pub struct RecentEvent {
    /// Its offset.
    pub offset: u64,
    /// Its full id.
    pub event_id: Box<str>,
    /// Hash of id and payload.
    pub payload_hash: PayloadHash,
    /// Whether its current fate is a dead letter.
    pub dead_lettered: bool,
}

/// What an entry of the journal is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum JournalKind {
    /// A config version began.
    Config,
    /// An operator did something: pause, resume, accept, adopt, replay, forget, mark.
    Operator,
    /// The flow did something of its own: breaker, pause, lost range, unclean stop, source changed.
    Flow,
    /// A statement of the audit.
    Audit,
    /// An alert and its delivery.
    Alert,
}

/// One entry of the journal; append-only.
#[derive(Debug, Clone, PartialEq)]
pub struct JournalEntry {
    /// What it is about.
    pub kind: JournalKind,
    /// The flow, where it is about one.
    pub flow: Option<FlowName>,
    /// A reason code or verb: `paused`, `breaker_open`, `resumed` …
    pub what: String,
    /// When it happened; the store sets `persisted_at` itself.
    pub at: Timestamp,
    /// When it was persisted (filled by the store when read).
    pub persisted_at: Timestamp,
    /// One JSON object.
    pub detail: serde_json::Value,
}

/// A config version as the journal keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredConfig {
    /// Its ordinal.
    pub version: ConfigVersion,
    /// BLAKE3 of the text and of the schemas it names, hex.
    pub hash: String,
    /// The file as written; secrets stand in it unresolved.
    pub text: String,
    /// Other files it refers to (schemas): name and text.
    pub files: Vec<(String, String)>,
    /// `RECOUNT_AUTHOR`, else git, else `unknown`.
    pub author: String,
    /// `RECOUNT_REVISION`, else git, else `unknown`.
    pub revision: String,
    /// When it began.
    pub since: Timestamp,
}

/// What the engine needs of a ledger. Every method that writes returns only when what it wrote would
/// survive a loss of power. After an error of a write the store is poisoned.
pub trait LedgerStore: Send {
    /// Which ledger this is.
    fn id(&self) -> LedgerId;

    /// Appends whole batches, in order, in one commit. A batch whose (partition, seq) is already there is
    /// passed over. A seq that leaves a gap above the partition's mark is refused as corrupt.
    fn append(&mut self, batches: &[EncodedBatch], persisted_at: Timestamp) -> Result<(), LedgerError>;

    /// How far it is in a partition; `None` where it never saw it.
    fn mark(&mut self, at: &PartitionId) -> Result<Option<Mark>, LedgerError>;

    /// The partitions (all incarnations) of a flow that it has seen, oldest first.
    fn partitions(&mut self, flow: &FlowName) -> Result<Vec<PartitionId>, LedgerError>;

    /// The current decision at an offset, with the seq of its batch.
    fn current(&mut self, at: &PartitionId, offset: u64) -> Result<Option<(u64, Decision)>, LedgerError>;

    /// The last `events_max` decided events of a partition that have an id of their own, newest first:
    /// without those that were refused as `duplicate` or `id_reused`.
    fn recent(&mut self, at: &PartitionId, events_max: usize) -> Result<Vec<RecentEvent>, LedgerError>;

    /// Keys whose last attempt failed, as the current decisions say (`retries_exhausted`), since an operator
    /// last resumed the flow. With `after_last = "stay-held"` they are held, also after a restart.
    fn keys_exhausted(&mut self, at: &PartitionId) -> Result<Vec<Box<str>>, LedgerError>;

    /// Appends to the journal and returns the entry's ordinal.
    fn journal(&mut self, entry: &JournalEntry) -> Result<u64, LedgerError>;

    /// The version of this config: an earlier one where hash, author and revision are those of the latest,
    /// else a new one. `version` of the argument is ignored.
    fn config(&mut self, config: &StoredConfig) -> Result<ConfigVersion, LedgerError>;

    /// Takes in what other processes wrote meanwhile, where the ledger is shared; asked about every second.
    fn catch_up(&mut self) -> Result<(), LedgerError> {
        Ok(())
    }

    /// Seals and drops segments as the settings say; called now and then, and at a drain.
    fn maintain(&mut self, now: Timestamp) -> Result<(), LedgerError>;
}

/// A batch as stored, without its decisions.
#[derive(Debug, Clone, PartialEq)]
pub struct BatchHeader {
    /// The partition.
    pub at: PartitionId,
    /// The ownership.
    pub epoch: u64,
    /// Ordinal within the partition.
    pub seq: u64,
    /// The place in the ledger's own order over all partitions: the order decided.
    pub ordinal: u64,
    /// The config version.
    pub config: ConfigVersion,
    /// When taken from the source.
    pub taken_at: Timestamp,
    /// When decided.
    pub decided_at: Timestamp,
    /// When durable here.
    pub persisted_at: Timestamp,
    /// After the batch.
    pub next_offset: u64,
    /// After the batch.
    pub decided_above: OffsetSet,
}

/// A batch as stored, with runs in place of its decisions: what counting needs, cheap to read.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredBatch {
    /// The header.
    pub header: BatchHeader,
    /// Equal decisions in a row, in the order decided: fate, flags and how many.
    pub runs: Vec<Run>,
    /// Positions passed over.
    pub gaps: Vec<Gap>,
}

/// Neighbouring offsets that got the same fate.
#[derive(Debug, Clone, PartialEq)]
pub struct Run {
    /// First offset.
    pub from: u64,
    /// One past the last.
    pub to: u64,
    /// The fate; the sentence of its reason is empty here.
    pub fate: Fate,
    /// Flags that every event of the run has.
    pub flags: Vec<ReasonCode>,
    /// Whether they count as *received* (decoded, not a duplicate).
    pub received: bool,
    /// Whether these are corrections of earlier decisions.
    pub correction: bool,
}

/// One decision as stored.
#[derive(Debug, Clone, PartialEq)]
pub struct StoredDecision {
    /// Its batch.
    pub header: Arc<BatchHeader>,
    /// The decision.
    pub decision: Decision,
    /// Whether no later decision corrects it.
    pub current: bool,
}

/// Which decisions. All conditions must hold; an empty filter takes everything.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Of this flow.
    pub flow: Option<FlowName>,
    /// Of this partition (by name, every incarnation).
    pub partition: Option<String>,
    /// At or above.
    pub offset_from: Option<u64>,
    /// Below.
    pub offset_to: Option<u64>,
    /// With exactly this id.
    pub event_id: Option<String>,
    /// With exactly this key.
    pub key: Option<String>,
    /// With this verdict's word: `applied`, `skipped`, `dead-lettered`.
    pub verdict: Option<String>,
    /// With this reason, or with this flag raised.
    pub reason: Option<ReasonCode>,
    /// Decided at or after.
    pub from: Option<Timestamp>,
    /// Decided before.
    pub to: Option<Timestamp>,
    /// In batches at or after this place in the order decided (`BatchHeader::ordinal`).
    pub ordinal_from: Option<u64>,
    /// Also those that were corrected.
    pub superseded: bool,
}

/// What readers ask. Works beside a writer, after a crash, and on a read-only mount.
pub trait LedgerRead {
    /// Which ledger this is.
    fn id(&self) -> LedgerId;

    /// Brings what is read up to what is durable now: a replica may be behind for a moment. What is asked afterwards
    /// sees whatever was recorded before this was called.
    fn refresh(&self) -> Result<(), LedgerError> {
        Ok(())
    }

    /// Every partition it has seen, oldest first.
    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError>;

    /// How far it is in a partition.
    fn mark(&self, at: &PartitionId) -> Result<Option<Mark>, LedgerError>;

    /// What left with dropped segments: of those decisions, only this is left.
    fn dropped(&self) -> Result<Vec<crate::books::ClosedBook>, LedgerError> {
        Ok(Vec::new())
    }

    /// Batches of a flow (or all) in the order decided.
    fn batches(
        &self,
        flow: Option<&FlowName>,
        visit: &mut dyn FnMut(&StoredBatch) -> ControlFlow<()>,
    ) -> Result<(), LedgerError>;

    /// Decisions in the order decided.
    fn decisions(
        &self,
        filter: &DecisionFilter,
        visit: &mut dyn FnMut(&StoredDecision) -> ControlFlow<()>,
    ) -> Result<(), LedgerError>;

    /// The kept body of an event.
    fn body(&self, at: &PartitionId, offset: u64) -> Result<Option<KeptBody>, LedgerError>;

    /// Config versions, oldest first.
    fn configs(&self) -> Result<Vec<StoredConfig>, LedgerError>;

    /// Journal entries, oldest first, with their ordinals; `flow` takes also entries about no flow.
    fn journal(&self, flow: Option<&FlowName>) -> Result<Vec<(u64, JournalEntry)>, LedgerError>;
}
