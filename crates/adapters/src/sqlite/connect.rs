//! Opening a connection whose commits survive a loss of power.

use super::faults;
use super::schema::unusable;
use super::settings::SqliteOpenError;
use rusqlite::{Connection, OpenFlags, ffi};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Prepared statements kept by a connection.
const STATEMENTS_KEPT_MAX: usize = 256;
/// SQLite's page cache, in KiB: a batch's changed pages should fit.
const CACHE_KIB: i64 = 16 * 1024;
/// Instructions of SQLite's machine between two looks at the clock.
const STEPS_BETWEEN_LOOKS: i32 = 10_000;

/// How a database is opened.
pub(crate) struct Opening<'a> {
    pub(crate) path: &'a Path,
    pub(crate) vfs: Option<&'a str>,
    pub(crate) create_file: bool,
    pub(crate) busy_timeout_ms: u64,
}

/// Opens for writing: foreign keys on, commits durable.
///
/// A database in WAL mode gets `synchronous = FULL`. One in a rollback-journal mode stays in it and gets
/// `EXTRA`, since there `FULL` does not sync the folder after the journal is removed, and a commit could
/// come undone after a loss of power (https://sqlite.org/pragma.html#pragma_synchronous). A file that is
/// made here is put into WAL mode.
pub(crate) fn open(opening: &Opening<'_>) -> Result<Connection, SqliteOpenError> {
    let existed = opening.vfs.is_some() || opening.path.exists();
    if !existed && !opening.create_file {
        return Err(missing(opening.path));
    }
    let mut flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    if opening.create_file {
        flags |= OpenFlags::SQLITE_OPEN_CREATE;
    }
    let conn = open_with(opening, flags)?;
    let set_up = || -> rusqlite::Result<()> {
        conn.pragma_update(None, "foreign_keys", true)?;
        conn.pragma_update(None, "cache_size", -CACHE_KIB)?;
        let pages: i64 = conn.pragma_query_value(None, "page_count", |row| row.get(0))?;
        let mut mode: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0))?;
        if opening.create_file && pages == 0 {
            mode = conn.pragma_update_and_check(None, "journal_mode", "wal", |row| row.get(0))?;
        }
        conn.pragma_update(None, "synchronous", if mode == "wal" { "FULL" } else { "EXTRA" })
    };
    set_up().map_err(|e| unusable(opening.path, &e))?;
    Ok(conn)
}

/// Opens for reading only, also beside a writer.
pub(crate) fn open_to_read(opening: &Opening<'_>) -> Result<Connection, SqliteOpenError> {
    if opening.vfs.is_none() && !opening.path.exists() {
        return Err(missing(opening.path));
    }
    let conn = open_with(opening, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    conn.pragma_update(None, "foreign_keys", true).map_err(|e| unusable(opening.path, &e))?;
    Ok(conn)
}

fn open_with(opening: &Opening<'_>, flags: OpenFlags) -> Result<Connection, SqliteOpenError> {
    let opened = match opening.vfs {
        Some(vfs) => Connection::open_with_flags_and_vfs(opening.path, flags, vfs),
        None => Connection::open_with_flags(opening.path, flags),
    };
    let conn = opened.map_err(|error| match faults::code(&error) & 0xff {
        ffi::SQLITE_CANTOPEN if opening.vfs.is_some() && !opening.create_file => missing(opening.path),
        _ => unusable(opening.path, &error),
    })?;
    conn.busy_timeout(Duration::from_millis(opening.busy_timeout_ms))
        .map_err(|e| unusable(opening.path, &e))?;
    conn.set_prepared_statement_cache_capacity(STATEMENTS_KEPT_MAX);
    Ok(conn)
}

fn missing(path: &Path) -> SqliteOpenError {
    SqliteOpenError::Missing(format!(
        "there is no database at {}: create it with its tables first, or correct the path",
        path.display()
    ))
}

/// Whether the file was moved or removed under the connection: what is committed into it would be lost.
pub(crate) fn has_moved(conn: &Connection) -> bool {
    let mut moved = 0;
    // A VFS that can't tell answers with an error; then nothing is known, as before.
    match conn.file_control(Some("main"), rusqlite::FileControl::HasMoved(&mut moved)) {
        Ok(()) => moved != 0,
        Err(_) => false,
    }
}

/// Interrupts statements that run too long. The clock is looked at only by those that take more than
/// [`STEPS_BETWEEN_LOOKS`] steps, so that short ones don't pay for it.
#[derive(Clone, Default)]
pub(crate) struct StatementWatch {
    statement: Arc<AtomicU64>,
}

impl StatementWatch {
    /// Watches the connection; 0 watches nothing.
    pub(crate) fn watch(&self, conn: &mut Connection, time_ms_max: u64) -> rusqlite::Result<()> {
        if time_ms_max == 0 {
            return Ok(());
        }
        let statement = Arc::clone(&self.statement);
        let allowed = Duration::from_millis(time_ms_max);
        let mut seen = (0, Instant::now());
        let too_long = move || {
            let now = statement.load(Ordering::Relaxed);
            if seen.0 != now {
                seen = (now, Instant::now());
            }
            seen.1.elapsed() > allowed
        };
        conn.progress_handler(STEPS_BETWEEN_LOOKS, Some(too_long))
    }

    /// Another statement begins.
    pub(crate) fn next(&self) {
        self.statement.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commits_are_durable_in_every_journal_mode() {
        let folder = tempfile::tempdir().unwrap();
        for (name, mode, create_file, expected) in [
            ("new.db", None, true, ("wal", 2)),
            ("wal.db", Some("wal"), false, ("wal", 2)),
            ("old.db", Some("delete"), false, ("delete", 3)),
        ] {
            let path = folder.path().join(name);
            if let Some(mode) = mode {
                let conn = Connection::open(&path).unwrap();
                conn.pragma_update_and_check(None, "journal_mode", mode, |_| Ok(())).unwrap();
                conn.execute_batch("CREATE TABLE t (n)").unwrap();
            }
            let conn = open(&Opening { path: &path, vfs: None, create_file, busy_timeout_ms: 0 }).unwrap();
            let text: String = conn.pragma_query_value(None, "journal_mode", |row| row.get(0)).unwrap();
            let level: i64 = conn.pragma_query_value(None, "synchronous", |row| row.get(0)).unwrap();
            let keys: bool = conn.pragma_query_value(None, "foreign_keys", |row| row.get(0)).unwrap();
            assert_eq!(((text.as_str(), level), keys), (expected, true), "{name}");
        }
    }
}
