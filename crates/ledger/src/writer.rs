//! [`SqliteLedger`]: the one process that writes a ledger.

use crate::files::{FolderLock, LockFailure};
use crate::identity::{IdentityHasher, IdentityKey};
use crate::opener::{Opener, SqliteFile, failed, refused};
use crate::replica::{self, ReplicaState};
use crate::segment::{self, Place, PutFailure};
use crate::settings::LedgerSettings;
use crate::shelf::{CATALOG, CatalogView, Corrections, Partitions, Segment, SegmentState, Shelf};
use crate::store::{EncodedBatch, LedgerError, LedgerId, Mark};
use recount_model::{PartitionId, Timestamp};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::path::Path;

/// The file whose lock says that the folder has a writer; it holds the writer's process id.
pub const LOCK_FILE: &str = "lock";
/// The file that tells commands where the writer listens.
pub const ADDRESS_FILE: &str = "address";

/// The ledger in a folder, open for writing. Only one process has it at a time.
#[derive(Debug)]
pub struct SqliteLedger {
    pub(crate) settings: LedgerSettings,
    pub(crate) catalog: Connection,
    pub(crate) shelf: Shelf,
    pub(crate) id: LedgerId,
    pub(crate) identity_key: IdentityKey,
    pub(crate) marks: HashMap<i64, Mark>,
    pub(crate) corrections: Corrections,
    pub(crate) next_ordinal: u64,
    /// When the open segment's first batch was persisted.
    pub(crate) open_since: Option<Timestamp>,
    pub(crate) sealing: Option<crate::seal::Sealing>,
    /// Decisions appended since sealing last went on.
    pub(crate) appended: u64,
    /// Files that the catalog names no more; a reader may still open them until the next round.
    pub(crate) obsolete: VecDeque<String>,
    /// How far it is, where it is a replica.
    pub(crate) replica: Option<ReplicaState>,
    poisoned: Option<String>,
    _lock: Box<dyn FolderLock>,
}

/// What an append changes in memory once it is committed.
struct Appended {
    marks: BTreeMap<i64, Mark>,
    corrections: Vec<(i64, u64, u64)>,
    next_ordinal: u64,
    decisions: u64,
}

impl SqliteLedger {
    /// Opens the ledger in this folder, or makes one, and takes the folder's lock.
    ///
    /// Fails with `Locked` where another process has it, `TooNew` where a newer program wrote it, `Corrupt`
    /// where the catalog and the files don't fit together.
    pub fn open(path: impl AsRef<Path>, settings: LedgerSettings) -> Result<Self, LedgerError> {
        let folder = path.as_ref();
        settings.files.create_dir(folder).map_err(refused(folder))?;
        let lock = take_lock(folder, &settings)?;
        let opener =
            Opener { folder: folder.to_owned(), vfs: settings.vfs.clone(), exclusive: settings.exclusive };
        let catalog = crate::birth::open_catalog(&opener, &settings)?;
        let view = CatalogView::read(&catalog)?;
        let replica = replica::read_state(&catalog)?;
        replica::refuse_foreign(folder, &view.id, replica.as_ref(), &settings)?;
        crate::birth::remove_strangers(&opener, &settings, &view)?;
        let mut shelf = Shelf::new(opener, &view);
        shelf.segments.clear();
        for info in &view.segments {
            let path = shelf.opener.path(&info.file);
            if !settings.files.exists(&path).map_err(refused(&path))? {
                return Err(LedgerError::Corrupt(format!("{} is missing; the catalog names it", info.file)));
            }
            shelf.segments.push(match info.state {
                SegmentState::Sealed => Segment::unopened(info.clone()),
                _ => Segment::opened(info.clone(), SqliteFile::from(shelf.opener.write(&info.file)?)),
            });
        }
        let mut ledger = Self {
            settings,
            catalog,
            shelf,
            id: view.id,
            identity_key: view.identity_key,
            marks: HashMap::new(),
            corrections: Corrections::default(),
            next_ordinal: 0,
            open_since: None,
            sealing: None,
            appended: 0,
            obsolete: VecDeque::new(),
            replica,
            poisoned: None,
            _lock: lock,
        };
        ledger.read_state()?;
        Ok(ledger)
    }

