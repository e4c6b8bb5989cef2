//! How a ledger is kept.

use crate::files::{FileOps, RealFiles};
use crate::replica::ReplicaOf;
use recount_model::Timestamp;
use std::fmt;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

/// Tells the time that is recorded as *persisted*.
pub type Clock = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Settings of a [`SqliteLedger`](crate::SqliteLedger).
#[derive(Clone)]
pub struct LedgerSettings {
    /// A segment is closed once it is this large …
    pub segment_bytes_max: u64,
    /// … or its first batch this old.
    pub segment_age_ms_max: u64,
    /// Sealed segments whose last batch is older are dropped. None: kept for ever.
    pub keep_ms: Option<u64>,
    /// The oldest sealed segments are dropped while all of them together are larger. None: no limit.
    pub keep_bytes: Option<u64>,
    /// Sealing sorts about this many decisions at a time, in memory (some 300 bytes each).
    pub stripe_decisions: usize,
    /// The SQLite VFS to open files with. None: the default one.
    pub vfs: Option<String>,
    /// Opens SQLite files in exclusive locking mode, for a VFS without shared memory. Nobody can then read
    /// beside the writer.
    pub exclusive: bool,
    /// File operations outside SQLite.
    pub files: Arc<dyn FileOps>,
    /// Tells the time of journal entries.
    pub clock: Clock,
    /// Where a ledger's id and its identity key come from when it is made. None: the operating system.
    pub birth: Option<[u8; 48]>,
    /// The folder is a replica of this ledger, not one of its own.
    pub replica_of: Option<ReplicaOf>,
}

impl Default for LedgerSettings {
    fn default() -> Self {
        Self {
            segment_bytes_max: 1 << 30,
            segment_age_ms_max: 3_600_000,
            keep_ms: None,
            keep_bytes: None,
            stripe_decisions: 65_536,
            vfs: None,
            exclusive: false,
            files: Arc::new(RealFiles),
            clock: Arc::new(system_time),
            birth: None,
            replica_of: None,
        }
    }
}

impl fmt::Debug for LedgerSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LedgerSettings")
            .field("segment_bytes_max", &self.segment_bytes_max)
            .field("segment_age_ms_max", &self.segment_age_ms_max)
            .field("keep_ms", &self.keep_ms)
            .field("keep_bytes", &self.keep_bytes)
            .field("vfs", &self.vfs)
            .finish_non_exhaustive()
    }
}

fn system_time() -> Timestamp {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Timestamp(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}
