//! Flows run from a program of one's own.

use crate::commands::run::{Signals, all_ended, summary_line, until_ended};
use crate::commands::{operator, runtime};
use crate::config::{Config, EffectConfig};
use crate::exit::{Exit, Failure};
use crate::server::Server;
use crate::steps;
use crate::wiring::audit::{AuditOptions, count_again};
use crate::wiring::{self, Handlers, RunOptions, Running};
use indicatif::ProgressBar;
use recount_audit::AuditReport;
use recount_engine::{FlowCounts, FlowEnd, FlowHandle, Handler};
use std::fmt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A finding of the books names at most so many positions, ids or groups.
const NAMES_MAX: usize = 20;
/// How long tasks of the program's own handlers may go on after [`Flow::run`] is done.
const TASKS_STOP_MAX: Duration = Duration::from_secs(5);

/// One flow of a config, with the handlers in Rust that it calls by name.
///
/// The config says `handler = "NAME"` and `database = "NAME"` in `[flow.NAME.apply]`, and declares the
/// reasons that the handler may give; the program brings the [`Handler`]. Flows whose effect is SQL or an
/// HTTP handler run in the same way, without one.
///
#[doc = include_str!("library_example.md")]
#[must_use = "a flow does nothing until it is run or started"]
pub struct Flow {
    config: Config,
    name: String,
    handlers: Handlers,
    options: RunOptions,
}

/// Why a flow can't be run. How a run *ended* is in its [`RunReport`].
#[derive(Debug, thiserror::Error)]
pub enum FlowError {
    /// The config has faults (all are told, with file and line), lacks the flow, names a handler that was
    /// not given, or a statement in it is refused by the database.
    #[error("{0}")]
    Config(String),
    /// A handler was given under a name that the flow does not call.
    #[error("flow {flow}: a handler {given} was given, and {calls}")]
    UnusedHandler {
        /// The flow.
        flow: String,
        /// The name that was given.
        given: String,
        /// What the config says instead.
        calls: String,
    },
    /// The ledger, a database or the address to listen at can't be had.
    #[error("{0}")]
    Unreachable(String),
    /// What is there must be looked at before events are taken again: a damaged ledger, a recovery that
    /// was begun and not finished.
    #[error("{0}")]
    NotWell(String),
    /// [`Flow::run`] blocks, and would block a runtime's thread.
    #[error("Flow::run blocks and was called inside a tokio runtime; call Flow::start there")]
    InsideRuntime,
}

impl From<Failure> for FlowError {
    fn from(failure: Failure) -> Self {
        match failure.exit {
            Exit::Usage => Self::Config(failure.message),
            Exit::Unreachable => Self::Unreachable(failure.message),
            Exit::Well | Exit::Unprovable | Exit::NotWell => Self::NotWell(failure.message),
        }
    }
}

impl Flow {
    /// The flow of this name in a config file.
    ///
    /// # Errors
    /// [`FlowError::Config`] with every fault of the config, or if it has no such flow.
    pub fn from_config(path: impl AsRef<Path>, flow: &str) -> Result<Self, FlowError> {
        let config = wiring::load(path.as_ref())?;
        wiring::flow(&config, flow)?;
        let options = RunOptions { read_sources: true, ..RunOptions::default() };
        Ok(Self { config, name: flow.to_owned(), handlers: Handlers::new(), options })
    }

    /// Gives the handler that the config calls by this name. Given again under the same name, the last
    /// one holds.
    pub fn handler(mut self, name: &str, handler: impl Handler + 'static) -> Self {
        self.handlers.insert(name.to_owned(), Arc::new(handler));
        self
    }

    /// Reads a source that was read before as a new one, as `recount run --again` does: every event is
    /// decided, and applied, once more.
    pub fn again(mut self) -> Self {
        self.options.again = true;
        self
    }

    /// What the config warns of, each with file, line and a correction.
    pub fn warnings(&self) -> impl Iterator<Item = String> {
        self.config.warnings.iter().map(|warning| warning.render("warning"))
    }

