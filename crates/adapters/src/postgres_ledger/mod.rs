//! A ledger that several processes share: its log is a table in PostgreSQL, and each process has a folder that is an
//! exact replica of it, in the layout of the embedded ledger.
//!
//! What is durable in the log is in the ledger; a folder is made from it, and may be lost. A process appends only when
//! its replica holds all of the log, so that what it appends is held against all that others wrote.

mod entries;
mod examine;
mod link;
mod schema;
mod settings;

pub use examine::{LedgerExamined, examine_ledger, prepare_ledger};
pub use schema::{LEDGER_TABLES_FORMAT, ledger_preparation, ledger_tables_sql};
pub use settings::PostgresLedgerSettings;

use entries::New;
use link::{Link, Trouble};
use recount_ledger::{
    Birth, EncodedBatch, FolderHolds, JournalEntry, LedgerError, LedgerId, LedgerStore, LogContent, LogEntry,
    Mark, RecentEvent, ReplicaOf, SqliteLedger, StoredConfig, VersionOf, folder_holds,
};
use recount_model::{ConfigVersion, Decision, FlowName, PartitionId, Timestamp};
use std::time::{Duration, Instant};

/// After so many times in which another process was faster, the ledger is locked first.
const LOST_RACES_MAX: u32 = 2;
/// A pause before an append of unknown outcome is looked up.
const AFTER_TROUBLE: Duration = Duration::from_millis(200);
/// How often long work is told of.
const TOLD_EVERY: Duration = Duration::from_secs(5);

/// The last entry of the log in the database, and the ledger it is of; none where there is no ledger.
///
/// # Errors
/// `Away` where the server can't be reached in time.
pub fn log_end(settings: &PostgresLedgerSettings) -> Result<Option<(LedgerId, u64)>, LedgerError> {
    let row = Link::start(settings.clone())?.row(false, settings.patience())?;
    Ok(row.map(|row| (row.birth.id, row.next_ordinal - 1)))
}

/// A ledger in PostgreSQL, with this process's replica of it.
pub struct PostgresLedger {
    settings: PostgresLedgerSettings,
    link: Link,
    replica: SqliteLedger,
    /// Names this process in what it writes.
    writer: String,
    failed: Option<String>,
}

impl PostgresLedger {
    /// Connects, begins a ledger where there is none and one may be begun, takes the folder's lock, and brings the
    /// replica to the end of the log.
    ///
    /// # Errors
    /// `Away` where the server can't be reached in time, `Missing` where it has no ledger, `Foreign` where the folder
    /// holds something else, `Locked` where another process has it, `Corrupt` where the log and the replica don't fit.
    pub fn open(settings: PostgresLedgerSettings) -> Result<Self, LedgerError> {
        let link = Link::start(settings.clone())?;
        let holds = folder_holds(&settings.folder)?;
        refuse_own(&settings, &holds, link.place())?;
        let may_begin = settings.begin && holds == FolderHolds::Nothing;
        let Some(row) = link.row(may_begin, settings.patience())? else {
            return Err(nothing_there(&settings, &holds, link.place()));
        };
        let writer = Birth::new()?.id.0;
        let mut replica_settings = settings.replica.clone();
        replica_settings.replica_of = Some(ReplicaOf { birth: row.birth, place: link.place().to_owned() });
        let replica = SqliteLedger::open(&settings.folder, replica_settings)?;
        let mut ledger = Self { settings, link, replica, writer, failed: None };
        ledger.refuse_other_past()?;
        ledger.hold_all()?;
        Ok(ledger)
    }

    /// Writes where this instance listens, for the commands that write.
    ///
    /// # Errors
    /// As [`SqliteLedger::announce`].
    pub fn announce(&self, address: &str) -> Result<(), LedgerError> {
        self.replica.announce(address)
    }

    /// How far the replica is in the log.
    pub fn applied(&self) -> u64 {
        self.replica.applied()
    }

    /// A log that was restored may be shorter than the replica, or go on otherwise.
    fn refuse_other_past(&mut self) -> Result<(), LedgerError> {
        let Some(stamp) = self.replica.applied_stamp().map(ToOwned::to_owned) else { return Ok(()) };
        let applied = self.replica.applied();
        let found = self.link.following(applied - 1, self.settings.patience())?;
        match found.first() {
            Some(found) if found.entry.ordinal == applied && found.entry.stamp() == stamp => Ok(()),
            other => {
                let what = match other {
                    None => "ends before it",
                    Some(_) => "has another entry there",
                };
                Err(LedgerError::Corrupt(format!(
                    "the replica in {} holds entry {applied} of ledger {}, and the log at {} {what}: was the database \
                     restored? Restore a later backup; or, if the log is to stand as it is, move the folder away",
                    self.settings.folder.display(),
                    self.replica.id().0,
                    self.link.place(),
                )))
            }
        }
    }

