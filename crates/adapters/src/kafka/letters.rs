//! Dead letters to a topic, beside the ledger, which stays the book that counts.
//!
//! Each is read again from its own topic, so that key, value and headers are the very bytes that were published; what
//! retention took meanwhile is sent as the ledger keeps it, and a header says so.

use super::client::{Consumer, Context as ConsumerSide, Trouble, consumer, log};
use super::letter_headers::{Letter, LetterHeaders, Origin, headers};
use super::native::header;
use super::publisher::{PublishError, metadata_of};
use super::settings::{KafkaBroker, KafkaError};
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{BorrowedMessage, DeliveryResult, Headers as _, Message as _, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::{ClientContext, Offset, Timestamp as RecordTimestamp, TopicPartitionList};
use recount_model::{Header, KeptBody};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a record may wait for its acknowledgement; whoever sends it tries again.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(10);
/// How long a record may take to be read again.
const READ_WITHIN: Duration = Duration::from_secs(10);
/// How long one look for a record waits.
const LOOK_WAIT: Duration = Duration::from_millis(100);
/// Records that are passed over rather than jumped over on the way to the next dead letter.
const PASS_OVER_MAX: u64 = 500;
/// A dead letter as large as anything that a broker takes in one request.
const MESSAGE_BYTES_MAX: &str = "100000000";

/// From where to where.
#[derive(Clone)]
pub struct LetterSettings {
    /// The cluster of the flow's source.
    pub source: KafkaBroker,
    /// The flow's topic.
    pub source_topic: String,
    /// The flow's group.
    pub group: Option<String>,
    /// The cluster of the dead letters' topic.
    pub target: KafkaBroker,
    /// The dead letters' topic.
    pub topic: String,
    /// Whose headers.
    pub headers: LetterHeaders,
}

/// What became of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LetterSent {
    /// Every replica in step has it.
    Acknowledged,
    /// The broker won't ever take it.
    Refused(String),
    /// Nobody knows whether it stands there; it is to be sent again.
    Unknown(String),
}

/// A topic for dead letters, and the topic that they come from.
pub struct LetterTopic {
    settings: LetterSettings,
    producer: BaseProducer<Outcomes>,
    partitions: i32,
    consumer: Consumer,
    /// The partition and the offset that the consumer gives out next, at the earliest.
    reads_at: Option<(i32, u64)>,
}

#[derive(Default)]
struct Outcomes {
    sent: Mutex<Vec<Option<LetterSent>>>,
    trouble: Trouble,
}

impl Outcomes {
    fn sent(&self) -> MutexGuard<'_, Vec<Option<LetterSent>>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, number: usize, sent: LetterSent) {
        if let Some(place) = self.sent().get_mut(number) {
            *place = Some(sent);
        }
    }
}

impl ClientContext for Outcomes {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.trouble.hear(&error, reason);
    }
}

impl ProducerContext for Outcomes {
    type DeliveryOpaque = Box<usize>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<usize>) {
        let sent = match result {
            Ok(_) => LetterSent::Acknowledged,
            Err((error, _)) => not_sent(error),
        };
        self.note(*number, sent);
    }
}

fn not_sent(error: &ClientError) -> LetterSent {
    match error.rdkafka_error_code() {
        Some(
            code @ (RDKafkaErrorCode::MessageSizeTooLarge
            | RDKafkaErrorCode::InvalidMessageSize
            | RDKafkaErrorCode::InvalidRecord
            | RDKafkaErrorCode::InvalidTimestamp
            | RDKafkaErrorCode::PolicyViolation),
        ) => LetterSent::Refused(code.to_string()),
        Some(code) => LetterSent::Unknown(code.to_string()),
        None => LetterSent::Unknown(error.to_string()),
    }
}

/// A record as it is to be sent.
struct Record {
    partition: i32,
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: OwnedHeaders,
}

