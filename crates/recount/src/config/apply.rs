//! What a flow does with events that passed: SQL, or a handler over HTTP or in Rust.

use super::fault::Place;
use super::flow::{Places, declare};
use super::raw::RawTable;
use super::resolve::Context;
use super::sql_text::{SqlText, sqlstate_fault};
use super::{EffectConfig, HttpRoute, ReasonInfo, ReasonOrigin, ReasonVerdict};
use recount_checks::RouteRule;
use recount_engine::{EffectRows, OtherwiseRule, OtherwiseVerdict, SqlRoute, SqlStatement};
use std::collections::{BTreeMap, BTreeSet};

/// What all `apply` of a flow come to.
#[derive(Debug)]
pub(super) struct Applies {
    /// For the checks.
    pub routes: Vec<RouteRule>,
    /// For the effect.
    pub effect: EffectConfig,
    /// Whether anything may ask for another attempt.
    pub may_retry: bool,
}

impl Applies {
    pub fn is_sql(&self) -> bool {
        matches!(self.effect, EffectConfig::Sql { .. })
    }

    pub fn is_http(&self) -> bool {
        matches!(self.effect, EffectConfig::Http { .. })
    }

    pub fn is_rust(&self) -> bool {
        matches!(self.effect, EffectConfig::Handler { .. })
    }
}

/// One `apply`, of any kind.
enum One {
    Sql(SqlRoute),
    Http(HttpRoute),
    /// A handler in Rust, by its name.
    Rust(String),
}

/// The keys of which each `apply` has exactly one; each is a kind of its own.
const KINDS: [&str; 3] = ["sql", "http", "handler"];
/// What stands with `sql` alone.
const OF_SQL: &str = "`sql`";
/// What stands with `http` alone.
const OF_HTTP: &str = "`http`";
/// What stands where a database is.
const OF_DATABASE: &str = "`sql` or `handler`";
/// What stands where a handler is.
const OF_HANDLER: &str = "`http` or `handler`";

/// Resolves all `apply` of a flow.
pub(super) fn resolve(
    table: &RawTable,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
    places: &mut Places,
) -> Applies {
    let tables = table.tables("apply");
    if tables.is_empty() {
        let message =
            "the flow has no `apply`: what passes its checks counts as applied, and nothing is done";
        context.sink.warn(&table.at, message, format!("write: [{}.apply]", table.at.key));
    }
    let mut routes = Vec::new();
    let mut ones = Vec::new();
    for (index, apply) in tables.iter().enumerate() {
        route_places(index, apply, places);
        if index + 1 < tables.len() && !apply.has("when") {
            let help = "write: when = \"meta.type == 'order.placed'\"".to_owned();
            let message = "this `apply` takes every event, so those after it are never reached";
            context.sink.fault(&apply.at, message, help);
        }
        let with = apply.pairs("with");
        routes.push(RouteRule {
            when: apply.text("when"),
            with: with.iter().map(|(name, text)| (name.clone(), text.value.clone())).collect(),
        });
        ones.extend(one(apply, context, reasons));
    }
    let may_retry = ones.iter().any(|one| matches!(one, One::Http(_) | One::Rust(_)))
        || reasons.iter().any(|reason| reason.verdict == ReasonVerdict::Retry);
    Applies { routes, effect: together(tables, ones, reasons, context), may_retry }
}

fn route_places(index: usize, apply: &RawTable, places: &mut Places) {
    let rule = format!("apply[{index}]");
    for key in ["when", "sql", "rows", "effects", "http", "handler", "database", "with"] {
        if apply.has(key) {
            places.insert(format!("{rule}.{key}"), apply.place(key));
        }
    }
    for (index, sql) in apply.texts("sql").iter().enumerate() {
        places.insert(format!("{rule}.sql[{index}]"), sql.at.clone());
    }
    for (name, expression) in apply.pairs("with") {
        places.insert(format!("{rule}.with.{name}"), expression.at.clone());
    }
    for (index, otherwise) in apply.tables("otherwise").iter().enumerate() {
        places.insert(format!("{rule}.otherwise[{index}].when"), otherwise.place("when"));
        places.insert(format!("{rule}.otherwise[{index}]"), otherwise.at.clone());
    }
    places.insert(rule, apply.at.clone());
}

