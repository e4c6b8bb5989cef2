//! What the statements of one event came to, in the words that every form of running them shares.

use super::plan::RoutePlan;
use crate::sql::{applied, otherwise_held, rows_unexpected, said, verdict_of, without_values};
use recount_engine::{EffectEvent, Outcome};
use recount_model::{Verdict, reason};
use serde_json::json;

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
            Self::Applied => applied(),
            Self::Failed { place: place_of, state, message } => {
                let place = match place_of {
                    Place::Statement(index) => format!("statement {}", index + 1),
                    Place::When(index) => format!("the `when` of otherwise {}", index + 1),
                };
                let message = without_values(message, &route.params, &event.event.params);
                let declared = match place_of {
                    Place::Statement(_) => route.for_state(state),
                    Place::When(_) => None,
                };
                if let Some(index) = declared {
                    let evidence =
                        json!({ "sqlstate": state, "message": message, "at": place, "otherwise": index + 1 });
                    return said(verdict_of(&route.otherwise[index].rule), &evidence);
                }
                let sentence = format!("{place} failed: {message} (SQLSTATE {state})");
                let evidence = json!({ "sqlstate": state, "message": message, "at": place });
                said(Verdict::dead_letter(reason::STATEMENT_FAILED, sentence), &evidence)
            }
            Self::Rows { statement, rows, otherwise: Some(index) } => {
                otherwise_held(*statement, *rows, *index, &route.otherwise[*index].rule)
            }
            Self::Rows { statement, rows, otherwise: None } => {
                rows_unexpected(*statement, *rows, route.statements[*statement].rows)
            }
        }
    }
}
