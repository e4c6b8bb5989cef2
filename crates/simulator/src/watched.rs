//! The real effect, ledger and source, each behind a thin layer that stops with its process, notes what
//! was promised, and lies about commits where a fault says so.

use crate::world::{Process, World};
use async_trait::async_trait;
use recount_adapters::sqlite::SqliteEffect;
use recount_engine::{Claim, Committed, Effect, EffectBatch, EffectFault, Taken};
use recount_ledger::{
    EncodedBatch, JournalEntry, LedgerError, LedgerId, LedgerStore, Mark, RecentEvent, StoredConfig,
};
use recount_model::{ConfigVersion, Decision, FlowName, OffsetSet, PartitionId, PayloadHash, Timestamp};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;
use tokio::sync::watch;

/// What one process goes through: it may be frozen, and it may be dead.
#[derive(Clone)]
pub struct Fate {
    /// The world.
    pub world: Arc<World>,
    /// Which process.
    pub process: Process,
    /// True while it is frozen.
    pub frozen: watch::Receiver<bool>,
}

impl Fate {
    /// Waits while the process is frozen; for ever if it is dead.
    pub async fn go_on(&self) {
        let mut frozen = self.frozen.clone();
        // The other end is dropped only with the life, and then nobody polls any more.
        let _ = frozen.wait_for(|frozen| !frozen).await;
        if self.is_dead() {
            std::future::pending::<()>().await;
        }
    }

    /// Lets some virtual time pass, as a database or a disk would.
    pub async fn pass_time(&self, ms_max: u64) {
        let ms = self.world.below(ms_max + 1);
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        self.go_on().await;
    }

    /// Whether the process is dead.
    pub fn is_dead(&self) -> bool {
        self.world.files.is_dead(self.process)
    }
}

/// A commit whose outcome the process is not to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CommitDoubt {
    /// It happened.
    Committed,
    /// It didn't.
    NotCommitted,
}

/// The commits after which doubt is planned: so many batches before it, and which it is.
#[derive(Debug, Clone, Copy)]
pub struct PlannedDoubt {
    /// So many batches are left alone.
    pub after: u32,
    /// What then.
    pub doubt: CommitDoubt,
}

/// [`SqliteEffect`] of one process.
pub struct WatchedEffect {
    /// The real one.
    pub inner: SqliteEffect,
    /// Whose.
    pub fate: Fate,
    /// Planned doubt.
    pub doubt: Option<PlannedDoubt>,
    /// Batches so far.
    pub batches: AtomicU32,
}

impl WatchedEffect {
    fn doubt_now(&self) -> Option<CommitDoubt> {
        let batch = self.batches.fetch_add(1, Ordering::Relaxed);
        self.doubt.filter(|planned| planned.after == batch).map(|planned| planned.doubt)
    }

    fn unknown(&self, what: &str) -> EffectFault {
        self.fate.world.count(&format!("commit of unknown outcome, {what}"));
        self.fate.world.tell(12, || format!("process {}: commit unknown, {what}", self.fate.process));
        EffectFault::CommitUnknown(format!("simulated, {what}"))
    }

    fn note<R>(&self, doing: &str, result: &Result<R, EffectFault>) {
        if let Err(fault) = result {
            let world = &self.fate.world;
            let kind = match fault {
                EffectFault::NotMine => "not mine",
                EffectFault::Again(_) => "again",
                EffectFault::Away(_) => "away",
                EffectFault::CommitUnknown(_) => "commit unknown",
                EffectFault::Foreign(_) => "foreign",
            };
            if !self.fate.is_dead() {
                world.count(&format!("effect said: {kind}"));
            }
            world.tell(kind.len() as u64, || format!("process {}: {doing}: {fault}", self.fate.process));
        }
    }
}

#[async_trait]
impl Effect for WatchedEffect {
    async fn peek(&self, at: &PartitionId) -> Result<Option<Taken>, EffectFault> {
        self.fate.pass_time(1).await;
        let result = self.inner.peek(at).await;
        self.note("peek", &result);
        self.fate.go_on().await;
        result
    }

    async fn take(&self, at: &PartitionId, ledger: &LedgerId) -> Result<Taken, EffectFault> {
        self.fate.pass_time(1).await;
        let result = self.inner.take(at, ledger).await;
        self.note("take", &result);
        if let Ok(taken) = &result {
            self.fate.world.tell(taken.seq, || format!("process {} took {at}: {taken:?}", self.fate.process));
        }
        self.fate.go_on().await;
        result
    }

    async fn apply(&self, batch: EffectBatch) -> Result<Committed, EffectFault> {
        self.fate.pass_time(4).await;
        let doubt = self.doubt_now();
        if doubt == Some(CommitDoubt::NotCommitted) {
            return Err(self.unknown("not committed"));
        }
        let (at, claim) = (batch.at.clone(), batch.claim);
        let result = self.inner.apply(batch).await;
        self.note("apply", &result);
        self.fate.world.tell(claim.expected_seq, || {
            let came_to = if result.is_ok() { "committed" } else { "did not commit" };
            format!("process {}: {at} {came_to} batch {}", self.fate.process, claim.expected_seq + 1)
        });
        self.fate.pass_time(2).await;
        match (doubt, &result) {
            (Some(CommitDoubt::Committed), Ok(_)) => Err(self.unknown("committed")),
            _ => result,
        }
    }

