//! One position, the newest events, one body.

use crate::codec::{Block, CodecError, Rows};
use crate::opener::failed;
use crate::query::is_dead_letter;
use crate::rows;
use crate::scan::{batch_block, batch_row, block_failed};
use crate::shelf::{CATALOG, Corrections, Segment, Shelf};
use crate::store::{LedgerError, RecentEvent};
use crate::stripe::{Stripe, StripeBatches, Texts, read_stripe, sealed_block, stripes};
use recount_model::reason::{DUPLICATE, ID_REUSED};
use recount_model::{Decision, Fate, KeptBody};
use rusqlite::{Connection, params};
use std::cell::RefCell;
use std::collections::HashSet;

/// The block that was read last, with its segment and ordinal: redelivered positions come in order, so the
/// next one is mostly in it too.
#[derive(Default)]
pub(crate) struct LastBlock(RefCell<Option<(i64, u64, Block)>>);

impl LastBlock {
    /// Forgets it, since blocks are being rewritten.
    pub(crate) fn clear(&self) {
        self.0.replace(None);
    }
}

impl std::fmt::Debug for LastBlock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("LastBlock")
    }
}

impl Shelf {
    /// The current decision at an offset, with the seq of its batch.
    pub(crate) fn current(
        &self,
        catalog: &Connection,
        corrections: &Corrections,
        partition_no: i64,
        offset: u64,
    ) -> Result<Option<(u64, Decision)>, LedgerError> {
        let corrected = corrections.last_seq(partition_no, offset);
        for segment in self.segments.iter().rev() {
            let (file, connection) = (segment.info.file.as_str(), segment.connection(&self.opener)?);
            let Some((ordinal, seq)) = find_batch(file, connection, partition_no, offset, corrected)? else {
                continue;
            };
            if let Some(decision) = decision_row(file, connection, ordinal, offset)? {
                return Ok(Some((seq, decision)));
            }
            let decision = match segment.is_sealed() {
                true => self.sealed_decision(segment, partition_no, ordinal, offset)?,
                false => self.open_decision(segment, ordinal, offset)?,
            };
            let missing = || {
                let at = self.partitions.get(partition_no).map_or_else(String::new, ToString::to_string);
                LedgerError::Corrupt(format!("{file}: {at}/{offset} has a run and no decision"))
            };
            return Ok(Some((seq, decision.ok_or_else(missing)?)));
        }
        let Some((ordinal, seq)) = find_carried(catalog, partition_no, offset)? else { return Ok(None) };
        Ok(decision_row(CATALOG, catalog, ordinal, offset)?.map(|decision| (seq, decision)))
    }

    fn open_decision(
        &self,
        segment: &Segment,
        ordinal: u64,
        offset: u64,
    ) -> Result<Option<Decision>, LedgerError> {
        let (file, connection) = (segment.info.file.as_str(), segment.connection(&self.opener)?);
        let row = batch_row(file, connection, &self.partitions, ordinal)?;
        let mut last = self.last_block.0.borrow_mut();
        let block = match last.take().filter(|(no, of, _)| (*no, *of) == (segment.info.no, ordinal)) {
            Some((_, _, block)) => block,
            None => batch_block(file, connection, &row)?,
        };
        let (_, _, block) = last.insert((segment.info.no, ordinal, block));
        let rows = block.rows().map_err(block_failed(file, &row))?;
        let index = (0..block.len()).find(|index| rows.offset(*index) == offset);
        Ok(index.map(|index| rows.decision(index)))
    }

    fn sealed_decision(
        &self,
        segment: &Segment,
        partition_no: i64,
        ordinal: u64,
        offset: u64,
    ) -> Result<Option<Decision>, LedgerError> {
        let (file, connection) = (segment.info.file.as_str(), segment.connection(&self.opener)?);
        let all = stripes(file, connection)?;
        let Some(stripe) = all.iter().find(|s| (s.ordinal_from..s.ordinal_to).contains(&ordinal)) else {
            return Ok(None);
        };
        let batches = StripeBatches::read(file, connection, &self.partitions, stripe)?;
        let texts = Texts { id: None, key: None };
        let of_batch = |row: &rows::BatchRow| row.header.ordinal == ordinal;
        let found = read_stripe((file, connection), (stripe, &batches), partition_no, texts, &of_batch)?;
        Ok(found.into_iter().map(|placed| placed.decision).find(|decision| decision.offset == offset))
    }

