//! Somebody else's consumer group, looked at from beside: what it has committed, and who is in it. Nothing here
//! joins the group or commits anything under its name.

use super::client::{Consumer, consumer};
use super::group_notes::{GroupNotes, NotesError};
use super::native::c_name;
use super::native_group::describe_group;
use super::settings::KafkaBroker;
use super::watermarks;
use super::witness::KafkaSourceWitness;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};
use recount_audit::{GroupLook, GroupLooks, GroupMove, GroupWitness, SourceWitness, WitnessError};
use recount_model::{FlowName, PartitionId, Timestamp};
use std::cell::OnceCell;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// Between two looks, at least and at most; and so many of them within the shortest time that matters.
const LOOK_EVERY_MS_MIN: u64 = 250;
const LOOK_EVERY_MS_MAX: u64 = 30_000;
const LOOKS_A_TIME: u64 = 10;
/// What counts is measured from when an audit began, and a look is of a moment later: for so long a question may
/// take, before the look that it is measured by has gone.
const KEEP_LONGER_MS: u64 = 60_000;

/// Which group, and how it is judged.
#[derive(Debug, Clone)]
pub struct GroupSettings {
    /// The flow that observes its consumer.
    pub flow: FlowName,
    /// The cluster.
    pub broker: KafkaBroker,
    /// The topic.
    pub topic: String,
    /// Whose offsets.
    pub group: String,
    /// How far back its status looks.
    pub window_ms: u64,
    /// For how long after the group has passed an event its effect may be missing.
    pub within_ms: u64,
    /// The ledger's folder, where what was seen is kept.
    pub folder: PathBuf,
}

impl GroupSettings {
    /// How often somebody is to look.
    pub fn look_every_ms(&self) -> u64 {
        let shortest = self.window_ms.min(self.within_ms);
        (shortest / LOOKS_A_TIME).clamp(LOOK_EVERY_MS_MIN, LOOK_EVERY_MS_MAX)
    }

    /// Older looks than this are of no use.
    fn keep_ms(&self) -> u64 {
        self.window_ms.max(self.within_ms).saturating_add(KEEP_LONGER_MS)
    }
}

/// What was seen of all partitions at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// The partitions of the topic as it is now.
    pub partitions: BTreeMap<PartitionId, GroupLook>,
    /// Its consumers never join it.
    pub is_simple: bool,
}

/// A group of a Kafka cluster.
pub struct KafkaGroup {
    settings: GroupSettings,
    topic: KafkaSourceWitness,
    consumer: OnceCell<Consumer>,
}

impl KafkaGroup {
    /// Connects only when it is asked.
    pub fn new(settings: GroupSettings) -> Self {
        let GroupSettings { flow, broker, topic, .. } = &settings;
        let topic = KafkaSourceWitness::new(flow.clone(), broker.clone(), topic, 0);
        Self { settings, topic, consumer: OnceCell::new() }
    }

    /// What it was made from.
    pub fn settings(&self) -> &GroupSettings {
        &self.settings
    }

    /// A client that names the group, as questions about its offsets must; it never subscribes, so it never joins.
    fn consumer(&self) -> Result<&Consumer, WitnessError> {
        if let Some(consumer) = self.consumer.get() {
            return Ok(consumer);
        }
        let made = consumer(&self.settings.broker, Some(&self.settings.group), 1);
        let made = made.map_err(|error| WitnessError::Unreachable(error.to_string()))?;
        Ok(self.consumer.get_or_init(|| made))
    }

