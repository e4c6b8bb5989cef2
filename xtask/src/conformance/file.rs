//! A followed file.

use super::bench::Bench;
use super::event::Event;
use super::properties::Property;
use super::scene::Scene;
use anyhow::Result;
use std::fs::{self, File};
use std::io::Write;
use std::path::Path;

const NAME: &str = "orders.ndjson";

/// Lines are appended to it.
pub struct FileBench;

impl Bench for FileBench {
    fn config(&self, scene_folder: &Path) -> (String, String) {
        let path = scene_folder.join(NAME);
        (format!("{{ file = \"{}\", follow = true }}", path.display()), String::new())
    }

    fn lacks(&self, property: Property) -> Option<&'static str> {
        (property == Property::Restart).then_some("nothing serves a file")
    }

    fn publish(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        let mut file = File::options().create(true).append(true).open(scene.folder().join(NAME))?;
        file.write_all(Event::lines(events).as_bytes())?;
        Ok(())
    }

    fn make_anew(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        fs::remove_file(scene.folder().join(NAME))?;
        self.publish(scene, events)
    }
}
