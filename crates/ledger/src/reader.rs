//! [`LedgerReader`]: reading a ledger beside its writer, after a crash, or on a read-only mount.

use crate::books::{ClosedBook, read_books};
use crate::files::{FileOps, LockFailure, RealFiles};
use crate::identity::IdentityKey;
use crate::journal::{read_configs, read_journal};
use crate::opener::{Opener, SqliteFile, refused};
use crate::query::Query;
use crate::scan::{Scanned, scan};
use crate::settings::LedgerSettings;
use crate::shelf::{CATALOG, CatalogView, SegmentState, Shelf};
use crate::store::{
    DecisionFilter, JournalEntry, LedgerError, LedgerId, LedgerRead, Mark, StoredBatch, StoredConfig,
    StoredDecision,
};
use crate::writer::{ADDRESS_FILE, LOCK_FILE};
use recount_model::{Decision, FlowName, Gap, KeptBody, PartitionId};
use std::cell::RefCell;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::ops::ControlFlow;
use std::path::Path;

/// A ledger opened for reading; it writes nothing. Every question sees the ledger as it is then.
#[derive(Debug)]
pub struct LedgerReader {
    opener: Opener,
    catalog: SqliteFile,
    id: LedgerId,
    identity_key: IdentityKey,
    /// Connections of the last question, by file.
    idle: RefCell<BTreeMap<String, SqliteFile>>,
    refresh: Option<Refresh>,
}

/// Brings a replica up to date, for its readers.
pub struct Refresh(pub Box<dyn Fn() -> Result<(), LedgerError> + Send + Sync>);

impl fmt::Debug for Refresh {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Refresh")
    }
}

/// The address that the instance holding this ledger announced; `None` where none runs, or it has none.
pub fn running_instance(path: impl AsRef<Path>) -> Option<String> {
    let folder = path.as_ref();
    let address = RealFiles.read(&folder.join(ADDRESS_FILE)).ok().filter(|_| is_held(folder))?;
    Some(String::from_utf8_lossy(&address).trim().to_owned()).filter(|address| !address.is_empty())
}

/// Whether a process holds this ledger for writing, whatever it is.
pub fn is_held(path: impl AsRef<Path>) -> bool {
    let lock = path.as_ref().join(LOCK_FILE);
    match RealFiles.exists(&lock) {
        Ok(true) => matches!(RealFiles.lock_to_look(&lock), Err(LockFailure::Held(_))),
        _ => false,
    }
}

impl LedgerReader {
    /// Opens the ledger in this folder. Fails with `Missing` where there is none.
    pub fn open(path: impl AsRef<Path>) -> Result<Self, LedgerError> {
        Self::open_with(path, &LedgerSettings::default())
    }

    /// The same with the VFS, locking mode and file operations of these settings. Over a VFS that was named,
    /// nothing is copied where a file can't be opened in its place.
    pub fn open_with(path: impl AsRef<Path>, settings: &LedgerSettings) -> Result<Self, LedgerError> {
        let (vfs, exclusive) = (settings.vfs.clone(), settings.exclusive);
        let opener = Opener { folder: path.as_ref().to_owned(), vfs, exclusive };
        if !settings.files.exists(&opener.path(CATALOG)).map_err(refused(&opener.folder))? {
            return Err(LedgerError::Missing(opener.folder.display().to_string()));
        }
        Self::open_by(opener)
    }

    /// The same over a SQLite VFS of this name, which alone knows whether there is a file.
    pub fn open_with_vfs(path: impl AsRef<Path>, vfs: Option<String>) -> Result<Self, LedgerError> {
        match vfs {
            None => Self::open(path),
            vfs => Self::open_by(Opener { folder: path.as_ref().to_owned(), vfs, exclusive: false }),
        }
    }

    fn open_by(opener: Opener) -> Result<Self, LedgerError> {
        let missing = || LedgerError::Missing(opener.folder.display().to_string());
        let catalog = opener.read(CATALOG)?;
        let known = "SELECT count(*) FROM sqlite_schema WHERE name = 'ledger'";
        let tables: i64 = catalog
            .connection
            .query_row(known, [], |row| row.get(0))
            .map_err(crate::opener::failed(CATALOG))?;
        if tables == 0 {
            return Err(missing());
        }
        let view = CatalogView::read(&catalog.connection)?;
        let (id, identity_key) = (view.id, view.identity_key);
        Ok(Self { opener, catalog, id, identity_key, idle: RefCell::default(), refresh: None })
    }

