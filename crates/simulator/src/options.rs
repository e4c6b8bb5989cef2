//! What a simulation is asked for.

use crate::sabotage::Sabotage;
use std::time::Duration;

/// Options of one seed.
#[derive(Debug, Clone)]
pub struct Options {
    /// A guard that is taken away.
    pub sabotage: Option<Sabotage>,
    /// Whether the last steps are written down, for a failure.
    pub is_traced: bool,
    /// A world publishes at least so many events …
    pub events_min: u64,
    /// … and at most so many.
    pub events_max: u64,
}

impl Default for Options {
    fn default() -> Self {
        Self { sabotage: None, is_traced: false, events_min: 30, events_max: 220 }
    }
}

/// What `cargo xtask simulate` is asked for.
#[derive(Debug, Clone)]
pub struct Arguments {
    /// The first seed.
    pub first_seed: u64,
    /// How many seeds.
    pub seeds: u64,
    /// Only this seed, twice, with its last steps.
    pub seed: Option<u64>,
    /// No new seed is begun after this time.
    pub time_max: Option<Duration>,
    /// A guard that is taken away; then a failure is what is wanted.
    pub sabotage: Option<Sabotage>,
    /// Print one JSON object on the last line.
    pub json: bool,
}

impl Default for Arguments {
    fn default() -> Self {
        Self { first_seed: 1, seeds: 10_000, seed: None, time_max: None, sabotage: None, json: false }
    }
}
