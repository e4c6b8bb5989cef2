//! Effects in PostgreSQL, and the arbiter's rows beside them.

pub(crate) mod connect;
pub(crate) mod faults;
mod function;
mod one_by_one;
mod outcome;
mod plan;
mod position;
mod prepare;
mod rehearsal;
mod replays;
mod schema;
mod session;
mod settings;
mod text;
mod tls;
mod values;
mod witness;

pub use prepare::{Preparation, preparation, prepare};
pub use rehearsal::PostgresRehearsal;
pub use schema::{TABLES_FORMAT, tables_sql};
pub use settings::{PostgresEffectSettings, PostgresOpenError};
pub use witness::PostgresEffectWitness;

use async_trait::async_trait;
use recount_engine::{Claim, Committed, Effect, EffectBatch, EffectFault, Taken};
use recount_ledger::LedgerId;
use recount_model::{OffsetSet, PartitionId};
use session::Session;
use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use tokio_postgres::Client;

/// Applies a flow's events to a PostgreSQL database. Each partition has a connection of its own, so that
/// their batches run side by side.
///
/// A call whose future is dropped closes its connection, and the server undoes what was not committed;
/// whoever drops it must read the position row before going on, as after a commit of unknown outcome.
pub struct PostgresEffect {
    settings: PostgresEffectSettings,
    examined: Examined,
    sessions: Mutex<HashMap<PartitionId, Slot>>,
    /// Partitions with an event marked alone by us, and the epoch.
    alone: Mutex<HashMap<PartitionId, u64>>,
}

/// A partition's connection; none while it is not connected, or in use by a call.
type Slot = Arc<tokio::sync::Mutex<Option<Session>>>;

/// Statements of one of our own requests, at most.
const OWN_STATEMENTS: usize = 6;
/// What making a session asks.
const SESSION_STATEMENTS: usize = 20;

/// What opening a flow's effect found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Examined {
    /// Why batches run statement by statement; none where they run inside the server.
    pub not_in_server: Option<String>,
    /// Whether an event that changed nothing needs no subtransaction.
    pub plain: bool,
    /// Settings of the server that lower what is promised, in sentences.
    pub weaknesses: Vec<String>,
}

/// Prepares the flow's statements, without making a table: for `validate`. Beside it a sentence of what the
/// server is and how it is set, and one of whether Recount's tables are there.
///
/// # Errors
/// As [`PostgresEffect::open`]; missing `recount_*` tables are no error here.
pub async fn examine(
    settings: &PostgresEffectSettings,
) -> Result<(Examined, [String; 2]), PostgresOpenError> {
    let mut client = connect::connect(settings).await?;
    let weaknesses = connect::weaknesses(&client).await.map_err(unusable)?;
    let server = prepare::server(&client, settings).await.map_err(unusable)?;
    let plan = plan::make(&mut client, &settings.routes).await?;
    let may = "SELECT has_database_privilege(current_database(), 'TEMP')";
    let may: bool = client.query_one(may, &[]).await.map_err(unusable)?.get(0);
    let not_in_server = match may {
        true => plan.not_in_server,
        // The cause of whatever else the plan could not look at.
        false => Some("the role may not make temporary objects: GRANT TEMP ON DATABASE … TO …".to_owned()),
    };
    Ok((Examined { not_in_server, plain: plan.plain, weaknesses }, server))
}

fn unusable(error: tokio_postgres::Error) -> PostgresOpenError {
    PostgresOpenError::Unusable(faults::message(&error))
}

impl PostgresEffect {
    /// Connects, makes the `recount_*` tables where they are missing and may be made, and prepares the flow's
    /// statements.
    ///
    /// # Errors
    /// `Url` for a URL that can't be used; `Unreachable` where nobody answers or lets us in; `Refused` with
    /// every statement that can't be used; `Foreign` where the tables have another format.
    pub async fn open(settings: PostgresEffectSettings) -> Result<Self, PostgresOpenError> {
        let client = match &settings.rehearsal {
            Some(rehearsal) => rehearsal.connect(&settings).await?,
            None => {
                let mut client = connect::connect(&settings).await?;
                schema::prepare_tables(&mut client, settings.create_tables).await?;
                client
            }
        };
        let weaknesses = connect::weaknesses(&client).await.map_err(unusable)?;
        let session = Session::on(client, &settings).await?;
        let (plain, not_in_server) = (session.plan.plain, session.plan.not_in_server.clone());
        let examined = Examined { not_in_server, plain, weaknesses };
        if let Some(rehearsal) = &settings.rehearsal {
            rehearsal.begin(session).await?;
        }
        Ok(Self { settings, examined, sessions: Mutex::default(), alone: Mutex::default() })
    }

    /// What was found at the start.
    pub fn examined(&self) -> &Examined {
        &self.examined
    }

    fn slot(&self, at: &PartitionId) -> Slot {
        if let Some(rehearsal) = &self.settings.rehearsal {
            return rehearsal.slot();
        }
        let mut sessions = self.sessions.lock().unwrap_or_else(PoisonError::into_inner);
        Arc::clone(sessions.entry(at.clone()).or_default())
    }

