//! Starts a loop for each partition that the source has for this process, and says how the flow ended.

use crate::flow::{FlowEnd, FlowShared, Inboxes};
use crate::partition::{Asked, Exit, partition_id, run};
use crate::source::{Source, SourceError, SourcePartition};
use crate::start::{Stop, ledger_stop};
use recount_ledger::JournalKind;
use recount_model::{PartitionId, reason};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, PoisonError};
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::{JoinError, JoinSet};
use tokio::time::Instant;

/// How often a source is asked for new partitions.
const PARTITIONS_AGAIN: Duration = Duration::from_secs(5);
/// How soon a partition is begun again that another process took though it is dealt to this one. It is taken
/// only where whoever deals confirms that it is ours.
const TAKEN_AGAIN: Duration = Duration::from_secs(1);
/// Commands that may wait for a partition.
const COMMANDS_MAX: usize = 16;

/// A loop that runs.
struct Loop {
    place: SourcePartition,
    leave: watch::Sender<bool>,
}

pub(crate) struct Supervisor {
    shared: Arc<FlowShared>,
    source: Arc<dyn Source>,
    inboxes: Arc<Inboxes>,
    running: JoinSet<(PartitionId, Exit)>,
    loops: BTreeMap<PartitionId, Loop>,
    /// Of a source that deals nothing out: what was begun is not begun again.
    started: BTreeSet<PartitionId>,
    /// Dealt to this process and taken by another, until when it is left alone.
    taken: BTreeMap<PartitionId, Instant>,
    stops: Vec<Stop>,
}

impl Supervisor {
    pub fn new(shared: Arc<FlowShared>, source: Arc<dyn Source>, inboxes: Arc<Inboxes>) -> Self {
        let (running, loops, started) = (JoinSet::new(), BTreeMap::new(), BTreeSet::new());
        Self { shared, source, inboxes, running, loops, started, taken: BTreeMap::new(), stops: Vec::new() }
    }

    pub async fn run(mut self) -> FlowEnd {
        let mut shutdown = self.shared.shutdown.clone();
        loop {
            let is_shutting_down = *shutdown.borrow_and_update();
            let mut is_drained = false;
            if !is_shutting_down && self.stops.is_empty() {
                match self.source.partitions().await {
                    Ok(places) => {
                        // Where partitions are dealt out, more may come at any time.
                        is_drained = !self.source.is_dealt();
                        self.follow(places);
                    }
                    Err(SourceError::Away(why)) => {
                        tracing::warn!(target: "recount::flow", flow = %self.shared.spec.flow, "the source is away: {why}");
                    }
                    Err(SourceError::Taken(why)) => self.stop(Stop::new(reason::PARTITION_TAKEN, why)),
                    Err(SourceError::Changed(why) | SourceError::Broken(why)) => {
                        self.stop(Stop::new(reason::SOURCE_CHANGED, why));
                    }
                }
            }
            if self.running.is_empty() && (is_drained || is_shutting_down || !self.stops.is_empty()) {
                return self.end(is_shutting_down).await;
            }
            if self.stops.is_empty() {
                let source = Arc::clone(&self.source);
                tokio::select! {
                    biased;
                    Some(ended) = self.running.join_next() => self.ended(ended),
                    _ = shutdown.changed() => {}
                    () = source.changed() => {}
                    () = tokio::time::sleep(if self.taken.is_empty() { PARTITIONS_AGAIN } else { TAKEN_AGAIN }) => {}
                }
            }
            if !self.stops.is_empty() {
                self.stop_others().await;
            }
        }
    }

