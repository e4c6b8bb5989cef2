//! A durable log in one SQLite file, for sources that have none: HTTP, standard input, `recount publish`.
//!
//! What was appended survives a loss of power before [`EmbeddedLog::append`] returns. Appends that come
//! together are committed together. Several processes may append to one file; one flow reads it. Offsets
//! count from 0 without holes, and are never given twice.
//!
//! The file is `log-<name>.db` in the ledger's folder, with two tables: `log_event (offset, received_at,
//! payload, payload_bytes, headers, key)`, and `log_state`, one row with the log's id and its bounds.

mod retention;
mod source;
mod stdin;
mod store;
pub mod witness;
mod writer;

pub use retention::{Retained, RetentionSettings};
pub use source::{LogSource, LogSourceSettings};
pub use stdin::{StdinSettings, StdinSource};

use recount_model::{Header, SourceId, Timestamp};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::watch;

/// Why the log could not do what was asked.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogError {
    /// The disk or the log is full, the folder read-only: nothing was appended.
    #[error("log {path} can't be written: {cause}; nothing of this append was kept, try again later")]
    Unwritable {
        /// The file.
        path: String,
        /// What SQLite or the limit says.
        cause: String,
    },
    /// It can't be opened or read.
    #[error("log {path} can't be read: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What SQLite says.
        cause: String,
    },
    /// It was written by a newer program.
    #[error("log {path} has format {found}, this program reads {known}: use a newer recount")]
    TooNew {
        /// The file.
        path: String,
        /// Its version.
        found: i64,
        /// Ours.
        known: i64,
    },
    /// As many appends wait as may.
    #[error("log {path}: {waiting} appends wait already, try again later")]
    Busy {
        /// The file.
        path: String,
        /// How many.
        waiting: usize,
    },
}

/// One event to append.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEvent {
    /// The bytes.
    pub payload: Vec<u8>,
    /// The length before they were cut; that of `payload` unless the writer cut them.
    pub payload_bytes: u64,
    /// Headers to keep.
    pub headers: Vec<Header>,
    /// A key beside the payload.
    pub key: Option<Box<str>>,
    /// When it was received.
    pub received_at: Timestamp,
}

impl NewEvent {
    /// An event without headers and key.
    pub fn new(payload: impl Into<Vec<u8>>, received_at: Timestamp) -> Self {
        let payload = payload.into();
        let payload_bytes = payload.len() as u64;
        Self { payload, payload_bytes, headers: Vec::new(), key: None, received_at }
    }
}

/// How a log is opened.
#[derive(Debug, Clone, Default)]
pub struct LogSettings {
    /// SQLite's VFS by name; none is the system's own.
    pub vfs: Option<String>,
    /// What is dropped when, and how large the log may become.
    pub retention: RetentionSettings,
}

/// Where the log stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LogBounds {
    /// The first offset that is kept.
    pub first_offset: u64,
    /// The offset that the next event gets.
    pub next_offset: u64,
    /// Payload and header bytes kept.
    pub kept_bytes: u64,
}

/// An open log. Clones share the writer; it ends with the last clone.
#[derive(Debug, Clone)]
pub struct EmbeddedLog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    path: PathBuf,
    vfs: Option<String>,
    id: String,
    writer: writer::Writer,
    shared: Arc<WriterShared>,
}

/// What the writer's thread and the readers tell each other.
#[derive(Debug)]
struct WriterShared {
    /// The next offset as of this process's last commit.
    appended: watch::Sender<u64>,
    /// Everything below is settled.
    settled_next_offset: AtomicU64,
}

impl EmbeddedLog {
    /// Where the log of this name lies in a ledger's folder. Characters that don't belong into a file name
    /// become `_`.
    pub fn path_in(folder: &Path, name: &str) -> PathBuf {
        let fits = |c: char| if c.is_ascii_alphanumeric() || c == '-' || c == '_' { c } else { '_' };
        folder.join(format!("log-{}.db", name.chars().map(fits).collect::<String>()))
    }

    /// Opens the log, or makes it with a new id.
    pub fn open(path: &Path, settings: LogSettings) -> Result<Self, LogError> {
        let store = store::Store::open(path, settings.vfs.as_deref())?;
        Self::open_with(path, settings, store, true)
    }

    /// [`open`](Self::open) without a thread, and with this id if it is made: for the deterministic simulator.
    #[doc(hidden)]
    pub fn open_inline(path: &Path, settings: LogSettings, id: u128) -> Result<Self, LogError> {
        let store = store::Store::open_or_make(path, settings.vfs.as_deref(), Some(id))?;
        Self::open_with(path, settings, store, false)
    }

    fn open_with(
        path: &Path,
        settings: LogSettings,
        mut store: store::Store,
        threaded: bool,
    ) -> Result<Self, LogError> {
        store.sync_recovered()?;
        let (id, bounds) = (store.id().to_owned(), store.bounds()?);
        let shared = Arc::new(WriterShared {
            appended: watch::Sender::new(bounds.next_offset),
            settled_next_offset: AtomicU64::new(0),
        });
        let writer = if threaded {
            writer::Writer::start(store, settings.retention, Arc::clone(&shared))?
        } else {
            writer::Writer::inline(store, settings.retention, Arc::clone(&shared))
        };
        Ok(Self { inner: Arc::new(Inner { path: path.to_owned(), vfs: settings.vfs, id, writer, shared }) })
    }

    /// `log:<id>`; the id is random and made with the file.
    pub fn source_id(&self) -> SourceId {
        SourceId::new(format!("log:{}", self.inner.id))
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.inner.path
    }

    /// Appends all or nothing and returns their offsets once they are durable. An error means that none of
    /// them was kept, except where the outcome of the commit itself is unknown: then they may be there, and
    /// come a second time when the sender tries again.
    pub async fn append(&self, events: Vec<NewEvent>) -> Result<Range<u64>, LogError> {
        self.inner.writer.append(events)?.await.unwrap_or_else(|_| Err(self.writer_gone()))
    }

    /// [`append`](Self::append) for a thread that has no runtime.
    ///
    /// # Panics
    /// On a thread of an asynchronous runtime.
    pub fn append_blocking(&self, events: Vec<NewEvent>) -> Result<Range<u64>, LogError> {
        self.inner.writer.append(events)?.blocking_recv().unwrap_or_else(|_| Err(self.writer_gone()))
    }

    /// Where the log stands now, other processes' appends counted.
    pub fn bounds(&self) -> Result<LogBounds, LogError> {
        self.reader()?.bounds()
    }

    /// Tells that everything below is settled, so that retention may drop it. Durable with the next
    /// retention; a lower offset than before changes nothing.
    pub fn note_settled(&self, next_offset: u64) {
        self.inner.shared.settled_next_offset.fetch_max(next_offset, Ordering::Relaxed);
    }

    /// Drops what the settings allow now. Runs by itself about once a minute while there are appends.
    pub fn retain(&self, now: Timestamp) -> Result<Retained, LogError> {
        self.inner.writer.retain(now)?.recv().unwrap_or_else(|_| Err(self.writer_gone()))
    }

    fn reader(&self) -> Result<store::Store, LogError> {
        store::Store::open(&self.inner.path, self.inner.vfs.as_deref())
    }

    fn writer_gone(&self) -> LogError {
        LogError::Unwritable {
            path: self.inner.path.display().to_string(),
            cause: "its writer has ended".to_owned(),
        }
    }
}
