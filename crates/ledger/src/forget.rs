//! Forgetting a key: its payloads, ids and the key itself are destroyed everywhere in the ledger; verdicts,
//! positions, times and amounts stay, and so do the identity sums that were taken when they were decided.

use crate::birth::remove_database;
use crate::codec::{self, Block, BlockHead};
use crate::opener::failed;
use crate::query::Query;
use crate::rows;
use crate::scan::batch_row;
use crate::seal::key_range;
use crate::segment::put_filters;
use crate::shelf::{CATALOG, Segment};
use crate::store::{DecisionFilter, JournalEntry, JournalKind, LedgerError, LedgerStore};
use crate::stripe::Texts;
use crate::writer::{SqliteLedger, in_transaction};
use recount_model::{Decision, Fate, FlowName};
use rusqlite::{Connection, OptionalExtension, params};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// What was destroyed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Forgotten {
    /// Decisions that no longer tell their key and id.
    pub decisions: u64,
    /// Bodies that are gone.
    pub bodies: u64,
}

/// What the sentence of a forgotten event's reason says.
const SENTENCE: &str = "forgotten on request";

/// The journal's words for a forgetting that began, and for one that came to its end.
const BEGAN: &str = "forgetting";
const ENDED: &str = "forgotten";

impl SqliteLedger {
    /// Destroys what the ledger holds of a key: bodies, event ids, the key, evidence, sentences and groups of
    /// its decisions. Keeps position, verdict, reason code, flags, times, payload hash (a redelivered position
    /// is compared with it) and amounts. Journals how many, not which. After a crash in between: call it
    /// again. Files that held the key are compacted, which takes a while and room for a copy of each.
    pub fn forget(
        &mut self,
        flow: Option<&FlowName>,
        key: &str,
        because: &str,
    ) -> Result<Forgotten, LedgerError> {
        self.healthy()?;
        let scrub_all = self.forgetting_was_cut_short()?;
        self.journal_forgetting(flow, BEGAN, serde_json::json!({ "because": because }))?;
        let done = self.forget_everywhere(flow, key, scrub_all);
        let forgotten = self.written(done)?;
        let detail = serde_json::json!({
            "decisions": forgotten.decisions, "bodies": forgotten.bodies, "because": because,
        });
        self.journal_forgetting(flow, ENDED, detail)?;
        Ok(forgotten)
    }

    fn journal_forgetting(
        &mut self,
        flow: Option<&FlowName>,
        what: &str,
        detail: serde_json::Value,
    ) -> Result<u64, LedgerError> {
        let now = (self.settings.clock)();
        let (kind, flow, what) = (JournalKind::Operator, flow.cloned(), what.to_owned());
        self.journal(&JournalEntry { kind, flow, what, at: now, persisted_at: now, detail })
    }

    /// A crash may have come before a file was compacted; nothing else would lead to it any more.
    fn forgetting_was_cut_short(&self) -> Result<bool, LedgerError> {
        let sql = "SELECT what = ?1 FROM journal WHERE what IN (?1, ?2) ORDER BY entry DESC LIMIT 1";
        let last = self.catalog.query_row(sql, params![BEGAN, ENDED], |row| row.get(0)).optional();
        Ok(last.map_err(failed(CATALOG))?.unwrap_or(false))
    }

