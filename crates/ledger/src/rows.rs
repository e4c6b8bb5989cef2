//! Between records and rows: how a batch's header, a decision, a body stand in columns.

use crate::opener::failed;
use crate::store::{BatchHeader, LedgerError, Run};
use recount_model::batch::Attempt;
use recount_model::decision::Measure;
use recount_model::{
    Amount, ConfigVersion, Corrects, Decision, Fate, GapKind, Header, KeptBody, OffsetSet, Origin,
    PartitionId, PayloadHash, Reason, ReasonCode, Timestamp,
};
use rusqlite::{Connection, Row, params};
use serde_json::{Value, json};

/// Columns of a batch in the order that [`BatchRow::read`] takes them.
pub(crate) const BATCH_COLUMNS: &str = "ordinal, partition_no, epoch, seq, config, taken_at, decided_at, \
     persisted_at, next_offset, decided_above, decisions, decision_rows, gaps, forgotten, identity, offset_from, \
     offset_to";

/// Columns of a decision in the order that [`decision`] takes them.
pub(crate) const DECISION_COLUMNS: &str = "ordinal, place, offset, event_id, key, payload_hash, verdict, reason, \
     sentence, flags, attempt, event_time, origin, received, corrects_seq, replay_id, evidence, measures";

/// A row of `batch`.
#[derive(Debug, Clone)]
pub(crate) struct BatchRow {
    pub(crate) header: BatchHeader,
    pub(crate) partition_no: i64,
    pub(crate) decisions: u64,
    pub(crate) decision_rows: u64,
    pub(crate) gaps: u64,
    pub(crate) forgotten: u64,
    pub(crate) identity: u128,
    pub(crate) offset_from: u64,
    pub(crate) offset_to: u64,
}

fn corrupt(what: &str) -> LedgerError {
    LedgerError::Corrupt(what.to_owned())
}

pub(crate) fn verdict_number(fate: &Fate) -> i64 {
    match fate {
        Fate::Applied => 0,
        Fate::Skipped(_) => 1,
        Fate::DeadLettered(_) => 2,
    }
}

pub(crate) fn fate(verdict: i64, reason: Option<String>, sentence: String) -> Result<Fate, LedgerError> {
    let reason = || {
        let code = ReasonCode::new(reason.as_deref().unwrap_or("")).map_err(|e| corrupt(&e.to_string()))?;
        Ok(Reason { code, sentence })
    };
    match verdict {
        0 => Ok(Fate::Applied),
        1 => reason().map(Fate::Skipped),
        2 => reason().map(Fate::DeadLettered),
        _ => Err(corrupt("a verdict is none of 0, 1, 2")),
    }
}

pub(crate) fn gap_kind_number(kind: GapKind) -> i64 {
    match kind {
        GapKind::Lost => 0,
        GapKind::NotAnEvent => 1,
        GapKind::Unrecorded => 2,
    }
}

pub(crate) fn gap_kind(number: i64) -> Result<GapKind, LedgerError> {
    match number {
        0 => Ok(GapKind::Lost),
        1 => Ok(GapKind::NotAnEvent),
        2 => Ok(GapKind::Unrecorded),
        _ => Err(corrupt("a gap's kind is none of 0, 1, 2")),
    }
}

pub(crate) fn flags_text(flags: &[ReasonCode]) -> Option<String> {
    if flags.is_empty() {
        return None;
    }
    Some(flags.iter().map(ReasonCode::as_str).collect::<Vec<_>>().join(","))
}

pub(crate) fn flags(text: Option<&str>) -> Result<Vec<ReasonCode>, LedgerError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    text.split(',').map(|code| ReasonCode::new(code).map_err(|e| corrupt(&e.to_string()))).collect()
}

pub(crate) fn sum(bytes: &[u8]) -> Result<u128, LedgerError> {
    let sixteen = bytes.try_into().map_err(|_| corrupt("an identity sum does not have 16 bytes"))?;
    Ok(u128::from_le_bytes(sixteen))
}

pub(crate) fn offset_set(text: &str) -> Result<OffsetSet, LedgerError> {
    OffsetSet::parse(text).ok_or_else(|| corrupt("a set of offsets can't be read"))
}

