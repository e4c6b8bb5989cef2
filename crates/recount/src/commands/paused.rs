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
/// paused on the way waits for `recount resume`.
pub async fn watch(config: &Config, running: &Running) {
    let began_paused: Vec<bool> =
        running.flows.iter().map(|flow| flow.handle.stats().paused.is_some()).collect();
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
            say(config, flow, gives_up, &mut said);
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

fn say(config: &Config, flow: &RunningFlow, gives_up: bool, said: &mut BTreeMap<String, Instant>) {
    let name = flow.config.spec.flow.as_str();
    let Some(why) = flow.handle.stats().paused else {
        said.remove(name);
        return;
    };
    if said.get(name).is_some_and(|at| at.elapsed() < SAY_EVERY) && !gives_up {
        return;
    }
    said.insert(name.to_owned(), Instant::now());
    let resume =
        super::for_config(&format!("recount resume {name} --because 'why it may go on'"), &config.path);
    let then = match gives_up {
        true => format!("nothing was taken. First: {resume}; then run it again"),
        false => format!("it takes nothing until: {resume}"),
    };
    eprintln!("flow {name} is paused: {why}; {then}");
}
