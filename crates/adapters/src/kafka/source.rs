//! A topic as a source.

use super::client::{Consumer, Served};
use super::deal::{Deal, NotRead};
use super::member::Standby;
use super::native::{DescribeError, Described, PartitionQueue, c_name, describe_unless_away};
use super::reader::KafkaReader;
use super::settings::{KafkaError, KafkaSettings, Told};
use super::watermarks::{self, Bounds};
use async_trait::async_trait;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};
use recount_engine::{Capabilities, Source, SourceError, SourcePartition, SourceReader};
use recount_model::{Gap, GapKind, Partition, SourceId, reason};
use std::collections::BTreeMap;
use std::ffi::CString;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Before the cluster is asked, memory is planned for so many partitions.
const PARTITIONS_EXPECTED: usize = 16;
/// Brokers that have just started, or are about to hand over, may not know what they will know in a moment.
const DOUBT_TIME_MAX: Duration = Duration::from_secs(10);

/// A topic of a Kafka cluster; each of its partitions is one of the source's.
pub struct KafkaSource {
    settings: KafkaSettings,
    topic: tokio::sync::Mutex<Option<Arc<Topic>>>,
    /// What the group deals, from when the topic was first described.
    deal: OnceLock<Arc<Deal>>,
    /// Made at once, so that settings which librdkafka refuses are told before anything runs.
    first: Mutex<Option<Served>>,
}

impl KafkaSource {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        ordered: true,
        positions: true,
        redelivers: true,
        replayable: true,
        tells_lost: true,
        commits_offset: true,
    };

    /// Makes the client; it connects by itself, and whether it can is told by the first question.
    pub fn new(settings: KafkaSettings) -> Result<Self, KafkaError> {
        c_name(&settings.topic).ok_or_else(|| KafkaError::Topic(settings.topic.clone()))?;
        let first = Served::start(&settings, PARTITIONS_EXPECTED)?;
        let (topic, deal) = (tokio::sync::Mutex::default(), OnceLock::new());
        Ok(Self { settings, topic, deal, first: Mutex::new(Some(first)) })
    }

    /// The topic, as it was when it was first described.
    async fn topic(&self) -> Result<Arc<Topic>, SourceError> {
        let mut topic = self.topic.lock().await;
        if let Some(topic) = &*topic {
            return Ok(Arc::clone(topic));
        }
        let lock = || self.first.lock().unwrap_or_else(PoisonError::into_inner);
        let consumer = lock().as_ref().map(|served| Arc::clone(&served.consumer));
        let consumer = match consumer {
            Some(consumer) => consumer,
            None => {
                let served = Served::start(&self.settings, PARTITIONS_EXPECTED).map_err(broken)?;
                Arc::clone(&lock().insert(served).consumer)
            }
        };
        let name = c_name(&self.settings.topic)
            .ok_or_else(|| SourceError::Broken(KafkaError::Topic(self.settings.topic.clone()).to_string()))?;
        let (described, source) = self.describe_first(consumer, name.clone()).await?;
        let mut served = lock().take();
        if described.partitions > PARTITIONS_EXPECTED {
            served = None;
        }
        let served = match served {
            Some(served) => served,
            None => Served::start(&self.settings, described.partitions).map_err(broken)?,
        };
        if let Some(deal) = &served.deal {
            self.deal.get_or_init(|| Arc::clone(deal));
            served.consumer.subscribe(&[&self.settings.topic]).map_err(|error| {
                SourceError::Away(format!("topic {} can't be subscribed to: {error}", self.settings.topic))
            })?;
        }
        let made = Arc::new(Topic {
            settings: self.settings.clone(),
            name,
            source,
            partitions_first: described.partitions,
            served,
            slots: Mutex::default(),
            tickets: AtomicU64::new(0),
            verified: tokio::sync::Mutex::new(0),
            missing_since: Mutex::default(),
            shorter_since: Mutex::default(),
            told_standby: Mutex::default(),
        });
        *topic = Some(Arc::clone(&made));
        Ok(made)
    }

    async fn describe_first(
        &self,
        consumer: Arc<Consumer>,
        name: CString,
    ) -> Result<(Described, SourceId), SourceError> {
        let settings = &self.settings;
        let asked = blocking(move || {
            let described = describe_unless_away(&consumer, &name, || consumer.context().trouble());
            (described, cluster_id(&consumer), consumer.context().trouble())
        });
        let (described, cluster_id, trouble) = asked.await?;
        let (topic, servers) = (&settings.topic, &settings.broker.servers);
        let described = match described {
            Ok(described) => described,
            Err(DescribeError::NoSuchTopic) => {
                return Err(SourceError::Away(format!(
                    "{servers} has no topic {topic}: make it, or correct `topic`"
                )));
            }
            Err(DescribeError::Other(why)) => {
                let why = trouble.unwrap_or(why);
                return Err(SourceError::Away(format!(
                    "{servers} can't be asked about topic {topic}: {why}"
                )));
            }
        };
        let source = source_id(cluster_id.as_deref(), &described).map_err(|what| {
            SourceError::Broken(format!(
                "{servers} gives {what}, so a topic that is made again could not be told from this one; Kafka 2.8 and \
                 later do"
            ))
        })?;
        let recorded = settings.known.last().map(|known| &known.source);
        if let Some(recorded) = recorded.filter(|recorded| **recorded != source && !settings.again) {
            return Err(made_anew(topic, &source, recorded));
        }
        Ok((described, source))
    }
}

