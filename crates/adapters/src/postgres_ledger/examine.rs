//! What `validate` tells of the database that is to hold a ledger, without changing anything there.

use super::schema::{self, TABLES};
use crate::postgres::connect::{connect, weaknesses};
use crate::postgres::faults::message;
use crate::postgres::{PostgresEffectSettings, PostgresOpenError};
use recount_model::FlowName;
use tokio_postgres::Client;

/// What a server says of itself and of the ledger in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LedgerExamined {
    /// What the server is and how it is set; then whether a ledger is there, and can be written.
    pub said: [String; 2],
    /// Settings that lower what is promised, in sentences.
    pub weaknesses: Vec<String>,
}

fn unusable(error: tokio_postgres::Error) -> PostgresOpenError {
    PostgresOpenError::Unusable(message(&error))
}

fn settings(url: &str) -> Result<PostgresEffectSettings, PostgresOpenError> {
    let flow = FlowName::new("ledger").map_err(|error| PostgresOpenError::Unusable(error.to_string()))?;
    Ok(PostgresEffectSettings::new(url, flow))
}

/// Asks the server.
///
/// # Errors
/// `Url` for a URL that can't be used; `Unreachable` where nobody answers or lets us in.
pub async fn examine_ledger(url: &str) -> Result<LedgerExamined, PostgresOpenError> {
    let client = connect(&settings(url)?).await?;
    let weaknesses = weaknesses(&client).await.map_err(unusable)?;
    let sql = "SELECT current_setting('server_version'), current_user::text, \
               current_setting('synchronous_commit'), current_setting('fsync'), \
               coalesce(current_schema()::text, ''), \
               coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = client.query_one(sql, &[]).await.map_err(unusable)?;
    let text = |column: usize| row.get::<_, String>(column);
    let version = text(0);
    let server = format!(
        "PostgreSQL {} as role {}: synchronous_commit {}, fsync {}",
        version.split(' ').next().unwrap_or_default(),
        text(1),
        text(2),
        text(3)
    );
    let missing = schema::missing(&client).await.map_err(unusable)?;
    let ledger = match (missing.is_empty(), row.get(5)) {
        (true, _) => there(&client).await.map_err(unusable)?,
        (false, true) => {
            format!("no ledger yet; its tables are made in schema {} at the first start", text(4))
        }
        (false, false) => {
            "no ledger yet, and this role can't make its tables: have the owner run what `recount validate --prepare` prints"
                .to_owned()
        }
    };
    Ok(LedgerExamined { said: [server, ledger], weaknesses })
}

async fn there(client: &Client) -> Result<String, tokio_postgres::Error> {
    let may = "SELECT bool_and(has_table_privilege(name, 'SELECT') AND has_table_privilege(name, 'INSERT')) AND \
               has_table_privilege($2, 'UPDATE') FROM unnest($1::text[]) AS name";
    let names: Vec<&str> = TABLES.to_vec();
    let may: bool = client.query_one(may, &[&names, &TABLES[0]]).await?.get(0);
    if !may {
        return Ok("this role may not write the ledger's tables: have the owner run what `recount validate --prepare` prints"
            .to_owned());
    }
    let sql = "SELECT ledger_id, next_ordinal - 1 FROM recount_ledger";
    Ok(match client.query_opt(sql, &[]).await? {
        Some(row) => {
            format!("ledger {}, {} entries", row.get::<_, String>(0), row.get::<_, i64>(1))
        }
        None => "its tables are there; the ledger begins at the first start".to_owned(),
    })
}

/// Makes the tables, as the role of the URL, which owns them then.
///
/// # Errors
/// As [`examine_ledger`]; `Unusable` where the role may not make tables.
pub async fn prepare_ledger(url: &str) -> Result<(), PostgresOpenError> {
    let mut client = connect(&settings(url)?).await?;
    let made = schema::make_tables(&mut client).await;
    made.map_err(|error| PostgresOpenError::Unusable(error.to_string()))
}
