//! A batch's decisions: what is claimed, appended and settled together.

use crate::decision::{ConfigVersion, Decision};
use crate::event::Header;
use crate::offsets::OffsetSet;
use crate::position::PartitionId;
use crate::time::Timestamp;

/// Positions without a verdict of their own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum GapKind {
    /// Never reached us: retention overtook, or the file was cut.
    Lost,
    /// Carries no event: control record, aborted transaction, compacted away, blank line.
    NotAnEvent,
    /// Consumed without a record: the ledger was lost and the position adopted, or the consumer did not
    /// report it.
    Unrecorded,
}

impl GapKind {
    /// The law's word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Lost => "lost",
            Self::NotAnEvent => "not-an-event",
            Self::Unrecorded => "unrecorded",
        }
    }
}

/// A range of positions without a verdict of their own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Gap {
    /// First offset.
    pub from: u64,
    /// One past the last offset.
    pub to: u64,
    /// What they are.
    pub kind: GapKind,
    /// Why, one sentence.
    pub cause: String,
}

impl Gap {
    /// The cause of a gap that the flow's own consumer went past without reporting a verdict.
    pub const UNREPORTED: &str = "the consumer went past it and reported no verdict";

    /// The cause of a gap before the offset at which the flow was told to begin.
    pub const BEFORE_START: &str = "lies before the flow's start";

    /// Whether it lies before the flow's start: not an event of this flow, whatever the source holds there.
    pub fn is_before_start(&self) -> bool {
        self.kind == GapKind::NotAnEvent && self.cause == Self::BEFORE_START
    }

    /// Whether it is a position that the consumer did not report, and not one that the ledger lost.
    pub fn is_unreported(&self) -> bool {
        self.kind == GapKind::Unrecorded && self.cause == Self::UNREPORTED
    }

    /// Whether it was adopted after a loss of the ledger: only then may the seqs before it be missing.
    pub fn is_adopted(&self) -> bool {
        self.kind == GapKind::Unrecorded && !self.is_unreported()
    }
}

/// An event kept whole (dead letters always; skipped ones up to a size).
#[derive(Debug, Clone, PartialEq)]
pub struct KeptBody {
    /// Offset within the partition.
    pub offset: u64,
    /// The bytes, up to the flow's limit.
    pub payload: Vec<u8>,
    /// The length before the limit was applied.
    pub payload_bytes: u64,
    /// The delivery's headers.
    pub headers: Vec<Header>,
    /// Every attempt and what it found, oldest first.
    pub attempts: Vec<Attempt>,
}

/// One attempt at an event.
#[derive(Debug, Clone, PartialEq)]
pub struct Attempt {
    /// 1 for the first.
    pub number: u32,
    /// When it ended.
    pub at: Timestamp,
    /// What it came to: reason code and sentence.
    pub found: String,
}

/// What one claimed batch decided. The unit of the ledger; idempotent by (partition, seq).
#[derive(Debug, Clone, PartialEq)]
pub struct BatchRecord {
    /// The partition.
    pub at: PartitionId,
    /// The ownership under which it was decided.
    pub epoch: u64,
    /// 1, 2, 3 … within the partition, without gaps.
    pub seq: u64,
    /// The config version that decided.
    pub config: ConfigVersion,
    /// When the batch was taken from the source (`meta.taken_at`).
    pub taken_at: Timestamp,
    /// When it was decided.
    pub decided_at: Timestamp,
    /// In the order decided, which is not always that of the offsets.
    pub decisions: Vec<Decision>,
    /// Positions that this batch passed over.
    pub gaps: Vec<Gap>,
    /// Bodies of events that are kept whole.
    pub bodies: Vec<KeptBody>,
    /// After this batch: the first offset that isn't decided.
    pub next_offset: u64,
    /// After this batch: offsets decided beyond `next_offset`.
    pub decided_above: OffsetSet,
}
