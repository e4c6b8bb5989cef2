//! A dry run decides everything for real, on copies, or in PostgreSQL in a transaction that is never committed:
//! nothing that it does stays in the user's database.

use super::effect::find_database;
use crate::config::{Config, DatabasePlace, FlowMode, SourceConfig};
use crate::exit::Failure;
use recount_adapters::postgres::PostgresRehearsal;
use rusqlite::{Connection, OpenFlags};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Pages copied between two looks at whether another process wants the database.
const PAGES_A_STEP: i32 = 1024;

/// The copies; dropping it removes them.
pub struct DryRun {
    /// The config, pointing at the copies.
    pub config: Config,
    _folder: tempfile::TempDir,
}

/// Copies every database of the config, and gives the ledger an empty folder. Of the flows only the wanted ones
/// will run; none named means all.
pub fn dry_run(mut config: Config, wanted: &[String]) -> Result<DryRun, Failure> {
    one_flow_a_transaction(&config, wanted)?;
    if let Some(flow) = config.flows.iter().find(|flow| !matches!(flow.source, SourceConfig::File { .. })) {
        return Err(Failure::usage(format!(
            "flow {}: a dry run reads a file; what comes from a topic, by HTTP or standard input is not read for one yet",
            flow.spec.flow
        )));
    }
    if let Some(flow) = config.flows.iter().find(|flow| flow.mode == FlowMode::Report) {
        return Err(Failure::usage(format!(
            "flow {}: its consumer decides, and reports to the instance that runs; there is nothing to try without it",
            flow.spec.flow
        )));
    }
    let folder = tempfile::tempdir().map_err(Failure::unreachable)?;
    point_at_copies(&mut config, folder.path())?;
    for flow in &mut config.flows {
        if let SourceConfig::File { follow, .. } = &mut flow.source {
            *follow = false;
        }
    }
    Ok(DryRun { config, _folder: folder })
}

/// A transaction in PostgreSQL is one flow's: another would wait for its locks, and not see what it did.
fn one_flow_a_transaction(config: &Config, wanted: &[String]) -> Result<(), Failure> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for flow in config.flows.iter().filter(|flow| is_wanted(flow.spec.flow.as_str())) {
        if flow.mode != FlowMode::Run {
            continue;
        }
        let Some((name, _)) = flow.effect.in_database() else { continue };
        let place = find_database(config, name)?.place().map_err(Failure::usage)?;
        if !matches!(place, DatabasePlace::Postgres(_)) {
            continue;
        }
        if let Some(first) = seen.insert(name, flow.spec.flow.as_str()) {
            return Err(Failure::usage(format!(
                "flows {first} and {} both change database {name}, and a dry run on PostgreSQL is one transaction of \
                 one flow: name one, with --flow {first}",
                flow.spec.flow
            )));
        }
    }
    Ok(())
}

/// Copies every database of the config into a folder, without Recount's own rows, and has the config name
/// the copies and an empty ledger there. A PostgreSQL database is not copied: what happens there happens in a
/// transaction that is never committed.
pub fn point_at_copies(config: &mut Config, folder: &Path) -> Result<(), Failure> {
    let names: Vec<String> = config.databases.keys().cloned().collect();
    for name in names {
        let database = config.databases.get_mut(&name).expect("the name was just listed");
        let DatabasePlace::Sqlite(from) = database.place().map_err(Failure::usage)? else {
            database.rehearsal = Some(PostgresRehearsal::new().map_err(Failure::unreachable)?);
            continue;
        };
        let to = folder.join(format!("{name}.db"));
        copy(&from, &to).map_err(|error| {
            Failure::unreachable(format!("database {name} at {} can't be copied: {error}", from.display()))
        })?;
        database.url = format!("sqlite:{}", to.display());
    }
    config.ledger.path = folder.join("ledger");
    config.ledger.database = None;
    // Spans of what was only tried would stand beside those of what happened.
    config.tracing = None;
    Ok(())
}

/// Where a dry run tries what it decides, in words.
pub fn tried_where(config: &Config) -> &'static str {
    let in_transaction = config.databases.values().filter(|database| database.rehearsal.is_some()).count();
    match in_transaction {
        0 => "on copies of the databases as they are now",
        all if all == config.databases.len() => {
            "in a transaction that is rolled back at the end; rows that it changes are locked until then"
        }
        _ => {
            "on copies of the databases as they are now, and in PostgreSQL in a transaction that is rolled back"
        }
    }
}

/// Copies a SQLite database as it is now, without the rows that Recount keeps in it.
pub fn copy(from: &Path, to: &Path) -> rusqlite::Result<()> {
    let source = Connection::open_with_flags(from, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
    let mut copy = Connection::open(to)?;
    let backup = rusqlite::backup::Backup::new(&source, &mut copy)?;
    backup.run_to_completion(PAGES_A_STEP, Duration::ZERO, None)?;
    drop(backup);
    // The copy carries no claim of the original: the dry run decides from the beginning.
    for table in ["recount_position", "recount_batch", "recount_replay", "recount_effect", "recount_inbox"] {
        let exists: bool = copy.query_row(
            "SELECT EXISTS (SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1)",
            [table],
            |row| row.get(0),
        )?;
        if exists {
            copy.execute(&format!("DELETE FROM {table}"), [])?;
        }
    }
    Ok(())
}
