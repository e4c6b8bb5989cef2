//! Everything heavy: sources, databases, HTTP handlers.

pub mod actor;
pub mod embedded_log;
pub mod file;
pub mod http_count;
pub mod http_effect;
pub mod http_source;
#[cfg(feature = "kafka")]
pub mod kafka;
pub mod postgres;
pub mod postgres_ledger;
pub mod reports;
mod settled;
mod sql;
pub mod sqlite;
pub mod witness;
