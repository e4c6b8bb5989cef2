//! The arbiter's rows: who owns a partition, how far it is, what the ledger has yet to get.

use super::faults::{as_integer, fault};
use crate::sql::{PositionRow, first_taken};
use recount_engine::{Claim, Conclusion, EffectFault, Taken};
use recount_ledger::LedgerId;
use recount_model::{OffsetSet, PartitionId};
use rusqlite::{Connection, OptionalExtension, params};

const OF_PARTITION: &str = "WHERE flow = ?1 AND source_id = ?2 AND partition = ?3";

fn row(conn: &Connection, at: &PartitionId) -> Result<Option<PositionRow>, EffectFault> {
    let sql = format!(
        "SELECT epoch, seq, next_offset, decided_above, ledger_id, clean, alone_offset, alone_epoch, \
         alone_stops FROM recount_position {OF_PARTITION}"
    );
    let read = |r: &rusqlite::Row<'_>| {
        let offset: Option<i64> = r.get(6)?;
        let epoch: Option<i64> = r.get(7)?;
        let stops: i64 = r.get(8)?;
        Ok(PositionRow {
            epoch: r.get(0)?,
            seq: r.get(1)?,
            next_offset: r.get(2)?,
            decided_above: r.get(3)?,
            ledger_id: r.get(4)?,
            clean: r.get(5)?,
            alone: offset.map(|offset| (offset, epoch, stops)),
        })
    };
    let query = || -> rusqlite::Result<Option<PositionRow>> {
        conn.prepare_cached(&sql)?.query_row(of(at), read).optional()
    };
    query().map_err(|e| fault("reading recount_position", &e))
}

fn of(at: &PartitionId) -> [&str; 3] {
    [at.flow.as_str(), at.source.as_str(), at.partition.as_str()]
}

fn run(
    conn: &Connection,
    doing: &str,
    sql: &str,
    params: impl rusqlite::Params,
) -> Result<usize, EffectFault> {
    let run = || conn.prepare_cached(sql)?.execute(params);
    run().map_err(|e| fault(doing, &e))
}

pub(crate) fn peek(conn: &Connection, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
    row(conn, at)?.map(|row| row.taken(at, row.epoch)).transpose()
}

/// Inside a transaction: the next epoch is ours.
pub(crate) fn take(conn: &Connection, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
    let Some(row) = row(conn, at)? else {
        insert(conn, at, ledger, 1)?;
        return Ok(first_taken());
    };
    row.refuse_foreign(at, ledger)?;
    let taken = row.taken(at, row.epoch + 1)?;
    let (offset, stops) = row.alone_after_stop().unzip();
    let sql = format!(
        "UPDATE recount_position SET epoch = epoch + 1, clean = 0, alone_offset = ?4, alone_epoch = NULL, \
         alone_stops = ?5 {OF_PARTITION}"
    );
    let [flow, source, partition] = of(at);
    run(conn, "taking the partition", &sql, params![flow, source, partition, offset, stops.unwrap_or(0)])?;
    Ok(taken)
}

fn insert(conn: &Connection, at: &PartitionId, ledger: &LedgerId, epoch: i64) -> Result<(), EffectFault> {
    let sql = "INSERT INTO recount_position (flow, source_id, partition, epoch, seq, next_offset, \
               decided_above, ledger_id, clean, alone_stops) VALUES (?1, ?2, ?3, ?4, 0, 0, '', ?5, 0, 0)";
    let [flow, source, partition] = of(at);
    run(conn, "taking the partition", sql, params![flow, source, partition, epoch, ledger.0]).map(drop)
}

/// The first statement of a batch's transaction. Without `guard` (a test took it away) the row's epoch and
/// seq are not looked at.
pub(crate) fn claim(
    conn: &Connection,
    at: &PartitionId,
    claim: Claim,
    guard: bool,
) -> Result<(), EffectFault> {
    let (epoch, seq) = (as_integer(claim.epoch)?, as_integer(claim.expected_seq)?);
    let owned = if guard { "AND epoch = ?4 AND seq = ?5" } else { "AND ?4 = ?4" };
    let sql = format!("UPDATE recount_position SET seq = ?5 + 1 {OF_PARTITION} {owned}");
    let [flow, source, partition] = of(at);
    match run(conn, "claiming the batch", &sql, params![flow, source, partition, epoch, seq])? {
        1 => Ok(()),
        _ => Err(EffectFault::NotMine),
    }
}

/// Whether the claim would hold now; nothing is changed.
pub(crate) fn would_claim(conn: &Connection, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
    let (epoch, seq) = (as_integer(claim.epoch)?, as_integer(claim.expected_seq)?);
    match row(conn, at)? {
        Some(row) if row.epoch == epoch && row.seq == seq => Ok(()),
        _ => Err(EffectFault::NotMine),
    }
}

