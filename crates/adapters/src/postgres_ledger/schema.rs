//! The two tables of a shared ledger.

use crate::postgres::connect::{place, read_url};
use crate::postgres::faults::message;
use crate::postgres::{PostgresOpenError, Preparation};
use recount_ledger::{Birth, LedgerError, LedgerId};
use tokio_postgres::Client;

/// The version of the tables and of what stands in them.
pub const LEDGER_TABLES_FORMAT: i64 = 1;

/// An advisory lock of the whole database, so that two that start at once don't both make the tables.
const MAKING_LEDGER: i64 = 0x7265_636f_756e_7402;

pub(crate) const TABLES: [&str; 2] = ["recount_ledger", "recount_ledger_entry"];

const TABLES_SQL: &str = "\
CREATE TABLE IF NOT EXISTS recount_ledger (
    one          boolean PRIMARY KEY DEFAULT true CHECK (one),    -- a schema holds one ledger
    ledger_id    text    NOT NULL,
    identity_key bytea   NOT NULL,     -- of the identity hashes; the same in every replica
    format       bigint  NOT NULL,     -- of both tables
    next_ordinal bigint  NOT NULL      -- of the next entry
) WITH (fillfactor = 50);
CREATE TABLE IF NOT EXISTS recount_ledger_entry (    -- append-only
    ordinal      bigint   PRIMARY KEY, -- 1, 2, 3 … in the order of their commits
    kind         smallint NOT NULL,    -- 1 batch, 2 journal, 3 config
    flow         text,                 -- of a batch, as are the next three
    source_id    text,
    partition    text,
    seq          bigint,
    persisted_at bigint   NOT NULL,    -- milliseconds since 1970
    written_by   text     NOT NULL,    -- the process that wrote it
    body         bytea    NOT NULL     -- a packed batch, or JSON
);
ALTER TABLE recount_ledger_entry ALTER COLUMN body SET STORAGE EXTERNAL;
CREATE UNIQUE INDEX IF NOT EXISTS recount_ledger_batch
    ON recount_ledger_entry (flow, source_id, partition, seq) WHERE kind = 1;
";

/// The SQL that makes the tables of a ledger. Repeating it is harmless.
pub fn ledger_tables_sql() -> &'static str {
    TABLES_SQL
}

/// The SQL that makes a database ready for a ledger of the role of this URL. Nothing is connected.
///
/// # Errors
/// `Url` for a URL that can't be used.
pub fn ledger_preparation(url: &str) -> Result<Preparation, PostgresOpenError> {
    let config = read_url(url)?.0;
    let mut sql = TABLES_SQL.to_owned();
    if let Some(role) = config.get_user() {
        let role = format!("\"{}\"", role.replace('"', "\"\""));
        sql.push_str(&format!(
            "-- The role that Recount connects as. It never changes or deletes an entry.\n\
             GRANT SELECT, INSERT, UPDATE ON recount_ledger TO {role};\n\
             GRANT SELECT, INSERT ON recount_ledger_entry TO {role};\n"
        ));
    }
    Ok(Preparation { place: place(&config), sql })
}

/// The row of the ledger.
#[derive(Debug, Clone)]
pub(crate) struct LedgerRow {
    pub(crate) birth: Birth,
    pub(crate) next_ordinal: u64,
}

fn unusable(error: tokio_postgres::Error) -> LedgerError {
    LedgerError::Unwritable(message(&error))
}

/// Tables that the search path does not lead to.
pub(crate) async fn missing(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT name FROM unnest($1::text[]) AS name WHERE to_regclass(name) IS NULL";
    let names: Vec<&str> = TABLES.to_vec();
    Ok(client.query(sql, &[&names]).await?.iter().map(|row| row.get(0)).collect())
}

/// The ledger that the database holds; none where there is none yet.
pub(crate) async fn read(client: &Client) -> Result<Option<LedgerRow>, LedgerError> {
    if !missing(client).await.map_err(unusable)?.is_empty() {
        return Ok(None);
    }
    let sql = "SELECT ledger_id, identity_key, format, next_ordinal FROM recount_ledger";
    let Some(row) = client.query_opt(sql, &[]).await.map_err(unusable)? else { return Ok(None) };
    let format: i64 = row.get(2);
    if format != LEDGER_TABLES_FORMAT {
        let found = u32::try_from(format).unwrap_or(u32::MAX);
        return Err(LedgerError::TooNew { found, known: LEDGER_TABLES_FORMAT as u32 });
    }
    let identity_key = row.get::<_, Vec<u8>>(1).try_into().map_err(|_| {
        LedgerError::Corrupt("recount_ledger: the identity key does not have 32 bytes".to_owned())
    })?;
    let birth = Birth { id: LedgerId(row.get(0)), identity_key };
    Ok(Some(LedgerRow { birth, next_ordinal: row.get::<_, i64>(3) as u64 }))
}

/// Makes the tables where they are missing, as the role of the session, which owns them then.
pub(crate) async fn make_tables(client: &mut Client) -> Result<(), LedgerError> {
    if missing(client).await.map_err(unusable)?.is_empty() {
        return Ok(());
    }
    let transaction = client.transaction().await.map_err(unusable)?;
    transaction.execute("SELECT pg_advisory_xact_lock($1)", &[&MAKING_LEDGER]).await.map_err(unusable)?;
    transaction.batch_execute(TABLES_SQL).await.map_err(|error| {
        LedgerError::Unwritable(format!(
            "the ledger's tables can't be made: {}; have their owner run what `recount validate --prepare` prints",
            message(&error)
        ))
    })?;
    transaction.commit().await.map_err(unusable)
}

/// Begins a new ledger, unless another process just did.
pub(crate) async fn begin(client: &Client, birth: &Birth) -> Result<(), LedgerError> {
    let sql = "INSERT INTO recount_ledger (ledger_id, identity_key, format, next_ordinal) VALUES ($1, $2, $3, 1) \
               ON CONFLICT DO NOTHING";
    let key = &birth.identity_key[..];
    client.execute(sql, &[&birth.id.0, &key, &LEDGER_TABLES_FORMAT]).await.map_err(unusable)?;
    Ok(())
}