impl BatchRow {
    /// Reads [`BATCH_COLUMNS`]. `at` names a partition's number.
    pub(crate) fn read<'p>(
        file: &str,
        row: &Row<'_>,
        at: impl Fn(i64) -> Option<&'p PartitionId>,
    ) -> Result<Self, LedgerError> {
        let number = |column: usize| row.get::<_, i64>(column).map_err(failed(file));
        let text = |column: usize| row.get_ref(column).and_then(|v| v.as_str().map_err(Into::into));
        let blob = |column: usize| row.get_ref(column).and_then(|v| v.as_blob().map_err(Into::into));
        let partition_no = number(1)?;
        let ordinal = number(0)? as u64;
        let at = at(partition_no).ok_or_else(|| {
            LedgerError::Corrupt(format!(
                "{file}: batch {ordinal} is of partition {partition_no}, which is unknown"
            ))
        })?;
        let config = u32::try_from(number(4)?).map_err(|_| corrupt("a config version is too large"))?;
        Ok(Self {
            header: BatchHeader {
                at: at.clone(),
                epoch: number(2)? as u64,
                seq: number(3)? as u64,
                ordinal,
                config: ConfigVersion(config),
                taken_at: Timestamp(number(5)?),
                decided_at: Timestamp(number(6)?),
                persisted_at: Timestamp(number(7)?),
                next_offset: number(8)? as u64,
                decided_above: offset_set(text(9).map_err(failed(file))?)?,
            },
            partition_no,
            decisions: number(10)? as u64,
            decision_rows: number(11)? as u64,
            gaps: number(12)? as u64,
            forgotten: number(13)? as u64,
            identity: sum(blob(14).map_err(failed(file))?)?,
            offset_from: number(15)? as u64,
            offset_to: number(16)? as u64,
        })
    }
}

/// Reads a run from `offset_from, offset_to, verdict, reason, flags, received, correction` at `first`.
pub(crate) fn run(file: &str, row: &Row<'_>, first: usize) -> Result<Run, LedgerError> {
    let number = |column: usize| row.get::<_, i64>(first + column).map_err(failed(file));
    let reason = row.get::<_, Option<String>>(first + 3).map_err(failed(file))?;
    let flag_text = row.get_ref(first + 4).and_then(|v| v.as_str_or_null().map_err(Into::into));
    Ok(Run {
        from: number(0)? as u64,
        to: number(1)? as u64,
        fate: fate(number(2)?, reason, String::new())?,
        flags: flags(flag_text.map_err(failed(file))?)?,
        received: number(5)? != 0,
        correction: number(6)? != 0,
    })
}

/// Writes one row of `decision`.
pub(crate) fn put_decision(
    connection: &Connection,
    ordinal: u64,
    place: u64,
    decision: &Decision,
) -> rusqlite::Result<()> {
    let reason = decision.fate.reason();
    connection
        .prepare_cached(
            "INSERT INTO decision VALUES (?1,?2,?3,?4,?5,?6,?7,?8,?9,?10,?11,?12,?13,?14,?15,?16,?17,?18)",
        )?
        .execute(params![
            ordinal as i64,
            place as i64,
            decision.offset as i64,
            decision.event_id.as_deref(),
            decision.key.as_deref(),
            decision.payload_hash.0 as i64,
            verdict_number(&decision.fate),
            reason.map(|r| r.code.as_str()),
            reason.map(|r| r.sentence.as_str()),
            flags_text(&decision.flags),
            decision.attempt,
            decision.event_time.map(|t| t.0),
            origin_number(decision.origin),
            decision.received,
            decision.corrects.map(|c| c.seq as i64),
            decision.corrects.map(|c| c.replay_id as i64),
            decision.evidence.as_deref(),
            measures_text(&decision.measures),
        ])?;
    Ok(())
}

/// Reads [`DECISION_COLUMNS`]: ordinal, place and the decision.
pub(crate) fn decision(file: &str, row: &Row<'_>) -> Result<(u64, u64, Decision), LedgerError> {
    let number = |column: usize| row.get::<_, i64>(column).map_err(failed(file));
    let maybe = |column: usize| row.get::<_, Option<i64>>(column).map_err(failed(file));
    let text = |column: usize| row.get::<_, Option<String>>(column).map_err(failed(file));
    let corrects = match (maybe(14)?, maybe(15)?) {
        (Some(seq), Some(replay)) => Some(Corrects { seq: seq as u64, replay_id: replay as u64 }),
        _ => None,
    };
    let decision = Decision {
        offset: number(2)? as u64,
        event_id: text(3)?.map(Into::into),
        key: text(4)?.map(Into::into),
        payload_hash: PayloadHash(number(5)? as u64),
        fate: fate(number(6)?, text(7)?, text(8)?.unwrap_or_default())?,
        flags: flags(text(9)?.as_deref())?,
        attempt: u32::try_from(number(10)?).map_err(|_| corrupt("an attempt is too large"))?,
        event_time: maybe(11)?.map(Timestamp),
        origin: origin(number(12)?)?,
        corrects,
        evidence: text(16)?.map(Into::into),
        received: number(13)? != 0,
        measures: measures(text(17)?.as_deref())?,
    };
    Ok((number(0)? as u64, number(1)? as u64, decision))
}

