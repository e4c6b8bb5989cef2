//! The headers of a dead letter on a topic, as the tools that people have read them.
//!
//! Spring: names of `org.springframework.kafka.support.KafkaHeaders` (`DLT_…`), encodings of
//! `DeadLetterPublishingRecoverer.maybeAddOriginalHeaders` and `addExceptionInfoHeaders`: texts are UTF-8, partition an
//! `int` and offset and timestamp a `long`, both big endian (`ByteBuffer.putInt`, `putLong`).
//! Connect: names and encodings of `org.apache.kafka.connect.runtime.errors.DeadLetterQueueReporter`: all of them
//! UTF-8, numbers in decimal, and a header that the record has already is left as it is.

use rdkafka::Timestamp as RecordTimestamp;
use rdkafka::message::{Header, OwnedHeaders};
use recount_model::reason;
use recount_model::{Fate, KeptBody, PartitionId, Timestamp};

/// A message, or the attempts, longer than this are cut: a header is not the place for a book.
const TEXT_BYTES_MAX: usize = 8 * 1024;

/// Whose headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LetterHeaders {
    /// Spring Kafka's.
    Spring,
    /// Kafka Connect's.
    Connect,
    /// Both.
    Both,
}

/// A dead letter of the ledger.
#[derive(Debug, Clone, PartialEq)]
pub struct Letter {
    /// The partition.
    pub at: PartitionId,
    /// What became of it; of one that isn't dead-lettered nothing is said.
    pub fate: Fate,
    /// When that was decided.
    pub decided_at: Timestamp,
    /// The event's id, where it has one and it isn't secret.
    pub event_id: Option<Box<str>>,
    /// What the ledger keeps of it.
    pub body: KeptBody,
}

/// Where a dead letter comes from, in Kafka's words.
pub(super) struct Origin<'a> {
    pub topic: &'a str,
    pub group: Option<&'a str>,
    pub partition: i32,
    /// Of the record, as far as it is still on its topic.
    pub timestamp: Option<RecordTimestamp>,
    /// `source` or `ledger`.
    pub taken_from: &'static str,
}

/// The record's own headers, then those that say what became of it.
pub(super) fn headers(
    own: Vec<(String, Option<Vec<u8>>)>,
    letter: &Letter,
    origin: &Origin<'_>,
    whose: LetterHeaders,
) -> OwnedHeaders {
    let mut all = own;
    let told = Told::of(letter);
    if matches!(whose, LetterHeaders::Spring | LetterHeaders::Both) {
        all.extend(spring(letter, origin, &told));
    }
    if matches!(whose, LetterHeaders::Connect | LetterHeaders::Both) {
        for (name, value) in connect(letter, origin, &told) {
            let name = format!("__connect.errors.{name}");
            if !all.iter().any(|(known, _)| *known == name) {
                all.push((name, Some(value.into_bytes())));
            }
        }
    }
    all.extend(ours(letter, origin, &told));
    let room = OwnedHeaders::new_with_capacity(all.len());
    all.iter().fold(room, |headers, (key, value)| headers.insert(Header { key, value: value.as_deref() }))
}

struct Told {
    reason: String,
    class: String,
    message: String,
    /// In place of a stack: what each attempt came to.
    attempts: String,
}

impl Told {
    fn of(letter: &Letter) -> Self {
        let reason = letter.fate.reason();
        let code = reason.map(|reason| reason.code.to_string()).unwrap_or_default();
        let class = format!("recount.{code}");
        let message = cut(reason.map(|reason| reason.sentence.clone()).unwrap_or_default());
        let attempt = |attempt: &recount_model::batch::Attempt| {
            format!("\n\tat attempt {} ({}): {}", attempt.number, attempt.at, attempt.found)
        };
        let attempts: String = letter.body.attempts.iter().map(attempt).collect();
        let attempts = cut(format!("{class}: {message}{attempts}"));
        Self { reason: code, class, message, attempts }
    }
}

fn cut(mut text: String) -> String {
    if text.len() > TEXT_BYTES_MAX {
        let end = (0..=TEXT_BYTES_MAX).rev().find(|end| text.is_char_boundary(*end)).unwrap_or(0);
        text.truncate(end);
        text.push('…');
    }
    text
}

type Pair = (String, Option<Vec<u8>>);

fn spring(letter: &Letter, origin: &Origin<'_>, told: &Told) -> Vec<Pair> {
    let offset = i64::try_from(letter.body.offset).unwrap_or(i64::MAX);
    let mut pairs = vec![
        ("original-topic", origin.topic.as_bytes().to_vec()),
        ("original-partition", origin.partition.to_be_bytes().to_vec()),
        ("original-offset", offset.to_be_bytes().to_vec()),
    ];
    let timestamp = match origin.timestamp {
        Some(RecordTimestamp::CreateTime(at)) => Some((at, "CreateTime")),
        Some(RecordTimestamp::LogAppendTime(at)) => Some((at, "LogAppendTime")),
        Some(RecordTimestamp::NotAvailable) => Some((-1, "NoTimestampType")),
        // Kept by no ledger, and the record is gone: nothing is said rather than something else.
        None => None,
    };
    if let Some((at, kind)) = timestamp {
        pairs.push(("original-timestamp", at.to_be_bytes().to_vec()));
        pairs.push(("original-timestamp-type", kind.as_bytes().to_vec()));
    }
    if let Some(group) = origin.group {
        pairs.push(("original-consumer-group", group.as_bytes().to_vec()));
    }
    pairs.push(("exception-fqcn", told.class.clone().into_bytes()));
    pairs.push(("exception-message", told.message.clone().into_bytes()));
    pairs.push(("exception-stacktrace", told.attempts.clone().into_bytes()));
    pairs.into_iter().map(|(name, value)| (format!("kafka_dlt-{name}"), Some(value))).collect()
}

fn connect(letter: &Letter, origin: &Origin<'_>, told: &Told) -> Vec<(&'static str, String)> {
    // One of `org.apache.kafka.connect.runtime.errors.Stage`.
    let is_of_value =
        [&reason::DECODE_FAILED, &reason::PAYLOAD_TOO_LARGE].iter().any(|code| code.as_str() == told.reason);
    vec![
        ("topic", origin.topic.to_owned()),
        ("partition", origin.partition.to_string()),
        ("offset", letter.body.offset.to_string()),
        ("connector.name", letter.at.flow.to_string()),
        ("task.id", "0".to_owned()),
        ("stage", if is_of_value { "VALUE_CONVERTER" } else { "TASK_PUT" }.to_owned()),
        ("class.name", "recount".to_owned()),
        ("exception.class.name", told.class.clone()),
        ("exception.message", told.message.clone()),
        ("exception.stacktrace", told.attempts.clone()),
    ]
}

fn ours(letter: &Letter, origin: &Origin<'_>, told: &Told) -> Vec<Pair> {
    let mut pairs = vec![
        ("reason", told.reason.clone()),
        ("position", letter.at.position(letter.body.offset).to_string()),
        ("source", letter.at.source.to_string()),
        ("decided-at", letter.decided_at.to_string()),
        ("taken-from", origin.taken_from.to_owned()),
    ];
    if let Some(id) = &letter.event_id {
        pairs.push(("event-id", id.to_string()));
    }
    pairs.into_iter().map(|(name, value)| (format!("recount.{name}"), Some(value.into_bytes()))).collect()
}
