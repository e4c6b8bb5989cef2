//! A dry run on PostgreSQL: everything happens in one transaction that is never committed.
//!
//! What a batch would commit is a savepoint of it instead, so that each batch sees what those before it did;
//! Recount's own tables are temporary ones, which hide the flow's real rows. No code path sends COMMIT on
//! this connection, and the server undoes everything when the connection ends, however it ends.

use super::connect::connect;
use super::faults::message;
use super::session::Session;
use super::settings::{PostgresEffectSettings, PostgresOpenError};
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::runtime::Runtime;
use tokio_postgres::Client;

/// For so long a dry run may hold its locks on the user's rows; then it stops and says so.
const HOLD_TIME_MAX: Duration = Duration::from_secs(120);
/// A process that stands still for so long loses the transaction, and with it the locks.
const IDLE_TIME_MS_MAX: u64 = 60_000;

/// The one transaction that a dry run of one flow works and is counted again in. Dropping the last clone of
/// it ends the connection.
#[derive(Clone)]
pub struct PostgresRehearsal(Arc<Inner>);

struct Inner {
    slot: super::Slot,
    /// Since when there is a transaction.
    since: Mutex<Option<Instant>>,
    /// The connection outlives the runtime of the run, since the books are counted after it.
    runtime: Option<Runtime>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl PostgresRehearsal {
    /// Nothing is connected yet.
    ///
    /// # Errors
    /// Where the system gives no thread for it.
    pub fn new() -> std::io::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
        let inner = Inner { slot: super::Slot::default(), since: Mutex::new(None), runtime: Some(runtime) };
        Ok(Self(Arc::new(inner)))
    }

    /// The connection, for whoever works in the transaction: one at a time.
    pub(crate) fn slot(&self) -> super::Slot {
        Arc::clone(&self.0.slot)
    }

    /// Whether a flow works in it. Where none does, there is nothing to be seen that others don't see.
    pub(crate) fn has_begun(&self) -> bool {
        self.since().is_some()
    }

    /// A sentence once the locks were held for as long as they may be.
    pub(crate) fn is_over(&self) -> Option<String> {
        self.since().filter(|since| since.elapsed() > HOLD_TIME_MAX).map(|_| {
            format!(
                "a dry run on PostgreSQL holds locks on the rows that it changes, for {} s at most, which are over: \
                 try it on fewer events, or on a copy of the database",
                HOLD_TIME_MAX.as_secs()
            )
        })
    }

    fn since(&self) -> Option<Instant> {
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection with temporary tables in the place of Recount's own.
    pub(crate) async fn connect(
        &self,
        settings: &PostgresEffectSettings,
    ) -> Result<Client, PostgresOpenError> {
        let unusable = |why: &dyn fmt::Display| {
            PostgresOpenError::Unusable(format!("the dry run's transaction can't be set up: {why}"))
        };
        if self.has_begun() {
            return Err(unusable(&"another flow is tried in it: name one flow"));
        }
        let runtime = self.0.runtime.as_ref().ok_or_else(|| unusable(&"it is ending"))?;
        let settings =
            PostgresEffectSettings { idle_in_transaction_ms_max: IDLE_TIME_MS_MAX, ..settings.clone() };
        let connected = runtime.spawn(async move { connect(&settings).await });
        let client = connected.await.map_err(|error| unusable(&error))??;
        client.batch_execute(&super::schema::temporary_tables_sql()).await.map_err(|error| {
            unusable(&format!("{}; a dry run needs GRANT TEMP ON DATABASE", message(&error)))
        })?;
        Ok(client)
    }

    /// Opens the transaction that is never committed.
    pub(crate) async fn begin(&self, session: Session) -> Result<(), PostgresOpenError> {
        let begun = session.client.batch_execute("BEGIN").await;
        begun.map_err(|error| PostgresOpenError::Unusable(message(&error)))?;
        *self.0.since.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        *self.0.slot.lock().await = Some(session);
        Ok(())
    }
}

/// Two are the same only if they are one.
impl PartialEq for PostgresRehearsal {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for PostgresRehearsal {}

impl fmt::Debug for PostgresRehearsal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PostgresRehearsal").field("has_begun", &self.has_begun()).finish_non_exhaustive()
    }
}
