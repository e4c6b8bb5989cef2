//! A folder that is an exact copy of a ledger kept elsewhere: every entry of that ledger's log is applied to it, in
//! the log's order, so that whoever reads the folder reads the whole ledger.
//!
//! How far it is stands in the catalog's `replica` table. An entry of the journal moves it in the same transaction; a
//! batch is known by its seq if it comes once more, so after batches it may lag behind.

use crate::codec::{self, CodecError};
use crate::journal::{put, put_config_row, read_configs};
use crate::opener::{Opener, failed};
use crate::segment;
use crate::settings::LedgerSettings;
use crate::shelf::{CATALOG, CatalogView};
use crate::store::{EncodedBatch, JournalEntry, LedgerError, LedgerId, Mark, StoredConfig};
use crate::writer::{SqliteLedger, check_same, in_transaction};
use recount_model::{ConfigVersion, PartitionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

/// After so many entries at most, how far the replica is becomes durable.
const ENTRIES_UNNOTED_MAX: u64 = 256;

/// What a new ledger is made from: its id, and the key of its identity hashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Birth {
    /// Names it.
    pub id: LedgerId,
    /// The same in every replica, so that their identity sums are.
    pub identity_key: crate::IdentityKey,
}

impl Birth {
    /// A new one, from the operating system's random numbers.
    ///
    /// # Errors
    /// Where the system gives none.
    pub fn new() -> Result<Self, LedgerError> {
        Ok(Self::of(&crate::birth::random_bytes()?))
    }

    pub(crate) fn of(random: &[u8; 48]) -> Self {
        let (id, key) = random.split_at(16);
        let mut identity_key = [0; 32];
        identity_key.copy_from_slice(key);
        Self { id: LedgerId(id.iter().map(|byte| format!("{byte:02x}")).collect()), identity_key }
    }
}

/// What a replica is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReplicaOf {
    /// The ledger.
    pub birth: Birth,
    /// Where it is, for messages; no password.
    pub place: String,
}

/// What lies in a folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FolderHolds {
    /// No ledger.
    Nothing,
    /// A ledger of its own.
    Ledger(LedgerId),
    /// A replica.
    Replica {
        /// Of this ledger.
        id: LedgerId,
        /// Which was there when the replica was made.
        place: String,
    },
}

/// Looks at what lies in a folder, without its lock.
///
/// # Errors
/// Where it can't be read.
pub fn folder_holds(path: impl AsRef<Path>) -> Result<FolderHolds, LedgerError> {
    let opener = Opener { folder: path.as_ref().to_owned(), vfs: None, exclusive: false };
    if !opener.path(CATALOG).is_file() {
        return Ok(FolderHolds::Nothing);
    }
    let catalog = opener.read(CATALOG)?;
    if !has_table(&catalog.connection, "ledger")? {
        return Ok(FolderHolds::Nothing);
    }
    let id = CatalogView::read(&catalog.connection)?.id;
    Ok(match read_state(&catalog.connection)? {
        Some(state) => FolderHolds::Replica { id, place: state.place },
        None => FolderHolds::Ledger(id),
    })
}

/// One entry of the log.
#[derive(Debug, Clone)]
pub struct LogEntry {
    /// Its place in the log, from 1 on without holes.
    pub ordinal: u64,
    /// When it became durable there.
    pub persisted_at: Timestamp,
    /// What it says.
    pub content: LogContent,
}

/// What an entry of the log says.
#[derive(Debug, Clone)]
pub enum LogContent {
    /// A batch of decisions.
    Batch(EncodedBatch),
    /// An entry of the journal; its `persisted_at` is the log entry's.
    Journal(JournalEntry),
    /// A config version began.
    Config(StoredConfig),
}

impl LogContent {
    /// A batch from its packed bytes.
    ///
    /// # Errors
    /// Where they aren't what was packed.
    pub fn batch(bytes: Vec<u8>) -> Result<Self, CodecError> {
        let record = Arc::new(codec::decode(&bytes)?);
        Ok(Self::Batch(EncodedBatch { record, bytes: bytes.into() }))
    }
}

impl LogEntry {
    fn batch(&self) -> Option<(EncodedBatch, Timestamp)> {
        match &self.content {
            LogContent::Batch(batch) => Some((batch.clone(), self.persisted_at)),
            LogContent::Journal(_) | LogContent::Config(_) => None,
        }
    }

    /// Tells it from another that came to the same ordinal, in a log that was restored and went on otherwise.
    pub fn stamp(&self) -> String {
        let what = match &self.content {
            LogContent::Batch(batch) => format!("{}/{}", batch.record.at, batch.record.seq),
            LogContent::Journal(entry) => format!("{} at {}", entry.what, entry.at),
            LogContent::Config(config) => format!("config {}", config.hash),
        };
        format!("{} {what}", self.persisted_at.0)
    }
}