    /// The last events of a partition that have an id, newest first; of a position only its current decision.
    pub(crate) fn recent(
        &self,
        corrections: &Corrections,
        partition_no: i64,
        events_max: usize,
    ) -> Result<Vec<RecentEvent>, LedgerError> {
        let mut recent =
            Recent { corrections, partition_no, events_max, found: Vec::new(), seen: HashSet::new() };
        for segment in self.segments.iter().rev() {
            if recent.is_full() {
                break;
            }
            let (file, connection) = (segment.info.file.as_str(), segment.connection(&self.opener)?);
            if segment.is_sealed() {
                for stripe in stripes(file, connection)?.iter().rev() {
                    self.recent_of_stripe(file, connection, stripe, &mut recent)?;
                }
            } else {
                self.recent_of_batches(file, connection, &mut recent)?;
            }
        }
        Ok(recent.found)
    }

    fn recent_of_batches(
        &self,
        file: &str,
        connection: &Connection,
        recent: &mut Recent<'_>,
    ) -> Result<(), LedgerError> {
        let sql = "SELECT ordinal FROM batch WHERE partition_no = ?1 ORDER BY seq DESC";
        let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
        let mut rows = statement.query(params![recent.partition_no]).map_err(failed(file))?;
        while let Some(row) = rows.next().map_err(failed(file))? {
            if recent.is_full() {
                break;
            }
            let ordinal = row.get::<_, i64>(0).map_err(failed(file))? as u64;
            let batch = batch_row(file, connection, &self.partitions, ordinal)?;
            let block = batch_block(file, connection, &batch)?;
            recent.add_batch(&block).map_err(block_failed(file, &batch))?;
        }
        Ok(())
    }

    fn recent_of_stripe(
        &self,
        file: &str,
        connection: &Connection,
        stripe: &Stripe,
        recent: &mut Recent<'_>,
    ) -> Result<(), LedgerError> {
        if recent.is_full() {
            return Ok(());
        }
        let sql = "SELECT block_no FROM block_range WHERE stripe_no = ?1 AND partition_no = ?2";
        let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
        let numbers = statement
            .query_map(params![stripe.no, recent.partition_no], |row| row.get::<_, i64>(0))
            .and_then(|rows| rows.collect::<Result<Vec<i64>, _>>())
            .map_err(failed(file))?;
        let blocks = numbers
            .iter()
            .map(|number| sealed_block(file, connection, *number))
            .collect::<Result<Vec<Block>, LedgerError>>()?;
        let damaged =
            |error: CodecError| LedgerError::Corrupt(format!("{file}: stripe {}: {error}", stripe.no));
        recent.add_sealed(&blocks).map_err(damaged)
    }

    /// The kept body of an offset: the newest segment that has one.
    pub(crate) fn body(
        &self,
        catalog: &Connection,
        partition_no: i64,
        offset: u64,
    ) -> Result<Option<KeptBody>, LedgerError> {
        for segment in self.segments.iter().rev() {
            let connection = segment.connection(&self.opener)?;
            if let Some(body) = rows::get_body(&segment.info.file, connection, partition_no, offset)? {
                return Ok(Some(body));
            }
        }
        rows::get_body(CATALOG, catalog, partition_no, offset)
    }
}

/// Gathers the duplicate window.
struct Recent<'c> {
    corrections: &'c Corrections,
    partition_no: i64,
    events_max: usize,
    found: Vec<RecentEvent>,
    /// Offsets that were corrected and whose current decision was found.
    seen: HashSet<u64>,
}

