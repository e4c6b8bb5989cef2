//! Closing, sealing and dropping segments. At each instant one file holds a segment: the one that the
//! catalog names. A crash between two steps leaves a file that it does not name, and that the next start
//! removes.
//!
//! 1. *Close*: a new open segment is made durable; one catalog transaction makes it the open one, and
//!    remembers how far each partition had come.
//! 2. *Seal*: the closed one is written anew, stripe by stripe: so many batches in the order decided as fit
//!    into memory, their decisions sorted by key within each partition. One catalog transaction then names
//!    the new file, and adds the segment's books, filters and corrections. The old file is removed a
//!    round later, for readers that are just opening it.
//! 3. *Drop* (see [`retention`](crate::retention)).

use crate::birth::{fill, make_segment, remove_database, sealed_file, segment_file};
use crate::books::{ClosedRange, put_ranges};
use crate::codec::{self, Block};
use crate::filter;
use crate::opener::{SqliteFile, failed};
use crate::rows::BatchRow;
use crate::scan::{batch_block, block_failed, read_batch_rows};
use crate::segment::put_filters;
use crate::shelf::{CATALOG, Segment, SegmentInfo, SegmentState};
use crate::store::LedgerError;
use crate::writer::{SqliteLedger, in_transaction};
use recount_model::{Decision, Timestamp};
use rusqlite::{Connection, params};
use std::collections::{BTreeMap, HashSet};

/// Decisions in a sealed block: large enough to pack well, small enough that a story unpacks little.
const BLOCK_DECISIONS: usize = 2048;
/// A segment's own filters are left out above this many ids or keys: half a mebibyte each.
const SEGMENT_FILTER_MAX: usize = 1 << 19;

/// A segment that is being written anew.
#[derive(Debug)]
pub(crate) struct Sealing {
    pub(crate) no: i64,
    file: String,
    next_ordinal: u64,
    next_stripe: i64,
    next_block: i64,
    keys: Gathered,
    ids: Gathered,
    ranges: BTreeMap<i64, ClosedRange>,
    decided: Option<(i64, i64)>,
    persisted_to: Option<i64>,
}

/// Hashes for a segment's filter, until there are too many.
#[derive(Debug, Default)]
struct Gathered(Option<HashSet<u64>>);

impl Gathered {
    fn new() -> Self {
        Self(Some(HashSet::new()))
    }

    fn add(&mut self, text: Option<&str>) {
        if let (Some(hashes), Some(text)) = (&mut self.0, text) {
            hashes.insert(filter::text_hash(text));
        }
        if self.0.as_ref().is_some_and(|hashes| hashes.len() > SEGMENT_FILTER_MAX) {
            self.0 = None;
        }
    }

    fn bits(self) -> Option<Vec<u8>> {
        self.0.map(|hashes| filter::build(hashes.into_iter().collect()))
    }
}

impl SqliteLedger {
    /// One round of upkeep. Seals about twice as much as was appended since the last round, at least one
    /// stripe, so that sealing keeps up without stopping the flow for long.
    pub(crate) fn upkeep(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        while let Some(file) = self.obsolete.pop_front() {
            remove_database(&self.shelf.opener, &self.settings, &file)?;
        }
        if self.is_due(now)? {
            self.close_segment()?;
        }
        let mut budget = self.appended.saturating_mul(2).max(1);
        self.appended = 0;
        while budget > 0 && self.begin_sealing()? {
            let sealed = self.seal_stripe()?;
            if sealed == 0 {
                self.finish_sealing()?;
            }
            budget = budget.saturating_sub(sealed.max(1));
        }
        self.drop_old(now)
    }

    /// Whether the open segment holds something and is too large or too old.
    fn is_due(&self, now: Timestamp) -> Result<bool, LedgerError> {
        let Some(since) = self.open_since else { return Ok(false) };
        let age_ms = now.0.saturating_sub(since.0);
        if u64::try_from(age_ms).is_ok_and(|age_ms| age_ms >= self.settings.segment_age_ms_max) {
            return Ok(true);
        }
        let (file, open) = self.open_segment()?;
        Ok(database_bytes(file, open)? >= self.settings.segment_bytes_max)
    }

