//! A run whose flows are paused: it says why nothing happens, and does not wait for ever where nothing can.

use crate::config::{Config, SourceConfig};
use crate::wiring::{Running, RunningFlow};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Between two times that the same is said.
const SAY_EVERY: Duration = Duration::from_secs(30);

/// Says on standard error, now and then, which flows are paused, until every flow has ended. Flows that were
/// paused when the run began are shut down as soon as only such are left, unless one of them has a source
/// without an end: a script that runs a file is not to wait for somebody who may never come. A flow that is
/// paused on the way waits for `recount resume`, but not in a dry run, which nobody can resume.
pub async fn watch(config: &Config, running: &Running, is_dry: bool) {
    let began_paused: Vec<bool> =
        running.flows.iter().map(|flow| is_dry || flow.handle.stats().paused.is_some()).collect();
    let mut said: BTreeMap<String, Instant> = BTreeMap::new();
    loop {
        let left: Vec<(&RunningFlow, bool)> = running
            .flows
            .iter()
            .zip(began_paused.iter().copied())
            .filter(|(flow, _)| flow.handle.ended().is_none())
            .collect();
        if left.is_empty() {
            return;
        }
        let gives_up = left.iter().all(|(flow, began_paused)| *began_paused && stands_still(flow));
        for (flow, _) in &left {
            let then = Then::of(gives_up, is_dry);
            say(config, flow, then, &mut said);
        }
        if gives_up {
            left.iter().for_each(|(flow, _)| flow.handle.shut_down());
            return;
        }
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

/// Paused, and nothing more will come.
fn stands_still(flow: &RunningFlow) -> bool {
    let is_finite = match &flow.config.source {
        SourceConfig::File { follow, .. } => !follow,
        SourceConfig::Stdin => true,
        SourceConfig::Http { .. } | SourceConfig::Kafka { .. } => false,
    };
    is_finite && flow.handle.stats().paused.is_some()
}

/// What becomes of a flow that is paused.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It waits for somebody.
    Waits,
    /// The run ends.
    Ends,
    /// The dry run ends: there is nothing to resume.
    DryEnds,
}

impl Then {
    fn of(gives_up: bool, is_dry: bool) -> Self {
        match (gives_up, is_dry) {
            (true, true) => Self::DryEnds,
            (true, false) => Self::Ends,
            (false, _) => Self::Waits,
        }
    }
}

fn say(config: &Config, flow: &RunningFlow, then: Then, said: &mut BTreeMap<String, Instant>) {
    let name = flow.config.spec.flow.as_str();
    let Some(why) = flow.handle.stats().paused else {
        said.remove(name);
        return;
    };
    if said.get(name).is_some_and(|at| at.elapsed() < SAY_EVERY) && then == Then::Waits {
        return;
    }
    said.insert(name.to_owned(), Instant::now());
    let resume =
        super::for_config(&format!("recount resume {name} --because 'why it may go on'"), &config.path);
    let then = match then {
        Then::Ends => format!("nothing was taken. First: {resume}; then run it again"),
        Then::DryEnds => "a run would wait here for somebody, the dry run ends here".to_owned(),
        Then::Waits => format!("it takes nothing until: {resume}"),
    };
    eprintln!("flow {name} is paused: {why}; {then}");
}