    fn read_state(&mut self) -> Result<(), LedgerError> {
        let numbers: Vec<i64> = self.shelf.partitions.iter().map(|(number, _)| number).collect();
        for number in numbers {
            if let Some(mark) = self.shelf.mark(&self.catalog, number)? {
                self.marks.insert(number, mark);
            }
        }
        self.corrections = self.shelf.corrections(&self.catalog)?;
        let (file, open) = self.open_segment()?;
        let state = open.query_row("SELECT max(ordinal), min(persisted_at) FROM batch", [], |row| {
            Ok((row.get::<_, Option<i64>>(0)?, row.get::<_, Option<i64>>(1)?))
        });
        let (last, since) = state.map_err(failed(file))?;
        let from = self.shelf.segments.last().map_or(1, |segment| segment.info.ordinal_from);
        self.open_since = since.map(Timestamp);
        self.next_ordinal = last.map_or(from, |last| last as u64 + 1);
        Ok(())
    }

    /// The key of this ledger's identity hashes.
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// Writes where this instance listens, for the commands that write; removed when the ledger is dropped.
    pub fn announce(&self, address: &str) -> Result<(), LedgerError> {
        let path = self.shelf.opener.path(ADDRESS_FILE);
        self.settings.files.write(&path, address.as_bytes()).map_err(refused(&path))
    }

    /// The open segment's file and connection.
    pub(crate) fn open_segment(&self) -> Result<(&str, &Connection), LedgerError> {
        let last = self.shelf.segments.last().filter(|s| s.info.state == SegmentState::Open);
        let open = last.ok_or_else(|| LedgerError::Corrupt(format!("{CATALOG} names no open segment")))?;
        Ok((&open.info.file, open.connection(&self.shelf.opener)?))
    }

