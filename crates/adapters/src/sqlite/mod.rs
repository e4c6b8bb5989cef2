//! Effects on SQLite, the arbiter that says what was applied, and a witness that counts again.
//!
//! - [`SqliteEffect`] runs a flow's statements or its Rust handler, a transaction a batch.
//! - [`open_arbiter`] gives effects without a transaction of their own a place for the arbiter's rows.
//! - [`SqliteWitness`] reads positions, effects and the user's own counts in one snapshot.

mod connect;
mod effect;
mod events;
mod faults;
mod handler;
mod inspect;
mod plan;
mod position;
mod replays;
mod schema;
mod settings;
mod witness;
mod worker;

pub use effect::{Examined, SqliteEffect, examine, open_arbiter};
pub use schema::{TABLES_FORMAT, tables_sql};
#[doc(hidden)]
pub use settings::SqliteGuards;
pub use settings::{SqliteEffectSettings, SqliteOpenError};
pub use witness::{
    EffectSummary, PositionRow, ReconcileRow, ReconcileSide, SqliteWitness, WitnessError, WitnessSnapshot,
};

pub(crate) use worker::Known;
