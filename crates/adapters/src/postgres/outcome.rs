//! What the statements of one event came to, in the words that every form of running them shares.

use super::faults::without_values;
use super::plan::RoutePlan;
use recount_engine::{EffectEvent, OtherwiseVerdict, Outcome, RowRange};
use recount_model::{Reason, Verdict, reason};
use serde_json::json;
use std::collections::HashSet;

/// How an event's statements ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum End {
    /// As declared.
    Applied,
    /// A statement changed another number of rows than declared; then this `otherwise` held, if any.
    Rows { statement: usize, rows: u64, otherwise: Option<usize> },
    /// A statement, or a `when`, erred for the event's sake.
    Failed { place: Place, state: String, message: String },
}

/// Where it erred.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Statement(usize),
    When(usize),
}

impl End {
    /// The outcome, with evidence.
    pub(crate) fn outcome(&self, route: &RoutePlan, event: &EffectEvent) -> Outcome {
        match self {
            Self::Applied => Outcome::Said { verdict: Verdict::Applied, evidence: None },
            Self::Failed { place, state, message } => {
                let place = match place {
                    Place::Statement(index) => format!("statement {}", index + 1),
                    Place::When(index) => format!("the `when` of otherwise {}", index + 1),
                };
                let message = without_values(message, &route.params, &event.event.params);
                let sentence = format!("{place} failed: {message} (SQLSTATE {state})");
                let evidence = json!({ "sqlstate": state, "message": message, "at": place });
                said(Verdict::dead_letter(reason::STATEMENT_FAILED, sentence), &evidence)
            }
            Self::Rows { statement, rows, otherwise: Some(index) } => {
                let rule = &route.otherwise[*index].rule;
                let because = Reason::new(rule.reason.clone(), rule.because.clone());
                let verdict = match rule.verdict {
                    OtherwiseVerdict::Skip => Verdict::Skip(because),
                    OtherwiseVerdict::DeadLetter => Verdict::DeadLetter(because),
                    OtherwiseVerdict::Retry => Verdict::Retry(because),
                };
                let evidence = json!({ "statement": statement + 1, "rows": rows, "otherwise": index + 1 });
                said(verdict, &evidence)
            }
            Self::Rows { statement, rows, otherwise: None } => {
                let expected = rows_text(route.statements[*statement].rows);
                let sentence =
                    format!("statement {} changed {rows} rows instead of {expected}", statement + 1);
                let evidence = json!({ "statement": statement + 1, "rows": rows, "expected": expected });
                said(Verdict::dead_letter(reason::ROWS_UNEXPECTED, sentence), &evidence)
            }
        }
    }
}

fn said(verdict: Verdict, evidence: &serde_json::Value) -> Outcome {
    Outcome::Said { verdict, evidence: Some(evidence.to_string().into()) }
}

fn rows_text(rows: RowRange) -> String {
    match rows {
        RowRange { min, max } if min == max => min.to_string(),
        RowRange { min, max: u64::MAX } => format!("{min} or more"),
        RowRange { min, max } => format!("{min} to {max}"),
    }
}

/// Keys held by a `Retry` earlier in the batch.
#[derive(Default)]
pub(crate) struct Held(HashSet<Box<str>>);

impl Held {
    /// Whether the event must wait behind its key.
    pub(crate) fn holds(&self, event: &EffectEvent) -> bool {
        !self.0.is_empty() && event.event.meta.key.as_ref().is_some_and(|key| self.0.contains(key))
    }

    /// Holds the event's key, if it has one and is to be retried. A replay is decided at once and holds
    /// nothing.
    pub(crate) fn note(&mut self, event: &EffectEvent, outcome: &Outcome) {
        if event.replay.is_some() {
            return;
        }
        if let (Outcome::Said { verdict: Verdict::Retry(_), .. }, Some(key)) =
            (outcome, &event.event.meta.key)
        {
            self.0.insert(key.clone());
        }
    }
}
