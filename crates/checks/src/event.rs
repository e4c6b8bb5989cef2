//! What checking takes and gives.

use recount_model::decision::{Measure, PayloadHash};
use recount_model::{Header, Meta, ReasonCode, Timestamp, Value, Verdict};
use std::ops::Deref;
use std::sync::Arc;

/// One delivery, before anything is known of it.
#[derive(Debug, Clone)]
pub struct RawEvent {
    /// The bytes; where they were cut, `payload_bytes` tells how many there were.
    pub payload: Arc<[u8]>,
    /// The length before it was cut; above `payload_bytes_max` the event is `payload_too_large`.
    pub payload_bytes: u64,
    /// The delivery's headers.
    pub headers: Vec<Header>,
    /// The delivery's own key, where the broker has one.
    pub broker_key: Option<Box<str>>,
    /// The partition's name.
    pub partition: Box<str>,
    /// Offset within the partition.
    pub offset: u64,
    /// When the batch was taken from the source.
    pub taken_at: Timestamp,
}

/// A decoded event with everything that the flow's rules computed from it.
#[derive(Debug, Clone)]
pub struct Event {
    /// The delivery (`meta` in expressions).
    pub meta: Meta,
    /// The bytes as delivered.
    pub payload: Arc<[u8]>,
    /// The decoded payload (`event` in expressions; a CloudEvent's `data`).
    pub data: serde_json::Value,
    /// Hash of id and payload.
    pub payload_hash: PayloadHash,
    /// Assumptions that the event broke.
    pub flags: Vec<ReasonCode>,
    /// Which of the flow's `apply` it goes to, from 0.
    pub route: usize,
    /// The values of that route's `with`, in the order of its declaration.
    pub params: Vec<Value>,
    /// One per measure of the flow.
    pub measures: Vec<Option<Measure>>,
}

/// Proof that an event went through its flow's checks. Only this crate makes one, so an effect or a
/// handler can't meet an event that wasn't checked.
#[derive(Debug, Clone)]
pub struct Checked<E>(E);

impl<E> Checked<E> {
    pub(crate) fn new(event: E) -> Self {
        Self(event)
    }
}

impl<E> Deref for Checked<E> {
    type Target = E;

    fn deref(&self) -> &E {
        &self.0
    }
}

/// An event that the checks did not let through.
#[derive(Debug, Clone)]
pub struct Refused {
    /// Skip or dead-letter, with its reason. Never `Applied`, never `Retry`.
    pub verdict: Verdict,
    /// What each check found, as one JSON object without secrets.
    pub evidence: Box<str>,
    /// As much of the delivery as is known.
    pub meta: Meta,
    /// Hash of id (empty where there is none) and payload.
    pub payload_hash: PayloadHash,
    /// Assumptions that the event broke before it was refused.
    pub flags: Vec<ReasonCode>,
    /// Whether the payload could be decoded.
    pub decoded: bool,
    /// One per measure of the flow; all `None` where the payload could not be decoded.
    pub measures: Vec<Option<Measure>>,
}

/// What became of one delivery in the checks.
#[derive(Debug, Clone)]
#[expect(
    clippy::large_enum_variant,
    reason = "nearly every event passes; a box each would cost an allocation"
)]
pub enum CheckResult {
    /// It may go to the effect.
    Passed(Checked<Event>),
    /// It has its verdict.
    Refused(Box<Refused>),
}

impl CheckResult {
    /// What is known of the delivery.
    pub fn meta(&self) -> &Meta {
        match self {
            Self::Passed(event) => &event.meta,
            Self::Refused(refused) => &refused.meta,
        }
    }

    /// Hash of id and payload.
    pub fn payload_hash(&self) -> PayloadHash {
        match self {
            Self::Passed(event) => event.payload_hash,
            Self::Refused(refused) => refused.payload_hash,
        }
    }
}