    /// Applies all that follows in the log. Gives the last entry among it that this process wrote.
    fn take_in(&mut self, patience: Duration) -> Result<Option<u64>, LedgerError> {
        let mut own = None;
        let mut told = Instant::now();
        loop {
            let found = self.link.following(self.replica.applied(), patience)?;
            let Some(last) = found.last() else { return Ok(own) };
            let last = last.entry.ordinal;
            let is_more = found.len() as i64 == entries::ENTRIES_A_PAGE;
            own =
                found.iter().rfind(|found| found.written_by == self.writer).map(|f| f.entry.ordinal).or(own);
            let entries: Vec<LogEntry> = found.into_iter().map(|found| found.entry).collect();
            self.replica.replicate(&entries)?;
            if !is_more {
                return Ok(own);
            }
            if told.elapsed() >= TOLD_EVERY {
                told = Instant::now();
                tracing::info!(target: "recount::ledger",
                    "the replica in {} takes the ledger in: {last} entries so far", self.settings.folder.display());
            }
        }
    }

    /// Waits until the replica holds all that is in the log now: what is asked may be about what another process wrote.
    fn hold_all(&mut self) -> Result<(), LedgerError> {
        self.healthy()?;
        self.take_in(self.settings.patience()).map(drop)
    }

    fn healthy(&self) -> Result<(), LedgerError> {
        match &self.failed {
            Some(why) => Err(LedgerError::Poisoned(why.clone())),
            None => Ok(()),
        }
    }

    /// After a failed write nobody knows what of it is durable, so nothing more is written.
    fn written<T>(&mut self, result: Result<T, LedgerError>) -> Result<T, LedgerError> {
        if let Err(error) = &result {
            self.failed.get_or_insert_with(|| error.to_string());
        }
        result
    }

    /// Appends what `make` says is to be appended, given a replica that holds all of the log; nothing where it gives
    /// none. An entry that turns up as this process's own after a commit of unknown outcome is what was to be appended:
    /// there is one at a time.
    fn append_made(
        &mut self,
        make: impl Fn(&SqliteLedger) -> Result<Option<New>, LedgerError>,
    ) -> Result<(), LedgerError> {
        let began = Instant::now();
        let mut lost_races = 0;
        let (mut is_unknown, mut was_lost) = (false, false);
        loop {
            let is_locked = lost_races > LOST_RACES_MAX && matches!(self.link.lock()?, Ok(()));
            if is_unknown || lost_races > 0 {
                let before = self.replica.applied();
                let own = self.take_in(self.settings.patience())?;
                if is_unknown && own.is_some() {
                    return self.let_go(is_locked);
                }
                if was_lost && self.replica.applied() == before {
                    return Err(self.ends_early(before));
                }
            }
            let made = make(&self.replica);
            let Ok(Some(new)) = made else {
                self.let_go(is_locked)?;
                return made.map(drop);
            };
            let ordinal = self.replica.applied() + 1;
            let appended = self.link.append(ordinal, &self.writer, &new)?;
            let appended = match (appended, is_locked) {
                (Ok(true), true) => self.link.unlock()?.map(|()| true),
                (Ok(false), true) => {
                    self.let_go(true)?;
                    Ok(false)
                }
                (appended, _) => appended,
            };
            match appended {
                Ok(true) => return self.replica.replicate(&new.entries(ordinal)),
                Ok(false) => (lost_races, was_lost) = (lost_races + 1, true),
                Err(Trouble::Ledger(error)) => return Err(error),
                Err(Trouble::Away(why)) if began.elapsed() >= self.settings.patience() => {
                    return Err(LedgerError::Away(why));
                }
                Err(Trouble::Away(why)) => {
                    tracing::warn!(target: "recount::ledger",
                        "whether the last append to the ledger was committed is not known, and is looked up: {why}");
                    (is_unknown, was_lost) = (true, false);
                    std::thread::sleep(AFTER_TROUBLE);
                }
            }
        }
    }

    /// The log is shorter than what was read of it.
    fn ends_early(&self, applied: u64) -> LedgerError {
        LedgerError::Corrupt(format!(
            "entry {applied} of ledger {} was read, and the log at {} ends before it: was the database restored?",
            self.replica.id().0,
            self.link.place()
        ))
    }

    fn let_go(&self, is_locked: bool) -> Result<(), LedgerError> {
        if is_locked {
            // Where it can't be said, the connection is gone, and the lock with it.
            drop(self.link.unlock()?);
        }
        Ok(())
    }

