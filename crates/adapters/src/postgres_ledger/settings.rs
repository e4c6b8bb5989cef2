//! What a ledger in PostgreSQL is opened with.

use recount_ledger::LedgerSettings;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

/// Settings of one process's place in a shared ledger.
#[derive(Clone)]
pub struct PostgresLedgerSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`, as libpq takes it. Never shown.
    pub url: String,
    /// The folder of this process's replica; no other process may have it.
    pub folder: PathBuf,
    /// How the replica is kept.
    pub replica: LedgerSettings,
    /// Whether a ledger is begun, with its tables, where the database has none.
    pub begin: bool,
    /// How long a method waits for a server that is away before it gives up.
    pub patience_ms: u64,
    /// How long a connection may take.
    pub connect_time_ms_max: u64,
    /// A statement that runs longer is interrupted, and tried again.
    pub statement_time_ms_max: u64,
    /// Larger appends are several commits.
    pub append_bytes_max: usize,
}

impl PostgresLedgerSettings {
    /// The usual settings of a process that writes: a minute's patience.
    pub fn new(url: impl Into<String>, folder: impl Into<PathBuf>) -> Self {
        Self {
            url: url.into(),
            folder: folder.into(),
            replica: LedgerSettings::default(),
            begin: true,
            patience_ms: 60_000,
            connect_time_ms_max: 5_000,
            statement_time_ms_max: 30_000,
            append_bytes_max: 32 << 20,
        }
    }

    pub(crate) fn patience(&self) -> Duration {
        Duration::from_millis(self.patience_ms)
    }

    /// An answer may take as long as its statement, and waiting for another's lock, and then some.
    pub(crate) fn answer_time_max(&self) -> Duration {
        Duration::from_millis(self.statement_time_ms_max.saturating_mul(2))
    }
}

impl fmt::Debug for PostgresLedgerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresLedgerSettings").field("folder", &self.folder).finish_non_exhaustive()
    }
}
