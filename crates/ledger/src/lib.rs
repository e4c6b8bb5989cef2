//! The durable book of decisions: append-only, readable offline, also after a crash.
//!
//! * [`store`] is the seam: what the engine writes ([`LedgerStore`]) and what readers ask ([`LedgerRead`]).
//! * [`codec`] is the packed form of a batch, with its byte layout.
//! * [`schema`] describes the tables, for everyone who opens them with plain `sqlite3`.
//! * [`SqliteLedger`] writes a folder, [`LedgerReader`] reads one.

pub mod books;
pub mod codec;
pub mod export;
pub mod files;
pub mod filter;
pub mod identity;
pub mod schema;
pub mod settings;
pub mod store;

mod birth;
mod forget;
mod journal;
mod lookup;
mod opener;
mod query;
mod reader;
mod replica;
mod retention;
mod rows;
mod scan;
mod seal;
mod segment;
mod shelf;
mod store_impl;
mod stripe;
mod verify;
mod writer;

pub use books::{BookLine, ClosedBook};
pub use export::{ExportError, ExportFormat, decision_json, export};
pub use files::{FileOps, FolderLock, LockFailure, RealFiles};
pub use forget::Forgotten;
pub use identity::{IdentityHasher, IdentityKey, IdentitySum, identity_hash};
pub use reader::{LedgerReader, Refresh, is_held, running_instance};
pub use replica::{Birth, FolderHolds, LogContent, LogEntry, ReplicaOf, VersionOf, folder_holds};
pub use settings::{Clock, LedgerSettings};
pub use store::{
    BatchHeader, DecisionFilter, EncodedBatch, JournalEntry, JournalKind, LedgerError, LedgerId, LedgerRead,
    LedgerStore, Mark, RecentEvent, Run, StoredBatch, StoredConfig, StoredDecision,
};
pub use verify::Verified;
pub use writer::{ADDRESS_FILE, LOCK_FILE, SqliteLedger};

#[cfg(test)]
extern crate self as recount_ledger;
#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod crash_tests;
#[cfg(test)]
#[path = "../tests/it/data.rs"]
#[allow(dead_code, missing_docs, clippy::unwrap_used)]
mod data;
