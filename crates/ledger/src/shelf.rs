//! The segments that the catalog names, opened one by one as they are needed.

use crate::lookup::LastBlock;
use crate::opener::{Opener, SqliteFile, failed};
use crate::store::{LedgerError, LedgerId, Mark};
use crate::{identity::IdentityKey, rows, schema};
use recount_model::{FlowName, Partition, PartitionId, SourceId};
use rusqlite::{Connection, OptionalExtension, params};
use std::cell::OnceCell;
use std::collections::{BTreeMap, HashMap};

/// The catalog's file.
pub(crate) const CATALOG: &str = "catalog.db";

/// What a segment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SegmentState {
    /// Batches are appended to it.
    Open,
    /// Full; waits to be sealed.
    Closed,
    /// Written anew, sorted by key.
    Sealed,
}

impl SegmentState {
    pub(crate) fn number(self) -> i64 {
        match self {
            Self::Open => 0,
            Self::Closed => 1,
            Self::Sealed => 2,
        }
    }
}

/// The catalog's `state` of a segment that retention dropped.
pub(crate) const DROPPED: i64 = 3;

/// A segment as the catalog has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct SegmentInfo {
    pub(crate) no: i64,
    pub(crate) state: SegmentState,
    pub(crate) file: String,
    pub(crate) bytes: u64,
    pub(crate) ordinal_from: u64,
    /// Of closed and sealed segments: first and last instant at which something was decided.
    pub(crate) decided: Option<(i64, i64)>,
    pub(crate) persisted_to: Option<i64>,
}

/// A segment and its connection, once it has one.
#[derive(Debug)]
pub(crate) struct Segment {
    pub(crate) info: SegmentInfo,
    file: OnceCell<SqliteFile>,
}

impl Segment {
    pub(crate) fn opened(info: SegmentInfo, file: SqliteFile) -> Self {
        Self { info, file: OnceCell::from(file) }
    }

    pub(crate) fn unopened(info: SegmentInfo) -> Self {
        Self { info, file: OnceCell::new() }
    }

    pub(crate) fn connection(&self, opener: &Opener) -> Result<&Connection, LedgerError> {
        if self.file.get().is_none() {
            let file = opener.read(&self.info.file)?;
            check_info(&self.info, &file.connection)?;
            // Nobody else can have set it: a cell is not shared between threads.
            drop(self.file.set(file));
        }
        let file = self.file.get().ok_or_else(|| LedgerError::Corrupt("a segment was not opened".into()))?;
        Ok(&file.connection)
    }

    /// Hands it a connection that was opened before.
    pub(crate) fn give(&mut self, file: SqliteFile) {
        self.file = OnceCell::from(file);
    }

    pub(crate) fn into_parts(self) -> (SegmentInfo, Option<SqliteFile>) {
        (self.info, self.file.into_inner())
    }

    pub(crate) fn is_sealed(&self) -> bool {
        self.info.state == SegmentState::Sealed
    }
}

fn check_info(info: &SegmentInfo, connection: &Connection) -> Result<(), LedgerError> {
    let sql = "SELECT format, segment_no FROM segment_info";
    let (format, no): (u32, i64) =
        connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).map_err(failed(&info.file))?;
    if format > schema::FORMAT {
        return Err(LedgerError::TooNew { found: format, known: schema::FORMAT });
    }
    if no != info.no {
        return Err(LedgerError::Corrupt(format!("{} says that it is segment {no}", info.file)));
    }
    Ok(())
}

/// The partitions of a ledger by their numbers.
#[derive(Debug, Default, Clone)]
pub(crate) struct Partitions {
    by_number: BTreeMap<i64, PartitionId>,
    numbers: HashMap<PartitionId, i64>,
}

impl Partitions {
    pub(crate) fn add(&mut self, number: i64, at: PartitionId) {
        self.numbers.insert(at.clone(), number);
        self.by_number.insert(number, at);
    }

    pub(crate) fn number(&self, at: &PartitionId) -> Option<i64> {
        self.numbers.get(at).copied()
    }

    pub(crate) fn get(&self, number: i64) -> Option<&PartitionId> {
        self.by_number.get(&number)
    }

    /// Oldest first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &PartitionId)> {
        self.by_number.iter().map(|(number, at)| (*number, at))
    }

    pub(crate) fn next_number(&self) -> i64 {
        self.by_number.keys().next_back().map_or(1, |last| last + 1)
    }
}

/// The decisions that replaced others: for an offset of a partition the highest seq that did.
#[derive(Debug, Default, Clone)]
pub(crate) struct Corrections {
    last_seq: HashMap<(i64, u64), u64>,
}

impl Corrections {
    pub(crate) fn add(&mut self, partition_no: i64, offset: u64, seq: u64) {
        let last = self.last_seq.entry((partition_no, offset)).or_insert(seq);
        *last = seq.max(*last);
    }

    pub(crate) fn last_seq(&self, partition_no: i64, offset: u64) -> Option<u64> {
        self.last_seq.get(&(partition_no, offset)).copied()
    }

    /// Whether no later decision of the offset exists.
    pub(crate) fn is_current(&self, partition_no: i64, offset: u64, seq: u64) -> bool {
        self.last_seq.is_empty() || self.last_seq(partition_no, offset).is_none_or(|last| seq >= last)
    }

    pub(crate) fn load(&mut self, file: &str, connection: &Connection) -> Result<(), LedgerError> {
        let sql = "SELECT partition_no, offset, max(seq) FROM correction GROUP BY 1, 2";
        let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
        let mut rows = statement.query([]).map_err(failed(file))?;
        while let Some(row) = rows.next().map_err(failed(file))? {
            let number = |column: usize| row.get::<_, i64>(column).map_err(failed(file));
            self.add(number(0)?, number(1)? as u64, number(2)? as u64);
        }
        Ok(())
    }
}

