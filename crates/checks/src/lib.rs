//! Bytes to event; schema and expressions: [`Checked<Event>`] or a refusal with a reason. Pure: no clock,
//! no network; the same bytes under the same rules give the same result.

mod compile;
mod decode;
pub mod event;
mod evidence;
pub mod expr;
pub mod flow;
pub mod rules;
mod schema;
mod schema_paths;
mod secret;
mod values;

pub use event::{CheckResult, Checked, Event, RawEvent, Refused};
pub use expr::{fields_named, reads_any_of};
pub use flow::FlowChecks;
pub use rules::{CheckRule, Decode, FlowRules, MeasureRule, Otherwise, RouteRule, RuleFault};
pub use schema_paths::path_in_schema;
pub use values::payload_hash;
