//! One partition, read from where our own record says.

use super::gap_causes::{GapCauses, UNEXPLAINED};
use super::native::{Fetched, Record};
use super::source::{Begin, Slot, Topic, blocking};
use crate::settled::SettledPrefix;
use async_trait::async_trait;
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaErrorCode;
use recount_engine::source::Settled;
use recount_engine::{Delivery, Polled, SourceError, SourceReader, TakeLimits};
use recount_model::{Gap, GapKind};
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// The queue is looked at again after this time, told or not.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// A cluster that can't be reached is told again after so long.
const AWAY_AGAIN: Duration = Duration::from_secs(30);
/// Why positions carry no event is waited for so long.
const EXPLAINED_WITHIN: Duration = Duration::from_millis(1500);

/// An open partition.
pub(super) struct KafkaReader {
    topic: Arc<Topic>,
    partition: i32,
    slot: Arc<Slot>,
    generation: u64,
    /// After the last position that was taken from the queue.
    next_offset: u64,
    /// Taken from librdkafka and not looked at yet; at most one run.
    fetched: VecDeque<Fetched>,
    /// Looked at, and given out once the topic is known to be the same still.
    ready: Ready,
    settled: SettledPrefix,
    away_told: Option<Instant>,
    causes: GapCauses,
}

#[derive(Default)]
struct Ready {
    deliveries: Vec<Delivery>,
    gaps: Vec<Gap>,
    payload_bytes: usize,
    error: Option<RDKafkaErrorCode>,
}

impl Ready {
    fn is_empty(&self) -> bool {
        self.deliveries.is_empty() && self.gaps.is_empty()
    }

    fn note_gap(&mut self, from: u64, to: u64) {
        match self.gaps.last_mut() {
            Some(last) if last.to == from && last.cause == UNEXPLAINED => last.to = to,
            _ => self.gaps.push(Gap { from, to, kind: GapKind::NotAnEvent, cause: UNEXPLAINED.to_owned() }),
        }
    }
}

impl KafkaReader {
    pub fn new(topic: Arc<Topic>, partition: i32, begin: Begin) -> Self {
        let Begin { slot, generation, gap, next_offset } = begin;
        let from = gap.as_ref().map_or(next_offset, |gap| gap.from);
        Self {
            causes: GapCauses::new(&topic.settings.broker, &topic.settings.topic, partition),
            topic,
            partition,
            slot,
            generation,
            next_offset,
            fetched: VecDeque::new(),
            ready: Ready { gaps: gap.into_iter().collect(), ..Ready::default() },
            settled: SettledPrefix::starting_at(from),
            away_told: None,
        }
    }

    /// Takes over what librdkafka has, within the limits.
    fn fill(&mut self, limits: &TakeLimits) {
        let events_max = limits.events_max.max(1);
        while self.ready.deliveries.len() < events_max && self.ready.error.is_none() {
            let Some(fetched) = self.fetched.pop_front() else {
                let room = events_max - self.ready.deliveries.len();
                let fetched = &mut self.fetched;
                let some = &mut |one| fetched.push_back(one);
                match self.slot.queue.take(room, limits.payload_bytes_max, some) {
                    true => continue,
                    false => break,
                }
            };
            match fetched {
                Fetched::Error(error) => self.ready.error = Some(error),
                Fetched::End(end) => self.pass_over(end),
                Fetched::Record(record) if record.offset < self.next_offset => {}
                Fetched::Record(record) => {
                    let bytes = self.ready.payload_bytes + record.payload.len();
                    if bytes > limits.bytes_max && !self.ready.deliveries.is_empty() {
                        self.fetched.push_front(Fetched::Record(record));
                        break;
                    }
                    self.pass_over(record.offset);
                    self.next_offset = record.offset + 1;
                    self.ready.payload_bytes = bytes;
                    self.ready.deliveries.push(delivery(record));
                }
            }
        }
    }

    fn pass_over(&mut self, to: u64) {
        if to > self.next_offset {
            self.ready.note_gap(self.next_offset, to);
            self.next_offset = to;
        }
    }

    /// Gives out what is ready, once the topic is known to be the same as when the flow began.
    async fn give_out(&mut self) -> Result<Polled, SourceError> {
        self.topic.verify().await?;
        self.away_told = None;
        let Ready { deliveries, gaps, error, .. } = std::mem::take(&mut self.ready);
        self.ready.error = error;
        let gaps = self.explained(gaps).await;
        for gap in &gaps {
            self.settled.add(gap.from, gap.to);
        }
        Ok(Polled { deliveries, gaps, next_offset: self.next_offset, drained: false })
    }

