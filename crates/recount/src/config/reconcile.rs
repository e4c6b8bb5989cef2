//! `[[reconcile]]`: a sum over a flow's events, and a query that must give the same.

use super::fault::nearest;
use super::raw::RawTable;
use super::resolve::Context;
use super::sql_text::SqlText;
use super::{FlowConfig, FlowSum, ReasonVerdict, ReconcileConfig, RightSide, SumOf};
use recount_checks::{MeasureRule, reads_any_of};
use recount_model::{FlowName, ReasonCode};

/// Resolves all, and gives each flow the measures that it must keep when deciding.
pub(super) fn resolve(
    raw: &RawTable,
    flows: &mut [FlowConfig],
    context: &mut Context<'_, '_>,
) -> Vec<ReconcileConfig> {
    let mut all = Vec::new();
    let mut names: Vec<String> = Vec::new();
    for table in raw.tables("reconcile") {
        let name = table.text("name").unwrap_or_default();
        if table.has("name") && names.contains(&name) {
            let message = format!("two reconciles are named {name:?}");
            context.sink.fault(&table.place("name"), message, "give each its own name".to_owned());
        }
        names.push(name.clone());
        let left = table.table("left").and_then(|left| sum(left, flows, context));
        let right = table.table("right").map(|right| query(right, context));
        let (Some(left), Some(right)) = (left, right) else { continue };
        all.push(ReconcileConfig {
            name,
            left,
            right,
            tolerance: table.amount("tolerance"),
            within_ms: table.quantity_if("within"),
            line: context.sink.line(&table.at),
        });
    }
    all
}

fn sum(left: &RawTable, flows: &mut [FlowConfig], context: &mut Context<'_, '_>) -> Option<FlowSum> {
    let name = left.text("flow")?;
    let Some(flow) = flows.iter_mut().find(|flow| flow.spec.flow.as_str() == name) else {
        let known = context.flows.clone();
        context.unknown_name(&left.place("flow"), "flow", &name, &known, "[flow.NAME]");
        return None;
    };
    let of = if left.text("of").as_deref() == Some("applied") { SumOf::Applied } else { SumOf::Received };
    let less = less(left, flow, of, context);
    let by = left.text("by");
    let measure = measure(left, flow)?;
    let by_is_secret =
        by.as_deref().or(flow.rules.key.as_deref()).is_some_and(|by| reads_any_of(by, &flow.rules.secret));
    let flow = FlowName::new(&name).ok()?;
    Some(FlowSum { flow, measure, of, less, by_is_secret: by_is_secret && by.is_some(), by })
}

/// The flow's measure for this sum; one that is there already is shared.
fn measure(left: &RawTable, flow: &mut FlowConfig) -> Option<usize> {
    let rule = MeasureRule { sum: left.text("sum")?, by: left.text("by") };
    let same = |known: &MeasureRule| known.sum == rule.sum && known.by == rule.by;
    if let Some(index) = flow.rules.measures.iter().position(same) {
        return Some(index);
    }
    let index = flow.rules.measures.len();
    for key in ["sum", "by"] {
        flow.places.insert(format!("measure[{index}].{key}"), left.place(key));
    }
    flow.places.insert(format!("measure[{index}]"), left.at.clone());
    flow.rules.measures.push(rule);
    Some(index)
}

fn less(left: &RawTable, flow: &FlowConfig, of: SumOf, context: &mut Context<'_, '_>) -> Vec<ReasonCode> {
    if of == SumOf::Applied && left.has("less") {
        let message =
            "`less` stands only with `of = \"received\"`: what was not applied isn't among the applied";
        context.sink.fault(&left.place("less"), message, "leave `less` out".to_owned());
    }
    let mut codes = Vec::new();
    for text in left.texts("less") {
        match flow.reasons.iter().find(|reason| reason.code.as_str() == text.value) {
            Some(reason) if reason.verdict == ReasonVerdict::Flag => {
                let message = format!("{} only flags: such events are applied", text.value);
                context.sink.fault(&text.at, message, "leave it out".to_owned());
            }
            Some(reason) => codes.push(reason.code.clone()),
            None => {
                let known = flow.reasons.iter().map(|reason| reason.code.as_str());
                let help = match nearest(&text.value, known.clone()) {
                    Some(meant) => format!("did you mean {meant:?}?"),
                    None => format!("it gives: {}", known.collect::<Vec<_>>().join(", ")),
                };
                let message = format!("flow {} never gives the reason {:?}", flow.spec.flow, text.value);
                context.sink.fault(&text.at, message, help);
            }
        }
    }
    codes
}

fn query(right: &RawTable, context: &mut Context<'_, '_>) -> RightSide {
    let database = right.text("database").unwrap_or_default();
    if right.has("database") && !context.databases.contains(&database) {
        let known = context.databases.clone();
        let at = right.place("database");
        context.unknown_name(
            &at,
            "database",
            &database,
            &known,
            "[database.NAME] with url = \"sqlite:PATH\"",
        );
    }
    let sql = right.text("sql").unwrap_or_default();
    if right.has("sql") {
        let text = SqlText::read(&sql);
        let fault = text.query_fault().or_else(|| {
            let param = text.params.first()?;
            Some(format!("this query has no parameters, and names :{param}"))
        });
        if let Some(message) = fault {
            let help = "write: sql = \"SELECT sum(10000 - on_hand) FROM stock\"".to_owned();
            context.sink.fault(&right.place("sql"), message, help);
        }
    }
    RightSide::Query { database, sql }
}
