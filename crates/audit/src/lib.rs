//! Counting again: witnesses, books, statements. Never imports the engine.
//!
//! [`audit`](count::audit) reads in this order: what an observed group has committed → the ledger's marks → the effects (one snapshot) → what was
//! published → the ledger's records up to those marks. Since the ledger is append-only, reading its records
//! last, but never past the marks, is the same as a snapshot taken before the effects'.
//!
//! Nothing is ever kept for each event: coverage is kept as ranges, and identity as sums of keyed hashes
//! for each [chunk](fingerprint::CHUNK_POSITIONS) of positions. Only a chunk whose sums differ is read
//! again, and then named.

mod beside;
pub mod beside_group;
mod beside_ids;
mod beside_report;
pub mod books;
pub mod budgets;
pub mod count;
mod effects;
pub mod fingerprint;
mod history;
mod identified;
pub mod inputs;
mod names;
mod published;
mod reconcile;
pub mod render;
pub mod report;
pub mod witness;
mod working;

pub use beside_group::{GroupLook, GroupLooks, GroupMove, GroupWitness, GroupWord, MoveKind};
pub use beside_report::{GroupPartition, GroupReport};
pub use books::{Books, books};
pub use budgets::{BudgetReport, Exceeded};
pub use count::audit;
pub use inputs::{AuditInputs, EffectsDeclared, FlowAudit, Identify, ReconcileAudit, ReconcileOf};
pub use report::{
    AuditReport, Equation, Finding, FlowReport, PartitionReport, ReasonReport, Statement, Strength,
};
pub use witness::{EffectSnapshot, EffectWitness, PositionRow, Published, SourceWitness, WitnessError};
