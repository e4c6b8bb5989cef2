//! A flow's rules, compiled once.

use crate::decode::Decoder;
use crate::decode::json::DEPTH_LIMIT;
use crate::expr::{Expr, FieldPath};
use crate::flow::FlowChecks;
use crate::rules::{FlowRules, Otherwise, RuleFault};
use crate::schema::Schema;
use crate::secret::Secrets;
use recount_model::{FlowName, ReasonCode};

/// One check.
#[derive(Debug)]
pub(crate) struct Check {
    pub reason: ReasonCode,
    pub that: Expr,
    pub otherwise: Otherwise,
    pub because: Box<str>,
}

/// One `apply`.
#[derive(Debug)]
pub(crate) struct Route {
    pub when: Option<Expr>,
    pub with: Vec<(Box<str>, Expr)>,
}

/// One measure; `by` only where it isn't the event's key.
#[derive(Debug)]
pub(crate) struct MeasureExprs {
    pub sum: Expr,
    pub by: Option<Expr>,
}

/// Collects faults, so that all are shown at once.
struct Faults(Vec<RuleFault>);

impl Faults {
    fn add(&mut self, rule: impl Into<String>, message: impl Into<String>) {
        self.0.push(RuleFault { rule: rule.into(), message: message.into() });
    }

    fn keep<T>(&mut self, rule: impl Into<String>, compiled: Result<T, String>) -> Option<T> {
        compiled.map_err(|message| self.add(rule, message)).ok()
    }

    fn expr(&mut self, rule: impl Into<String>, text: &str) -> Option<Expr> {
        let compiled = Expr::compile(text).map_err(|message| format!("{text:?}: {message}"));
        self.keep(rule, compiled)
    }

    fn test(&mut self, rule: impl Into<String>, text: &str) -> Option<Expr> {
        let compiled = Expr::compile_test(text).map_err(|message| format!("{text:?}: {message}"));
        self.keep(rule, compiled)
    }

    fn optional(&mut self, rule: &str, text: Option<&String>) -> Option<Expr> {
        text.and_then(|text| self.expr(rule, text))
    }
}

impl FlowChecks {
    /// Compiles a flow's rules.
    ///
    /// # Errors
    /// Every fault of the rules, in the order of the config.
    pub fn compile(rules: &FlowRules, flow: &FlowName) -> Result<Self, Vec<RuleFault>> {
        let mut faults = Faults(Vec::new());
        check_limits(rules, &mut faults);
        let id = faults.optional("id", rules.id.as_ref());
        let event_type = faults.optional("type", rules.event_type.as_ref());
        let time = faults.optional("time", rules.time.as_ref());
        let key = faults.optional("key", rules.key.as_ref());
        let traceparent = faults.optional("traceparent", rules.traceparent.as_ref());
        let schema = rules.schema.as_ref().and_then(|schema| faults.keep("schema", Schema::compile(schema)));
        let checks = compile_checks(rules, &mut faults);
        let routes = compile_routes(rules, &mut faults);
        let measures = compile_measures(rules, &mut faults);
        let mut secrets = compile_secrets(rules, &mut faults);
        if traceparent.as_ref().is_some_and(|expr| expr.paths.iter().any(|path| secrets.hides(path))) {
            faults.add(
                "traceparent",
                "it is taken from a secret field, and a trace context is told to collectors and handlers: take it \
                 from another, or leave it out",
            );
        }
        if !faults.0.is_empty() {
            return Err(faults.0);
        }
        for (name, expr) in [("id", &id), ("type", &event_type), ("time", &time), ("key", &key)] {
            if let Some(expr) = expr {
                secrets.add_meta(name, &expr.paths);
            }
        }
        Ok(Self {
            flow: flow.clone(),
            decoder: Decoder { decode: rules.decode, depth_max: rules.depth_max },
            payload_bytes_max: rules.payload_bytes_max as u64,
            id,
            event_type,
            time,
            key,
            traceparent,
            schema,
            ignore: rules.ignore.iter().map(|ignored| ignored.as_str().into()).collect(),
            checks,
            routes,
            measures,
            secrets,
        })
    }
}

fn check_limits(rules: &FlowRules, faults: &mut Faults) {
    if rules.payload_bytes_max == 0 {
        faults.add("payload_bytes_max", "it is 0, so no event could pass; write at least 1");
    }
    if rules.depth_max == 0 || rules.depth_max > DEPTH_LIMIT {
        faults.add("depth_max", format!("it is {}; write 1 to {DEPTH_LIMIT}", rules.depth_max));
    }
}

fn compile_checks(rules: &FlowRules, faults: &mut Faults) -> Vec<Check> {
    let compile = |(at, rule): (usize, &crate::rules::CheckRule)| {
        Some(Check {
            reason: rule.reason.clone(),
            that: faults.test(format!("check[{at}].that"), &rule.that)?,
            otherwise: rule.otherwise,
            because: rule.because.as_str().into(),
        })
    };
    rules.checks.iter().enumerate().filter_map(compile).collect()
}

fn compile_routes(rules: &FlowRules, faults: &mut Faults) -> Vec<Route> {
    let mut routes = Vec::new();
    for (at, rule) in rules.routes.iter().enumerate() {
        let when = rule.when.as_ref().and_then(|when| faults.test(format!("apply[{at}].when"), when));
        let mut with = Vec::new();
        for (name, text) in &rule.with {
            if let Some(expr) = faults.expr(format!("apply[{at}].with.{name}"), text) {
                with.push((name.as_str().into(), expr));
            }
        }
        routes.push(Route { when, with });
    }
    routes
}

fn compile_measures(rules: &FlowRules, faults: &mut Faults) -> Vec<MeasureExprs> {
    let mut measures = Vec::new();
    for (at, rule) in rules.measures.iter().enumerate() {
        let sum = faults.expr(format!("measure[{at}].sum"), &rule.sum);
        let by = rule.by.as_ref().filter(|by| rules.key.as_ref() != Some(by) && *by != "meta.key");
        let by = by.and_then(|by| faults.expr(format!("measure[{at}].by"), by));
        measures.extend(sum.map(|sum| MeasureExprs { sum, by }));
    }
    measures
}

fn compile_secrets(rules: &FlowRules, faults: &mut Faults) -> Secrets {
    let mut paths = Vec::new();
    for (at, text) in rules.secret.iter().enumerate() {
        match FieldPath::parse(text) {
            Some(path) => paths.push(path),
            None => faults.add(
                format!("secret[{at}]"),
                format!("{text:?} is not a path; write one such as event.customer_id"),
            ),
        }
    }
    Secrets::new(paths)
}
