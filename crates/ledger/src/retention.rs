//! Dropping old segments. Their books stay in the catalog, and so do dead letters that nobody resolved.

use crate::opener::failed;
use crate::rows::{self, BATCH_COLUMNS, BatchRow, DECISION_COLUMNS};
use crate::scan::batch_row;
use crate::shelf::{CATALOG, Segment};
use crate::store::LedgerError;
use crate::writer::{SqliteLedger, in_transaction};
use recount_model::{Decision, KeptBody, Timestamp};
use rusqlite::{Connection, params};

/// A dead letter that outlives its segment.
struct Carried {
    batch: BatchRow,
    place: u64,
    decision: Decision,
    body: Option<KeptBody>,
}

impl SqliteLedger {
    /// Drops sealed segments from the oldest on, as the settings say.
    pub(crate) fn drop_old(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        while self.oldest_is_due(now) {
            self.drop_oldest()?;
        }
        Ok(())
    }

    fn oldest_is_due(&self, now: Timestamp) -> bool {
        let Some(oldest) = self.shelf.segments.first().filter(|s| s.is_sealed()) else { return false };
        let is_old = match (self.settings.keep_ms, oldest.info.persisted_to) {
            (Some(keep_ms), Some(persisted_to)) => {
                u64::try_from(now.0.saturating_sub(persisted_to)).is_ok_and(|age_ms| age_ms > keep_ms)
            }
            _ => false,
        };
        let total: u64 = self.shelf.segments.iter().filter(|s| s.is_sealed()).map(|s| s.info.bytes).sum();
        is_old || self.settings.keep_bytes.is_some_and(|keep_bytes| total > keep_bytes)
    }

    /// Drops the oldest sealed segment: one catalog transaction takes its unresolved dead letters over and
    /// marks it dropped. Its file is removed a round later.
    pub(crate) fn drop_oldest(&mut self) -> Result<(), LedgerError> {
        let Some(oldest) = self.shelf.segments.first() else { return Ok(()) };
        let no = oldest.info.no;
        in_transaction(CATALOG, &self.catalog, || {
            self.carry_unresolved(oldest)?;
            self.catalog.execute("UPDATE segment SET state = 3 WHERE segment_no = ?1", params![no])?;
            self.catalog.execute("DELETE FROM segment_filter WHERE segment_no = ?1", params![no])?;
            Ok(())
        })?;
        let dropped = self.shelf.segments.remove(0);
        self.shelf.last_block.clear();
        let (info, _) = dropped.into_parts();
        self.obsolete.push_back(info.file);
        Ok(())
    }

    /// One by one, so that memory does not grow with their number.
    fn carry_unresolved(&self, segment: &Segment) -> Result<(), LedgerError> {
        let (file, connection) = (segment.info.file.as_str(), segment.connection(&self.shelf.opener)?);
        let sql =
            format!("SELECT {DECISION_COLUMNS} FROM decision WHERE verdict = 2 ORDER BY ordinal, place");
        let mut statement = connection.prepare_cached(&sql).map_err(failed(file))?;
        let mut rows = statement.query([]).map_err(failed(file))?;
        while let Some(row) = rows.next().map_err(failed(file))? {
            let (ordinal, place, decision) = rows::decision(file, row)?;
            let batch = batch_row(file, connection, &self.shelf.partitions, ordinal)?;
            let (number, seq) = (batch.partition_no, batch.header.seq);
            if self.corrections.is_current(number, decision.offset, seq) {
                let body = self.shelf.body(&self.catalog, number, decision.offset)?;
                put_carried(&self.catalog, &Carried { batch, place, decision, body })
                    .map_err(failed(CATALOG))?;
            }
        }
        Ok(())
    }
}

fn put_carried(catalog: &Connection, carried: &Carried) -> rusqlite::Result<()> {
    let BatchRow { header, .. } = &carried.batch;
    let sql = format!(
        "INSERT OR IGNORE INTO batch ({BATCH_COLUMNS}) VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,\
         ?15,?16,?17)"
    );
    catalog.prepare_cached(&sql)?.execute(params![
        header.ordinal as i64,
        carried.batch.partition_no,
        header.epoch as i64,
        header.seq as i64,
        header.config.0,
        header.taken_at.0,
        header.decided_at.0,
        header.persisted_at.0,
        header.next_offset as i64,
        header.decided_above.to_string(),
        carried.batch.decisions as i64,
        carried.batch.decision_rows as i64,
        carried.batch.gaps as i64,
        carried.batch.forgotten as i64,
        &carried.batch.identity.to_le_bytes()[..],
        carried.batch.offset_from as i64,
        carried.batch.offset_to as i64
    ])?;
    rows::put_decision(catalog, header.ordinal, carried.place, &carried.decision)?;
    if let Some(body) = &carried.body {
        rows::put_body(catalog, carried.batch.partition_no, body)?;
    }
    Ok(())
}
