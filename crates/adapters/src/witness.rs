//! Sources and databases as witnesses of the audit. Nothing here is used by the engine.

use crate::embedded_log::witness::{LogWitness, LogWitnessError};
use crate::file::witness::{FileWitness, FileWitnessError};
use crate::file::{FileId, Place, Sameness, head_of, same_incarnation};
use crate::sqlite::{ReconcileSide, SqliteWitness, WitnessError as SqliteWitnessError, WitnessSnapshot};
use recount_audit::{EffectSnapshot, EffectWitness, PositionRow, Published, SourceWitness, WitnessError};
use recount_checks::RawEvent;
use recount_model::{Amount, FlowName, Partition, PartitionId, SourceId, Timestamp};
use std::cell::RefCell;
use std::io::ErrorKind;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// How long the auditor waits for another's lock, and for one query.
const BUSY_TIMEOUT_MS: u64 = 10_000;
const QUERY_TIME_MS_MAX: u64 = 300_000;

/// A file, a folder of files or a pattern, as the audit asks it.
pub struct FileSourceWitness {
    flow: FlowName,
    path: PathBuf,
    follow: bool,
    payload_bytes_max: usize,
    known: Vec<PartitionId>,
}

impl FileSourceWitness {
    /// `known`: the partitions that the ledger has of the flow. Of a longer line, `payload_bytes_max` bytes
    /// and one more are read, as the flow does.
    pub fn new(
        flow: FlowName,
        path: &Path,
        follow: bool,
        payload_bytes_max: usize,
        known: Vec<PartitionId>,
    ) -> Self {
        Self { flow, path: path.to_owned(), follow, payload_bytes_max, known }
    }

    fn file(&self, at: &PartitionId) -> FileWitness {
        let place = place_of_partition(&self.path, &at.partition);
        FileWitness::new(place, at.source.clone(), !self.follow)
    }
}

impl SourceWitness for FileSourceWitness {
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError> {
        let there = partitions_at(&self.path, self.follow, &self.known)?;
        let id = |(source, partition)| PartitionId { flow: self.flow.clone(), source, partition };
        Ok(there.into_iter().map(id).collect())
    }

    fn published(&self, at: &PartitionId) -> Result<Published, WitnessError> {
        let end = self.file(at).positions().map_err(file_error)?;
        Ok(Published { first: 0, end })
    }

    fn read(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let read = self.file(at).visit(from, to, self.payload_bytes_max, &mut |line| {
            if line.blank {
                return ControlFlow::Continue(());
            }
            visit(&raw(at, line.offset, line.bytes, line.bytes_full))
        });
        read.map_err(file_error)
    }
}

/// Where the file of a partition lies: the path itself, or a file of that name in the folder that the path
/// or its pattern names.
fn place_of_partition(path: &Path, partition: &Partition) -> PathBuf {
    if path.is_dir() {
        return path.join(partition.as_str());
    }
    if partition.as_str() == "0" {
        return path.to_owned();
    }
    path.parent().unwrap_or(Path::new("")).join(partition.as_str())
}

/// The partitions at a path now, each with its incarnation: the recorded one that the file still is, else
/// what it would be called today. Empty files have no identity yet and are left out; so is a followed file
/// that is not there yet, and one that is gone whose incarnation is recorded: that one is asked about by name.
///
/// # Errors
/// `Unreachable` where the folder can't be listed, or a file that nothing is recorded of can't be read; `Gone`
/// where the one file that is named does not exist.
fn partitions_at(
    path: &Path,
    follow: bool,
    known: &[PartitionId],
) -> Result<Vec<(SourceId, Partition)>, WitnessError> {
    let unreadable = |error: &dyn std::fmt::Display| WitnessError::Unreachable(error.to_string());
    let place = Place::of_path(path).map_err(|error| unreadable(&error))?;
    let mut there = Vec::new();
    for (partition, file) in place.files().map_err(|error| unreadable(&error))? {
        let recorded: Vec<&PartitionId> = known.iter().rev().filter(|at| at.partition == partition).collect();
        let same = recorded
            .iter()
            .map(|at| &at.source)
            .find(|source| same_incarnation(source, &file).is_ok_and(|sameness| sameness == Sameness::Same));
        let id = match same {
            Some(source) => Some(source.clone()),
            None => match head_of(&file) {
                Ok(head) => FileId::of_head(&head, 1).map(|id| id.source_id()),
                Err(e)
                    if !recorded.is_empty()
                        || (e.kind() == ErrorKind::NotFound && (follow || file != path)) =>
                {
                    None
                }
                Err(e) if e.kind() == ErrorKind::NotFound => {
                    return Err(WitnessError::Gone(format!("file {} does not exist", file.display())));
                }
                Err(e) => return Err(unreadable(&format!("file {} can't be read: {e}", file.display()))),
            },
        };
        there.extend(id.map(|id| (id, partition)));
    }
    Ok(there)
}