fn origin_number(origin: Origin) -> i64 {
    match origin {
        Origin::Ran => 0,
        Origin::Reported => 1,
        Origin::Expected => 2,
    }
}

fn origin(number: i64) -> Result<Origin, LedgerError> {
    match number {
        0 => Ok(Origin::Ran),
        1 => Ok(Origin::Reported),
        2 => Ok(Origin::Expected),
        _ => Err(corrupt("an origin is none of 0, 1, 2")),
    }
}

/// `[{"amount":"12.5","group":"a"},null]`; the amount's text is exact.
pub(crate) fn measures_json(measures: &[Option<Measure>]) -> Value {
    let one = |measure: &Option<Measure>| match measure {
        None => Value::Null,
        Some(Measure { amount, group: None }) => json!({ "amount": amount.to_string() }),
        Some(Measure { amount, group: Some(group) }) => {
            json!({ "amount": amount.to_string(), "group": group })
        }
    };
    Value::Array(measures.iter().map(one).collect())
}

fn measures_text(measures: &[Option<Measure>]) -> Option<String> {
    if measures.is_empty() { None } else { Some(measures_json(measures).to_string()) }
}

fn measures(text: Option<&str>) -> Result<Vec<Option<Measure>>, LedgerError> {
    let Some(text) = text else { return Ok(Vec::new()) };
    let wrong = || corrupt("a decision's measures can't be read");
    let values: Vec<Option<Value>> = serde_json::from_str(text).map_err(|_| wrong())?;
    let one = |value: Option<Value>| {
        let Some(value) = value else { return Ok(None) };
        let amount = value["amount"].as_str().and_then(Amount::parse).ok_or_else(wrong)?;
        Ok(Some(Measure { amount, group: value["group"].as_str().map(Into::into) }))
    };
    values.into_iter().map(one).collect()
}

/// The same measures without their groups.
pub(crate) fn without_groups(text: Option<&str>) -> Result<Option<String>, LedgerError> {
    let mut measures = measures(text)?;
    measures.iter_mut().flatten().for_each(|measure| measure.group = None);
    Ok(measures_text(&measures))
}

/// Writes or overwrites a body.
pub(crate) fn put_body(connection: &Connection, partition_no: i64, body: &KeptBody) -> rusqlite::Result<()> {
    let headers: Vec<(&str, &str)> = body.headers.iter().map(|h| (&*h.name, &*h.value)).collect();
    let attempts: Vec<Value> = (body.attempts.iter())
        .map(|a| json!({ "number": a.number, "at": a.at.0, "found": a.found }))
        .collect();
    connection.prepare_cached("INSERT OR REPLACE INTO body VALUES (?1,?2,?3,?4,?5,?6)")?.execute(params![
        partition_no,
        body.offset as i64,
        body.payload_bytes as i64,
        json!(headers).to_string(),
        Value::Array(attempts).to_string(),
        body.payload,
    ])?;
    Ok(())
}

/// The body of an offset in one file.
pub(crate) fn get_body(
    file: &str,
    connection: &Connection,
    partition_no: i64,
    offset: u64,
) -> Result<Option<KeptBody>, LedgerError> {
    let sql =
        "SELECT payload_bytes, headers, attempts, payload FROM body WHERE partition_no = ?1 AND offset = ?2";
    let mut statement = connection.prepare_cached(sql).map_err(failed(file))?;
    let mut rows = statement.query(params![partition_no, offset as i64]).map_err(failed(file))?;
    let Some(row) = rows.next().map_err(failed(file))? else { return Ok(None) };
    let wrong = |_| LedgerError::Corrupt(format!("{file}: the body at offset {offset} can't be read"));
    let text = |column: usize| row.get::<_, String>(column).map_err(failed(file));
    let headers: Vec<(String, String)> = serde_json::from_str(&text(1)?).map_err(wrong)?;
    let attempts: Vec<Value> = serde_json::from_str(&text(2)?).map_err(wrong)?;
    let attempt = |value: &Value| Attempt {
        number: value["number"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
        at: Timestamp(value["at"].as_i64().unwrap_or(0)),
        found: value["found"].as_str().unwrap_or("").to_owned(),
    };
    Ok(Some(KeptBody {
        offset,
        payload: row.get(3).map_err(failed(file))?,
        payload_bytes: row.get::<_, i64>(0).map_err(failed(file))? as u64,
        headers: headers
            .into_iter()
            .map(|(name, value)| Header { name: name.into(), value: value.into() })
            .collect(),
        attempts: attempts.iter().map(attempt).collect(),
    }))
}