    /// Begins what is new; where partitions are dealt out, asks the loops of those that are gone to end.
    fn follow(&mut self, places: Vec<SourcePartition>) {
        let flow = self.shared.spec.flow.clone();
        let places = places.into_iter().map(|place| (partition_id(&flow, &place), place));
        if !self.source.is_dealt() {
            for (at, place) in places {
                if self.started.insert(at.clone()) {
                    self.start(at, place);
                }
            }
            return;
        }
        let places: BTreeMap<_, _> = places.collect();
        self.taken.retain(|at, _| places.contains_key(at));
        for (at, running) in &self.loops {
            if !places.contains_key(at) {
                running.leave.send_replace(true);
            }
        }
        for (at, place) in places {
            let is_due = self.taken.get(&at).is_none_or(|until| *until <= Instant::now());
            // One that still ends is begun anew once it has.
            if is_due && !self.loops.contains_key(&at) {
                self.taken.remove(&at);
                self.start(at, place);
            }
        }
    }

    fn start(&mut self, at: PartitionId, place: SourcePartition) {
        let (commands, inbox) = mpsc::channel(COMMANDS_MAX);
        let (leave, leave_seen) = watch::channel(false);
        self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone(), commands);
        self.loops.insert(at.clone(), Loop { place: place.clone(), leave });
        let (source, shared) = (Arc::clone(&self.source), Arc::clone(&self.shared));
        let asked = Asked::to_leave(&shared, leave_seen);
        tracing::debug!(target: "recount::flow", flow = %at.flow, partition = %at.partition, place = place.place, "partition opened");
        self.running.spawn(async move {
            let exit = run(source.as_ref(), &place, at.clone(), shared, asked, inbox).await;
            (at, exit)
        });
    }

    fn stop(&mut self, stop: Stop) {
        tracing::error!(target: "recount::flow", flow = %self.shared.spec.flow, reason = stop.reason.as_str(),
            "the flow stops: {stop}");
        self.stops.push(stop);
    }

    fn ended(&mut self, ended: Result<(PartitionId, Exit), JoinError>) {
        match ended {
            Ok((at, exit)) => {
                self.inboxes.lock().unwrap_or_else(PoisonError::into_inner).remove(&at);
                if let Some(ended) = self.loops.remove(&at) {
                    self.source.left(&ended.place);
                }
                match exit {
                    Exit::Stopped(stop)
                        if self.source.is_dealt() && stop.reason == reason::PARTITION_TAKEN =>
                    {
                        tracing::info!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                            "another process took the partition: it is let go of until it is dealt to this one");
                        self.taken.insert(at.clone(), Instant::now() + TAKEN_AGAIN);
                    }
                    Exit::Stopped(stop) => {
                        tracing::error!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                            reason = stop.reason.as_str(), "the flow stops: {stop}");
                        self.stops.push(stop);
                    }
                    _ => {}
                }
                if self.source.is_dealt() {
                    // Whoever has it now counts what waits there.
                    self.shared.stats.forget(at.partition.as_str());
                }
            }
            Err(error) => {
                let sentence =
                    format!("a partition's task failed, which is a defect of the program: {error}");
                self.stops.push(Stop::new(reason::PROGRAM_DEFECT, sentence));
            }
        }
    }

    /// One partition that can't go on stops the flow. The others are dropped where they stand, which is no
    /// worse than a crash: what they committed is found again at the next start.
    async fn stop_others(&mut self) {
        self.running.abort_all();
        while let Some(ended) = self.running.join_next().await {
            if ended.as_ref().is_err_and(JoinError::is_cancelled) {
                continue;
            }
            self.ended(ended);
        }
    }

    async fn end(self, is_shutting_down: bool) -> FlowEnd {
        self.shared.teller.finish();
        for stop in &self.stops {
            let detail = serde_json::json!({ "sentence": stop.sentence });
            self.shared.journal(JournalKind::Flow, stop.reason.as_str(), detail).await;
        }
        if !self.stops.is_empty() {
            return FlowEnd::Stopped(self.stops);
        }
        let maintained = {
            let now = self.shared.clock.now();
            self.shared.book.with(move |store| store.maintain(now)).await
        };
        if let Err(error) = maintained {
            return FlowEnd::Stopped(vec![ledger_stop(&error)]);
        }
        if is_shutting_down { FlowEnd::ShutDown } else { FlowEnd::Drained }
    }
}
