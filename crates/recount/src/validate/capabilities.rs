//! What the source of a flow declares; `cargo xtask conformance` holds it to that.

use crate::config::SourceConfig;
use recount_adapters::embedded_log::LogSource;
use recount_adapters::file::FileSource;
use recount_engine::Capabilities;
use serde::Serialize;

/// The same as the engine's, as it is printed.
#[derive(Debug, Clone, Serialize)]
pub(super) struct SourceCan {
    ordered: bool,
    positions: bool,
    redelivers: bool,
    replayable: bool,
    tells_lost: bool,
    commits_offset: bool,
}

impl From<Capabilities> for SourceCan {
    fn from(can: Capabilities) -> Self {
        let Capabilities { ordered, positions, redelivers, replayable, tells_lost, commits_offset } = can;
        Self { ordered, positions, redelivers, replayable, tells_lost, commits_offset }
    }
}

/// Of the source that a flow would be given.
pub(super) fn of(source: &SourceConfig) -> Option<SourceCan> {
    let can = match source {
        SourceConfig::File { .. } => FileSource::CAPABILITIES,
        SourceConfig::Stdin | SourceConfig::Http { .. } => LogSource::CAPABILITIES,
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka { .. } => recount_adapters::kafka::KafkaSource::CAPABILITIES,
        #[cfg(not(feature = "kafka"))]
        SourceConfig::Kafka { .. } => return None,
    };
    Some(can.into())
}
