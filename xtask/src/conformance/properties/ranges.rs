//! What the source holds is not what it held.

use crate::conformance::account::Expected;
use crate::conformance::event::Event;
use crate::conformance::scene::Scene;
use anyhow::Result;

/// Retention takes some events before they were taken.
pub fn unread(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..30)?;
    scene.start()?;
    scene.until_decided(30)?;
    scene.stop()?;
    scene.publish(30..50)?;
    scene.bench.overtake(scene, 12)?;
    scene.start()?;
    scene.until_decided(38)?;
    scene.stop_and_check(&Expected { lost: 12, ..Expected::applied((0..30).chain(42..50)) })
}

/// Another source stands at its place: nothing of it is taken.
pub fn anew(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..20)?;
    scene.start()?;
    scene.until_decided(20)?;
    scene.stop()?;
    scene.bench.make_anew(scene, &Event::all(100..130))?;
    let (code, summary) = scene.run_to_its_end()?;
    let mut faults = Vec::new();
    let stop = &summary["flows"][0]["stops"][0];
    if code != Some(1) || stop["reason"] != "source_changed" {
        faults.push(format!(
            "it must stop with exit code 1 and source_changed, and ended with {code:?}: {stop}; {}",
            scene.tail()
        ));
    }
    faults.extend(scene.check_effects(&Expected::applied(0..20))?);
    let decided = scene.decided()?;
    if decided != 20 {
        faults.push(format!("{decided} positions are decided, must be the 20 of the first source"));
    }
    Ok(faults)
}

/// The group is moved beyond events that were not taken.
pub fn moved(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    scene.publish(0..20)?;
    scene.start()?;
    scene.until_decided(20)?;
    scene.stop()?;
    scene.publish(20..40)?;
    scene.bench.move_offset(scene, 35)?;
    scene.start()?;
    scene.until_decided(40)?;
    let told = scene.process.as_ref().is_some_and(|process| process.says("offset_moved_outside"));
    let mut faults = scene.stop_and_check(&Expected::applied(0..40))?;
    if !told {
        faults.push(format!("nobody is told that the offset was moved: {}", scene.tail()));
    }
    Ok(faults)
}
