//! What is promised of a flow's delivery, and why: the table of promises, for one flow.

use super::Promise;
use crate::config::{EffectConfig, FlowConfig, FlowMode, SourceConfig};
use recount_engine::EffectRows;
use recount_model::budget::duration_text;

/// Of a consumer that Recount doesn't run nothing is promised; only what is said about it.
fn watched(flow: &FlowConfig, from: &str) -> Promise {
    let watched = flow.effect.watched();
    let effects_are = match watched.map(|watched| watched.id.is_some()) {
        Some(true) => "counted by id",
        Some(false) => "counted in total only: how many are missing, not which",
        None => "not declared",
    };
    let (delivery, told) = match flow.mode {
        FlowMode::Report => {
            ("the consumer's own", "it owns the loop and reports what it decided; a report is a claim")
        }
        FlowMode::Run | FlowMode::Observe => (
            "the consumer's own",
            "it stays as it is, and Recount only reads beside it: what ought to have happened is decided once for \
             each event, and nothing in the consumer's database is changed",
        ),
    };
    let compared = watched.map_or(String::new(), |watched| {
        let since = match &flow.source {
            SourceConfig::Kafka { observed: Some(observed), .. } => {
                format!("the group {} was seen past its event", observed.group)
            }
            _ => "Recount has seen its event".to_owned(),
        };
        format!(
            "; there is no cut between that and what {} holds: an effect may be missing for {} after {since}, then \
             it is a finding",
            watched.database,
            duration_text(watched.within_ms)
        )
    });
    Promise { delivery, because: format!("{told}{compared}; {from}"), effects_are }
}

/// The promise that follows from effect and source.
pub(super) fn promise(flow: &FlowConfig) -> Promise {
    let from = match flow.source {
        SourceConfig::File { .. } => "a line that is read again is known by its position",
        SourceConfig::Stdin => {
            "standard input is spooled to the embedded log first, and a line has its position from then on"
        }
        SourceConfig::Http { .. } => {
            "an event has its position in the embedded log from the 202 on; a sender that gets no answer sends \
             again, which the duplicate window sees"
        }
        SourceConfig::Kafka { .. } if flow.mode != FlowMode::Run => {
            "a record that is read again is known by its position in this incarnation of the topic; Recount reads it \
             on its own, joins no group and commits no offset"
        }
        SourceConfig::Kafka { .. } => {
            "a record that is read again is known by its position in this incarnation of the topic; the group's \
             committed offset is written, and decides nothing"
        }
    };
    let (delivery, because, effects_are) = match &flow.effect {
        EffectConfig::Sql { database, effects, .. } => (
            "exactly once",
            format!("effects, position and decisions are committed in one transaction of {database}; {from}"),
            match effects {
                EffectRows::Table | EffectRows::Custom { .. } => "counted",
                EffectRows::None => "commit-attested",
            },
        ),
        EffectConfig::Handler { database, effects, .. } => (
            "exactly once",
            format!(
                "what the handler does in its transaction of {database}, position and decisions are committed together; \
                 it may be called again for an event whose transaction did not commit, so what it does elsewhere must \
                 bear that; {from}"
            ),
            match effects {
                EffectRows::Table | EffectRows::Custom { .. } => "counted",
                EffectRows::None => "commit-attested",
            },
        ),
        EffectConfig::Http { .. } => (
            "at least once",
            format!(
                "a handler's effect and our record can't be one transaction, so a batch may be sent again, with the \
                 same Idempotency-Key (flow/source/partition/offset) for ever; order within a key is not promised \
                 past a deadline; {from}"
            ),
            "a claim of the handler",
        ),
        EffectConfig::Watched { .. } => return watched(flow, from),
        EffectConfig::None => (
            "decided exactly once",
            format!("there is no effect: an event that passes is recorded as applied; {from}"),
            "not declared",
        ),
    };
    Promise { delivery, because, effects_are }
}