    /// The gaps with what their raw batches say, where that can be asked soon.
    async fn explained(&mut self, gaps: Vec<Gap>) -> Vec<Gap> {
        if !self.causes.may_ask(&gaps) {
            return gaps;
        }
        let (question, asked) = (self.causes.question(), gaps.clone());
        let consumer = Arc::clone(&self.topic.served.consumer);
        let answer = blocking(move || question.ask(&consumer, &asked));
        match tokio::time::timeout(EXPLAINED_WITHIN, answer).await {
            Ok(Ok(Some(explained))) => explained,
            _ => {
                self.causes.leave_alone();
                gaps
            }
        }
    }

    /// What librdkafka said of this partition.
    async fn heed(&mut self, error: RDKafkaErrorCode) -> Result<(), SourceError> {
        let place = format!("topic {}, partition {}", self.topic.settings.topic, self.partition);
        match error {
            RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange => self.look_again().await,
            RDKafkaErrorCode::LogTruncation => Err(SourceError::Changed(format!(
                "{place}: the cluster lost records that it had given out, at or below offset {}: what comes at those \
                 offsets now are other events",
                self.next_offset
            ))),
            other => {
                // Where the topic is gone or another one, that is the better word.
                self.topic.verify().await?;
                Err(SourceError::Away(format!("{place}: {other}")))
            }
        }
    }

    /// The position is not there any more: retention took it, or the topic is another one.
    async fn look_again(&mut self) -> Result<(), SourceError> {
        self.topic.verify().await?;
        let (topic, slot) = (Arc::clone(&self.topic), Arc::clone(&self.slot));
        let (partition, next_offset) = (self.partition, self.next_offset);
        let gap = blocking(move || {
            let bounds = topic.bounds(partition)?;
            let gap = topic.gap_to(partition, next_offset, bounds)?;
            let begin = gap.as_ref().map_or(next_offset, |gap| gap.to);
            topic.assign(&slot, partition, begin).map_err(|error| {
                SourceError::Away(format!("partition {partition} can't be read from {begin} on: {error}"))
            })?;
            Ok::<_, SourceError>(gap)
        });
        if let Some(gap) = gap.await?? {
            self.fetched.clear();
            self.next_offset = gap.to;
            self.ready.gaps.push(gap);
        }
        Ok(())
    }

    /// A cluster that can't be reached is told now and then; meanwhile nothing comes, and nothing is lost.
    fn tell_away(&mut self) -> Result<(), SourceError> {
        let Some(why) = self.topic.served.consumer.context().trouble() else { return Ok(()) };
        if self.away_told.is_some_and(|told| told.elapsed() < AWAY_AGAIN) {
            return Ok(());
        }
        self.away_told = Some(Instant::now());
        Err(SourceError::Away(format!("topic {}: {why}", self.topic.settings.topic)))
    }
}

fn delivery(record: Record) -> Delivery {
    Delivery {
        offset: record.offset,
        payload: record.payload,
        payload_bytes: record.payload_bytes,
        headers: record.headers,
        broker_key: record.key,
        reported: None,
    }
}

#[async_trait]
impl SourceReader for KafkaReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let until = Instant::now() + Duration::from_millis(limits.wait_ms);
        loop {
            if self.slot.generation.load(Ordering::Acquire) != self.generation {
                return Err(SourceError::Away("the partition was opened anew".to_owned()));
            }
            self.fill(&limits);
            if !self.ready.is_empty() {
                return self.give_out().await;
            }
            if let Some(error) = self.ready.error {
                self.heed(error).await.inspect_err(|error| {
                    // One that is away is asked again; the same error must not be told for ever.
                    if matches!(error, SourceError::Away(_)) && !is_position_error(self.ready.error) {
                        self.ready.error = None;
                    }
                })?;
                self.ready.error = None;
                continue;
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                self.tell_away()?;
                return Ok(Polled { next_offset: self.next_offset, ..Polled::default() });
            }
            let _ = tokio::time::timeout(left.min(LOOK_AGAIN), self.slot.queue.wait()).await;
        }
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        for one in settled {
            self.settled.add(one.offset(), one.offset() + 1);
        }
        if self.slot.generation.load(Ordering::Acquire) == self.generation {
            self.topic.served.note_settled(self.partition, self.settled.next_offset());
        }
        Ok(())
    }

    async fn backlog(&mut self) -> Option<u64> {
        let end = self.topic.known_end(self.partition)?;
        Some(end.saturating_sub(self.next_offset))
    }
}

/// An error after which librdkafka reads no more until it is told where.
fn is_position_error(error: Option<RDKafkaErrorCode>) -> bool {
    matches!(error, Some(RDKafkaErrorCode::AutoOffsetReset | RDKafkaErrorCode::OffsetOutOfRange))
}

impl Drop for KafkaReader {
    fn drop(&mut self) {
        self.topic.leave(&self.slot, self.generation, self.partition);
    }
}
