//! What the catalog keeps of a closed range for ever: what it covers, and its counts.

use crate::opener::failed;
use crate::rows::{self, BatchRow};
use crate::scan::{gaps_of, runs_of};
use crate::shelf::{CATALOG, DROPPED, Partitions};
use crate::store::LedgerError;
use recount_model::{OffsetSet, PartitionId, ReasonCode};
use rusqlite::{Connection, params};
use std::collections::BTreeMap;

/// Decisions of a closed range that share verdict and reason.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct BookLine {
    /// `applied`, `skipped` or `dead-lettered`.
    pub verdict: &'static str,
    /// The reason; none for *applied*.
    pub reason: Option<ReasonCode>,
    /// Whether they count as received.
    pub received: bool,
    /// Whether they correct earlier decisions.
    pub correction: bool,
    /// How many.
    pub decisions: u64,
}

/// What one sealed or dropped segment holds, or held, of one partition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClosedBook {
    /// The segment's number.
    pub segment: u64,
    /// Whether its decisions are gone: then this is all that is left of them.
    pub dropped: bool,
    /// The partition.
    pub at: PartitionId,
    /// Its first seq.
    pub seq_from: u64,
    /// Its last seq.
    pub seq_to: u64,
    /// The offsets that were decided or passed over in it.
    pub covered: OffsetSet,
    /// Positions that never reached us.
    pub lost: u64,
    /// Positions without an event.
    pub not_an_event: u64,
    /// Positions consumed without a record.
    pub unrecorded: u64,
    /// Sum of the identity hashes of all its decisions, modulo 2¹²⁸.
    pub identity: u128,
    /// Its decisions.
    pub lines: Vec<BookLine>,
}

type LineKey = (i64, String, bool, bool);

/// A segment's part of a partition, while it is being sealed.
#[derive(Debug, Default)]
pub(crate) struct ClosedRange {
    seqs: Option<(u64, u64)>,
    covered: OffsetSet,
    /// Lost, not-an-event, unrecorded: the order of their numbers.
    gaps: [u64; 3],
    identity: u128,
    lines: BTreeMap<LineKey, u64>,
}

impl ClosedRange {
    /// Adds a batch.
    pub(crate) fn add(
        &mut self,
        file: &str,
        connection: &Connection,
        batch: &BatchRow,
    ) -> Result<(), LedgerError> {
        let seq = batch.header.seq;
        self.seqs = Some(self.seqs.map_or((seq, seq), |(from, to)| (from.min(seq), to.max(seq))));
        self.identity = self.identity.wrapping_add(batch.identity);
        for run in runs_of(file, connection, batch.header.ordinal)? {
            let reason = run.fate.reason().map_or(String::new(), |r| r.code.to_string());
            let key = (rows::verdict_number(&run.fate), reason, run.received, run.correction);
            *self.lines.entry(key).or_default() += run.to - run.from;
            if !run.correction {
                self.covered.insert_range(run.from, run.to);
            }
        }
        for gap in gaps_of(file, connection, batch.header.ordinal)? {
            self.gaps[rows::gap_kind_number(gap.kind) as usize] += gap.to - gap.from;
            self.covered.insert_range(gap.from, gap.to);
        }
        Ok(())
    }
}

/// Writes a segment's books, in the caller's transaction.
pub(crate) fn put_ranges(
    catalog: &Connection,
    segment_no: i64,
    ranges: &BTreeMap<i64, ClosedRange>,
) -> rusqlite::Result<()> {
    for (partition_no, range) in ranges {
        let Some((seq_from, seq_to)) = range.seqs else { continue };
        let first = range.covered.ranges().first().map_or(0, |(from, _)| *from);
        let last = range.covered.ranges().last().map_or(0, |(_, to)| *to);
        let sql = "INSERT INTO segment_range VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11)";
        catalog.prepare_cached(sql)?.execute(params![
            segment_no,
            partition_no,
            seq_from as i64,
            seq_to as i64,
            first as i64,
            last as i64,
            range.covered.to_string(),
            range.gaps[0] as i64,
            range.gaps[1] as i64,
            range.gaps[2] as i64,
            &range.identity.to_le_bytes()[..]
        ])?;
        for ((verdict, reason, received, correction), decisions) in &range.lines {
            catalog.prepare_cached("INSERT INTO book VALUES (?1,?2,?3,?4,?5,?6,?7)")?.execute(params![
                segment_no,
                partition_no,
                verdict,
                reason,
                received,
                correction,
                *decisions as i64
            ])?;
        }
    }
    Ok(())
}

/// The books of all sealed and dropped segments, oldest first.
pub(crate) fn read_books(
    catalog: &Connection,
    partitions: &Partitions,
) -> Result<Vec<ClosedBook>, LedgerError> {
    let sql = "SELECT segment_no, state, partition_no, seq_from, seq_to, covered, lost, not_an_event, \
               unrecorded, identity FROM segment_range JOIN segment USING (segment_no) ORDER BY 1, 3";
    let mut statement = catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut rows = statement.query([]).map_err(failed(CATALOG))?;
    let mut books = Vec::new();
    while let Some(row) = rows.next().map_err(failed(CATALOG))? {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(CATALOG));
        let unknown = || LedgerError::Corrupt(format!("{CATALOG}: a book is of an unknown partition"));
        books.push(ClosedBook {
            segment: number(0)? as u64,
            dropped: number(1)? == DROPPED,
            at: partitions.get(number(2)?).ok_or_else(unknown)?.clone(),
            seq_from: number(3)? as u64,
            seq_to: number(4)? as u64,
            covered: rows::offset_set(&row.get::<_, String>(5).map_err(failed(CATALOG))?)?,
            lost: number(6)? as u64,
            not_an_event: number(7)? as u64,
            unrecorded: number(8)? as u64,
            identity: rows::sum(&row.get::<_, Vec<u8>>(9).map_err(failed(CATALOG))?)?,
            lines: read_lines(catalog, number(0)?, number(2)?)?,
        });
    }
    Ok(books)
}

fn read_lines(
    catalog: &Connection,
    segment_no: i64,
    partition_no: i64,
) -> Result<Vec<BookLine>, LedgerError> {
    let sql = "SELECT verdict, reason, received, correction, decisions FROM book \
               WHERE segment_no = ?1 AND partition_no = ?2";
    let mut statement = catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut rows = statement.query(params![segment_no, partition_no]).map_err(failed(CATALOG))?;
    let mut lines = Vec::new();
    while let Some(row) = rows.next().map_err(failed(CATALOG))? {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(CATALOG));
        let reason = Some(row.get::<_, String>(1).map_err(failed(CATALOG))?).filter(|r| !r.is_empty());
        let fate = rows::fate(number(0)?, reason, String::new())?;
        lines.push(BookLine {
            verdict: fate.word(),
            reason: fate.reason().map(|r| r.code.clone()),
            received: number(2)? != 0,
            correction: number(3)? != 0,
            decisions: number(4)? as u64,
        });
    }
    Ok(lines)
}