/// What a topic still has of a dead letter.
struct Original {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp: RecordTimestamp,
}

impl LetterTopic {
    /// Asks for the topic.
    ///
    /// # Errors
    /// Where the cluster can't be asked, or has no such topic.
    pub fn open(settings: LetterSettings) -> Result<Self, PublishError> {
        let ours = [("partitioner", "murmur2_random"), ("message.max.bytes", MESSAGE_BYTES_MAX)];
        let mut config = settings.target.client(&ours);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", ACKNOWLEDGED_WITHIN.as_millis().to_string());
        let producer: BaseProducer<Outcomes> =
            config.create_with_context(Outcomes::default()).map_err(KafkaError::of_settings)?;
        let trouble = || {
            producer.poll(Duration::ZERO);
            producer.context().trouble.told()
        };
        let partitions = metadata_of(&producer, &settings.target.servers, &settings.topic, &trouble)?;
        let consumer = consumer(&settings.source, None, 1)?;
        Ok(Self { settings, producer, partitions, consumer, reads_at: None })
    }

    /// Sends them; what came of each stands in their order.
    ///
    /// # Errors
    /// Where they can't be read again for now. Nothing was sent.
    pub fn send(&mut self, letters: &[Letter]) -> Result<Vec<LetterSent>, String> {
        let records: Vec<Record> =
            letters.iter().map(|letter| self.record(letter)).collect::<Result<_, _>>()?;
        let mut sent = self.send_together(&records.iter().collect::<Vec<_>>());
        // The broker refuses a batch of records as a whole where one of them is too large.
        for (index, record) in records.iter().enumerate() {
            if matches!(sent[index], LetterSent::Refused(_)) && records.len() > 1 {
                sent[index] = self.send_together(&[record]).remove(0);
            }
        }
        Ok(sent)
    }

    fn send_together(&self, records: &[&Record]) -> Vec<LetterSent> {
        *self.producer.context().sent() = vec![None; records.len()];
        for (number, record) in records.iter().enumerate() {
            let mut one =
                BaseRecord::<[u8], [u8], Box<usize>>::with_opaque_to(&self.settings.topic, Box::new(number))
                    .headers(record.headers.clone());
            // As Spring does: into the partition of the same number, where there is one.
            if record.partition < self.partitions {
                one = one.partition(record.partition);
            }
            one.payload = record.value.as_deref();
            one.key = record.key.as_deref();
            if let Err((error, _)) = self.producer.send(one) {
                self.producer.context().note(number, not_sent(&error));
            }
        }
        // Each ends by itself, acknowledged or with its time over.
        while self.producer.in_flight_count() > 0 {
            drop(self.producer.flush(Duration::from_secs(1)));
        }
        let told = self.producer.context().trouble.told();
        let unknown = || LetterSent::Unknown(told.clone().unwrap_or_else(|| "no answer in time".to_owned()));
        let sent = std::mem::take(&mut *self.producer.context().sent());
        sent.into_iter().map(|one| one.unwrap_or_else(unknown)).collect()
    }

    fn record(&mut self, letter: &Letter) -> Result<Record, String> {
        let partition: i32 = letter.at.partition.as_str().parse().unwrap_or(0);
        let original = self.original(partition, &letter.body)?;
        let (source_topic, group) = (self.settings.source_topic.clone(), self.settings.group.clone());
        let origin = Origin {
            topic: &source_topic,
            group: group.as_deref(),
            partition,
            timestamp: original.as_ref().map(|original| original.timestamp),
            taken_from: if original.is_some() { "source" } else { "ledger" },
        };
        let (key, value, own) = match original {
            Some(original) => (original.key, original.value, original.headers),
            None => (None, Some(letter.body.payload.clone()), kept_headers(&letter.body.headers)),
        };
        let headers = headers(own, letter, &origin, self.settings.headers);
        Ok(Record { partition, key, value, headers })
    }

