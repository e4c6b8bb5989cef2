//! What the consumer group deals to this process, and how a partition that it takes away is given back.
//!
//! librdkafka asks to have two things answered: partitions given (answered at once; where each is read from is our
//! own record's to say, when its loop begins) and partitions taken away (answered once their loops have ended, or
//! after [`DRAIN_MAX`]: until then nobody else gets them). Any call that assigns or unassigns counts as the answer
//! while it waits for one, so all of them go through here.

use super::client::{Consumer, Context};
use rdkafka::consumer::{BaseConsumer, Consumer as _};
use rdkafka::error::KafkaError as ClientError;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeSet;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// How long the loops of partitions that are taken away have to end in order. After that the partitions are given
/// back all the same: what such a loop still has under way fails at its claim once a successor took the partition.
const DRAIN_MAX: Duration = Duration::from_secs(5);

/// What this process has of its topic.
#[derive(Debug)]
pub(super) struct Deal {
    topic: String,
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    /// Dealt to this process.
    mine: BTreeSet<i32>,
    /// Told to the flow, whose loops may run.
    told: BTreeSet<i32>,
    /// Read by librdkafka.
    read: BTreeSet<i32>,
    /// Still read, and by nobody: to be unassigned with the next answer.
    idle: BTreeSet<i32>,
    /// Taken away and not given back yet.
    leaving: Option<Leaving>,
    /// The group has dealt at least once.
    was_dealt: bool,
    /// No loop runs any more: what is taken away is given back at once.
    closes: bool,
    fatal: Option<String>,
}

#[derive(Debug)]
struct Leaving {
    partitions: BTreeSet<i32>,
    until: Instant,
}

/// Why a partition can't be read now.
#[derive(Debug)]
pub(super) enum NotRead {
    /// It is not this process's.
    NotMine,
    /// Others are being given back at this moment.
    Busy,
    /// librdkafka refuses.
    Client(ClientError),
}

impl From<ClientError> for NotRead {
    fn from(error: ClientError) -> Self {
        Self::Client(error)
    }
}

impl std::fmt::Display for NotRead {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NotMine => f.write_str("the group has dealt the partition to another process"),
            Self::Busy => f.write_str("other partitions are being given back to the group"),
            Self::Client(error) => error.fmt(f),
        }
    }
}

impl Deal {
    pub fn new(topic: &str) -> Self {
        Self { topic: topic.to_owned(), state: Mutex::default(), changed: Notify::new() }
    }

    /// The partitions to run, of which each is told to the flow from now on; none before the group has dealt.
    /// The error is one after which librdkafka goes on no more.
    pub fn told(&self) -> Result<Option<Vec<i32>>, String> {
        let mut state = self.lock();
        if let Some(fatal) = &state.fatal {
            return Err(fatal.clone());
        }
        let mine = state.mine.clone();
        state.told.extend(&mine);
        Ok(state.was_dealt.then(|| mine.into_iter().collect()))
    }

    /// Returns once that may be otherwise.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Whether the partition is this process's, as far as librdkafka was told.
    pub fn has(&self, partition: i32) -> bool {
        self.lock().mine.contains(&partition)
    }

    /// Whether the group's offset of the partition is this process's to write: also until it is given back.
    pub fn may_commit(&self, partition: i32) -> bool {
        let state = self.lock();
        let is_leaving =
            state.leaving.as_ref().is_some_and(|leaving| leaving.partitions.contains(&partition));
        is_leaving || state.mine.contains(&partition)
    }

    /// The loop of a partition has ended.
    pub fn left(&self, partition: i32) {
        let mut state = self.lock();
        state.told.remove(&partition);
        if let Some(leaving) = &mut state.leaving {
            leaving.partitions.remove(&partition);
        }
    }

    /// librdkafka goes on no more.
    pub fn ends(&self, why: impl FnOnce() -> String) {
        let mut state = self.lock();
        if state.fatal.is_none() {
            state.fatal = Some(why());
            self.changed.notify_one();
        }
    }

    /// No loop runs any more.
    pub fn close(&self) {
        self.lock().closes = true;
    }

    /// Whether partitions wait to be given back.
    pub fn is_leaving(&self) -> bool {
        self.lock().leaving.is_some()
    }