fn one(apply: &RawTable, context: &mut Context<'_, '_>, reasons: &mut Vec<ReasonInfo>) -> Option<One> {
    let named: Vec<&str> = KINDS.into_iter().filter(|kind| apply.has(kind)).collect();
    if let [_, second, ..] = named.as_slice() {
        let message = "an `apply` is either SQL or a handler, over HTTP or in Rust, and this names several";
        context.sink.fault(&apply.place(second), message, "leave all but one out".to_owned());
    }
    let Some(kind) = named.first() else {
        let message = "this `apply` names neither `sql` nor `http` nor `handler`";
        let help = "write: database, sql, with and rows, or: http = \"http://localhost:8000/reserve\", or, for a \
                    program of your own: handler = \"reserve\" and database";
        context.sink.fault(&apply.at, message, help.to_owned());
        return None;
    };
    let foreign: &[(&str, &str)] = match *kind {
        "sql" => &[("deadline", OF_HTTP), ("token", OF_HTTP), ("reason", OF_HANDLER)],
        "http" => &[
            ("database", OF_DATABASE),
            ("with", OF_DATABASE),
            ("rows", OF_SQL),
            ("effects", OF_DATABASE),
            ("otherwise", OF_SQL),
            ("sqlstates", OF_SQL),
        ],
        _ => &[
            ("deadline", OF_HTTP),
            ("token", OF_HTTP),
            ("rows", OF_SQL),
            ("otherwise", OF_SQL),
            ("sqlstates", OF_SQL),
        ],
    };
    let with_another = |name: &&(&str, &str)| apply.has(name.0) && named.len() == 1;
    for (name, what) in foreign.iter().filter(with_another) {
        let message = format!("`{name}` stands only with {what}");
        context.sink.fault(&apply.place(name), message, format!("leave `{name}` out"));
    }
    if apply.has("within") {
        let message =
            "`within` stands only with mode = \"observe\" or \"report\": here the effect is Recount's own";
        context.sink.fault(&apply.place("within"), message, "leave `within` out".to_owned());
    }
    Some(match *kind {
        "sql" => One::Sql(sql_route(apply, context, reasons)),
        "http" => One::Http(http_route(apply, context, reasons)),
        _ => One::Rust(rust_handler(apply, context, reasons)),
    })
}

/// A handler in Rust: a name that the program which runs the flow gives it, and the reasons that it may give.
fn rust_handler(apply: &RawTable, context: &mut Context<'_, '_>, reasons: &mut Vec<ReasonInfo>) -> String {
    database(apply, context);
    declared_reasons(apply, context, reasons);
    apply.text("handler").unwrap_or_default()
}

pub(super) fn declared_reasons(
    apply: &RawTable,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
) {
    for table in apply.tables("reason") {
        declared(table, ReasonOrigin::Handler, context, reasons);
    }
}

fn sql_route(apply: &RawTable, context: &mut Context<'_, '_>, reasons: &mut Vec<ReasonInfo>) -> SqlRoute {
    database(apply, context);
    let params: Vec<String> = apply.pairs("with").iter().map(|(name, _)| name.clone()).collect();
    let mut used = BTreeSet::new();
    let texts = apply.texts("sql");
    for text in texts {
        let sql = SqlText::read(&text.value);
        if let Some(message) = sql.statement_fault() {
            context.sink.fault(&text.at, message, None);
        }
        check_params(&sql, &text.at, &params, context);
        used.extend(sql.params);
    }
    let rows = apply.rows("rows");
    if !apply.has("rows") {
        let help = "write: rows = 1 (or a range, \"1..3\"; \"any\" where every number is right)".to_owned();
        context.sink.fault(
            &apply.at,
            "this `apply` doesn't say how many `rows` each statement changes",
            help,
        );
    } else if rows.len() > 1 && rows.len() != texts.len() {
        let message = format!("`rows` lists {} numbers for {} statements", rows.len(), texts.len());
        context.sink.fault(
            &apply.place("rows"),
            message,
            "write one for each statement, in order".to_owned(),
        );
    }
    let range = |index: usize| rows.get(index).or(rows.first()).copied();
    let statements = texts
        .iter()
        .enumerate()
        .filter_map(|(index, text)| Some(SqlStatement { sql: text.value.clone(), rows: range(index)? }));
    let statements = statements.collect();
    let otherwise = otherwises(apply, &params, &mut used, context, reasons);
    for (name, expression) in apply.pairs("with") {
        if !used.contains(name) {
            let message = format!("no statement uses :{name}");
            context.sink.warn(&expression.at, message, format!("leave it out, or write :{name} in `sql`"));
        }
    }
    let sqlstates = states(apply, context);
    refuse_states_of_sqlite(apply, context);
    SqlRoute { statements, params, otherwise, sqlstates }
}

/// SQLSTATEs that are declared as the event's fault. Only PostgreSQL has them.
fn states(table: &RawTable, context: &mut Context<'_, '_>) -> Vec<String> {
    let mut states: Vec<String> = Vec::new();
    for state in table.texts("sqlstates") {
        if let Some(message) = sqlstate_fault(&state.value) {
            context.sink.fault(&state.at, message, "write: sqlstates = [\"P0002\"]".to_owned());
        } else if !states.contains(&state.value) {
            states.push(state.value.clone());
        }
    }
    states
}

