//! The nouns of Recount and [`decide`](decide::decide): no I/O, no clock, no async, next to no
//! dependencies.
//!
//! Everything that Recount says is said in these words. A type here can be built and compared in a test
//! without a broker, a database or a file.

pub mod amount;
pub mod batch;
pub mod budget;
pub mod decide;
pub mod decision;
pub mod event;
pub mod law;
pub mod offsets;
pub mod position;
pub mod reason;
pub mod time;
pub mod value;
pub mod verdict;

pub use amount::Amount;
pub use batch::{BatchRecord, Gap, GapKind, KeptBody};
pub use budget::{Budget, BudgetLimit, BudgetWindow};
pub use decision::{ConfigVersion, Corrects, Decision, Origin, PayloadHash};
pub use event::{Header, Meta};
pub use law::{BookCounts, BookStatus};
pub use offsets::OffsetSet;
pub use position::{Address, FlowName, Partition, PartitionId, Position, SourceId};
pub use reason::{Reason, ReasonCode};
pub use time::Timestamp;
pub use value::Value;
pub use verdict::{Fate, Verdict};
