//! Files of lines as a source: `source = { file = "orders.ndjson" }`, a folder, or a pattern.
//!
//! A line's ordinal, from 0, is its offset. Blank lines are positions too, passed over as not-an-event. A
//! last line without a newline is an event, unless the file is followed: then it waits for its newline. (A
//! line that was taken so and is continued later can't be told from one that was complete, except by a
//! reader that follows from there.)
//!
//! Plain files, gzip and zstd are told apart by their first bytes. Files are read sequentially with plain
//! blocking reads, at most [`TAKE_BYTES_MAX`] for each turn that a take gets from the runtime; opening far
//! inside a file skips lines at the speed of the disk, or of the decoder.

mod content;
mod identity;
mod lines;
mod listing;
mod reader;
mod resolve;
mod rotation;
pub mod sample;
mod watch;
pub mod witness;

pub(crate) use identity::head_of;
pub use identity::{FileId, IDENTITY_BYTES_MAX, Sameness, same_incarnation};
pub use listing::FILES_MAX;
pub use reader::TAKE_BYTES_MAX;

use async_trait::async_trait;
pub(crate) use listing::Place;
use recount_engine::{Capabilities, Source, SourceError, SourcePartition, SourceReader};
use recount_model::{Partition, SourceId};
use resolve::Shared;
use std::path::PathBuf;
use std::sync::Arc;

/// An incarnation that the flow has decided about, from its ledger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KnownFile {
    /// The recorded id.
    pub source: SourceId,
    /// The partition's name.
    pub partition: Partition,
    /// The first offset that isn't decided.
    pub next_offset: u64,
}

/// What a file source is made of.
#[derive(Debug, Clone)]
pub struct FileSettings {
    /// A file, a folder, or a pattern with `*` and `?` in its last part.
    pub path: PathBuf,
    /// Waits for what is appended, instead of ending at the end.
    pub follow: bool,
    /// How often a followed file is looked at.
    pub poll_interval_ms: u64,
    /// Reads what was read before as a new incarnation, from its first line.
    pub again: bool,
    /// Incarnations decided before, newest last.
    pub known: Vec<KnownFile>,
}

impl FileSettings {
    /// How often a followed file is looked at unless said otherwise.
    pub const POLL_INTERVAL_MS: u64 = 250;

    /// Reads `path` once, from its first line.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            follow: false,
            poll_interval_ms: Self::POLL_INTERVAL_MS,
            again: false,
            known: Vec::new(),
        }
    }
}

/// Files of lines as a source. See the [module](self).
///
/// An empty file has no identity and is no partition yet: without `follow` there is nothing to read, with
/// it `partitions` lists the file once its first line is there, and is [`Away`](SourceError::Away) while no
/// file has one, or the file doesn't exist. A file at a known place that begins otherwise than recorded, or has become
/// shorter, is [`Changed`](SourceError::Changed), unless it took the place of a renamed predecessor that was
/// decided to its end.
#[derive(Debug)]
pub struct FileSource {
    settings: FileSettings,
    shared: Arc<Shared>,
}

impl FileSource {
    /// What it can do.
    pub const CAPABILITIES: Capabilities = Capabilities {
        ordered: true,
        positions: true,
        redelivers: true,
        replayable: true,
        tells_lost: false,
        commits_offset: false,
    };

    /// Fails with `Broken` for standard input, which is spooled first: see
    /// [`StdinSource`](crate::embedded_log::StdinSource).
    pub fn new(settings: FileSettings) -> Result<Self, SourceError> {
        if settings.path.as_os_str() == "-" {
            return Err(SourceError::Broken(
                "standard input is not a file: it is spooled to the embedded log first".to_owned(),
            ));
        }
        Ok(Self { settings, shared: Arc::new(Shared::default()) })
    }
}

#[async_trait]
impl Source for FileSource {
    fn capabilities(&self) -> Capabilities {
        Self::CAPABILITIES
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        let place = Place::of_path(&self.settings.path)?;
        resolve::partitions(&self.settings, &self.shared, &place)
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        let path = self.shared.place_of(&partition.partition, &partition.source).ok_or_else(|| {
            SourceError::Changed(format!(
                "partition {} of {} is not at {} now",
                partition.partition,
                partition.source,
                self.settings.path.display()
            ))
        })?;
        let reader = reader::FileReader::open(
            &self.settings,
            Arc::clone(&self.shared),
            reader::Target { source: partition.source.clone(), partition: partition.partition.clone(), path },
            next_offset,
        )?;
        Ok(Box::new(reader))
    }
}
