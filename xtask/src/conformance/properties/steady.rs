//! Nothing crashes: order, retry, and an end that was asked for.

use super::{USUAL, asked};
use crate::conformance::account::Expected;
use crate::conformance::event::{Event, KEYS};
use crate::conformance::handler::Answer;
use crate::conformance::scene::Scene;
use anyhow::{Result, bail};

/// Half of it there before the process, half published while it runs.
pub fn order(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..300)?;
    scene.start()?;
    scene.until_decided(100)?;
    scene.publish(300..600)?;
    scene.until_decided(600)?;
    scene.stop_and_check(&Expected::applied(0..600))
}

const EVENTS: u64 = 60;
/// Applied at the third attempt.
const LATE: u64 = 8;
/// At the second.
const SOON: u64 = 31;
/// At none of the four.
const NEVER: u64 = 15;

/// What the handler of [`retry`] answers.
pub fn retried(number: u64, times: u32) -> Answer {
    match (number, times) {
        (LATE, 1 | 2) | (SOON, 1) | (NEVER, _) => Answer::Retry,
        _ => USUAL,
    }
}

/// Three keys with an event that is not taken at once.
pub fn retry(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..EVENTS)?;
    scene.start()?;
    scene.until_decided(usize::try_from(EVENTS)?)?;
    let applied = (0..EVENTS).filter(|number| *number != NEVER);
    let expected = Expected { dead: vec![(NEVER, "retries_exhausted")], ..Expected::applied(applied) };
    let mut faults = scene.stop_and_check(&expected)?;
    for (number, times) in [(LATE, 3), (SOON, 2), (NEVER, 4)] {
        let found = asked(scene, number);
        if found != times {
            faults.push(format!("event {number} was tried {found} times, must be {times}"));
        }
    }
    // Events of other keys that came later went ahead of the one that was held.
    let ahead = scene.sql(&format!(
        "SELECT count(*) FROM shipped WHERE number > {LATE} AND number % {KEYS} <> {LATE} % {KEYS} \
         AND seq < (SELECT seq FROM shipped WHERE number = {LATE})"
    ))?;
    if ahead == "0" {
        faults.push(format!("nobody went ahead of event {LATE}, which was held"));
    }
    Ok(faults)
}

/// Asked to end in the midst of it, and run again.
pub fn drain(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    const EVENTS: u64 = 4000;
    scene.publish(0..EVENTS)?;
    scene.start()?;
    scene.settles(5)?;
    scene.stop()?;
    let (effects, decided) = (scene.effects_now()?, scene.decided()? as u64);
    if effects == 0 || effects >= EVENTS {
        bail!("{effects} of {EVENTS} events had their effect when it was to be stopped on the way");
    }
    let mut faults = Vec::new();
    if effects != decided {
        faults.push(format!("after the drain there are {effects} effects and {decided} decisions"));
    }
    scene.start()?;
    scene.until_decided(usize::try_from(EVENTS)?)?;
    faults.extend(scene.stop_and_check(&Expected::applied(0..EVENTS))?);
    Ok(faults)
}

/// The first, one amid the others and the last, from the source: the ledger keeps no bytes of applied events.
pub fn again(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..120)?;
    scene.start()?;
    scene.until_decided(120)?;
    let mut faults = scene.stop_and_check(&Expected::applied(0..120))?;
    for number in [0, 67, 119] {
        let folder = format!("again-{number}");
        let finished = scene.recount(&["reproduce", &format!("e-{number}"), "--to", &folder])?;
        let mut bytes = Vec::new();
        for entry in std::fs::read_dir(scene.of_process().join(&folder)).into_iter().flatten() {
            let path = entry?.path();
            if path.is_file() {
                bytes.extend(std::fs::read(path)?);
            }
        }
        let published = Event(number).line();
        if !bytes.windows(published.len()).any(|at| at == published.as_bytes()) {
            faults.push(format!("event {number} is not read again as it was published: {}", finished.tail()));
        }
    }
    Ok(faults)
}
