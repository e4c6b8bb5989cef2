//! The log's file: its format, and each statement on it.

use super::{LogBounds, LogError, NewEvent};
use recount_model::Header;
use rusqlite::types::Type;
use rusqlite::{Connection, OpenFlags, OptionalExtension, TransactionBehavior, params};
use std::ops::{ControlFlow, Range};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

const FORMAT: i64 = 1;
const BUSY_TIMEOUT: Duration = Duration::from_secs(10);

const SCHEMA: &str = "
CREATE TABLE IF NOT EXISTS log_state (
  one INTEGER PRIMARY KEY CHECK (one = 1),
  log_id TEXT NOT NULL,
  first_offset INTEGER NOT NULL,
  next_offset INTEGER NOT NULL,
  settled_offset INTEGER NOT NULL,
  kept_bytes INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS log_event (
  \"offset\" INTEGER PRIMARY KEY,
  received_at INTEGER NOT NULL,
  payload BLOB NOT NULL,
  payload_bytes INTEGER NOT NULL,
  headers TEXT,
  key TEXT);
";

/// One connection to a log's file.
#[derive(Debug)]
pub(super) struct Store {
    path: PathBuf,
    vfs: Option<String>,
    connection: Connection,
    id: String,
}

/// One stored event.
pub(super) struct StoredEvent {
    pub(super) offset: u64,
    pub(super) payload: Arc<[u8]>,
    pub(super) payload_bytes: u64,
    pub(super) headers: Vec<Header>,
    pub(super) key: Option<Box<str>>,
}

impl Store {
    pub(super) fn open(path: &Path, vfs: Option<&str>) -> Result<Self, LogError> {
        Self::open_or_make(path, vfs, None)
    }

    /// [`open`](Self::open); a log that is made gets this id instead of a random one.
    pub(super) fn open_or_make(path: &Path, vfs: Option<&str>, id: Option<u128>) -> Result<Self, LogError> {
        let unreadable = |e: rusqlite::Error| unreadable(path, &e);
        let flags = OpenFlags::default();
        let connection = match vfs {
            None => Connection::open_with_flags(path, flags),
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs),
        }
        .map_err(unreadable)?;
        connection.busy_timeout(BUSY_TIMEOUT).map_err(unreadable)?;
        let found: i64 =
            connection.query_row("PRAGMA user_version", [], |row| row.get(0)).map_err(unreadable)?;
        if found > FORMAT {
            return Err(LogError::TooNew { path: path.display().to_string(), found, known: FORMAT });
        }
        // In write-ahead mode EXTRA is FULL. Where an error of the disk kept the file from changing to it, only
        // EXTRA makes a commit durable: FULL does not sync the folder after the journal is removed.
        connection.execute_batch("PRAGMA synchronous = EXTRA").map_err(unreadable)?;
        if found < FORMAT {
            prepare(&connection, id).map_err(unreadable)?;
        }
        let id =
            connection.query_row("SELECT log_id FROM log_state", [], |row| row.get(0)).map_err(unreadable)?;
        Ok(Self { path: path.to_owned(), vfs: vfs.map(str::to_owned), connection, id })
    }

    /// Syncs what a killed process wrote and did not sync: it is seen from now on, and positions are decided
    /// by it.
    pub(super) fn sync_recovered(&self) -> Result<(), LogError> {
        let checkpointed = self.connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()));
        checkpointed.map_err(|e| self.unreadable(&e))
    }

    pub(super) fn id(&self) -> &str {
        &self.id
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// A new connection in place of this one, which an error of the disk may have left unsure.
    pub(super) fn reopen(&mut self) -> Result<(), LogError> {
        *self = Self::open(&self.path, self.vfs.as_deref())?;
        Ok(())
    }

    pub(super) fn bounds(&mut self) -> Result<LogBounds, LogError> {
        bounds(&self.connection).map_err(|e| self.unreadable(&e))
    }

    /// Appends all groups in one commit and returns each group's offsets.
    pub(super) fn append(
        &mut self,
        groups: &[Vec<NewEvent>],
        log_bytes_max: u64,
    ) -> Result<Vec<Range<u64>>, LogError> {
        let unwritable =
            |path: &Path, cause: String| LogError::Unwritable { path: path.display().to_string(), cause };
        match append_in_transaction(&mut self.connection, groups, log_bytes_max) {
            Ok(Some(offsets)) => Ok(offsets),
            Ok(None) => Err(unwritable(
                &self.path,
                format!("it holds {log_bytes_max} bytes, its limit, that are not settled or not old enough"),
            )),
            Err(e) => {
                let error = unwritable(&self.path, e.to_string());
                if !is_full_or_busy(&e) {
                    // The next append says so too if this fails.
                    let _ = self.reopen();
                }
                Err(error)
            }
        }
    }

    /// Events from an offset on, until `visit` breaks. The bounds are those of the same snapshot.
    pub(super) fn read(
        &mut self,
        from: u64,
        events_max: usize,
        payload_bytes_max: usize,
        mut visit: impl FnMut(StoredEvent) -> ControlFlow<()>,
    ) -> Result<LogBounds, LogError> {
        let result = (|| {
            let tx = self.connection.transaction()?;
            let bounds = bounds(&tx)?;
            let mut query = tx.prepare_cached(
                "SELECT \"offset\", payload, payload_bytes, headers, key FROM log_event \
                 WHERE \"offset\" >= ?1 ORDER BY \"offset\" LIMIT ?2",
            )?;
            let limit = i64::try_from(events_max).unwrap_or(i64::MAX);
            let mut rows = query.query(params![from.cast_signed(), limit])?;
            while let Some(row) = rows.next()? {
                let payload = row.get_ref(1)?.as_blob()?;
                let event = StoredEvent {
                    offset: row.get::<_, i64>(0)?.cast_unsigned(),
                    payload: Arc::from(&payload[..payload.len().min(payload_bytes_max.saturating_add(1))]),
                    payload_bytes: row.get::<_, i64>(2)?.cast_unsigned(),
                    headers: headers_from_text(row.get_ref(3)?.as_str_or_null()?)?,
                    key: row.get::<_, Option<String>>(4)?.map(String::into_boxed_str),
                };
                if visit(event).is_break() {
                    break;
                }
            }
            Ok(bounds)
        })();
        result.map_err(|e| self.unreadable(&e))
    }

    /// The connection, for what only retention needs.
    pub(super) fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    pub(super) fn unreadable(&self, e: &rusqlite::Error) -> LogError {
        unreadable(&self.path, e)
    }
}