    /// The same reader, of a replica that somebody else keeps.
    pub fn refreshed_by(self, refresh: Refresh) -> Self {
        Self { refresh: Some(refresh), ..self }
    }

    /// How many entries of the log a replica holds: its batches, and its journal, where a config has its entry too.
    pub fn applied(&self) -> Result<u64, LedgerError> {
        let failed = crate::opener::failed;
        let journal: i64 = self
            .catalog
            .connection
            .query_row("SELECT coalesce(max(entry), 0) FROM journal", [], |row| row.get(0))
            .map_err(failed(CATALOG))?;
        let batches = self.with_shelf(|shelf| {
            let Some(last) = shelf.segments.last() else { return Ok(0) };
            let (sql, before) = ("SELECT max(ordinal) FROM batch", last.info.ordinal_from.saturating_sub(1));
            let newest =
                last.connection(&shelf.opener)?.query_row(sql, [], |row| row.get::<_, Option<i64>>(0));
            Ok(newest.map_err(failed(&last.info.file))?.map_or(before, |ordinal| ordinal as u64))
        })?;
        Ok(batches + journal as u64)
    }

    /// The key of this ledger's identity hashes, for [`identity_hash`](crate::identity_hash).
    pub fn identity_key(&self) -> &IdentityKey {
        &self.identity_key
    }

    /// What sealed and dropped segments hold, or held, by partition; oldest first. The decisions of dropped
    /// ones are counted only here, apart from dead letters that were carried over.
    pub fn books(&self) -> Result<Vec<ClosedBook>, LedgerError> {
        let view = CatalogView::read(&self.catalog.connection)?;
        read_books(&self.catalog.connection, &view.partitions)
    }

    /// The current decision at an offset, with the seq of its batch.
    pub fn current(&self, at: &PartitionId, offset: u64) -> Result<Option<(u64, Decision)>, LedgerError> {
        self.with_shelf(|shelf| {
            let Some(number) = shelf.partitions.number(at) else { return Ok(None) };
            let corrections = shelf.corrections(&self.catalog.connection)?;
            shelf.current(&self.catalog.connection, &corrections, number, offset)
        })
    }

    /// The kept bodies of many offsets, by offset: [`LedgerRead::body`] looks at the catalog anew for each.
    pub fn bodies(&self, at: &PartitionId, offsets: &[u64]) -> Result<BTreeMap<u64, KeptBody>, LedgerError> {
        self.with_shelf(|shelf| {
            let Some(number) = shelf.partitions.number(at) else { return Ok(BTreeMap::new()) };
            let mut bodies = BTreeMap::new();
            for &offset in offsets {
                if let Some(body) = shelf.body(&self.catalog.connection, number, offset)? {
                    bodies.insert(offset, body);
                }
            }
            Ok(bodies)
        })
    }

    /// [`LedgerRead::batches`], each with the sum of its decisions' identity hashes as it was taken when they
    /// were written.
    pub fn batches_with_identity(
        &self,
        flow: Option<&FlowName>,
        visit: &mut dyn FnMut(&StoredBatch, u128) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.with_shelf(|shelf| {
            let mut last_seq = self.dropped_seqs(shelf)?;
            let wanted = |number: i64| {
                flow.is_none_or(|flow| shelf.partitions.get(number).is_some_and(|at| at.flow == *flow))
            };
            for segment in &shelf.segments {
                let (file, connection) = (segment.info.file.as_str(), segment.connection(&shelf.opener)?);
                let step = scan(file, connection, &shelf.partitions, &wanted, &mut |scanned| {
                    check_seq(file, &mut last_seq, &scanned)?;
                    Ok(visit(&scanned.batch, scanned.row.identity))
                })?;
                if step.is_break() {
                    break;
                }
            }
            Ok(())
        })
    }

    pub(crate) fn catalog(&self) -> &rusqlite::Connection {
        &self.catalog.connection
    }

    /// The last seq of each partition that left with a dropped segment.
    fn dropped_seqs(&self, shelf: &Shelf) -> Result<HashMap<i64, u64>, LedgerError> {
        let mut seqs = HashMap::new();
        for book in read_books(&self.catalog.connection, &shelf.partitions)?.into_iter().filter(|b| b.dropped)
        {
            if let Some(number) = shelf.partitions.number(&book.at) {
                seqs.insert(number, book.seq_to);
            }
        }
        Ok(seqs)
    }