    fn append_batches(
        &mut self,
        batches: &[EncodedBatch],
        persisted_at: Timestamp,
    ) -> Result<(), LedgerError> {
        let mut rest = batches;
        while !rest.is_empty() {
            let mut bytes = 0;
            let fits = |batch: &&EncodedBatch| {
                bytes += batch.bytes.len();
                bytes <= self.settings.append_bytes_max
            };
            let count = rest.iter().take_while(fits).count().max(1);
            let together = &rest[..count];
            self.append_made(|replica| {
                let new = replica.not_yet_there(together)?;
                Ok((!new.is_empty()).then(|| New::batches(new, persisted_at)))
            })?;
            rest = &rest[count..];
        }
        Ok(())
    }

    fn now(&self) -> Timestamp {
        (self.settings.replica.clock)()
    }
}

/// A folder that holds a ledger of its own is not made a replica.
fn refuse_own(
    settings: &PostgresLedgerSettings,
    holds: &FolderHolds,
    place: &str,
) -> Result<(), LedgerError> {
    match holds {
        FolderHolds::Nothing | FolderHolds::Replica { .. } => Ok(()),
        FolderHolds::Ledger(id) => Err(LedgerError::Foreign(format!(
            "{} holds ledger {} itself, which is not shared, and can't become a replica of the one at {place}: name another \
             folder ([ledger] path), or leave [ledger] database out",
            settings.folder.display(),
            id.0
        ))),
    }
}

/// The database has no ledger.
fn nothing_there(settings: &PostgresLedgerSettings, holds: &FolderHolds, place: &str) -> LedgerError {
    match holds {
        FolderHolds::Replica { id, .. } => LedgerError::Foreign(format!(
            "{} is a replica of ledger {}, and the database at {place} holds no ledger: restore it, or name the right one; \
             to begin a new ledger, name another folder",
            settings.folder.display(),
            id.0
        )),
        _ => LedgerError::Missing(format!("{place} (in PostgreSQL)")),
    }
}

impl LedgerStore for PostgresLedger {
    fn id(&self) -> LedgerId {
        self.replica.id()
    }

    fn append(&mut self, batches: &[EncodedBatch], persisted_at: Timestamp) -> Result<(), LedgerError> {
        self.healthy()?;
        let done = self.append_batches(batches, persisted_at);
        self.written(done)
    }

    fn mark(&mut self, at: &PartitionId) -> Result<Option<Mark>, LedgerError> {
        self.hold_all()?;
        self.replica.mark(at)
    }

    fn partitions(&mut self, flow: &FlowName) -> Result<Vec<PartitionId>, LedgerError> {
        self.hold_all()?;
        self.replica.partitions(flow)
    }

    fn current(&mut self, at: &PartitionId, offset: u64) -> Result<Option<(u64, Decision)>, LedgerError> {
        self.hold_all()?;
        self.replica.current(at, offset)
    }

    fn recent(&mut self, at: &PartitionId, events_max: usize) -> Result<Vec<RecentEvent>, LedgerError> {
        self.hold_all()?;
        self.replica.recent(at, events_max)
    }

    fn keys_exhausted(&mut self, at: &PartitionId) -> Result<Vec<Box<str>>, LedgerError> {
        self.hold_all()?;
        self.replica.keys_exhausted(at)
    }

    fn journal(&mut self, entry: &JournalEntry) -> Result<u64, LedgerError> {
        self.healthy()?;
        let now = self.now();
        let entry = JournalEntry { persisted_at: now, ..entry.clone() };
        let done = self.append_made(|_| Ok(Some(New::one(LogContent::Journal(entry.clone()), now))));
        self.written(done)?;
        self.replica.last_journal_entry()
    }

    fn config(&mut self, config: &StoredConfig) -> Result<ConfigVersion, LedgerError> {
        self.healthy()?;
        self.hold_all()?;
        let now = self.now();
        let done = self.append_made(|replica| {
            Ok(match replica.version_of(config)? {
                VersionOf::Known(_) => None,
                VersionOf::New(version) => {
                    let config = StoredConfig { version, ..config.clone() };
                    Some(New::one(LogContent::Config(config), now))
                }
            })
        });
        self.written(done)?;
        // Another process may have begun a version of its own right after ours.
        let found = self.replica.last_version_of(config)?;
        found.ok_or_else(|| LedgerError::Corrupt("a config that was appended is not there".to_owned()))
    }

    fn catch_up(&mut self) -> Result<(), LedgerError> {
        self.healthy()?;
        self.take_in(Duration::ZERO).map(drop)
    }

    fn maintain(&mut self, now: Timestamp) -> Result<(), LedgerError> {
        self.replica.maintain(now)
    }
}
