//! `recount.toml`: from text to a [`Config`] that is resolved and valid, or to all of its faults at once,
//! each with file, line and what to write instead.
//!
//! Two stages. [`raw`] holds the text against one description of every table and key ([`tables`]), which
//! also generates `docs/config-reference.md`. [`resolve`] asks whether what is written fits together.

mod apply;
mod broker;
mod database;
mod fault;
mod fields;
mod flow;
mod flow_tables;
mod ledger;
mod letters;
mod origin;
mod raw;
mod reading;
mod reconcile;
pub mod reference;
mod resolve;
mod scalar;
mod secret;
pub mod spec;
mod sql_text;
mod tables;
mod tracing;
mod value;
mod watched;

#[cfg(test)]
mod tests;

pub use broker::{BrokerConfig, Property, StartAt};
pub use database::{DatabaseConfig, DatabasePlace, DatabaseUrlError};
pub use fault::{Fault, Faults};
pub(crate) use fault::{count, distance, nearest};
pub use ledger::LedgerDatabase;
pub(crate) use ledger::{name_folder, named_folder};
pub use letters::{LetterHeadersConfig, LettersConfig};
pub use scalar::{Expect, rows_text, size_text};
pub use secret::{Secret, SecretError, SecretText, expand_env};
pub use tables::ROOT;
pub use tracing::TracingConfig;

use fault::{Place, Sink};
use recount_checks::{FlowRules, RuleFault};
use recount_engine::{EffectRows, FlowSpec, OtherwiseVerdict, SqlRoute};
use recount_model::{Amount, Budget, FlowName, Origin, ReasonCode};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// A config, resolved and valid.
#[derive(Debug, Clone)]
pub struct Config {
    /// The file, as it was named.
    pub path: PathBuf,
    /// Where the ledger lies, and how it is kept.
    pub ledger: LedgerConfig,
    /// The HTTP side.
    pub server: ServerConfig,
    /// Log lines.
    pub log: LogConfig,
    /// Where spans go; none: none are made.
    pub tracing: Option<TracingConfig>,
    /// Databases by name.
    pub databases: BTreeMap<String, DatabaseConfig>,
    /// Brokers by name.
    pub brokers: BTreeMap<String, BrokerConfig>,
    /// In the order of the file.
    pub flows: Vec<FlowConfig>,
    /// In the order of the file.
    pub reconciles: Vec<ReconcileConfig>,
    /// What isn't wrong but should be looked at.
    pub warnings: Vec<Fault>,
    text: String,
    files: Vec<(String, String)>,
}

/// `[ledger]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerConfig {
    /// The folder.
    pub path: PathBuf,
    /// The database that holds the ledger, of which the folder is a replica; none where the folder is the ledger.
    pub database: Option<LedgerDatabase>,
    /// A segment is closed at this age.
    pub segment_ms: u64,
    /// A segment is closed at this size.
    pub segment_bytes: u64,
    /// Older segments are dropped; none: never.
    pub retention_ms: Option<u64>,
    /// The oldest segments are dropped above this total; none: never.
    pub retention_bytes: Option<u64>,
}

/// `[server]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerConfig {
    /// Address and port. Loopback unless there is a token or an HMAC key.
    pub listen: String,
    /// Bearer token of requests.
    pub token: Option<Secret>,
    /// Key of an HMAC-SHA256 over the body.
    pub hmac: Option<Secret>,
    /// Larger bodies are refused.
    pub body_bytes_max: usize,
}

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LogFormat {
    /// Human on a terminal, else JSON.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// `[log]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LogConfig {
    /// How they look.
    pub format: LogFormat,
    /// `error`, `warn`, `info`, `debug` or `trace`.
    pub level: String,
}

/// Where a flow's events come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SourceConfig {
    /// A file, or a folder of files.
    File {
        /// The path.
        path: PathBuf,
        /// Whether to wait for more at its end.
        follow: bool,
    },
    /// Standard input (`file = "-"`).
    Stdin,
    /// Requests to the server.
    Http {
        /// The path of the URL, with its slash.
        path: String,
    },
    /// A topic of Apache Kafka.
    Kafka {
        /// A key of [`Config::brokers`].
        broker: String,
        /// The topic.
        topic: String,
        /// The group in which the position is written; none where Recount only watches.
        group: Option<String>,
        /// The group of the consumer that is observed; nothing is ever written to it.
        observed: Option<ObservedGroup>,
        /// Where to begin where the ledger has nothing.
        start: Option<StartAt>,
        /// Who this process is among those that share the topic, with `${NAME}` as written; none: an id that is
        /// kept in the ledger's folder.
        member: Option<String>,
    },
}

/// The consumer group that an observed flow looks at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ObservedGroup {
    /// Its name.
    pub group: String,
    /// How far back its status looks.
    pub window_ms: u64,
}

/// Who owns the loop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlowMode {
    /// Recount.
    Run,
    /// A consumer of the user's, which knows nothing of Recount.
    Observe,
    /// A consumer of the user's, which reports what it decided.
    Report,
}