    /// Looks now: what is committed first, then how far the topic goes, so that no lag is negative.
    pub fn look(&self, now: impl Fn() -> Timestamp) -> Result<Seen, WitnessError> {
        let partitions = self.topic.partitions()?;
        let consumer = self.consumer()?;
        let committed = self.committed(consumer, &partitions).map_err(|error| self.away(&error))?;
        let at = now();
        let name = c_name(&self.settings.group).ok_or_else(|| {
            WitnessError::Unreachable(format!("{:?} is not the name of a group", self.settings.group))
        })?;
        let described = describe_group(consumer, &name, watermarks::answer_wait(consumer));
        let described = described.map_err(|why| self.away_because(&why))?;
        // Of a group that nobody knows nothing was ever committed, and nobody is in it.
        let is_known = committed.values().any(Option::is_some);
        let members = described.members.or((!is_known).then_some(0));
        let mut seen = BTreeMap::new();
        for partition in partitions {
            let Ok(number) = partition.partition.as_str().parse() else { continue };
            let bounds = watermarks::bounds(consumer, &self.settings.topic, number);
            let bounds = bounds.map_err(|error| self.away(&error))?;
            let committed = committed.get(&number).copied().flatten();
            let look = GroupLook { at, committed, first: bounds.first, end: bounds.end, members };
            seen.insert(partition, look);
        }
        consumer.context().is_well();
        Ok(Seen { partitions: seen, is_simple: described.is_simple })
    }

    fn committed(
        &self,
        consumer: &Consumer,
        partitions: &[PartitionId],
    ) -> Result<BTreeMap<i32, Option<u64>>, ClientError> {
        let mut asked = TopicPartitionList::with_capacity(partitions.len());
        for number in partitions.iter().filter_map(|at| at.partition.as_str().parse().ok()) {
            asked.add_partition(&self.settings.topic, number);
        }
        let found = consumer.committed_offsets(asked, watermarks::answer_wait(consumer))?;
        let offset = |found: &rdkafka::topic_partition_list::TopicPartitionListElem<'_>| {
            found.error()?;
            let committed = match found.offset() {
                Offset::Offset(offset) => u64::try_from(offset).ok(),
                _ => None,
            };
            Ok((found.partition(), committed))
        };
        found.elements().iter().map(offset).collect()
    }

    fn away(&self, error: &ClientError) -> WitnessError {
        self.away_because(&error.to_string())
    }

    fn away_because(&self, otherwise: &str) -> WitnessError {
        let heard = self.consumer.get().and_then(|consumer| consumer.context().trouble());
        let (group, servers) = (&self.settings.group, &self.settings.broker.servers);
        let why = heard.unwrap_or_else(|| otherwise.to_owned());
        WitnessError::Unreachable(format!("{servers} can't be asked about the group {group}: {why}"))
    }

    /// Keeps what was seen beside what was seen before; gives back which offsets were moved since.
    pub fn note(&self, seen: &Seen) -> Result<Vec<GroupMove>, NotesError> {
        let GroupSettings { folder, flow, group, .. } = &self.settings;
        let mut notes = GroupNotes::open(folder)?;
        let near_ms = 3 * self.settings.look_every_ms();
        notes.note(flow, group, seen, self.settings.keep_ms(), near_ms)
    }
}

/// The group, as the audit asks it.
pub struct KafkaGroupWitness {
    group: KafkaGroup,
    now: fn() -> Timestamp,
}

impl KafkaGroupWitness {
    /// Connects only when it is asked.
    pub fn new(settings: GroupSettings, now: fn() -> Timestamp) -> Self {
        Self { group: KafkaGroup::new(settings), now }
    }
}

impl GroupWitness for KafkaGroupWitness {
    fn group(&self) -> &str {
        &self.group.settings.group
    }

    fn looks(&self) -> Result<GroupLooks, WitnessError> {
        let seen = self.group.look(self.now)?;
        // A folder that can only be read is no reason to tell nothing: what was seen before is told all the same.
        if let Err(error) = self.group.note(&seen) {
            tracing::debug!(target: "recount::kafka", "what was seen of a group is not kept: {error}");
        }
        let GroupSettings { folder, flow, group, window_ms, .. } = &self.group.settings;
        let unreadable = |error: NotesError| {
            WitnessError::Unreachable(format!("what was seen of the group {group} can't be read: {error}"))
        };
        let mut notes = GroupNotes::read(folder, flow, group).map_err(unreadable)?;
        let mut partitions = BTreeMap::new();
        for (at, look) in seen.partitions {
            let mut looks = notes.looks.remove(&at).unwrap_or_default();
            looks.retain(|before| before.at < look.at);
            looks.push(look);
            partitions.insert(at, looks);
        }
        Ok(GroupLooks { group: group.clone(), window_ms: *window_ms, partitions, moves: notes.moves })
    }
}
