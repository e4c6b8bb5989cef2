//! The connection and what is done with it, one request at a time.

use super::connect::{self, Opening, StatementWatch};
use super::events::{Applying, Plain};
use super::faults::{self, fault};
use super::handler::{HandlerRuntime, Handling, nothing_to_do};
use super::plan::{self, NoPlan, Plan};
use super::settings::{SqliteEffectSettings, SqliteOpenError};
use super::{position, replays, schema};
use recount_engine::{
    Claim, Committed, Conclude, EffectBatch, EffectEvent, EffectFault, EffectRows, Outcome,
};
use recount_model::PartitionId;
use rusqlite::{Connection, ffi};
use std::collections::HashMap;

/// What is committed together, with outcomes that are already known.
pub(crate) struct Known {
    pub(crate) at: PartitionId,
    pub(crate) claim: Claim,
    pub(crate) events: Vec<EffectEvent>,
    pub(crate) outcomes: Vec<Outcome>,
    pub(crate) ledger_has_seq: u64,
    pub(crate) conclude: Conclude,
}

pub(crate) struct Worker {
    settings: SqliteEffectSettings,
    /// None after a fault that wants a new connection.
    conn: Option<Connection>,
    plan: Plan,
    watch: StatementWatch,
    handling: Option<Handling>,
    /// Partitions with an event marked alone by us, and the epoch.
    alone: HashMap<PartitionId, u64>,
}

impl Worker {
    pub(crate) fn open(
        settings: SqliteEffectSettings,
        runtime: Option<HandlerRuntime>,
    ) -> Result<Self, SqliteOpenError> {
        let watch = StatementWatch::default();
        let mut conn = connect(&settings, &watch, settings.create_file)?;
        schema::prepare_tables(&mut conn, &settings.path, settings.create_tables)?;
        let plan = plan::make(&mut conn, &settings.routes, &settings.effects)
            .map_err(|no_plan| no_plan.into_open_error(&settings.path))?;
        let handling = settings.handler.clone().map(|handler| Handling {
            handler,
            reasons: settings.handler_reasons.clone(),
            time_ms_max: settings.handler_time_ms_max,
            runtime,
            inspected: Default::default(),
            watch: watch.clone(),
        });
        Ok(Self { settings, conn: Some(conn), plan, watch, handling, alone: HashMap::new() })
    }

    pub(crate) fn warnings(&self) -> &[recount_checks::rules::RuleFault] {
        &self.plan.warnings
    }

    /// Runs `read` on the connection.
    pub(crate) fn read<R>(
        &mut self,
        read: impl FnOnce(&Connection) -> Result<R, EffectFault>,
    ) -> Result<R, EffectFault> {
        let conn = self.connection()?;
        let result = read(&conn);
        self.keep(conn, &result);
        result
    }

    /// Runs `write` in a transaction of its own and commits it.
    pub(crate) fn write<R>(
        &mut self,
        write: impl FnOnce(&Connection) -> Result<R, EffectFault>,
    ) -> Result<R, EffectFault> {
        let conn = self.connection()?;
        let result =
            begin(&conn).and_then(|()| write(&conn)).and_then(|written| commit(&conn).map(|()| written));
        self.keep(conn, &result);
        result
    }

    pub(crate) fn mark_alone(
        &mut self,
        at: &PartitionId,
        claim: Claim,
        offset: u64,
    ) -> Result<u32, EffectFault> {
        let stops = self.write(|conn| position::mark_alone(conn, at, claim, offset))?;
        self.alone.insert(at.clone(), claim.epoch);
        Ok(stops)
    }

    /// One batch by the flow's statements or handler.
    pub(crate) fn apply(&mut self, mut batch: EffectBatch) -> Result<Committed, EffectFault> {
        let mut conn = self.connection()?;
        let result = self.apply_on(&mut conn, &mut batch);
        self.keep(conn, &result);
        self.attempt_ended(&batch.at, &result);
        result
    }

    /// One batch whose outcomes were found elsewhere.
    pub(crate) fn commit_known(&mut self, mut known: Known) -> Result<Committed, EffectFault> {
        let conn = self.connection()?;
        let result = self.commit_known_on(&conn, &mut known);
        self.keep(conn, &result);
        self.attempt_ended(&known.at, &result);
        result
    }

