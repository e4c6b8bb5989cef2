//! What is promised of a flow's delivery, and why: the table of promises, for one flow.

use super::Promise;
use crate::config::{EffectConfig, FlowConfig, SourceConfig};
use recount_engine::EffectRows;

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
        EffectConfig::None => (
            "decided exactly once",
            format!("there is no effect: an event that passes is recorded as applied; {from}"),
            "not declared",
        ),
    };
    Promise { delivery, because, effects_are }
}