    /// Refuses where an earlier write failed.
    pub(crate) fn healthy(&self) -> Result<(), LedgerError> {
        match &self.poisoned {
            Some(why) => Err(LedgerError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// Remembers a failed write: nobody knows what of it is durable, so nothing more is written.
    pub(crate) fn written<T>(&mut self, result: Result<T, LedgerError>) -> Result<T, LedgerError> {
        if let Err(error) = &result {
            self.poisoned.get_or_insert_with(|| error.to_string());
        }
        result
    }

    /// The partition's number; a new partition is made known to the catalog first, in a commit of its own.
    pub(crate) fn partition_number(&mut self, at: &PartitionId) -> Result<i64, LedgerError> {
        if let Some(number) = self.shelf.partitions.number(at) {
            return Ok(number);
        }
        let number = self.shelf.partitions.next_number();
        let sql = "INSERT INTO partition VALUES (?1,?2,?3,?4)";
        let values = params![number, at.flow.as_str(), at.source.as_str(), at.partition.as_str()];
        self.catalog.execute(sql, values).map_err(failed(CATALOG))?;
        self.shelf.partitions.add(number, at.clone());
        Ok(number)
    }

    pub(crate) fn append_all(
        &mut self,
        batches: &[EncodedBatch],
        persisted_at: Timestamp,
    ) -> Result<(), LedgerError> {
        let each: Vec<_> = batches.iter().map(|batch| (batch.clone(), persisted_at)).collect();
        self.append_each(&each)
    }

    /// Appends batches in one commit, each with the time when it became durable where it was first kept.
    pub(crate) fn append_each(&mut self, batches: &[(EncodedBatch, Timestamp)]) -> Result<(), LedgerError> {
        for (batch, _) in batches {
            self.partition_number(&batch.record.at)?;
        }
        let (file, connection) = self.open_segment()?;
        let appended = in_transaction(file, connection, || self.put_all(connection, batches))?;
        if appended.next_ordinal > self.next_ordinal {
            self.open_since = self.open_since.or(batches.first().map(|(_, persisted_at)| *persisted_at));
        }
        self.marks.extend(appended.marks);
        for (partition_no, offset, seq) in appended.corrections {
            self.corrections.add(partition_no, offset, seq);
        }
        self.next_ordinal = appended.next_ordinal;
        self.appended += appended.decisions;
        Ok(())
    }

    fn put_all(
        &self,
        connection: &Connection,
        batches: &[(EncodedBatch, Timestamp)],
    ) -> Result<Appended, PutFailure> {
        let mut appended = Appended {
            marks: BTreeMap::new(),
            corrections: Vec::new(),
            next_ordinal: self.next_ordinal,
            decisions: 0,
        };
        for (batch, persisted_at) in batches {
            let (record, persisted_at) = (&*batch.record, *persisted_at);
            let partition_no = number_of(&self.shelf.partitions, &record.at)?;
            let mark = appended.marks.get(&partition_no).or_else(|| self.marks.get(&partition_no));
            if mark.is_some_and(|mark| record.seq <= mark.seq) {
                check_same(connection, partition_no, batch)?;
                continue;
            }
            segment::check(record, mark)?;
            let identity = &mut IdentityHasher::new(&self.identity_key, &record.at);
            let ordinal = appended.next_ordinal;
            segment::put(connection, batch, Place { partition_no, ordinal, persisted_at, identity })?;
            appended.next_ordinal += 1;
            appended.decisions += record.decisions.len() as u64;
            let (seq, next_offset) = (record.seq, record.next_offset);
            let mark = Mark { seq, next_offset, decided_above: record.decided_above.clone() };
            appended.marks.insert(partition_no, mark);
            let corrected = record.decisions.iter().filter(|d| d.corrects.is_some());
            appended.corrections.extend(corrected.map(|d| (partition_no, d.offset, seq)));
        }
        Ok(appended)
    }
}

impl Drop for SqliteLedger {
    fn drop(&mut self) {
        // What is not noted is only applied once more.
        drop(self.note_durably());
        // Nothing can be done about an address that stays: who reads it finds the lock free.
        drop(self.settings.files.remove(&self.shelf.opener.path(ADDRESS_FILE)));
    }
}

fn take_lock(folder: &Path, settings: &LedgerSettings) -> Result<Box<dyn FolderLock>, LedgerError> {
    let path = folder.join(LOCK_FILE);
    settings.files.lock(&path, &std::process::id().to_string()).map_err(|failure| match failure {
        LockFailure::Io(error) => refused(&path)(error),
        LockFailure::Held(process) => {
            let address = settings.files.read(&folder.join(ADDRESS_FILE)).ok();
            let address = address.map(|bytes| format!(" at {}", String::from_utf8_lossy(&bytes).trim()));
            let holder = format!("{process}{}", address.unwrap_or_default());
            LedgerError::Locked { path: folder.display().to_string(), holder }
        }
    })
}

pub(crate) fn number_of(partitions: &Partitions, at: &PartitionId) -> Result<i64, LedgerError> {
    partitions.number(at).ok_or_else(|| LedgerError::Corrupt(format!("partition {at} has no number")))
}

/// Runs `work` in one transaction: all of it becomes durable, or none.
pub(crate) fn in_transaction<T>(
    file: &str,
    connection: &Connection,
    work: impl FnOnce() -> Result<T, PutFailure>,
) -> Result<T, LedgerError> {
    connection.execute_batch("BEGIN IMMEDIATE").map_err(failed(file))?;
    let done = work().and_then(|done| connection.execute_batch("COMMIT").map(|()| done).map_err(Into::into));
    done.map_err(|failure| {
        // The first error is the one to tell; SQLite may have rolled back by itself.
        drop(connection.execute_batch("ROLLBACK"));
        failure.of(file)
    })
}

/// A batch that is there already must be the one that is appended again.
pub(crate) fn check_same(
    connection: &Connection,
    partition_no: i64,
    batch: &EncodedBatch,
) -> Result<(), PutFailure> {
    let sql = "SELECT epoch, next_offset, decisions FROM batch WHERE partition_no = ?1 AND seq = ?2";
    let record = &*batch.record;
    let stored = connection
        .prepare_cached(sql)?
        .query_row(params![partition_no, record.seq as i64], |row| {
            Ok((row.get::<_, i64>(0)? as u64, row.get::<_, i64>(1)? as u64, row.get::<_, i64>(2)? as usize))
        })
        .optional()?;
    if stored.is_some_and(|same| same != (record.epoch, record.next_offset, record.decisions.len())) {
        let what = format!("batch {} of {} is there already and is another one", record.seq, record.at);
        return Err(LedgerError::Corrupt(what).into());
    }
    Ok(())
}
