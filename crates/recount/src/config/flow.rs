//! One flow: source, rules, settings.

use super::apply::{self, Applies};
use super::broker;
use super::fault::{Place, nearest};
use super::fields::misspelt;
use super::letters;
use super::raw::RawTable;
use super::resolve::Context;
use super::watched;
use super::{FlowConfig, FlowMode, ReasonInfo, ReasonOrigin, ReasonVerdict, SourceConfig};
use recount_checks::{CheckRule, Decode, FlowChecks, FlowRules, Otherwise, reads_any_of};
use recount_engine::{BreakerAction, BreakerSpec, FlowSpec, HoldSpec, RetrySpec, TakeLimits};
use recount_model::decide::AfterLast;
use recount_model::reason::{Builtin, BuiltinKind, builtin};
use recount_model::{Budget, BudgetLimit, ConfigVersion, FlowName, ReasonCode};
use std::collections::BTreeMap;

/// Rule paths and where they stand.
pub(super) type Places = BTreeMap<String, Place>;

/// The place of a rule, or of the nearest thing above it.
pub(super) fn place_of(places: &Places, rule: &str) -> Option<Place> {
    let mut rule = rule;
    loop {
        if let Some(place) = places.get(rule) {
            return Some(place.clone());
        }
        rule = &rule[..rule.rfind(['.', '['])?];
    }
}

/// Resolves a flow; its measures come with the reconciles.
pub(super) fn resolve(name: &str, table: &RawTable, context: &mut Context<'_, '_>) -> FlowConfig {
    let flow = FlowName::new(name).unwrap_or_else(|error| {
        let help = "write: [flow.reserve-stock]".to_owned();
        context.sink.fault(&table.at, error.to_string(), help);
        FlowName::new("unnamed").expect("the word is a flow's name")
    });
    later_modes(table, context);
    let mut reasons = Vec::new();
    let mut places = Places::new();
    let mut rules = rules(table, context, &mut places);
    rules.checks = checks(table, context, &mut reasons, &mut places);
    let mode = mode(table);
    let applies = match mode {
        FlowMode::Run => apply::resolve(table, context, &mut reasons, &mut places),
        FlowMode::Observe | FlowMode::Report => {
            watched::resolve(mode, table, context, &mut reasons, &mut places)
        }
    };
    rules.routes = applies.routes.clone();
    let source = source(table, mode, context);
    let letters = letters::resolve(table, mode, &source, context);
    reasons.extend(builtins(mode, table, &rules, &applies, context));
    let spec = spec(flow, mode, table, &rules, &reasons);
    FlowConfig {
        mode,
        spec,
        rules,
        source,
        effect: applies.effect,
        expect: table.rate("expect"),
        open_ms_max: table.quantity("open_max"),
        letters,
        reasons,
        places,
    }
}

fn mode(table: &RawTable) -> FlowMode {
    match table.text("mode").as_deref() {
        Some("observe") => FlowMode::Observe,
        Some("report") => FlowMode::Report,
        _ => FlowMode::Run,
    }
}

fn later_modes(table: &RawTable, context: &mut Context<'_, '_>) {
    if let Some(decode @ ("avro" | "protobuf")) = table.text("decode").as_deref() {
        let message =
            format!("{decode} comes later, with a schema registry: this build decodes json, text and bytes");
        context.sink.fault(&table.place("decode"), message, "write: decode = \"json\"".to_owned());
    }
    if let Some(breaker) = table.table("breaker")
        && let Some(share) = breaker.budget("share")
        && share.events_allowed().is_none()
    {
        let message =
            format!("the breaker looks at the last so many events, and {share} doesn't say how many");
        context.sink.fault(&breaker.place("share"), message, "write: share = \"50% of 1000\"".to_owned());
    }
    if table.text("dedupe").as_deref() == Some("exact") {
        let message =
            "`dedupe = \"exact\"` comes later: this build finds duplicates within a window of the partition";
        context.sink.fault(&table.place("dedupe"), message, "write: dedupe = { events = 100000 }".to_owned());
    }
}