    /// Step 1.
    pub(crate) fn close_segment(&mut self) -> Result<(), LedgerError> {
        let no = self.shelf.segments.last().map_or(1, |segment| segment.info.no);
        let next = make_segment(&self.shelf.opener, &self.settings, no + 1, &self.id.0)?;
        let next_file = segment_file(no + 1);
        let ordinal = self.next_ordinal as i64;
        in_transaction(CATALOG, &self.catalog, || {
            let close = "UPDATE segment SET state = 1, ordinal_to = ?2 WHERE segment_no = ?1";
            self.catalog.execute(close, params![no, ordinal])?;
            let open = "INSERT INTO segment (segment_no, state, file, ordinal_from) VALUES (?1, 0, ?2, ?3)";
            self.catalog.execute(open, params![no + 1, next_file, ordinal])?;
            for (partition_no, mark) in &self.marks {
                self.catalog.prepare_cached("INSERT OR REPLACE INTO mark VALUES (?1,?2,?3,?4)")?.execute(
                    params![
                        partition_no,
                        mark.seq as i64,
                        mark.next_offset as i64,
                        mark.decided_above.to_string()
                    ],
                )?;
            }
            Ok(())
        })?;
        if let Some(last) = self.shelf.segments.last_mut() {
            last.info.state = SegmentState::Closed;
        }
        let info = SegmentInfo {
            no: no + 1,
            state: SegmentState::Open,
            file: next_file,
            bytes: 0,
            ordinal_from: self.next_ordinal,
            decided: None,
            persisted_to: None,
        };
        self.shelf.segments.push(Segment::opened(info, SqliteFile::from(next)));
        self.open_since = None;
        Ok(())
    }

    /// Step 2, first part: takes the oldest closed segment in hand, and makes the file it is written to. False
    /// where there is none.
    pub(crate) fn begin_sealing(&mut self) -> Result<bool, LedgerError> {
        if self.sealing.is_some() {
            return Ok(true);
        }
        let closed = self.shelf.segments.iter().find(|s| s.info.state == SegmentState::Closed);
        let Some(closed) = closed else { return Ok(false) };
        let (no, file) = (closed.info.no, sealed_file(closed.info.no));
        remove_database(&self.shelf.opener, &self.settings, &file)?;
        let sealed = self.shelf.opener.write_sealed(&file)?;
        fill(&file, &sealed, no, &self.id.0, true)?;
        drop(sealed);
        let path = self.shelf.opener.path(&file);
        let connection = closed.connection(&self.shelf.opener)?;
        // Attached, so that one connection reads the old file and writes the new one.
        connection
            .execute("ATTACH DATABASE ?1 AS sealed", params![path.to_string_lossy()])
            .and_then(|_| {
                connection.execute_batch("PRAGMA sealed.journal_mode = OFF; PRAGMA sealed.synchronous = FULL")
            })
            .map_err(failed(&file))?;
        self.sealing = Some(Sealing {
            no,
            file,
            next_ordinal: closed.info.ordinal_from,
            next_stripe: 1,
            next_block: 1,
            keys: Gathered::new(),
            ids: Gathered::new(),
            ranges: BTreeMap::new(),
            decided: None,
            persisted_to: None,
        });
        Ok(true)
    }

    /// Step 2, middle part: writes one stripe and returns how many decisions it holds, at least 1; 0 where
    /// nothing is left.
    pub(crate) fn seal_stripe(&mut self) -> Result<u64, LedgerError> {
        let Some(mut sealing) = self.sealing.take() else { return Ok(0) };
        let sealed = self.write_stripe(&mut sealing);
        self.sealing = Some(sealing);
        sealed
    }

    fn write_stripe(&self, sealing: &mut Sealing) -> Result<u64, LedgerError> {
        let (file, connection) = self.closed_segment(sealing.no)?;
        let batches = self.stripe_batches(file, connection, sealing.next_ordinal)?;
        let (Some(first), Some(last)) = (batches.first(), batches.last()) else { return Ok(0) };
        let (from, to) = (first.header.ordinal as i64, last.header.ordinal as i64 + 1);
        let mut by_partition: BTreeMap<i64, Vec<(u64, Decision)>> = BTreeMap::new();
        for batch in &batches {
            let decisions = read_block(file, connection, batch)?;
            let ranked = by_partition.entry(batch.partition_no).or_default();
            let rank = ranked.len() as u64;
            ranked.extend(decisions.into_iter().enumerate().map(|(nth, d)| (rank + nth as u64, d)));
            sealing.note(file, connection, batch)?;
        }
        let total = batches.iter().map(|batch| batch.decisions).sum::<u64>();
        in_transaction(&sealing.file.clone(), connection, || {
            for table in ["batch", "run", "decision", "gap"] {
                let sql = format!(
                    "INSERT INTO sealed.{table} SELECT * FROM main.{table} WHERE ordinal >= ?1 AND ordinal < ?2"
                );
                connection.prepare_cached(&sql)?.execute(params![from, to])?;
            }
            let stripe = params![sealing.next_stripe, from, to];
            connection.prepare_cached("INSERT INTO sealed.stripe VALUES (?1,?2,?3)")?.execute(stripe)?;
            for (partition_no, mut ranked) in by_partition {
                ranked.sort_by(|(a_rank, a), (b_rank, b)| (&a.key, a_rank).cmp(&(&b.key, b_rank)));
                for block in ranked.chunks(BLOCK_DECISIONS) {
                    sealing.put_block(connection, partition_no, block)?;
                }
            }
            Ok(())
        })?;
        sealing.next_ordinal = to as u64;
        sealing.next_stripe += 1;
        Ok(total.max(1))
    }