    /// Gives back what was taken away, once its loops have ended or had their time.
    pub fn give_back_if_due(&self, consumer: &Consumer) {
        let mut state = self.lock();
        let Some(leaving) = &state.leaving else { return };
        let is_due = leaving.partitions.is_empty()
            || leaving.until <= Instant::now()
            || state.closes
            || consumer.assignment_lost();
        if is_due {
            if !leaving.partitions.is_empty() {
                tracing::info!(target: "recount::source", partitions = ?leaving.partitions,
                    "given back to the group before their loops have ended: what is under way in them may be done again by another process, and is refused here");
            }
            state.leaving = None;
            self.unassign(&mut state, consumer);
        }
    }

    /// librdkafka's word on a rebalance, which waits for an answer.
    pub fn rebalance(
        &self,
        consumer: &BaseConsumer<Context>,
        what: RDKafkaRespErr,
        list: &TopicPartitionList,
    ) {
        let named = list.elements();
        let named = named.iter().filter(|one| one.topic() == self.topic).map(|one| one.partition());
        let named: BTreeSet<i32> = named.collect();
        let mut state = self.lock();
        if what == RDKafkaRespErr::RD_KAFKA_RESP_ERR__ASSIGN_PARTITIONS {
            tracing::debug!(target: "recount::source", topic = self.topic, partitions = ?named, "the group deals");
            state.was_dealt = true;
            state.mine.extend(named);
            // Nothing is read before its loop says from where.
            if let Err(error) = consumer.incremental_assign(&TopicPartitionList::new()) {
                tracing::debug!(target: "recount::kafka", "partitions could not be taken over: {error}");
            }
        } else {
            let is_lost = consumer.assignment_lost();
            tracing::debug!(target: "recount::source", topic = self.topic, partitions = ?named, is_lost, "the group takes away");
            state.mine.retain(|partition| !named.contains(partition));
            let to_end: BTreeSet<i32> = named.intersection(&state.told).copied().collect();
            if is_lost || state.closes || to_end.is_empty() {
                state.leaving = None;
                self.unassign(&mut state, consumer);
            } else {
                state.leaving = Some(Leaving { partitions: to_end, until: Instant::now() + DRAIN_MAX });
            }
        }
        drop(state);
        self.changed.notify_one();
    }

    /// The answer to partitions taken away: also where none of them was read.
    fn unassign(&self, state: &mut State, consumer: &BaseConsumer<Context>) {
        let mut list = TopicPartitionList::new();
        for partition in &state.read {
            if !state.mine.contains(partition) || state.idle.contains(partition) {
                list.add_partition(&self.topic, *partition);
            }
        }
        if let Err(error) = consumer.incremental_unassign(&list) {
            tracing::debug!(target: "recount::kafka", "partitions could not be given back: {error}");
        }
        for one in list.elements() {
            state.read.remove(&one.partition());
        }
        state.idle.clear();
    }

    /// Reads a partition from an offset on, wherever it was read before.
    pub fn read(&self, consumer: &Consumer, partition: i32, offset: Offset) -> Result<(), NotRead> {
        let mut state = self.lock();
        if !state.mine.contains(&partition) {
            return Err(NotRead::NotMine);
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition_offset(&self.topic, partition, offset)?;
        if state.read.contains(&partition) {
            if state.leaving.is_some() {
                return Err(NotRead::Busy);
            }
            consumer.incremental_unassign(&list)?;
            state.read.remove(&partition);
        }
        consumer.incremental_assign(&list)?;
        state.read.insert(partition);
        state.idle.remove(&partition);
        Ok(())
    }

    /// Reads a partition no more.
    pub fn read_no_more(&self, consumer: &Consumer, partition: i32) -> Result<(), ClientError> {
        let mut state = self.lock();
        if !state.read.contains(&partition) {
            return Ok(());
        }
        if state.leaving.is_some() {
            state.idle.insert(partition);
            return Ok(());
        }
        let mut list = TopicPartitionList::with_capacity(1);
        list.add_partition(&self.topic, partition);
        state.read.remove(&partition);
        consumer.incremental_unassign(&list)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the coordinator's answer to a commit says of whether this process is a member of the group as it is now.
pub(super) fn is_member(answer: Result<(), ClientError>) -> Result<bool, ClientError> {
    let Err(error) = answer else { return Ok(true) };
    match error.rdkafka_error_code() {
        Some(
            RDKafkaErrorCode::UnknownMemberId
            | RDKafkaErrorCode::IllegalGeneration
            | RDKafkaErrorCode::FencedInstanceId,
        ) => Ok(false),
        _ => Err(error),
    }
}