    async fn session(&self, kept: Option<Session>) -> Result<Session, EffectFault> {
        match kept.filter(|session| !session.client.is_closed()) {
            Some(session) => Ok(session),
            None if self.settings.rehearsal.is_some() => Err(EffectFault::Foreign(
                "the dry run's connection is gone, and with it everything that was tried: start it again"
                    .to_owned(),
            )),
            None => {
                let opened = self.settings.hear(SESSION_STATEMENTS, Session::open(&self.settings)).await;
                opened.map_err(EffectFault::Away)?.map_err(|error| match error {
                    PostgresOpenError::Foreign(why) => EffectFault::Foreign(why),
                    error => EffectFault::Away(error.to_string()),
                })
            }
        }
    }

    /// Runs `write` in a transaction of its own and commits it.
    async fn write<R>(
        &self,
        at: &PartitionId,
        write: impl AsyncFnOnce(&Client) -> Result<R, EffectFault>,
    ) -> Result<R, EffectFault> {
        let slot = self.slot(at);
        let mut slot = slot.lock().await;
        // Put back only at the end: a connection that was left in the middle is closed.
        let session = self.session(slot.take()).await?;
        let written = self.settings.hear(OWN_STATEMENTS, async {
            let told = |doing: &'static str| move |error| faults::fault(doing, &error);
            session.client.batch_execute(session.frame.begin).await.map_err(told("BEGIN"))?;
            let written = write(&session.client).await?;
            session.client.batch_execute(session.frame.commit).await.map_err(told("COMMIT"))?;
            Ok(written)
        });
        let written = written.await.map_err(EffectFault::Away).flatten();
        *slot = self.kept(session, written.is_ok()).await;
        written
    }

    /// The session for the next call. Where one went wrong, the server undoes what it did when the connection
    /// closes; a dry run has only this one, and undoes that call alone.
    async fn kept(&self, session: Session, is_whole: bool) -> Option<Session> {
        if is_whole {
            return Some(session);
        }
        self.settings.rehearsal.as_ref()?;
        let undone = session.client.batch_execute(session.frame.rollback);
        self.settings.hear(OWN_STATEMENTS, undone).await.ok()?.ok()?;
        Some(session)
    }

    async fn read<R>(
        &self,
        at: &PartitionId,
        read: impl AsyncFnOnce(&Client) -> Result<R, EffectFault>,
    ) -> Result<R, EffectFault> {
        let slot = self.slot(at);
        let mut slot = slot.lock().await;
        let session = self.session(slot.take()).await?;
        let found =
            self.settings.hear(OWN_STATEMENTS, read(&session.client)).await.map_err(EffectFault::Away)??;
        *slot = Some(session);
        Ok(found)
    }

    /// The next commit clears the mark by itself; an attempt that ended without one did not kill us.
    async fn attempt_ended(&self, at: &PartitionId, committed: bool) {
        let marked = self.alone.lock().unwrap_or_else(PoisonError::into_inner).remove(at);
        let (Some(epoch), false) = (marked, committed) else { return };
        let unmarked = self.read(at, async |client| position::unmark_alone(client, at, epoch).await).await;
        if let Err(fault) = unmarked {
            tracing::debug!("the mark of an event that was alone stays: {fault}");
        }
    }
}

#[async_trait]
impl Effect for PostgresEffect {
    async fn peek(&self, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
        self.read(at, async |client| position::peek(client, at).await).await
    }

    async fn take(&self, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
        self.write(at, async |client| position::take(client, at, ledger).await).await
    }

    async fn apply(&self, mut batch: EffectBatch) -> Result<Committed, EffectFault> {
        let slot = self.slot(&batch.at);
        let mut slot = slot.lock().await;
        if let Some(over) = self.settings.rehearsal.as_ref().and_then(PostgresRehearsal::is_over) {
            return Err(EffectFault::Foreign(over));
        }
        let session = self.session(slot.take()).await?;
        let committed = session.apply(&self.settings, &mut batch).await;
        *slot = self.kept(session, committed.is_ok()).await;
        drop(slot);
        self.attempt_ended(&batch.at, committed.is_ok()).await;
        committed
    }

    async fn mark_alone(&self, at: &PartitionId, claim: Claim, offset: u64) -> Result<u32, EffectFault> {
        let marked = async |client: &Client| position::mark_alone(client, at, claim, offset).await;
        let stops = self.write(at, marked).await?;
        self.alone.lock().unwrap_or_else(PoisonError::into_inner).insert(at.clone(), claim.epoch);
        Ok(stops)
    }

    async fn stored_batches(
        &self,
        at: &PartitionId,
        above_seq: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
        self.read(at, async |client| position::stored_batches(client, at, above_seq).await).await
    }

    async fn reset(
        &self,
        at: &PartitionId,
        ledger: &LedgerId,
        seq: u64,
        next_offset: u64,
        decided_above: &OffsetSet,
    ) -> Result<(), EffectFault> {
        let reset = async |client: &Client| {
            position::reset(client, at, ledger, seq, next_offset, decided_above).await
        };
        self.write(at, reset).await
    }

    async fn release(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        self.write(at, async |client| position::release(client, at, claim).await).await?;
        self.sessions.lock().unwrap_or_else(PoisonError::into_inner).remove(at);
        Ok(())
    }
}
