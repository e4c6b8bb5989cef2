//! Effects as the config names them.

use crate::config::{Config, DatabaseConfig, EffectConfig, FlowConfig};
use crate::exit::Failure;
use async_trait::async_trait;
use recount_adapters::http_effect::{HandlerReason, HttpEffect, HttpEffectSettings};
use recount_adapters::sqlite::{SqliteEffect, SqliteEffectSettings, open_arbiter};
use recount_checks::{Checked, Event};
use recount_engine::{Effect, Handler, HandlerError, OtherwiseVerdict, Transaction};
use recount_model::{ReasonCode, Verdict};
use std::collections::BTreeMap;
use std::sync::Arc;

/// Handlers in Rust, by the names that the config calls them by.
pub type Handlers = BTreeMap<String, Arc<dyn Handler>>;

/// The settings of a flow's effect in SQLite, still without a handler; `None` where it has another kind.
pub fn sql_settings(config: &Config, flow: &FlowConfig) -> Result<Option<SqliteEffectSettings>, Failure> {
    let Some((database, effects)) = flow.effect.in_database() else { return Ok(None) };
    let database = find_database(config, database)?;
    let path = database.sqlite_path().map_err(Failure::usage)?;
    let mut settings = SqliteEffectSettings {
        effects: effects.clone(),
        busy_timeout_ms: database.busy_timeout_ms,
        statement_time_ms_max: database.statement_time_ms_max,
        ..SqliteEffectSettings::new(path, flow.spec.flow.clone())
    };
    match &flow.effect {
        EffectConfig::Sql { routes, .. } => settings.routes.clone_from(routes),
        EffectConfig::Handler { reasons, .. } => settings.handler_reasons.clone_from(reasons),
        EffectConfig::Http { .. } | EffectConfig::Watched { .. } | EffectConfig::None => {}
    }
    Ok(Some(settings))
}

/// The failure of a flow whose handler this program doesn't have.
pub fn missing_handler(flow: &FlowConfig, handlers: &Handlers) -> Option<Failure> {
    let EffectConfig::Handler { name, .. } = &flow.effect else { return None };
    if handlers.contains_key(name) {
        return None;
    }
    Some(Failure::usage(no_handler(flow, name)))
}

fn no_handler(flow: &FlowConfig, name: &str) -> String {
    format!(
        "flow {}: this program has no handler {name}; run the flow from your own program: see the crate recount, Flow",
        flow.spec.flow
    )
}

/// Stands in where only an operator's verdicts are decided: whatever it is asked, it blames no event.
struct NotGiven(String);

#[async_trait]
impl Handler for NotGiven {
    async fn handle(&self, _: &Checked<Event>, _: &mut dyn Transaction) -> Result<Verdict, HandlerError> {
        Err(HandlerError { message: self.0.clone(), data_fault: false })
    }
}

/// A database of the config.
pub fn find_database<'c>(config: &'c Config, name: &str) -> Result<&'c DatabaseConfig, Failure> {
    config
        .databases
        .get(name)
        .ok_or_else(|| Failure::usage(format!("{} has no [database.{name}]", config.path.display())))
}

/// Opens a flow's effect. A handler that isn't among `handlers` refuses every event, and blames none.
pub fn open(config: &Config, flow: &FlowConfig, handlers: &Handlers) -> Result<Arc<dyn Effect>, Failure> {
    let arbiter = || open_arbiter(&config.ledger.path, flow.spec.flow.clone(), true);
    match &flow.effect {
        EffectConfig::Sql { .. } | EffectConfig::Handler { .. } => {
            let mut settings = sql_settings(config, flow)?.expect("the effect is in a database");
            if let EffectConfig::Handler { name, .. } = &flow.effect {
                let given = handlers.get(name).cloned();
                settings.handler = Some(given.unwrap_or_else(|| Arc::new(NotGiven(no_handler(flow, name)))));
            }
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
            let declared = |(code, verdict): (&ReasonCode, &OtherwiseVerdict)| {
                let info = flow.reasons.iter().find(|reason| reason.code == *code);
                let because = info.map(|reason| reason.because.clone()).unwrap_or_default();
                (code.clone(), HandlerReason { verdict: *verdict, because })
            };
            settings.reasons = reasons.iter().map(declared).collect();
            Ok(Arc::new(HttpEffect::open(settings).map_err(Failure::usage)?))
        }
        EffectConfig::Watched { .. } | EffectConfig::None => {
            Ok(Arc::new(arbiter().map_err(Failure::unreachable)?))
        }
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
