//! Writing batches into the open segment, and what must hold of them.

use crate::codec;
use crate::filter;
use crate::identity::IdentityHasher;
use crate::rows;
use crate::store::{EncodedBatch, LedgerError, Mark, Run};
use recount_model::{BatchRecord, Decision, Fate, Gap, Timestamp};
use rusqlite::{Connection, params};

/// SQLite's integers are signed.
const OFFSET_MAX: u64 = i64::MAX as u64;

/// What must hold of a batch before it is written.
///
/// The seq follows the mark's. A gap in seq is taken only from a batch that itself declares `unrecorded`
/// positions: that is how an operator adopts a database whose ledger is lost. Offsets with a decision or a
/// gap are decided afterwards, decisions that correct nothing are of offsets that were undecided before, and
/// corrections of ones that were decided.
pub(crate) fn check(record: &BatchRecord, mark: Option<&Mark>) -> Result<(), LedgerError> {
    let wrong = |what: String| {
        Err(LedgerError::Corrupt(format!("batch {} of {} is refused: {what}", record.seq, record.at)))
    };
    let none = Mark { seq: 0, next_offset: 0, decided_above: Default::default() };
    let mark = mark.unwrap_or(&none);
    let adopts = record.gaps.iter().any(Gap::is_adopted);
    if record.seq != mark.seq + 1 && !(adopts && record.seq > mark.seq) {
        return wrong(format!("the ledger's last is {}, so {} would leave a gap", mark.seq, record.seq));
    }
    if record.next_offset < mark.next_offset || record.next_offset > OFFSET_MAX {
        return wrong(format!("its prefix goes from {} to {}", mark.next_offset, record.next_offset));
    }
    let after = |offset: u64| offset < record.next_offset || record.decided_above.contains(offset);
    let before = |offset: u64| offset < mark.next_offset || mark.decided_above.contains(offset);
    for decision in &record.decisions {
        let offset = decision.offset;
        if offset >= OFFSET_MAX || !after(offset) {
            return wrong(format!("offset {offset} is decided, and not among those it calls decided"));
        }
        match &decision.corrects {
            None if before(offset) => return wrong(format!("offset {offset} was decided before")),
            Some(_) if !before(offset) => {
                return wrong(format!("offset {offset} was not decided, to correct"));
            }
            Some(corrects) if corrects.seq >= record.seq => {
                return wrong(format!(
                    "offset {offset} corrects batch {}, which is not earlier",
                    corrects.seq
                ));
            }
            _ => {}
        }
    }
    if let Some(offset) = decided_twice(&record.decisions) {
        return wrong(format!("offset {offset} is decided twice in it"));
    }
    for gap in &record.gaps {
        if gap.from >= gap.to || gap.to > OFFSET_MAX || !after(gap.from) || !after(gap.to - 1) {
            return wrong(format!("the gap {}..{} is not among what it calls decided", gap.from, gap.to));
        }
    }
    Ok(())
}

fn decided_twice(decisions: &[Decision]) -> Option<u64> {
    if decisions.is_sorted_by(|a, b| a.offset < b.offset) {
        return None;
    }
    let mut offsets: Vec<u64> = decisions.iter().map(|d| d.offset).collect();
    offsets.sort_unstable();
    offsets.windows(2).find(|pair| pair[0] == pair[1]).map(|pair| pair[0])
}

/// Neighbouring decisions with the same fate, and the identity sum of each run.
pub(crate) fn runs(decisions: &[Decision], identity: &mut IdentityHasher) -> Vec<(Run, u128)> {
    let mut runs: Vec<(Run, u128)> = Vec::new();
    for decision in decisions {
        let hash = identity.hash(decision.offset, decision.event_id.as_deref());
        if let Some((run, sum)) = runs.last_mut()
            && goes_on(run, decision)
        {
            run.to += 1;
            *sum = sum.wrapping_add(hash);
            continue;
        }
        let run = Run {
            from: decision.offset,
            to: decision.offset + 1,
            fate: without_sentence(&decision.fate),
            flags: decision.flags.clone(),
            received: decision.received,
            correction: decision.corrects.is_some(),
        };
        runs.push((run, hash));
    }
    runs
}

fn goes_on(run: &Run, decision: &Decision) -> bool {
    run.to == decision.offset
        && run.received == decision.received
        && run.correction == decision.corrects.is_some()
        && run.fate.word() == decision.fate.word()
        && run.fate.reason().map(|r| &r.code) == decision.fate.reason().map(|r| &r.code)
        && run.flags == decision.flags
}

fn without_sentence(fate: &Fate) -> Fate {
    let mut fate = fate.clone();
    if let Fate::Skipped(reason) | Fate::DeadLettered(reason) = &mut fate {
        reason.sentence = String::new();
    }
    fate
}

/// Whether a decision has a row of its own in `decision`.
pub(crate) fn has_row(decision: &Decision) -> bool {
    decision.fate != Fate::Applied || decision.corrects.is_some()
}

/// Where a batch is written to.
pub(crate) struct Place<'a> {
    pub(crate) partition_no: i64,
    pub(crate) ordinal: u64,
    pub(crate) persisted_at: Timestamp,
    pub(crate) identity: &'a mut IdentityHasher,
}

/// Why a batch was not written.
pub(crate) enum PutFailure {
    Sqlite(rusqlite::Error),
    Ledger(LedgerError),
}

