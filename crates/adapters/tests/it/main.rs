//! The adapters against real files, databases and sockets.

#![allow(clippy::unwrap_used)]

mod embedded_log;
mod file_follow;
mod file_source;
mod flow;
mod http_effect;
mod http_source;
#[cfg(feature = "kafka")]
mod kafka;
mod postgres;
mod postgres_ledger;
mod sqlite;
mod support;
