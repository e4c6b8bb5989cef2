//! Asks the databases that are there what they say of the statements, without changing anything.

use crate::config::{Config, EffectConfig, Fault, FlowConfig};
use crate::wiring::effect::sql_settings;
use recount_adapters::sqlite::{SqliteOpenError, examine};
use recount_checks::RuleFault;

/// What was found of one flow.
#[derive(Debug, Default)]
pub(super) struct Asked {
    /// Statements that the database refuses.
    pub faults: Vec<Fault>,
    /// A database that can't be asked.
    pub warnings: Vec<Fault>,
    /// What it says, in one line.
    pub statements: Option<String>,
}

/// Compiles a flow's statements against its database.
pub(super) fn ask(config: &Config, flow: &FlowConfig) -> Asked {
    let Some((database, _)) = flow.effect.in_database() else { return Asked::default() };
    let name = &flow.spec.flow;
    let unasked = |message: String| Asked {
        warnings: vec![config.fault_at(name, &RuleFault { rule: "apply[0].database".to_owned(), message })],
        ..Asked::default()
    };
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

fn said(path: &std::path::Path, plain: bool) -> String {
    let file = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy();
    let form = if plain {
        "a batch is one transaction without savepoints"
    } else {
        "a savepoint an event, since a trigger or sequence could leave something behind"
    };
    format!("{file} has what the statements name; {form}")
}
