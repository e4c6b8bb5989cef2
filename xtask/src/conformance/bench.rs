//! What the suite needs of a source: all that differs from one to another. A new source is one more file
//! with a `Bench`, and one more line in [`Source`].

use super::event::Event;
use super::properties::Property;
use super::scene::Scene;
use super::{file, http, kafka};
use anyhow::{Result, bail};
use recount_services::Kafka;
use std::rc::Rc;

/// The sources under test.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum Source {
    /// A followed file.
    File,
    /// Requests, kept in the embedded log.
    Http,
    /// A topic.
    Kafka,
}

impl Source {
    /// Every one, in the order of the table.
    pub const ALL: [Self; 3] = [Self::File, Self::Http, Self::Kafka];

    /// As it is called in the table.
    pub fn name(self) -> &'static str {
        match self {
            Self::File => "file",
            Self::Http => "http",
            Self::Kafka => "kafka",
        }
    }

    /// A source of its own for one property.
    pub fn bench<'a>(self, property: Property, kafka: Option<&'a Kafka>) -> Result<Rc<dyn Bench + 'a>> {
        Ok(match (self, kafka) {
            (Self::File, _) => Rc::new(file::FileBench),
            (Self::Http, _) => Rc::new(http::HttpBench),
            (Self::Kafka, Some(kafka)) => Rc::new(kafka::KafkaBench::new(kafka, property)?),
            (Self::Kafka, None) => bail!("RECOUNT_WITHOUT leaves Kafka out"),
        })
    }
}

/// One source, for one property.
pub trait Bench {
    /// The config's `source = …`, and further tables. Paths are those of the scene, the same for each process.
    fn config(&self, scene_folder: &std::path::Path) -> (String, String);

    /// Why a property can't be asked of this source, beyond what it declares; most can.
    fn lacks(&self, _: Property) -> Option<&'static str> {
        None
    }

    /// Publishes in this order, to the process that runs where the source is one; returns once all of it is
    /// acknowledged.
    fn publish(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()>;

    /// Publishes while what serves the source ends without a word and comes back, in the midst of it. Each
    /// event is sent until it is acknowledged, so one may be there more than once.
    fn publish_through_restart(&self, _: &mut Scene<'_>, _: &[Event]) -> Result<()> {
        bail!("nothing of this source restarts")
    }

    /// Takes away the first so many of those that were not taken yet, as retention would. Nothing runs.
    fn overtake(&self, _: &Scene<'_>, _: u64) -> Result<()> {
        bail!("nothing of this source is taken away")
    }

    /// Puts another source with these events in its place, under the same name. Nothing runs.
    fn make_anew(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()>;

    /// Moves the offset that the broker keeps for the flow's group. Nothing runs.
    fn move_offset(&self, _: &Scene<'_>, _: u64) -> Result<()> {
        bail!("nobody keeps an offset for this source")
    }
}
