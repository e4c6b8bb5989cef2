//! From a resolved config to running parts: ledger, sources, effects, flows.

pub mod audit;
mod dry_run;
pub mod effect;
#[cfg(feature = "kafka")]
mod group;
#[cfg(feature = "kafka")]
mod kafka;
mod keeper;
mod ledger;
#[cfg(feature = "kafka")]
mod letter_sender;
pub mod letters;
mod listening;
mod report;
pub mod source;

pub use dry_run::{copy as copy_database, dry_run, point_at_copies, tried_where};
pub use effect::Handlers;
#[cfg(feature = "kafka")]
pub(crate) use kafka::{broker, sharing};
pub use ledger::{OpenLedger, ledger_failure, open_ledger, read_held, read_ledger};
pub use listening::{Listening, control_token_path, listen};

use crate::config::{Config, FlowConfig, named_folder};
use crate::exit::Failure;
use crate::spans::{self, Spans};
use recount_checks::FlowChecks;
use recount_engine::{
    Book, Clock, FlowHandle, FlowParts, Guards, Probe, StartOptions, SystemClock, start_flow,
};
use recount_ledger::{JournalEntry, JournalKind, LedgerRead};
use recount_model::{FlowName, Timestamp};
use std::path::Path;
use std::sync::Arc;

/// What a run may do beyond the usual.
#[derive(Debug, Clone, Copy, Default)]
pub struct RunOptions {
    /// Read what was read before as a new incarnation.
    pub again: bool,
    /// Go on although the ledger lost decisions.
    pub adopt: bool,
    /// Start the loops, or only what commands need.
    pub read_sources: bool,
    /// Only an operator's verdicts are decided, so a handler that this program doesn't have isn't missed.
    pub operator_only: bool,
}

/// The flows of a config, with what they share.
pub struct Running {
    /// The ledger.
    pub book: Book,
    /// The flows that were started, in the order of the config.
    pub flows: Vec<RunningFlow>,
    /// Positions that each flow had decided before, in the same order.
    pub decided_before: Vec<u64>,
    /// Routes that take events for `http` sources.
    pub routes: Vec<axum::Router>,
    /// Where the flows' spans go; dropped, it sends what is left.
    pub spans: Option<Spans>,
    /// Who takes in what other processes write to a shared ledger, as long as this lives.
    pub keeper: Option<keeper::Keeper>,
    /// Who looks at the groups of observed consumers, as long as this lives.
    #[cfg(feature = "kafka")]
    pub groups: Vec<group::GroupWatch>,
    /// Who sends dead letters to topics, as long as this lives.
    #[cfg(feature = "kafka")]
    pub letters: Vec<letter_sender::LetterSender>,
}

impl Running {
    /// No flow yet.
    fn new(book: Book, config: &Config) -> Result<Self, Failure> {
        let spans = config.tracing.as_ref().map(Spans::start).transpose()?;
        Ok(Self {
            book,
            flows: Vec::new(),
            decided_before: Vec::new(),
            routes: Vec::new(),
            spans,
            keeper: None,
            #[cfg(feature = "kafka")]
            groups: Vec::new(),
            #[cfg(feature = "kafka")]
            letters: Vec::new(),
        })
    }

    /// Lets dead letters that were decided by now go to their topics, as far as that is soon done.
    pub async fn finish_letters(&mut self) {
        #[cfg(feature = "kafka")]
        for sender in self.letters.drain(..) {
            sender.finish().await;
        }
    }
}

/// One flow.
pub struct RunningFlow {
    /// As declared.
    pub config: FlowConfig,
    /// Its handle.
    pub handle: FlowHandle,
}

/// Now.
pub fn now() -> Timestamp {
    SystemClock.now()
}

/// Starts the flows that `wanted` names (all where it is empty), with the handlers in Rust that this
/// program has.
pub async fn start(
    config: &Config,
    wanted: &[String],
    options: RunOptions,
    handlers: &Handlers,
    probe: Arc<dyn Probe>,
    listening: Option<&Listening>,
) -> Result<Running, Failure> {
    let flows = wanted_flows(config, wanted)?;
    if !options.operator_only {
        refuse_missing_handlers(&flows, handlers)?;
    }
    let mut ledger = open_ledger(&config.ledger)?;
    if let Some(listening) = listening {
        ledger.announce(&format!("http://{}", listening.address)).map_err(ledger_failure)?;
        listening::write_control_token(config, &listening.control_token)?;
    }
    let is_shared = config.ledger.database.is_some();
    let version = ledger.store().config(&config.stored(now())).map_err(ledger_failure)?;
    let journal = read_held(&config.ledger)?.journal(None).map_err(ledger_failure)?;
    let mut prepared = Vec::new();
    for flow in flows {
        let known = source::known(ledger.store(), &flow.spec.flow)?;
        prepared.push((flow, known));
    }
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let book = Book::threaded(ledger.into_store(), Arc::clone(&clock)).map_err(Failure::unreachable)?;
    let mut running = Running::new(book, config)?;
    if is_shared {
        let keeper = keeper::Keeper::start(&config.ledger.path, running.book.clone());
        running.keeper = Some(keeper.map_err(Failure::unreachable)?);
    }
    let mut reporting = report::Reporting::new(config);
    for (flow, known) in prepared {
        refuse_unfinished_recovery(&journal, &flow.spec.flow, options)?;
        running.decided_before.push(known.iter().map(|known| known.next_offset).sum());
        let paused = paused_since(&journal, &flow.spec.flow);
        if let Some(why) = &paused {
            let name = &flow.spec.flow;
            tracing::warn!(flow = %name, "is paused, and takes nothing until: recount resume {name} --because …; {why}");
        }
        let checks = Arc::new(compile(flow)?);
        let source = source::open(config, flow, known, options, &running.book, &mut running.routes)?;
        let parts = FlowParts {
            source: match options.read_sources {
                true => reporting.source(config, flow, source, &checks, &running.book)?,
                false => source,
            },
            effect: effect::open(config, flow, handlers).await?,
            book: running.book.clone(),
            clock: Arc::clone(&clock),
            probe: spans::probe(running.spans.as_ref(), flow, &checks, &probe),
            checks,
            guards: Guards::default(),
            seed: u64::from(std::process::id()) ^ now().0.unsigned_abs(),
            start_options: StartOptions { adopt: options.adopt },
            paused,
            spec: recount_engine::FlowSpec { config: version, ..flow.spec.clone() },
        };
        running.flows.push(RunningFlow { config: flow.clone(), handle: start_flow(parts) });
    }
    running.routes.push(reporting.router(config)?);
    #[cfg(feature = "kafka")]
    if options.read_sources {
        running.groups = group::watch(config, &running)?;
        running.letters = letter_sender::start(config, &running)?;
    }
    Ok(running)
}

