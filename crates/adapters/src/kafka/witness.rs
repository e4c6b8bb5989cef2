//! A topic, as the audit asks it: with a client of its own that joins no group, commits nothing and shares
//! nothing with the source but how a topic is named.

use super::client::{Consumer, consumer};
use super::native::{DescribeError, as_text, c_name, describe_unless_away, header};
use super::settings::KafkaBroker;
use super::source::{cluster_id, source_id};
use super::watermarks;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::message::{BorrowedMessage, Headers, Message};
use rdkafka::types::RDKafkaErrorCode;
use rdkafka::{Offset, TopicPartitionList};
use recount_audit::{Published, SourceWitness, WitnessError};
use recount_checks::RawEvent;
use recount_model::{FlowName, Partition, PartitionId, SourceId, Timestamp};
use std::cell::OnceCell;
use std::ops::ControlFlow;
use std::time::{Duration, Instant};

/// So many events of a connection that failed are heard for the reason.
const EVENTS_HEARD_MAX: usize = 20;
/// How long the next record, or the word that there is none, may take.
const RECORD_WAIT: Duration = Duration::from_secs(30);

/// A topic of a Kafka cluster, as the audit asks it.
pub struct KafkaSourceWitness {
    flow: FlowName,
    broker: KafkaBroker,
    topic: String,
    payload_bytes_max: usize,
    consumer: OnceCell<Consumer>,
}

impl KafkaSourceWitness {
    /// Connects only when it is asked. Of a larger payload, `payload_bytes_max` bytes and one more are read, as
    /// the flow does.
    pub fn new(
        flow: FlowName,
        broker: KafkaBroker,
        topic: impl Into<String>,
        payload_bytes_max: usize,
    ) -> Self {
        Self { flow, broker, topic: topic.into(), payload_bytes_max, consumer: OnceCell::new() }
    }

    fn consumer(&self) -> Result<&Consumer, WitnessError> {
        if let Some(consumer) = self.consumer.get() {
            return Ok(consumer);
        }
        let made = consumer(&self.broker, None, 1);
        let made = made.map_err(|error| WitnessError::Unreachable(error.to_string()))?;
        Ok(self.consumer.get_or_init(|| made))
    }

    /// The incarnation that is there now, and how many partitions it has.
    fn now(&self) -> Result<(SourceId, usize), WitnessError> {
        let (topic, consumer) = (&self.topic, self.consumer()?);
        let unreachable = |why: &str| {
            WitnessError::Unreachable(format!(
                "{} can't be asked about topic {topic}: {why}",
                self.broker.servers
            ))
        };
        let name = c_name(topic).ok_or_else(|| unreachable("that is not the name of a topic"))?;
        let heard = || self.heard();
        let described = describe_unless_away(consumer, &name, heard).map_err(|error| match error {
            DescribeError::NoSuchTopic => {
                WitnessError::Gone(format!("{} has no topic {topic}", self.broker.servers))
            }
            DescribeError::Other(why) => unreachable(&self.trouble(&why)),
        })?;
        consumer.context().is_well();
        let source = source_id(cluster_id(consumer).as_deref(), &described);
        Ok((source.map_err(|what| unreachable(&format!("the broker gives {what}")))?, described.partitions))
    }

    /// What librdkafka said of the connection; it says it only to who polls.
    fn heard(&self) -> Option<String> {
        let consumer = self.consumer.get()?;
        for _ in 0..EVENTS_HEARD_MAX {
            drop(consumer.poll(Duration::ZERO));
        }
        consumer.context().trouble()
    }

    /// The same, or what the answer itself said.
    fn trouble(&self, otherwise: &str) -> String {
        self.heard().unwrap_or_else(|| otherwise.to_owned())
    }

    /// The partition's number, if the incarnation is the one asked for.
    fn number(&self, at: &PartitionId) -> Result<i32, WitnessError> {
        let (now, _) = self.now()?;
        if now != at.source {
            return Err(WitnessError::Changed(format!(
                "topic {} is {now} now, and {} is asked about: it was made anew",
                self.topic, at.source
            )));
        }
        at.partition.as_str().parse().map_err(|_| {
            WitnessError::Gone(format!("topic {} has no partition {}", self.topic, at.partition))
        })
    }

