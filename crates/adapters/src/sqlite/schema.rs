//! The tables that Recount keeps in the database it applies to.

use super::settings::SqliteOpenError;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::Path;

/// The version of the tables below. A database with another one is refused.
pub const TABLES_FORMAT: i64 = 1;

/// Names that a user's statements may read but not write.
pub(crate) const TABLES: [&str; 5] =
    ["recount_format", "recount_position", "recount_batch", "recount_replay", "recount_effect"];

/// The SQL that makes the tables, as it stands in `sqlite_schema` afterwards. Repeating it is harmless.
///
/// There is deliberately no unique key on `recount_effect`: an effect that was applied twice must show.
pub fn tables_sql() -> &'static str {
    TABLES_SQL
}

const TABLES_SQL: &str = "\
CREATE TABLE IF NOT EXISTS recount_format (
    version INTEGER NOT NULL        -- of all recount_* tables
) STRICT;
INSERT INTO recount_format (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM recount_format);
CREATE TABLE IF NOT EXISTS recount_position (
    flow          TEXT    NOT NULL,
    source_id     TEXT    NOT NULL, -- the incarnation of the source
    partition     TEXT    NOT NULL,
    epoch         INTEGER NOT NULL, -- one more with each owner
    seq           INTEGER NOT NULL, -- of the last committed batch
    next_offset   INTEGER NOT NULL, -- the first offset that is not decided
    decided_above TEXT    NOT NULL, -- offsets decided beyond it: 3,7-9
    ledger_id     TEXT    NOT NULL, -- the ledger that holds the decisions
    clean         INTEGER NOT NULL, -- 1: the last owner drained
    alone_offset  INTEGER,          -- the event that was alone under way
    alone_epoch   INTEGER,          -- under which owner
    alone_stops   INTEGER NOT NULL, -- at how many unclean stops in a row before
    PRIMARY KEY (flow, source_id, partition)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recount_batch (
    flow      TEXT    NOT NULL,
    source_id TEXT    NOT NULL,
    partition TEXT    NOT NULL,
    seq       INTEGER NOT NULL,
    decisions BLOB    NOT NULL,     -- until the ledger has them
    PRIMARY KEY (flow, source_id, partition, seq)
) STRICT;
CREATE TABLE IF NOT EXISTS recount_replay (
    flow      TEXT    NOT NULL,
    source_id TEXT    NOT NULL,
    partition TEXT    NOT NULL,
    \"offset\"  INTEGER NOT NULL,
    corrects  INTEGER NOT NULL,     -- seq of the batch whose decision is replaced
    replay_id INTEGER NOT NULL,
    decision  TEXT    NOT NULL,     -- what the replay came to
    PRIMARY KEY (flow, source_id, partition, \"offset\", corrects)
) STRICT, WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS recount_effect ( -- one row an applied event; no unique key, so that a double shows
    flow      TEXT    NOT NULL,
    source_id TEXT    NOT NULL,
    partition TEXT    NOT NULL,
    \"offset\"  INTEGER NOT NULL,
    event_id  TEXT
) STRICT;
";

/// Makes the tables in one transaction where they are missing and may be made, and checks their format.
pub(crate) fn prepare_tables(
    conn: &mut Connection,
    path: &Path,
    may_create: bool,
) -> Result<(), SqliteOpenError> {
    if tables_missing(conn).map_err(|e| unusable(path, &e))? {
        if !may_create {
            return Err(SqliteOpenError::Missing(format!(
                "{} has no recount_* tables: run the SQL that `recount validate --prepare` prints, or allow \
                 Recount to make them",
                path.display()
            )));
        }
        let transaction =
            conn.transaction_with_behavior(TransactionBehavior::Immediate).map_err(|e| unusable(path, &e))?;
        transaction.execute_batch(TABLES_SQL).map_err(|e| unusable(path, &e))?;
        check_format(&transaction, path)?;
        return transaction.commit().map_err(|e| unusable(path, &e));
    }
    check_format(conn, path)
}

fn tables_missing(conn: &Connection) -> rusqlite::Result<bool> {
    let mut found = 0;
    for table in TABLES {
        let sql = "SELECT 1 FROM sqlite_schema WHERE type = 'table' AND name = ?1";
        found += usize::from(conn.prepare_cached(sql)?.exists([table])?);
    }
    Ok(found < TABLES.len())
}

fn check_format(conn: &Connection, path: &Path) -> Result<(), SqliteOpenError> {
    let version: Option<i64> = conn
        .query_row("SELECT max(version) FROM recount_format", [], |row| row.get(0))
        .optional()
        .map_err(|e| unusable(path, &e))?
        .flatten();
    if version == Some(TABLES_FORMAT) {
        return Ok(());
    }
    let found = version.map_or("none".to_owned(), |v| v.to_string());
    Err(SqliteOpenError::Foreign(format!(
        "the recount_* tables of {} have format {found}, this program reads {TABLES_FORMAT}: use the recount \
         that made them",
        path.display()
    )))
}

pub(crate) fn unusable(path: &Path, error: &rusqlite::Error) -> SqliteOpenError {
    SqliteOpenError::Unusable(format!("{}: {}", path.display(), super::faults::message(error)))
}
