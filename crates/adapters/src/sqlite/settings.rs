//! What an effect on SQLite is opened with, and why it can't be.

use recount_checks::rules::RuleFault;
use recount_engine::{EffectRows, Handler, OtherwiseVerdict, SqlRoute};
use recount_model::{FlowName, ReasonCode};
use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;

/// Settings of one flow's effect on one SQLite database. All partitions of the flow share it.
#[derive(Clone)]
pub struct SqliteEffectSettings {
    /// The database file.
    pub path: PathBuf,
    /// The SQLite VFS to open it with; none takes the system's.
    pub vfs: Option<String>,
    /// Whether a missing file is made (in WAL mode). A user's database is never made silently.
    pub create_file: bool,
    /// Whether missing `recount_*` tables are made. Otherwise they must be there already.
    pub create_tables: bool,
    /// The flow.
    pub flow: FlowName,
    /// Its statements; an event's `route` is the index. Empty, without a handler: events that pass the
    /// checks are applied by nothing more than their record.
    pub routes: Vec<SqlRoute>,
    /// A handler in Rust in place of statements.
    pub handler: Option<Arc<dyn Handler>>,
    /// Reasons that the handler may give, each with its verdict; another reason, or another verdict with
    /// it, is a dead letter, `undeclared_reason`.
    pub handler_reasons: BTreeMap<ReasonCode, OtherwiseVerdict>,
    /// How effects are counted.
    pub effects: EffectRows,
    /// How long to wait for another's lock.
    pub busy_timeout_ms: u64,
    /// A statement that runs longer is interrupted, and the flow pauses. 0: no limit.
    pub statement_time_ms_max: u64,
    /// A handler that takes longer is given up, and the flow pauses; needs `threaded`. 0: no limit.
    pub handler_time_ms_max: u64,
    /// A thread of its own, or (in the simulator) none.
    pub threaded: bool,
    /// What a test may take away.
    #[doc(hidden)]
    pub guards: SqliteGuards,
}

impl SqliteEffectSettings {
    /// The usual settings: no statements, five seconds for locks, thirty for a statement, a thread of its own.
    pub fn new(path: impl Into<PathBuf>, flow: FlowName) -> Self {
        Self {
            path: path.into(),
            vfs: None,
            create_file: false,
            create_tables: true,
            flow,
            routes: Vec::new(),
            handler: None,
            handler_reasons: BTreeMap::new(),
            effects: EffectRows::None,
            busy_timeout_ms: 5_000,
            statement_time_ms_max: 30_000,
            handler_time_ms_max: 30_000,
            threaded: true,
            guards: SqliteGuards::default(),
        }
    }
}

impl fmt::Debug for SqliteEffectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SqliteEffectSettings")
            .field("path", &self.path)
            .field("flow", &self.flow)
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

/// Guards that the simulator takes away one at a time, to show that it notices.
#[doc(hidden)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SqliteGuards {
    /// Whether a batch is claimed with its epoch and seq.
    pub claim: bool,
}

impl Default for SqliteGuards {
    fn default() -> Self {
        Self { claim: true }
    }
}

/// Why an effect on SQLite can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum SqliteOpenError {
    /// There is no file, or (where tables are not to be made) no `recount_*` tables.
    #[error("{0}")]
    Missing(String),
    /// Statements that can't be used; all of them at once.
    #[error("{}", .0.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<RuleFault>),
    /// The tables have another format.
    #[error("{0}")]
    Foreign(String),
    /// It can't be opened, read or written.
    #[error("{0}")]
    Unusable(String),
}