    fn forget_everywhere(
        &mut self,
        flow: Option<&FlowName>,
        key: &str,
        scrub_all: bool,
    ) -> Result<Forgotten, LedgerError> {
        // A segment that is half sealed, or just was, is there twice.
        self.abandon_sealing()?;
        while let Some(file) = self.obsolete.pop_front() {
            remove_database(&self.shelf.opener, &self.settings, &file)?;
        }
        self.shelf.last_block.clear();
        let wanted: BTreeSet<i64> = (self.shelf.partitions.iter())
            .filter(|(_, at)| flow.is_none_or(|flow| at.flow == *flow))
            .map(|(number, _)| number)
            .collect();
        let offsets = self.offsets_of(flow, key)?;
        // Without the shelf's own connections to sealed segments, so that nothing stands in the way of writing.
        for segment in self.shelf.segments.iter_mut().filter(|s| s.is_sealed()) {
            *segment = Segment::unopened(segment.info.clone());
        }
        let mut forgotten = Forgotten::default();
        // Bodies first, in every file: once the key is gone, nothing leads to them.
        forgotten.bodies += self.forget_bodies(CATALOG, &self.catalog, &offsets)?;
        for segment in &self.shelf.segments {
            let file = segment.info.file.as_str();
            forgotten.bodies += self.with_writable(segment, |c| self.forget_bodies(file, c, &offsets))?;
        }
        for segment in &self.shelf.segments {
            let file = segment.info.file.as_str();
            forgotten.decisions += self.with_writable(segment, |connection| {
                let found = self.forget_in_segment(file, connection, &wanted, key)?;
                if scrub_all || !offsets.is_empty() {
                    scrub(file, connection)?;
                }
                Ok(found)
            })?;
        }
        forgotten.decisions += self.forget_carried(&wanted, key)?;
        if scrub_all || !offsets.is_empty() {
            scrub(CATALOG, &self.catalog)?;
        }
        Ok(forgotten)
    }

    /// Works on a segment's file with a connection that may write, also where it is sealed.
    fn with_writable<T>(
        &self,
        segment: &Segment,
        work: impl FnOnce(&Connection) -> Result<T, LedgerError>,
    ) -> Result<T, LedgerError> {
        if segment.is_sealed() {
            return work(&self.shelf.opener.write_sealed(&segment.info.file)?);
        }
        work(segment.connection(&self.shelf.opener)?)
    }

    /// Where the key occurs.
    fn offsets_of(
        &self,
        flow: Option<&FlowName>,
        key: &str,
    ) -> Result<BTreeMap<i64, BTreeSet<u64>>, LedgerError> {
        let filter = DecisionFilter {
            flow: flow.cloned(),
            key: Some(key.to_owned()),
            superseded: true,
            ..DecisionFilter::default()
        };
        let mut offsets: BTreeMap<i64, BTreeSet<u64>> = BTreeMap::new();
        let partitions = &self.shelf.partitions;
        Query::new(&self.shelf, &self.catalog, &filter)?.run(&mut |stored| {
            if let Some(number) = partitions.number(&stored.header.at) {
                offsets.entry(number).or_default().insert(stored.decision.offset);
            }
            ControlFlow::Continue(())
        })?;
        Ok(offsets)
    }

    fn forget_in_segment(
        &self,
        file: &str,
        connection: &Connection,
        wanted: &BTreeSet<i64>,
        key: &str,
    ) -> Result<u64, LedgerError> {
        let mut offsets: BTreeMap<i64, BTreeSet<u64>> = BTreeMap::new();
        let mut forgotten = 0;
        in_transaction(file, connection, || {
            for block_no in candidate_blocks(file, connection, key)? {
                let packed: Vec<u8> = connection
                    .prepare_cached("SELECT packed FROM block WHERE block_no = ?1")?
                    .query_row(params![block_no], |row| row.get(0))?;
                let damaged = |e| LedgerError::Corrupt(format!("{file}: block {block_no}: {e}"));
                let block = Block::open(&packed).map_err(damaged)?;
                let partition_no = self.partition_of(file, connection, &block, block_no)?;
                if wanted.contains(&partition_no)
                    && let Some(found) =
                        rewrite_block(connection, block, block_no, key).map_err(damaged)??
                {
                    forgotten += found.len() as u64;
                    offsets.entry(partition_no).or_default().extend(found);
                }
            }
            for (partition_no, found) in &offsets {
                forget_rows(file, connection, *partition_no, found)?;
                note_in_batches(connection, *partition_no, found)?;
            }
            Ok(())
        })?;
        Ok(forgotten)
    }