impl FlowMode {
    /// As it is written in the config.
    pub fn word(self) -> &'static str {
        match self {
            Self::Run => "run",
            Self::Observe => "observe",
            Self::Report => "report",
        }
    }

    /// Where its decisions come from.
    pub fn origin(self) -> Origin {
        match self {
            Self::Run => Origin::Ran,
            Self::Observe => Origin::Expected,
            Self::Report => Origin::Reported,
        }
    }
}

/// What is done with events that pass.
#[derive(Debug, Clone, PartialEq)]
pub enum EffectConfig {
    /// SQL in a database; an event's route is the index.
    Sql {
        /// A key of [`Config::databases`].
        database: String,
        /// One for each `apply`.
        routes: Vec<SqlRoute>,
        /// How effects are counted.
        effects: EffectRows,
    },
    /// A handler in Rust, in a transaction of a database. The program that runs the flow brings it.
    Handler {
        /// A key of [`Config::databases`].
        database: String,
        /// The name under which the program gives it.
        name: String,
        /// How effects are counted.
        effects: EffectRows,
        /// The reasons that it may give, with the verdicts that they come with.
        reasons: BTreeMap<ReasonCode, OtherwiseVerdict>,
    },
    /// HTTP handlers; an event's route is the index.
    Http {
        /// One for each `apply`.
        routes: Vec<HttpRoute>,
        /// The reasons that the handlers may give, with the verdicts that they come with.
        reasons: BTreeMap<ReasonCode, OtherwiseVerdict>,
    },
    /// Nothing by Recount: the consumer is somebody else's, and its effects are only looked at.
    Watched {
        /// A key of [`Config::databases`]; none where they are counted over HTTP, or where a consumer that reports has
        /// no effects to be counted.
        database: Option<String>,
        /// The user's own query, or none.
        effects: EffectRows,
        /// Who tells their number over HTTP, instead of a database.
        http: Option<HttpCount>,
        /// For how long after Recount has seen an event its effect, or its report, may be missing.
        within_ms: u64,
    },
    /// Nothing; events that pass are applied by their record alone.
    None,
}

impl EffectConfig {
    /// The database in which Recount applies, and how effects are counted there; `None` where there is none.
    pub fn in_database(&self) -> Option<(&str, &EffectRows)> {
        match self {
            Self::Sql { database, effects, .. } | Self::Handler { database, effects, .. } => {
                Some((database, effects))
            }
            Self::Http { .. } | Self::Watched { .. } | Self::None => None,
        }
    }

    /// Where the effects of a consumer that Recount doesn't run are seen.
    pub fn watched(&self) -> Option<WatchedEffects<'_>> {
        match self {
            Self::Watched {
                database: Some(database),
                effects: EffectRows::Custom { sql, id },
                within_ms,
                ..
            } => Some(WatchedEffects { database, sql, id: id.as_deref(), http: None, within_ms: *within_ms }),
            Self::Watched { http: Some(http), within_ms, .. } => Some(WatchedEffects {
                database: &http.url,
                sql: "",
                id: None,
                http: Some(http),
                within_ms: *within_ms,
            }),
            _ => None,
        }
    }
}

/// Where the effects of a consumer that Recount doesn't run are seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchedEffects<'c> {
    /// A key of [`Config::databases`]; with `http` its address, to be shown.
    pub database: &'c str,
    /// One row an effect; empty with `http`.
    pub sql: &'c str,
    /// Its column with the event's id; none where only counting is possible.
    pub id: Option<&'c str>,
    /// Who is asked instead of a database.
    pub http: Option<&'c HttpCount>,
    /// For how long after Recount has seen an event its effect may be missing.
    pub within_ms: u64,
}

/// Who tells over HTTP how many effects there are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpCount {
    /// Where.
    pub url: String,
    /// A JSON Pointer to the number in its answer.
    pub pointer: String,
    /// Bearer token sent along.
    pub token: Option<Secret>,
}

/// One `apply` with `http`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HttpRoute {
    /// Where to.
    pub url: String,
    /// For a batch.
    pub deadline_ms: u64,
    /// Bearer token sent along.
    pub token: Option<Secret>,
}

/// What a reason says of an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReasonVerdict {
    /// Skipped.
    Skip,
    /// Dead-lettered.
    DeadLetter,
    /// Passes, and is counted.
    Flag,
    /// Tried again.
    Retry,
}

/// Who gives a reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReasonOrigin {
    /// Recount itself.
    BuiltIn,
    /// A check; its expression.
    Check(String),
    /// An `otherwise` of an effect; its query, where it has one.
    Otherwise(Option<String>),
    /// A handler.
    Handler,
}

/// A reason that a flow may give.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonInfo {
    /// The code.
    pub code: ReasonCode,
    /// What it says.
    pub verdict: ReasonVerdict,
    /// Its budget.
    pub budget: Budget,
    /// The sentence.
    pub because: String,
    /// When somebody should look at it again.
    pub review_by: Option<jiff::civil::Date>,
    /// Who gives it.
    pub origin: ReasonOrigin,
    /// The line of the config that declares it; 0 for built-in ones.
    pub line: usize,
}

