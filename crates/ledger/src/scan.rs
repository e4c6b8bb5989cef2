//! Reading batches of one segment in the order decided: headers, runs, gaps, blocks.

use crate::codec::{Block, BlockHead, CodecError};
use crate::opener::failed;
use crate::rows::{self, BATCH_COLUMNS, BatchRow};
use crate::shelf::Partitions;
use crate::store::{LedgerError, Run, StoredBatch};
use recount_model::{Gap, OffsetSet};
use rusqlite::{Connection, OptionalExtension, Rows, params};
use std::ops::ControlFlow;

/// Says which batch of which segment a damaged block belongs to.
pub(crate) fn block_failed<'a>(
    file: &'a str,
    batch: &'a BatchRow,
) -> impl Fn(CodecError) -> LedgerError + 'a {
    move |error| match error {
        CodecError::TooNew { found } => {
            LedgerError::TooNew { found: u32::from(found), known: u32::from(crate::codec::VERSION) }
        }
        CodecError::Damaged(_) => LedgerError::Corrupt(format!("{file}: {}: {error}", describe(batch))),
    }
}

/// `batch 7 of reserve-stock/orders.ndjson, offsets 3000..3500`.
pub(crate) fn describe(batch: &BatchRow) -> String {
    let BatchRow { header, offset_from, offset_to, .. } = batch;
    format!("batch {} of {}, offsets {offset_from}..{offset_to}", header.seq, header.at)
}

/// Visits the rows of `batch` from an ordinal on.
pub(crate) fn read_batch_rows(
    file: &str,
    connection: &Connection,
    partitions: &Partitions,
    from_ordinal: u64,
    visit: &mut dyn FnMut(BatchRow) -> ControlFlow<()>,
) -> Result<(), LedgerError> {
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batch WHERE ordinal >= ?1 ORDER BY ordinal");
    let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
    let mut rows = statement.query(params![from_ordinal as i64]).map_err(failed(file))?;
    while let Some(row) = rows.next().map_err(failed(file))? {
        if visit(BatchRow::read(file, row, |number| partitions.get(number))?).is_break() {
            break;
        }
    }
    Ok(())
}

/// One row of `batch`.
pub(crate) fn batch_row(
    file: &str,
    connection: &Connection,
    partitions: &Partitions,
    ordinal: u64,
) -> Result<BatchRow, LedgerError> {
    let sql = format!("SELECT {BATCH_COLUMNS} FROM batch WHERE ordinal = ?1");
    let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
    let mut rows = statement.query(params![ordinal as i64]).map_err(failed(file))?;
    match rows.next().map_err(failed(file))? {
        Some(row) => BatchRow::read(file, row, |number| partitions.get(number)),
        None => Err(LedgerError::Corrupt(format!("{file}: batch with ordinal {ordinal} is missing"))),
    }
}

/// The block of a batch in a segment that isn't sealed, checked against the batch's row.
pub(crate) fn batch_block(
    file: &str,
    connection: &Connection,
    batch: &BatchRow,
) -> Result<Block, LedgerError> {
    let header = &batch.header;
    let mut statement =
        connection.prepare_cached("SELECT packed FROM block WHERE block_no = ?1").map_err(failed(file))?;
    let packed = statement
        .query_row(params![header.ordinal as i64], |row| row.get::<_, Vec<u8>>(0))
        .optional()
        .map_err(failed(file))?;
    let wrong = |what: &str| LedgerError::Corrupt(format!("{file}: {}: {what}", describe(batch)));
    let block = Block::open(&packed.ok_or_else(|| wrong("its decisions are missing"))?)
        .map_err(block_failed(file, batch))?;
    match &block.head {
        BlockHead::Batch(head) if head.at == header.at && head.seq == header.seq => {}
        _ => return Err(wrong("its decisions are those of another batch")),
    }
    if block.len() as u64 != batch.decisions {
        return Err(wrong("it does not hold as many decisions as its row says"));
    }
    Ok(block)
}

/// The runs of a batch.
pub(crate) fn runs_of(file: &str, connection: &Connection, ordinal: u64) -> Result<Vec<Run>, LedgerError> {
    let sql = "SELECT offset_from, offset_to, verdict, reason, flags, received, correction FROM run \
               WHERE ordinal = ?1 ORDER BY run_no";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let mut rows = statement.query(params![ordinal as i64]).map_err(failed(file))?;
    let mut runs = Vec::new();
    while let Some(row) = rows.next().map_err(failed(file))? {
        runs.push(rows::run(file, row, 0)?);
    }
    Ok(runs)
}

/// The gaps of a batch.
pub(crate) fn gaps_of(file: &str, connection: &Connection, ordinal: u64) -> Result<Vec<Gap>, LedgerError> {
    let sql = "SELECT offset_from, offset_to, kind, cause FROM gap WHERE ordinal = ?1 ORDER BY gap_no";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let mut rows = statement.query(params![ordinal as i64]).map_err(failed(file))?;
    let mut gaps = Vec::new();
    while let Some(row) = rows.next().map_err(failed(file))? {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(file));
        gaps.push(Gap {
            from: number(0)? as u64,
            to: number(1)? as u64,
            kind: rows::gap_kind(number(2)?)?,
            cause: row.get(3).map_err(failed(file))?,
        });
    }
    Ok(gaps)
}

