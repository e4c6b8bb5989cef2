//! A running flow: its partitions side by side, and what an operator can ask of it.

use crate::book::Book;
use crate::clock::Clock;
use crate::effect::Effect;
use crate::gate::{Gate, Tripped};
use crate::partition::{Command, ReplayBatch, ReplayEvent, ReplayReceipt, replay_alone};
use crate::probe::{Guards, Probe};
use crate::source::Source;
use crate::spec::{BreakerAction, FlowSpec};
use crate::start::{StartOptions, Stop};
use crate::stats::FlowStats;
use crate::supervisor::Supervisor;
use crate::telling::Teller;
use recount_checks::FlowChecks;
use recount_ledger::{JournalEntry, JournalKind, LedgerError};
use recount_model::budget::BudgetStand;
use recount_model::{BatchRecord, Budget, PartitionId, ReasonCode, Timestamp, reason};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::{mpsc, oneshot, watch};

/// Everything that a flow runs with.
pub struct FlowParts {
    /// Settings.
    pub spec: FlowSpec,
    /// Compiled rules.
    pub checks: Arc<FlowChecks>,
    /// Where events come from.
    pub source: Arc<dyn Source>,
    /// Where they are applied.
    pub effect: Arc<dyn Effect>,
    /// The ledger.
    pub book: Book,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Is told the steps.
    pub probe: Arc<dyn Probe>,
    /// Guards, all on outside of the simulator.
    pub guards: Guards,
    /// For jitter.
    pub seed: u64,
    /// What the start may do.
    pub start_options: StartOptions,
    /// Why it begins paused, if it does.
    pub paused: Option<String>,
}

/// How a flow ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FlowEnd {
    /// Everything that the source had is decided, or waits for an operator.
    Drained,
    /// It was asked to stop, and drained what was under way.
    ShutDown,
    /// It can't go on; nothing is lost.
    Stopped(Vec<Stop>),
}

/// What the partitions of a flow share.
pub(crate) struct FlowShared {
    pub(crate) spec: Arc<FlowSpec>,
    pub(crate) checks: Arc<FlowChecks>,
    pub(crate) effect: Arc<dyn Effect>,
    pub(crate) book: Book,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) probe: Arc<dyn Probe>,
    pub(crate) guards: Guards,
    pub(crate) seed: u64,
    pub(crate) start_options: StartOptions,
    pub(crate) stats: FlowStats,
    pub(crate) teller: Teller,
    pub(crate) paused: watch::Sender<Option<String>>,
    pub(crate) shutdown: watch::Receiver<bool>,
    gate: Mutex<Gate>,
}

impl FlowShared {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The effect's database or handler does not work: said once, and then when it works again.
    pub(crate) async fn tell_away(&self, at: &PartitionId, why: &str, wait_ms: u64) {
        let mut is_news = false;
        self.stats.update(|counts| {
            is_news = counts.away.as_deref() != Some(why);
            counts.away = Some(why.to_owned());
        });
        if is_news {
            tracing::error!(target: "recount::flow", flow = %at.flow, partition = %at.partition,
                reason = reason::EFFECTS_AWAY.as_str(),
                "takes no more until the effect works again, tries again in {wait_ms} ms: {why}");
            let detail = serde_json::json!({ "why": why, "partition": at.partition.as_str() });
            self.journal(JournalKind::Flow, reason::EFFECTS_AWAY.as_str(), detail).await;
        }
    }

    pub(crate) fn tell_back(&self) {
        let mut was_away = None;
        self.stats.update(|counts| was_away = counts.away.take());
        if was_away.is_some() {
            tracing::info!(target: "recount::flow", flow = %self.spec.flow, "the effect works again");
        }
    }

    /// Folds a committed batch into budgets and breaker, and does what they ask.
    pub(crate) async fn look_at_gate(&self, record: &BatchRecord) -> Result<(), Stop> {
        let tripped = self.gate().observe(record);
        for tripped in tripped {
            match tripped {
                Tripped::Budget { reason, budget, stand } => {
                    self.budget_exceeded(reason, budget, stand).await
                }
                Tripped::Breaker { not_applied, of_last } => self.breaker_open(not_applied, of_last).await,
            }
        }
        Ok(())
    }