impl PutFailure {
    /// What it means of this file.
    pub(crate) fn of(self, file: &str) -> LedgerError {
        match self {
            Self::Sqlite(error) => crate::opener::failed(file)(error),
            Self::Ledger(error) => error,
        }
    }
}

impl From<rusqlite::Error> for PutFailure {
    fn from(error: rusqlite::Error) -> Self {
        Self::Sqlite(error)
    }
}

impl From<LedgerError> for PutFailure {
    fn from(error: LedgerError) -> Self {
        Self::Ledger(error)
    }
}

/// Writes one batch; the caller has begun a transaction, and commits.
pub(crate) fn put(connection: &Connection, batch: &EncodedBatch, place: Place<'_>) -> Result<(), PutFailure> {
    let record = &*batch.record;
    let ordinal = place.ordinal as i64;
    put_partition(connection, place.partition_no, record)?;
    let block = codec::without_bodies(&batch.bytes)
        .map_err(|error| LedgerError::Corrupt(format!("batch {} of {}: {error}", record.seq, record.at)))?;
    let runs = runs(&record.decisions, place.identity);
    let identity = runs.iter().fold(0_u128, |sum, (_, part)| sum.wrapping_add(*part));
    let mut decision_rows = 0_u64;
    for (nth, decision) in record.decisions.iter().enumerate().filter(|(_, d)| has_row(d)) {
        rows::put_decision(connection, place.ordinal, nth as u64, decision)?;
        decision_rows += 1;
        if let Some(corrects) = &decision.corrects {
            connection.prepare_cached("INSERT INTO correction VALUES (?1,?2,?3,?4)")?.execute(params![
                place.partition_no,
                decision.offset as i64,
                record.seq as i64,
                corrects.replay_id as i64
            ])?;
        }
    }
    put_batch_row(connection, record, &place, decision_rows, identity)?;
    for (nth, (run, sum)) in runs.iter().enumerate() {
        put_run(connection, ordinal, nth, run, *sum)?;
    }
    for (nth, gap) in record.gaps.iter().enumerate() {
        connection.prepare_cached("INSERT INTO gap VALUES (?1,?2,?3,?4,?5,?6)")?.execute(params![
            ordinal,
            nth as i64,
            gap.from as i64,
            gap.to as i64,
            rows::gap_kind_number(gap.kind),
            gap.cause
        ])?;
    }
    for body in &record.bodies {
        rows::put_body(connection, place.partition_no, body)?;
    }
    connection.prepare_cached("INSERT INTO block VALUES (?1,?2)")?.execute(params![ordinal, block])?;
    put_filters(connection, "main", ordinal, record.decisions.iter())?;
    Ok(())
}

fn put_partition(connection: &Connection, partition_no: i64, record: &BatchRecord) -> rusqlite::Result<()> {
    let at = &record.at;
    connection.prepare_cached("INSERT OR IGNORE INTO partition VALUES (?1,?2,?3,?4)")?.execute(params![
        partition_no,
        at.flow.as_str(),
        at.source.as_str(),
        at.partition.as_str()
    ])?;
    Ok(())
}

fn put_batch_row(
    connection: &Connection,
    record: &BatchRecord,
    place: &Place<'_>,
    decision_rows: u64,
    identity: u128,
) -> rusqlite::Result<()> {
    let offsets = || record.decisions.iter().map(|d| d.offset);
    let sql = "INSERT INTO batch VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,0,?16)";
    connection.prepare_cached(sql)?.execute(params![
        place.ordinal as i64,
        place.partition_no,
        record.epoch as i64,
        record.seq as i64,
        record.config.0,
        record.taken_at.0,
        record.decided_at.0,
        place.persisted_at.0,
        record.next_offset as i64,
        record.decided_above.to_string(),
        offsets().min().unwrap_or(record.next_offset) as i64,
        offsets().max().map_or(record.next_offset, |last| last + 1) as i64,
        record.decisions.len() as i64,
        decision_rows as i64,
        record.gaps.len() as i64,
        &identity.to_le_bytes()[..]
    ])?;
    Ok(())
}

fn put_run(connection: &Connection, ordinal: i64, nth: usize, run: &Run, sum: u128) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT INTO run VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10)")?.execute(
        params![
            ordinal,
            nth as i64,
            run.from as i64,
            run.to as i64,
            rows::verdict_number(&run.fate),
            run.fate.reason().map(|r| r.code.as_str()),
            rows::flags_text(&run.flags),
            run.received,
            run.correction,
            &sum.to_le_bytes()[..]
        ],
    )?;
    Ok(())
}

/// Writes the filters of a block into the database of this name (`main`, or one attached).
pub(crate) fn put_filters<'d>(
    connection: &Connection,
    database: &str,
    block_no: i64,
    decisions: impl Iterator<Item = &'d Decision> + Clone,
) -> rusqlite::Result<()> {
    let keys = decisions.clone().filter_map(|d| d.key.as_deref()).map(filter::text_hash).collect();
    let ids = decisions.filter_map(|d| d.event_id.as_deref()).map(filter::text_hash).collect();
    let put = |table: &str, bits: Vec<u8>| {
        let sql = format!("INSERT OR REPLACE INTO {database}.{table} VALUES (?1,?2)");
        connection.prepare_cached(&sql)?.execute(params![block_no, bits])
    };
    put("block_keys", filter::build(keys))?;
    put("block_ids", filter::build(ids))?;
    Ok(())
}
