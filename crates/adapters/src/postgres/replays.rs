//! `recount_replay`: what was decided anew.

use super::faults::fault;
use super::position::integer;
use crate::sql::replayed_as;
use recount_engine::effect::Replay;
use recount_engine::{EffectEvent, EffectFault, Outcome};
use recount_model::PartitionId;
use tokio_postgres::Client;

/// Whether a replay of this event in place of that decision was committed before, or earlier in the batch.
pub(crate) async fn done_before(
    client: &Client,
    at: &PartitionId,
    event: &EffectEvent,
    replay: Replay,
) -> Result<bool, EffectFault> {
    let sql = "SELECT 1 FROM recount_replay WHERE flow = $1 AND source_id = $2 AND partition = $3 \
               AND \"offset\" = $4 AND corrects = $5";
    let (offset, corrects) = (integer(event.event.meta.offset)?, integer(replay.corrects_seq)?);
    let of = (at.flow.as_str(), at.source.as_str(), at.partition.as_str());
    let found = client.query_opt(sql, &[&of.0, &of.1, &of.2, &offset, &corrects]).await;
    Ok(found.map_err(|error| fault("reading recount_replay", &error))?.is_some())
}

/// Writes down what the replay came to, unless the event is to be tried again.
pub(crate) async fn note(
    client: &Client,
    at: &PartitionId,
    event: &EffectEvent,
    replay: Replay,
    outcome: &Outcome,
) -> Result<(), EffectFault> {
    let Some(decision) = replayed_as(outcome) else { return Ok(()) };
    let sql = "INSERT INTO recount_replay (flow, source_id, partition, \"offset\", corrects, replay_id, \
               decision) VALUES ($1, $2, $3, $4, $5, $6, $7)";
    let (offset, corrects) = (integer(event.event.meta.offset)?, integer(replay.corrects_seq)?);
    let (replay_id, of) =
        (integer(replay.replay_id)?, (at.flow.as_str(), at.source.as_str(), at.partition.as_str()));
    let done = client.execute(sql, &[&of.0, &of.1, &of.2, &offset, &corrects, &replay_id, &decision]).await;
    done.map(drop).map_err(|error| fault("writing recount_replay", &error))
}
