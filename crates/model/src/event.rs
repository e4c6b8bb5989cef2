//! The delivery that carries an event.

use crate::time::Timestamp;

/// A header of a delivery; the value is text where it is UTF-8, else base64 with `;base64` in the name's
/// place being left to the adapter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Name, as delivered.
    pub name: Box<str>,
    /// Value.
    pub value: Box<str>,
}

/// `meta` in expressions: the delivery, not the payload.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Meta {
    /// The event's id, as the flow's `id` or the CloudEvent gives it.
    pub id: Option<Box<str>>,
    /// The key.
    pub key: Option<Box<str>>,
    /// The type.
    pub event_type: Option<Box<str>>,
    /// When the event says it happened.
    pub time: Option<Timestamp>,
    /// Headers of the delivery.
    pub headers: Vec<Header>,
    /// The partition's name.
    pub partition: Box<str>,
    /// Offset within the partition.
    pub offset: u64,
    /// When the batch was taken from the source: the only clock that a check can see.
    pub taken_at: Timestamp,
}