    /// The record that the ledger has the body of; none where the topic doesn't hold it any more.
    fn original(&mut self, partition: i32, body: &KeptBody) -> Result<Option<Original>, String> {
        let reads_on = self.reads_at.is_some_and(|(at, offset)| {
            at == partition && offset <= body.offset && body.offset - offset <= PASS_OVER_MAX
        });
        if !reads_on {
            self.read_from(partition, body.offset)?;
        }
        let until = Instant::now() + READ_WITHIN;
        while Instant::now() < until {
            let found = match self.consumer.poll(LOOK_WAIT) {
                None => continue,
                Some(Ok(message)) => {
                    let offset = u64::try_from(message.offset()).unwrap_or(0);
                    if message.partition() != partition || offset < body.offset {
                        continue;
                    }
                    let found = (offset == body.offset).then(|| original(&message, body)).flatten();
                    self.reads_at = (offset == body.offset).then_some((partition, offset + 1));
                    return Ok(found);
                }
                Some(Err(error)) => error,
            };
            let is_gone = matches!(found, ClientError::PartitionEOF(at) if at == partition)
                || matches!(
                    found.rdkafka_error_code(),
                    Some(
                        RDKafkaErrorCode::AutoOffsetReset
                            | RDKafkaErrorCode::OffsetOutOfRange
                            | RDKafkaErrorCode::UnknownTopicOrPartition
                            | RDKafkaErrorCode::UnknownPartition
                    )
                );
            if is_gone {
                self.reads_at = None;
                return Ok(None);
            }
        }
        self.reads_at = None;
        let context: &ConsumerSide = self.consumer.context();
        let why = context.trouble().unwrap_or_else(|| "no answer in time".to_owned());
        Err(format!("topic {}, partition {partition} can't be read: {why}", self.settings.source_topic))
    }

    fn read_from(&mut self, partition: i32, offset: u64) -> Result<(), String> {
        let mut list = TopicPartitionList::with_capacity(1);
        let offset_there = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.settings.source_topic, partition, offset_there)
            .and_then(|()| self.consumer.assign(&list))
            .map_err(|error| format!("topic {} can't be read: {error}", self.settings.source_topic))?;
        self.reads_at = Some((partition, offset));
        Ok(())
    }
}

/// The record, if it is the one that the ledger has: the topic may have been made anew since.
fn original(message: &BorrowedMessage<'_>, body: &KeptBody) -> Option<Original> {
    let value = message.payload();
    let bytes = value.unwrap_or_default();
    let is_same = bytes.len() as u64 == body.payload_bytes && bytes.starts_with(&body.payload);
    let own = message.headers().map_or_else(Vec::new, |headers| {
        headers.iter().map(|one| (one.key.to_owned(), one.value.map(<[u8]>::to_vec))).collect::<Vec<_>>()
    });
    let as_kept = |(name, value): &(String, Option<Vec<u8>>)| {
        header(name.clone(), value.as_deref().unwrap_or_default())
    };
    (is_same && own.iter().map(as_kept).eq(body.headers.iter().cloned())).then(|| Original {
        key: message.key().map(<[u8]>::to_vec),
        value: value.map(<[u8]>::to_vec),
        headers: own,
        timestamp: message.timestamp(),
    })
}

/// As they were published, as far as the ledger's form of them says.
fn kept_headers(kept: &[Header]) -> Vec<(String, Option<Vec<u8>>)> {
    use base64::Engine;
    let one = |header: &Header| {
        let packed = header.name.strip_suffix(";base64");
        let unpacked = packed.and_then(|name| {
            let bytes = base64::engine::general_purpose::STANDARD.decode(header.value.as_bytes()).ok()?;
            Some((name.to_owned(), Some(bytes)))
        });
        unpacked.unwrap_or_else(|| (header.name.to_string(), Some(header.value.as_bytes().to_vec())))
    };
    kept.iter().map(one).collect()
}