fn broken(error: KafkaError) -> SourceError {
    SourceError::Broken(error.to_string())
}

/// The id of the cluster that answered last; librdkafka has it from there, so nothing is waited for.
pub(super) fn cluster_id(consumer: &Consumer) -> Option<String> {
    consumer.client().fetch_cluster_id(Duration::ZERO)
}

/// Cluster and topic, each by its id.
pub(super) fn source_id(cluster_id: Option<&str>, described: &Described) -> Result<SourceId, &'static str> {
    let cluster = cluster_id.filter(|id| !id.is_empty()).ok_or("no cluster id")?;
    let topic = described.topic_id.as_deref().ok_or("topics no id")?;
    Ok(SourceId::new(format!("kafka:{cluster}:{topic}")))
}

fn made_anew(topic: &str, now: &SourceId, recorded: &SourceId) -> SourceError {
    SourceError::Changed(format!(
        "topic {topic} is {now} now, and the flow decided about {recorded} so far: it was deleted and made again, or \
         this is another cluster. Positions of the one say nothing of the other. To read it as a new source: \
         recount run --again"
    ))
}

fn number(partition: &SourcePartition) -> Option<i32> {
    partition.partition.as_str().parse().ok()
}

/// Runs what blocks where that is allowed.
pub(super) async fn blocking<T: Send + 'static>(
    ask: impl FnOnce() -> T + Send + 'static,
) -> Result<T, SourceError> {
    let asked = tokio::task::spawn_blocking(ask).await;
    asked.map_err(|error| SourceError::Away(format!("a question to Kafka was not answered: {error}")))
}

#[async_trait]
impl Source for KafkaSource {
    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        let topic = self.topic().await?;
        let numbers = match &topic.served.deal {
            // Whether the topic is still the same is asked with each batch.
            Some(deal) => topic.dealt(deal).await?,
            None => {
                (0..i32::try_from(topic.describe_again().await?.partitions).unwrap_or(i32::MAX)).collect()
            }
        };
        let partition = |number: i32| SourcePartition {
            source: topic.source.clone(),
            partition: Partition::new(number.to_string()),
            place: format!("topic {}, partition {number}", topic.settings.topic),
        };
        Ok(numbers.into_iter().map(partition).collect())
    }

    fn is_dealt(&self) -> bool {
        self.settings.membership.is_some()
    }

    async fn changed(&self) {
        match self.deal.get() {
            Some(deal) => deal.changed().await,
            None => std::future::pending().await,
        }
    }

    async fn confirm(&self, partition: &SourcePartition) -> Result<bool, SourceError> {
        let topic = self.topic().await?;
        match number(partition) {
            Some(number) => blocking(move || topic.confirm(number)).await?,
            None => Ok(false),
        }
    }

    fn left(&self, partition: &SourcePartition) {
        if let (Some(deal), Some(number)) = (self.deal.get(), number(partition)) {
            deal.left(number);
        }
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let topic = self.topic().await?;
        let Some(number) = number(partition).filter(|_| partition.source == topic.source) else {
            return Err(made_anew(&topic.settings.topic, &topic.source, &partition.source));
        };
        let asked = {
            let topic = Arc::clone(&topic);
            blocking(move || topic.begin(number, next_offset)).await??
        };
        Ok(Box::new(KafkaReader::new(topic, number, asked)))
    }
}