    /// Runs the flow until its source is drained, then counts again. Blocks; a flow that follows its
    /// source, listens, or is paused goes on until the process gets SIGTERM or SIGINT, upon which it drains
    /// what is under way (a second signal ends the process at once). From the first call on, these signals
    /// are tokio's and no longer end the process by themselves: where that is not wanted, use
    /// [`start`](Self::start).
    ///
    /// It serves `/metrics`, `/health` and the commands of operators at the config's `[server] listen`, as
    /// `recount run` does. Log lines go to the program's own `tracing` subscriber.
    ///
    /// # Errors
    /// If it can't start, or the books can't be counted at the end. A flow that stopped on the way is no
    /// error but the report's [`end`](RunReport::end).
    pub fn run(self) -> Result<RunReport, FlowError> {
        if tokio::runtime::Handle::try_current().is_ok() {
            return Err(FlowError::InsideRuntime);
        }
        let runtime = runtime()?;
        let report = runtime.block_on(async {
            let signals = Signals::new();
            let run = self.start().await?;
            let ends = until_ended(&run.running, &ProgressBar::hidden(), signals).await;
            run.conclude(ends).await
        });
        runtime.shutdown_timeout(TASKS_STOP_MAX);
        report
    }

    /// Starts the flow in the current tokio runtime, which needs its timer and I/O enabled, and returns at
    /// once. Signals are left alone. Otherwise as [`run`](Self::run).
    ///
    /// # Errors
    /// If it can't start. Nothing is taken, and nothing written but the ledger's own files, until it has.
    pub async fn start(self) -> Result<FlowRun, FlowError> {
        self.refuse_unused_handlers()?;
        let wanted = [self.name];
        let listening = wiring::listen(&self.config)?;
        let probe = steps::probe();
        let options = self.options;
        let mut running =
            wiring::start(&self.config, &wanted, options, &self.handlers, probe, Some(&listening)).await?;
        let server = Server::start(&self.config, &mut running, listening).await?;
        let handle = running.flows[0].handle.clone();
        let [name] = wanted;
        Ok(FlowRun { config: self.config, name, running, server, handle, began: Instant::now() })
    }

    fn refuse_unused_handlers(&self) -> Result<(), FlowError> {
        let flow = wiring::flow(&self.config, &self.name)?;
        let called = match &flow.effect {
            EffectConfig::Handler { name, .. } => Some(name),
            _ => None,
        };
        let Some(given) = self.handlers.keys().find(|given| Some(*given) != called) else { return Ok(()) };
        let calls = match called {
            Some(name) => format!("the config calls {name}"),
            None => {
                format!("the config calls none; write: handler = \"{given}\" in [flow.{}.apply]", self.name)
            }
        };
        Err(FlowError::UnusedHandler { flow: self.name.clone(), given: given.clone(), calls })
    }
}

impl fmt::Debug for Flow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let handlers: Vec<&String> = self.handlers.keys().collect();
        f.debug_struct("Flow").field("name", &self.name).field("handlers", &handlers).finish_non_exhaustive()
    }
}

/// A flow that was [started](Flow::start). Dropping it does not stop the flow: that goes on until
/// [`shut_down`](Self::shut_down), or until its runtime is dropped. Then the batch under way still ends, on
/// a thread of its own, and until it has the ledger stays in use; the next start finds what was committed.
#[must_use = "wait for its end, or nobody learns how it ended"]
pub struct FlowRun {
    config: Config,
    name: String,
    running: Running,
    server: Server,
    handle: FlowHandle,
    began: Instant,
}

impl FlowRun {
    /// Stops taking, after the batch under way. Recorded, with the sentence and who runs the program, and
    /// holds over restarts.
    ///
    /// # Errors
    /// If the ledger could not record it: it is paused, but a restart won't heed it.
    pub async fn pause(&self, because: &str) -> Result<(), FlowError> {
        self.handle.pause(&operator(), because).await.map_err(unrecorded)
    }

