//! `[database.NAME]`: a SQLite file or a PostgreSQL server.

use super::fault::Sink;
use super::raw::RawTable;
use super::resolve::Context;
use super::secret::{SecretError, expand_env};
use super::spec::DATABASES_NOW;
use recount_adapters::postgres::PostgresRehearsal;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// `[database.NAME]`: a SQLite file or a PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseConfig {
    /// The URL as written; `${NAME}` stands in it unresolved.
    pub url: String,
    /// How long a statement waits for another's lock.
    pub busy_timeout_ms: u64,
    /// A statement that runs longer is interrupted.
    pub statement_time_ms_max: u64,
    /// The transaction of a dry run, which is never committed. No config has one: a dry run gives it.
    pub rehearsal: Option<PostgresRehearsal>,
    folder: PathBuf,
}

/// Where a database is, with `${NAME}` resolved.
#[derive(Clone, PartialEq, Eq)]
pub enum DatabasePlace {
    /// A SQLite file.
    Sqlite(PathBuf),
    /// A PostgreSQL server's URL; it may hold a password, and is never shown.
    Postgres(String),
}

/// Why it can't be told where a database is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DatabaseUrlError {
    /// A variable isn't set.
    #[error(transparent)]
    Secret(#[from] SecretError),
    /// It is of another kind, which only shows once variables are resolved.
    #[error("the database's url is neither sqlite:PATH nor postgres://…; {DATABASES_NOW}")]
    Unknown,
}

impl DatabaseConfig {
    /// Where it is, with `${NAME}` resolved now.
    ///
    /// # Errors
    /// Where a variable isn't set, or what it holds is of another kind.
    pub fn place(&self) -> Result<DatabasePlace, DatabaseUrlError> {
        let url = expand_env(&self.url)?;
        if is_postgres(&url) {
            return Ok(DatabasePlace::Postgres(url));
        }
        let path = sqlite_path(&url).ok_or(DatabaseUrlError::Unknown)?;
        Ok(DatabasePlace::Sqlite(self.folder.join(path)))
    }
}

/// All databases of a config.
pub(super) fn resolve(raw: &RawTable, context: &mut Context<'_, '_>) -> BTreeMap<String, DatabaseConfig> {
    let mut databases = BTreeMap::new();
    for (name, table) in raw.named("database") {
        let url = table.text("url").unwrap_or_default();
        if table.has("url") && !url.is_empty() {
            check_url(table, &url, context.sink);
        }
        let database = DatabaseConfig {
            url,
            busy_timeout_ms: table.quantity("busy_timeout"),
            statement_time_ms_max: table.quantity("statement_max"),
            rehearsal: None,
            folder: context.folder.clone(),
        };
        databases.insert(name.clone(), database);
    }
    databases
}

fn check_url(table: &RawTable, url: &str, sink: &mut Sink<'_>) {
    let at = table.place("url");
    if holds_password(url) {
        sink.mask(at.span.clone());
        let help = "write the password as ${NAME}, and set that variable".to_owned();
        sink.fault(
            &at,
            "the url holds a password, and this file is kept in the ledger as it is written",
            help,
        );
    }
    let resolved = if url.starts_with("${") {
        match expand_env(url) {
            Ok(resolved) => resolved,
            Err(error) => {
                sink.warn(&at, format!("{error}; `run` will refuse to start without it"), None);
                return;
            }
        }
    } else {
        url.to_owned()
    };
    let scheme = resolved.split(':').next().unwrap_or_default().to_owned();
    match scheme.as_str() {
        "sqlite" if sqlite_path(&resolved).is_some() => {}
        "sqlite" => sink.fault(
            &at,
            "a database in memory would forget what was applied",
            "name a file: url = \"sqlite:shop.db\"".to_owned(),
        ),
        "postgres" | "postgresql" if is_postgres(&resolved) => {}
        _ => sink.fault(
            &at,
            format!("this is not a database that Recount knows; {DATABASES_NOW}"),
            "write: url = \"sqlite:shop.db\", or \"postgres://user:${PGPASSWORD}@host:5432/name\"".to_owned(),
        ),
    }
}

/// Whether a password stands in the URL as it is written: before the host (where it may hold a slash that
/// nobody escaped), or as libpq's parameter `password`.
fn holds_password(url: &str) -> bool {
    let Some((_, rest)) = url.split_once("://") else { return false };
    let (place, query) = rest.split_once('?').unwrap_or((rest, ""));
    let is_written = |password: &str| !password.is_empty() && !password.starts_with("${");
    let of_user = place.rsplit_once('@').and_then(|(user, _)| user.split_once(':'));
    let of_query = |pair: &str| pair.strip_prefix("password=").is_some_and(is_written);
    of_user.is_some_and(|(_, password)| is_written(password)) || query.split('&').any(of_query)
}

fn is_postgres(url: &str) -> bool {
    url.starts_with("postgres://") || url.starts_with("postgresql://")
}

/// The path in `sqlite:PATH` or `sqlite://PATH`; `None` for anything else, memory included.
fn sqlite_path(url: &str) -> Option<&str> {
    let path = url.strip_prefix("sqlite:")?;
    let path = path.strip_prefix("//").unwrap_or(path);
    (!path.is_empty() && !path.starts_with(':') && !path.contains('?')).then_some(path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_is_seen_wherever_libpq_takes_it_from() {
        for (url, holds) in [
            ("postgres://me:hunter2@db/shop", true),
            ("postgres://me:hun/ter2@db/shop", true),
            ("postgres://${USER}:hunter2@db/shop", true),
            ("postgres://db/shop?user=me&password=hunter2", true),
            ("postgres://me:${PGPASSWORD}@db/shop", false),
            ("postgres://db/shop?password=${PGPASSWORD}", false),
            ("postgres://me@db:5432/shop?sslmode=require", false),
            ("sqlite:shop.db", false),
        ] {
            assert_eq!(holds_password(url), holds, "{url}");
        }
    }
}
