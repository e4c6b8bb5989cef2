//! A flow whose consumer is somebody else's: `observe` and `report`. Recount changes nothing in the
//! consumer's database; an `apply` says where its effects are seen.

use super::apply::{Applies, check_address, database, declared_reasons, effect_rows};
use super::flow::Places;
use super::raw::RawTable;
use super::resolve::Context;
use super::{EffectConfig, FlowMode, HttpCount, ObservedGroup, ReasonInfo};
use recount_engine::EffectRows;

/// For how long after Recount has seen an event its effect or report may be missing, unless said otherwise.
const WITHIN_MS: u64 = 30_000;

/// What an `apply` names only where Recount owns the loop.
const OF_RUN: [&str; 9] =
    ["when", "sql", "with", "rows", "http", "handler", "deadline", "otherwise", "sqlstates"];

/// What the flow's table names only where Recount owns the loop.
const LOOP_OF_RUN: [(&str, &str); 3] = [
    ("retry", "there is nothing to try again where Recount applies nothing"),
    ("hold", "no key is held where nothing is tried again"),
    ("breaker", "Recount can't stop a consumer that it doesn't run"),
];

const APPLY_HELP: &str =
    "database = \"shop\" and effects = { sql = \"SELECT order_id FROM movement\", id = \"order_id\" }";

/// The consumer's own group, which an observed flow looks at, and never writes to.
pub(super) fn observed_group(
    source: &RawTable,
    mode: FlowMode,
    context: &mut Context<'_, '_>,
) -> Option<ObservedGroup> {
    if mode == FlowMode::Report && source.has("group") {
        let message =
            "`group` is for \"run\" and \"observe\": a consumer that reports says in its posts how far it is";
        let help = "leave `group` out, and post \"committed\"".to_owned();
        context.sink.fault(&source.place("group"), message, help);
    }
    let is_looked_at = mode == FlowMode::Observe && source.has("group");
    if source.has("group_window") && !is_looked_at {
        let message =
            "`group_window` says how far back the status of an observed group looks, and none is observed";
        let help = "leave it out, or name the consumer's `group` with mode = \"observe\"".to_owned();
        context.sink.fault(&source.place("group_window"), message, help);
    }
    let group = source.text("group").filter(|_| is_looked_at)?;
    Some(ObservedGroup { group, window_ms: source.quantity("group_window") })
}

/// Resolves the `apply` of a flow that Recount doesn't run.
pub(super) fn resolve(
    mode: FlowMode,
    table: &RawTable,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
    places: &mut Places,
) -> Applies {
    for (key, why) in LOOP_OF_RUN.into_iter().filter(|(key, _)| table.has(key)) {
        let message = format!("`{key}` stands only with mode = \"run\": {why}");
        context.sink.fault(&table.place(key), message, format!("leave `{key}` out"));
    }
    let tables = table.tables("apply");
    for (index, apply) in tables.iter().enumerate() {
        let rule = format!("apply[{index}]");
        for key in ["database", "effects", "within"].into_iter().filter(|key| apply.has(key)) {
            places.insert(format!("{rule}.{key}"), apply.place(key));
        }
        places.insert(rule, apply.at.clone());
    }
    let nothing =
        EffectConfig::Watched { database: None, effects: EffectRows::None, http: None, within_ms: WITHIN_MS };
    let effect = match tables {
        [] => {
            if mode == FlowMode::Observe && !table.has("apply") {
                let message = "nothing says where the effects of the observed consumer are seen";
                let help = format!("write: [{}.apply] with {APPLY_HELP}", table.at.key);
                context.sink.fault(&table.at, message, help);
            }
            nothing
        }
        [apply, others @ ..] => {
            for other in others {
                let message =
                    "a consumer that Recount doesn't run has one `apply`: its effects are counted together";
                let help = "write one query for all of them (UNION ALL), or make two flows".to_owned();
                context.sink.fault(&other.at, message, help);
            }
            watched(mode, apply, context, reasons)
        }
    };
    Applies { routes: Vec::new(), effect, may_retry: false }
}

fn watched(
    mode: FlowMode,
    apply: &RawTable,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
) -> EffectConfig {
    for key in OF_RUN.into_iter().filter(|key| apply.has(key)) {
        let message = format!("`{key}` stands only with mode = \"run\": here Recount applies nothing itself");
        context.sink.fault(&apply.place(key), message, format!("leave `{key}` out; write {APPLY_HELP}"));
    }
    if mode == FlowMode::Report {
        declared_reasons(apply, context, reasons);
    } else if apply.has("reason") {
        let message = "an observed consumer gives no reasons: what it ought to leave out, a check says";
        let help = "write a check, or let the consumer report: mode = \"report\"".to_owned();
        context.sink.fault(&apply.place("reason"), message, help);
    }
    let over_http = apply.table("effects").filter(|effects| effects.has("http"));
    if apply.has("token") && over_http.is_none() {
        let message = "`token` is for `effects` that are counted over `http`, and these are not";
        context.sink.fault(&apply.place("token"), message, "leave `token` out".to_owned());
    }
    let within_ms = apply.quantity_if("within").unwrap_or(WITHIN_MS);
    let says_nothing = !apply.has("database") && !apply.has("effects");
    if mode == FlowMode::Report && says_nothing {
        return EffectConfig::Watched { database: None, effects: EffectRows::None, http: None, within_ms };
    }
    if let Some(effects) = over_http {
        let http = Some(http_count(apply, effects, context));
        return EffectConfig::Watched { database: None, effects: EffectRows::None, http, within_ms };
    }
    database(apply, context);
    if apply.table("effects").is_none() {
        let message = if apply.has("effects") {
            "Recount writes no effect here, so it can't count rows of its own"
        } else {
            "this `apply` doesn't say where the consumer's `effects` are seen"
        };
        context.sink.fault(&apply.place("effects"), message, format!("write: {APPLY_HELP}"));
    }
    EffectConfig::Watched {
        database: apply.text("database"),
        effects: effect_rows(apply, context),
        http: None,
        within_ms,
    }
}

/// Somebody tells the number of effects over HTTP.
fn http_count(apply: &RawTable, effects: &RawTable, context: &mut Context<'_, '_>) -> HttpCount {
    let url = effects.text("http").unwrap_or_default();
    let what = ("a count of effects", "http://localhost:8000/movements/count");
    if effects.text("http").is_some() {
        check_address(&url, &effects.place("http"), what, context);
    }
    for key in ["sql", "id"].into_iter().filter(|key| effects.has(key)) {
        let message = format!("`{key}` is asked of a database, and these effects are counted over `http`");
        context.sink.fault(&effects.place(key), message, format!("leave `{key}` out, or `http`"));
    }
    if apply.has("database") {
        let message = "no `database` is asked where effects are counted over `http`";
        context.sink.fault(&apply.place("database"), message, "leave `database` out".to_owned());
    }
    let pointer = effects.text("count").unwrap_or_default();
    if !pointer.is_empty() && !pointer.starts_with('/') {
        let message = format!("{pointer:?} is not a JSON Pointer");
        context.sink.fault(&effects.place("count"), message, "write: count = \"/total\"".to_owned());
    }
    HttpCount { url, pointer, token: apply.secret("token", &context.folder) }
}