    /// Goes on after a pause: what was exceeded is accepted, and the breaker begins anew. Recorded.
    ///
    /// # Errors
    /// If the ledger could not record it: then nothing has changed.
    pub async fn resume(&self, because: &str) -> Result<(), FlowError> {
        self.handle.resume(&operator(), because).await.map_err(unrecorded)
    }

    /// Counters since the start, as of now. The books never come from them.
    pub fn stats(&self) -> FlowCounts {
        self.handle.stats()
    }

    /// Asks the flow to drain what is under way and to end; [`wait`](Self::wait) for it.
    pub fn shut_down(&self) {
        self.handle.shut_down();
    }

    /// Waits for the end, lets go of ledger and database, and counts again. Cancelled, it leaves the flow
    /// as dropping this does.
    ///
    /// # Errors
    /// If the books can't be counted: the ledger or the config's databases can't be read.
    pub async fn wait(self) -> Result<RunReport, FlowError> {
        let ends = all_ended(&self.running).await;
        self.conclude(ends).await
    }

    async fn conclude(self, ends: Vec<FlowEnd>) -> Result<RunReport, FlowError> {
        let Self { config, name, running, server, handle, began } = self;
        let decided_before = running.decided_before.iter().sum();
        let decided = handle.stats();
        server.stop().await;
        let end = ends.into_iter().next().unwrap_or(FlowEnd::ShutDown);
        // Closing the ledger and counting both read and write files.
        let counted = tokio::task::spawn_blocking(move || {
            drop((running, handle));
            let options = AuditOptions { identified: false, names_max: NAMES_MAX };
            count_again(&config, std::slice::from_ref(&name), options).map(|books| (name, books))
        });
        let (flow, books) = counted.await.map_err(|error| {
            FlowError::NotWell(format!("the books could not be counted, which is a defect: {error}"))
        })??;
        Ok(RunReport { flow, end, decided, decided_before, took: began.elapsed(), books })
    }
}

fn unrecorded(error: Arc<recount_ledger::LedgerError>) -> FlowError {
    FlowError::NotWell(format!("it could not be recorded: {error}"))
}

impl fmt::Debug for FlowRun {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FlowRun")
            .field("name", &self.name)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// What a run came to. Its text is a line about the run and the books, as `recount run` prints them.
#[derive(Debug, Clone)]
pub struct RunReport {
    /// The flow.
    pub flow: String,
    /// How it ended.
    pub end: FlowEnd,
    /// What this run decided, by verdict and reason.
    pub decided: FlowCounts,
    /// Positions that earlier runs had decided.
    pub decided_before: u64,
    /// From the start to the end of counting.
    pub took: Duration,
    /// The books of the whole flow, earlier runs included: counted again from ledger, source and database,
    /// never from `decided`.
    pub books: AuditReport,
}

impl RunReport {
    /// Whether it ended by itself or was asked to, and the books say that all is well: balanced, nothing
    /// lost, every budget kept. Dead letters within their budget are well; unprovable is not.
    pub fn is_well(&self) -> bool {
        !matches!(self.end, FlowEnd::Stopped(_)) && self.books.exit_code() == 0
    }

    /// Events that this run applied.
    pub fn applied(&self) -> u64 {
        self.count("applied", "")
    }

    /// Events that this run skipped for this reason.
    pub fn skipped(&self, reason: &str) -> u64 {
        self.count("skipped", reason)
    }

    /// Events that this run dead-lettered for this reason.
    pub fn dead_lettered(&self, reason: &str) -> u64 {
        self.count("dead-lettered", reason)
    }

    fn count(&self, verdict: &'static str, reason: &str) -> u64 {
        self.decided.decisions.get(&(verdict, reason.to_owned())).copied().unwrap_or(0)
    }
}

impl fmt::Display for RunReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let line = summary_line(&self.flow, &self.end, &self.decided, self.decided_before, self.took);
        writeln!(f, "{line}\n")?;
        f.write_str(&recount_audit::render::text(&self.books))
    }
}
