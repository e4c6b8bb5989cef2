//! The log as a source.

use super::store::Store;
use super::{EmbeddedLog, LogBounds, LogError};
use crate::settled::SettledPrefix;
use async_trait::async_trait;
use recount_engine::source::Settled;
use recount_engine::{
    Capabilities, Delivery, Polled, Source, SourceError, SourcePartition, SourceReader, TakeLimits,
};
use recount_model::{Gap, GapKind, Partition, SourceId};
use std::ops::ControlFlow;
use std::time::Duration;
use tokio::sync::watch;
use tokio::time::Instant;

/// How a log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogSourceSettings {
    /// The id that the flow decided about so far, from its ledger; another one stops it.
    pub recorded: Option<SourceId>,
    /// How often to look for what other processes appended.
    pub poll_interval_ms: u64,
}

impl Default for LogSourceSettings {
    /// Nothing recorded; looks four times a second.
    fn default() -> Self {
        Self { recorded: None, poll_interval_ms: 250 }
    }
}

/// A log as a source with the one partition `0`.
#[derive(Debug)]
pub struct LogSource {
    log: EmbeddedLog,
    settings: LogSourceSettings,
    input: Option<watch::Receiver<Input>>,
}

/// What is known of the end of a log's input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Input {
    /// More may come.
    Open,
    /// Nothing is appended any more; what is there can be read to its end.
    Ended,
    /// It broke, with this sentence.
    Broken(String),
}

impl LogSource {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        ordered: true,
        positions: true,
        redelivers: true,
        replayable: true,
        tells_lost: true,
        commits_offset: false,
    };

    /// A source without end.
    pub fn new(log: EmbeddedLog, settings: LogSourceSettings) -> Self {
        Self { log, settings, input: None }
    }

    pub(super) fn with_input(mut self, input: watch::Receiver<Input>) -> Self {
        self.input = Some(input);
        self
    }
}

#[async_trait]
impl Source for LogSource {
    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        let source = self.log.source_id();
        if let Some(recorded) = self.settings.recorded.as_ref().filter(|r| **r != source) {
            return Err(SourceError::Changed(format!(
                "log {} is {source}, and the flow decided about {recorded} so far: restore that log, or give \
                 the flow another name",
                self.log.path().display()
            )));
        }
        let place = self.log.path().display().to_string();
        Ok(vec![SourcePartition { source, partition: Partition::new("0"), place }])
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let path = self.log.path().display();
        if partition.source != self.log.source_id() || partition.partition.as_str() != "0" {
            return Err(SourceError::Changed(format!(
                "log {path} is {}, not {}, partition {}",
                self.log.source_id(),
                partition.source,
                partition.partition
            )));
        }
        let mut store = self.log.reader().map_err(away)?;
        let bounds = store.bounds().map_err(away)?;
        if bounds.next_offset < next_offset {
            return Err(SourceError::Changed(format!(
                "log {path} ends at offset {}, and everything below {next_offset} was decided: it was restored \
                 from an earlier copy; restore a later one, or give the flow another name",
                bounds.next_offset
            )));
        }
        Ok(Box::new(LogReader {
            appended: self.log.inner.shared.appended.subscribe(),
            log: self.log.clone(),
            store,
            next_offset,
            settled: SettledPrefix::starting_at(next_offset),
            poll_interval: Duration::from_millis(self.settings.poll_interval_ms.max(1)),
            input: self.input.clone(),
        }))
    }
}

fn away(e: LogError) -> SourceError {
    SourceError::Away(e.to_string())
}

struct LogReader {
    log: EmbeddedLog,
    store: Store,
    next_offset: u64,
    settled: SettledPrefix,
    poll_interval: Duration,
    appended: watch::Receiver<u64>,
    input: Option<watch::Receiver<Input>>,
}

impl LogReader {
    fn fill(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        // Asked before reading: what was appended before the end is then read.
        let input = self.input.as_ref().map_or(Input::Open, |input| input.borrow().clone());
        self.appended.mark_unchanged();
        let mut polled = Polled::default();
        let mut next_offset = self.next_offset;
        let mut payload_bytes = 0;
        let mut full = false;
        let bounds = self
            .store
            .read(next_offset, limits.events_max.max(1), limits.payload_bytes_max, |event| {
                payload_bytes += event.payload.len();
                if payload_bytes > limits.bytes_max && !polled.deliveries.is_empty() {
                    full = true;
                    return ControlFlow::Break(());
                }
                note_hole(&mut polled.gaps, next_offset, event.offset);
                next_offset = event.offset + 1;
                polled.deliveries.push(Delivery {
                    offset: event.offset,
                    payload: event.payload,
                    payload_bytes: event.payload_bytes,
                    headers: event.headers,
                    broker_key: event.key,
                    reported: None,
                });
                ControlFlow::Continue(())
            })
            .map_err(away)?;
        if polled.deliveries.len() < limits.events_max.max(1) && !full {
            note_hole(&mut polled.gaps, next_offset, bounds.next_offset);
            next_offset = next_offset.max(bounds.next_offset);
        }
        self.explain(&mut polled.gaps, &bounds);
        for gap in &polled.gaps {
            self.settled.add(gap.from, gap.to);
        }
        self.next_offset = next_offset;
        polled.next_offset = next_offset;
        let nothing = polled.deliveries.is_empty() && polled.gaps.is_empty();
        match input {
            Input::Broken(why) if nothing => Err(SourceError::Broken(why)),
            Input::Ended => {
                polled.drained = next_offset >= bounds.next_offset;
                Ok(polled)
            }
            _ => Ok(polled),
        }
    }

    fn explain(&self, gaps: &mut [Gap], bounds: &LogBounds) {
        for gap in gaps {
            gap.cause = if gap.to <= bounds.first_offset {
                format!("retention of log {} overtook the flow", self.log.path().display())
            } else {
                format!("log {} does not hold them though its retention kept them", self.log.path().display())
            };
        }
    }

    async fn wait(&mut self, at_most: Duration) {
        let ended = async {
            match &mut self.input {
                // The reader wakes for an end that comes now; one that came before was seen by `fill`.
                Some(input) if *input.borrow() == Input::Open => input.changed().await.is_ok(),
                _ => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.appended.changed() => {}
            _ = ended => {}
            () = tokio::time::sleep(at_most) => {}
        }
    }
}

fn note_hole(gaps: &mut Vec<Gap>, from: u64, to: u64) {
    if from < to {
        gaps.push(Gap { from, to, kind: GapKind::Lost, cause: String::new() });
    }
}

#[async_trait]
impl SourceReader for LogReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let until = Instant::now() + Duration::from_millis(limits.wait_ms);
        loop {
            let polled = self.fill(limits)?;
            let left = until.saturating_duration_since(Instant::now());
            let brought = !polled.deliveries.is_empty() || !polled.gaps.is_empty() || polled.drained;
            if brought || left.is_zero() {
                return Ok(polled);
            }
            // Nothing was taken out yet, so a take that is cancelled here has lost nothing.
            self.wait(left.min(self.poll_interval)).await;
        }
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        for one in settled {
            self.settled.add(one.offset(), one.offset() + 1);
        }
        self.log.note_settled(self.settled.next_offset());
        Ok(())
    }

    async fn backlog(&mut self) -> Option<u64> {
        let bounds = self.store.bounds().ok()?;
        Some(bounds.next_offset.saturating_sub(self.next_offset))
    }
}