/// A topic that was described, with its client.
pub(super) struct Topic {
    pub settings: KafkaSettings,
    pub source: SourceId,
    pub served: Served,
    name: CString,
    /// So many partitions when the process began: those that come later are read from their beginning.
    pub(super) partitions_first: usize,
    slots: Mutex<BTreeMap<i32, Arc<Slot>>>,
    /// Drawn before a question about the topic's id; see [`verify`](Self::verify).
    tickets: AtomicU64,
    verified: tokio::sync::Mutex<u64>,
    missing_since: Mutex<Option<Instant>>,
    shorter_since: Mutex<BTreeMap<i32, Instant>>,
    pub(super) told_standby: Mutex<Standby>,
}

/// A partition's queue. It lives as long as the topic's client, and belongs to the reader of the latest
/// generation.
pub(super) struct Slot {
    pub queue: PartitionQueue,
    pub generation: AtomicU64,
    is_assigned: Mutex<bool>,
}

/// Where a reader begins.
pub(super) struct Begin {
    pub slot: Arc<Slot>,
    pub generation: u64,
    /// Positions that it passes over before the first record.
    pub gap: Option<Gap>,
    pub next_offset: u64,
}

impl Topic {
    /// Asks for the topic, and whether it is still the same.
    async fn describe_again(self: &Arc<Self>) -> Result<Described, SourceError> {
        let topic = Arc::clone(self);
        blocking(move || {
            let consumer = &topic.served.consumer;
            let trouble = || consumer.context().trouble();
            let described = describe_unless_away(consumer, &topic.name, trouble);
            topic.look_at(described, cluster_id(consumer).as_deref())
        })
        .await?
    }

    fn look_at(
        &self,
        described: Result<Described, DescribeError>,
        cluster_id: Option<&str>,
    ) -> Result<Described, SourceError> {
        let mut missing_since = self.missing_since.lock().unwrap_or_else(PoisonError::into_inner);
        let name = &self.settings.topic;
        match described {
            Ok(described) => {
                *missing_since = None;
                self.served.consumer.context().is_well();
                match source_id(cluster_id, &described) {
                    Ok(now) if now == self.source => Ok(described),
                    Ok(now) => Err(made_anew(name, &now, &self.source)),
                    Err(what) => Err(SourceError::Away(format!("topic {name}: the broker gives {what} now"))),
                }
            }
            Err(DescribeError::NoSuchTopic) => {
                let since = *missing_since.get_or_insert_with(Instant::now);
                if since.elapsed() < DOUBT_TIME_MAX {
                    return Err(SourceError::Away(format!("the cluster says that there is no topic {name}")));
                }
                Err(SourceError::Changed(format!(
                    "topic {name} ({}) is gone: it was deleted. What was decided stays in the ledger; a topic that is \
                     made anew under this name is another source",
                    self.source
                )))
            }
            Err(DescribeError::Other(why)) => {
                let why = self.served.consumer.context().trouble().unwrap_or(why);
                Err(SourceError::Away(format!("the cluster can't be asked about topic {name}: {why}")))
            }
        }
    }

    /// Returns once a question that was asked *after* this call has shown that the topic is still the same
    /// one: whatever was read before the call is then of this incarnation, since a topic that is made again
    /// never gets an id back. Calls that come together share a question.
    pub async fn verify(self: &Arc<Self>) -> Result<(), SourceError> {
        let ticket = self.tickets.fetch_add(1, Ordering::AcqRel) + 1;
        let mut verified = self.verified.lock().await;
        if *verified >= ticket {
            return Ok(());
        }
        let covered = self.tickets.load(Ordering::Acquire);
        self.describe_again().await?;
        *verified = covered;
        Ok(())
    }