    fn partition_of(
        &self,
        file: &str,
        connection: &Connection,
        block: &Block,
        block_no: i64,
    ) -> Result<i64, LedgerError> {
        match &block.head {
            BlockHead::Batch(_) => {
                Ok(batch_row(file, connection, &self.shelf.partitions, block_no as u64)?.partition_no)
            }
            BlockHead::Sealed(_) => connection
                .query_row(
                    "SELECT partition_no FROM block_range WHERE block_no = ?1",
                    params![block_no],
                    |row| row.get(0),
                )
                .map_err(failed(file)),
        }
    }

    fn forget_carried(&self, wanted: &BTreeSet<i64>, key: &str) -> Result<u64, LedgerError> {
        let mut forgotten = 0;
        in_transaction(CATALOG, &self.catalog, || {
            let sql = "SELECT partition_no, offset FROM decision JOIN batch USING (ordinal) WHERE key = ?1";
            let found = self
                .catalog
                .prepare_cached(sql)?
                .query_map(params![key], |row| Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)? as u64)))?
                .collect::<Result<Vec<_>, _>>()?;
            for (partition_no, offset) in found.into_iter().filter(|(number, _)| wanted.contains(number)) {
                forgotten += 1;
                forget_rows(CATALOG, &self.catalog, partition_no, &BTreeSet::from([offset]))?;
            }
            Ok(())
        })?;
        Ok(forgotten)
    }

    /// A body may lie in another segment than its decision, so every file is asked for all of them.
    fn forget_bodies(
        &self,
        file: &str,
        connection: &Connection,
        offsets: &BTreeMap<i64, BTreeSet<u64>>,
    ) -> Result<u64, LedgerError> {
        in_transaction(file, connection, || {
            let sql = "DELETE FROM body WHERE partition_no = ?1 AND offset = ?2";
            let mut delete = connection.prepare_cached(sql)?;
            let mut gone = 0;
            for (partition_no, offsets) in offsets {
                for offset in offsets {
                    gone += delete.execute(params![partition_no, *offset as i64])? as u64;
                }
            }
            Ok(gone)
        })
    }
}

/// Compacts a file: SQLite leaves pieces of old rows in the free room of pages, whatever `secure_delete` says,
/// and old pages in the write-ahead log.
fn scrub(file: &str, connection: &Connection) -> Result<(), LedgerError> {
    connection.flush_prepared_statement_cache();
    connection
        .execute_batch("PRAGMA temp_store = FILE; VACUUM; PRAGMA temp_store = MEMORY")
        .map_err(failed(file))?;
    let busy: Option<i64> = connection
        .query_row("PRAGMA wal_checkpoint(TRUNCATE)", [], |row| row.get(0))
        .optional()
        .map_err(failed(file))?;
    match busy {
        Some(1) => Err(LedgerError::Unwritable(format!(
            "{file}: somebody reads it, so that its log can't be cut: let the reader end, then forget again"
        ))),
        _ => Ok(()),
    }
}

fn candidate_blocks(file: &str, connection: &Connection, key: &str) -> Result<Vec<i64>, LedgerError> {
    let numbers = connection
        .prepare_cached("SELECT block_no FROM block_keys ORDER BY block_no")
        .and_then(|mut statement| statement.query_map([], |row| row.get(0))?.collect::<Result<Vec<i64>, _>>())
        .map_err(failed(file))?;
    let texts = Texts { id: None, key: Some(key) };
    let mut blocks = Vec::new();
    for number in numbers {
        if texts.may_be_in(file, connection, number)? {
            blocks.push(number);
        }
    }
    Ok(blocks)
}

/// Takes out of a decision what its key's owner may want forgotten.
fn forget_decision(decision: &mut Decision) {
    decision.event_id = None;
    decision.key = None;
    decision.evidence = None;
    if let Fate::Skipped(reason) | Fate::DeadLettered(reason) = &mut decision.fate {
        reason.sentence = SENTENCE.to_owned();
    }
    decision.measures.iter_mut().flatten().for_each(|measure| measure.group = None);
}

