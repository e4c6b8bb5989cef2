//! Where deliveries come from.

use async_trait::async_trait;
use recount_model::{Gap, Header, Partition, SourceId, Verdict};
use std::sync::Arc;

/// What a source can do; the conformance suite tests what is declared here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capabilities {
    /// Deliveries of a partition come in the order of their offsets.
    pub ordered: bool,
    /// Deliveries have positions that stay the same for ever.
    pub positions: bool,
    /// What isn't settled comes again.
    pub redelivers: bool,
    /// Any offset can be read again at any time.
    pub replayable: bool,
    /// A range that is gone before it was taken is told as lost, and reading goes on behind it; otherwise the
    /// source is another one then, and the flow stops.
    pub tells_lost: bool,
    /// The broker keeps an offset for the flow, which others can move.
    pub commits_offset: bool,
}

/// One partition as the source sees it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourcePartition {
    /// The incarnation.
    pub source: SourceId,
    /// Its name.
    pub partition: Partition,
    /// Where people find it: path, topic.
    pub place: String,
}

/// Limits of one take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TakeLimits {
    /// At most so many deliveries.
    pub events_max: usize,
    /// At most so many payload bytes, but always one delivery.
    pub bytes_max: usize,
    /// Wait at most so long for the first, and then take what is there.
    pub wait_ms: u64,
    /// A payload is kept up to this many bytes; what is longer is cut and its length told.
    pub payload_bytes_max: usize,
}

/// Why a source can't go on.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It can't be reached now; try again later.
    #[error("{0}")]
    Away(String),
    /// It is another incarnation than the one decided so far. The flow stops and asks.
    #[error("{0}")]
    Changed(String),
    /// It can't be read at all: no such file, no permission, damaged archive.
    #[error("{0}")]
    Broken(String),
    /// Another process reads under this one's name. The flow stops.
    #[error("{0}")]
    Taken(String),
}

/// One delivery: not `Clone`. Settling consumes it; dropped unsettled it is *not acknowledged* and comes
/// again.
///
/// ```compile_fail
/// fn twice(delivery: recount_engine::Delivery) {
///     let first = delivery.settle();
///     let second = delivery.settle();   // use of moved value
/// }
/// ```
#[derive(Debug)]
pub struct Delivery {
    /// Offset within the partition.
    pub offset: u64,
    /// The bytes, at most `payload_bytes_max + 1` of them.
    pub payload: Arc<[u8]>,
    /// The length before it was cut.
    pub payload_bytes: u64,
    /// The delivery's headers.
    pub headers: Vec<Header>,
    /// The broker's key.
    pub broker_key: Option<Box<str>>,
    /// What the flow's own consumer did with it, where that one owns the loop and reports.
    pub reported: Option<Box<ReportedVerdict>>,
}

/// What a consumer that owns its loop reported of a delivery. It stands, whatever the checks say: what the
/// consumer did is what happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReportedVerdict {
    /// Never `Retry`.
    pub verdict: Verdict,
    /// Whether its reason is one that the flow's checks give, so that they must have found it too.
    pub is_of_check: bool,
    /// What the consumer said, where the verdict does not say it all; one JSON object.
    pub evidence: Option<Box<str>>,
}

/// Proof that a delivery's decision is durable; only [`Delivery::settle`] makes one.
#[derive(Debug)]
#[must_use = "hand it to the reader, or the delivery comes again"]
pub struct Settled {
    offset: u64,
}

impl Settled {
    /// Which delivery.
    pub fn offset(&self) -> u64 {
        self.offset
    }
}

impl Delivery {
    /// Gives the delivery back once its decision is durable.
    pub fn settle(self) -> Settled {
        Settled { offset: self.offset }
    }
}

/// What one take brought.
#[derive(Debug, Default)]
pub struct Polled {
    /// In the order of their offsets.
    pub deliveries: Vec<Delivery>,
    /// Positions passed over: blank lines, control records, a lost range.
    pub gaps: Vec<Gap>,
    /// The offset after the last one looked at.
    pub next_offset: u64,
    /// Nothing more will ever come from this partition.
    pub drained: bool,
}

/// A source of one flow.
#[async_trait]
pub trait Source: Send + Sync {
    /// What it can do.
    fn capabilities(&self) -> Capabilities;

    /// The partitions there are now. Called at start and then now and then; a partition that is new is
    /// opened; one that is gone is left alone, and where partitions are dealt its loop is asked to end.
    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError>;

    /// Opens a partition at `next_offset`, which our own record gives; the broker's committed offset
    /// never does.
    /// Fails with `Changed` where the
    /// incarnation is another one.
    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError>;

    /// Whether partitions are dealt out among several processes: this one may have none now and some later, and
    /// one that another process took is waited for, not a stop.
    fn is_dealt(&self) -> bool {
        false
    }

    /// Returns once `partitions` may say something else than before. Cancelling loses nothing.
    async fn changed(&self) {
        std::future::pending().await
    }

    /// Whether the partition is this process's, by a word of whoever deals that was asked for *after* this call:
    /// one that was frozen still believes what it was told before. It is asked before a partition is taken in
    /// the arbiter, so that nobody takes one back from a successor.
    async fn confirm(&self, _partition: &SourcePartition) -> Result<bool, SourceError> {
        Ok(true)
    }

    /// The partition's loop has ended, so that it may be dealt to another process.
    fn left(&self, _partition: &SourcePartition) {}
}

/// One open partition.
#[async_trait]
pub trait SourceReader: Send {
    /// Takes a batch; returns empty after `wait_ms` without a delivery. Cancelling loses nothing: what was
    /// not returned comes with the next call.
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError>;

    /// Tells the broker. Only a hint; repeating it is harmless, and an error is not the flow's.
    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError>;

    /// How many positions are known to exist beyond what was taken; `None` where that can't be told.
    async fn backlog(&mut self) -> Option<u64>;
}