    fn apply_on(&mut self, conn: &mut Connection, batch: &mut EffectBatch) -> Result<Committed, EffectFault> {
        self.begin_batch(conn, &batch.at, batch.claim)?;
        self.renew_plan(conn)?;
        let outcomes = if let Some(handling) = &mut self.handling {
            handling.run(conn, &batch.at, self.plan.schema_version, &batch.events)?
        } else if self.settings.routes.is_empty() {
            nothing_to_do(conn, &batch.at, &batch.events)?
        } else {
            self.run_statements(conn, batch)?
        };
        assert_eq!(outcomes.len(), batch.events.len(), "each event has one outcome");
        let EffectBatch { at, claim, events, ledger_has_seq, conclude } = batch;
        if self.settings.effects == EffectRows::Table {
            replays::write_effects(conn, at, events, &outcomes)?;
        }
        self.conclude(conn, at, *claim, *ledger_has_seq, outcomes, conclude)
    }

    fn run_statements(&self, conn: &Connection, batch: &EffectBatch) -> Result<Vec<Outcome>, EffectFault> {
        let applying = Applying {
            conn,
            at: &batch.at,
            plan: &self.plan,
            watch: &self.watch,
            statement_time_ms_max: self.settings.statement_time_ms_max,
        };
        if self.plan.plain {
            if let Plain::Done(outcomes) = applying.plain(&batch.events)? {
                return Ok(outcomes);
            }
            roll_back(conn)?;
            self.begin_batch(conn, &batch.at, batch.claim)?;
        }
        applying.guarded(&batch.events)
    }

    fn commit_known_on(&mut self, conn: &Connection, known: &mut Known) -> Result<Committed, EffectFault> {
        let Known { at, claim, events, outcomes, ledger_has_seq, conclude } = known;
        self.begin_batch(conn, at, *claim)?;
        for (event, outcome) in events.iter().zip(outcomes.iter()) {
            if let Some(replay) = event.replay {
                replays::note(conn, at, event, replay, outcome)?;
            }
        }
        self.conclude(conn, at, *claim, *ledger_has_seq, std::mem::take(outcomes), conclude)
    }

    fn conclude(
        &self,
        conn: &Connection,
        at: &PartitionId,
        claim: Claim,
        ledger_has_seq: u64,
        outcomes: Vec<Outcome>,
        conclude: &mut Conclude,
    ) -> Result<Committed, EffectFault> {
        self.watch.next();
        let conclusion = conclude(&outcomes);
        let guard = self.settings.guards.claim;
        position::conclude(conn, at, claim, ledger_has_seq, &conclusion, guard)?;
        commit(conn)?;
        Ok(Committed { conclusion, outcomes })
    }

    fn begin_batch(&self, conn: &Connection, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        begin(conn)?;
        position::claim(conn, at, claim, self.settings.guards.claim)
    }

    /// A trigger or a column may have come since: then the statements are other ones.
    fn renew_plan(&mut self, conn: &mut Connection) -> Result<(), EffectFault> {
        let version = plan::schema_version(conn).map_err(|e| fault("reading the schema's version", &e))?;
        if version == self.plan.schema_version {
            return Ok(());
        }
        self.plan =
            plan::make(conn, &self.settings.routes, &self.settings.effects).map_err(
                |no_plan| match no_plan {
                    NoPlan::Database(error) => fault("reading the schema", &error),
                    refused @ NoPlan::Refused(_) => EffectFault::Away(format!(
                        "the schema of {} changed: {}",
                        self.settings.path.display(),
                        refused.into_open_error(&self.settings.path)
                    )),
                },
            )?;
        Ok(())
    }

    /// An attempt that ended without a commit did not kill the process.
    fn attempt_ended(&mut self, at: &PartitionId, result: &Result<Committed, EffectFault>) {
        let Some(epoch) = self.alone.remove(at) else { return };
        if result.is_err()
            && let Err(error) = self.write(|conn| position::unmark_alone(conn, at, epoch))
        {
            // The next commit clears it; until then a stop counts against the event.
            tracing::debug!(%at, %error, "could not unmark an event that was alone under way");
        }
    }

