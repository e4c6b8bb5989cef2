//! Opening the ledger: a folder, or a database with this process's replica of it in a folder.

use crate::config::{DatabasePlace, LedgerConfig, LedgerDatabase};
use crate::exit::{Exit, Failure};
use recount_adapters::postgres_ledger::{PostgresLedger, PostgresLedgerSettings};
use recount_engine::Book;
use recount_ledger::{
    FolderHolds, Forgotten, LedgerError, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger,
    folder_holds, is_held, running_instance,
};
use std::time::{Duration, Instant};

/// How often a process that runs asks for what others wrote.
const KEEP_UP_EVERY: Duration = Duration::from_millis(500);
/// A command that reads has a replica's lock for as long as it catches up.
const READER_TIME_MAX: Duration = Duration::from_secs(5);

/// A ledger, open for writing.
pub enum OpenLedger {
    /// The folder is the ledger.
    Embedded(SqliteLedger),
    /// It is in a database.
    Shared(PostgresLedger),
}

impl OpenLedger {
    /// To be asked and told.
    pub fn store(&mut self) -> &mut dyn LedgerStore {
        match self {
            Self::Embedded(ledger) => ledger,
            Self::Shared(ledger) => ledger,
        }
    }

    /// For whoever owns it from now on.
    pub fn into_store(self) -> Box<dyn LedgerStore> {
        match self {
            Self::Embedded(ledger) => Box::new(ledger),
            Self::Shared(ledger) => Box::new(ledger),
        }
    }

    /// Writes where this instance listens.
    ///
    /// # Errors
    /// As [`SqliteLedger::announce`].
    pub fn announce(&self, address: &str) -> Result<(), LedgerError> {
        match self {
            Self::Embedded(ledger) => ledger.announce(address),
            Self::Shared(ledger) => ledger.announce(address),
        }
    }

    /// Destroys what the ledger holds of a key.
    ///
    /// # Errors
    /// As [`SqliteLedger::forget`]; a shared ledger can't forget yet, and says so.
    pub fn forget(&mut self, key: &str, because: &str) -> Result<Forgotten, Failure> {
        match self {
            Self::Embedded(ledger) => ledger.forget(None, key, because).map_err(ledger_failure),
            Self::Shared(_) => Err(Failure::usage(
                "a ledger in a database can't forget a key yet: its log and every replica would have to; nothing was \
                 changed",
            )),
        }
    }
}

