//! The tables that Recount keeps in the database it applies to; the same as in SQLite.

use super::faults::message;
use super::settings::PostgresOpenError;
use tokio_postgres::Client;

/// The version of the tables below. A database with another one is refused.
pub const TABLES_FORMAT: i64 = 1;

/// An advisory lock of the whole database, so that two that start at once don't both make the tables.
const MAKING_TABLES: i64 = 0x7265_636f_756e_7401;

/// The SQL that makes the tables, in the first schema of the search path. Repeating it is harmless.
///
/// There is deliberately no unique key on `recount_effect`: an effect that was applied twice must show.
pub fn tables_sql() -> &'static str {
    TABLES_SQL
}

/// What is made.
pub(crate) const TABLES: [&str; 5] =
    ["recount_format", "recount_position", "recount_batch", "recount_replay", "recount_effect"];

pub(crate) const TABLES_SQL: &str = "\
CREATE TABLE IF NOT EXISTS recount_format (
    version bigint NOT NULL            -- of all recount_* tables
);
INSERT INTO recount_format (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM recount_format);
CREATE TABLE IF NOT EXISTS recount_position (
    flow          text    NOT NULL,
    source_id     text    NOT NULL,    -- the incarnation of the source
    partition     text    NOT NULL,
    epoch         bigint  NOT NULL,    -- one more with each owner
    seq           bigint  NOT NULL,    -- of the last committed batch
    next_offset   bigint  NOT NULL,    -- the first offset that is not decided
    decided_above text    NOT NULL,    -- offsets decided beyond it: 3,7-9
    ledger_id     text    NOT NULL,    -- the ledger that holds the decisions
    clean         boolean NOT NULL,    -- the last owner drained
    alone_offset  bigint,              -- the event that was alone under way
    alone_epoch   bigint,              -- under which owner
    alone_stops   bigint  NOT NULL,    -- at how many unclean stops in a row before
    PRIMARY KEY (flow, source_id, partition)
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS recount_batch (
    flow      text   NOT NULL,
    source_id text   NOT NULL,
    partition text   NOT NULL,
    seq       bigint NOT NULL,
    decisions bytea  NOT NULL,         -- until the ledger has them
    PRIMARY KEY (flow, source_id, partition, seq)
);
CREATE TABLE IF NOT EXISTS recount_replay (
    flow      text   NOT NULL,
    source_id text   NOT NULL,
    partition text   NOT NULL,
    \"offset\"  bigint NOT NULL,
    corrects  bigint NOT NULL,         -- seq of the batch whose decision is replaced
    replay_id bigint NOT NULL,
    decision  text   NOT NULL,         -- what the replay came to
    PRIMARY KEY (flow, source_id, partition, \"offset\", corrects)
);
CREATE TABLE IF NOT EXISTS recount_effect (    -- one row an applied event; no unique key, so that a double shows
    flow      text   NOT NULL,
    source_id text   NOT NULL,
    partition text   NOT NULL,
    \"offset\"  bigint NOT NULL,
    event_id  text
);
";

/// The same tables for one session alone. They are found before the real ones, whatever the search path is.
pub(crate) fn temporary_tables_sql() -> String {
    format!(
        "{}SELECT set_config('search_path', concat_ws(', ', 'pg_temp', nullif(current_setting('search_path'), '')), \
         false);",
        TABLES_SQL.replace("CREATE TABLE IF NOT EXISTS ", "CREATE TEMPORARY TABLE ").replace(
            "INSERT INTO recount_format (version) SELECT 1 WHERE NOT EXISTS (SELECT 1 FROM recount_format)",
            "INSERT INTO pg_temp.recount_format (version) VALUES (1)"
        )
    )
}

/// Tables that the search path does not lead to.
pub(crate) async fn missing(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL";
    let names: Vec<&str> = TABLES.to_vec();
    Ok(client.query(sql, &[&names]).await?.iter().map(|row| row.get(0)).collect())
}

/// Makes the tables where they are missing and may be made, and checks their format.
pub(crate) async fn prepare_tables(client: &mut Client, may_create: bool) -> Result<(), PostgresOpenError> {
    let unusable = |error: tokio_postgres::Error| PostgresOpenError::Unusable(message(&error));
    if !missing(client).await.map_err(unusable)?.is_empty() {
        if !may_create {
            return Err(PostgresOpenError::Foreign(
                "the database has no recount_* tables: run the SQL that `recount validate --prepare` prints, or \
                 allow Recount to make them"
                    .to_owned(),
            ));
        }
        let transaction = client.transaction().await.map_err(unusable)?;
        transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING_TABLES]).await.map_err(unusable)?;
        transaction.batch_execute(TABLES_SQL).await.map_err(unusable)?;
        transaction.commit().await.map_err(unusable)?;
    }
    let version: Option<i64> =
        client.query_one("SELECT max(version) FROM recount_format", &[]).await.map_err(unusable)?.get(0);
    if version == Some(TABLES_FORMAT) {
        return Ok(());
    }
    let found = version.map_or("none".to_owned(), |v| v.to_string());
    Err(PostgresOpenError::Foreign(format!(
        "the recount_* tables have format {found}, this program reads {TABLES_FORMAT}: use the recount that made \
         them"
    )))
}