fn raw(at: &PartitionId, offset: u64, bytes: &[u8], bytes_full: u64) -> RawEvent {
    RawEvent {
        payload: bytes.into(),
        payload_bytes: bytes_full,
        headers: Vec::new(),
        broker_key: None,
        partition: at.partition.as_str().into(),
        offset,
        taken_at: Timestamp::default(),
    }
}

fn file_error(error: FileWitnessError) -> WitnessError {
    let sentence = error.to_string();
    match error {
        FileWitnessError::Gone(_) => WitnessError::Gone(sentence),
        FileWitnessError::Changed(_) | FileWitnessError::Shorter(_) => WitnessError::Changed(sentence),
        FileWitnessError::Unreadable(_) => WitnessError::Unreachable(sentence),
    }
}

/// An embedded log, as the audit asks it.
pub struct LogSourceWitness {
    flow: FlowName,
    path: PathBuf,
    known: Vec<PartitionId>,
}

impl LogSourceWitness {
    /// `known`: the partitions that the ledger has of the flow.
    pub fn new(flow: FlowName, path: &Path, known: Vec<PartitionId>) -> Self {
        Self { flow, path: path.to_owned(), known }
    }

    fn log(&self, at: &PartitionId) -> LogWitness {
        LogWitness::new(&self.path, at.source.as_str())
    }
}

impl SourceWitness for LogSourceWitness {
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError> {
        let there = |at: &&PartitionId| at.flow == self.flow && self.log(at).bounds().is_ok();
        Ok(self.known.iter().filter(there).cloned().collect())
    }

    fn published(&self, at: &PartitionId) -> Result<Published, WitnessError> {
        let (first, end) = self.log(at).bounds().map_err(log_error)?;
        Ok(Published { first, end })
    }

    fn read(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let read = self.log(at).visit(from, to, &mut |event| {
            visit(&RawEvent {
                headers: event.headers.clone(),
                broker_key: event.key.map(Into::into),
                ..raw(at, event.offset, event.payload, event.payload_bytes)
            })
        });
        read.map_err(log_error)
    }
}

fn log_error(error: LogWitnessError) -> WitnessError {
    let sentence = error.to_string();
    match error {
        LogWitnessError::Gone(_) => WitnessError::Gone(sentence),
        LogWitnessError::Changed { .. } => WitnessError::Changed(sentence),
        LogWitnessError::Unreadable { .. } => WitnessError::Unreachable(sentence),
    }
}

/// A SQLite database, as the audit asks it. Each snapshot is a connection of its own.
pub struct SqliteEffectWitness {
    path: PathBuf,
}

impl SqliteEffectWitness {
    /// Opened only when it is asked.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }
}

impl EffectWitness for SqliteEffectWitness {
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError> {
        let witness = SqliteWitness::new(&self.path, None, BUSY_TIMEOUT_MS, QUERY_TIME_MS_MAX);
        let snapshot = witness.snapshot().map_err(sqlite_error)?;
        let has_tables = snapshot.has_tables().map_err(sqlite_error)?;
        Ok(Box::new(Snapshot { has_tables, snapshot: RefCell::new(snapshot) }))
    }
}

/// Beside a consumer that Recount doesn't run: position rows come from our own arbiter, effects and sums
/// from the consumer's database, which is only read.
pub struct BesideWitness {
    arbiter: SqliteEffectWitness,
    consumer: Box<dyn EffectWitness>,
}

impl BesideWitness {
    /// The arbiter's file, and who is asked for what the consumer left.
    pub fn new(arbiter: impl Into<PathBuf>, consumer: Box<dyn EffectWitness>) -> Self {
        Self { arbiter: SqliteEffectWitness::new(arbiter), consumer }
    }
}