    fn unreachable(&self, at: &PartitionId, error: &ClientError) -> WitnessError {
        let why = self.trouble(&error.to_string());
        WitnessError::Unreachable(format!("topic {}, partition {}: {why}", self.topic, at.partition))
    }

    /// Reads `from..to` with a fresh assignment, so that the end of the partition is that of a fetch that was
    /// sent after the question for its bounds.
    fn visit(
        &self,
        at: &PartitionId,
        partition: i32,
        (from, to): (u64, u64),
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let consumer = self.consumer()?;
        let mut until = Instant::now() + RECORD_WAIT;
        loop {
            match consumer.poll(Duration::from_millis(500)) {
                Some(Ok(record)) => {
                    until = Instant::now() + RECORD_WAIT;
                    let offset = u64::try_from(record.offset()).unwrap_or(0);
                    if record.partition() != partition || offset < from {
                        continue;
                    }
                    if offset >= to || visit(&self.raw(at, &record, offset)).is_break() || offset + 1 >= to {
                        return Ok(());
                    }
                }
                Some(Err(ClientError::PartitionEOF(end))) if end == partition => return Ok(()),
                Some(Err(ClientError::MessageConsumption(
                    error @ (RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange),
                ))) => {
                    return Err(WitnessError::Unreachable(format!(
                        "topic {}, partition {}: what was there was removed while it was read ({error}); ask again",
                        self.topic, at.partition
                    )));
                }
                // Others mend themselves, or time runs out.
                Some(Err(_)) | None if Instant::now() < until => {}
                Some(Err(error)) => return Err(self.unreachable(at, &error)),
                None => {
                    let why = self.trouble("no record came in time");
                    let place = format!("topic {}, partition {}", self.topic, at.partition);
                    return Err(WitnessError::Unreachable(format!("{place}: {why}")));
                }
            }
        }
    }

    fn raw(&self, at: &PartitionId, record: &BorrowedMessage<'_>, offset: u64) -> RawEvent {
        let payload = record.payload().unwrap_or_default();
        let kept = payload.len().min(self.payload_bytes_max.saturating_add(1));
        let headers = record.headers().map(|headers| {
            headers.iter().map(|one| header(one.key.to_owned(), one.value.unwrap_or_default())).collect()
        });
        RawEvent {
            payload: payload[..kept].into(),
            payload_bytes: payload.len() as u64,
            headers: headers.unwrap_or_default(),
            broker_key: record.key().map(|key| as_text(key).0),
            partition: at.partition.as_str().into(),
            offset,
            taken_at: Timestamp::default(),
        }
    }
}

impl SourceWitness for KafkaSourceWitness {
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError> {
        let (source, count) = self.now()?;
        let id = |number: usize| PartitionId {
            flow: self.flow.clone(),
            source: source.clone(),
            partition: Partition::new(number.to_string()),
        };
        Ok((0..count).map(id).collect())
    }

    fn published(&self, at: &PartitionId) -> Result<Published, WitnessError> {
        let partition = self.number(at)?;
        let bounds = watermarks::bounds(self.consumer()?, &self.topic, partition);
        let bounds = bounds.map_err(|error| self.unreachable(at, &error))?;
        Ok(Published { first: bounds.first, end: bounds.end })
    }

    fn read(
        &self,
        at: &PartitionId,
        from: u64,
        to: u64,
        visit: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        let partition = self.number(at)?;
        let consumer = self.consumer()?;
        let read = || -> Result<Option<(u64, u64)>, ClientError> {
            let bounds = watermarks::bounds(consumer, &self.topic, partition)?;
            let (from, to) = (from.max(bounds.first), to.min(bounds.end));
            if from >= to {
                return Ok(None);
            }
            let mut list = TopicPartitionList::with_capacity(1);
            let offset = Offset::Offset(i64::try_from(from).unwrap_or(i64::MAX));
            list.add_partition_offset(&self.topic, partition, offset)?;
            consumer.assign(&list)?;
            Ok(Some((from, to)))
        };
        let Some(range) = read().map_err(|error| self.unreachable(at, &error))? else { return Ok(()) };
        let visited = self.visit(at, partition, range, visit);
        let left = consumer.unassign();
        visited?;
        left.map_err(|error| self.unreachable(at, &error))?;
        // Asked again afterwards: what was read is then of this incarnation.
        self.number(at).map(drop)
    }
}
