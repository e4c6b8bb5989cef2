//! A topic of which this process has a part, dealt by the consumer group.

use super::deal::{Deal, is_member};
use super::source::{Topic, blocking};
use super::watermarks;
use rdkafka::consumer::{CommitMode, Consumer as _};
use rdkafka::{Offset, TopicPartitionList};
use recount_engine::SourceError;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

/// How long the question may take how many members the group has; it is only for a message.
const MEMBERS_WAIT: Duration = Duration::from_secs(2);
/// What keeps the group from dealing is told again after so long.
const TROUBLE_AGAIN: Duration = Duration::from_secs(30);

/// What was told of having nothing to do.
#[derive(Debug, Default)]
pub(super) struct Standby {
    is_told: bool,
    trouble_told: Option<Instant>,
}

impl Topic {
    /// The partitions that the group deals to this process.
    pub(super) async fn dealt(self: &Arc<Self>, deal: &Deal) -> Result<Vec<i32>, SourceError> {
        let (topic, group) = (&self.settings.topic, self.settings.group.as_deref().unwrap_or_default());
        let told = deal.told().map_err(|why| {
            let member = self.settings.membership.as_ref().map_or("", |membership| membership.member.as_str());
            SourceError::Taken(format!(
                "this process is no member of the group {group} any more: another one reads topic {topic} as the member \
                 {member} ({why}). Each process needs a member id of its own: give each a ledger folder of its own, or \
                 write `member` in the flow's `source`"
            ))
        })?;
        if told.as_ref().is_none_or(Vec::is_empty) {
            self.tell_trouble();
        }
        let Some(partitions) = told else { return Ok(Vec::new()) };
        let is_news = {
            let mut standby = self.told_standby.lock().unwrap_or_else(PoisonError::into_inner);
            let is_news = partitions.is_empty() && !standby.is_told;
            standby.is_told = partitions.is_empty();
            is_news
        };
        if is_news {
            tokio::spawn(tell_standby(Arc::clone(self)));
        }
        Ok(partitions)
    }

    fn tell_trouble(&self) {
        let Some(why) = self.served.consumer.context().trouble() else { return };
        let mut standby = self.told_standby.lock().unwrap_or_else(PoisonError::into_inner);
        if standby.trouble_told.is_none_or(|told| told.elapsed() >= TROUBLE_AGAIN) {
            standby.trouble_told = Some(Instant::now());
            tracing::warn!(target: "recount::source", "topic {}: the group deals nothing to this process: {why}",
                self.settings.topic);
        }
    }

    /// Asks the group's coordinator whether this process is a member of the current generation, and looks whether
    /// the partition is among what that generation deals to it. The question is a commit of the offset that is
    /// committed: a member that was thrown out is refused. Blocks.
    pub(super) fn confirm(&self, partition: i32) -> Result<bool, SourceError> {
        let Some(deal) = &self.served.deal else { return Ok(true) };
        if !deal.has(partition) {
            return Ok(false);
        }
        let (consumer, topic) = (&self.served.consumer, &self.settings.topic);
        let committed = watermarks::committed(consumer, topic, partition);
        let committed = committed.map_err(|error| self.away(partition, &error))?.unwrap_or(0);
        let mut list = TopicPartitionList::with_capacity(1);
        let offset = Offset::Offset(i64::try_from(committed).unwrap_or(i64::MAX));
        let asked = list.add_partition_offset(topic, partition, offset);
        let answer = asked.and_then(|()| consumer.commit(&list, CommitMode::Sync));
        let is_member = is_member(answer).map_err(|error| self.away(partition, &error))?;
        // A partition that was taken away is not given back before this process has answered.
        Ok(is_member && deal.has(partition) && !consumer.assignment_lost())
    }
}

/// Nothing to do is no error, and must not look like one.
async fn tell_standby(topic: Arc<Topic>) {
    let asked = {
        let topic = Arc::clone(&topic);
        blocking(move || {
            let group = topic.settings.group.clone().unwrap_or_default();
            let consumer = &topic.served.consumer;
            let members = consumer.fetch_group_list(Some(&group), MEMBERS_WAIT).ok();
            members.and_then(|list| list.groups().first().map(|group| group.members().len()))
        })
    };
    let name = &topic.settings.topic;
    let count = topic.partitions_first;
    match asked.await.ok().flatten() {
        Some(members) => tracing::info!(target: "recount::source",
            "has no partition of topic {name} now: {members} members share {count} partitions; stands by"),
        None => tracing::info!(target: "recount::source",
            "has no partition of topic {name} now: other members share its {count} partitions; stands by"),
    }
}