/// How far a replica is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReplicaState {
    place: String,
    /// The last entry that was applied, and its stamp.
    applied: u64,
    stamp: String,
    /// The same as far as it is durable.
    noted: u64,
}

fn has_table(catalog: &Connection, name: &str) -> Result<bool, LedgerError> {
    let sql = "SELECT count(*) FROM sqlite_schema WHERE type = 'table' AND name = ?1";
    let count: i64 = catalog.query_row(sql, [name], |row| row.get(0)).map_err(failed(CATALOG))?;
    Ok(count > 0)
}

pub(crate) fn read_state(catalog: &Connection) -> Result<Option<ReplicaState>, LedgerError> {
    if !has_table(catalog, "replica")? {
        return Ok(None);
    }
    let read = catalog.query_row("SELECT place, applied, stamp FROM replica", [], |row| {
        Ok((row.get(0)?, row.get::<_, i64>(1)? as u64, row.get(2)?))
    });
    let (place, applied, stamp) = read.map_err(failed(CATALOG))?;
    Ok(Some(ReplicaState { place, applied, stamp, noted: applied }))
}

/// Makes the table in a new catalog.
pub(crate) fn make_table(catalog: &Connection, of: &ReplicaOf) -> rusqlite::Result<()> {
    catalog.execute_batch(
        "CREATE TABLE replica (place TEXT NOT NULL, applied INTEGER NOT NULL, stamp TEXT NOT NULL)",
    )?;
    catalog.execute("INSERT INTO replica VALUES (?1, 0, '')", [&of.place])?;
    Ok(())
}

/// A ledger of its own is never opened as a replica, a replica never as a ledger of its own, and each only as what it
/// is a replica of.
pub(crate) fn refuse_foreign(
    folder: &Path,
    id: &LedgerId,
    state: Option<&ReplicaState>,
    settings: &LedgerSettings,
) -> Result<(), LedgerError> {
    let folder = folder.display();
    let why = match (state, &settings.replica_of) {
        (None, None) => return Ok(()),
        (Some(_), Some(of)) if of.birth.id == *id => return Ok(()),
        (Some(_), Some(of)) => format!(
            "{folder} is a replica of ledger {}, and the ledger at {} is {}: name another folder, or the database of {0}",
            id.0, of.place, of.birth.id.0
        ),
        (None, Some(of)) => format!(
            "{folder} holds ledger {} itself, which is not the ledger {} at {}: name another folder for the replica",
            id.0, of.birth.id.0, of.place
        ),
        (Some(state), None) => format!(
            "{folder} is a replica of ledger {} at {}: name that database in [ledger], or another folder",
            id.0, state.place
        ),
    };
    Err(LedgerError::Foreign(why))
}

impl SqliteLedger {
    /// The last entry of the log that was applied; 0 before the first, and in a ledger of its own.
    pub fn applied(&self) -> u64 {
        self.replica.as_ref().map_or(0, |state| state.applied)
    }

    /// The stamp of that entry; none before the first.
    pub fn applied_stamp(&self) -> Option<&str> {
        self.replica.as_ref().filter(|state| state.applied > 0).map(|state| state.stamp.as_str())
    }

    /// Applies what follows in the log. Entries that were applied are passed over.
    ///
    /// # Errors
    /// `Corrupt` where one is missing between, or a batch does not fit; the replica is poisoned then.
    pub fn replicate(&mut self, entries: &[LogEntry]) -> Result<(), LedgerError> {
        self.healthy()?;
        let done = self.replicate_all(entries);
        self.written(done)
    }

    fn replicate_all(&mut self, entries: &[LogEntry]) -> Result<(), LedgerError> {
        let behind = self.applied();
        let fresh: Vec<&LogEntry> = entries.iter().filter(|entry| entry.ordinal > behind).collect();
        for (entry, follows) in fresh.iter().zip(behind + 1..) {
            if entry.ordinal != follows {
                let found = entry.ordinal;
                let what = format!("entry {follows} of the ledger's log is missing: {found} follows");
                return Err(LedgerError::Corrupt(what));
            }
        }
        let mut rest = &fresh[..];
        while let Some(first) = rest.first() {
            // Batches between two entries of the journal share a commit.
            let together: Vec<_> = rest.iter().map_while(|entry| entry.batch()).collect();
            let taken = together.len().max(1);
            if together.is_empty() {
                self.put_log_entry(first)?;
            } else {
                self.append_each(&together)?;
                self.note(rest[taken - 1]);
            }
            rest = &rest[taken..];
        }
        match &self.replica {
            Some(state) if state.applied - state.noted >= ENTRIES_UNNOTED_MAX => self.note_durably(),
            _ => Ok(()),
        }
    }

