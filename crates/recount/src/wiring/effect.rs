//! Effects as the config names them.

use crate::config::{Config, DatabaseConfig, EffectConfig, FlowConfig};
use crate::exit::Failure;
use recount_adapters::http_effect::{HttpEffect, HttpEffectSettings};
use recount_adapters::sqlite::{SqliteEffect, SqliteEffectSettings, open_arbiter};
use recount_engine::Effect;
use recount_model::ReasonCode;
use std::sync::Arc;

/// The settings of a flow's SQL effect; `None` where it has another kind.
pub fn sql_settings(config: &Config, flow: &FlowConfig) -> Result<Option<SqliteEffectSettings>, Failure> {
    let EffectConfig::Sql { database, routes, effects } = &flow.effect else { return Ok(None) };
    let database = find_database(config, database)?;
    let path = database.sqlite_path().map_err(Failure::usage)?;
    Ok(Some(SqliteEffectSettings {
        routes: routes.clone(),
        effects: effects.clone(),
        busy_timeout_ms: database.busy_timeout_ms,
        statement_time_ms_max: database.statement_time_ms_max,
        ..SqliteEffectSettings::new(path, flow.spec.flow.clone())
    }))
}

/// A database of the config.
pub fn find_database<'c>(config: &'c Config, name: &str) -> Result<&'c DatabaseConfig, Failure> {
    config
        .databases
        .get(name)
        .ok_or_else(|| Failure::usage(format!("{} has no [database.{name}]", config.path.display())))
}

/// Opens a flow's effect.
pub fn open(config: &Config, flow: &FlowConfig) -> Result<Arc<dyn Effect>, Failure> {
    let arbiter = || open_arbiter(&config.ledger.path, flow.spec.flow.clone(), true);
    match &flow.effect {
        EffectConfig::Sql { .. } => {
            let settings = sql_settings(config, flow)?.expect("the effect is SQL");
            let effect = SqliteEffect::open(settings).map_err(|error| refused(config, flow, error))?;
            for warning in effect.warnings() {
                tracing::warn!(flow = %flow.spec.flow, "{}: {}", warning.rule, warning.message);
            }
            Ok(Arc::new(effect))
        }
        EffectConfig::Http { routes, reasons } => {
            let [route] = routes.as_slice() else {
                return Err(Failure::usage(format!(
                    "flow {}: one handler a flow for now; let the handler at one url tell the types apart by \"type\"",
                    flow.spec.flow
                )));
            };
            let mut settings =
                HttpEffectSettings::new(&route.url, flow.spec.flow.clone(), &config.ledger.path);
            settings.deadline_ms = route.deadline_ms;
            if let Some(token) = &route.token {
                let token = token.resolve().map_err(Failure::usage)?;
                settings.headers.push(("authorization".to_owned(), format!("Bearer {}", token.expose())));
            }
            let because = |code: &ReasonCode| {
                let declared = flow.reasons.iter().find(|reason| reason.code == *code);
                (code.clone(), declared.map(|reason| reason.because.clone()).unwrap_or_default())
            };
            settings.reasons = reasons.keys().map(because).collect();
            Ok(Arc::new(HttpEffect::open(settings).map_err(Failure::usage)?))
        }
        EffectConfig::None => Ok(Arc::new(arbiter().map_err(Failure::unreachable)?)),
    }
}

/// Statements that the database refuses are faults of the config, with their lines.
fn refused(config: &Config, flow: &FlowConfig, error: recount_adapters::sqlite::SqliteOpenError) -> Failure {
    use recount_adapters::sqlite::SqliteOpenError;
    match error {
        SqliteOpenError::Refused(faults) => {
            let rendered = faults.iter().map(|fault| config.fault_at(&flow.spec.flow, fault).render("error"));
            Failure::usage(rendered.collect::<Vec<_>>().join("\n"))
        }
        SqliteOpenError::Unusable(why) => Failure::unreachable(why),
        error => Failure::usage(error),
    }
}
