//! The flow's source, with each event held back until its report is there or the consumer is past it.

use super::partition::{PartitionState, Release};
use super::said::recorded;
use super::{FlowReports, PartitionReports, lock};
use async_trait::async_trait;
use recount_checks::RawEvent;
use recount_engine::{
    Capabilities, Delivery, Polled, Settled, Source, SourceError, SourcePartition, SourceReader, TakeLimits,
};
use recount_model::{Gap, GapKind, OffsetSet, PartitionId, Timestamp, reason};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Events that are held back at a time, at most; nothing more is read beyond.
const HELD_BACK_MAX: usize = 10_000;
/// The same in payload bytes.
const HELD_BACK_BYTES_MAX: usize = 32 * 1024 * 1024;
/// How often the source is looked at for more while it has nothing.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// Unreported events that are told in full within one window of the log.
const LINES_A_WINDOW: usize = 10;
const WINDOW: Duration = Duration::from_secs(10);

/// A source whose events carry the verdicts that were reported.
pub struct ReportedSource {
    inner: Arc<dyn Source>,
    flow: Arc<FlowReports>,
}

impl ReportedSource {
    /// Holds back the events of `inner`.
    pub fn new(inner: Arc<dyn Source>, flow: Arc<FlowReports>) -> Self {
        Self { inner, flow }
    }

    /// What was kept of the partition, and what the ledger has decided of it: under the lock of its posts, so
    /// that none is taken in between.
    async fn take_up(&self, at: &PartitionId) -> Result<Arc<PartitionReports>, SourceError> {
        let settings = &self.flow.settings;
        let known = self.flow.partition(&at.partition).filter(|known| known.at == *at);
        let posting = match &known {
            Some(known) => Some(known.posting.lock().await),
            None => None,
        };
        let mark = {
            let at = at.clone();
            settings.book.with(move |store| store.mark(&at)).await
        };
        let mark = mark.map_err(|error| SourceError::Away(error.to_string()))?;
        let mut decided = OffsetSet::new();
        if let Some(mark) = mark {
            decided = mark.decided_above;
            decided.insert_range(0, mark.next_offset);
        }
        let kept = {
            let (at, decided) = (at.clone(), decided.clone());
            settings.store.ask(move |store| store.take_up(&at, |offset| decided.contains(offset))).await
        };
        let kept = kept.map_err(|error| SourceError::Away(error.to_string()))?;
        let place_no = kept.place_no;
        let mut state = PartitionState::new(kept, decided, Instant::now());
        if let Some(known) = known.as_ref().filter(|_| posting.is_some()) {
            let mut current = known.state();
            state.taken_up = current.taken_up + 1;
            *current = state;
            drop(current);
            return Ok(Arc::clone(known));
        }
        let partition = Arc::new(PartitionReports {
            at: at.clone(),
            place_no,
            state: Mutex::new(state),
            posting: tokio::sync::Mutex::default(),
            changed: Notify::new(),
        });
        lock(&self.flow.partitions).insert(at.partition.clone(), Arc::clone(&partition));
        Ok(partition)
    }
}

#[async_trait]
impl Source for ReportedSource {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        self.inner.partitions().await
    }

    fn is_dealt(&self) -> bool {
        self.inner.is_dealt()
    }

    async fn changed(&self) {
        self.inner.changed().await;
    }

    async fn confirm(&self, partition: &SourcePartition) -> Result<bool, SourceError> {
        self.inner.confirm(partition).await
    }

    fn left(&self, partition: &SourcePartition) {
        self.inner.left(partition);
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let inner = self.inner.open(partition, next_offset).await?;
        let at = PartitionId {
            flow: self.flow.settings.flow.clone(),
            source: partition.source.clone(),
            partition: partition.partition.clone(),
        };
        let reports = self.take_up(&at).await?;
        let taken_up = reports.state().taken_up;
        Ok(Box::new(ReportedReader {
            inner,
            taken_up,
            flow: Arc::clone(&self.flow),
            reports,
            held_back: BTreeMap::new(),
            held_back_bytes: 0,
            gaps: Vec::new(),
            next_offset,
            is_drained: false,
            looked_at: None,
            told: Told::default(),
            ready: None,
            unnoted: Vec::new(),
            nowhere: Vec::new(),
        }))
    }
}

/// How many unreported events the log has told lately.
#[derive(Default)]
struct Told {
    since: Option<Instant>,
    lines: usize,
    left_out: usize,
}