fn rules(table: &RawTable, context: &mut Context<'_, '_>, places: &mut Places) -> FlowRules {
    for key in ["source", "id", "type", "time", "key", "traceparent", "schema"] {
        if table.has(key) {
            places.insert(key.to_owned(), table.place(key));
        }
    }
    for (list, texts) in [("ignore", table.texts("ignore")), ("secret", table.texts("secret"))] {
        places.insert(list.to_owned(), table.place(list));
        for (index, text) in texts.iter().enumerate() {
            places.insert(format!("{list}[{index}]"), text.at.clone());
        }
    }
    FlowRules {
        decode: match table.text("decode").as_deref() {
            Some("text") => Decode::Text,
            Some("bytes") => Decode::Bytes,
            _ => Decode::Json,
        },
        payload_bytes_max: table.count("payload_max"),
        depth_max: table.count("depth_max"),
        id: table.text("id"),
        event_type: table.text("type"),
        time: table.text("time"),
        key: table.text("key"),
        traceparent: table.text("traceparent"),
        schema: schema(table, context),
        ignore: table.plain_texts("ignore"),
        secret: table.plain_texts("secret"),
        ..FlowRules::default()
    }
}

/// Reads the schema's file. Whether it is a valid schema is the checks' to say.
fn schema(table: &RawTable, context: &mut Context<'_, '_>) -> Option<serde_json::Value> {
    const SCHEMA_BYTES_MAX: u64 = 4 << 20;
    let written = table.text("schema")?;
    let at = table.place("schema");
    let path = context.folder.join(&written);
    let read = || -> Result<String, String> {
        let length = std::fs::metadata(&path).map_err(|error| error.to_string())?.len();
        if length > SCHEMA_BYTES_MAX {
            return Err(format!("it has {length} bytes, and {SCHEMA_BYTES_MAX} are the limit"));
        }
        std::fs::read_to_string(&path).map_err(|error| error.to_string())
    };
    let text = match read() {
        Ok(text) => text,
        Err(cause) => {
            let help = format!("it is looked for at {}", path.display());
            context.sink.fault(&at, format!("the schema {written} can't be read: {cause}"), help);
            return None;
        }
    };
    match serde_json::from_str(&text) {
        Ok(schema) => {
            if !context.files.iter().any(|(name, _)| *name == written) {
                context.files.push((written, text));
            }
            Some(schema)
        }
        Err(error) => {
            context.sink.fault(&at, format!("the schema {written} is not JSON: {error}"), None);
            None
        }
    }
}

fn checks(
    table: &RawTable,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
    places: &mut Places,
) -> Vec<CheckRule> {
    let mut checks = Vec::new();
    for check in table.tables("check") {
        let (otherwise, verdict) = match check.text("otherwise").as_deref() {
            Some("flag") => (Otherwise::Flag, ReasonVerdict::Flag),
            Some("dead-letter") => (Otherwise::DeadLetter, ReasonVerdict::DeadLetter),
            _ => (Otherwise::Skip, ReasonVerdict::Skip),
        };
        let that = check.text("that").unwrap_or_default();
        let decided = check.text("otherwise").is_some();
        let verdict = decided.then_some(verdict);
        let reason = declare(check, verdict, ReasonOrigin::Check(that.clone()), context, reasons);
        let (Some(reason), false) = (reason, that.is_empty()) else { continue };
        let rule = format!("check[{}]", checks.len());
        places.insert(format!("{rule}.that"), check.place("that"));
        places.insert(rule, check.at.clone());
        let because = check.text("because").unwrap_or_default();
        checks.push(CheckRule { reason, that, otherwise, because });
    }
    checks
}