    async fn budget_exceeded(&self, code: ReasonCode, budget: Budget, stand: BudgetStand) {
        tracing::warn!(target: "recount::flow", flow = %self.spec.flow, reason = reason::BUDGET_EXCEEDED.as_str(),
            "{code} took {} of the last {}, its budget is {budget}: the flow is not working. See: recount explain {code}",
            stand.worst, stand.among);
        let detail = serde_json::json!({
            "reason": code.as_str(), "budget": budget.to_string(), "worst": stand.worst, "among": stand.among,
        });
        self.journal(JournalKind::Flow, reason::BUDGET_EXCEEDED.as_str(), detail).await;
    }

    async fn breaker_open(&self, not_applied: u64, of_last: u32) {
        let flow = &self.spec.flow;
        let sentence = format!("{not_applied} of the last {of_last} events were not applied");
        let breaker_open = reason::BREAKER_OPEN;
        let code = breaker_open.as_str();
        let then = match self.spec.breaker.action {
            BreakerAction::Alert => "alert",
            BreakerAction::Pause => "pause",
        };
        // What a start reads to know that the flow is still paused.
        let detail = serde_json::json!({ "not_applied": not_applied, "of_last": of_last, "then": then });
        match self.spec.breaker.action {
            BreakerAction::Alert => {
                tracing::warn!(target: "recount::flow", flow = %flow, reason = code, "{sentence}; the flow goes on");
            }
            BreakerAction::Pause => {
                tracing::error!(target: "recount::flow", flow = %flow, reason = code,
                    "{sentence}: the flow is paused. Look at: recount dead-letters list; then: recount resume {flow} --because …");
                self.pause(format!("{code}: {sentence}"));
            }
        }
        self.journal(JournalKind::Flow, code, detail).await;
    }

    fn pause(&self, why: String) {
        self.stats.update(|counts| counts.paused = Some(why.clone()));
        self.paused.send_replace(Some(why));
    }

    /// Writes to the journal; where that fails the log has it, and the next append stops the flow.
    pub(crate) async fn journal(&self, kind: JournalKind, what: &str, detail: serde_json::Value) {
        // The log has told it; whoever must know calls `record`.
        drop(self.record(kind, what, detail).await);
    }

    /// Writes to the journal, and says whether that is durable.
    async fn record(
        &self,
        kind: JournalKind,
        what: &str,
        detail: serde_json::Value,
    ) -> Result<(), Arc<LedgerError>> {
        let entry = JournalEntry {
            kind,
            flow: Some(self.spec.flow.clone()),
            what: what.to_owned(),
            at: self.clock.now(),
            persisted_at: Timestamp::default(),
            detail,
        };
        let (what, written) = (entry.what.clone(), self.book.with(move |store| store.journal(&entry)).await);
        if let Err(error) = &written {
            tracing::error!(target: "recount::flow", flow = %self.spec.flow, "{what} could not be written to the journal: {error}");
        }
        written.map(drop)
    }
}

/// Where commands go to, by partition.
pub(crate) type Inboxes = Mutex<BTreeMap<PartitionId, mpsc::Sender<Command>>>;

/// A handle on a running flow. Clones share it; dropping it changes nothing.
#[derive(Clone)]
pub struct FlowHandle {
    shared: Arc<FlowShared>,
    shutdown: Arc<watch::Sender<bool>>,
    partitions: Arc<Inboxes>,
    end: watch::Receiver<Option<FlowEnd>>,
}

/// Starts a flow on the current tokio runtime.
pub fn start_flow(parts: FlowParts) -> FlowHandle {
    let (shutdown, shutdown_seen) = watch::channel(false);
    let (end_in, end) = watch::channel(None);
    let spec = Arc::new(parts.spec);
    let stats = FlowStats::new([]);
    stats.update(|counts| counts.paused.clone_from(&parts.paused));
    let shared = Arc::new(FlowShared {
        teller: Teller::new(Arc::clone(&spec), Arc::clone(&parts.clock)),
        gate: Mutex::new(Gate::new(&spec)),
        paused: watch::Sender::new(parts.paused),
        checks: parts.checks,
        effect: parts.effect,
        book: parts.book,
        clock: parts.clock,
        probe: parts.probe,
        guards: parts.guards,
        seed: parts.seed,
        start_options: parts.start_options,
        stats,
        shutdown: shutdown_seen,
        spec,
    });
    let partitions = Arc::default();
    let handle = FlowHandle {
        shared: Arc::clone(&shared),
        shutdown: Arc::new(shutdown),
        partitions: Arc::clone(&partitions),
        end,
    };
    let supervisor = Supervisor::new(shared, parts.source, partitions);
    tokio::spawn(async move {
        let end = supervisor.run().await;
        end_in.send_replace(Some(end));
    });
    handle
}

