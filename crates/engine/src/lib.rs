//! The running flow: take, check, effect, decide, record, settle.

pub mod effect;
pub mod handler;
pub mod source;
pub mod spec;

pub use effect::{
    Claim, Committed, Conclude, Conclusion, Effect, EffectBatch, EffectEvent, EffectFault, Outcome, Taken,
};
pub use handler::{Handler, HandlerError, Transaction};
pub use source::{
    Capabilities, Delivery, Polled, Source, SourceError, SourcePartition, SourceReader, TakeLimits,
};
pub use spec::{
    BreakerAction, BreakerSpec, EffectRows, FlowSpec, HoldSpec, OtherwiseRule, OtherwiseVerdict, RetrySpec,
    RowRange, SqlRoute, SqlStatement,
};
