//! What the database says that is to hold the ledger.

use crate::config::{Config, DatabasePlace, Fault};
use recount_adapters::postgres::PostgresOpenError;
use recount_adapters::postgres_ledger::examine_ledger;

/// What was found of a ledger in a database; nothing where the ledger is a folder.
#[derive(Debug, Default)]
pub(super) struct AskedLedger {
    /// In sentences.
    pub said: Vec<String>,
    /// What lowers the promise, or a server that can't be asked.
    pub warnings: Vec<Fault>,
}

/// Asks the server, without changing anything.
pub(super) fn ask(config: &Config) -> AskedLedger {
    let Some(shared) = &config.ledger.database else { return AskedLedger::default() };
    let mut said = vec![format!(
        "in {}, for several processes; this one's replica is in {}",
        shared.name,
        config.ledger.path.display()
    )];
    let url = match shared.database.place() {
        Ok(DatabasePlace::Postgres(url)) => Ok(url),
        Ok(DatabasePlace::Sqlite(_)) => Err("it is a SQLite file, and must be PostgreSQL".to_owned()),
        Err(error) => Err(error.to_string()),
    };
    let examined = url.and_then(|url| match crate::commands::runtime() {
        Ok(runtime) => {
            runtime.block_on(examine_ledger(&url)).map_err(|error: PostgresOpenError| error.to_string())
        }
        Err(failure) => Err(failure.message),
    });
    let warning = |message: String| config.warning_of_ledger(message);
    match examined {
        Ok(examined) => {
            said.extend(examined.said);
            AskedLedger { said, warnings: examined.weaknesses.into_iter().map(warning).collect() }
        }
        Err(why) => AskedLedger {
            said,
            warnings: vec![warning(format!("the ledger's database could not be asked: {why}"))],
        },
    }
}