struct ReportedReader {
    inner: Box<dyn SourceReader>,
    flow: Arc<FlowReports>,
    reports: Arc<PartitionReports>,
    /// Which taking up of the partition it is of.
    taken_up: u64,
    /// Taken from the source and not given to the loop.
    held_back: BTreeMap<u64, Delivery>,
    held_back_bytes: usize,
    /// Gaps of the source that go with the next batch.
    gaps: Vec<Gap>,
    next_offset: u64,
    is_drained: bool,
    looked_at: Option<Instant>,
    told: Told,
    /// Released, and not given to the loop yet.
    ready: Option<Polled>,
    /// Of it, what is to be remembered as unreported.
    unnoted: Vec<(u64, u64)>,
    /// Reports that name no event, to be forgotten.
    nowhere: Vec<u64>,
}

impl ReportedReader {
    /// Takes more from the source where there is room, without waiting for it.
    async fn fill(&mut self, limits: TakeLimits) -> Result<(), SourceError> {
        let has_room = self.held_back.len() < HELD_BACK_MAX && self.held_back_bytes < HELD_BACK_BYTES_MAX;
        let is_time = self.looked_at.is_none_or(|at| at.elapsed() >= LOOK_AGAIN);
        if self.is_drained || !has_room || !is_time {
            return Ok(());
        }
        let polled = self.inner.take(TakeLimits { wait_ms: 0, ..limits }).await?;
        let brought = !polled.deliveries.is_empty() || !polled.gaps.is_empty();
        self.looked_at = if brought { None } else { Some(Instant::now()) };
        self.next_offset = polled.next_offset;
        self.is_drained = polled.drained;
        for gap in polled.gaps {
            let named = self.reports.state().no_events(gap.from, gap.to);
            self.tell_nowhere(named, &format!("is {}: {}", gap.kind.word(), gap.cause));
            self.gaps.push(gap);
        }
        for delivery in polled.deliveries {
            self.held_back_bytes += delivery.payload.len();
            self.held_back.insert(delivery.offset, delivery);
        }
        if polled.drained {
            let named = self.reports.state().ended(self.next_offset);
            self.tell_nowhere(named, "does not exist: the source has ended");
        }
        Ok(())
    }

    /// Makes ready what can go to the loop now. Nothing is awaited here, so that a take that is cancelled loses
    /// nothing of it.
    fn release(&mut self, limits: TakeLimits) {
        let reports = Arc::clone(&self.reports);
        let mut state = reports.state();
        if state.taken_up != self.taken_up {
            return;
        }
        let (now, within) = (Instant::now(), self.flow.settings.within);
        state.age(now, within);
        let (mut released, mut bytes, mut events) = (Vec::new(), 0, 0);
        for (offset, delivery) in &mut self.held_back {
            let Some(release) = state.release(*offset, now, within) else { continue };
            released.push((*offset, release == Release::Unreported));
            match release {
                Release::Decided => {}
                Release::Unreported => continue,
                Release::Reported(said) => {
                    delivery.reported = Some(Box::new(recorded(&said, &self.flow.settings.reasons)));
                }
            }
            (bytes, events) = (bytes + delivery.payload.len(), events + 1);
            if events >= limits.events_max.max(1) || bytes >= limits.bytes_max {
                break;
            }
        }
        drop(state);
        let mut deliveries = Vec::with_capacity(events);
        let mut ranges: Vec<(u64, u64)> = Vec::new();
        for (offset, is_unreported) in released {
            let Some(delivery) = self.held_back.remove(&offset) else { continue };
            self.held_back_bytes -= delivery.payload.len();
            if !is_unreported {
                deliveries.push(delivery);
                continue;
            }
            self.told.tell(&self.flow, &reports.at, &delivery);
            match ranges.last_mut() {
                Some((_, to)) if *to == offset => *to += 1,
                _ => ranges.push((offset, offset + 1)),
            }
        }
        let mut gaps = std::mem::take(&mut self.gaps);
        gaps.extend(ranges.iter().map(|(from, to)| unreported(*from, *to)));
        let drained = self.is_drained && self.held_back.is_empty();
        if !deliveries.is_empty() || !gaps.is_empty() || drained {
            self.unnoted = ranges;
            self.ready = Some(Polled { deliveries, gaps, next_offset: self.next_offset, drained });
        }
    }

    /// Remembers what was recorded as unreported, and forgets reports that name no event.
    async fn note(&mut self) {
        let nowhere = std::mem::take(&mut self.nowhere);
        self.forget(nowhere).await;
        let ranges = std::mem::take(&mut self.unnoted);
        if ranges.is_empty() {
            return;
        }
        let (place_no, now) = (self.reports.place_no, self.flow.settings.clock.now());
        let note = self.flow.settings.store.ask(move |store| store.note_unreported(place_no, &ranges, now));
        if let Err(error) = note.await {
            // The ledger has the positions; only the time for a late report's answer is missing.
            tracing::warn!(target: "recount::report", flow = %self.reports.at.flow, "{error}");
        }
    }

