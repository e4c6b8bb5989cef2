//! `[ledger]`: a folder, or a database with this process's replica in a folder.

use super::fault::{Place, Sink};
use super::raw::RawTable;
use super::resolve::Context;
use super::{DatabaseConfig, FlowConfig, LedgerConfig};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

/// The folder that `--ledger-folder` named.
static NAMED_FOLDER: OnceLock<PathBuf> = OnceLock::new();
/// Names the folder where no option does.
const FOLDER_VARIABLE: &str = "RECOUNT_LEDGER_FOLDER";

/// The database that holds a shared ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerDatabase {
    /// A key of [`Config::databases`](super::Config::databases).
    pub name: String,
    /// As it is there.
    pub database: DatabaseConfig,
    /// Where the config says so.
    pub(super) at: Place,
}

/// What `--ledger-folder` says holds for every config of this process.
pub(crate) fn name_folder(folder: PathBuf) {
    // Named once, where the command line is read.
    drop(NAMED_FOLDER.set(folder));
}

/// The folder that the option or the environment names in place of the config's.
pub(crate) fn named_folder() -> Option<PathBuf> {
    let of_environment = || std::env::var_os(FOLDER_VARIABLE).filter(|value| !value.is_empty());
    NAMED_FOLDER.get().cloned().or_else(|| of_environment().map(PathBuf::from))
}

pub(super) fn resolve(
    raw: &RawTable,
    databases: &BTreeMap<String, DatabaseConfig>,
    flows: &[FlowConfig],
    context: &mut Context<'_, '_>,
) -> LedgerConfig {
    let table = raw.table_or_defaults("ledger");
    let segment = table.table_or_defaults("segment");
    let retention = table.table_or_defaults("retention");
    let ledger = LedgerConfig {
        path: folder(&table, &context.folder),
        database: database(&table, databases, context),
        segment_ms: segment.quantity("time"),
        segment_bytes: segment.quantity("bytes"),
        retention_ms: retention.quantity_if("age"),
        retention_bytes: retention.quantity_if("bytes"),
    };
    if ledger.database.is_some() {
        refuse_what_is_not_shared(raw, &table, &retention, flows, context.sink);
    } else if !table.has("database") {
        refuse_members(raw, context.sink);
    }
    ledger
}

fn folder(table: &RawTable, beside: &Path) -> PathBuf {
    beside.join(table.text("path").unwrap_or_default())
}

fn database(
    table: &RawTable,
    databases: &BTreeMap<String, DatabaseConfig>,
    context: &mut Context<'_, '_>,
) -> Option<LedgerDatabase> {
    let name = table.text("database")?;
    let at = table.place("database");
    let Some(database) = databases.get(&name) else {
        let known = context.databases.clone();
        let header = format!("[database.{name}] url = \"postgres://…\"");
        context.unknown_name(&at, "database", &name, &known, &header);
        return None;
    };
    if database.url.starts_with("sqlite:") {
        let message = format!(
            "[database.{name}] is a SQLite file, and a ledger for several processes is in PostgreSQL"
        );
        let help =
            "leave `database` out: the folder is a ledger for one process; or name a postgres:// database";
        context.sink.fault(&at, message, help.to_owned());
        return None;
    }
    Some(LedgerDatabase { name, database: database.clone(), at })
}

/// Alone there is nobody to share a topic with.
fn refuse_members(raw: &RawTable, sink: &mut Sink<'_>) {
    for (_, flow) in raw.named("flow") {
        let source = flow.table_or_defaults("source");
        if source.has("member") {
            let message = "`member` is for processes that share a ledger, and [ledger] names no `database`";
            let help = "leave `member` out, or write: [ledger] database = \"ops\"".to_owned();
            sink.fault(&source.place("member"), message, help);
        }
    }
}

/// What is kept, or claimed, in one process's folder alone.
fn refuse_what_is_not_shared(
    raw: &RawTable,
    table: &RawTable,
    retention: &RawTable,
    flows: &[FlowConfig],
    sink: &mut Sink<'_>,
) {
    for key in ["age", "bytes"].into_iter().filter(|key| retention.has(key)) {
        let message =
            "a ledger in a database is kept whole for now: what left it could not be told to a new replica";
        sink.fault(&retention.place(key), message, "leave [ledger.retention] out".to_owned());
    }
    for ((name, _), flow) in raw.named("flow").iter().zip(flows) {
        if flow.effect.in_database().is_none() {
            let message = format!(
                "flow {name} applies nothing to a database, so who owns its partitions is kept in one process's folder: \
                 another process could not take over"
            );
            let help = "leave `database` out of [ledger], or give the flow an apply with SQL".to_owned();
            sink.fault(&table.place("database"), message, help);
        }
    }
}
