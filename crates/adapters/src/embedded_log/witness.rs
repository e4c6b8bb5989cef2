//! Counting a log again, for the audit. Shares nothing with the source but the file's format.

use recount_model::Header;
use rusqlite::{Connection, OpenFlags};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Why a log can't tell.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LogWitnessError {
    /// There is no such file.
    #[error("log {0} is gone")]
    Gone(String),
    /// The file is another log than the recorded one.
    #[error("log {path} is {found}, not the recorded {recorded}")]
    Changed {
        /// The file.
        path: String,
        /// Its id.
        found: String,
        /// What was asked for.
        recorded: String,
    },
    /// It can't be read.
    #[error("log {path} can't be read: {cause}")]
    Unreadable {
        /// The file.
        path: String,
        /// What SQLite says.
        cause: String,
    },
}

/// An event as the log keeps it.
#[derive(Debug, Clone)]
pub struct WitnessedEvent<'a> {
    /// Its offset.
    pub offset: u64,
    /// The bytes that are kept.
    pub payload: &'a [u8],
    /// The length before they were cut.
    pub payload_bytes: u64,
    /// The delivery's headers.
    pub headers: Vec<Header>,
    /// The delivery's key.
    pub key: Option<&'a str>,
}

/// Headers as the log writes them: a JSON array of `[name, value]`.
fn headers(text: Option<&str>) -> Vec<Header> {
    let pairs: Vec<(Box<str>, Box<str>)> =
        text.and_then(|t| serde_json::from_str(t).ok()).unwrap_or_default();
    pairs.into_iter().map(|(name, value)| Header { name, value }).collect()
}

/// A log, opened read-only for each question.
#[derive(Debug, Clone)]
pub struct LogWitness {
    path: PathBuf,
    recorded: String,
}

impl LogWitness {
    /// A witness of the recorded source id (`log:<id>`).
    pub fn new(path: &Path, recorded: &str) -> Self {
        Self { path: path.to_owned(), recorded: recorded.to_owned() }
    }

    /// The offsets that were ever given: from 0 to below this.
    pub fn positions(&self) -> Result<u64, LogWitnessError> {
        Ok(self.bounds()?.1)
    }

    /// The first offset that is kept, and one past the last that was given.
    pub fn bounds(&self) -> Result<(u64, u64), LogWitnessError> {
        let connection = self.open()?;
        connection
            .query_row("SELECT first_offset, next_offset FROM log_state", [], |row| {
                Ok((row.get::<_, i64>(0)?.cast_unsigned(), row.get::<_, i64>(1)?.cast_unsigned()))
            })
            .map_err(|e| self.unreadable(&e))
    }

    /// Kept events from `from` to below `to`, in order.
    pub fn visit(
        &self,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&WitnessedEvent<'_>) -> ControlFlow<()>,
    ) -> Result<(), LogWitnessError> {
        let connection = self.open()?;
        let mut read = || {
            let mut query = connection.prepare(
                "SELECT \"offset\", payload, payload_bytes, headers, key FROM log_event \
                 WHERE \"offset\" >= ?1 AND \"offset\" < ?2 ORDER BY \"offset\"",
            )?;
            let mut rows = query.query([from.cast_signed(), i64::try_from(to).unwrap_or(i64::MAX)])?;
            while let Some(row) = rows.next()? {
                let offset: i64 = row.get(0)?;
                let bytes_full: i64 = row.get(2)?;
                let event = WitnessedEvent {
                    offset: offset.cast_unsigned(),
                    payload: row.get_ref(1)?.as_blob()?,
                    payload_bytes: bytes_full.cast_unsigned(),
                    headers: headers(row.get_ref(3)?.as_str_or_null()?),
                    key: row.get_ref(4)?.as_str_or_null()?,
                };
                if visit(&event).is_break() {
                    break;
                }
            }
            Ok(())
        };
        read().map_err(|e| self.unreadable(&e))
    }

    fn open(&self) -> Result<Connection, LogWitnessError> {
        if !self.path.exists() {
            return Err(LogWitnessError::Gone(self.path.display().to_string()));
        }
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let opened = Connection::open_with_flags(&self.path, flags).and_then(|connection| {
            connection.busy_timeout(std::time::Duration::from_secs(10))?;
            let id: String = connection.query_row("SELECT log_id FROM log_state", [], |row| row.get(0))?;
            Ok((connection, format!("log:{id}")))
        });
        let (connection, found) = opened.map_err(|e| self.unreadable(&e))?;
        if found != self.recorded {
            let path = self.path.display().to_string();
            return Err(LogWitnessError::Changed { path, found, recorded: self.recorded.clone() });
        }
        Ok(connection)
    }

    fn unreadable(&self, e: &rusqlite::Error) -> LogWitnessError {
        LogWitnessError::Unreadable { path: self.path.display().to_string(), cause: e.to_string() }
    }
}
