//! Questions to the cluster about one partition: its bounds, the offset of a time, the group's offset. All of
//! them block, for a bounded time.

use super::client::Consumer;
use super::settings::KafkaStart;
use rdkafka::consumer::Consumer as _;
use rdkafka::error::KafkaError as ClientError;
use rdkafka::{Offset, TopicPartitionList};
use std::time::Duration;

/// How long an answer may take.
pub(super) const ANSWER_WAIT: Duration = Duration::from_secs(10);
/// How long an answer may take while the cluster is known to be away: whoever asks may be about to stop.
pub(super) const AWAY_ANSWER_WAIT: Duration = Duration::from_secs(2);

/// As long as an answer may take now.
pub(super) fn answer_wait(consumer: &Consumer) -> Duration {
    match consumer.context().trouble() {
        Some(_) => AWAY_ANSWER_WAIT,
        None => ANSWER_WAIT,
    }
}

/// What a partition holds: `first..end`. The end is the last stable offset: what a transaction that is still
/// open has written lies beyond it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Bounds {
    pub first: u64,
    pub end: u64,
}

pub(super) fn bounds(consumer: &Consumer, topic: &str, partition: i32) -> Result<Bounds, ClientError> {
    let (first, end) = consumer.fetch_watermarks(topic, partition, answer_wait(consumer))?;
    Ok(Bounds { first: u64::try_from(first).unwrap_or(0), end: u64::try_from(end).unwrap_or(0) })
}

/// The first offset to read, where a flow begins.
pub(super) fn start_offset(
    consumer: &Consumer,
    topic: &str,
    partition: i32,
    start: KafkaStart,
    bounds: Bounds,
) -> Result<u64, ClientError> {
    Ok(match start {
        KafkaStart::Earliest => bounds.first,
        KafkaStart::Latest => bounds.end,
        KafkaStart::Offset(offset) => offset,
        KafkaStart::Time(unix_ms) => {
            let mut times = TopicPartitionList::with_capacity(1);
            times.add_partition_offset(topic, partition, Offset::Offset(unix_ms))?;
            let found = consumer.offsets_for_times(times, answer_wait(consumer))?;
            match found.find_partition(topic, partition).map(|found| (found.error(), found.offset())) {
                Some((Ok(()), Offset::Offset(offset))) => u64::try_from(offset).unwrap_or(0),
                Some((Err(error), _)) => return Err(error),
                // Nothing is that young.
                _ => bounds.end,
            }
        }
    })
}

/// What the group has committed of a partition; `None` where it has nothing.
pub(super) fn committed(
    consumer: &Consumer,
    topic: &str,
    partition: i32,
) -> Result<Option<u64>, ClientError> {
    let mut asked = TopicPartitionList::with_capacity(1);
    asked.add_partition(topic, partition);
    let found = consumer.committed_offsets(asked, answer_wait(consumer))?;
    let Some(found) = found.find_partition(topic, partition) else { return Ok(None) };
    found.error()?;
    Ok(match found.offset() {
        Offset::Offset(offset) => u64::try_from(offset).ok(),
        _ => None,
    })
}
