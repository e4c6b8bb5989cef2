//! What a database needs before a flow's first start, as SQL for whoever owns it, and what validate tells of
//! the server.

use super::connect::{connect, place, read_url};
use super::schema::{self, TABLES_SQL};
use super::settings::{PostgresEffectSettings, PostgresOpenError};
use tokio_postgres::{Client, Error};

/// The SQL that prepares one database, and where it belongs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preparation {
    /// Host, port and database; no password.
    pub place: String,
    /// Tables and grants. Repeating it is harmless.
    pub sql: String,
}

/// The SQL that makes a database ready for the role of this URL. Nothing is connected.
///
/// # Errors
/// `Url` for a URL that can't be used.
pub fn preparation(url: &str) -> Result<Preparation, PostgresOpenError> {
    let config = read_url(url)?.0;
    let quoted = |name: &str| format!("\"{}\"", name.replace('"', "\"\""));
    let mut sql = TABLES_SQL.to_owned();
    match config.get_user() {
        Some(role) => {
            let role = quoted(role);
            sql.push_str(&format!(
                "-- The role that Recount connects as writes them; it needs no right on other tables but those that the\n\
                 -- flow's own statements use.\n\
                 GRANT SELECT, INSERT, UPDATE, DELETE ON {} TO {role};\n",
                schema::TABLES.join(", ")
            ));
            if let Some(database) = config.get_dbname() {
                sql.push_str(&format!(
                    "-- Without it batches run statement by statement, and a dry run is refused.\n\
                     GRANT TEMPORARY ON DATABASE {} TO {role};\n",
                    quoted(database)
                ));
            }
        }
        None => sql.push_str(
            "-- The url names no role: grant the one that Recount connects as these tables, and TEMPORARY.\n",
        ),
    }
    Ok(Preparation { place: place(&config), sql })
}

/// Makes the tables, as the role of the URL, which owns them then.
///
/// # Errors
/// As [`PostgresEffect::open`](super::PostgresEffect::open); `Unusable` where the role may not make tables.
pub async fn prepare(settings: &PostgresEffectSettings) -> Result<(), PostgresOpenError> {
    let mut client = connect(settings).await?;
    schema::prepare_tables(&mut client, true).await
}

/// What the server is, and whether Recount's tables are there, in two sentences.
pub(crate) async fn server(client: &Client, settings: &PostgresEffectSettings) -> Result<[String; 2], Error> {
    let sql = "SELECT current_setting('server_version'), current_user::text, \
               current_setting('synchronous_commit'), current_setting('fsync'), \
               current_setting('full_page_writes'), coalesce(current_schema()::text, ''), \
               coalesce(has_schema_privilege(current_schema(), 'CREATE'), false)";
    let row = client.query_one(sql, &[]).await?;
    let text = |column: usize| row.get::<_, String>(column);
    let limit = |limit_ms: u64| match limit_ms {
        0 => "without a limit".to_owned(),
        limit_ms => format!("at most {limit_ms} ms"),
    };
    let server = format!(
        "PostgreSQL {} as role {}: synchronous_commit {}, fsync {}, full_page_writes {}; a statement takes {}, waiting \
         for a lock {}, and the server ends a transaction in which Recount is silent for {} ms",
        text(0).split(' ').next().unwrap_or_default(),
        text(1),
        text(2),
        text(3),
        text(4),
        limit(settings.statement_time_ms_max),
        limit(settings.lock_time_ms_max),
        settings.idle_in_transaction_ms_max,
    );
    let missing = schema::missing(client).await?;
    let may_create: bool = row.get(6);
    let tables = match (missing.is_empty(), may_create) {
        (true, _) => writable(client).await?,
        (false, true) => format!(
            "{} {} made in schema {} at the first start",
            missing.join(", "),
            if missing.len() == 1 { "is" } else { "are" },
            text(5)
        ),
        (false, false) => format!(
            "{} can't be made by this role: have the owner run what `recount validate --prepare` prints",
            missing.join(", ")
        ),
    };
    Ok([server, tables])
}

async fn writable(client: &Client) -> Result<String, Error> {
    let sql = "SELECT name FROM unnest($1::text[]) AS name WHERE NOT (has_table_privilege(name, 'SELECT') AND \
               has_table_privilege(name, 'INSERT') AND has_table_privilege(name, 'UPDATE') AND \
               has_table_privilege(name, 'DELETE'))";
    let names: Vec<&str> = schema::TABLES.to_vec();
    let barred = client.query(sql, &[&names]).await?;
    let barred: Vec<String> = barred.iter().map(|row| row.get(0)).collect();
    Ok(match barred.is_empty() {
        true => "the recount_* tables are there".to_owned(),
        false => format!(
            "this role may not write {}: have the owner run what `recount validate --prepare` prints",
            barred.join(", ")
        ),
    })
}