    async fn mark_alone(&self, at: &PartitionId, claim: Claim, offset: u64) -> Result<u32, EffectFault> {
        self.fate.pass_time(1).await;
        let result = self.inner.mark_alone(at, claim, offset).await;
        self.note("mark alone", &result);
        self.fate.go_on().await;
        result
    }

    async fn stored_batches(
        &self,
        at: &PartitionId,
        above_seq: u64,
    ) -> Result<Vec<(u64, Vec<u8>)>, EffectFault> {
        self.fate.pass_time(1).await;
        let result = self.inner.stored_batches(at, above_seq).await;
        self.note("stored batches", &result);
        self.fate.go_on().await;
        result
    }

    async fn reset(
        &self,
        at: &PartitionId,
        ledger: &LedgerId,
        seq: u64,
        next_offset: u64,
        decided_above: &OffsetSet,
    ) -> Result<(), EffectFault> {
        self.fate.go_on().await;
        self.inner.reset(at, ledger, seq, next_offset, decided_above).await
    }

    async fn release(&self, at: &PartitionId, claim: Claim) -> Result<(), EffectFault> {
        self.fate.pass_time(1).await;
        let result = self.inner.release(at, claim).await;
        self.note("release", &result);
        self.fate.go_on().await;
        result
    }
}

/// The ledger that the processes of a life share, and what it promised.
#[derive(Clone)]
pub struct WatchedLedger {
    /// The real one.
    pub inner: Arc<Mutex<dyn LedgerStore>>,
    /// Whose view of it this is.
    pub fate: Fate,
}

impl WatchedLedger {
    fn with<R>(
        &self,
        doing: &str,
        act: impl FnOnce(&mut dyn LedgerStore) -> Result<R, LedgerError>,
    ) -> Result<R, LedgerError> {
        if self.fate.is_dead() {
            return Err(LedgerError::Poisoned("its process is dead".into()));
        }
        let mut store = self.lock();
        let result = act(&mut *store);
        if let Err(error) = &result {
            self.fate.world.tell(33, || format!("process {}: ledger, {doing}: {error}", self.fate.process));
        }
        result
    }

    fn lock(&self) -> MutexGuard<'_, dyn LedgerStore + 'static> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LedgerStore for WatchedLedger {
    fn id(&self) -> LedgerId {
        self.lock().id()
    }

    fn append(&mut self, batches: &[EncodedBatch], persisted_at: Timestamp) -> Result<(), LedgerError> {
        self.with("append", |store| store.append(batches, persisted_at))?;
        for batch in batches {
            let record = &batch.record;
            self.fate.world.tell(record.seq, || {
                let fates = |d: &Decision| format!("{} {}", d.offset, d.fate);
                let fates = record.decisions.iter().map(fates).collect::<Vec<_>>().join(", ");
                format!("ledger has {} batch {} (epoch {}): {fates}", record.at, record.seq, record.epoch)
            });
            self.fate.world.remember(record);
        }
        Ok(())
    }

    fn mark(&mut self, at: &PartitionId) -> Result<Option<Mark>, LedgerError> {
        self.with("mark", |store| store.mark(at))
    }

    fn partitions(&mut self, flow: &FlowName) -> Result<Vec<PartitionId>, LedgerError> {
        self.with("partitions", |store| store.partitions(flow))
    }

    fn current(&mut self, at: &PartitionId, offset: u64) -> Result<Option<(u64, Decision)>, LedgerError> {
        self.with("current", |store| store.current(at, offset))
    }

    fn recent(&mut self, at: &PartitionId, events_max: usize) -> Result<Vec<RecentEvent>, LedgerError> {
        self.with("recent", |store| store.recent(at, events_max))
    }

    fn keys_exhausted(&mut self, at: &PartitionId) -> Result<Vec<Box<str>>, LedgerError> {
        self.with("keys exhausted", |store| store.keys_exhausted(at))
    }

    fn journal(&mut self, entry: &JournalEntry) -> Result<u64, LedgerError> {
        self.with("journal", |store| store.journal(entry))
    }

    fn config(&mut self, config: &StoredConfig) -> Result<ConfigVersion, LedgerError> {
        self.with("config", |store| store.config(config))
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.with("maintain", |store| store.maintain(now))
    }
}

/// BLAKE3 of the id, a zero byte, and the payload; computed here a second time on purpose.
pub fn payload_hash(id: Option<&str>, payload: &[u8]) -> PayloadHash {
    let mut hasher = blake3::Hasher::new();
    hasher.update(id.unwrap_or("").as_bytes()).update(&[0]).update(payload);
    let mut first = [0; 8];
    first.copy_from_slice(&hasher.finalize().as_bytes()[..8]);
    PayloadHash(u64::from_be_bytes(first))
}
