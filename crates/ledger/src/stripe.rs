//! Reading sealed segments, stripe by stripe: back into the order decided.

use crate::codec::Block;
use crate::filter;
use crate::opener::failed;
use crate::rows::BatchRow;
use crate::scan::{describe, read_batch_rows};
use crate::shelf::Partitions;
use crate::store::LedgerError;
use recount_model::Decision;
use rusqlite::{Connection, params};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// Batches whose decisions were sorted together.
pub(crate) struct Stripe {
    pub(crate) no: i64,
    pub(crate) ordinal_from: u64,
    pub(crate) ordinal_to: u64,
}

/// What is searched for in blocks: an id, a key, or both.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Texts<'a> {
    pub(crate) id: Option<&'a str>,
    pub(crate) key: Option<&'a str>,
}

impl Texts<'_> {
    pub(crate) fn any(&self) -> bool {
        self.id.is_some() || self.key.is_some()
    }

    /// Whether the decision at this index of a block has them.
    pub(crate) fn fit(&self, block: &Block, index: usize) -> bool {
        self.id.is_none_or(|id| block.id(index) == Some(id))
            && self.key.is_none_or(|key| block.key(index) == Some(key))
    }

    /// Whether the filters of a block let it be the one.
    pub(crate) fn may_be_in(
        &self,
        file: &str,
        connection: &Connection,
        block_no: i64,
    ) -> Result<bool, LedgerError> {
        let asks = [("block_keys", self.key), ("block_ids", self.id)];
        for (table, text) in asks.into_iter().filter_map(|(table, text)| Some((table, text?))) {
            let sql = match table {
                "block_keys" => "SELECT bits FROM block_keys WHERE block_no = ?1",
                _ => "SELECT bits FROM block_ids WHERE block_no = ?1",
            };
            let hash = filter::text_hash(text);
            let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
            let mut rows = statement.query(params![block_no]).map_err(failed(file))?;
            let Some(row) = rows.next().map_err(failed(file))? else {
                return Err(LedgerError::Corrupt(format!("{file}: block {block_no} has no filter")));
            };
            let bits = row.get_ref(0).map_err(failed(file))?;
            let bits =
                bits.as_blob().map_err(|_| LedgerError::Corrupt(format!("{file}: a filter is no blob")))?;
            if !filter::may_hold(bits, hash) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

/// All stripes of a sealed segment, in the order decided.
pub(crate) fn stripes(file: &str, connection: &Connection) -> Result<Vec<Stripe>, LedgerError> {
    let sql = "SELECT stripe_no, ordinal_from, ordinal_to FROM stripe ORDER BY stripe_no";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let rows = statement.query_map([], |row| {
        let (from, to) = (row.get::<_, i64>(1)?, row.get::<_, i64>(2)?);
        Ok(Stripe { no: row.get(0)?, ordinal_from: from as u64, ordinal_to: to as u64 })
    });
    rows.and_then(|rows| rows.collect()).map_err(failed(file))
}

/// The batches of a stripe, each with the rank of its first decision within its partition.
pub(crate) struct StripeBatches {
    by_partition: BTreeMap<i64, Vec<(u64, BatchRow)>>,
}

impl StripeBatches {
    pub(crate) fn read(
        file: &str,
        connection: &Connection,
        partitions: &Partitions,
        stripe: &Stripe,
    ) -> Result<Self, LedgerError> {
        let mut by_partition: BTreeMap<i64, Vec<(u64, BatchRow)>> = BTreeMap::new();
        let mut ranks: BTreeMap<i64, u64> = BTreeMap::new();
        read_batch_rows(file, connection, partitions, stripe.ordinal_from, &mut |row| {
            if row.header.ordinal >= stripe.ordinal_to {
                return ControlFlow::Break(());
            }
            let rank = ranks.entry(row.partition_no).or_default();
            let first = *rank;
            *rank += row.decisions;
            by_partition.entry(row.partition_no).or_default().push((first, row));
            ControlFlow::Continue(())
        })?;
        Ok(Self { by_partition })
    }

    /// The batch that the decision of this rank belongs to, and its place in it.
    fn at_rank(&self, partition_no: i64, rank: u64) -> Option<(&BatchRow, u64)> {
        let batches = self.by_partition.get(&partition_no)?;
        let next = batches.partition_point(|(first, _)| *first <= rank);
        // Batches without decisions share their first rank with the one behind them, which comes last.
        let (first, row) = batches.get(next.checked_sub(1)?)?;
        (rank - first < row.decisions).then_some((row, rank - first))
    }

    /// Batches for which `wanted` holds, by their ordinals.
    pub(crate) fn all(&self) -> impl Iterator<Item = &BatchRow> {
        self.by_partition.values().flatten().map(|(_, row)| row)
    }

    pub(crate) fn partitions(&self) -> impl Iterator<Item = i64> {
        self.by_partition.keys().copied()
    }
}

/// A decision with its place in the order decided.
pub(crate) struct Placed {
    pub(crate) ordinal: u64,
    pub(crate) place: u64,
    pub(crate) decision: Decision,
}

/// The decisions of one partition and stripe that have the texts and whose batch is wanted, in no order.
/// Where everything is asked for, it is checked that everything is there.
pub(crate) fn read_stripe(
    (file, connection): (&str, &Connection),
    (stripe, batches): (&Stripe, &StripeBatches),
    partition_no: i64,
    texts: Texts<'_>,
    wanted: &dyn Fn(&BatchRow) -> bool,
) -> Result<Vec<Placed>, LedgerError> {
    let mut found = Vec::new();
    let mut seen = 0_u64;
    for block_no in block_numbers(file, connection, stripe, partition_no, texts.key)? {
        if texts.any() && !texts.may_be_in(file, connection, block_no)? {
            continue;
        }
        let block = sealed_block(file, connection, block_no)?;
        seen += block.len() as u64;
        let hits: Vec<usize> = (0..block.len()).filter(|index| texts.fit(&block, *index)).collect();
        if hits.is_empty() {
            continue;
        }
        let damaged =
            |e: crate::codec::CodecError| LedgerError::Corrupt(format!("{file}: block {block_no}: {e}"));
        let rows = block.rows().map_err(damaged)?;
        for index in hits {
            let Some((row, place)) = batches.at_rank(partition_no, block.rank(index)) else {
                return Err(LedgerError::Corrupt(format!(
                    "{file}: block {block_no} has a decision of no batch"
                )));
            };
            if wanted(row) {
                found.push(Placed { ordinal: row.header.ordinal, place, decision: rows.decision(index) });
            }
        }
    }
    let expected: u64 =
        batches.by_partition.get(&partition_no).map_or(0, |rows| rows.iter().map(|(_, r)| r.decisions).sum());
    if !texts.any() && seen != expected {
        let first = batches.by_partition.get(&partition_no).and_then(|rows| rows.first());
        let at = first.map_or_else(String::new, |(_, row)| describe(row));
        return Err(LedgerError::Corrupt(format!(
            "{file}: stripe {} holds {seen} decisions and not {expected}, from {at} on",
            stripe.no
        )));
    }
    Ok(found)
}

fn block_numbers(
    file: &str,
    connection: &Connection,
    stripe: &Stripe,
    partition_no: i64,
    key: Option<&str>,
) -> Result<Vec<i64>, LedgerError> {
    let sql = "SELECT block_no FROM block_range WHERE stripe_no = ?1 AND partition_no = ?2 \
               AND (?3 IS NULL OR (key_first <= ?3 AND key_last >= ?3)) ORDER BY block_no";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let rows = statement.query_map(params![stripe.no, partition_no, key], |row| row.get(0));
    rows.and_then(|rows| rows.collect()).map_err(failed(file))
}

/// A block of a sealed segment.
pub(crate) fn sealed_block(file: &str, connection: &Connection, block_no: i64) -> Result<Block, LedgerError> {
    let mut statement =
        connection.prepare_cached("SELECT packed FROM block WHERE block_no = ?1").map_err(failed(file))?;
    let missing = |error| match error {
        rusqlite::Error::QueryReturnedNoRows => {
            LedgerError::Corrupt(format!("{file}: block {block_no} is missing"))
        }
        other => failed(file)(other),
    };
    let packed: Vec<u8> = statement.query_row(params![block_no], |row| row.get(0)).map_err(missing)?;
    Block::open(&packed).map_err(|error| {
        let sql = "SELECT flow || '/' || partition, min(offset_from), max(offset_to) FROM block_range \
                   JOIN stripe USING (stripe_no) JOIN partition USING (partition_no) JOIN batch \
                   ON batch.partition_no = block_range.partition_no AND ordinal >= ordinal_from \
                   AND ordinal < ordinal_to WHERE block_no = ?1";
        let range = connection.query_row(sql, params![block_no], |row| {
            Ok((row.get::<_, String>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        let of = range.map_or_else(
            |_| String::new(),
            |(at, from, to)| format!(" of {at}, with offsets among {from}..{to}"),
        );
        LedgerError::Corrupt(format!("{file}: block {block_no}{of}: {error}"))
    })
}