    /// Leaves a sealing that has begun; the next one starts anew.
    pub(crate) fn abandon_sealing(&mut self) -> Result<(), LedgerError> {
        let Some(sealing) = self.sealing.take() else { return Ok(()) };
        let (_, connection) = self.closed_segment(sealing.no)?;
        connection.flush_prepared_statement_cache();
        connection.execute_batch("DETACH DATABASE sealed").map_err(failed(&sealing.file))?;
        remove_database(&self.shelf.opener, &self.settings, &sealing.file)
    }

    fn closed_segment(&self, no: i64) -> Result<(&str, &Connection), LedgerError> {
        let closed = self.shelf.segments.iter().find(|s| s.info.no == no);
        let closed = closed.ok_or_else(|| LedgerError::Corrupt(format!("segment {no} left the shelf")))?;
        Ok((&closed.info.file, closed.connection(&self.shelf.opener)?))
    }

    fn stripe_batches(
        &self,
        file: &str,
        connection: &Connection,
        from: u64,
    ) -> Result<Vec<BatchRow>, LedgerError> {
        let mut total = 0;
        let mut batches = Vec::new();
        read_batch_rows(file, connection, &self.shelf.partitions, from, &mut |batch| {
            total += batch.decisions.max(1) as usize;
            batches.push(batch);
            if total >= self.settings.stripe_decisions {
                return std::ops::ControlFlow::Break(());
            }
            std::ops::ControlFlow::Continue(())
        })?;
        Ok(batches)
    }

    /// Step 2, last part: what belongs to the whole segment, then the catalog's transaction.
    pub(crate) fn finish_sealing(&mut self) -> Result<(), LedgerError> {
        let Some(sealing) = self.sealing.take() else { return Ok(()) };
        self.copy_remainder(&sealing)?;
        let file = sealing.file.clone();
        let reader = self.shelf.opener.read(&file)?;
        let bytes = database_bytes(&file, &reader.connection)?;
        let mut info = SegmentInfo {
            no: sealing.no,
            state: SegmentState::Sealed,
            file,
            bytes,
            ordinal_from: 0,
            decided: sealing.decided,
            persisted_to: sealing.persisted_to,
        };
        self.name_sealed(sealing, &info)?;
        let segment = self.shelf.segments.iter_mut().find(|s| s.info.no == info.no);
        let segment = segment.ok_or_else(|| LedgerError::Corrupt("a segment left the shelf".into()))?;
        info.ordinal_from = segment.info.ordinal_from;
        let closed = std::mem::replace(segment, Segment::opened(info, reader));
        self.obsolete.push_back(closed.info.file);
        Ok(())
    }

    fn copy_remainder(&self, sealing: &Sealing) -> Result<(), LedgerError> {
        let (_, connection) = self.closed_segment(sealing.no)?;
        in_transaction(&sealing.file, connection, || {
            connection.execute_batch(
                "INSERT INTO sealed.partition SELECT * FROM main.partition;
                 INSERT INTO sealed.correction SELECT * FROM main.correction;",
            )?;
            let mut copy = connection.prepare_cached(
                "INSERT INTO sealed.body SELECT * FROM main.body WHERE partition_no = ?1 AND offset = ?2",
            )?;
            let mut statement = connection.prepare_cached("SELECT partition_no, offset FROM main.body")?;
            let mut rows = statement.query([])?;
            while let Some(row) = rows.next()? {
                let (partition_no, offset) = (row.get::<_, i64>(0)?, row.get::<_, i64>(1)?);
                let decided = self.marks.get(&partition_no).is_some_and(|mark| {
                    (offset as u64) < mark.next_offset || mark.decided_above.contains(offset as u64)
                });
                if decided {
                    copy.execute(params![partition_no, offset])?;
                }
            }
            Ok(())
        })?;
        connection.flush_prepared_statement_cache();
        connection.execute_batch("DETACH DATABASE sealed").map_err(failed(&sealing.file))?;
        let folder = &self.shelf.opener.folder;
        self.settings.files.sync_dir(folder).map_err(crate::opener::refused(folder))
    }

