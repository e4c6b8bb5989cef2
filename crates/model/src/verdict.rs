//! The fate of an event, and what a handler answers.

use crate::reason::{Reason, ReasonCode};
use std::fmt;

/// What a handler, an `otherwise` or a check says of an event. There is no way to write one that
/// isn't applied without a [`Reason`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a verdict that nobody records is an event that vanished"]
pub enum Verdict {
    /// The effect is in the transaction.
    Applied,
    /// Leave it out, on purpose.
    Skip(Reason),
    /// It can't be applied: keep it whole.
    DeadLetter(Reason),
    /// Try again later; the event's key waits.
    Retry(Reason),
}

impl Verdict {
    /// The effect is in the transaction.
    pub fn applied() -> Self {
        Self::Applied
    }

    /// Leave the event out, on purpose.
    pub fn skip(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self::Skip(Reason::new(code, sentence))
    }

    /// The event can't be applied: keep it whole.
    pub fn dead_letter(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self::DeadLetter(Reason::new(code, sentence))
    }

    /// Try again later; later events of the key wait behind it.
    pub fn retry(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self::Retry(Reason::new(code, sentence))
    }

    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Applied => None,
            Self::Skip(r) | Self::DeadLetter(r) | Self::Retry(r) => Some(r),
        }
    }
}

/// The final fate of an event, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fate {
    /// The effect is committed.
    Applied,
    /// Left out, on purpose, for a declared reason.
    Skipped(Reason),
    /// Could not be applied; kept whole.
    DeadLettered(Reason),
}

impl Fate {
    /// The reason, where there is one.
    pub fn reason(&self) -> Option<&Reason> {
        match self {
            Self::Applied => None,
            Self::Skipped(r) | Self::DeadLettered(r) => Some(r),
        }
    }

    /// `applied`, `skipped` or `dead-lettered`.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Skipped(_) => "skipped",
            Self::DeadLettered(_) => "dead-lettered",
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.reason() {
            None => f.write_str(self.word()),
            Some(reason) => write!(f, "{} {}", self.word(), reason.code),
        }
    }
}