    /// Asks with the segments as the catalog names them now. Those that aren't sealed are opened first: their
    /// files may soon be replaced, and an open file stays readable.
    pub(crate) fn with_shelf<T>(
        &self,
        ask: impl FnOnce(&Shelf) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        let shelf = self.shelf()?;
        let answer = ask(&shelf);
        let mut idle = self.idle.borrow_mut();
        for segment in shelf.segments {
            let (info, file) = segment.into_parts();
            if let Some(file) = file {
                idle.insert(info.file, file);
            }
        }
        answer
    }

    fn shelf(&self) -> Result<Shelf, LedgerError> {
        let mut failure = None;
        for _ in 0..3 {
            let view = CatalogView::read(&self.catalog.connection)?;
            let mut shelf = Shelf::new(self.opener.clone(), &view);
            let mut idle = std::mem::take(&mut *self.idle.borrow_mut());
            for segment in &mut shelf.segments {
                if let Some(file) = idle.remove(&segment.info.file) {
                    segment.give(file);
                }
            }
            let mut unsealed = shelf.segments.iter().filter(|s| s.info.state != SegmentState::Sealed);
            match unsealed.try_for_each(|s| s.connection(&self.opener).map(|_| ())) {
                Ok(()) => return Ok(shelf),
                Err(error) => failure = Some(error),
            }
        }
        Err(failure
            .unwrap_or_else(|| LedgerError::Corrupt(format!("{CATALOG} names files that are not there"))))
    }
}

/// Seqs of a partition follow each other; only a batch that declares `unrecorded` positions may leave some out.
fn check_seq(file: &str, last_seq: &mut HashMap<i64, u64>, scanned: &Scanned) -> Result<(), LedgerError> {
    let seq = scanned.row.header.seq;
    let last = last_seq.insert(scanned.row.partition_no, seq).unwrap_or(0);
    let adopts = scanned.batch.gaps.iter().any(Gap::is_adopted);
    if seq == last + 1 || (adopts && seq > last) {
        return Ok(());
    }
    let at = &scanned.row.header.at;
    let next = scanned.row.offset_from;
    Err(LedgerError::Corrupt(format!(
        "{file}: {at}: batch {seq}, from offset {next} on, follows batch {last}: batches between are missing"
    )))
}

impl LedgerRead for LedgerReader {
    fn id(&self) -> LedgerId {
        self.id.clone()
    }

    fn refresh(&self) -> Result<(), LedgerError> {
        self.refresh.as_ref().map_or(Ok(()), |refresh| (refresh.0)())
    }

    fn partitions(&self) -> Result<Vec<PartitionId>, LedgerError> {
        let view = CatalogView::read(&self.catalog.connection)?;
        Ok(view.partitions.iter().map(|(_, at)| at.clone()).collect())
    }

    fn mark(&self, at: &PartitionId) -> Result<Option<Mark>, LedgerError> {
        self.with_shelf(|shelf| match shelf.partitions.number(at) {
            Some(number) => shelf.mark(&self.catalog.connection, number),
            None => Ok(None),
        })
    }

    fn dropped(&self) -> Result<Vec<ClosedBook>, LedgerError> {
        let mut books = self.books()?;
        books.retain(|book| book.dropped);
        Ok(books)
    }

    fn batches(
        &self,
        flow: Option<&FlowName>,
        visit: &mut dyn FnMut(&StoredBatch) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.batches_with_identity(flow, &mut |batch, _| visit(batch))
    }

    fn decisions(
        &self,
        filter: &DecisionFilter,
        visit: &mut dyn FnMut(&StoredDecision) -> ControlFlow<()>,
    ) -> Result<(), LedgerError> {
        self.with_shelf(|shelf| Query::new(shelf, &self.catalog.connection, filter)?.run(visit))
    }

    fn body(&self, at: &PartitionId, offset: u64) -> Result<Option<KeptBody>, LedgerError> {
        self.with_shelf(|shelf| match shelf.partitions.number(at) {
            Some(number) => shelf.body(&self.catalog.connection, number, offset),
            None => Ok(None),
        })
    }

    fn configs(&self) -> Result<Vec<StoredConfig>, LedgerError> {
        read_configs(&self.catalog.connection)
    }

    fn journal(&self, flow: Option<&FlowName>) -> Result<Vec<(u64, JournalEntry)>, LedgerError> {
        read_journal(&self.catalog.connection, flow)
    }
}