/// `[flow.NAME]`.
#[derive(Debug, Clone)]
pub struct FlowConfig {
    /// Who owns the loop.
    pub mode: FlowMode,
    /// For the loop. Its `config` is version 0 until the ledger has given one.
    pub spec: FlowSpec,
    /// For the checks.
    pub rules: FlowRules,
    /// Where events come from.
    pub source: SourceConfig,
    /// What is done with them.
    pub effect: EffectConfig,
    /// Silence longer than this is not working.
    pub expect: Option<Expect>,
    /// An event may stay undecided for so long.
    pub open_ms_max: u64,
    /// The topic that dead letters go to, besides the ledger.
    pub letters: Option<LettersConfig>,
    /// Every reason that it may give: declared ones in the order of the file, then built-in ones.
    pub reasons: Vec<ReasonInfo>,
    places: BTreeMap<String, Place>,
}

/// Which of a flow's events a reconcile sums.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SumOf {
    /// Decoded, duplicates left out.
    Received,
    /// With the verdict `applied`.
    Applied,
}

/// A sum over a flow's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowSum {
    /// The flow.
    pub flow: FlowName,
    /// Which of the flow's measures (`FlowRules::measures`).
    pub measure: usize,
    /// Which events.
    pub of: SumOf,
    /// Reasons whose sums are taken off.
    pub less: Vec<ReasonCode>,
    /// The expression of the group, where there is one.
    pub by: Option<String>,
    /// Whether the group comes from a secret field: it is then counted, not named.
    pub by_is_secret: bool,
}

/// The right side of a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RightSide {
    /// A query.
    Query {
        /// A key of [`Config::databases`].
        database: String,
        /// One number; with `by`, rows of group and number.
        sql: String,
    },
}

/// `[[reconcile]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReconcileConfig {
    /// What the equation says.
    pub name: String,
    /// What the events say.
    pub left: FlowSum,
    /// What should be equal to it.
    pub right: RightSide,
    /// The sides may differ by so much.
    pub tolerance: Amount,
    /// A difference is open for so long.
    pub within_ms: Option<u64>,
    /// The line of the config.
    pub line: usize,
}

impl Config {
    /// Reads a file, and the schemas that it names.
    ///
    /// # Errors
    /// All faults at once, sorted by line.
    pub fn load(path: &Path) -> Result<Self, Faults> {
        let text = reading::text(path)?;
        Self::from_text(&text, path)
    }

    /// Reads a text as if it stood in the file `path`, from whose folder other files are found.
    ///
    /// # Errors
    /// All faults at once, sorted by line.
    pub fn from_text(text: &str, path: &Path) -> Result<Self, Faults> {
        let file = path.display().to_string();
        let mut sink = Sink::new(&file, text);
        let raw = raw::read(&ROOT, text, &mut sink);
        let config = resolve::resolve(&raw, text, path, &mut sink);
        let (faults, warnings) = sink.finish();
        if faults.is_empty() { Ok(Self { warnings, ..config }) } else { Err(Faults { faults, warnings }) }
    }

    /// The flow of this name.
    pub fn flow(&self, name: &str) -> Option<&FlowConfig> {
        self.flows.iter().find(|flow| flow.spec.flow.as_str() == name)
    }

    /// The text as written.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// A warning that somebody should have looked at a reason again by now.
    pub(crate) fn review_overdue(&self, flow: &FlowConfig, reason: &ReasonInfo) -> Fault {
        let date = reason.review_by.map(|date| date.to_string()).unwrap_or_default();
        let message = format!("{} was to be reviewed by {date}", reason.code);
        let help = format!("ask the {}: does it still hold? then set a new date", flow.spec.owner);
        let start = self.text.split_inclusive('\n').take(reason.line.saturating_sub(1)).map(str::len).sum();
        let end = self.text[start..].find('\n').map_or(self.text.len(), |newline| start + newline);
        let key = format!("flow.{}.{}.review_by", flow.spec.flow, reason.code);
        self.fault_in(&Place { span: start..end, key }, message, Some(help))
    }

    /// Something about the database of a shared ledger.
    pub(crate) fn warning_of_ledger(&self, message: String) -> Fault {
        let at = self.ledger.database.as_ref().map(|shared| shared.at.clone());
        self.fault_in(&at.unwrap_or(Place { span: 0..0, key: "ledger".into() }), message, None)
    }

    fn fault_in(&self, place: &Place, message: String, help: Option<String>) -> Fault {
        let file = self.path.display().to_string();
        let mut sink = Sink::new(&file, &self.text);
        sink.fault(place, message, help);
        sink.finish().0.remove(0)
    }

    /// Turns what a later stage found (a statement that the database refuses) into a fault with its line.
    pub fn fault_at(&self, flow: &FlowName, found: &RuleFault) -> Fault {
        let place = self
            .flow(flow.as_str())
            .and_then(|flow| flow::place_of(&flow.places, &found.rule))
            .unwrap_or(Place { span: 0..0, key: format!("flow.{flow}") });
        self.fault_in(&place, found.message.clone(), None)
    }
}