/// A batch with its runs and gaps, whose sums have been checked against its row.
pub(crate) struct Scanned {
    pub(crate) row: BatchRow,
    pub(crate) batch: StoredBatch,
}

/// Visits all batches of a segment, in one pass over three tables. `wanted` chooses partitions.
pub(crate) fn scan(
    file: &str,
    connection: &Connection,
    partitions: &Partitions,
    wanted: &dyn Fn(i64) -> bool,
    visit: &mut dyn FnMut(Scanned) -> Result<ControlFlow<()>, LedgerError>,
) -> Result<ControlFlow<()>, LedgerError> {
    let sql = "SELECT ordinal, offset_from, offset_to, verdict, reason, flags, received, correction FROM run \
               ORDER BY ordinal, run_no";
    let mut run_statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let mut runs = Cursor::new(file, run_statement.query([]).map_err(failed(file))?)?;
    let mut flow = ControlFlow::Continue(());
    let mut failure = None;
    read_batch_rows(file, connection, partitions, 0, &mut |row| {
        let step = scan_one(connection, &mut runs, wanted, row, visit);
        flow = step.unwrap_or_else(|error| {
            failure = Some(error);
            ControlFlow::Break(())
        });
        flow
    })?;
    if let Some(error) = failure {
        return Err(error);
    }
    if flow.is_continue()
        && let Some((ordinal, _)) = runs.ahead
    {
        return Err(LedgerError::Corrupt(format!(
            "{file}: a run is of ordinal {ordinal}, which has no batch"
        )));
    }
    Ok(flow)
}

fn scan_one(
    connection: &Connection,
    runs: &mut Cursor<'_>,
    wanted: &dyn Fn(i64) -> bool,
    row: BatchRow,
    visit: &mut dyn FnMut(Scanned) -> Result<ControlFlow<()>, LedgerError>,
) -> Result<ControlFlow<()>, LedgerError> {
    let file = runs.file;
    let of_batch = runs.take(row.header.ordinal)?;
    let wrong = |what: String| Err(LedgerError::Corrupt(format!("{file}: {}: {what}", describe(&row))));
    let counted: u64 = of_batch.iter().map(|run| run.to.saturating_sub(run.from)).sum();
    if counted != row.decisions {
        let absent = not_in_runs(connection, &row, &of_batch, file)?;
        return wrong(format!(
            "its runs hold {counted} decisions, its row says {}; no run holds {absent}",
            row.decisions
        ));
    }
    if !wanted(row.partition_no) {
        return Ok(ControlFlow::Continue(()));
    }
    let gaps = if row.gaps == 0 { Vec::new() } else { gaps_of(file, connection, row.header.ordinal)? };
    if gaps.len() as u64 != row.gaps {
        return wrong(format!("it has {} gaps, its row says {}", gaps.len(), row.gaps));
    }
    let batch = StoredBatch { header: row.header.clone(), runs: of_batch, gaps };
    visit(Scanned { row, batch })
}

/// The positions between a batch's first and last that none of its runs and gaps holds.
fn not_in_runs(
    connection: &Connection,
    row: &BatchRow,
    runs: &[Run],
    file: &str,
) -> Result<String, LedgerError> {
    let mut held = OffsetSet::new();
    runs.iter().for_each(|run| held.insert_range(run.from, run.to));
    gaps_of(file, connection, row.header.ordinal)?.iter().for_each(|gap| held.insert_range(gap.from, gap.to));
    Ok(format!("{}/{}", row.header.at, held.missing_within(row.offset_from, row.offset_to)))
}

/// A cursor over runs that hands them out batch by batch; it reads one run ahead.
struct Cursor<'s> {
    file: &'s str,
    rows: Rows<'s>,
    ahead: Option<(u64, Run)>,
}

impl<'s> Cursor<'s> {
    fn new(file: &'s str, rows: Rows<'s>) -> Result<Self, LedgerError> {
        let mut cursor = Self { file, rows, ahead: None };
        cursor.step()?;
        Ok(cursor)
    }

    /// The run that stood ahead; the next one is read.
    fn step(&mut self) -> Result<Option<(u64, Run)>, LedgerError> {
        let next = match self.rows.next().map_err(failed(self.file))? {
            Some(row) => {
                let ordinal = row.get::<_, i64>(0).map_err(failed(self.file))?;
                Some((ordinal as u64, rows::run(self.file, row, 1)?))
            }
            None => None,
        };
        Ok(std::mem::replace(&mut self.ahead, next))
    }

    fn take(&mut self, ordinal: u64) -> Result<Vec<Run>, LedgerError> {
        let mut runs = Vec::new();
        while self.ahead.as_ref().is_some_and(|(at, _)| *at <= ordinal) {
            match self.step()? {
                Some((at, run)) if at == ordinal => runs.push(run),
                Some((at, _)) => {
                    let what = format!("{}: a run is of ordinal {at}, which has no batch", self.file);
                    return Err(LedgerError::Corrupt(what));
                }
                None => break,
            }
        }
        Ok(runs)
    }
}