fn bounds(connection: &Connection) -> Result<LogBounds, rusqlite::Error> {
    let mut query =
        connection.prepare_cached("SELECT first_offset, next_offset, kept_bytes FROM log_state")?;
    query.query_row([], |row| {
        let [first_offset, next_offset, kept_bytes] =
            [row.get::<_, i64>(0)?, row.get(1)?, row.get(2)?].map(i64::cast_unsigned);
        Ok(LogBounds { first_offset, next_offset, kept_bytes })
    })
}

fn unreadable(path: &Path, e: &rusqlite::Error) -> LogError {
    LogError::Unreadable { path: path.display().to_string(), cause: e.to_string() }
}

fn prepare(connection: &Connection, id: Option<u128>) -> Result<(), rusqlite::Error> {
    let id = id.map_or("lower(hex(randomblob(16)))".to_owned(), |id| format!("'{id:032x}'"));
    // Two processes that make the file at once: SQLite answers `busy` to one without waiting.
    let mut tries = 0;
    loop {
        let done = connection
            .query_row("PRAGMA journal_mode = WAL", [], |row| row.get::<_, String>(0))
            .and_then(|_| {
                connection.execute_batch(&format!(
                    "BEGIN IMMEDIATE; {SCHEMA} INSERT OR IGNORE INTO log_state VALUES (1, {id}, 0, 0, 0, 0); \
                     PRAGMA user_version = {FORMAT}; COMMIT;"
                ))
            });
        match done {
            Err(e) if tries < 50 && is_full_or_busy(&e) => {
                tries += 1;
                if !connection.is_autocommit() {
                    connection.execute_batch("ROLLBACK")?;
                }
                std::thread::sleep(Duration::from_millis(20));
            }
            other => return other,
        }
    }
}

fn append_in_transaction(
    connection: &mut Connection,
    groups: &[Vec<NewEvent>],
    log_bytes_max: u64,
) -> Result<Option<Vec<Range<u64>>>, rusqlite::Error> {
    let tx = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let (mut next_offset, kept_bytes): (i64, i64) =
        tx.query_row("SELECT next_offset, kept_bytes FROM log_state", [], |row| {
            Ok((row.get(0)?, row.get(1)?))
        })?;
    let mut bytes = kept_bytes.cast_unsigned();
    let mut offsets = Vec::with_capacity(groups.len());
    {
        let mut insert = tx.prepare_cached(
            "INSERT INTO log_event (\"offset\", received_at, payload, payload_bytes, headers, key) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6)",
        )?;
        for events in groups {
            let first = next_offset;
            for event in events {
                let headers = headers_to_text(&event.headers);
                bytes += (event.payload.len() + headers.as_ref().map_or(0, String::len)) as u64;
                insert.execute(params![
                    next_offset,
                    event.received_at.0,
                    event.payload,
                    event.payload_bytes.cast_signed(),
                    headers,
                    event.key.as_deref(),
                ])?;
                next_offset += 1;
            }
            offsets.push(first.cast_unsigned()..next_offset.cast_unsigned());
        }
    }
    if bytes > log_bytes_max {
        return Ok(None);
    }
    tx.prepare_cached("UPDATE log_state SET next_offset = ?1, kept_bytes = ?2")?
        .execute(params![next_offset, bytes.cast_signed()])?;
    tx.commit()?;
    Ok(Some(offsets))
}

fn is_full_or_busy(e: &rusqlite::Error) -> bool {
    use rusqlite::ErrorCode::{DatabaseBusy, DatabaseLocked, DiskFull};
    matches!(e.sqlite_error_code(), Some(DatabaseBusy | DatabaseLocked | DiskFull))
}

/// A JSON array of `[name, value]`; none where there are no headers.
fn headers_to_text(headers: &[Header]) -> Option<String> {
    let pairs: Vec<_> = headers.iter().map(|h| (&h.name, &h.value)).collect();
    if pairs.is_empty() {
        return None;
    }
    Some(serde_json::to_string(&pairs).expect("pairs of texts are always JSON"))
}

fn headers_from_text(text: Option<&str>) -> Result<Vec<Header>, rusqlite::Error> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let pairs: Vec<(Box<str>, Box<str>)> = serde_json::from_str(text)
        .map_err(|e| rusqlite::Error::FromSqlConversionFailure(3, Type::Text, Box::new(e)))?;
    Ok(pairs.into_iter().map(|(name, value)| Header { name, value }).collect())
}

/// The highest settled offset that was made durable.
pub(super) fn settled_offset(connection: &Connection) -> Result<i64, rusqlite::Error> {
    Ok(connection
        .query_row("SELECT settled_offset FROM log_state", [], |row| row.get(0))
        .optional()?
        .unwrap_or(0))
}