impl EffectWitness for BesideWitness {
    fn snapshot(&self) -> Result<Box<dyn EffectSnapshot + '_>, WitnessError> {
        // The arbiter first: what it has decided by then, the consumer's database may show.
        let arbiter = self.arbiter.snapshot()?;
        Ok(Box::new(BesideSnapshot { arbiter, consumer: self.consumer.snapshot()? }))
    }
}

struct BesideSnapshot<'a> {
    arbiter: Box<dyn EffectSnapshot + 'a>,
    consumer: Box<dyn EffectSnapshot + 'a>,
}

impl EffectSnapshot for BesideSnapshot<'_> {
    fn positions(&self, flow: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        self.arbiter.positions(flow)
    }

    fn stored_batches(&self, at: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError> {
        self.arbiter.stored_batches(at, above_seq)
    }

    fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.arbiter.effects(at, from, to, visit)
    }

    fn custom_ids(
        &self,
        sql: &str,
        id: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.consumer.custom_ids(sql, id, visit)
    }

    fn custom_count(&self, sql: &str) -> Result<u64, WitnessError> {
        self.consumer.custom_count(sql)
    }

    fn reconcile(
        &self,
        sql: &str,
        by_group: bool,
        visit: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.consumer.reconcile(sql, by_group, visit)
    }
}

struct Snapshot {
    /// Without them the flow never committed here, which is an answer and not an error.
    has_tables: bool,
    snapshot: RefCell<WitnessSnapshot>,
}

impl EffectSnapshot for Snapshot {
    fn positions(&self, flow: &FlowName) -> Result<Vec<PositionRow>, WitnessError> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        let rows = self.snapshot.borrow().positions(flow).map_err(sqlite_error)?;
        let row = |row: crate::sqlite::PositionRow| PositionRow {
            at: row.at,
            seq: row.seq,
            next_offset: row.next_offset,
            decided_above: row.decided_above,
            ledger_id: row.ledger_id,
        };
        Ok(rows.into_iter().map(row).collect())
    }

    fn stored_batches(&self, at: &PartitionId, above_seq: u64) -> Result<Vec<u64>, WitnessError> {
        if !self.has_tables {
            return Ok(Vec::new());
        }
        self.snapshot.borrow().stored_batches(at, above_seq).map_err(sqlite_error)
    }

    fn effects(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(u64, Option<&str>) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        if !self.has_tables {
            return Ok(());
        }
        self.snapshot.borrow().effects(at, from, to, visit).map_err(sqlite_error)
    }

    fn custom_ids(
        &self,
        sql: &str,
        id: &str,
        visit: &mut dyn FnMut(&str) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let mut snapshot = self.snapshot.borrow_mut();
        let visited = snapshot.custom_ids(sql, id, &mut |found| visit(found.unwrap_or_default()));
        visited.map_err(sqlite_error)
    }

    fn custom_count(&self, sql: &str) -> Result<u64, WitnessError> {
        self.snapshot.borrow_mut().custom_count(sql).map_err(sqlite_error)
    }

    fn reconcile(
        &self,
        sql: &str,
        by_group: bool,
        visit: &mut dyn FnMut(Option<&str>, Amount) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        match self.snapshot.borrow_mut().reconcile(sql).map_err(sqlite_error)? {
            ReconcileSide::Total(_) if by_group => Err(WitnessError::Unreachable(
                "the reconcile has by, so its query must give a group and a number a row".to_owned(),
            )),
            ReconcileSide::Groups(_) if !by_group => Err(WitnessError::Unreachable(
                "the reconcile has no by, so its query must give one number".to_owned(),
            )),
            ReconcileSide::Total(amount) => {
                // One row: whether to go on is no question.
                let _ = visit(None, amount);
                Ok(())
            }
            ReconcileSide::Groups(rows) => {
                for row in rows {
                    if visit(row.group.as_deref(), row.amount).is_break() {
                        break;
                    }
                }
                Ok(())
            }
        }
    }
}

fn sqlite_error(error: SqliteWitnessError) -> WitnessError {
    WitnessError::Unreachable(error.to_string())
}
