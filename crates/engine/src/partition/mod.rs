//! One partition's loop: what can wake it, and what it does then.

mod asked;
mod commit;
mod intake;
mod replay;

use crate::book::Pending;
use crate::clock::Jitter;
use crate::duplicates::DuplicateWindow;
use crate::effect::Claim;
use crate::feed::{Checking, Fed, Feed, FeedSettings, Settler};
use crate::flow::FlowShared;
use crate::hold::Hold;
use crate::plan::{Progress, Underway};
use crate::probe::Step;
use crate::source::{Delivery, Source, SourceError, SourcePartition, SourceReader};
use crate::start::{Owned, StartError, Stop, ledger_stop, start};
use recount_ledger::LedgerError;
use recount_model::decide::AfterLast;
use recount_model::{BatchRecord, FlowName, Gap, GapKind, PartitionId, Timestamp, reason};
use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::sync::atomic::AtomicUsize;
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

pub(crate) use asked::{Asked, Dealt};
pub(crate) use replay::replay_alone;
pub use replay::{ReplayBatch, ReplayEvent, ReplayFrom, ReplayReceipt};

/// How soon the one who deals partitions is asked again, after a word that says neither yes nor no.
const UNCONFIRMED_WAIT_MS: u64 = 200;

/// What can wake the loop.
enum Wake {
    Shutdown,
    LedgerDone(Result<(), Arc<LedgerError>>),
    Command(Command),
    RetryDue,
    Fed(Option<Result<Fed, SourceError>>),
    PauseChanged,
}

/// What an operator can ask of a partition.
pub(crate) enum Command {
    /// Keys that wait for an operator go on.
    ResumeKeys,
    /// Decide these events anew.
    Replay(ReplayBatch),
}
/// How a partition ended.
#[derive(Debug)]
pub(crate) enum Exit {
    /// Nothing more will come, and everything that can be decided is.
    Drained,
    /// It was asked to.
    ShutDown,
    /// It can't go on.
    Stopped(Stop),
    /// A commit's outcome is unknown: begin again from the arbiter's row.
    Restart,
}

