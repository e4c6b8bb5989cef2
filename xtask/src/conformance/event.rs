//! What is published: an event by its number alone.

use std::ops::Range;

/// So many keys, each with its own order of events.
pub const KEYS: u64 = 6;

/// An event with this number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Event(pub u64);

impl Event {
    /// Those with these numbers.
    pub fn all(numbers: Range<u64>) -> Vec<Self> {
        numbers.map(Self).collect()
    }

    /// Which key it has.
    pub fn key(self) -> String {
        format!("k{}", self.0 % KEYS)
    }

    /// As it is published, on one line.
    pub fn line(self) -> String {
        let number = self.0;
        format!("{{\"id\":\"e-{number}\",\"key\":\"{}\",\"number\":{number}}}", self.key())
    }

    /// All of them, each with its newline.
    pub fn lines(events: &[Self]) -> String {
        events.iter().map(|event| event.line() + "\n").collect()
    }

    /// The number in an event's id.
    pub fn number_of(id: &str) -> Option<u64> {
        id.strip_prefix("e-")?.parse().ok()
    }
}
