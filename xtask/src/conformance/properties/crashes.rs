//! Processes and servers end without a word.

use super::{USUAL, asked};
use crate::conformance::account::Expected;
use crate::conformance::event::Event;
use crate::conformance::handler::Answer;
use crate::conformance::scene::Scene;
use anyhow::{Result, bail};
use std::rc::Rc;

/// Four kills, each some batches on.
pub fn crash(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    const EVENTS: u64 = 1200;
    scene.publish(0..EVENTS)?;
    for batches in [2, 5, 3, 4] {
        scene.start()?;
        scene.settles(batches)?;
        scene.kill()?;
    }
    if scene.effects_now()? >= EVENTS {
        bail!("all {EVENTS} events had their effect before the last kill");
    }
    scene.start()?;
    scene.until_decided(usize::try_from(EVENTS)?)?;
    scene.stop_and_check(&Expected::applied(0..EVENTS))
}

const EVENTS: u64 = 24;
const POISON: u64 = 14;
/// Killed from outside while they are under way, once each.
const STRUCK: std::ops::RangeInclusive<u64> = 2..=4;

/// What the handler of [`poison`] answers.
pub fn poisoned(number: u64, times: u32) -> Answer {
    match number {
        POISON => Answer::Killed,
        number if STRUCK.contains(&number) && times == 1 => Answer::KilledAfterwards,
        _ => USUAL,
    }
}

/// One event kills the process whenever it is tried; before it, three good ones have bad luck.
pub fn poison(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..EVENTS)?;
    let total = usize::try_from(EVENTS)?;
    let mut starts = 0;
    loop {
        scene.start()?;
        starts += 1;
        match scene.until_decided(total) {
            Ok(()) => break,
            // As a supervisor would; the kills end at some time.
            Err(_) if starts < 12 && scene.decided()? < total => scene.process = None,
            Err(error) => return Err(error.context(format!("started {starts} times"))),
        }
    }
    let applied = (0..EVENTS).filter(|number| *number != POISON);
    let expected = Expected { dead: vec![(POISON, "killed_the_process")], ..Expected::applied(applied) };
    let mut faults = scene.stop_and_check(&expected)?;
    // At most once in company, which proves nothing, and three times alone.
    let tried = asked(scene, POISON);
    if !(3..=4).contains(&tried) {
        faults.push(format!("the event that kills was tried {tried} times, must be three times alone"));
    }
    for number in STRUCK {
        if asked(scene, number) < 2 {
            faults.push(format!("event {number}, struck from outside, was not tried again"));
        }
    }
    Ok(faults)
}

/// Published while what serves the source crashes and comes back.
pub fn restart(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    const EVENTS: u64 = 400;
    scene.start()?;
    let events = Event::all(0..EVENTS);
    let bench = Rc::clone(&scene.bench);
    bench.publish_through_restart(scene, &events)?;
    scene.until_decided(usize::try_from(EVENTS)?)?;
    scene.stop_and_check(&Expected { sent_again: true, ..Expected::applied(0..EVENTS) })
}
