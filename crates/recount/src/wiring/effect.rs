//! Effects as the config names them.

use crate::config::{Config, DatabaseConfig, DatabasePlace, EffectConfig, FlowConfig};
use crate::exit::Failure;
use async_trait::async_trait;
use recount_adapters::http_effect::{HandlerReason, HttpEffect, HttpEffectSettings};
use recount_adapters::postgres::{PostgresEffect, PostgresEffectSettings, PostgresOpenError};
use recount_adapters::sqlite::{SqliteEffect, SqliteEffectSettings, open_arbiter};
use recount_checks::{Checked, Event, RuleFault};
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
    let DatabasePlace::Sqlite(path) = database.place().map_err(Failure::usage)? else { return Ok(None) };
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

/// The settings of a flow's effect in PostgreSQL; `None` where it has another kind.
pub fn postgres_settings(
    config: &Config,
    flow: &FlowConfig,
) -> Result<Option<PostgresEffectSettings>, Failure> {
    let Some((name, effects)) = flow.effect.in_database() else { return Ok(None) };
    let database = find_database(config, name)?;
    let DatabasePlace::Postgres(url) = database.place().map_err(Failure::usage)? else { return Ok(None) };
    let EffectConfig::Sql { routes, .. } = &flow.effect else {
        return Err(Failure::usage(format!(
            "flow {}: a handler in Rust has its transaction in SQLite for now, and [database.{name}] is PostgreSQL",
            flow.spec.flow
        )));
    };
    Ok(Some(PostgresEffectSettings {
        routes: routes.clone(),
        effects: effects.clone(),
        lock_time_ms_max: database.busy_timeout_ms,
        statement_time_ms_max: database.statement_time_ms_max,
        rehearsal: database.rehearsal.clone(),
        ..PostgresEffectSettings::new(url, flow.spec.flow.clone())
    }))
}

async fn open_postgres(
    config: &Config,
    flow: &FlowConfig,
    settings: PostgresEffectSettings,
) -> Result<Arc<dyn Effect>, Failure> {
    let effect = PostgresEffect::open(settings).await.map_err(|error| match error {
        PostgresOpenError::Refused(faults) => refused_statements(config, flow, &faults),
        PostgresOpenError::Url(why) => Failure::usage(why),
        error => Failure::unreachable(error),
    })?;
    let examined = effect.examined();
    for weakness in &examined.weaknesses {
        tracing::warn!(flow = %flow.spec.flow, "{weakness}");
    }
    if let Some(why) = &examined.not_in_server {
        tracing::info!(flow = %flow.spec.flow, "batches run statement by statement, which is slower: {why}");
    }
    Ok(Arc::new(effect))
}

/// Opens a flow's effect. A handler that isn't among `handlers` refuses every event, and blames none.
pub async fn open(
    config: &Config,
    flow: &FlowConfig,
    handlers: &Handlers,
) -> Result<Arc<dyn Effect>, Failure> {
    if let Some(settings) = postgres_settings(config, flow)? {
        return open_postgres(config, flow, settings).await;
    }
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
        SqliteOpenError::Refused(faults) => refused_statements(config, flow, &faults),
        SqliteOpenError::Unusable(why) => Failure::unreachable(why),
        error => Failure::usage(error),
    }
}

fn refused_statements(config: &Config, flow: &FlowConfig, faults: &[RuleFault]) -> Failure {
    let rendered = faults.iter().map(|fault| config.fault_at(&flow.spec.flow, fault).render("error"));
    Failure::usage(rendered.collect::<Vec<_>>().join("\n"))
}
