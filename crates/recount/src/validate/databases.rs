//! Asks the databases that are there what they say of the statements, without changing anything.

use crate::config::{Config, DatabasePlace, EffectConfig, Fault, FlowConfig, WatchedEffects};
use crate::wiring::audit::http_count;
use crate::wiring::effect::{find_database, postgres_settings, sql_settings};
use recount_adapters::postgres::{self, PostgresEffectSettings, PostgresOpenError};
use recount_adapters::sqlite::{SqliteOpenError, SqliteWitness, WitnessError, examine};
use recount_checks::RuleFault;
use std::ops::ControlFlow;

/// What was found of one flow.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Statements that the database refuses.
    pub faults: Vec<Fault>,
    /// A database that can't be asked.
    pub warnings: Vec<Fault>,
    /// What it says, in one line.
    pub statements: Option<String>,
    /// What a PostgreSQL server is, how it is set, and whether it is prepared.
    pub server: Vec<String>,
}

/// Compiles a flow's statements against its database.
pub(super) fn ask(config: &Config, flow: &FlowConfig) -> Asked {
    let name = &flow.spec.flow;
    let unasked = |message: String| Asked {
        warnings: vec![config.fault_at(name, &RuleFault { rule: "apply[0].database".to_owned(), message })],
        ..Asked::default()
    };
    if let Some(watched) = flow.effect.watched() {
        let fault =
            |message| config.fault_at(name, &RuleFault { rule: "apply[0].effects".to_owned(), message });
        return match ask_watched(config, &watched) {
            Ok(said) => Asked { statements: Some(said), ..Asked::default() },
            Err(WitnessError::Question(message)) => Asked {
                faults: vec![fault(message)],
                statements: Some(format!("{} refuses the query", watched.database)),
                ..Asked::default()
            },
            Err(WitnessError::Away(message)) => {
                unasked(format!("the effects could not be looked at: {message}"))
            }
        };
    }
    let Some((database, _)) = flow.effect.in_database() else { return Asked::default() };
    match postgres_settings(config, flow) {
        Ok(Some(settings)) => return ask_postgres(config, flow, database, &settings),
        Ok(None) => {}
        Err(failure) => return unasked(failure.message),
    }
    let settings = match sql_settings(config, flow) {
        Ok(Some(settings)) => settings,
        Ok(None) => return Asked::default(),
        Err(failure) => return unasked(failure.message),
    };
    match examine(&settings) {
        Ok(_) if matches!(flow.effect, EffectConfig::Handler { .. }) => Asked {
            statements: Some("the handler's own are looked at when it first runs them".to_owned()),
            ..Asked::default()
        },
        Ok(examined) => Asked { statements: Some(said(&settings.path, examined.plain)), ..Asked::default() },
        Err(SqliteOpenError::Refused(faults)) => Asked {
            faults: faults.iter().map(|fault| config.fault_at(name, fault)).collect(),
            statements: Some(format!("{database} refuses statements")),
            ..Asked::default()
        },
        Err(error) => unasked(format!("the statements could not be looked at: {error}")),
    }
}

fn ask_postgres(
    config: &Config,
    flow: &FlowConfig,
    database: &str,
    settings: &PostgresEffectSettings,
) -> Asked {
    let name = &flow.spec.flow;
    let warning =
        |message| config.fault_at(name, &RuleFault { rule: "apply[0].database".to_owned(), message });
    let examined = match crate::commands::runtime() {
        Ok(runtime) => runtime.block_on(postgres::examine(settings)),
        Err(failure) => Err(PostgresOpenError::Unusable(failure.message)),
    };
    match examined {
        Ok((examined, server)) => Asked {
            statements: Some(match &examined.not_in_server {
                None if examined.plain => {
                    format!("{database} has what the statements name; a batch runs inside the server")
                }
                None => format!(
                    "{database} has what the statements name; a batch runs inside the server, a subtransaction an event, \
                     since a trigger or function could leave something behind"
                ),
                Some(why) => {
                    format!("{database} has what the statements name; statement by statement: {why}")
                }
            }),
            server: server.to_vec(),
            warnings: examined.weaknesses.into_iter().map(warning).collect(),
            faults: Vec::new(),
        },
        Err(PostgresOpenError::Refused(faults)) => Asked {
            faults: faults.iter().map(|fault| config.fault_at(name, fault)).collect(),
            statements: Some(format!("{database} refuses statements")),
            ..Asked::default()
        },
        Err(error) => Asked {
            warnings: vec![warning(format!("the statements could not be looked at: {error}"))],
            ..Asked::default()
        },
    }
}

/// Asks for the first effect, in a database that is opened for reading only.
fn ask_watched(config: &Config, watched: &WatchedEffects<'_>) -> Result<String, WitnessError> {
    let away = |error: &dyn std::fmt::Display| WitnessError::Away(error.to_string());
    if let Some(http) = watched.http {
        let asked = http_count(http).map_err(|failure| away(&failure.message))?.count();
        let count = asked.map_err(|error| away(&error))?;
        return Ok(format!("{} gives the number of effects, {count} now", http.url));
    }
    let database = find_database(config, watched.database).map_err(|failure| away(&failure.message))?;
    let DatabasePlace::Sqlite(path) = database.place().map_err(|error| away(&error))? else {
        return Ok(format!("{} is asked by the audit, in a read-only transaction", watched.database));
    };
    let witness = SqliteWitness::new(path, None, database.busy_timeout_ms, database.statement_time_ms_max);
    let mut snapshot = witness.snapshot()?;
    let what = match watched.id {
        Some(id) => {
            snapshot.custom_ids(watched.sql, id, &mut |_| ControlFlow::Break(()))?;
            format!("the ids of effects, {id}")
        }
        None => {
            snapshot.custom_count(watched.sql)?;
            "the number of effects".to_owned()
        }
    };
    Ok(format!("{} gives {what}; it is read only, and only by the audit", watched.database))
}

fn said(path: &std::path::Path, plain: bool) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let form = if plain {
        "a batch is one transaction without savepoints"
    } else {
        "a savepoint an event, since a trigger or sequence could leave something behind"
    };
    format!("{file} has what the statements name; {form}")
}
