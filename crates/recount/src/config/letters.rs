//! `dead_letters`: the topic that a flow's dead letters go to, besides the ledger.

use super::raw::RawTable;
use super::resolve::Context;
use super::spec::{Kind, TableSpec, default, optional, required};
use super::{FlowMode, SourceConfig};

/// Its keys.
pub(super) const DEAD_LETTERS: TableSpec = TableSpec {
    header: "[flow.NAME.dead_letters]",
    doc: "A topic that dead letters are sent to, for tools that read such topics; the ledger stays the book that counts. For a flow that reads a topic with `mode = \"run\"`. Each is sent at least once, after its decision is durable, with the key, value and headers that were published. What is on record when this is first written is sent too.",
    keys: &[
        required("topic", Kind::Text, "\"orders.DLT\"", "The topic; it must be there, none is made."),
        default(
            "headers",
            Kind::Word(&["spring", "connect", "both"]),
            "\"both\"",
            "Whose headers say what became of it: Spring Kafka's (`kafka_dlt-…`), Kafka Connect's (`__connect.errors.…`), or both. `recount.reason`, `recount.position` and others come always.",
        ),
        optional(
            "broker",
            Kind::Text,
            "\"main\"",
            "A `[broker.NAME]`. Without it: the one that the flow's source is on.",
        ),
    ],
};

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterHeadersConfig {
    /// Spring Kafka's.
    Spring,
    /// Kafka Connect's.
    Connect,
    /// Both.
    Both,
}

impl LetterHeadersConfig {
    /// As a sentence names them.
    pub fn words(self) -> &'static str {
        match self {
            Self::Spring => "Spring Kafka's headers",
            Self::Connect => "Kafka Connect's headers",
            Self::Both => "Spring Kafka's and Kafka Connect's headers",
        }
    }
}

/// A topic for dead letters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LettersConfig {
    /// A key of [`super::Config::brokers`].
    pub broker: String,
    /// The topic.
    pub topic: String,
    /// Whose headers.
    pub headers: LetterHeadersConfig,
}

/// Resolves it; none where there is none, or it has a fault.
pub(super) fn resolve(
    flow: &RawTable,
    mode: FlowMode,
    source: &SourceConfig,
    context: &mut Context<'_, '_>,
) -> Option<LettersConfig> {
    let table = flow.table("dead_letters")?;
    let at = flow.place("dead_letters");
    if mode != FlowMode::Run {
        let message = format!(
            "with mode = \"{}\" the consumer is yours, and so are its dead letters: Recount sends none",
            mode.word()
        );
        context.sink.fault(&at, message, "leave `dead_letters` out".to_owned());
        return None;
    }
    let SourceConfig::Kafka { broker: source_broker, topic: source_topic, .. } = source else {
        // A source on a broker that has a fault of its own is told there.
        if !flow.table("source").is_some_and(|source| source.has("broker")) {
            let message = "`dead_letters` is for a flow that reads a topic, and this one doesn't";
            let help = "leave it out: dead letters are in the ledger (recount dead-letters)".to_owned();
            context.sink.fault(&at, message, help);
        }
        return None;
    };
    let broker = table.text("broker").unwrap_or_else(|| source_broker.clone());
    if !context.brokers.contains(&broker) {
        let known = context.brokers.clone();
        context.unknown_name(&table.place("broker"), "broker", &broker, &known, "[broker.NAME]");
        return None;
    }
    let topic = table.text("topic")?;
    if topic == *source_topic && broker == *source_broker {
        let message = format!("dead letters would come back to the flow: it reads {topic} itself");
        let help = format!("write: dead_letters = {{ topic = \"{topic}.DLT\" }}");
        context.sink.fault(&table.place("topic"), message, help);
        return None;
    }
    let headers = match table.text("headers").as_deref() {
        Some("spring") => LetterHeadersConfig::Spring,
        Some("connect") => LetterHeadersConfig::Connect,
        _ => LetterHeadersConfig::Both,
    };
    Some(LettersConfig { broker, topic, headers })
}

/// Each process that shares a ledger has a replica of all of it, and would send all that is in there.
pub(super) fn refuse_shared_ledger(raw: &RawTable, context: &mut Context<'_, '_>) {
    if !raw.table("ledger").is_some_and(|ledger| ledger.has("database")) {
        return;
    }
    for (_, flow) in raw.named("flow").iter().filter(|(_, flow)| flow.has("dead_letters")) {
        let message =
            "`dead_letters` beside a ledger that processes share comes later: each of them would send all";
        let help = "leave one out: `dead_letters`, or the ledger's `database`".to_owned();
        context.sink.fault(&flow.place("dead_letters"), message, help);
    }
}