fn refuse_states_of_sqlite(apply: &RawTable, context: &mut Context<'_, '_>) {
    let is_sqlite = apply.text("database").is_some_and(|name| context.sqlite.contains(&name));
    let tables = std::iter::once(apply).chain(apply.tables("otherwise"));
    for table in tables.filter(|table| is_sqlite && table.has("sqlstates")) {
        let message = "`sqlstates` stands only with a database in PostgreSQL: SQLite has none, and its constraint, mismatch, \
                       too-big, overflow and JSON errors are the event's fault as they are";
        context.sink.fault(&table.place("sqlstates"), message, "leave `sqlstates` out".to_owned());
    }
}

pub(super) fn database(apply: &RawTable, context: &mut Context<'_, '_>) {
    let at = apply.place("database");
    match apply.text("database") {
        Some(name) if context.databases.contains(&name) => {}
        Some(name) => {
            let known = context.databases.clone();
            context.unknown_name(
                &at,
                "database",
                &name,
                &known,
                "[database.NAME] with url = \"sqlite:PATH\"",
            );
        }
        None if apply.has("database") => {}
        None => {
            let message = "this `apply` doesn't say in which `database`";
            context.sink.fault(&at, message, "write: database = \"shop\", and [database.shop]".to_owned());
        }
    }
}

fn check_params(sql: &SqlText, at: &Place, params: &[String], context: &mut Context<'_, '_>) {
    for name in sql.params.iter().filter(|name| !params.contains(name)) {
        let message = format!("the statement names :{name}, and `with` doesn't say what that is");
        let help = format!("write: with = {{ {name} = \"event.{name}\" }}");
        context.sink.fault(at, message, help);
    }
}

fn otherwises(
    apply: &RawTable,
    params: &[String],
    used: &mut BTreeSet<String>,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
) -> Vec<OtherwiseRule> {
    let tables = apply.tables("otherwise");
    let mut rules = Vec::new();
    for (index, table) in tables.iter().enumerate() {
        let is_of_rows = !table.has("sqlstates");
        let is_last_of_rows = tables[index + 1..].iter().all(|later| later.has("sqlstates"));
        if is_of_rows && !is_last_of_rows && !table.has("when") {
            let message = "this `otherwise` always holds, so those after it are never reached";
            context.sink.fault(&table.at, message, "write a `when`, or put it last".to_owned());
        }
        let when = table.text("when");
        let sqlstates = states(table, context);
        if when.is_some() && !is_of_rows {
            let message =
                "an `otherwise` is asked of a row count, with `when`, or of an error, with `sqlstates`";
            context.sink.fault(&table.place("sqlstates"), message, "make two of it".to_owned());
        }
        if let Some(query) = &when {
            let sql = SqlText::read(query);
            let at = table.place("when");
            if let Some(message) = sql.query_fault() {
                let help =
                    "write: when = \"SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)\"".to_owned();
                context.sink.fault(&at, message, help);
            }
            check_params(&sql, &at, params, context);
            used.extend(sql.params);
        }
        let origin = match sqlstates.is_empty() {
            true => ReasonOrigin::Otherwise(when.clone()),
            false => ReasonOrigin::Otherwise(Some(format!("SQLSTATE {}", sqlstates.join(", ")))),
        };
        if let Some((verdict, reason)) = declared(table, origin, context, reasons) {
            let because = table.text("because").unwrap_or_default();
            rules.push(OtherwiseRule { when, sqlstates, verdict, reason, because });
        }
    }
    rules
}

fn declared(
    table: &RawTable,
    origin: ReasonOrigin,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
) -> Option<(OtherwiseVerdict, recount_model::ReasonCode)> {
    let verdicts = match table.text("verdict").as_deref() {
        Some("skip") => Some((OtherwiseVerdict::Skip, ReasonVerdict::Skip)),
        Some("dead-letter") => Some((OtherwiseVerdict::DeadLetter, ReasonVerdict::DeadLetter)),
        Some("retry") => Some((OtherwiseVerdict::Retry, ReasonVerdict::Retry)),
        _ => None,
    };
    let reason = declare(table, verdicts.map(|(_, verdict)| verdict), origin, context, reasons)?;
    Some((verdicts?.0, reason))
}

fn http_route(apply: &RawTable, context: &mut Context<'_, '_>, reasons: &mut Vec<ReasonInfo>) -> HttpRoute {
    let url = apply.text("http").unwrap_or_default();
    check_address(&url, &apply.place("http"), ("a handler", "http://localhost:8000/reserve"), context);
    declared_reasons(apply, context, reasons);
    HttpRoute { url, deadline_ms: apply.quantity("deadline"), token: apply.secret("token", &context.folder) }
}