    /// Looks where to read from, and assigns the partition there. Blocks.
    fn begin(&self, partition: i32, next_offset: u64) -> Result<Begin, SourceError> {
        let away = |error: ClientError| self.away(partition, &error);
        let slot = self.slot(partition)?;
        let bounds = self.bounds(partition)?;
        let known =
            self.settings.known.iter().any(|known| {
                known.source == self.source && known.partition.as_str() == partition.to_string()
            });
        let is_new = next_offset == 0 && !known;
        let committed = match &self.settings.group {
            Some(_) => watermarks::committed(&self.served.consumer, &self.settings.topic, partition),
            None => Ok(None),
        };
        let gap = match is_new {
            true => {
                let begin = self.begin_anew(partition, bounds, committed.map_err(away)?)?;
                (begin > 0).then(|| Gap {
                    from: 0,
                    to: begin,
                    kind: GapKind::NotAnEvent,
                    cause: Gap::BEFORE_START.to_owned(),
                })
            }
            false => {
                self.tell_moved(partition, next_offset, committed);
                self.gap_to(partition, next_offset, bounds)?
            }
        };
        let begin = gap.as_ref().map_or(next_offset, |gap| gap.to);
        let generation = slot.generation.fetch_add(1, Ordering::AcqRel) + 1;
        self.assign(&slot, partition, begin).map_err(|error| match error {
            NotRead::Client(error) => away(error),
            error => {
                SourceError::Away(format!("topic {}, partition {partition}: {error}", self.settings.topic))
            }
        })?;
        if self.served.deal.is_some() && next_offset > 0 {
            // Whoever had it before may not have come to tell the group.
            self.served.note_settled(partition, next_offset);
        }
        Ok(Begin { slot, generation, gap, next_offset: begin })
    }

    /// What retention took since; an error where the partition ends before.
    pub fn gap_to(
        &self,
        partition: i32,
        next_offset: u64,
        bounds: Bounds,
    ) -> Result<Option<Gap>, SourceError> {
        let topic = &self.settings.topic;
        let mut shorter_since = self.shorter_since.lock().unwrap_or_else(PoisonError::into_inner);
        if next_offset > bounds.end {
            let since = *shorter_since.entry(partition).or_insert_with(Instant::now);
            let sentence = format!(
                "topic {topic}, partition {partition} ends at offset {}, and everything below {next_offset} was decided",
                bounds.end
            );
            // A new leader may not know yet how far its followers had come.
            return Err(match since.elapsed() < DOUBT_TIME_MAX {
                true => SourceError::Away(sentence),
                false => SourceError::Changed(format!(
                    "{sentence}: records were lost by the cluster (an unclean leader election), or it was restored from \
                     earlier. What comes at those offsets now are other events"
                )),
            });
        }
        shorter_since.remove(&partition);
        Ok((next_offset < bounds.first).then(|| Gap {
            from: next_offset,
            to: bounds.first,
            kind: GapKind::Lost,
            cause: format!(
                "retention of topic {topic} overtook the flow: partition {partition} begins at offset {}",
                bounds.first
            ),
        }))
    }

    /// Where to begin in a partition of which our record has nothing.
    fn begin_anew(&self, partition: i32, bounds: Bounds, committed: Option<u64>) -> Result<u64, SourceError> {
        let KafkaSettings { topic, group, start, known, .. } = &self.settings;
        let is_added = usize::try_from(partition).is_ok_and(|number| number >= self.partitions_first);
        if is_added || known.iter().any(|known| known.source == self.source) {
            // The flow has read this topic before, and the partition came since.
            return Ok(bounds.first);
        }
        if let Some(start) = start {
            let consumer = &self.served.consumer;
            let offset = watermarks::start_offset(consumer, topic, partition, *start, bounds);
            let offset = offset.map_err(|error| self.away(partition, &error))?;
            if offset < bounds.first || offset > bounds.end {
                return Err(SourceError::Broken(format!(
                    "topic {topic}, partition {partition} holds the offsets {} to {}, and `start` says {offset}",
                    bounds.first, bounds.end
                )));
            }
            return Ok(offset);
        }
        let ask = "say where the flow begins: start = \"earliest\", \"latest\", a time or an offset";
        match committed.filter(|committed| *committed > 0) {
            Some(committed) => Err(SourceError::Broken(format!(
                "the flow has read nothing of topic {topic}, partition {partition}, and the group {} has committed \
                 offset {committed}: another consumer has used it. Its offset decides nothing here; {ask}",
                group.as_deref().unwrap_or_default()
            ))),
            None if bounds.first > 0 => Err(SourceError::Broken(format!(
                "the flow has read nothing of topic {topic}, partition {partition}, which begins at offset {} by now: {ask}",
                bounds.first
            ))),
            None => Ok(0),
        }
    }