impl FlowHandle {
    /// Counters since the start.
    pub fn stats(&self) -> crate::stats::FlowCounts {
        self.shared.stats.snapshot()
    }

    /// The flow's settings.
    pub fn spec(&self) -> &FlowSpec {
        &self.shared.spec
    }

    /// Budgets as they stand since the start; the audit counts them from the ledger.
    pub fn budgets(&self) -> Vec<(ReasonCode, Budget, BudgetStand)> {
        self.shared.gate().stands()
    }

    /// Stops taking, after the batch under way.
    ///
    /// # Errors
    /// Where the ledger could not record it: the flow is paused all the same, but a restart won't heed it.
    pub async fn pause(&self, by: &str, because: &str) -> Result<(), Arc<LedgerError>> {
        self.shared.pause(format!("{by}: {because}"));
        self.shared.record(JournalKind::Operator, "paused", operator_detail(by, because)).await
    }

    /// Goes on: what was exceeded is accepted, the breaker begins anew, keys kept held go on.
    ///
    /// # Errors
    /// Where the ledger could not record it: then nothing has changed.
    pub async fn resume(&self, by: &str, because: &str) -> Result<(), Arc<LedgerError>> {
        self.shared.record(JournalKind::Operator, "resumed", operator_detail(by, because)).await?;
        self.shared.gate().accept();
        self.shared.stats.update(|counts| counts.paused = None);
        self.shared.paused.send_replace(None);
        let commands: Vec<_> = self.lock_partitions().values().cloned().collect();
        for command in commands {
            // A partition that ended has no keys to let go.
            drop(command.send(Command::ResumeKeys).await);
        }
        Ok(())
    }

    /// Decides events of one partition anew, whether or not a loop runs it now.
    pub async fn replay(
        &self,
        at: &PartitionId,
        replay_id: u64,
        events: Vec<ReplayEvent>,
    ) -> Result<ReplayReceipt, Stop> {
        let (done, receipt) = oneshot::channel();
        let batch = ReplayBatch { replay_id, events, done };
        let running = self.lock_partitions().get(at).cloned();
        let unsent = match running {
            None => Some(batch),
            Some(commands) => match commands.send(Command::Replay(batch)).await {
                Ok(()) => None,
                Err(mpsc::error::SendError(Command::Replay(batch))) => Some(batch),
                Err(_) => None,
            },
        };
        if let Some(batch) = unsent {
            replay_alone(at.clone(), Arc::clone(&self.shared), batch).await;
        }
        let ended =
            || Stop::new(reason::EFFECTS_AWAY, "the flow ended before the replay was done; ask again");
        receipt.await.unwrap_or_else(|_| Err(ended()))
    }

    /// Asks the flow to drain what is under way and to end.
    pub fn shut_down(&self) {
        self.shutdown.send_replace(true);
    }

    /// How it ended, as soon as it has.
    pub fn ended(&self) -> Option<FlowEnd> {
        self.end.borrow().clone()
    }

    /// Waits for the end.
    pub async fn wait(&self) -> FlowEnd {
        let mut end = self.end.clone();
        let ended = end.wait_for(Option::is_some).await.ok().and_then(|end| end.clone());
        ended.unwrap_or_else(|| {
            let sentence = "the flow's task ended without a word: this is a defect of the program";
            FlowEnd::Stopped(vec![Stop::new(reason::PROGRAM_DEFECT, sentence)])
        })
    }

    fn lock_partitions(&self) -> MutexGuard<'_, BTreeMap<PartitionId, mpsc::Sender<Command>>> {
        self.partitions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn operator_detail(by: &str, because: &str) -> serde_json::Value {
    serde_json::json!({ "by": by, "because": because })
}
