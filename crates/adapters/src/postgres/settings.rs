//! What an effect on PostgreSQL is opened with, and why it can't be.

use super::rehearsal::PostgresRehearsal;
use recount_checks::rules::RuleFault;
use recount_engine::{EffectRows, SqlRoute};
use recount_model::FlowName;
use std::fmt;
use std::time::Duration;

/// Settings of one flow's effect on one PostgreSQL database. Each partition has a connection of its own.
#[derive(Clone)]
pub struct PostgresEffectSettings {
    /// `postgres://user:password@host:port/database?sslmode=…`, as libpq takes it. Never shown.
    pub url: String,
    /// The flow.
    pub flow: FlowName,
    /// Its statements; an event's `route` is the index.
    pub routes: Vec<SqlRoute>,
    /// How effects are counted.
    pub effects: EffectRows,
    /// Whether missing `recount_*` tables are made. Otherwise they must be there already.
    pub create_tables: bool,
    /// A statement that runs longer is interrupted, and the flow pauses. 0: no limit.
    pub statement_time_ms_max: u64,
    /// How long to wait for another's lock. 0: no limit.
    pub lock_time_ms_max: u64,
    /// How long the server waits for us inside a transaction before it takes the locks from us. Must be
    /// below the time after which a group gives our partitions to another process.
    pub idle_in_transaction_ms_max: u64,
    /// How long a connection may take.
    pub connect_time_ms_max: u64,
    /// How much longer than its statements may take an answer may keep us waiting; then the server counts as
    /// away. A server that stands still closes no connection, and interrupts no statement either.
    pub silence_ms_max: u64,
    /// Whether batches run inside the server where that is possible.
    pub in_server: bool,
    /// Where given, nothing is ever committed: all of it happens in the one transaction of this dry run.
    pub rehearsal: Option<PostgresRehearsal>,
}

impl PostgresEffectSettings {
    /// The usual settings: thirty seconds for a statement, five for a lock, ten for our own silence inside
    /// a transaction, batches inside the server.
    pub fn new(url: impl Into<String>, flow: FlowName) -> Self {
        Self {
            url: url.into(),
            flow,
            routes: Vec::new(),
            effects: EffectRows::None,
            create_tables: true,
            statement_time_ms_max: 30_000,
            lock_time_ms_max: 5_000,
            idle_in_transaction_ms_max: 10_000,
            connect_time_ms_max: 5_000,
            silence_ms_max: 30_000,
            in_server: true,
            rehearsal: None,
        }
    }
}

impl PostgresEffectSettings {
    /// Waits for the answers to so many statements.
    ///
    /// # Errors
    /// A sentence where none came in time. Without a limit for a statement there is none here.
    pub(crate) async fn hear<R>(
        &self,
        statements: usize,
        answer: impl Future<Output = R>,
    ) -> Result<R, String> {
        let each_ms = match self.statement_time_ms_max {
            0 => return Ok(answer.await),
            limit_ms => limit_ms.saturating_add(self.lock_time_ms_max),
        };
        let statements = u64::try_from(statements).unwrap_or(u64::MAX);
        let wait_ms = each_ms.saturating_mul(statements).saturating_add(self.silence_ms_max);
        let heard = tokio::time::timeout(Duration::from_millis(wait_ms), answer).await;
        heard.map_err(|_| format!("the server has not answered for {wait_ms} ms"))
    }
}

impl fmt::Debug for PostgresEffectSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresEffectSettings")
            .field("flow", &self.flow)
            .field("routes", &self.routes.len())
            .finish_non_exhaustive()
    }
}

/// Why an effect on PostgreSQL can't be opened.
#[derive(Debug, thiserror::Error)]
pub enum PostgresOpenError {
    /// The URL can't be used.
    #[error("{0}")]
    Url(String),
    /// The server can't be reached, or lets us not in.
    #[error("{0}")]
    Unreachable(String),
    /// Statements that can't be used; all of them at once.
    #[error("{}", .0.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect::<Vec<_>>().join("\n"))]
    Refused(Vec<RuleFault>),
    /// The tables have another format, or are missing and may not be made.
    #[error("{0}")]
    Foreign(String),
    /// It refuses to work as it must.
    #[error("{0}")]
    Unusable(String),
}