    /// Somebody moved the group beyond what was decided: that is told, and moves nothing.
    fn tell_moved(&self, partition: i32, next_offset: u64, committed: Result<Option<u64>, ClientError>) {
        let KafkaSettings { topic, group, .. } = &self.settings;
        let group = group.as_deref().unwrap_or_default();
        match committed {
            Ok(Some(committed)) if committed > next_offset => (self.settings.tell)(Told {
                reason: reason::OFFSET_MOVED_OUTSIDE,
                partition,
                sentence: format!(
                    "the group {group} has committed offset {committed} of topic {topic}, partition {partition}, and \
                     decided is everything below {next_offset}: somebody moved it. The flow goes on at {next_offset}"
                ),
            }),
            Ok(_) => {}
            Err(error) => tracing::debug!(target: "recount::source",
                "the offset of the group {group} can't be read: {error}"),
        }
    }

    /// What the partition holds now. Blocks.
    pub fn bounds(&self, partition: i32) -> Result<Bounds, SourceError> {
        let bounds = watermarks::bounds(&self.served.consumer, &self.settings.topic, partition);
        bounds.map_err(|error| self.away(partition, &error))
    }

    pub(super) fn away(&self, partition: i32, error: &ClientError) -> SourceError {
        let why = self.served.consumer.context().trouble().unwrap_or_else(|| error.to_string());
        SourceError::Away(format!("topic {}, partition {partition}: {why}", self.settings.topic))
    }

    fn slot(&self, partition: i32) -> Result<Arc<Slot>, SourceError> {
        let mut slots = self.slots.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(slot) = slots.get(&partition) {
            return Ok(Arc::clone(slot));
        }
        let queue = PartitionQueue::split(&self.served.consumer, &self.name, partition).ok_or_else(|| {
            SourceError::Away(format!("topic {} has no partition {partition}", self.settings.topic))
        })?;
        let slot = Arc::new(Slot { queue, generation: AtomicU64::new(0), is_assigned: Mutex::new(false) });
        slots.insert(partition, Arc::clone(&slot));
        Ok(slot)
    }

    /// Reads the partition from `offset` on, wherever it was read before. Blocks.
    pub fn assign(&self, slot: &Slot, partition: i32, offset: u64) -> Result<(), NotRead> {
        let mut is_assigned = slot.is_assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(deal) = &self.served.deal {
            let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
            return deal.read(&self.served.consumer, partition, offset);
        }
        let consumer = &self.served.consumer;
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(offset).unwrap_or(i64::MAX));
        list.add_partition_offset(&self.settings.topic, partition, offset)?;
        if *is_assigned {
            consumer.incremental_unassign(&list)?;
            *is_assigned = false;
        }
        consumer.incremental_assign(&list)?;
        *is_assigned = true;
        Ok(())
    }

    /// Reads no more for a reader, unless a younger one has the partition.
    pub fn leave(&self, slot: &Slot, generation: u64, partition: i32) {
        let mut is_assigned = slot.is_assigned.lock().unwrap_or_else(PoisonError::into_inner);
        if slot.generation.load(Ordering::Acquire) != generation {
            return;
        }
        let consumer = &self.served.consumer;
        let left = match &self.served.deal {
            Some(deal) => deal.read_no_more(consumer, partition),
            None if !*is_assigned => return,
            None => {
                let mut list = TopicPartitionList::with_capacity(1);
                list.add_partition(&self.settings.topic, partition);
                consumer.incremental_unassign(&list)
            }
        };
        if let Err(error) = left {
            tracing::debug!(target: "recount::kafka", "partition {partition} could not be left: {error}");
        }
        *is_assigned = false;
    }

    /// The end of a partition as of the last answer to a fetch.
    pub fn known_end(&self, partition: i32) -> Option<u64> {
        super::native::known_end(&self.served.consumer, &self.name, partition)
    }
}