/// Declares the reason of a check, an `otherwise` or a handler: once, not a built-in one, with a budget
/// where it must have one. `verdict` is none where it could not be read.
pub(super) fn declare(
    table: &RawTable,
    verdict: Option<ReasonVerdict>,
    origin: ReasonOrigin,
    context: &mut Context<'_, '_>,
    reasons: &mut Vec<ReasonInfo>,
) -> Option<ReasonCode> {
    let code = table.reason("reason")?.clone();
    let at = table.place("reason");
    if let Some(known) = builtin(code.as_str()) {
        let message = format!("{code} is a built-in reason: {}", known.meaning);
        context.sink.fault(&at, message, "give yours a name of its own".to_owned());
    } else if let Some(first) = reasons.iter().find(|reason| reason.code == code) {
        let message =
            format!("the reason {code} is declared twice in this flow; first in line {}", first.line);
        let help = "give each its own name: a reason has one sentence and one budget".to_owned();
        context.sink.fault(&at, message, help);
    }
    let must_have_budget = matches!(verdict, Some(ReasonVerdict::Skip | ReasonVerdict::Flag));
    if must_have_budget && !table.has("at_most") {
        let at = Place { span: table.at.span.clone(), key: format!("{}.at_most", table.at.key) };
        let message =
            format!("{code} has no `at_most`: how many may this be before it is no exception any more?");
        context.sink.fault(
            &at,
            message,
            "write: at_most = \"2% of 1000\", or \"any\", written out".to_owned(),
        );
    }
    reasons.push(ReasonInfo {
        line: context.sink.line(&at),
        code: code.clone(),
        verdict: verdict.unwrap_or(ReasonVerdict::DeadLetter),
        budget: table.budget("at_most").unwrap_or(Budget::DEFAULT),
        because: table.text("because").unwrap_or_default(),
        review_by: table.date("review_by"),
        origin,
    });
    Some(code)
}

fn source(table: &RawTable, mode: FlowMode, context: &mut Context<'_, '_>) -> SourceConfig {
    let unusable = SourceConfig::Stdin;
    let Some(source) = table.table("source") else { return unusable };
    if source.has("broker") {
        return broker::source(source, mode, context).unwrap_or(unusable);
    }
    broker::refuse_keys_of_a_topic(source, context);
    match (source.text("file"), source.text("http")) {
        (Some(_), Some(_)) => {
            let at = source.place("http");
            let help = "leave one out; two sources are two flows".to_owned();
            context.sink.fault(&at, "a flow has one source, and this names two", help);
            unusable
        }
        (Some(file), None) if file == "-" => {
            if source.flag("follow") {
                let message = "standard input can't be followed: it ends when it ends";
                context.sink.fault(&source.place("follow"), message, "leave `follow` out".to_owned());
            }
            unusable
        }
        (Some(file), None) => {
            let packed = file.ends_with(".gz") || file.ends_with(".zst");
            if packed && source.flag("follow") {
                let message = "a packed file can't be followed: it doesn't grow";
                context.sink.fault(&source.place("follow"), message, "leave `follow` out".to_owned());
            }
            SourceConfig::File { path: context.folder.join(file), follow: source.flag("follow") }
        }
        (None, Some(path)) => {
            check_http_path(source, &path, context);
            SourceConfig::Http { path }
        }
        (None, None) => {
            if !source.has("file") && !source.has("http") {
                let help =
                    "write: source = { file = \"orders.ndjson\" }, or { http = \"/orders\" }".to_owned();
                context.sink.fault(&source.at, "the source names neither `file`, `http` nor `broker`", help);
            }
            unusable
        }
    }
}

fn check_http_path(source: &RawTable, path: &str, context: &mut Context<'_, '_>) {
    let at = source.place("http");
    let plain = |c: char| c.is_ascii_alphanumeric() || "/-_.~".contains(c);
    if !path.starts_with('/') || path.len() < 2 || path.ends_with('/') || !path.chars().all(plain) {
        let message = format!("{path:?} is not a path: a slash, then letters, digits, - _ . ~ and slashes");
        context.sink.fault(&at, message, "write: source = { http = \"/orders\" }".to_owned());
    }
    let first = path.split('/').nth(1).unwrap_or_default();
    if ["v1", "metrics", "health"].contains(&first) {
        let message = format!("/{first} is Recount's own");
        context.sink.fault(&at, message, "choose another path: { http = \"/orders\" }".to_owned());
    }
    if source.flag("follow") {
        let message = "`follow` is for files: requests come as they come";
        context.sink.fault(&source.place("follow"), message, "leave `follow` out".to_owned());
    }
}