    /// Reports that name positions where no event is: they are not kept.
    fn tell_nowhere(&mut self, offsets: Vec<u64>, why: &str) {
        let (Some(first), at) = (offsets.first(), &self.reports.at) else { return };
        let more = offsets.len() - 1;
        tracing::warn!(target: "recount::report", flow = %at.flow, partition = %at.partition, offset = first,
            "the consumer reported a position that {why}; {more} more like it are not told: it counts offsets \
             otherwise than the source");
        self.nowhere.extend(offsets);
    }

    async fn forget(&mut self, offsets: Vec<u64>) {
        if offsets.is_empty() {
            return;
        }
        let place_no = self.reports.place_no;
        let forgotten = self.flow.settings.store.ask(move |store| store.forget(place_no, &offsets)).await;
        if let Err(error) = forgotten {
            // The next start forgets what the ledger has.
            tracing::warn!(target: "recount::report", flow = %self.reports.at.flow, "{error}");
        }
    }
}

fn unreported(from: u64, to: u64) -> Gap {
    Gap { from, to, kind: GapKind::Unrecorded, cause: Gap::UNREPORTED.to_owned() }
}

impl Told {
    /// The log: which event the consumer went past.
    fn tell(&mut self, flow: &FlowReports, at: &PartitionId, delivery: &Delivery) {
        if self.since.is_none_or(|since| since.elapsed() >= WINDOW) {
            self.finish(at);
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        self.lines += 1;
        if self.lines > LINES_A_WINDOW {
            self.left_out += 1;
            return;
        }
        let raw = RawEvent {
            payload: Arc::clone(&delivery.payload),
            payload_bytes: delivery.payload_bytes,
            headers: delivery.headers.clone(),
            broker_key: delivery.broker_key.clone(),
            partition: at.partition.as_str().into(),
            offset: delivery.offset,
            taken_at: Timestamp::default(),
        };
        let checked = flow.settings.checks.check(raw);
        let id = match checked.meta().id.as_deref() {
            Some(_) if flow.settings.id_is_secret => "(secret)",
            Some(id) => id,
            None => "",
        };
        tracing::warn!(target: "recount::decision", flow = %at.flow, event_id = id, partition = %at.partition,
            offset = delivery.offset, reason = reason::UNREPORTED.as_str(), "unrecorded: {}", Gap::UNREPORTED);
    }

    fn finish(&mut self, at: &PartitionId) {
        let left_out = std::mem::take(&mut self.left_out);
        if left_out > 0 {
            tracing::warn!(target: "recount::decision", flow = %at.flow, partition = %at.partition,
                reason = reason::UNREPORTED.as_str(), left_out,
                "{left_out} more lines like this were left out; the audit names the events");
        }
    }
}

#[async_trait]
impl SourceReader for ReportedReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let until = Instant::now() + Duration::from_millis(limits.wait_ms);
        loop {
            let reports = Arc::clone(&self.reports);
            let changed = reports.changed.notified();
            let mut filled = Ok(());
            if reports.state().taken_up != self.taken_up {
                return Err(SourceError::Away(
                    "the partition was taken up anew by another reader".to_owned(),
                ));
            }
            if self.ready.is_none() {
                filled = self.fill(limits).await;
                self.release(limits);
            }
            self.note().await;
            if let Some(polled) = self.ready.take() {
                // What went wrong with the source is said again at the next take.
                return Ok(polled);
            }
            filled?;
            let now = Instant::now();
            if now >= until {
                return Ok(Polled { next_offset: self.next_offset, ..Polled::default() });
            }
            let aged = self.reports.state().next_age(self.flow.settings.within);
            let look = if self.is_drained { until } else { now + LOOK_AGAIN };
            let next = until.min(look).min(aged.unwrap_or(until)).max(now + Duration::from_millis(1));
            // Nothing that was taken out of the source is lost where this is cancelled: it is held back here.
            tokio::select! {
                () = changed => {}
                () = tokio::time::sleep_until(next.into()) => {}
            }
        }
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        let offsets: Vec<u64> = settled.iter().map(Settled::offset).collect();
        {
            let mut state = self.reports.state();
            offsets.iter().for_each(|offset| state.settled(*offset));
        }
        self.forget(offsets).await;
        self.inner.settle(settled).await
    }

    async fn backlog(&mut self) -> Option<u64> {
        let beyond = self.inner.backlog().await?;
        Some(beyond + self.held_back.len() as u64)
    }
}

impl Drop for ReportedReader {
    fn drop(&mut self) {
        self.told.finish(&self.reports.at);
    }
}

#[cfg(test)]
#[path = "source_tests.rs"]
mod tests;
