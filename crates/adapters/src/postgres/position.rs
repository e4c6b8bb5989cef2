//! The arbiter's rows: who owns a partition, how far it is, what the ledger has yet to get.

use super::faults::fault;
use crate::sql::{PositionRow, first_taken};
use recount_engine::{Claim, EffectFault, Taken};
use recount_ledger::LedgerId;
use recount_model::{OffsetSet, PartitionId};
use tokio_postgres::{Client, Row};

const OF_PARTITION: &str = "WHERE flow = $1 AND source_id = $2 AND partition = $3";

/// The claim: a batch's first statement.
pub(crate) const CLAIM: &str = "UPDATE recount_position SET seq = seq + 1 \
     WHERE flow = $1 AND source_id = $2 AND partition = $3 AND epoch = $4 AND seq = $5";
/// One row an applied event.
pub(crate) const EFFECTS: &str = "INSERT INTO recount_effect (flow, source_id, partition, \"offset\", event_id) \
     SELECT $1, $2, $3, * FROM unnest($4::int8[], $5::text[])";
/// The batch's bytes.
pub(crate) const BATCH: &str = "INSERT INTO recount_batch (flow, source_id, partition, seq, decisions) \
     VALUES ($1, $2, $3, $4, $5)";
/// What the ledger has.
pub(crate) const ENTERED: &str =
    "DELETE FROM recount_batch WHERE flow = $1 AND source_id = $2 AND partition = $3 AND seq <= $4";
/// The prefix.
pub(crate) const PREFIX: &str = "UPDATE recount_position SET next_offset = $4, decided_above = $5, clean = false, \
     alone_offset = NULL, alone_epoch = NULL, alone_stops = 0 WHERE flow = $1 AND source_id = $2 AND partition = $3";

fn read(row: &Row) -> PositionRow {
    let offset: Option<i64> = row.get(6);
    PositionRow {
        epoch: row.get(0),
        seq: row.get(1),
        next_offset: row.get(2),
        decided_above: row.get(3),
        ledger_id: row.get(4),
        clean: row.get(5),
        alone: offset.map(|offset| (offset, row.get(7), row.get(8))),
    }
}

/// An offset, seq or epoch as PostgreSQL holds it.
///
/// # Errors
/// `Away` beyond 2⁶³, which no source gives.
pub(crate) fn integer(number: u64) -> Result<i64, EffectFault> {
    i64::try_from(number)
        .map_err(|_| EffectFault::Away(format!("{number} is beyond what PostgreSQL holds as a bigint")))
}

fn columns(lock: &str) -> String {
    format!(
        "SELECT epoch, seq, next_offset, decided_above, ledger_id, clean, alone_offset, alone_epoch, alone_stops \
         FROM recount_position {OF_PARTITION}{lock}"
    )
}

/// Reads the row.
pub(crate) async fn peek(client: &Client, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let row = client.query_opt(&columns(""), &[&of.0, &of.1, &of.2]).await;
    let row = row.map_err(|error| fault("reading recount_position", &error))?;
    row.map(|row| read(&row)).map(|row| row.taken(at, row.epoch)).transpose()
}

async fn locked(client: &Client, at: &PartitionId) -> Result<Option<PositionRow>, EffectFault> {
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let row = client.query_opt(&columns(" FOR UPDATE"), &[&of.0, &of.1, &of.2]).await;
    Ok(row.map_err(|error| fault("reading recount_position", &error))?.map(|row| read(&row)))
}

async fn insert(client: &Client, at: &PartitionId, ledger: &LedgerId, epoch: i64) -> Result<(), EffectFault> {
    let sql = "INSERT INTO recount_position (flow, source_id, partition, epoch, seq, next_offset, decided_above, \
               ledger_id, clean, alone_stops) VALUES ($1, $2, $3, $4, 0, 0, '', $5, false, 0)";
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let done = client.execute(sql, &[&of.0, &of.1, &of.2, &epoch, &ledger.0]).await;
    done.map(drop).map_err(|error| match error.code().map(tokio_postgres::error::SqlState::code) {
        // Another process made the row just now: it is there the next time.
        Some("23505") => EffectFault::Again(format!("{at}: another process takes it for the first time too")),
        _ => fault("taking the partition", &error),
    })
}