/// Rewrites a block without the key; the offsets it concerned, or none where the filter hit in vain.
fn rewrite_block(
    connection: &Connection,
    block: Block,
    block_no: i64,
    key: &str,
) -> Result<rusqlite::Result<Option<BTreeSet<u64>>>, codec::CodecError> {
    let mut decisions = block.decisions()?;
    let ranks: Vec<u64> = (0..block.len()).map(|index| block.rank(index)).collect();
    let mut offsets = BTreeSet::new();
    for decision in decisions.iter_mut().filter(|d| d.key.as_deref() == Some(key)) {
        offsets.insert(decision.offset);
        forget_decision(decision);
    }
    if offsets.is_empty() {
        return Ok(Ok(None));
    }
    let is_sealed = matches!(block.head, BlockHead::Sealed(_));
    let packed = match block.head {
        BlockHead::Batch(head) => {
            let record = head.into_record(decisions, Vec::new());
            let packed = codec::encode(&record);
            decisions = record.decisions;
            packed
        }
        BlockHead::Sealed(_) => codec::encode_sealed(&decisions.iter().collect::<Vec<_>>(), &ranks),
    };
    let store = || {
        connection.execute("UPDATE block SET packed = ?2 WHERE block_no = ?1", params![block_no, packed])?;
        put_filters(connection, "main", block_no, decisions.iter())?;
        if is_sealed {
            let by_key: Vec<&Decision> = decisions.iter().collect();
            let (first, last) = key_range(&by_key);
            let sql = "UPDATE block_range SET key_first = ?2, key_last = ?3 WHERE block_no = ?1";
            connection.execute(sql, params![block_no, first, last])?;
        }
        Ok(Some(offsets))
    };
    Ok(store())
}

/// Notes in their batches that identity sums can't be computed anew for these offsets.
fn note_in_batches(
    connection: &Connection,
    partition_no: i64,
    offsets: &BTreeSet<u64>,
) -> rusqlite::Result<()> {
    let mut update = connection.prepare_cached(
        "UPDATE batch SET forgotten = forgotten + 1 WHERE ordinal IN (SELECT ordinal FROM batch AS b \
         JOIN run AS r USING (ordinal) WHERE b.partition_no = ?1 AND b.offset_from <= ?2 AND b.offset_to > ?2 \
         AND r.offset_from <= ?2 AND r.offset_to > ?2)",
    )?;
    for offset in offsets {
        update.execute(params![partition_no, *offset as i64])?;
    }
    Ok(())
}

/// Takes the same out of the rows of `decision`.
fn forget_rows(
    file: &str,
    connection: &Connection,
    partition_no: i64,
    offsets: &BTreeSet<u64>,
) -> Result<(), LedgerError> {
    let sql = "SELECT ordinal, place, measures FROM decision JOIN batch USING (ordinal) \
               WHERE partition_no = ?1 AND offset = ?2";
    let mut select = connection.prepare_cached(sql).map_err(failed(file))?;
    let sql = "UPDATE decision SET event_id = NULL, key = NULL, evidence = NULL, measures = ?4, \
               sentence = CASE verdict WHEN 0 THEN NULL ELSE ?3 END WHERE ordinal = ?1 AND place = ?2";
    let mut update = connection.prepare_cached(sql).map_err(failed(file))?;
    for offset in offsets {
        let found = select
            .query_map(params![partition_no, *offset as i64], |row| {
                Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, Option<String>>(2)?))
            })
            .and_then(|rows| rows.collect::<Result<Vec<_>, _>>())
            .map_err(failed(file))?;
        for (ordinal, place, measures) in found {
            let measures = rows::without_groups(measures.as_deref())?;
            update.execute(params![ordinal, place, SENTENCE, measures]).map_err(failed(file))?;
        }
    }
    Ok(())
}
