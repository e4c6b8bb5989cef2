//! Bytes to event; schema and expressions: [`Checked<Event>`] or a refusal with a reason. Pure: no clock,
//! no network; the same bytes under the same rules give the same result.

pub mod event;
pub mod rules;

pub use event::{CheckResult, Checked, Event, RawEvent, Refused};
pub use rules::{CheckRule, Decode, FlowRules, MeasureRule, Otherwise, RouteRule, RuleFault};