    fn name_sealed(&self, sealing: Sealing, info: &SegmentInfo) -> Result<(), LedgerError> {
        let (file, closed) = self.closed_segment(sealing.no)?;
        let corrections = read_corrections(file, closed)?;
        in_transaction(CATALOG, &self.catalog, || {
            let sql = "UPDATE segment SET state = ?2, file = ?3, bytes = ?4, decided_from = ?5, decided_to = ?6, \
                       persisted_to = ?7 WHERE segment_no = ?1";
            let (from, to) = info.decided.unzip();
            let state = info.state.number();
            let values = params![info.no, state, info.file, info.bytes as i64, from, to, info.persisted_to];
            self.catalog.execute(sql, values)?;
            put_ranges(&self.catalog, info.no, &sealing.ranges)?;
            let filters = params![info.no, sealing.keys.bits(), sealing.ids.bits()];
            self.catalog.execute("INSERT OR REPLACE INTO segment_filter VALUES (?1,?2,?3)", filters)?;
            let mut put =
                self.catalog.prepare_cached("INSERT OR IGNORE INTO correction VALUES (?1,?2,?3,?4)")?;
            for correction in corrections {
                put.execute(correction)?;
            }
            Ok(())
        })
    }
}

impl Sealing {
    /// Adds a batch to the books, and its times to the segment's.
    fn note(&mut self, file: &str, connection: &Connection, batch: &BatchRow) -> Result<(), LedgerError> {
        self.ranges.entry(batch.partition_no).or_default().add(file, connection, batch)?;
        let (at, persisted) = (batch.header.decided_at.0, batch.header.persisted_at.0);
        let (from, to) = self.decided.unwrap_or((at, at));
        self.decided = Some((from.min(at), to.max(at)));
        self.persisted_to = Some(self.persisted_to.map_or(persisted, |last| last.max(persisted)));
        Ok(())
    }

    fn put_block(
        &mut self,
        connection: &Connection,
        partition_no: i64,
        block: &[(u64, Decision)],
    ) -> rusqlite::Result<()> {
        let decisions: Vec<&Decision> = block.iter().map(|(_, decision)| decision).collect();
        let ranks: Vec<u64> = block.iter().map(|(rank, _)| *rank).collect();
        for decision in &decisions {
            self.keys.add(decision.key.as_deref());
            self.ids.add(decision.event_id.as_deref());
        }
        let packed = codec::encode_sealed(&decisions, &ranks);
        connection
            .prepare_cached("INSERT INTO sealed.block VALUES (?1,?2)")?
            .execute(params![self.next_block, packed])?;
        let (first, last) = key_range(&decisions);
        connection.prepare_cached("INSERT INTO sealed.block_range VALUES (?1,?2,?3,?4,?5,?6)")?.execute(
            params![self.next_block, self.next_stripe, partition_no, decisions.len() as i64, first, last],
        )?;
        put_filters(connection, "sealed", self.next_block, decisions.iter().copied())?;
        self.next_block += 1;
        Ok(())
    }
}

/// The smallest and largest key of decisions sorted by key.
pub(crate) fn key_range<'d>(decisions: &[&'d Decision]) -> (Option<&'d str>, Option<&'d str>) {
    let mut keys = decisions.iter().filter_map(|d| d.key.as_deref());
    let first = keys.next();
    (first, keys.next_back().or(first))
}

/// The decisions of a batch in a segment that isn't sealed, checked against its row.
pub(crate) fn read_block(
    file: &str,
    connection: &Connection,
    batch: &BatchRow,
) -> Result<Vec<Decision>, LedgerError> {
    let block = batch_block(file, connection, batch)?;
    Block::decisions(&block).map_err(block_failed(file, batch))
}

fn read_corrections(file: &str, connection: &Connection) -> Result<Vec<[i64; 4]>, LedgerError> {
    let sql = "SELECT partition_no, offset, seq, replay_id FROM correction";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let rows = statement.query_map([], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?, row.get(3)?]));
    rows.and_then(|rows| rows.collect::<Result<Vec<[i64; 4]>, _>>()).map_err(failed(file))
}

/// The database's size in bytes, its write-ahead log included as far as it is committed.
fn database_bytes(file: &str, connection: &Connection) -> Result<u64, LedgerError> {
    let pragma = |sql: &str| connection.query_row(sql, [], |row| row.get::<_, i64>(0)).map_err(failed(file));
    Ok((pragma("PRAGMA page_count")? * pragma("PRAGMA page_size")?) as u64)
}