impl Recent<'_> {
    fn is_full(&self) -> bool {
        self.found.len() >= self.events_max
    }

    /// Takes one event in, unless a later decision of its offset was found.
    fn add_one(&mut self, block: &Block, rows: &Rows<'_>, index: usize) {
        let offset = rows.offset(index);
        let is_corrected = self.corrections.last_seq(self.partition_no, offset).is_some();
        if self.is_full() || (is_corrected && !self.seen.insert(offset)) {
            return;
        }
        let Some(id) = block.id(index) else { return };
        let fate = rows.fate(index);
        if !is_a_repetition(&fate) {
            self.found.push(RecentEvent {
                offset,
                event_id: id.into(),
                payload_hash: block.hash(index),
                dead_lettered: is_dead_letter(&fate),
            });
        }
    }

    fn add_batch(&mut self, block: &Block) -> Result<(), CodecError> {
        let rows = block.rows()?;
        (0..block.len()).rev().for_each(|index| self.add_one(block, &rows, index));
        Ok(())
    }

    fn add_sealed(&mut self, blocks: &[Block]) -> Result<(), CodecError> {
        let mut places: Vec<(u64, usize, usize)> = Vec::new();
        for (nth, block) in blocks.iter().enumerate() {
            places.extend((0..block.len()).map(|index| (block.rank(index), nth, index)));
        }
        places.sort_unstable_by(|a, b| b.cmp(a));
        let rows = blocks.iter().map(Block::rows).collect::<Result<Vec<_>, _>>()?;
        places.into_iter().for_each(|(_, nth, index)| self.add_one(&blocks[nth], &rows[nth], index));
        Ok(())
    }
}

/// Whether the event was refused since its id is an earlier event's: it says nothing of that one.
fn is_a_repetition(fate: &Fate) -> bool {
    fate.reason().is_some_and(|reason| reason.code == DUPLICATE || reason.code == ID_REUSED)
}

/// The ordinal and seq of the batch of a segment that decided the offset: the one with `corrected` as its seq,
/// or the only one.
fn find_batch(
    file: &str,
    connection: &Connection,
    partition_no: i64,
    offset: u64,
    corrected: Option<u64>,
) -> Result<Option<(u64, u64)>, LedgerError> {
    let sql = "SELECT ordinal, seq FROM batch WHERE partition_no = ?1 AND offset_from <= ?2 AND offset_to > ?2 \
               AND (?3 IS NULL OR seq = ?3) ORDER BY offset_from DESC";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let values = params![partition_no, offset as i64, corrected.map(|seq| seq as i64)];
    let mut rows = statement.query(values).map_err(failed(file))?;
    let sql = "SELECT EXISTS (SELECT 1 FROM run WHERE ordinal = ?1 AND offset_from <= ?2 AND offset_to > ?2)";
    let mut holds = connection.prepare_cached(sql).map_err(failed(file))?;
    while let Some(row) = rows.next().map_err(failed(file))? {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(file));
        let ordinal = number(0)?;
        let found: bool =
            holds.query_row(params![ordinal, offset as i64], |row| row.get(0)).map_err(failed(file))?;
        if found {
            return Ok(Some((ordinal as u64, number(1)? as u64)));
        }
    }
    Ok(None)
}

fn find_carried(
    catalog: &Connection,
    partition_no: i64,
    offset: u64,
) -> Result<Option<(u64, u64)>, LedgerError> {
    let sql = "SELECT ordinal, seq FROM decision JOIN batch USING (ordinal) \
               WHERE partition_no = ?1 AND offset = ?2 ORDER BY seq DESC LIMIT 1";
    let mut statement = catalog.prepare_cached(sql).map_err(failed(CATALOG))?;
    let mut rows = statement.query(params![partition_no, offset as i64]).map_err(failed(CATALOG))?;
    let Some(row) = rows.next().map_err(failed(CATALOG))? else { return Ok(None) };
    let number = |column: usize| row.get::<_, i64>(column).map_err(failed(CATALOG));
    Ok(Some((number(0)? as u64, number(1)? as u64)))
}

fn decision_row(
    file: &str,
    connection: &Connection,
    ordinal: u64,
    offset: u64,
) -> Result<Option<Decision>, LedgerError> {
    let sql = format!("SELECT {} FROM decision WHERE ordinal = ?1 AND offset = ?2", rows::DECISION_COLUMNS);
    let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
    let mut found = statement.query(params![ordinal as i64, offset as i64]).map_err(failed(file))?;
    match found.next().map_err(failed(file))? {
        Some(row) => Ok(Some(rows::decision(file, row)?.2)),
        None => Ok(None),
    }
}