/// Opens the ledger for writing; creates it where there is none.
pub fn open_ledger(config: &LedgerConfig) -> Result<OpenLedger, Failure> {
    let replica = settings(config);
    let Some(shared) = &config.database else {
        let ledger = SqliteLedger::open(&config.path, replica).map_err(ledger_failure)?;
        return Ok(OpenLedger::Embedded(ledger));
    };
    let settings = PostgresLedgerSettings { replica, ..shared_settings(config, shared)? };
    let began = Instant::now();
    loop {
        return match PostgresLedger::open(settings.clone()) {
            Ok(ledger) => Ok(OpenLedger::Shared(ledger)),
            // Without an address it may be a command that only reads, and is soon done.
            Err(LedgerError::Locked { .. })
                if began.elapsed() < READER_TIME_MAX && running_instance(&config.path).is_none() =>
            {
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
            Err(error) => Err(shared_failure(error)),
        };
    }
}

fn settings(config: &LedgerConfig) -> LedgerSettings {
    LedgerSettings {
        segment_bytes_max: config.segment_bytes,
        segment_age_ms_max: config.segment_ms,
        keep_ms: config.retention_ms,
        keep_bytes: config.retention_bytes,
        ..LedgerSettings::default()
    }
}

fn shared_settings(
    config: &LedgerConfig,
    shared: &LedgerDatabase,
) -> Result<PostgresLedgerSettings, Failure> {
    let name = &shared.name;
    match shared.database.place().map_err(Failure::usage)? {
        DatabasePlace::Postgres(url) => Ok(PostgresLedgerSettings {
            statement_time_ms_max: shared.database.statement_time_ms_max,
            ..PostgresLedgerSettings::new(url, &config.path)
        }),
        DatabasePlace::Sqlite(_) => Err(Failure::usage(format!(
            "[database.{name}] is a SQLite file, and a ledger for several processes is in PostgreSQL: leave `database` out \
             of [ledger], or name a postgres:// database"
        ))),
    }
}

/// Opens the ledger for reading. A shared one is brought up to date first, unless a process runs that does so anyway.
pub fn read_ledger(config: &LedgerConfig) -> Result<LedgerReader, Failure> {
    match &config.database {
        Some(shared) => refresh(config, shared)?,
        None => refuse_replica(config)?,
    }
    LedgerReader::open(&config.path).map_err(ledger_failure)
}

/// Without its database nobody could say how old what stands there is.
fn refuse_replica(config: &LedgerConfig) -> Result<(), Failure> {
    match folder_holds(&config.path) {
        Ok(FolderHolds::Replica { id, place }) => Err(Failure::usage(format!(
            "{} is a replica of ledger {} at {place}: name that database in [ledger], or another folder",
            config.path.display(),
            id.0
        ))),
        // What can't be read is told by whoever opens it.
        _ => Ok(()),
    }
}

fn refresh(config: &LedgerConfig, shared: &LedgerDatabase) -> Result<(), Failure> {
    let began = Instant::now();
    let settings = PostgresLedgerSettings {
        begin: false,
        patience_ms: 0,
        replica: settings(config),
        ..shared_settings(config, shared)?
    };
    loop {
        if is_held(&config.path) {
            if running_instance(&config.path).is_some() || began.elapsed() >= READER_TIME_MAX {
                return Ok(());
            }
            // Another command reads, and has it up to date in a moment.
            std::thread::sleep(Duration::from_millis(50));
            continue;
        }
        return match PostgresLedger::open(settings.clone()) {
            Ok(_) => Ok(()),
            Err(LedgerError::Locked { .. }) => continue,
            Err(LedgerError::Away(why) | LedgerError::Unwritable(why)) => match folder_holds(&config.path) {
                Ok(FolderHolds::Replica { .. }) => {
                    tell_stale(config, &why);
                    Ok(())
                }
                _ => Err(ledger_failure(LedgerError::Away(why))),
            },
            Err(error) => Err(shared_failure(error)),
        };
    }
}

/// Says that what follows is what the replica had.
fn tell_stale(config: &LedgerConfig, why: &str) {
    crate::exit::ledger_is_out_of_reach();
    let changed = std::fs::metadata(config.path.join("catalog.db")).and_then(|catalog| catalog.modified());
    let as_of = changed.ok().and_then(|at| jiff::Timestamp::try_from(at).ok());
    let as_of = as_of.map(|at| format!(", last written {at:.0}")).unwrap_or_default();
    eprintln!(
        "the ledger's database could not be asked: {why}\nwhat follows is what the replica in {} has{as_of}",
        config.path.display()
    );
}

/// Takes in what other processes write, as long as it is kept.
pub struct KeepingUp(tokio::task::JoinHandle<()>);

impl Drop for KeepingUp {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Who reads this process's folder sees the whole, also while its own flows have nothing to do.
pub(super) fn keep_up(book: Book) -> KeepingUp {
    KeepingUp(tokio::spawn(async move {
        let mut is_told = false;
        loop {
            tokio::time::sleep(KEEP_UP_EVERY).await;
            match book.with(|store| store.catch_up()).await {
                Ok(()) => is_told = false,
                Err(error) if !std::mem::replace(&mut is_told, true) => {
                    tracing::warn!(target: "recount::ledger", "what other processes decide is not seen for now: {error}");
                }
                Err(_) => {}
            }
        }
    }))
}

fn shared_failure(error: LedgerError) -> Failure {
    match error {
        LedgerError::Locked { path, holder } => Failure::unreachable(format!(
            "the folder {path} is in use by process {holder}: ask that instance; or, to run beside it, give this process a \
             folder of its own: --ledger-folder DIR, or RECOUNT_LEDGER_FOLDER"
        )),
        other => ledger_failure(other),
    }
}

/// The exit that a ledger's error means.
pub fn ledger_failure(error: LedgerError) -> Failure {
    let exit = match error {
        LedgerError::Corrupt(_) => Exit::NotWell,
        LedgerError::Foreign(_) => Exit::Usage,
        _ => Exit::Unreachable,
    };
    let message = match error {
        LedgerError::Missing(folder) => format!(
            "there is no ledger at {folder} yet: recount run makes it, recount run --dry-run shows what that would come \
             to. Another config is named with -c"
        ),
        other => other.to_string(),
    };
    Failure { exit, message }
}
