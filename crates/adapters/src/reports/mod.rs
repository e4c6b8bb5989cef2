//! A consumer that keeps its loop and reports what it decided: `mode = "report"`.
//!
//! Recount reads the flow's source as well. [`ReportedSource`] holds each event back until its verdict was
//! posted to `/v1/decisions` ([`router`]), or until the consumer is past it: then the position is *unrecorded*,
//! and found as `unreported`. Nothing is applied by Recount; the loop records what it is told.

mod http;
mod partition;
mod post;
mod said;
mod source;
mod store;
mod wire;

pub use http::{ReportRouter, router};
pub use said::{DeclaredReason, DeclaredReasons};
pub use source::ReportedSource;
pub use store::StoreError;

use crate::actor::Actor;
use partition::PartitionState;
use recount_checks::FlowChecks;
use recount_engine::{Book, Clock};
use recount_model::{FlowName, Partition, PartitionId};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use store::Store;
use tokio::sync::Notify;

/// What all reporting flows of an instance share: the file in the ledger's folder.
#[derive(Clone)]
pub struct ReportStore(Arc<Actor<Store>>);

impl ReportStore {
    /// Opens `reported.db` in the ledger's folder; makes it where there is none.
    ///
    /// # Errors
    /// Where it can't be opened, with its path.
    pub fn open(ledger_folder: &Path) -> Result<Self, StoreError> {
        let store = Store::open(ledger_folder)?;
        let cause = |error: std::io::Error| StoreError::new(ledger_folder, error.to_string());
        Ok(Self(Arc::new(Actor::threaded("reported", store).map_err(cause)?)))
    }

    async fn ask<R: Send + 'static>(
        &self,
        ask: impl FnOnce(&mut Store) -> Result<R, StoreError> + Send + 'static,
    ) -> Result<R, StoreError> {
        let answer = self.0.call(ask).await;
        answer.unwrap_or_else(|stopped| Err(StoreError::new(Path::new("reported.db"), stopped.to_string())))
    }
}

/// What a reporting flow is made of.
pub struct ReportSettings {
    /// The flow.
    pub flow: FlowName,
    /// The reasons that the consumer may give.
    pub reasons: DeclaredReasons,
    /// A position is passed by a later one that was reported so long ago.
    pub within: Duration,
    /// Finds the id of an event that was not reported, for the log.
    pub checks: Arc<FlowChecks>,
    /// Ids are not shown in the log.
    pub id_is_secret: bool,
    /// Where reports are kept.
    pub store: ReportStore,
    /// The ledger, which knows what was decided before.
    pub book: Book,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// One flow whose consumer reports: what its source and the endpoint share.
pub struct FlowReports {
    settings: ReportSettings,
    partitions: Mutex<BTreeMap<Partition, Arc<PartitionReports>>>,
}

/// One open partition.
struct PartitionReports {
    at: PartitionId,
    place_no: i64,
    state: Mutex<PartitionState>,
    /// Posts of a partition are taken one after the other, and none while it is taken up.
    posting: tokio::sync::Mutex<()>,
    /// Something was reported.
    changed: Notify,
}

impl FlowReports {
    /// A flow without partitions: they come with the source.
    pub fn new(settings: ReportSettings) -> Arc<Self> {
        Arc::new(Self { settings, partitions: Mutex::default() })
    }

    fn partition(&self, name: &Partition) -> Option<Arc<PartitionReports>> {
        lock(&self.partitions).get(name).cloned()
    }

    /// The partitions that are open, for messages.
    fn partition_names(&self) -> Vec<String> {
        lock(&self.partitions).keys().map(|name| name.as_str().to_owned()).collect()
    }
}

impl PartitionReports {
    fn state(&self) -> MutexGuard<'_, PartitionState> {
        lock(&self.state)
    }
}

/// What is guarded is only changed in whole steps.
fn lock<V>(mutex: &Mutex<V>) -> MutexGuard<'_, V> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
