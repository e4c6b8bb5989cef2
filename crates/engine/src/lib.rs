//! The running flow: take, check, effect, decide, record, settle.
//!
//! Read it in the order of an event's life: [`source`] gives deliveries, [`feed`] takes and checks them
//! ahead, [`partition`] decides what goes into a batch, [`effect`] applies it in one transaction with the
//! record that [`plan`] makes, [`book`] writes the ledger, and only then is a delivery settled. [`start`]
//! says where all this begins after a crash, [`flow`] runs the partitions side by side.

pub mod book;
pub mod clock;
mod duplicates;
pub mod effect;
mod feed;
pub mod flow;
mod gate;
pub mod handler;
mod hold;
mod partition;
mod plan;
pub mod probe;
pub mod source;
pub mod spec;
mod start;
pub mod stats;
mod supervisor;
mod telling;

pub use book::{Book, Pending};
pub use clock::{Clock, SystemClock};
pub use effect::{
    Claim, Committed, Conclude, Conclusion, Effect, EffectBatch, EffectEvent, EffectFault, Outcome, Replay,
    Taken,
};
pub use flow::{FlowEnd, FlowHandle, FlowParts, start_flow};
pub use handler::{Handler, HandlerError, Transaction};
pub use partition::{ReplayEvent, ReplayFrom, ReplayReceipt};
pub use probe::{BatchOver, Guards, NoProbe, Probe, Step};
pub use source::{
    Capabilities, Delivery, Polled, ReportedVerdict, Settled, Source, SourceError, SourcePartition,
    SourceReader, TakeLimits,
};
pub use spec::{
    BreakerAction, BreakerSpec, EffectRows, FlowSpec, HoldSpec, OtherwiseRule, OtherwiseVerdict, RetrySpec,
    RowRange, SqlRoute, SqlStatement,
};
pub use start::{StartOptions, Stop};
pub use stats::{FlowCounts, FlowStats};