/// What the catalog says at one instant.
pub(crate) struct CatalogView {
    pub(crate) id: LedgerId,
    pub(crate) identity_key: IdentityKey,
    pub(crate) partitions: Partitions,
    pub(crate) segments: Vec<SegmentInfo>,
}

impl CatalogView {
    pub(crate) fn read(connection: &Connection) -> Result<Self, LedgerError> {
        let sql = "SELECT format, ledger_id, identity_key FROM ledger";
        let birth = connection.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)));
        let (format, id, key): (u32, String, Vec<u8>) = birth.map_err(failed(CATALOG))?;
        if format > schema::FORMAT {
            return Err(LedgerError::TooNew { found: format, known: schema::FORMAT });
        }
        let identity_key = key.try_into().map_err(|_| {
            LedgerError::Corrupt(format!("{CATALOG}: the identity key does not have 32 bytes"))
        })?;
        let mut partitions = Partitions::default();
        let mut statement = connection
            .prepare_cached(
                "SELECT partition_no, flow, source, partition FROM partition ORDER BY partition_no",
            )
            .map_err(failed(CATALOG))?;
        let mut rows = statement.query([]).map_err(failed(CATALOG))?;
        while let Some(row) = rows.next().map_err(failed(CATALOG))? {
            let text = |column: usize| row.get::<_, String>(column).map_err(failed(CATALOG));
            let flow = FlowName::new(&text(1)?)
                .map_err(|error| LedgerError::Corrupt(format!("{CATALOG}: {error}")))?;
            let at =
                PartitionId { flow, source: SourceId::new(text(2)?), partition: Partition::new(text(3)?) };
            partitions.add(row.get(0).map_err(failed(CATALOG))?, at);
        }
        Ok(Self { id: LedgerId(id), identity_key, partitions, segments: read_segments(connection)? })
    }
}

fn read_segments(connection: &Connection) -> Result<Vec<SegmentInfo>, LedgerError> {
    let sql = "SELECT segment_no, state, file, bytes, ordinal_from, decided_from, decided_to, persisted_to \
               FROM segment WHERE state < 3 ORDER BY segment_no";
    let mut statement = connection.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut segments = Vec::new();
    let mut rows = statement.query([]).map_err(failed(CATALOG))?;
    while let Some(row) = rows.next().map_err(failed(CATALOG))? {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(CATALOG));
        let maybe = |column: usize| row.get::<_, Option<i64>>(column).map_err(failed(CATALOG));
        let state = match number(1)? {
            0 => SegmentState::Open,
            1 => SegmentState::Closed,
            _ => SegmentState::Sealed,
        };
        segments.push(SegmentInfo {
            no: number(0)?,
            state,
            file: row.get(2).map_err(failed(CATALOG))?,
            bytes: number(3)? as u64,
            ordinal_from: number(4)? as u64,
            decided: maybe(5)?.zip(maybe(6)?),
            persisted_to: maybe(7)?,
        });
    }
    Ok(segments)
}

/// All segments that hold something, oldest first, and what is needed to read them.
#[derive(Debug)]
pub(crate) struct Shelf {
    pub(crate) opener: Opener,
    pub(crate) segments: Vec<Segment>,
    pub(crate) partitions: Partitions,
    pub(crate) last_block: LastBlock,
}

impl Shelf {
    pub(crate) fn new(opener: Opener, view: &CatalogView) -> Self {
        let segments = view.segments.iter().cloned().map(Segment::unopened).collect();
        Self { opener, segments, partitions: view.partitions.clone(), last_block: LastBlock::default() }
    }

    /// All corrections, from the catalog and from segments that aren't sealed.
    pub(crate) fn corrections(&self, catalog: &Connection) -> Result<Corrections, LedgerError> {
        let mut corrections = Corrections::default();
        corrections.load(CATALOG, catalog)?;
        for segment in self.segments.iter().filter(|s| !s.is_sealed()) {
            corrections.load(&segment.info.file, segment.connection(&self.opener)?)?;
        }
        Ok(corrections)
    }

    /// How far a partition is: what its last batch says, in the newest segment that has one.
    pub(crate) fn mark(&self, catalog: &Connection, partition_no: i64) -> Result<Option<Mark>, LedgerError> {
        let last = "SELECT seq, next_offset, decided_above FROM batch WHERE partition_no = ?1 \
                    ORDER BY seq DESC LIMIT 1";
        for segment in self.segments.iter().rev().filter(|s| !s.is_sealed()) {
            let connection = segment.connection(&self.opener)?;
            if let Some(mark) = read_mark(&segment.info.file, connection, last, partition_no)? {
                return Ok(Some(mark));
            }
        }
        let kept = "SELECT seq, next_offset, decided_above FROM mark WHERE partition_no = ?1";
        read_mark(CATALOG, catalog, kept, partition_no)
    }
}

fn read_mark(
    file: &str,
    connection: &Connection,
    sql: &str,
    partition_no: i64,
) -> Result<Option<Mark>, LedgerError> {
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let found = statement
        .query_row(params![partition_no], |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, String>(2)?))
        })
        .optional()
        .map_err(failed(file))?;
    let Some((seq, next_offset, above)) = found else { return Ok(None) };
    let decided_above = rows::offset_set(&above)?;
    Ok(Some(Mark { seq: seq as u64, next_offset: next_offset as u64, decided_above }))
}
