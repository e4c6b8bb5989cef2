//! Sources: one in memory with several partitions, and a layer over any source that hands positions out
//! again, as brokers do, and looks at what is settled.

use crate::observe::read_books;
use crate::scene::Kind;
use crate::watched::Fate;
use crate::world::World;
use async_trait::async_trait;
use recount_engine::{
    Capabilities, Delivery, Polled, Settled, Source, SourceError, SourcePartition, SourceReader, TakeLimits,
};
use recount_model::{Gap, GapKind, Partition, PartitionId, SourceId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

/// In so many of a hundred openings a broker begins earlier than asked: its committed offset was behind.
const BEGINS_EARLIER_PERCENT: u64 = 50;
/// In so many of a hundred takes something comes a second time.
const COMES_AGAIN_PERCENT: u64 = 8;

/// The events of a world, straight from memory: as a file has them, it drains.
pub struct MemorySource {
    /// The world.
    pub world: Arc<World>,
}

/// The incarnation of the source in memory.
pub fn memory_source_id() -> SourceId {
    SourceId::new("memory:1")
}

#[async_trait]
impl Source for MemorySource {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ordered: true,
            positions: true,
            redelivers: true,
            replayable: true,
            tells_lost: false,
            commits_offset: false,
        }
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        let partition = |name: usize| SourcePartition {
            source: memory_source_id(),
            partition: Partition::new(name.to_string()),
            place: "memory".into(),
        };
        Ok((0..self.world.items.len()).map(partition).collect())
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let index = partition.partition.as_str().parse().unwrap_or(0);
        Ok(Box::new(MemoryReader { world: Arc::clone(&self.world), index, next_offset }))
    }
}

struct MemoryReader {
    world: Arc<World>,
    index: usize,
    next_offset: u64,
}

#[async_trait]
impl SourceReader for MemoryReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let items = &self.world.items[self.index];
        let published = self.world.published_of(self.index);
        if self.next_offset >= published && published < items.len() as u64 {
            tokio::time::sleep(Duration::from_millis(limits.wait_ms)).await;
        }
        let mut polled = Polled::default();
        while self.next_offset < published && polled.deliveries.len() < limits.events_max {
            let item = &items[self.next_offset as usize];
            let offset = self.next_offset;
            if item.kind == Kind::Blank {
                let cause = "a blank position".to_owned();
                polled.gaps.push(Gap { from: offset, to: offset + 1, kind: GapKind::NotAnEvent, cause });
            } else {
                polled.deliveries.push(delivery(offset, Arc::clone(&item.payload)));
            }
            self.next_offset += 1;
        }
        polled.next_offset = self.next_offset;
        polled.drained = self.next_offset == items.len() as u64;
        Ok(polled)
    }

    async fn settle(&mut self, _: Vec<Settled>) -> Result<(), SourceError> {
        Ok(())
    }

    async fn backlog(&mut self) -> Option<u64> {
        Some(self.world.published_of(self.index).saturating_sub(self.next_offset))
    }
}

fn delivery(offset: u64, payload: Arc<[u8]>) -> Delivery {
    let payload_bytes = payload.len() as u64;
    Delivery { offset, payload, payload_bytes, headers: Vec::new(), broker_key: None, reported: None }
}

/// Stands in where events are only decided anew.
pub struct NoSource;

#[async_trait]
impl Source for NoSource {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ordered: true,
            positions: true,
            redelivers: false,
            replayable: false,
            tells_lost: false,
            commits_offset: false,
        }
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: &SourcePartition, _: u64) -> Result<Box<dyn SourceReader>, SourceError> {
        Err(SourceError::Broken("nothing is read".to_owned()))
    }
}

/// Any source, as one process sees it.
pub struct WatchedSource {
    /// The source.
    pub inner: Arc<dyn Source>,
    /// Whose.
    pub fate: Fate,
    /// Whether a position that was decided holds another event when it comes again.
    pub reuses_positions: bool,
}

