//! Opening SQLite files: to write, to read beside a writer, and on a read-only mount.

use crate::files::{FileOps, RealFiles};
use crate::store::LedgerError;
use rusqlite::{Connection, ErrorCode, OpenFlags};
use std::path::{Path, PathBuf};
use std::time::Duration;

const BUSY_TIMEOUT: Duration = Duration::from_secs(5);
const COPY_ATTEMPTS: usize = 5;

/// Opens the files of one ledger's folder.
#[derive(Debug, Clone)]
pub(crate) struct Opener {
    pub(crate) folder: PathBuf,
    pub(crate) vfs: Option<String>,
    pub(crate) exclusive: bool,
}

/// A connection; where the file could not be opened in its place, with the copy that it reads.
#[derive(Debug)]
pub(crate) struct SqliteFile {
    pub(crate) connection: Connection,
    _copy: Option<tempfile::TempDir>,
}

impl From<Connection> for SqliteFile {
    fn from(connection: Connection) -> Self {
        Self { connection, _copy: None }
    }
}

/// Says what SQLite's error means for the ledger.
pub(crate) fn failed(file: &str) -> impl Fn(rusqlite::Error) -> LedgerError + '_ {
    move |error| {
        let text = format!("{file}: {error}");
        match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => LedgerError::Corrupt(text),
            Some(_) => LedgerError::Unwritable(text),
            None => LedgerError::Corrupt(text),
        }
    }
}

/// Says what a failed file operation means.
pub(crate) fn refused(path: &Path) -> impl Fn(std::io::Error) -> LedgerError + '_ {
    move |error| LedgerError::Unwritable(format!("{}: {error}", path.display()))
}

impl Opener {
    pub(crate) fn path(&self, file: &str) -> PathBuf {
        self.folder.join(file)
    }

    fn connect(&self, path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
        let flags = flags | OpenFlags::SQLITE_OPEN_NO_MUTEX | OpenFlags::SQLITE_OPEN_URI;
        let connection = match &self.vfs {
            Some(vfs) => Connection::open_with_flags_and_vfs(path, flags, vfs.as_str())?,
            None => Connection::open_with_flags(path, flags)?,
        };
        connection.busy_timeout(BUSY_TIMEOUT)?;
        connection.set_prepared_statement_cache_capacity(64);
        connection.execute_batch("PRAGMA temp_store = MEMORY")?;
        if self.exclusive {
            connection.execute_batch("PRAGMA locking_mode = EXCLUSIVE")?;
        }
        Ok(connection)
    }

    /// Opens or makes a file that is written in write-ahead mode, durable at each commit.
    pub(crate) fn write(&self, file: &str) -> Result<Connection, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let open = || {
            let connection = self.connect(&self.path(file), flags)?;
            // SQLite stays in the mode it has where it can't change it, and says so without an error. In
            // write-ahead mode EXTRA is FULL; in the other ones only EXTRA makes a commit durable.
            connection.execute_batch("PRAGMA journal_mode = WAL; PRAGMA synchronous = EXTRA")?;
            // What a killed process wrote and did not sync is seen from now on, and others rely on it: the
            // checkpoint syncs the log first.
            connection.query_row("PRAGMA wal_checkpoint(PASSIVE)", [], |_| Ok(()))?;
            Ok(connection)
        };
        open().map_err(failed(file))
    }

    /// Opens or makes a sealed segment: no write-ahead log, a rollback journal where it is rewritten.
    pub(crate) fn write_sealed(&self, file: &str) -> Result<Connection, LedgerError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
        let open = || {
            let connection = self.connect(&self.path(file), flags)?;
            connection.execute_batch(
                "PRAGMA journal_mode = DELETE; PRAGMA synchronous = EXTRA; PRAGMA secure_delete = ON",
            )?;
            Ok(connection)
        };
        open().map_err(failed(file))
    }

    /// Opens a file to read: in its place where SQLite can, else a copy of it and its write-ahead log.
    pub(crate) fn read(&self, file: &str) -> Result<SqliteFile, LedgerError> {
        match self.read_in_place(file) {
            Ok(connection) => Ok(SqliteFile { connection, _copy: None }),
            Err(error) if cannot_open_in_place(&error) && self.vfs.is_none() => self.read_copy(file),
            Err(error) => Err(failed(file)(error)),
        }
    }

    fn read_in_place(&self, file: &str) -> rusqlite::Result<Connection> {
        let connection = self.connect(&self.path(file), OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        connection.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(()))?;
        Ok(connection)
    }

    /// On a read-only mount SQLite can't make the shared memory that a write-ahead log needs.
    pub(crate) fn read_copy(&self, file: &str) -> Result<SqliteFile, LedgerError> {
        let copy = tempfile::Builder::new()
            .prefix("recount-ledger-")
            .tempdir()
            .map_err(|error| LedgerError::Unwritable(format!("a temporary folder is needed: {error}")))?;
        let target = copy.path().join(file);
        self.copy_unchanged(file, &target)?;
        let connection = self
            .connect(&target, OpenFlags::SQLITE_OPEN_READ_WRITE)
            .and_then(|c| c.query_row("SELECT count(*) FROM sqlite_schema", [], |_| Ok(())).map(|()| c))
            .map_err(failed(file))?;
        Ok(SqliteFile { connection, _copy: Some(copy) })
    }

    /// Copies the file and its logs, and again where one of them changed meanwhile.
    fn copy_unchanged(&self, file: &str, target: &Path) -> Result<(), LedgerError> {
        let beside = |path: &Path, ending: &str| PathBuf::from(format!("{}{ending}", path.display()));
        let source = self.path(file);
        let files = ["", "-wal", "-journal"].map(|ending| (beside(&source, ending), beside(target, ending)));
        let stamps = || {
            files
                .each_ref()
                .map(|(from, _)| std::fs::metadata(from).ok().map(|m| (m.len(), m.modified().ok())))
        };
        for _ in 0..COPY_ATTEMPTS {
            let before = stamps();
            for ((from, to), stamp) in files.iter().zip(&before) {
                match stamp {
                    Some(_) => {
                        std::fs::copy(from, to).and_then(|_| make_writable(to)).map_err(refused(from))?
                    }
                    None => RealFiles.remove(to).map_err(refused(to))?,
                }
            }
            if before == stamps() {
                return Ok(());
            }
        }
        Err(LedgerError::Unwritable(format!(
            "{file} can't be opened in its place and changes while it is copied: read it as the user who writes it"
        )))
    }
}

fn make_writable(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

fn cannot_open_in_place(error: &rusqlite::Error) -> bool {
    matches!(error.sqlite_error_code(), Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly))
}