/// After the events: the batch's bytes, the partition's prefix, and room made of what the ledger has.
pub(crate) fn conclude(
    conn: &Connection,
    at: &PartitionId,
    claim: Claim,
    ledger_has_seq: u64,
    conclusion: &Conclusion,
    guard: bool,
) -> Result<(), EffectFault> {
    let record = &conclusion.record;
    assert_eq!(&record.at, at, "a batch's record is of the partition that was claimed");
    assert_eq!(record.epoch, claim.epoch, "a batch's record is of the epoch that was claimed");
    assert_eq!(record.seq, claim.expected_seq + 1, "a batch's record has the seq that was claimed");
    let [flow, source, partition] = of(at);
    let seq = as_integer(record.seq)?;
    let bytes: &[u8] = &conclusion.bytes;
    // Where a test took the claim away, the key of this table must not stand in for it.
    let verb = if guard { "INSERT" } else { "INSERT OR REPLACE" };
    let sql = format!(
        "{verb} INTO recount_batch (flow, source_id, partition, seq, decisions) VALUES (?1, ?2, ?3, ?4, ?5)"
    );
    run(conn, "writing recount_batch", &sql, params![flow, source, partition, seq, bytes])?;
    let sql = format!("DELETE FROM recount_batch {OF_PARTITION} AND seq <= ?4");
    let has = as_integer(ledger_has_seq)?;
    run(conn, "deleting from recount_batch", &sql, params![flow, source, partition, has])?;
    let sql = format!(
        "UPDATE recount_position SET next_offset = ?4, decided_above = ?5, clean = 0, alone_offset = NULL, \
         alone_epoch = NULL, alone_stops = 0 {OF_PARTITION}"
    );
    let next = as_integer(record.next_offset)?;
    let above = record.decided_above.to_string();
    run(conn, "writing recount_position", &sql, params![flow, source, partition, next, above]).map(drop)
}

/// Inside a transaction: this event is about to be alone under way.
pub(crate) fn mark_alone(
    conn: &Connection,
    at: &PartitionId,
    claim: Claim,
    offset: u64,
) -> Result<u32, EffectFault> {
    would_claim(conn, at, claim)?;
    let offset = as_integer(offset)?;
    let before = row(conn, at)?.map_or(0, |row| row.stops_of(offset));
    let sql = format!(
        "UPDATE recount_position SET alone_offset = ?4, alone_epoch = epoch, alone_stops = ?5 {OF_PARTITION}"
    );
    let [flow, source, partition] = of(at);
    run(conn, "marking an event alone", &sql, params![flow, source, partition, offset, before])?;
    Ok(u32::try_from(before).unwrap_or(u32::MAX))
}

/// The attempt ended without a commit: the process was not killed by it.
pub(crate) fn unmark_alone(conn: &Connection, at: &PartitionId, epoch: u64) -> Result<(), EffectFault> {
    let sql = format!("UPDATE recount_position SET alone_epoch = NULL {OF_PARTITION} AND epoch = ?4");
    let [flow, source, partition] = of(at);
    let epoch = as_integer(epoch)?;
    run(conn, "unmarking an event", &sql, params![flow, source, partition, epoch]).map(drop)
}

pub(crate) fn stored_batches(
    conn: &Connection,
    at: &PartitionId,
    above_seq: u64,
) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
    let sql = format!("SELECT seq, decisions FROM recount_batch {OF_PARTITION} AND seq > ?4 ORDER BY seq");
    let [flow, source, partition] = of(at);
    let above = i64::try_from(above_seq).unwrap_or(i64::MAX);
    let read = || -> rusqlite::Result<Vec<(i64, Vec<u8>)>> {
        conn.prepare_cached(&sql)?
            .query_map(params![flow, source, partition, above], |r| Ok((r.get(0)?, r.get(1)?)))?
            .collect()
    };
    let stored = read().map_err(|e| fault("reading recount_batch", &e))?;
    Ok(stored.into_iter().map(|(seq, bytes)| (seq.unsigned_abs(), bytes)).collect())
}

/// Inside a transaction: a new epoch at this seq and prefix; batches beyond it belong to a history that is
/// given up.
pub(crate) fn reset(
    conn: &Connection,
    at: &PartitionId,
    ledger: &LedgerId,
    seq: u64,
    next_offset: u64,
    decided_above: &OffsetSet,
) -> Result<(), EffectFault> {
    if row(conn, at)?.is_none() {
        insert(conn, at, ledger, 0)?;
    }
    let [flow, source, partition] = of(at);
    let (seq, next, above) = (as_integer(seq)?, as_integer(next_offset)?, decided_above.to_string());
    let sql = format!(
        "UPDATE recount_position SET epoch = epoch + 1, seq = ?4, next_offset = ?5, decided_above = ?6, \
         ledger_id = ?7, clean = 1, alone_offset = NULL, alone_epoch = NULL, alone_stops = 0 {OF_PARTITION}"
    );
    run(conn, "resetting the position", &sql, params![flow, source, partition, seq, next, above, ledger.0])?;
    let sql = format!("DELETE FROM recount_batch {OF_PARTITION} AND seq > ?4");
    run(conn, "resetting the position", &sql, params![flow, source, partition, seq]).map(drop)
}

/// Inside a transaction: a clean drain. The ledger has every batch then, so none is left behind here: what
/// is forgotten in the ledger would stand in the last one.
pub(crate) fn release(conn: &Connection, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
    let (epoch, seq) = (as_integer(claim.epoch)?, as_integer(claim.expected_seq)?);
    let sql = format!(
        "UPDATE recount_position SET clean = 1, alone_offset = NULL, alone_epoch = NULL, alone_stops = 0 \
         {OF_PARTITION} AND epoch = ?4 AND seq = ?5"
    );
    let [flow, source, partition] = of(at);
    if run(conn, "releasing the partition", &sql, params![flow, source, partition, epoch, seq])? != 1 {
        return Err(EffectFault::NotMine);
    }
    let sql = format!("DELETE FROM recount_batch {OF_PARTITION} AND seq <= ?4");
    run(conn, "deleting from recount_batch", &sql, params![flow, source, partition, seq]).map(drop)
}
