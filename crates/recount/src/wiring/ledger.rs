//! Opening the ledger: a folder, or a database with this process's replica of it in a folder.

use super::keeper;
use crate::config::{DatabasePlace, LedgerConfig, LedgerDatabase};
use crate::exit::{Exit, Failure, ledger_is_out_of_reach};
use recount_adapters::postgres_ledger::{PostgresLedger, PostgresLedgerSettings, log_end};
use recount_ledger::{
    FolderHolds, Forgotten, LedgerError, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, Refresh,
    SqliteLedger, folder_holds, is_held, running_instance,
};
use std::time::{Duration, Instant};

/// How long a process may take to take in what is in the log.
const HOLDER_TIME_MAX: Duration = Duration::from_secs(5);
/// A command that reads has a replica's lock for as long as it catches up.
const READER_TIME_MAX: Duration = Duration::from_secs(5);

/// A ledger, open for writing.
pub enum OpenLedger {
    /// The folder is the ledger.
    Embedded(Box<SqliteLedger>),
    /// It is in a database.
    Shared(Box<PostgresLedger>),
}

impl OpenLedger {
    /// To be asked and told.
    pub fn store(&mut self) -> &mut dyn LedgerStore {
        match self {
            Self::Embedded(ledger) => ledger.as_mut(),
            Self::Shared(ledger) => ledger.as_mut(),
        }
    }

    /// For whoever owns it from now on.
    pub fn into_store(self) -> Box<dyn LedgerStore> {
        match self {
            Self::Embedded(ledger) => ledger,
            Self::Shared(ledger) => ledger,
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
        return Ok(OpenLedger::Embedded(Box::new(ledger)));
    };
    let settings = PostgresLedgerSettings { replica, ..shared_settings(config, shared)? };
    let began = Instant::now();
    loop {
        return match PostgresLedger::open(settings.clone()) {
            Ok(ledger) => Ok(OpenLedger::Shared(Box::new(ledger))),
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

/// Opens the ledger for reading. A shared one is brought up to date first.
pub fn read_ledger(config: &LedgerConfig) -> Result<LedgerReader, Failure> {
    let Some(shared) = &config.database else {
        refuse_replica(config)?;
        return read_held(config);
    };
    refresh(config, shared)?;
    let (config_again, shared) = (config.clone(), shared.clone());
    let again = move || refresh(&config_again, &shared).map_err(|failure| LedgerError::Away(failure.message));
    Ok(read_held(config)?.refreshed_by(Refresh(Box::new(again))))
}

/// Opens a ledger for reading that this process has just opened for writing: nobody needs to bring it up to date.
pub fn read_held(config: &LedgerConfig) -> Result<LedgerReader, Failure> {
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

/// Brings the replica up to what the log holds now, or sees to it that whoever has it does.
fn refresh(config: &LedgerConfig, shared: &LedgerDatabase) -> Result<(), Failure> {
    let refreshed = match keeper::ask(&config.path) {
        Some(kept) => kept,
        None => refresh_from_outside(config, shared)?,
    };
    match refreshed {
        Ok(()) => {
            ledger_is_out_of_reach(false);
            Ok(())
        }
        Err(LedgerError::Away(why) | LedgerError::Unwritable(why)) => match folder_holds(&config.path) {
            Ok(FolderHolds::Replica { .. }) => {
                tell_stale(config, &why);
                Ok(())
            }
            _ => Err(ledger_failure(LedgerError::Away(why))),
        },
        Err(error) => Err(shared_failure(error)),
    }
}

/// No keeper of this process has the folder.
fn refresh_from_outside(
    config: &LedgerConfig,
    shared: &LedgerDatabase,
) -> Result<Result<(), LedgerError>, Failure> {
    let settings = PostgresLedgerSettings {
        begin: false,
        patience_ms: 0,
        replica: settings(config),
        ..shared_settings(config, shared)?
    };
    Ok(match is_held(&config.path) {
        true => wait_for_holder(config, &settings),
        false => match PostgresLedger::open(settings.clone()) {
            Err(LedgerError::Locked { .. }) => wait_for_holder(config, &settings),
            opened => opened.map(drop),
        },
    })
}

/// Another process has the folder, and takes in by itself what is in the log: waits until it has what is there now.
fn wait_for_holder(config: &LedgerConfig, settings: &PostgresLedgerSettings) -> Result<(), LedgerError> {
    let began = Instant::now();
    let Some((id, end)) = log_end(settings)? else {
        return Err(LedgerError::Missing("the database that [ledger] names".to_owned()));
    };
    loop {
        let behind = match LedgerReader::open(&config.path) {
            // The holder is about to make it.
            Err(LedgerError::Missing(_)) => end,
            Err(error) => return Err(error),
            Ok(reader) if reader.id() != id => {
                return Err(LedgerError::Foreign(format!(
                    "{} is a replica of ledger {}, and the database holds ledger {}",
                    config.path.display(),
                    reader.id().0,
                    id.0
                )));
            }
            Ok(reader) => end.saturating_sub(reader.applied()?),
        };
        if behind == 0 {
            return Ok(());
        }
        if began.elapsed() >= HOLDER_TIME_MAX {
            let what = format!("the process that has the folder is {behind} entries behind it");
            return Err(LedgerError::Away(what));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Says that what follows is what the replica had.
fn tell_stale(config: &LedgerConfig, why: &str) {
    if ledger_is_out_of_reach(true) {
        return;
    }
    let changed = std::fs::metadata(config.path.join("catalog.db")).and_then(|catalog| catalog.modified());
    let as_of = changed.ok().and_then(|at| jiff::Timestamp::try_from(at).ok());
    let as_of = as_of.map(|at| format!(", last written {at:.0}")).unwrap_or_default();
    eprintln!(
        "the ledger's database could not be asked: {why}\nwhat follows is what the replica in {} has{as_of}",
        config.path.display()
    );
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
