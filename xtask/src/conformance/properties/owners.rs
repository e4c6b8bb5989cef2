//! A process is replaced while it can't notice.

use crate::conformance::account::Expected;
use crate::conformance::scene::{PATIENCE, Scene};
use anyhow::Result;
use rustix::process::Signal;

/// Frozen in the midst of it; another one takes over and does the rest; then it is woken.
pub fn frozen(scene: &mut Scene<'_>) -> Result<Vec<String>> {
    const EVENTS: u64 = 1200;
    scene.publish(0..EVENTS)?;
    scene.start()?;
    scene.settles(4)?;
    let mut frozen = scene.freeze_and_take_over()?;
    // Everything that there is, so that each partition has another owner.
    scene.until_decided(usize::try_from(EVENTS)?)?;
    let woken_at = scene.sql("SELECT clock_timestamp()")?;
    frozen.signal(Signal::CONT)?;
    scene.publish(EVENTS..EVENTS + 60)?;
    scene.until_decided(usize::try_from(EVENTS + 60)?)?;
    let mut faults = Vec::new();
    match frozen.ends_within(PATIENCE)? {
        Some(_) if frozen.says("another process took") => {}
        Some(_) => {
            faults.push(format!("the woken one ended without saying that it was replaced: {}", frozen.tail()))
        }
        None => faults.push(format!("the woken one goes on: {}", frozen.tail())),
    }
    let query = format!("SELECT count(*) FROM shipped WHERE writer = 'process_1' AND at > '{woken_at}'");
    let rows = scene.sql(&query)?;
    if rows != "0" {
        faults.push(format!("the woken one wrote {rows} effects"));
    }
    faults.extend(scene.stop_and_check(&Expected::applied(0..EVENTS + 60))?);
    Ok(faults)
}
