//! The durable book of decisions: append-only, readable offline, also after a crash.

pub mod store;

pub use store::{
    BatchHeader, DecisionFilter, EncodedBatch, JournalEntry, JournalKind, LedgerError, LedgerId, LedgerRead,
    LedgerStore, Mark, RecentEvent, StoredBatch, StoredConfig, StoredDecision,
};
