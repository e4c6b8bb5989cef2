//! What is sent to a handler, and in which rounds.

use recount_engine::EffectEvent;
use recount_model::PartitionId;
use serde::Serialize;
use std::collections::HashMap;

#[derive(Serialize)]
struct Body<'a> {
    flow: &'a str,
    events: Vec<Sent<'a>>,
}

#[derive(Serialize)]
struct Sent<'a> {
    position: String,
    id: Option<&'a str>,
    key: Option<&'a str>,
    #[serde(rename = "type")]
    event_type: Option<&'a str>,
    time: Option<String>,
    idempotency_key: String,
    attempt: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    traceparent: Option<&'a str>,
    data: &'a serde_json::Value,
}

/// Constant for ever: flow/source/partition/offset.
pub(super) fn idempotency_key(at: &PartitionId, event: &EffectEvent) -> String {
    format!("{}/{}/{}/{}", at.flow, at.source, at.partition, event.event.meta.offset)
}

/// As the events' positions are written.
pub(super) fn position(at: &PartitionId, event: &EffectEvent) -> String {
    format!("{at}/{}", event.event.meta.offset)
}

/// The W3C trace context that came with the delivery.
pub(super) fn traceparent(event: &EffectEvent) -> Option<&str> {
    let headers = &event.event.meta.headers;
    let header = headers.iter().find(|h| h.name.eq_ignore_ascii_case("traceparent"))?;
    header.value.bytes().all(|b| b.is_ascii_graphic()).then_some(&*header.value)
}

/// The request's JSON.
pub(super) fn body(at: &PartitionId, events: &[&EffectEvent]) -> Result<Vec<u8>, serde_json::Error> {
    let sent = |event: &&'_ EffectEvent| -> usize { event.event.payload.len() };
    let mut bytes = Vec::with_capacity(256 * events.len() + events.iter().map(sent).sum::<usize>());
    let events = events
        .iter()
        .map(|event| {
            let meta = &event.event.meta;
            Sent {
                position: position(at, event),
                id: meta.id.as_deref(),
                key: meta.key.as_deref(),
                event_type: meta.event_type.as_deref(),
                time: meta.time.map(|time| time.to_string()),
                idempotency_key: idempotency_key(at, event),
                attempt: event.attempt,
                traceparent: traceparent(event),
                data: &event.event.data,
            }
        })
        .collect();
    serde_json::to_writer(&mut bytes, &Body { flow: at.flow.as_str(), events })?;
    Ok(bytes)
}

/// Places of the events, in rounds: a key stands at most once in a request, and its events go out in order.
/// A request has at most `events_max` events.
pub(super) fn rounds<'a>(
    events: impl Iterator<Item = (usize, &'a EffectEvent)>,
    events_max: usize,
) -> Vec<Vec<usize>> {
    let mut rounds: Vec<Vec<usize>> = Vec::new();
    let mut times_seen: HashMap<&str, usize> = HashMap::new();
    for (place, event) in events {
        let round = match event.event.meta.key.as_deref() {
            None => 0,
            Some(key) => {
                let seen = times_seen.entry(key).or_insert(0);
                *seen += 1;
                *seen - 1
            }
        };
        if rounds.len() <= round {
            rounds.resize_with(round + 1, Vec::new);
        }
        rounds[round].push(place);
    }
    rounds.iter().flat_map(|round| round.chunks(events_max.max(1))).map(<[usize]>::to_vec).collect()
}