/// Before anything is written, so that a program which lacks a handler leaves no trace.
fn refuse_missing_handlers(flows: &[&FlowConfig], handlers: &Handlers) -> Result<(), Failure> {
    match flows.iter().find_map(|flow| effect::missing_handler(flow, handlers)) {
        Some(failure) => Err(failure),
        None => Ok(()),
    }
}

fn wanted_flows<'c>(config: &'c Config, wanted: &[String]) -> Result<Vec<&'c FlowConfig>, Failure> {
    if let Some(unknown) = wanted.iter().find(|name| config.flow(name).is_none()) {
        return Err(unknown_flow(config, unknown));
    }
    let is_wanted =
        |flow: &&FlowConfig| wanted.is_empty() || wanted.iter().any(|name| flow.spec.flow.as_str() == name);
    Ok(config.flows.iter().filter(is_wanted).collect())
}

/// The failure for a flow that the config doesn't have.
pub fn unknown_flow(config: &Config, name: &str) -> Failure {
    let names: Vec<_> = config.flows.iter().map(|flow| flow.spec.flow.as_str()).collect();
    Failure::usage(format!("{} has no flow {name}; it has {}", config.path.display(), names.join(", ")))
}

/// The flow of this name.
pub fn flow<'c>(config: &'c Config, name: &str) -> Result<&'c FlowConfig, Failure> {
    config.flow(name).ok_or_else(|| unknown_flow(config, name))
}

/// Compiles a flow's rules; what can't be compiled was refused when the config was read.
pub fn compile(flow: &FlowConfig) -> Result<FlowChecks, Failure> {
    FlowChecks::compile(&flow.rules, &flow.spec.flow).map_err(|faults| {
        let lines: Vec<_> = faults.iter().map(|fault| format!("{}: {}", fault.rule, fault.message)).collect();
        Failure::usage(lines.join("\n"))
    })
}

/// Why a flow is paused by what the journal says last of it.
pub fn paused_since(journal: &[(u64, JournalEntry)], flow: &FlowName) -> Option<String> {
    let mut paused = None;
    for (_, entry) in journal.iter().filter(|(_, entry)| entry.flow.as_ref() == Some(flow)) {
        match (entry.kind, entry.what.as_str()) {
            (JournalKind::Operator, "paused") => paused = Some(sentence(entry)),
            (JournalKind::Flow, "breaker_open") if entry.detail["then"] == "pause" => {
                let (not_applied, of_last) = (&entry.detail["not_applied"], &entry.detail["of_last"]);
                paused = Some(format!(
                    "breaker_open: {not_applied} of the last {of_last} events were not applied (since {})",
                    entry.at
                ));
            }
            (JournalKind::Operator, "resumed") => paused = None,
            _ => {}
        }
    }
    paused
}

fn sentence(entry: &JournalEntry) -> String {
    let text = |field: &str| entry.detail[field].as_str().unwrap_or("unknown").to_owned();
    format!("{}: {} (since {})", text("by"), text("because"), entry.at)
}

/// A recovery that began and did not end must be finished before events are taken again.
fn refuse_unfinished_recovery(
    journal: &[(u64, JournalEntry)],
    flow: &FlowName,
    options: RunOptions,
) -> Result<(), Failure> {
    if options.read_sources && unfinished_recovery(journal, flow).is_some() {
        return Err(Failure::not_well(format!(
            "flow {flow}: a recovery was begun and not finished; finish it first: recount ledger recover --reapply (or \
             --accept) --because …"
        )));
    }
    Ok(())
}

/// The entry of a recovery that began and did not end.
pub fn unfinished_recovery<'j>(
    journal: &'j [(u64, JournalEntry)],
    flow: &FlowName,
) -> Option<&'j (u64, JournalEntry)> {
    let of_flow = |(_, entry): &&(u64, JournalEntry)| {
        entry.flow.as_ref() == Some(flow) && (entry.what == "recovering" || entry.what == "recovered")
    };
    journal.iter().rfind(of_flow).filter(|(_, entry)| entry.what == "recovering")
}

/// Reads the config, or gives every fault at once.
pub fn load(path: &Path) -> Result<Config, Failure> {
    let mut config = Config::load(path).map_err(|faults| Failure::usage(faults.render()))?;
    if let Some(folder) = named_folder() {
        config.ledger.path = folder;
    }
    Ok(config)
}
