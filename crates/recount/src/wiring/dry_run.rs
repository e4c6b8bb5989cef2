//! A dry run decides everything for real, on copies: nothing that it does can reach the user's database.

use crate::config::{Config, DatabasePlace, FlowMode, SourceConfig};
use crate::exit::Failure;
use rusqlite::{Connection, OpenFlags};
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

/// Copies every database of the config, and gives the ledger an empty folder.
pub fn dry_run(mut config: Config) -> Result<DryRun, Failure> {
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

/// Copies every database of the config into a folder, without Recount's own rows, and has the config name
/// the copies and an empty ledger there.
pub fn point_at_copies(config: &mut Config, folder: &Path) -> Result<(), Failure> {
    let names: Vec<String> = config.databases.keys().cloned().collect();
    for name in names {
        let database = config.databases.get_mut(&name).expect("the name was just listed");
        let DatabasePlace::Sqlite(from) = database.place().map_err(Failure::usage)? else {
            return Err(Failure::usage(format!(
                "database {name}: a dry run works on a copy, and this build copies SQLite files only; make one with \
                 createdb and pg_dump, and name it in the config that you try"
            )));
        };
        let to = folder.join(format!("{name}.db"));
        copy(&from, &to).map_err(|error| {
            Failure::unreachable(format!("database {name} at {} can't be copied: {error}", from.display()))
        })?;
        database.url = format!("sqlite:{}", to.display());
    }
    config.ledger.path = folder.join("ledger");
    Ok(())
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
