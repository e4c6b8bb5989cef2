//! Events into a topic: each acknowledged by every replica that is in step, or told as one that was not.

use super::client::{Trouble, log};
use super::settings::{KafkaBroker, KafkaError};
use rdkafka::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError as ClientError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message as _};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use recount_model::OffsetSet;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How long a record may wait for its acknowledgement, tries of the client's own included.
const ACKNOWLEDGED_WITHIN: Duration = Duration::from_secs(60);
/// How long the cluster may take to say that it has the topic.
const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long a full queue is served before the next try.
const FULL_WAIT: Duration = Duration::from_millis(50);
/// So many refused records are named; the others are counted.
const REFUSED_NAMED_MAX: usize = 10;

/// What became of what was sent.
#[derive(Debug, Clone, Default)]
pub struct Receipt {
    /// The offsets of acknowledged records, by partition.
    pub partitions: BTreeMap<i32, OffsetSet>,
    /// How many were acknowledged without an offset: what was sent a second time, and stood there already.
    pub unplaced: u64,
    /// How many were not acknowledged. Of one whose time was over, nobody knows whether it stands in the topic.
    pub refused: u64,
    /// The first of them: the number that the caller gave it, and why.
    pub refused_first: Vec<(u64, String)>,
}

impl Receipt {
    /// How many were acknowledged.
    pub fn acknowledged(&self) -> u64 {
        self.unplaced + self.partitions.values().map(OffsetSet::count).sum::<u64>()
    }
}

/// Why a topic can't be published to.
#[derive(Debug, thiserror::Error)]
pub enum PublishError {
    /// The settings can't be used.
    #[error(transparent)]
    Settings(#[from] KafkaError),
    /// The cluster does not answer, or lets us not in.
    #[error("{0}")]
    Unreachable(String),
    /// The cluster has no such topic; none is made.
    #[error("{servers} has no topic {topic}, and none is made by publishing to it")]
    NoSuchTopic {
        /// The cluster.
        servers: String,
        /// The topic.
        topic: String,
    },
}

#[derive(Default)]
struct Context {
    receipt: Mutex<Receipt>,
    trouble: Trouble,
}

impl Context {
    fn receipt(&self) -> MutexGuard<'_, Receipt> {
        self.receipt.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuse(&self, number: u64, why: &ClientError) {
        let mut receipt = self.receipt();
        receipt.refused += 1;
        if receipt.refused_first.len() < REFUSED_NAMED_MAX {
            let why = why.rdkafka_error_code().map_or_else(|| why.to_string(), |code| code.to_string());
            receipt.refused_first.push((number, why));
        }
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.trouble.hear(&error, reason);
    }
}

impl ProducerContext for Context {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, number: Box<u64>) {
        match result {
            Ok(message) => {
                let mut receipt = self.receipt();
                match u64::try_from(message.offset()) {
                    Ok(offset) => receipt.partitions.entry(message.partition()).or_default().insert(offset),
                    Err(_) => receipt.unplaced += 1,
                }
            }
            Err((error, _)) => self.refuse(*number, error),
        }
    }
}

/// An idempotent producer on one topic: a record that is sent again by the client stands there once.
pub struct TopicPublisher {
    producer: BaseProducer<Context>,
    topic: String,
    place: String,
}

impl TopicPublisher {
    /// Asks the cluster for the topic.
    ///
    /// # Errors
    /// Where it can't be asked, or has no such topic.
    pub fn open(broker: &KafkaBroker, topic: &str) -> Result<Self, PublishError> {
        // As Kafka's own producers deal keys out, so that those of one key meet in one partition.
        let mut config = broker.client(&[("partitioner", "murmur2_random")]);
        config
            .set("enable.idempotence", "true")
            .set("acks", "all")
            .set("message.timeout.ms", ACKNOWLEDGED_WITHIN.as_millis().to_string());
        let producer: BaseProducer<Context> =
            config.create_with_context(Context::default()).map_err(KafkaError::of_settings)?;
        let publisher = Self { producer, topic: topic.to_owned(), place: broker.servers.clone() };
        publisher.look()?;
        Ok(publisher)
    }

    fn look(&self) -> Result<(), PublishError> {
        let trouble = || {
            self.producer.poll(Duration::ZERO);
            self.producer.context().trouble.told()
        };
        metadata_of(&self.producer, &self.place, &self.topic, &trouble).map(drop)
    }

    /// Hands a record to the client, and waits while its queue is full. `number` names it in the receipt.
    /// False where the client does not take it; the receipt says why.
    pub fn send(&self, number: u64, key: Option<&str>, payload: &[u8]) -> bool {
        let mut record = BaseRecord::with_opaque_to(&self.topic, Box::new(number)).payload(payload);
        if let Some(key) = key {
            record = record.key(key);
        }
        loop {
            match self.producer.send(record) {
                Ok(()) => {
                    self.producer.poll(Duration::ZERO);
                    return true;
                }
                Err((error, again)) if error.rdkafka_error_code() == Some(RDKafkaErrorCode::QueueFull) => {
                    self.producer.poll(FULL_WAIT);
                    record = again;
                }
                Err((error, _)) => {
                    self.producer.context().refuse(number, &error);
                    return false;
                }
            }
        }
    }

    /// Whether a record was refused so far; what is sent after it would stand before it.
    pub fn has_refused(&self) -> bool {
        self.producer.context().receipt().refused > 0
    }

    /// Waits for what is still under way.
    pub fn finish(self) -> Receipt {
        // Each record ends by itself, acknowledged or with its time over.
        while self.producer.in_flight_count() > 0 {
            drop(self.producer.flush(Duration::from_secs(1)));
        }
        self.producer.context().receipt().clone()
    }
}

/// How many partitions a topic has; `trouble` says what the client heard.
pub(super) fn metadata_of<C: ProducerContext>(
    producer: &BaseProducer<C>,
    servers: &str,
    topic: &str,
    trouble: &dyn Fn() -> Option<String>,
) -> Result<i32, PublishError> {
    let unreachable = |why: String| {
        PublishError::Unreachable(format!("{servers} can't be asked about topic {topic}: {why}"))
    };
    let asked = producer.client().fetch_metadata(Some(topic), ANSWER_WAIT);
    let metadata = asked.map_err(|error| unreachable(trouble().unwrap_or_else(|| error.to_string())))?;
    let found = metadata.topics().iter().find(|found| found.name() == topic);
    match found.map(|found| (found.error(), found.partitions().len())) {
        Some((None, count @ 1..)) => Ok(i32::try_from(count).unwrap_or(i32::MAX)),
        Some((Some(error), _))
            if RDKafkaErrorCode::from(error) != RDKafkaErrorCode::UnknownTopicOrPartition =>
        {
            Err(unreachable(RDKafkaErrorCode::from(error).to_string()))
        }
        _ => Err(PublishError::NoSuchTopic { servers: servers.to_owned(), topic: topic.to_owned() }),
    }
}
