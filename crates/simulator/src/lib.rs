//! The production loop, real SQLite and the real ledger over a file system that fails on purpose; every
//! fault and every moment comes from a seed.

pub mod rng;
pub mod vfs;
