//! What the ledger records of one event.

use crate::amount::Amount;
use crate::reason::ReasonCode;
use crate::time::Timestamp;
use crate::verdict::Fate;

/// BLAKE3 of the event's id, a zero byte, and its payload; the first 8 bytes, big-endian.
///
/// Used to tell whether a redelivered position, or a repeated id, carries the same event; never alone
/// to tell that two ids are equal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PayloadHash(pub u64);

/// The ordinal of a config version in this ledger's journal, from 1. 0: none was recorded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigVersion(pub u32);

/// Who says so.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Origin {
    /// Recount ran the effect.
    Ran,
    /// The consumer reported it.
    Reported,
    /// What ought to have happened, computed beside an observed consumer.
    Expected,
}

impl Origin {
    /// The word, as records and pages show it.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ran => "ran",
            Self::Reported => "reported",
            Self::Expected => "expected",
        }
    }
}

/// The decision that a correction replaces: its batch and its place in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Corrects {
    /// The `seq` of the batch that held the old decision (same partition).
    pub seq: u64,
    /// The replay that decided anew.
    pub replay_id: u64,
}

/// The record of a verdict. The partition, config version and persisted time stand in its batch.
///
/// A correction is a new decision that names the old; exactly one of a position is current: the one
/// with the highest `seq`.
#[derive(Debug, Clone, PartialEq)]
pub struct Decision {
    /// Offset within the partition.
    pub offset: u64,
    /// The full id; none where the event has none or could not be decoded.
    pub event_id: Option<Box<str>>,
    /// The key; none where the flow has none, or it could not be had.
    pub key: Option<Box<str>>,
    /// Hash of id and payload.
    pub payload_hash: PayloadHash,
    /// What became of it.
    pub fate: Fate,
    /// Assumptions that this event broke (checks that only flag).
    pub flags: Vec<ReasonCode>,
    /// 1 for the first attempt.
    pub attempt: u32,
    /// When the event says it happened.
    pub event_time: Option<Timestamp>,
    /// Who says so.
    pub origin: Origin,
    /// The decision that this one replaces.
    pub corrects: Option<Corrects>,
    /// What was found, as one JSON object, without secrets. None for a plain `applied`.
    pub evidence: Option<Box<str>>,
    /// False where the payload was not decoded or the event is a duplicate: it is then not among the
    /// *received* of a reconcile.
    pub received: bool,
    /// One amount per measure of the flow (`[[reconcile]]` left sides, in the order of the config).
    pub measures: Vec<Option<Measure>>,
}

/// What one event adds to the left side of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Measure {
    /// The amount.
    pub amount: Amount,
    /// The group (`by`), where it is not the event's key.
    pub group: Option<Box<str>>,
}
