//! Takes and checks ahead of the loop, so that the next batch is ready when the effect is done.

use crate::clock::Clock;
use crate::plan::{Judged, Underway};
use crate::probe::{Probe, Step};
use crate::source::{Delivery, Settled, SourceError, SourceReader, TakeLimits};
use recount_checks::{FlowChecks, RawEvent};
use recount_model::{Gap, Partition, Timestamp};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::sync::mpsc;

/// So many batches are taken ahead.
const BATCHES_AHEAD: usize = 2;
/// How long to wait before a source that was away is asked again.
const AWAY_WAIT: std::time::Duration = std::time::Duration::from_secs(1);

/// A batch from the source.
pub struct Fed {
    /// When it was taken.
    pub taken_at: Timestamp,
    /// Each delivery; checked unless the loop must go one by one.
    pub events: Vec<FedEvent>,
    /// Positions passed over.
    pub gaps: Vec<Gap>,
    /// Nothing more will ever come.
    pub drained: bool,
    /// Known to exist beyond this batch.
    pub backlog: Option<u64>,
}

/// One delivery with what the checks say of it, or not checked yet.
pub struct FedEvent {
    /// The delivery, to be settled.
    pub delivery: Delivery,
    /// What the checks say; `None` in the batches that go one by one after an unclean stop.
    pub judged: Option<Judged>,
}

/// What checking needs.
#[derive(Clone)]
pub struct Checking {
    /// The flow's compiled rules.
    pub checks: Arc<FlowChecks>,
    /// The partition's name.
    pub partition: Partition,
}

impl Checking {
    /// Checks one delivery.
    pub fn check(&self, delivery: &Delivery, taken_at: Timestamp) -> Judged {
        let raw = RawEvent {
            payload: Arc::clone(&delivery.payload),
            payload_bytes: delivery.payload_bytes,
            headers: delivery.headers.clone(),
            broker_key: delivery.broker_key.clone(),
            partition: self.partition.as_str().into(),
            offset: delivery.offset,
            taken_at,
        };
        self.report(delivery, self.checks.check(raw).into())
    }

    /// Where the consumer reported a verdict, that one; the checks then only say what was to be expected.
    pub fn report(&self, delivery: &Delivery, judged: Judged) -> Judged {
        match &delivery.reported {
            Some(reported) => judged.reported(reported),
            None => judged,
        }
    }

    /// A checked delivery on its way.
    pub fn underway(&self, delivery: &Delivery, judged: Judged) -> Underway {
        Underway {
            offset: delivery.offset,
            payload: Arc::clone(&delivery.payload),
            payload_bytes: delivery.payload_bytes,
            headers: delivery.headers.as_slice().into(),
            judged,
            attempt: 1,
            failed: Vec::new(),
            is_duplicate: false,
            linked_to: None,
            replay: None,
            is_reported: delivery.reported.is_some(),
        }
    }
}

/// The loop's end of the feed. Dropping it ends the taking.
pub struct Feed {
    /// Batches, in order; an error is the last.
    pub batches: mpsc::Receiver<Result<Fed, SourceError>>,
    settler: Settler,
}

/// Tells the feed's source what is durable.
#[derive(Clone)]
pub struct Settler(mpsc::UnboundedSender<Vec<Settled>>);

impl Settler {
    /// Only a hint: where the feed has ended there is nobody to tell.
    pub fn settle(&self, settled: Vec<Settled>) {
        drop(self.0.send(settled));
    }
}

/// What the feed takes with.
pub struct FeedSettings {
    /// Limits of each take.
    pub limits: TakeLimits,
    /// While it isn't 0, deliveries are handed over unchecked; the loop counts it down.
    pub unchecked: Arc<AtomicUsize>,
    /// Checks.
    pub checking: Checking,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Is told the steps.
    pub probe: Arc<dyn Probe>,
}

impl Feed {
    /// Starts taking.
    pub fn start(reader: Box<dyn SourceReader>, settings: FeedSettings) -> Self {
        let (batches_in, batches) = mpsc::channel(BATCHES_AHEAD);
        let (settled, settled_out) = mpsc::unbounded_channel();
        tokio::spawn(feed(reader, settings, batches_in, settled_out));
        Self { batches, settler: Settler(settled) }
    }

    /// Tells the source what is durable.
    pub fn settler(&self) -> Settler {
        self.settler.clone()
    }
}

async fn feed(
    mut reader: Box<dyn SourceReader>,
    settings: FeedSettings,
    batches: mpsc::Sender<Result<Fed, SourceError>>,
    mut settled: mpsc::UnboundedReceiver<Vec<Settled>>,
) {
    loop {
        tell_source(reader.as_mut(), &mut settled).await;
        let Ok(place) = batches.reserve().await else { break };
        settings.probe.reached(Step::Take);
        match reader.take(settings.limits).await {
            Err(error) => {
                let ends = !matches!(error, SourceError::Away(_));
                place.send(Err(error));
                if ends {
                    break;
                }
                tokio::time::sleep(AWAY_WAIT).await;
            }
            Ok(polled) => {
                let taken_at = settings.clock.now();
                let check_now = settings.unchecked.load(Ordering::Acquire) == 0;
                settings.probe.reached(Step::Check);
                let check = |delivery: Delivery| {
                    let judged = check_now.then(|| settings.checking.check(&delivery, taken_at));
                    FedEvent { delivery, judged }
                };
                let events: Vec<FedEvent> = polled.deliveries.into_iter().map(check).collect();
                let drained = polled.drained;
                let backlog = reader.backlog().await;
                if events.is_empty() && polled.gaps.is_empty() && !drained {
                    tokio::task::yield_now().await;
                    continue;
                }
                place.send(Ok(Fed { taken_at, events, gaps: polled.gaps, drained, backlog }));
                if drained {
                    break;
                }
            }
        }
    }
    // Later settlements still reach the source, until the loop lets go of the feed.
    while let Some(settled) = settled.recv().await {
        tell(reader.as_mut(), settled).await;
    }
}

async fn tell_source(reader: &mut dyn SourceReader, settled: &mut mpsc::UnboundedReceiver<Vec<Settled>>) {
    let mut all = Vec::new();
    while let Ok(some) = settled.try_recv() {
        all.extend(some);
    }
    if !all.is_empty() {
        tell(reader, all).await;
    }
}

async fn tell(reader: &mut dyn SourceReader, settled: Vec<Settled>) {
    if let Err(error) = reader.settle(settled).await {
        tracing::debug!(target: "recount::source", "the source could not be told what is settled: {error}");
    }
}
