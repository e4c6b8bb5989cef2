//! `recount_replay` and `recount_effect`: what was decided anew, and what was applied.

use super::faults::{as_integer, fault};
use crate::sql::replayed_as;
use recount_engine::effect::Replay;
use recount_engine::{EffectEvent, EffectFault, Outcome};
use recount_model::{PartitionId, Verdict};
use rusqlite::{Connection, params};

/// Whether a replay of this event in place of that decision was committed before, or earlier in the batch.
pub(crate) fn done_before(
    conn: &Connection,
    at: &PartitionId,
    event: &EffectEvent,
    replay: Replay,
) -> Result<bool, EffectFault> {
    let sql = "SELECT 1 FROM recount_replay WHERE flow = ?1 AND source_id = ?2 AND partition = ?3 \
               AND \"offset\" = ?4 AND corrects = ?5";
    let (offset, corrects) = (as_integer(event.event.meta.offset)?, as_integer(replay.corrects_seq)?);
    let at = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let find = || conn.prepare_cached(sql)?.exists(params![at.0, at.1, at.2, offset, corrects]);
    find().map_err(|e| fault("reading recount_replay", &e))
}

/// Writes down what the replay came to, unless the event is to be tried again.
pub(crate) fn note(
    conn: &Connection,
    at: &PartitionId,
    event: &EffectEvent,
    replay: Replay,
    outcome: &Outcome,
) -> Result<(), EffectFault> {
    let Some(decision) = replayed_as(outcome) else { return Ok(()) };
    let sql = "INSERT INTO recount_replay (flow, source_id, partition, \"offset\", corrects, replay_id, \
               decision) VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
    let (offset, corrects) = (as_integer(event.event.meta.offset)?, as_integer(replay.corrects_seq)?);
    let replay_id = as_integer(replay.replay_id)?;
    let at = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let insert = || {
        conn.prepare_cached(sql)?.execute(params![at.0, at.1, at.2, offset, corrects, replay_id, decision])
    };
    insert().map(drop).map_err(|e| fault("writing recount_replay", &e))
}

/// Rows of `recount_effect` that one statement inserts.
const EFFECTS_A_STATEMENT: usize = 50;

/// One row for each event that was applied.
pub(crate) fn write_effects(
    conn: &Connection,
    at: &PartitionId,
    events: &[EffectEvent],
    outcomes: &[Outcome],
) -> Result<(), EffectFault> {
    let applied: Vec<&EffectEvent> = events
        .iter()
        .zip(outcomes)
        .filter(|(_, outcome)| matches!(outcome, Outcome::Said { verdict: Verdict::Applied, .. }))
        .map(|(event, _)| event)
        .collect();
    let (whole, rest) = applied.as_chunks::<EFFECTS_A_STATEMENT>();
    whole.iter().try_for_each(|chunk| insert_effects(conn, at, chunk))?;
    rest.iter().try_for_each(|event| insert_effects(conn, at, std::slice::from_ref(event)))
}

fn insert_effects(conn: &Connection, at: &PartitionId, events: &[&EffectEvent]) -> Result<(), EffectFault> {
    let insert = |sql: &str| -> rusqlite::Result<()> {
        let mut insert = conn.prepare_cached(sql)?;
        insert.raw_bind_parameter(1, at.flow.as_str())?;
        insert.raw_bind_parameter(2, at.source.as_str())?;
        insert.raw_bind_parameter(3, at.partition.as_str())?;
        for (i, event) in events.iter().enumerate() {
            let meta = &event.event.meta;
            insert.raw_bind_parameter(4 + 2 * i, i64::try_from(meta.offset).unwrap_or(i64::MAX))?;
            insert.raw_bind_parameter(5 + 2 * i, meta.id.as_deref())?;
        }
        insert.raw_execute().map(drop)
    };
    let inserted = match events.len() {
        1 => insert(ONE_EFFECT),
        _ => insert(many_effects()),
    };
    inserted.map_err(|e| fault("writing recount_effect", &e))
}

const ONE_EFFECT: &str = "INSERT INTO recount_effect (flow, source_id, partition, \"offset\", event_id) \
                          VALUES (?1, ?2, ?3, ?4, ?5)";

fn many_effects() -> &'static str {
    static SQL: std::sync::OnceLock<String> = std::sync::OnceLock::new();
    SQL.get_or_init(|| {
        let more =
            (1..EFFECTS_A_STATEMENT).map(|i| format!(", (?1, ?2, ?3, ?{}, ?{})", 4 + 2 * i, 5 + 2 * i));
        std::iter::once(ONE_EFFECT.to_owned()).chain(more).collect()
    })
}