impl From<Stop> for Exit {
    fn from(stop: Stop) -> Self {
        Self::Stopped(stop)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum HoldKey {
    Key(Box<str>),
    /// An event without a key waits alone.
    Offset(u64),
}

/// A delivery that was taken and not settled yet.
struct Open {
    delivery: Delivery,
    taken_at: Timestamp,
}

struct InLedger {
    record: Arc<BatchRecord>,
    pending: Pending,
}

/// One partition that this process owns.
pub(crate) struct PartitionLoop {
    at: PartitionId,
    shared: Arc<FlowShared>,
    asked: Asked,
    checking: Checking,
    claim: Claim,
    progress: Progress,
    hold: Hold<HoldKey, Underway>,
    window: DuplicateWindow,
    /// Taken and not settled yet, by offset.
    deliveries: BTreeMap<u64, Open>,
    settler: Option<Settler>,
    in_ledger: VecDeque<InLedger>,
    ledger_has_seq: u64,
    jitter: Jitter,
    /// So many undecided events still go one by one, after an unclean stop.
    alone_left: Arc<AtomicUsize>,
    is_hold_full_told: bool,
}

/// Runs a partition until it is drained, asked to stop, or can't go on.
pub(crate) async fn run(
    source: &dyn Source,
    place: &SourcePartition,
    at: PartitionId,
    shared: Arc<FlowShared>,
    asked: Asked,
    mut commands: mpsc::Receiver<Command>,
) -> Exit {
    let mut owned = Owned::default();
    let dealt = source.is_dealt().then(|| Dealt { source, place, asked: asked.clone() });
    loop {
        let (at, shared) = (at.clone(), Arc::clone(&shared));
        let started =
            PartitionLoop::start(at.clone(), shared, asked.clone(), &mut owned, dealt.as_ref()).await;
        let mut partition = match started {
            Ok(partition) => partition,
            Err(exit) => return exit,
        };
        match partition.run(source, place, &mut commands).await {
            Exit::Restart => {
                tracing::warn!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                    "begins again from the arbiter's row");
            }
            exit => return exit,
        }
    }
}

impl PartitionLoop {
    async fn start(
        at: PartitionId,
        shared: Arc<FlowShared>,
        mut asked: Asked,
        owned: &mut Owned,
        dealt: Option<&Dealt<'_>>,
    ) -> Result<Self, Exit> {
        let mut wait_ms = shared.spec.away_backoff_first_ms;
        let started = loop {
            let (effect, options, guards) = (shared.effect.as_ref(), shared.start_options, shared.guards);
            match start(&at, effect, &shared.book, options, guards, owned, dealt).await {
                Ok(started) => break started,
                Err(StartError::Stop(stop)) => return Err(stop.into()),
                Err(StartError::Away(why)) => shared.tell_away(&at, &why, wait_ms).await,
                Err(StartError::Unconfirmed(why)) => {
                    tracing::debug!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                        "not confirmed yet: {why}");
                    wait_ms = UNCONFIRMED_WAIT_MS;
                }
            }
            if asked.wait(wait_ms).await {
                return Err(Exit::ShutDown);
            }
            wait_ms = (wait_ms * 2).min(shared.spec.away_backoff_max_ms);
        };
        shared.tell_back();
        let spec = Arc::clone(&shared.spec);
        let mut window = DuplicateWindow::new(spec.dedupe_events);
        let recent = {
            let (at, events_max) = (at.clone(), spec.dedupe_events);
            shared.book.with(move |store| store.recent(&at, events_max)).await
        };
        window.fill(recent.map_err(|error| Exit::from(ledger_stop(&error)))?);
        let taken = started.taken;
        if started.redone_batches > 0 {
            tracing::info!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                batches = started.redone_batches, "the ledger took over what was committed before a crash");
        }
        let is_unclean = taken.existed && !taken.clean;
        let alone_left = if is_unclean { spec.take.events_max } else { 0 };
        if is_unclean {
            tracing::info!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                "the last stop was unclean: up to {alone_left} events go one by one, so that one that kills the \
                 process is found");
        }
        let mut partition = Self {
            checking: Checking { checks: Arc::clone(&shared.checks), partition: at.partition.clone() },
            claim: Claim { epoch: taken.epoch, expected_seq: taken.seq },
            progress: started.progress,
            hold: Hold::new(spec.hold),
            window,
            deliveries: BTreeMap::new(),
            settler: None,
            in_ledger: VecDeque::new(),
            ledger_has_seq: taken.seq,
            jitter: Jitter::new(shared.seed ^ taken.epoch),
            alone_left: Arc::new(AtomicUsize::new(alone_left)),
            is_hold_full_told: false,
            at,
            shared,
            asked,
        };
        partition.hold_exhausted_keys().await?;
        let adopted = started.unrecorded.ranges().iter().map(|&(from, to)| {
            let cause = "the ledger was lost; adopted by an operator".to_owned();
            Gap { from, to, kind: GapKind::Unrecorded, cause }
        });
        let adopted: Vec<Gap> = adopted.collect();
        partition.run_batch(Vec::new(), adopted, partition.shared.clock.now()).await?;
        partition.wait_for_ledger(0).await?;
        Ok(partition)
    }

    /// Keys that stay held after their last attempt stay so over a restart, as the ledger tells.
    async fn hold_exhausted_keys(&mut self) -> Result<(), Exit> {
        if self.shared.spec.retry.after_last != AfterLast::StayHeld {
            return Ok(());
        }
        let at = self.at.clone();
        let keys = self.shared.book.with(move |store| store.keys_exhausted(&at)).await;
        for key in keys.map_err(|error| Exit::from(ledger_stop(&error)))? {
            self.hold.keep_held(HoldKey::Key(key));
        }
        Ok(())
    }

    /// Opens the source where our own record says; one that is away is asked again and again.
    async fn open(
        &mut self,
        source: &dyn Source,
        place: &SourcePartition,
    ) -> Result<Box<dyn SourceReader>, Exit> {
        let spec = Arc::clone(&self.shared.spec);
        let mut wait_ms = spec.away_backoff_first_ms;
        loop {
            match source.open(place, self.progress.next_offset).await {
                Ok(reader) => return Ok(reader),
                Err(SourceError::Away(why)) => {
                    tracing::warn!(target: "recount::flow", flow = %self.at.flow, partition = %self.at.partition,
                        "the source is away, tries again in {wait_ms} ms: {why}");
                }
                Err(error) => return Err(source_stop(&self.at, error).into()),
            }
            if self.asked.wait(wait_ms).await {
                return Err(Exit::ShutDown);
            }
            wait_ms = (wait_ms * 2).min(spec.away_backoff_max_ms);
        }
    }

    async fn run(
        &mut self,
        source: &dyn Source,
        place: &SourcePartition,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Exit {
        let reader = match self.open(source, place).await {
            Ok(reader) => reader,
            Err(exit) => return exit,
        };
        let limits = self.shared.spec.take;
        let settings = FeedSettings {
            limits,
            unchecked: Arc::clone(&self.alone_left),
            checking: self.checking.clone(),
            clock: Arc::clone(&self.shared.clock),
            probe: Arc::clone(&self.shared.probe),
        };
        let mut feed = Feed::start(reader, settings);
        self.settler = Some(feed.settler());
        match self.work(&mut feed, commands).await {
            Err(Exit::Drained) => match self.leave().await {
                Exit::ShutDown => Exit::Drained,
                exit => exit,
            },
            Err(Exit::ShutDown) => self.leave().await,
            Err(exit) => exit,
            Ok(never) => match never {},
        }
    }

    async fn work(
        &mut self,
        feed: &mut Feed,
        commands: &mut mpsc::Receiver<Command>,
    ) -> Result<std::convert::Infallible, Exit> {
        let mut asked = self.asked.clone();
        let mut paused = self.shared.paused.subscribe();
        let mut drained = false;
        loop {
            self.update_stats();
            if drained && self.deliveries.is_empty() && self.in_ledger.is_empty() {
                return Err(Exit::Drained);
            }
            if drained
                && self.in_ledger.is_empty()
                && self.hold.events() > 0
                && self.hold.next_due().is_none()
            {
                return Err(Exit::Drained);
            }
            self.shared.probe.reached(Step::Idle);
            match self.wake(feed, commands, &mut asked, &mut paused, drained).await {
                Wake::Shutdown => return Err(Exit::ShutDown),
                Wake::PauseChanged => {}
                Wake::LedgerDone(result) => self.ledger_done(result)?,
                Wake::Command(Command::ResumeKeys) => {
                    self.hold.resume_all(Instant::now());
                }
                Wake::Command(Command::Replay(batch)) => self.replay(batch).await?,
                Wake::RetryDue => {
                    let events = self.take_due();
                    self.run_batch(events, Vec::new(), self.shared.clock.now()).await?;
                }
                Wake::Fed(None) if drained => {}
                Wake::Fed(None) => return Err(feed_ended(&self.at).into()),
                Wake::Fed(Some(Err(SourceError::Away(why)))) => {
                    tracing::warn!(target: "recount::flow", flow = %self.at.flow, partition = %self.at.partition,
                        "the source is away: {why}");
                }
                Wake::Fed(Some(Err(error))) => return Err(source_stop(&self.at, error).into()),
                Wake::Fed(Some(Ok(fed))) => {
                    drained = fed.drained;
                    self.take(fed).await?;
                }
            }
        }
    }

    async fn wake(
        &mut self,
        feed: &mut Feed,
        commands: &mut mpsc::Receiver<Command>,
        asked: &mut Asked,
        paused: &mut watch::Receiver<Option<String>>,
        drained: bool,
    ) -> Wake {
        if asked.is_asked() {
            return Wake::Shutdown;
        }
        let may_work = paused.borrow_and_update().is_none();
        let ledger_keeps_up = self.in_ledger.len() < self.shared.spec.ledger_batches_waiting_max;
        let may_take = may_work && ledger_keeps_up && !drained && !self.is_hold_full();
        let due = if may_work && ledger_keeps_up { self.hold.next_due() } else { None };
        let due_at = due.unwrap_or_else(Instant::now);
        let oldest = self.in_ledger.front_mut();
        let has_oldest = oldest.is_some();
        let ledger_done = async {
            match oldest {
                Some(oldest) => oldest.pending.as_mut().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            biased;
            () = asked.comes() => Wake::Shutdown,
            done = ledger_done, if has_oldest => Wake::LedgerDone(done),
            Some(command) = commands.recv() => Wake::Command(command),
            () = tokio::time::sleep_until(due_at), if due.is_some() => Wake::RetryDue,
            fed = feed.batches.recv(), if may_take => Wake::Fed(fed),
            _ = paused.changed() => Wake::PauseChanged,
        }
    }

    fn is_hold_full(&mut self) -> bool {
        let full = self.hold.is_full();
        if full && !self.is_hold_full_told {
            tracing::warn!(target: "recount::flow", flow = %self.at.flow, partition = %self.at.partition,
                reason = reason::HOLD_FULL.as_str(), held = self.hold.events(),
                "takes no more until held keys go on: {} events wait behind {} keys", self.hold.events(),
                self.hold.keys());
        }
        self.is_hold_full_told = full;
        full
    }

    async fn leave(&mut self) -> Exit {
        if let Err(exit) = self.wait_for_ledger(0).await {
            return exit;
        }
        self.update_stats();
        if let Err(fault) = self.shared.effect.release(&self.at, self.claim).await {
            // The next owner goes one by one for a batch; nothing is lost by that.
            tracing::debug!(target: "recount::flow", flow = %self.at.flow, "not released cleanly: {fault}");
        }
        Exit::ShutDown
    }

    fn update_stats(&self) {
        let partition = self.at.partition.to_string();
        let (open, held) = (self.deliveries.len() as u64, self.hold.events() as u64);
        // Deliveries come in order, so the lowest offset was taken first.
        let oldest_open = self.deliveries.first_key_value().map(|(_, open)| open.taken_at);
        self.shared.stats.update(|counts| {
            counts.open.insert(partition.clone(), open);
            counts.held.insert(partition.clone(), held);
            match oldest_open {
                Some(taken_at) => counts.oldest_open.insert(partition, taken_at),
                None => counts.oldest_open.remove(&partition),
            };
        });
    }
}

fn hold_key(underway: &Underway) -> HoldKey {
    match &underway.meta().key {
        Some(key) => HoldKey::Key(key.clone()),
        None => HoldKey::Offset(underway.offset),
    }
}

fn feed_ended(at: &PartitionId) -> Stop {
    let sentence = format!(
        "{at}: the task that takes from the source ended without a word, which is a defect of the program"
    );
    Stop::new(reason::PROGRAM_DEFECT, sentence)
}

fn source_stop(at: &PartitionId, error: SourceError) -> Stop {
    Stop::new(reason::SOURCE_CHANGED, format!("{at}: {error}"))
}

/// The flow of a partition, for messages.
pub(crate) fn partition_id(flow: &FlowName, place: &SourcePartition) -> PartitionId {
    PartitionId { flow: flow.clone(), source: place.source.clone(), partition: place.partition.clone() }
}
