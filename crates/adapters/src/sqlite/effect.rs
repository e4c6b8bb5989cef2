//! [`SqliteEffect`]: the engine's `Effect` on a SQLite database.

use super::connect::{self, Opening};
use super::handler::HandlerRuntime;
use super::settings::{SqliteEffectSettings, SqliteOpenError};
use super::worker::{Known, Worker};
use super::{plan, position};
use crate::actor::{Actor, ActorStopped};
use async_trait::async_trait;
use recount_checks::rules::RuleFault;
use recount_engine::{Claim, Committed, Effect, EffectBatch, EffectEvent, EffectFault, Taken};
use recount_ledger::LedgerId;
use recount_model::{FlowName, OffsetSet, PartitionId};
use std::path::Path;

/// Applies a flow's events to a SQLite database, and keeps the arbiter's rows beside them.
///
/// All partitions of the flow share it: SQLite has one writer, so their batches queue here.
///
/// A call whose future is dropped is done all the same; whoever drops it must read the position row before
/// going on, as after a commit of unknown outcome.
pub struct SqliteEffect {
    worker: Actor<Worker>,
    warnings: Vec<RuleFault>,
}

/// What opening a flow's effect would find, without changing anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Parameters that are given and not used.
    pub warnings: Vec<RuleFault>,
    /// Whether batches run in the plain form; otherwise with a savepoint an event, since a trigger, a
    /// sequence or a handler could leave something behind.
    pub plain: bool,
}

/// Compiles the flow's statements against the database, read-only: for `validate`.
///
/// # Errors
/// As [`SqliteEffect::open`]; missing `recount_*` tables are no error here.
pub fn examine(settings: &SqliteEffectSettings) -> Result<Examined, SqliteOpenError> {
    let mut conn = connect::open_to_read(&Opening {
        path: &settings.path,
        vfs: settings.vfs.as_deref(),
        create_file: false,
        busy_timeout_ms: settings.busy_timeout_ms,
    })?;
    let plan = plan::make(&mut conn, &settings.routes, &settings.effects)
        .map_err(|no_plan| no_plan.into_open_error(&settings.path))?;
    Ok(Examined { warnings: plan.warnings, plain: plan.plain && settings.handler.is_none() })
}

impl SqliteEffect {
    /// Opens the database, makes the `recount_*` tables where they are missing and may be made, and
    /// compiles the flow's statements. A handler runs in a small tokio runtime of its own, with timers and
    /// sockets, unless it is not threaded.
    ///
    /// # Errors
    /// `Missing` where there is no file; `Refused` with every statement that can't be used; `Foreign` where
    /// the tables have another format; `Unusable` for the rest.
    pub fn open(settings: SqliteEffectSettings) -> Result<Self, SqliteOpenError> {
        // Without a thread of its own, the worker runs inside whatever polls it, where a runtime can't be
        // entered again.
        let wants_runtime = settings.threaded && settings.handler.is_some();
        let runtime = wants_runtime.then(HandlerRuntime::new).transpose().map_err(|error| {
            SqliteOpenError::Unusable(format!("no threads for the handler can be started: {error}"))
        })?;
        let (name, threaded) = (format!("recount-{}", settings.flow), settings.threaded);
        let path = settings.path.clone();
        let worker = Worker::open(settings, runtime)?;
        let warnings = worker.warnings().to_vec();
        let worker = Actor::new(&name, worker, threaded).map_err(|error| {
            SqliteOpenError::Unusable(format!("{}: no thread for it: {error}", path.display()))
        })?;
        Ok(Self { worker, warnings })
    }

    /// What opening found worth telling: parameters that no statement uses.
    pub fn warnings(&self) -> &[RuleFault] {
        &self.warnings
    }

    async fn ask<R: Send + 'static>(
        &self,
        request: impl FnOnce(&mut Worker) -> Result<R, EffectFault> + Send + 'static,
    ) -> Result<R, EffectFault> {
        match self.worker.call(request).await {
            Ok(result) => result,
            Err(stopped) => Err(EffectFault::Away(stopped.to_string())),
        }
    }

    async fn ask_to_commit(
        &self,
        request: impl FnOnce(&mut Worker) -> Result<Committed, EffectFault> + Send + 'static,
    ) -> Result<Committed, EffectFault> {
        match self.worker.call(request).await {
            Ok(result) => result,
            Err(stopped @ ActorStopped { .. }) => Err(EffectFault::CommitUnknown(stopped.to_string())),
        }
    }

    /// Commits a batch whose outcomes were found outside of the transaction.
    pub(crate) async fn commit_known(&self, known: Known) -> Result<Committed, EffectFault> {
        self.ask_to_commit(move |worker| worker.commit_known(known)).await
    }

    /// Before anything is done outside of the transaction: whether the claim would hold, and which replays
    /// were committed before.
    pub(crate) async fn before_known(
        &self,
        at: PartitionId,
        claim: Claim,
        events: Vec<EffectEvent>,
    ) -> Result<Vec<bool>, EffectFault> {
        self.ask(move |worker| {
            worker.read(|conn| {
                position::would_claim(conn, &at, claim)?;
                super::worker::replayed_before(conn, &at, &events)
            })
        })
        .await
    }
}

/// The arbiter of effects that have no transaction of their own: `arbiter.db` in the ledger's folder.
///
/// # Errors
/// As [`SqliteEffect::open`].
pub fn open_arbiter(
    ledger_folder: &Path,
    flow: FlowName,
    threaded: bool,
) -> Result<SqliteEffect, SqliteOpenError> {
    let mut settings = SqliteEffectSettings::new(ledger_folder.join("arbiter.db"), flow);
    settings.create_file = true;
    settings.threaded = threaded;
    SqliteEffect::open(settings)
}

#[async_trait]
impl Effect for SqliteEffect {
    async fn peek(&self, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
        let at = at.clone();
        self.ask(move |worker| worker.read(|conn| position::peek(conn, &at))).await
    }

    async fn take(&self, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
        let (at, ledger) = (at.clone(), ledger.clone());
        self.ask(move |worker| worker.write(|conn| position::take(conn, &at, &ledger))).await
    }

    async fn apply(&self, batch: EffectBatch) -> Result<Committed, EffectFault> {
        self.ask_to_commit(move |worker| worker.apply(batch)).await
    }

    async fn mark_alone(&self, at: &PartitionId, claim: Claim, offset: u64) -> Result<u32, EffectFault> {
        let at = at.clone();
        self.ask(move |worker| worker.mark_alone(&at, claim, offset)).await
    }

    async fn stored_batches(
        &self,
        at: &PartitionId,
        above_seq: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
        let at = at.clone();
        self.ask(move |worker| worker.read(|conn| position::stored_batches(conn, &at, above_seq))).await
    }

    async fn reset(
        &self,
        at: &PartitionId,
        ledger: &LedgerId,
        seq: u64,
        next_offset: u64,
        decided_above: &OffsetSet,
    ) -> Result<(), EffectFault> {
        let (at, ledger, above) = (at.clone(), ledger.clone(), decided_above.clone());
        self.ask(move |worker| {
            worker.write(|conn| position::reset(conn, &at, &ledger, seq, next_offset, &above))
        })
        .await
    }

    async fn release(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        let at = at.clone();
        self.ask(move |worker| worker.write(|conn| position::release(conn, &at, claim))).await
    }
}