#[async_trait]
impl Source for WatchedSource {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        self.fate.go_on().await;
        self.inner.partitions().await
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        self.fate.pass_time(1).await;
        let world = &self.fate.world;
        let begins_earlier = self.reuses_positions || world.below(100) < BEGINS_EARLIER_PERCENT;
        let back = if begins_earlier { world.below(8).max(1).min(next_offset) } else { 0 };
        let from = next_offset - back;
        world.tell(from, || {
            format!("process {}: source opened at {from}, asked for {next_offset}", self.fate.process)
        });
        let at = PartitionId {
            flow: crate::scene::flow_name(),
            source: partition.source.clone(),
            partition: partition.partition.clone(),
        };
        Ok(Box::new(WatchedReader {
            inner: self.inner.open(partition, from).await?,
            fate: self.fate.clone(),
            at,
            asked_for: next_offset,
            reuses_positions: self.reuses_positions,
            delivered: BTreeMap::new(),
            reused: BTreeSet::new(),
        }))
    }
}

struct WatchedReader {
    inner: Box<dyn SourceReader>,
    fate: Fate,
    at: PartitionId,
    asked_for: u64,
    reuses_positions: bool,
    delivered: BTreeMap<u64, Arc<[u8]>>,
    reused: BTreeSet<u64>,
}

impl WatchedReader {
    /// Puts another event into a position that was decided. Of one that was adopted as unrecorded nobody could
    /// tell.
    fn reuse_a_position(&mut self, polled: &mut Polled) {
        if self.fate.world.lock().has_adopted {
            return;
        }
        let decided = |d: &&mut Delivery| d.offset < self.asked_for;
        let Some(delivery) = polled.deliveries.iter_mut().find(decided) else { return };
        let partition: usize = self.at.partition.as_str().parse().unwrap_or(0);
        let offset = delivery.offset;
        delivery.payload = self.fate.world.items[partition][offset as usize].another_at_the_same_place();
        delivery.payload_bytes = delivery.payload.len() as u64;
        self.reused.insert(offset);
        self.reuses_positions = false;
        self.fate.world.count("position used again for another event");
        self.fate.world.tell(offset, || format!("{}/{offset} now holds another event", self.at));
    }

    /// Some of what was delivered comes again, before what is new.
    fn deliver_again(&mut self, polled: &mut Polled) {
        if self.delivered.is_empty() || self.fate.world.below(100) >= COMES_AGAIN_PERCENT {
            return;
        }
        let nth = self.fate.world.below(self.delivered.len() as u64) as usize;
        let again = self.delivered.iter().skip(nth).take(2);
        let again: Vec<_> = again.map(|(offset, payload)| delivery(*offset, Arc::clone(payload))).collect();
        self.fate.world.count("delivered again while the flow runs");
        self.fate.world.tell(nth as u64, || {
            let offsets = again.iter().map(|d| d.offset).collect::<Vec<_>>();
            format!("source delivers {offsets:?} of {} again", self.at)
        });
        polled.deliveries.splice(0..0, again);
    }

    fn look_at(&self, settled: &Settled) {
        let world = &self.fate.world;
        let offset = settled.offset();
        world.tell(offset, || format!("process {} settles {}/{offset}", self.fate.process, self.at));
        if self.reused.contains(&offset) {
            world.violated(format!(
                "{}/{offset} was acknowledged by position alone: it holds another event than the one decided",
                self.at
            ));
        }
        let position = (self.at.clone(), offset);
        let mut is_recorded = world.lock().recorded.contains(&position);
        if !is_recorded && let Ok(Some(books)) = read_books(world) {
            // A process that died before it heard of it may have written it all the same.
            world.learn(&books);
            is_recorded = world.lock().recorded.contains(&position);
        }
        if !is_recorded {
            world
                .violated(format!("I1: {}/{offset} was settled before the ledger had its decision", self.at));
        }
    }
}

#[async_trait]
impl SourceReader for WatchedReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        self.fate.pass_time(2).await;
        let mut polled = self.inner.take(limits).await?;
        self.fate.go_on().await;
        for delivery in &polled.deliveries {
            if delivery.offset < self.asked_for {
                self.fate.world.count("delivered again after a start");
            }
        }
        if self.reuses_positions {
            self.reuse_a_position(&mut polled);
        }
        let again = |d: &Delivery| (d.offset, Arc::clone(&d.payload));
        let new: Vec<_> = polled.deliveries.iter().map(again).collect();
        self.deliver_again(&mut polled);
        self.delivered.extend(new);
        Ok(polled)
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        self.fate.go_on().await;
        for one in &settled {
            self.look_at(one);
        }
        self.inner.settle(settled).await
    }

    async fn backlog(&mut self) -> Option<u64> {
        if self.fate.is_dead() {
            return None;
        }
        self.inner.backlog().await
    }
}