/// What is to be asked there, and an example of it, stand in the faults.
pub(super) fn check_address(
    url: &str,
    at: &Place,
    (what, example): (&str, &str),
    context: &mut Context<'_, '_>,
) {
    let authority = url.split_once("://").map_or("", |(_, rest)| rest.split('/').next().unwrap_or(rest));
    if authority.is_empty() || !(url.starts_with("http://") || url.starts_with("https://")) {
        let help = format!("write: http = \"{example}\"");
        context.sink.fault(at, format!("{url:?} is not the address of {what}"), help);
    } else if authority.contains('@') {
        context.sink.mask(at.span.clone());
        let message =
            "the address holds a name or password, and this file is kept in the ledger as it is written";
        context.sink.fault(at, message, "write: token = \"${HANDLER_TOKEN}\"".to_owned());
    }
}

/// One flow has one database, one way of counting effects, and either SQL or one handler.
fn together(
    tables: &[RawTable],
    ones: Vec<One>,
    reasons: &[ReasonInfo],
    context: &mut Context<'_, '_>,
) -> EffectConfig {
    let Some(first) = tables.first() else { return EffectConfig::None };
    let kind = |table: &RawTable| KINDS.into_iter().find(|kind| table.has(kind)).unwrap_or("sql");
    let effects = effect_rows(first, context);
    for table in &tables[1..] {
        if kind(table) == kind(first) && kind(table) != "sql" {
            let message = "one handler a flow for now: this names another";
            let help = "let one handler tell the events apart by their type, or make two flows".to_owned();
            context.sink.fault(&table.place(kind(table)), message, help);
        } else if kind(table) != kind(first) {
            let message = "all `apply` of a flow are of one kind, and the first is of another";
            let help =
                format!("put those with `{}` and those with `{}` into two flows", kind(first), kind(table));
            context.sink.fault(&table.place(kind(table)), message, help);
        } else if table.text("database") != first.text("database") && table.has("database") {
            let message =
                "all `apply` of a flow have the same database, so that one transaction holds a batch";
            context.sink.fault(&table.place("database"), message, "make two flows".to_owned());
        } else if table.has("effects") && effect_rows(table, context) != effects {
            let message = "all `apply` of a flow count their effects in the same way";
            context.sink.fault(&table.place("effects"), message, "write it as in the first".to_owned());
        }
    }
    let mut sql = Vec::new();
    let mut http = Vec::new();
    let mut name = None;
    for one in ones {
        match one {
            One::Sql(route) => sql.push(route),
            One::Http(route) => http.push(route),
            One::Rust(handler) => name = name.or(Some(handler)),
        }
    }
    let database = first.text("database").unwrap_or_default();
    match (kind(first), name) {
        ("http", _) => EffectConfig::Http { routes: http, reasons: handler_reasons(reasons) },
        ("handler", Some(name)) => {
            EffectConfig::Handler { database, name, effects, reasons: handler_reasons(reasons) }
        }
        _ => EffectConfig::Sql { database, routes: sql, effects },
    }
}

fn handler_reasons(reasons: &[ReasonInfo]) -> BTreeMap<recount_model::ReasonCode, OtherwiseVerdict> {
    let verdict = |reason: &ReasonInfo| match reason.verdict {
        ReasonVerdict::Skip => OtherwiseVerdict::Skip,
        ReasonVerdict::Retry => OtherwiseVerdict::Retry,
        _ => OtherwiseVerdict::DeadLetter,
    };
    let handlers = reasons.iter().filter(|reason| reason.origin == ReasonOrigin::Handler);
    handlers.map(|reason| (reason.code.clone(), verdict(reason))).collect()
}

pub(super) fn effect_rows(table: &RawTable, context: &mut Context<'_, '_>) -> EffectRows {
    if let Some(custom) = table.table("effects") {
        let sql = custom.text("sql").unwrap_or_default();
        if !custom.has("sql") {
            let help =
                "write: effects = { sql = \"SELECT order_id FROM movement\", id = \"order_id\" }".to_owned();
            context.sink.fault(&custom.at, "`effects` has no `sql`: a query with one row an effect", help);
        }
        for key in ["http", "count"].into_iter().filter(|key| custom.has(key)) {
            let message = format!("`{key}` counts the effects of a consumer that Recount doesn't run");
            context.sink.fault(&custom.place(key), message, "write `sql`, and leave it out".to_owned());
        }
        if custom.has("sql") {
            let text = SqlText::read(&sql);
            let fault = text.query_fault().or_else(|| {
                let param = text.params.first()?;
                Some(format!("this query counts all effects, so it has no parameter :{param}"))
            });
            if let Some(message) = fault {
                context.sink.fault(&custom.place("sql"), message, None);
            }
        }
        return EffectRows::Custom { sql, id: custom.text("id") };
    }
    match table.text("effects").as_deref() {
        Some("none") => EffectRows::None,
        _ => EffectRows::Table,
    }
}