/// The next epoch is ours.
pub(crate) async fn take(client: &Client, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
    let Some(row) = locked(client, at).await? else {
        insert(client, at, ledger, 1).await?;
        return Ok(first_taken());
    };
    row.refuse_foreign(at, ledger)?;
    let taken = row.taken(at, row.epoch + 1)?;
    let (offset, stops) = row.alone_after_stop().unzip();
    let sql = format!(
        "UPDATE recount_position SET epoch = epoch + 1, clean = false, alone_offset = $4, alone_epoch = NULL, \
         alone_stops = $5 {OF_PARTITION}"
    );
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &offset, &stops.unwrap_or(0)]).await;
    done.map_err(|error| fault("taking the partition", &error))?;
    Ok(taken)
}

/// This event is about to be alone under way.
pub(crate) async fn mark_alone(
    client: &Client,
    at: &PartitionId,
    claim: Claim,
    offset: u64,
) -> Result<u32, EffectFault> {
    let (epoch, seq) = (integer(claim.epoch)?, integer(claim.expected_seq)?);
    let row = locked(client, at).await?.filter(|row| row.epoch == epoch && row.seq == seq);
    let row = row.ok_or(EffectFault::NotMine)?;
    let offset = integer(offset)?;
    let before = row.stops_of(offset);
    let sql = format!(
        "UPDATE recount_position SET alone_offset = $4, alone_epoch = epoch, alone_stops = $5 {OF_PARTITION}"
    );
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &offset, &before]).await;
    done.map_err(|error| fault("marking an event alone", &error))?;
    Ok(u32::try_from(before).unwrap_or(u32::MAX))
}

/// The attempt ended without a commit: the process was not killed by it.
pub(crate) async fn unmark_alone(client: &Client, at: &PartitionId, epoch: u64) -> Result<(), EffectFault> {
    let sql = format!("UPDATE recount_position SET alone_epoch = NULL {OF_PARTITION} AND epoch = $4");
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &integer(epoch)?]).await;
    done.map(drop).map_err(|error| fault("unmarking an event", &error))
}

pub(crate) async fn stored_batches(
    client: &Client,
    at: &PartitionId,
    above_seq: u64,
) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
    let sql = format!("SELECT seq, decisions FROM recount_batch {OF_PARTITION} AND seq > $4 ORDER BY seq");
    let above = i64::try_from(above_seq).unwrap_or(i64::MAX);
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let rows = client.query(&sql, &[&of.0, &of.1, &of.2, &above]).await;
    let rows = rows.map_err(|error| fault("reading recount_batch", &error))?;
    Ok(rows.iter().map(|row| (row.get::<_, i64>(0).unsigned_abs(), row.get(1))).collect())
}

/// A new epoch at this seq and prefix; batches beyond it belong to a history that is given up.
pub(crate) async fn reset(
    client: &Client,
    at: &PartitionId,
    ledger: &LedgerId,
    seq: u64,
    next_offset: u64,
    decided_above: &OffsetSet,
) -> Result<(), EffectFault> {
    if locked(client, at).await?.is_none() {
        insert(client, at, ledger, 0).await?;
    }
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let (seq, next, above) = (integer(seq)?, integer(next_offset)?, decided_above.to_string());
    let sql = format!(
        "UPDATE recount_position SET epoch = epoch + 1, seq = $4, next_offset = $5, decided_above = $6, ledger_id = \
         $7, clean = true, alone_offset = NULL, alone_epoch = NULL, alone_stops = 0 {OF_PARTITION}"
    );
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &seq, &next, &above, &ledger.0]).await;
    done.map_err(|error| fault("resetting the position", &error))?;
    let sql = format!("DELETE FROM recount_batch {OF_PARTITION} AND seq > $4");
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &seq]).await;
    done.map(drop).map_err(|error| fault("resetting the position", &error))
}

/// A clean drain. The ledger has every batch then, so none is left behind here.
pub(crate) async fn release(client: &Client, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
    let (epoch, seq) = (integer(claim.epoch)?, integer(claim.expected_seq)?);
    let sql = format!(
        "UPDATE recount_position SET clean = true, alone_offset = NULL, alone_epoch = NULL, alone_stops = 0 \
         {OF_PARTITION} AND epoch = $4 AND seq = $5"
    );
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let done = client.execute(&sql, &[&of.0, &of.1, &of.2, &epoch, &seq]).await;
    if done.map_err(|error| fault("releasing the partition", &error))? != 1 {
        return Err(EffectFault::NotMine);
    }
    let done = client.execute(ENTERED, &[&of.0, &of.1, &of.2, &seq]).await;
    done.map(drop).map_err(|error| fault("deleting from recount_batch", &error))
}