    fn connection(&mut self) -> Result<Connection, EffectFault> {
        self.watch.next();
        let conn = match self.conn.take() {
            Some(conn) => conn,
            None => self.reconnect()?,
        };
        if !connect::has_moved(&conn) {
            return Ok(conn);
        }
        drop(conn);
        tracing::warn!(path = %self.settings.path.display(), "the database file was replaced; opening it anew");
        self.reconnect()
    }

    fn reconnect(&mut self) -> Result<Connection, EffectFault> {
        let reopen = || -> Result<Connection, SqliteOpenError> {
            let mut conn = connect(&self.settings, &self.watch, false)?;
            schema::prepare_tables(&mut conn, &self.settings.path, self.settings.create_tables)?;
            Ok(conn)
        };
        let conn = reopen().map_err(|error| match error {
            SqliteOpenError::Foreign(text) => EffectFault::Foreign(text),
            other => EffectFault::Away(other.to_string()),
        })?;
        // It may be another file than before: its statements are compiled anew.
        self.plan.schema_version = -1;
        Ok(conn)
    }

    /// Keeps the connection for the next request, with no transaction open, unless it can't be trusted.
    fn keep<R>(&mut self, conn: Connection, result: &Result<R, EffectFault>) {
        // A database that refuses to work is opened anew before it is asked again.
        let trusted = !matches!(result, Err(EffectFault::CommitUnknown(_) | EffectFault::Away(_)));
        if trusted && (conn.is_autocommit() || roll_back(&conn).is_ok()) {
            self.conn = Some(conn);
        }
    }
}

fn connect(
    settings: &SqliteEffectSettings,
    watch: &StatementWatch,
    create_file: bool,
) -> Result<Connection, SqliteOpenError> {
    let mut conn = connect::open(&Opening {
        path: &settings.path,
        vfs: settings.vfs.as_deref(),
        create_file,
        busy_timeout_ms: settings.busy_timeout_ms,
    })?;
    watch
        .watch(&mut conn, settings.statement_time_ms_max)
        .map_err(|e| schema::unusable(&settings.path, &e))?;
    Ok(conn)
}

impl NoPlan {
    pub(crate) fn into_open_error(self, path: &std::path::Path) -> SqliteOpenError {
        match self {
            Self::Refused(faults) => SqliteOpenError::Refused(faults),
            Self::Database(error) => schema::unusable(path, &error),
        }
    }
}

/// Whether replays of these events were committed before; the places of those that were.
pub(crate) fn replayed_before(
    conn: &Connection,
    at: &PartitionId,
    events: &[EffectEvent],
) -> Result<Vec<bool>, EffectFault> {
    let done = |event: &EffectEvent| match event.replay {
        Some(replay) => replays::done_before(conn, at, event, replay),
        None => Ok(false),
    };
    events.iter().map(done).collect()
}

fn begin(conn: &Connection) -> Result<(), EffectFault> {
    execute(conn, "BEGIN IMMEDIATE").map_err(|e| fault("beginning a transaction", &e))
}

fn roll_back(conn: &Connection) -> Result<(), EffectFault> {
    execute(conn, "ROLLBACK").map_err(|e| fault("rolling back", &e))
}

/// A lock, or a constraint left for the end, means for certain that nothing was committed; about any other
/// error nobody knows.
fn commit(conn: &Connection) -> Result<(), EffectFault> {
    let Err(error) = execute(conn, "COMMIT") else { return Ok(()) };
    match faults::code(&error) & 0xff {
        ffi::SQLITE_BUSY => Err(fault("committing", &error)),
        ffi::SQLITE_CONSTRAINT => Err(EffectFault::Away(format!(
            "the commit was refused ({}): a deferred foreign key is not kept; declare it without DEFERRABLE",
            faults::message(&error)
        ))),
        code => Err(EffectFault::CommitUnknown(format!("{} (SQLite code {code})", faults::message(&error)))),
    }
}

fn execute(conn: &Connection, sql: &str) -> rusqlite::Result<()> {
    conn.prepare_cached(sql)?.execute([]).map(drop)
}