/// Two flows can't take events under one path.
pub(super) fn check_http_paths(raw: &RawTable, flows: &[FlowConfig], context: &mut Context<'_, '_>) {
    let mut seen: BTreeMap<&str, &str> = BTreeMap::new();
    for ((name, table), flow) in raw.named("flow").iter().zip(flows) {
        let SourceConfig::Http { path } = &flow.source else { continue };
        if let Some(first) = seen.insert(path, name)
            && let Some(source) = table.table("source")
        {
            let message = format!("flow {first} takes events under {path} already");
            context.sink.fault(&source.place("http"), message, "give each flow its own path".to_owned());
        }
    }
}

/// Compiles the rules, and looks up the fields that they name.
pub(super) fn check_rules(table: &RawTable, flow: &FlowConfig, context: &mut Context<'_, '_>) {
    let mut schema = flow.rules.schema.as_ref();
    if let Err(faults) = FlowChecks::compile(&flow.rules, &flow.spec.flow) {
        if faults.iter().any(|fault| fault.rule == "schema") {
            schema = None;
        }
        for fault in faults {
            let at = place_of(&flow.places, &fault.rule).unwrap_or_else(|| table.at.clone());
            context.sink.fault(&at, fault.message, None);
        }
    }
    let (Some(schema), Decode::Json) = (schema, flow.rules.decode) else { return };
    for (rule, expression) in expressions(&flow.rules) {
        let Some(at) = flow.places.get(&rule) else { continue };
        for (message, help) in misspelt(schema, expression) {
            context.sink.fault(at, message, help);
        }
    }
}

/// Every expression of a flow with the path of its rule.
fn expressions(rules: &FlowRules) -> Vec<(String, &str)> {
    let single = [
        ("id", &rules.id),
        ("type", &rules.event_type),
        ("time", &rules.time),
        ("key", &rules.key),
        ("traceparent", &rules.traceparent),
    ];
    let mut all: Vec<(String, &str)> =
        single.iter().filter_map(|(rule, text)| Some(((*rule).to_owned(), text.as_deref()?))).collect();
    for (index, secret) in rules.secret.iter().enumerate() {
        all.push((format!("secret[{index}]"), secret));
    }
    for (index, check) in rules.checks.iter().enumerate() {
        all.push((format!("check[{index}].that"), &check.that));
    }
    for (index, route) in rules.routes.iter().enumerate() {
        all.extend(route.when.as_deref().map(|when| (format!("apply[{index}].when"), when)));
        let with = route.with.iter();
        all.extend(with.map(|(name, text)| (format!("apply[{index}].with.{name}"), text.as_str())));
    }
    for (index, measure) in rules.measures.iter().enumerate() {
        all.push((format!("measure[{index}].sum"), &measure.sum));
        all.extend(measure.by.as_deref().map(|by| (format!("measure[{index}].by"), by)));
    }
    all
}

/// The built-in reasons that this flow can give, with their budgets.
fn builtins(
    mode: FlowMode,
    table: &RawTable,
    rules: &FlowRules,
    applies: &Applies,
    context: &mut Context<'_, '_>,
) -> Vec<ReasonInfo> {
    let mut said: BTreeMap<&str, Budget> = BTreeMap::new();
    for (name, budget) in table.budgets("at_most") {
        match builtin(name).filter(|known| known.kind != BuiltinKind::Finding) {
            Some(known) => {
                said.insert(known.code, budget.value);
            }
            None => {
                let verdicts = recount_model::reason::BUILTINS.iter();
                let known = verdicts.filter(|b| b.kind != BuiltinKind::Finding).map(|b| b.code);
                let help = match nearest(name, known) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "a reason of your own has its `at_most` where it is declared".to_owned(),
                };
                context.sink.fault(&budget.at, format!("{name} is not a built-in reason of an event"), help);
            }
        }
    }
    let possible =
        |builtin: &&Builtin| builtin.kind != BuiltinKind::Finding && can_give(builtin, mode, rules, applies);
    recount_model::reason::BUILTINS
        .iter()
        .filter(possible)
        .map(|builtin| ReasonInfo {
            code: ReasonCode::literal(builtin.code),
            verdict: match builtin.kind {
                BuiltinKind::Skip => ReasonVerdict::Skip,
                BuiltinKind::Flag => ReasonVerdict::Flag,
                _ => ReasonVerdict::DeadLetter,
            },
            budget: said.get(builtin.code).copied().unwrap_or(match builtin.code {
                "not_for_this_flow" | "accepted" => Budget::ANY,
                _ => Budget::DEFAULT,
            }),
            because: builtin.meaning.to_owned(),
            review_by: None,
            origin: ReasonOrigin::BuiltIn,
            line: 0,
        })
        .collect()
}

