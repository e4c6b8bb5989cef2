//! `recount validate --prepare`: the SQL that makes the databases ready, printed, and applied on consent.

use crate::config::{Config, DatabasePlace, FlowConfig, FlowMode};
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring::effect::{find_database, postgres_settings};
use recount_adapters::postgres::{PostgresEffectSettings, preparation, prepare};
use recount_adapters::postgres_ledger::{ledger_preparation, prepare_ledger};
use std::collections::BTreeMap;
use std::io::{BufRead, IsTerminal, Write};
use std::path::PathBuf;

/// One database of the config that flows apply to.
struct Prepared {
    name: String,
    place: String,
    sql: String,
    how: How,
}

enum How {
    Sqlite(PathBuf),
    Postgres(Box<PostgresEffectSettings>),
    /// The ledger's own tables, by the url.
    Ledger(String),
}

/// Prints the SQL of every database that a flow applies to, and applies it if that is wanted.
pub(super) fn command(config: &Config, yes: bool) -> Outcome {
    let databases = databases(config)?;
    if databases.is_empty() {
        println!(
            "-- no flow of {} applies to a database: there is nothing to prepare",
            config.path.display()
        );
        return Ok(Exit::Well);
    }
    for prepared in &databases {
        println!("-- database {}: {}\n{}", prepared.name, prepared.place, prepared.sql);
    }
    let asks = !yes && std::io::stdin().is_terminal() && std::io::stdout().is_terminal();
    for prepared in &databases {
        let is_wanted = yes || (asks && agreed(prepared)?);
        if !is_wanted {
            eprintln!(
                "database {}: nothing was changed; have its owner run the above, or apply it as the role of the config \
                 with: recount validate {} --prepare --yes",
                prepared.name,
                config.path.display()
            );
            continue;
        }
        apply(prepared)?;
        eprintln!("database {}: prepared", prepared.name);
    }
    Ok(Exit::Well)
}

fn databases(config: &Config) -> Result<Vec<Prepared>, Failure> {
    let mut found: BTreeMap<String, Prepared> = BTreeMap::new();
    for flow in config.flows.iter().filter(|flow| flow.mode == FlowMode::Run) {
        let Some((name, _)) = flow.effect.in_database() else { continue };
        if !found.contains_key(name) {
            found.insert(name.to_owned(), prepared(config, flow, name)?);
        }
    }
    let mut found: Vec<Prepared> = found.into_values().collect();
    found.extend(ledger(config)?);
    Ok(found)
}

/// The database of a shared ledger.
fn ledger(config: &Config) -> Result<Option<Prepared>, Failure> {
    let Some(shared) = &config.ledger.database else { return Ok(None) };
    let DatabasePlace::Postgres(url) = shared.database.place().map_err(Failure::usage)? else {
        return Ok(None);
    };
    let sql = ledger_preparation(&url).map_err(Failure::usage)?;
    let name = format!("{}, for the ledger", shared.name);
    Ok(Some(Prepared { name, place: sql.place, sql: sql.sql, how: How::Ledger(url) }))
}

fn prepared(config: &Config, flow: &FlowConfig, name: &str) -> Result<Prepared, Failure> {
    let name = name.to_owned();
    match find_database(config, &name)?.place().map_err(Failure::usage)? {
        DatabasePlace::Sqlite(path) => Ok(Prepared {
            place: path.display().to_string(),
            sql: recount_adapters::sqlite::tables_sql().to_owned(),
            name,
            how: How::Sqlite(path),
        }),
        DatabasePlace::Postgres(url) => {
            let sql = preparation(&url).map_err(Failure::usage)?;
            let settings = postgres_settings(config, flow)?.ok_or_else(|| {
                Failure::usage(format!("flow {} has no SQL to prepare for", flow.spec.flow))
            })?;
            Ok(Prepared { place: sql.place, sql: sql.sql, name, how: How::Postgres(Box::new(settings)) })
        }
    }
}

/// Asks at the terminal; anything but a whole yes is a no.
fn agreed(prepared: &Prepared) -> Result<bool, Failure> {
    eprint!("run this in {}, as the role of the config? yes or no: ", prepared.place);
    std::io::stderr().flush().map_err(Failure::unreachable)?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer).map_err(Failure::unreachable)?;
    Ok(answer.trim() == "yes")
}

fn apply(prepared: &Prepared) -> Result<(), Failure> {
    let cannot = |error: &dyn std::fmt::Display| {
        Failure::unreachable(format!(
            "database {} at {} can't be prepared: {error}",
            prepared.name, prepared.place
        ))
    };
    match &prepared.how {
        How::Sqlite(path) => {
            // Not made here: a file that is missing is a wrong path more often than a new shop.
            let flags = rusqlite::OpenFlags::SQLITE_OPEN_READ_WRITE;
            let connection =
                rusqlite::Connection::open_with_flags(path, flags).map_err(|error| cannot(&error))?;
            connection.execute_batch(&prepared.sql).map_err(|error| cannot(&error))
        }
        How::Ledger(url) => {
            crate::commands::runtime()?.block_on(prepare_ledger(url)).map_err(|error| cannot(&error))
        }
        How::Postgres(settings) => {
            crate::commands::runtime()?.block_on(prepare(settings)).map_err(|error| cannot(&error))
        }
    }
}
