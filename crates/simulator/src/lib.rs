//! The production loop, real SQLite and the real ledger over a file system that fails on purpose; every
//! fault and every moment comes from a seed.
//!
//! Read it from the outside in: [`run_many`] runs seeds; `run` takes one seed through several lives of the
//! program; `life` is one of them, driven by what [`plan`] drew; `watched` and `supply` stand between the
//! engine and the real effect, ledger and source; [`vfs`] is what all of them write to; `verify` is the
//! reckoning.

mod chore;
mod life;
mod mend;
mod observe;
pub mod options;
pub mod plan;
pub mod report;
pub mod rng;
mod run;
pub mod sabotage;
mod scene;
mod supply;
mod verify;
pub mod vfs;
mod watched;
mod world;

pub use chore::{run_many, run_one, simulate};
pub use options::{Arguments, Options};
pub use report::{Report, Summary};
pub use sabotage::Sabotage;
