//! Sources as the config names them.

use super::{RunOptions, ledger_failure, now};
use crate::config::{Config, FlowConfig, SourceConfig};
use crate::exit::Failure;
use async_trait::async_trait;
use recount_adapters::embedded_log::{
    EmbeddedLog, LogSettings, LogSource, LogSourceSettings, StdinSettings, StdinSource,
};
use recount_adapters::file::{FileSettings, FileSource, KnownFile};
use recount_adapters::http_source::{Auth, HttpSettings, Secret, router};
use recount_engine::{Book, Capabilities, Source, SourceError, SourcePartition, SourceReader};
use recount_ledger::LedgerStore;
use recount_model::{FlowName, PartitionId};
use std::path::PathBuf;
use std::sync::Arc;

/// A partition that the ledger knows, and how far it is there.
#[derive(Debug, Clone)]
pub struct KnownPartition {
    /// The partition.
    pub at: PartitionId,
    /// The first offset that isn't decided.
    pub next_offset: u64,
}

/// What the ledger knows of a flow's partitions, oldest first.
pub fn known(ledger: &mut dyn LedgerStore, flow: &FlowName) -> Result<Vec<KnownPartition>, Failure> {
    let partitions = ledger.partitions(flow).map_err(ledger_failure)?;
    let mut known = Vec::with_capacity(partitions.len());
    for at in partitions {
        let mark = ledger.mark(&at).map_err(ledger_failure)?;
        known.push(KnownPartition { at, next_offset: mark.map_or(0, |mark| mark.next_offset) });
    }
    Ok(known)
}

/// Where the embedded log of a flow lies.
pub fn log_path(config: &Config, flow: &FlowConfig) -> PathBuf {
    EmbeddedLog::path_in(&config.ledger.path, flow.spec.flow.as_str())
}

/// Opens a flow's embedded log.
pub fn open_log(config: &Config, flow: &FlowConfig) -> Result<EmbeddedLog, Failure> {
    EmbeddedLog::open(&log_path(config, flow), LogSettings::default()).map_err(Failure::unreachable)
}

pub(super) fn open(
    config: &Config,
    flow: &FlowConfig,
    known: Vec<KnownPartition>,
    options: RunOptions,
    book: &Book,
    routes: &mut Vec<axum::Router>,
) -> Result<Arc<dyn Source>, Failure> {
    if !options.read_sources {
        return Ok(Arc::new(NotRead));
    }
    let log_settings = || {
        let recorded = known.last().map(|known| known.at.source.clone());
        LogSourceSettings { recorded, ..LogSourceSettings::default() }
    };
    match &flow.source {
        SourceConfig::File { path, follow } => {
            let known_file = |known: &KnownPartition| KnownFile {
                source: known.at.source.clone(),
                partition: known.at.partition.clone(),
                next_offset: known.next_offset,
            };
            let settings = FileSettings {
                follow: *follow,
                again: options.again,
                known: known.iter().map(known_file).collect(),
                ..FileSettings::new(path)
            };
            Ok(Arc::new(FileSource::new(settings).map_err(Failure::usage)?))
        }
        SourceConfig::Stdin => {
            let settings = StdinSettings {
                payload_bytes_max: flow.spec.take.payload_bytes_max,
                clock: Arc::new(now),
                source: log_settings(),
            };
            let source = StdinSource::start(std::io::stdin(), open_log(config, flow)?, settings);
            Ok(Arc::new(source.map_err(Failure::not_well)?))
        }
        SourceConfig::Http { path } => {
            let log = open_log(config, flow)?;
            let settings = HttpSettings {
                auth: auth(config)?,
                body_bytes_max: config.server.body_bytes_max,
                any_content_type: flow.rules.decode != recount_checks::Decode::Json,
                ..HttpSettings::new(flow.spec.flow.clone(), path.clone(), Arc::new(now))
            };
            routes.push(router(settings, log.clone()).map_err(Failure::usage)?);
            Ok(Arc::new(LogSource::new(log, log_settings())))
        }
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka { .. } => super::kafka::source(config, flow, &known, options, book),
        #[cfg(not(feature = "kafka"))]
        SourceConfig::Kafka { .. } => {
            let _ = book;
            Err(Failure::usage("this build of recount has no Kafka"))
        }
    }
}

/// What requests must show, as the config says.
pub fn auth(config: &Config) -> Result<Auth, Failure> {
    let secret = |secret: &crate::config::Secret| {
        let text = secret.resolve().map_err(Failure::usage)?;
        Secret::new(text.expose()).ok_or_else(|| Failure::usage("the server's token or key is empty: set it"))
    };
    match (&config.server.token, &config.server.hmac) {
        (Some(token), _) => Ok(Auth::Bearer(secret(token)?)),
        (None, Some(key)) => Ok(Auth::Hmac(secret(key)?)),
        (None, None) => Ok(Auth::None),
    }
}

/// Stands in for a source where a command only decides anew what was delivered before.
struct NotRead;

#[async_trait]
impl Source for NotRead {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            ordered: true,
            positions: true,
            redelivers: false,
            replayable: false,
            tells_lost: false,
            commits_offset: false,
        }
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        Ok(Vec::new())
    }

    async fn open(&self, _: &SourcePartition, _: u64) -> Result<Box<dyn SourceReader>, SourceError> {
        Err(SourceError::Broken("this command does not read the source".to_owned()))
    }
}