/// Whether a flow can come to give this built-in reason at all.
fn can_give(builtin: &Builtin, mode: FlowMode, rules: &FlowRules, applies: &Applies) -> bool {
    match builtin.code {
        "no_id" => rules.id.is_some() || rules.decode == Decode::Json,
        "no_key" => rules.key.is_some(),
        "schema_mismatch" => rules.schema.is_some(),
        "parameter_missing" => rules.routes.iter().any(|route| !route.with.is_empty()),
        "no_route" => rules.routes.last().is_some_and(|route| route.when.is_some()),
        "statement_failed" => applies.is_sql() || applies.is_rust(),
        "rows_unexpected" => applies.is_sql(),
        "no_verdict" => applies.is_http(),
        "undeclared_reason" => applies.is_http() || applies.is_rust() || mode == FlowMode::Report,
        "contradicts_check" => mode == FlowMode::Report,
        "retries_exhausted" => applies.may_retry,
        "handler_panicked" => applies.is_rust(),
        "not_for_this_flow" => !rules.ignore.is_empty(),
        _ => true,
    }
}

fn spec(
    flow: FlowName,
    mode: FlowMode,
    table: &RawTable,
    rules: &FlowRules,
    reasons: &[ReasonInfo],
) -> FlowSpec {
    let retry = table.table_or_defaults("retry");
    let hold = table.table_or_defaults("hold");
    let batch = table.table_or_defaults("batch");
    let away = table.table_or_defaults("away");
    let is_secret = |expression: &Option<String>| {
        expression.as_deref().is_some_and(|text| reads_any_of(text, &rules.secret))
    };
    FlowSpec {
        flow,
        owner: table.text("owner").unwrap_or_default(),
        purpose: table.text("purpose").unwrap_or_default(),
        config: ConfigVersion(0),
        origin: mode.origin(),
        take: TakeLimits {
            events_max: batch.count("events"),
            bytes_max: batch.count("bytes"),
            wait_ms: batch.quantity("wait"),
            payload_bytes_max: rules.payload_bytes_max,
        },
        retry: RetrySpec {
            attempts_max: retry.small_count("attempts"),
            backoff_first_ms: retry.quantity("backoff"),
            backoff_max_ms: retry.quantity("backoff_max"),
            jitter: retry.share("jitter"),
            after_last: match retry.text("after_last").as_deref() {
                Some("stay-held") => AfterLast::StayHeld,
                _ => AfterLast::GoOn,
            },
        },
        hold: HoldSpec { events_max: hold.count("events"), bytes_max: hold.count("bytes") },
        dedupe_events: table.table_or_defaults("dedupe").count("events"),
        breaker: breaker(mode, table),
        budgets: reasons.iter().map(|reason| (reason.code.clone(), reason.budget)).collect(),
        id_is_secret: is_secret(&rules.id),
        key_is_secret: is_secret(&rules.key),
        keep_skipped_bytes_max: table.count("keep_skipped"),
        ledger_batches_waiting_max: table.count("ledger_waiting"),
        away_backoff_first_ms: away.quantity("backoff"),
        away_backoff_max_ms: away.quantity("backoff_max"),
    }
}

fn breaker(mode: FlowMode, table: &RawTable) -> BreakerSpec {
    let settings = table.table_or_defaults("breaker");
    let then = match table.table("breaker") {
        Some(settings) => settings.text("then"),
        None => table.text("breaker"),
    };
    let (share_ppm, of_last) = match settings.budget("share").map(|budget| budget.limit) {
        Some(BudgetLimit::OfLast { share_ppm, events }) => (share_ppm, events),
        _ => (500_000, 1000),
    };
    // Pausing would only stop the counting; the consumer would go on.
    let only_tells = mode != FlowMode::Run || then.as_deref() == Some("alert");
    let action = if only_tells { BreakerAction::Alert } else { BreakerAction::Pause };
    BreakerSpec { share_ppm, of_last, action }
}