    fn note(&mut self, entry: &LogEntry) {
        if let Some(state) = &mut self.replica {
            (state.applied, state.stamp) = (entry.ordinal, entry.stamp());
        }
    }

    /// Makes durable how far the replica is; a ledger of its own has nothing to note.
    pub fn note_durably(&mut self) -> Result<(), LedgerError> {
        let Some(state) = &mut self.replica else { return Ok(()) };
        if state.noted < state.applied {
            let values = params![state.applied as i64, state.stamp];
            let sql = "UPDATE replica SET applied = ?1, stamp = ?2";
            self.catalog.execute(sql, values).map_err(failed(CATALOG))?;
            state.noted = state.applied;
        }
        Ok(())
    }

    fn put_log_entry(&mut self, entry: &LogEntry) -> Result<(), LedgerError> {
        let catalog = &self.catalog;
        in_transaction(CATALOG, catalog, || {
            match &entry.content {
                LogContent::Journal(journal) => drop(put(catalog, journal, entry.persisted_at)?),
                LogContent::Config(config) => put_config_row(catalog, config, entry.persisted_at)?,
                LogContent::Batch(_) => {}
            }
            let values = params![entry.ordinal as i64, entry.stamp()];
            catalog.execute("UPDATE replica SET applied = ?1, stamp = ?2", values)?;
            Ok(())
        })?;
        self.note(entry);
        if let Some(state) = &mut self.replica {
            state.noted = state.applied;
        }
        Ok(())
    }

    /// Which of these batches are not there yet, as [`append`](crate::LedgerStore::append) would find.
    ///
    /// # Errors
    /// As `append`: `Corrupt` where one leaves a gap, or is there already and another one.
    pub fn not_yet_there(&self, batches: &[EncodedBatch]) -> Result<Vec<EncodedBatch>, LedgerError> {
        self.healthy()?;
        let (_, connection) = self.open_segment()?;
        let mut marks: HashMap<&PartitionId, Mark> = HashMap::new();
        let mut new = Vec::new();
        for batch in batches {
            let record = &*batch.record;
            let number = self.shelf.partitions.number(&record.at);
            let mark = marks.get(&record.at).or_else(|| self.marks.get(&number?));
            if mark.is_some_and(|mark| record.seq <= mark.seq) {
                if let Some(number) = number {
                    check_same(connection, number, batch).map_err(|failure| failure.of(CATALOG))?;
                }
                continue;
            }
            segment::check(record, mark)?;
            let (seq, next_offset) = (record.seq, record.next_offset);
            marks.insert(&record.at, Mark { seq, next_offset, decided_above: record.decided_above.clone() });
            new.push(batch.clone());
        }
        Ok(new)
    }

    /// The config as the ledger would keep it: the version of the latest where it is the same, else the next one.
    ///
    /// # Errors
    /// Where the configs can't be read.
    pub fn version_of(&self, config: &StoredConfig) -> Result<VersionOf, LedgerError> {
        let latest = read_configs(&self.catalog)?.pop();
        Ok(match latest {
            Some(latest) if is_same(&latest, config) => VersionOf::Known(latest.version),
            latest => VersionOf::New(ConfigVersion(latest.map_or(1, |latest| latest.version.0 + 1))),
        })
    }

    /// The latest version that this config has.
    ///
    /// # Errors
    /// Where the configs can't be read.
    pub fn last_version_of(&self, config: &StoredConfig) -> Result<Option<ConfigVersion>, LedgerError> {
        let known = read_configs(&self.catalog)?;
        Ok(known.iter().rfind(|known| is_same(known, config)).map(|known| known.version))
    }

    /// The ordinal of the journal's last entry; 0 where there is none.
    ///
    /// # Errors
    /// Where the journal can't be read.
    pub fn last_journal_entry(&self) -> Result<u64, LedgerError> {
        let sql = "SELECT max(entry) FROM journal";
        let last = self.catalog.query_row(sql, [], |row| row.get::<_, Option<i64>>(0)).optional();
        Ok(last.map_err(failed(CATALOG))?.flatten().unwrap_or(0) as u64)
    }
}

/// Which version a config is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VersionOf {
    /// It is the latest one, unchanged and by the same author.
    Known(ConfigVersion),
    /// It would be this one.
    New(ConfigVersion),
}

/// A config that is the latest one, unchanged and by the same author, is no new version.
pub(crate) fn is_same(latest: &StoredConfig, config: &StoredConfig) -> bool {
    (&latest.hash, &latest.author, &latest.revision) == (&config.hash, &config.author, &config.revision)
}
