//! What came of one seed, and of many.

use crate::world::World;
use std::collections::BTreeMap;

/// What came of one seed.
#[derive(Debug, Clone)]
pub struct Report {
    /// The seed.
    pub seed: u64,
    /// The first invariant that was broken.
    pub violation: Option<String>,
    /// Faults and other things that occurred, by name.
    pub counts: BTreeMap<String, u64>,
    /// Two runs of a seed have the same.
    pub trace: u64,
    /// The last steps, where they were asked for.
    pub steps: Vec<String>,
    /// Events that were published.
    pub events: u64,
    /// Operations of the file system.
    pub operations: u64,
}

impl Report {
    pub(crate) fn broken(seed: u64, violation: String) -> Self {
        Self {
            seed,
            violation: Some(violation),
            counts: BTreeMap::new(),
            trace: 0,
            steps: Vec::new(),
            events: 0,
            operations: 0,
        }
    }

    pub(crate) fn of(seed: u64, world: &World) -> Self {
        let (violation, mut counts) = {
            let inner = world.lock();
            (inner.violation.clone(), inner.counts.clone())
        };
        for record in world.lock().history.values() {
            for decision in &record.decisions {
                let code = decision.fate.reason().map_or("", |reason| reason.code.as_str());
                let name = format!("decided: {} {code}", decision.fate.word());
                *counts.entry(name.trim_end().to_owned()).or_default() += 1;
            }
        }
        Self {
            seed,
            violation,
            counts,
            trace: world.files.trace(),
            steps: world.steps(),
            events: world.items.iter().map(|items| items.len() as u64).sum(),
            operations: world.files.counts().operations,
        }
    }
}

/// What came of many seeds.
#[derive(Debug, Clone, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// The first failure.
    pub failure: Option<Report>,
    /// Summed over all seeds.
    pub counts: BTreeMap<String, u64>,
    /// Events that were published.
    pub events: u64,
    /// Operations of the file system.
    pub operations: u64,
    /// How long it took.
    pub seconds: f64,
}

impl Summary {
    pub(crate) fn add(&mut self, report: &Report) {
        self.seeds += 1;
        self.events += report.events;
        self.operations += report.operations;
        for (name, times) in &report.counts {
            *self.counts.entry(name.clone()).or_default() += times;
        }
    }
}
