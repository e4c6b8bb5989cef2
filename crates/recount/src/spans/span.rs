//! What a batch's span says.

use super::context::{Found, TraceContext, of_headers};
use crate::config::{FlowConfig, SourceConfig};
use recount_engine::BatchOver;
use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Links of a span; OpenTelemetry's own limit.
pub const LINKS_MAX: usize = 128;

/// A span's attribute.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Text.
    Text(Box<str>),
    /// A whole number.
    Number(i64),
}

/// A link to the trace of an event.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Link {
    /// The trace.
    pub context: TraceContext,
    /// The offset of the first event in the batch that came in it.
    pub offset: u64,
}

/// How a batch ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Status {
    /// It is committed.
    Committed,
    /// It was given up, and why.
    GivenUp(Box<str>),
}

/// One batch.
#[derive(Debug, Clone, PartialEq)]
pub struct Span {
    /// A trace of its own: a batch has as many callers as events.
    pub trace_id: [u8; 16],
    /// Its id.
    pub span_id: [u8; 8],
    /// `process FLOW`.
    pub name: Arc<str>,
    /// Since 1970.
    pub began: Duration,
    /// Since 1970.
    pub ended: Duration,
    /// What is the same for each batch of the flow.
    pub of_flow: Arc<[(&'static str, Value)]>,
    /// What isn't.
    pub attributes: Vec<(&'static str, Value)>,
    /// At most [`LINKS_MAX`].
    pub links: Vec<Link>,
    /// Traces that no link was left for.
    pub links_left_out: usize,
    /// How it ended.
    pub status: Status,
}

/// What is the same for each batch of a flow.
pub struct FlowFacts {
    name: Arc<str>,
    attributes: Arc<[(&'static str, Value)]>,
    is_of_broker: bool,
}

fn text(text: &str) -> Value {
    Value::Text(text.into())
}

fn number(number: impl TryInto<i64>) -> Value {
    Value::Number(number.try_into().unwrap_or(i64::MAX))
}

impl FlowFacts {
    /// Of a flow as the config declares it; with a broker also OpenTelemetry's names for messaging.
    pub fn of(flow: &FlowConfig) -> Self {
        let name = flow.spec.flow.as_str();
        let mut attributes = vec![
            ("recount.flow", text(name)),
            ("recount.mode", text(flow.mode.word())),
            ("messaging.operation.name", text("process")),
            ("messaging.operation.type", text("process")),
        ];
        let is_of_broker = if let SourceConfig::Kafka { topic, group, .. } = &flow.source {
            attributes.push(("messaging.system", text("kafka")));
            attributes.push(("messaging.destination.name", text(topic)));
            attributes.extend(group.as_deref().map(|group| ("messaging.consumer.group.name", text(group))));
            true
        } else {
            false
        };
        Self { name: format!("process {name}").into(), attributes: attributes.into(), is_of_broker }
    }
}

/// The span of a batch; none where the system has no random bytes for its id.
pub fn of_batch(facts: &FlowFacts, batch: &BatchOver<'_>, ended: SystemTime, may_link: bool) -> Option<Span> {
    let mut ids = [0; 24];
    let filled = rustix::rand::getrandom(&mut ids, rustix::rand::GetRandomFlags::empty()).ok()?;
    if filled < ids.len() {
        return None;
    }
    let (trace_id, span_id) = ids.split_at(16);
    let ended = ended.duration_since(UNIX_EPOCH).unwrap_or_default();
    let mut linked = Linked::default();
    if may_link {
        batch.events().for_each(|(offset, headers)| linked.add(offset, of_headers(headers)));
    }
    let mut attributes = attributes(batch);
    if facts.is_of_broker {
        attributes.push(("messaging.destination.partition.id", text(batch.at().partition.as_str())));
    }
    for (name, count) in
        [("recount.links.left_out", linked.left_out), ("recount.links.malformed", linked.malformed)]
    {
        if count > 0 {
            attributes.push((name, number(count)));
        }
    }
    Some(Span {
        trace_id: trace_id.try_into().ok()?,
        span_id: span_id.try_into().ok()?,
        name: Arc::clone(&facts.name),
        began: ended.saturating_sub(batch.took),
        ended,
        of_flow: Arc::clone(&facts.attributes),
        attributes,
        links: linked.links,
        links_left_out: linked.left_out,
        status: match batch.record {
            Some(_) => Status::Committed,
            None => Status::GivenUp(batch.last_fault.unwrap_or("it was given up").into()),
        },
    })
}

fn attributes(batch: &BatchOver<'_>) -> Vec<(&'static str, Value)> {
    let at = batch.at();
    let mut attributes = vec![
        ("recount.source", text(at.source.as_str())),
        ("recount.partition", text(at.partition.as_str())),
        ("recount.seq", number(batch.seq())),
        ("messaging.batch.message_count", number(batch.events().len())),
    ];
    if let Some((first, last)) = batch.offsets() {
        attributes.push(("recount.offset.first", number(first)));
        attributes.push(("recount.offset.last", number(last)));
    }
    if let Some(record) = batch.record {
        attributes.push(("recount.config", number(record.config.0)));
        let count =
            |word: &str| record.decisions.iter().filter(|decision| decision.fate.word() == word).count();
        attributes.push(("recount.applied", number(count("applied"))));
        attributes.push(("recount.skipped", number(count("skipped"))));
        attributes.push(("recount.dead_lettered", number(count("dead-lettered"))));
        // They wait for another attempt, or behind their key.
        attributes
            .push(("recount.undecided", number(batch.events().len().saturating_sub(record.decisions.len()))));
    }
    if batch.faults > 0 {
        attributes.push(("recount.faults", number(batch.faults)));
    }
    if let Some(fault) = batch.last_fault {
        attributes.push(("recount.last_fault", text(fault)));
    }
    attributes
}

/// Links as they come together; several events of one span have one.
#[derive(Default)]
struct Linked {
    seen: HashSet<([u8; 16], [u8; 8])>,
    links: Vec<Link>,
    left_out: usize,
    malformed: usize,
}

impl Linked {
    fn add(&mut self, offset: u64, found: Found) {
        match found {
            Found::Nothing => {}
            Found::Malformed => self.malformed += 1,
            Found::Context(context) => {
                if !self.seen.insert((context.trace_id, context.span_id)) {
                    return;
                }
                if self.links.len() < LINKS_MAX {
                    self.links.push(Link { context, offset });
                } else {
                    self.left_out += 1;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(span: u8) -> Found {
        Found::Context(TraceContext { trace_id: [1; 16], span_id: [span, 1, 1, 1, 1, 1, 1, 1], flags: 1 })
    }

    #[test]
    fn links_are_capped_and_the_rest_is_counted_each_trace_once() {
        let mut linked = Linked::default();
        for offset in 0..400_u64 {
            linked.add(offset, context((offset / 2) as u8));
        }
        linked.add(400, Found::Malformed);
        linked.add(401, Found::Nothing);
        assert_eq!((linked.links.len(), linked.left_out, linked.malformed), (LINKS_MAX, 200 - LINKS_MAX, 1));
        assert_eq!(linked.links[1].offset, 2);
    }
}
