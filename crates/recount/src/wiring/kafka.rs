//! Topics as the config names them, where this build has Kafka.

use super::source::KnownPartition;
use super::{RunOptions, now};
use crate::config::{BrokerConfig, Config, FlowConfig, FlowMode, SourceConfig, StartAt};
use crate::exit::Failure;
use recount_adapters::kafka::{
    KafkaBroker, KafkaSettings, KafkaSource, KafkaSourceWitness, KafkaStart, Membership, Told,
};
use recount_audit::{Published, SourceWitness, WitnessError};
use recount_checks::RawEvent;
use recount_engine::{Book, Source};
use recount_ledger::{JournalEntry, JournalKind};
use recount_model::{FlowName, PartitionId, Timestamp};
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

/// A flow's topic as a source.
pub(super) fn source(
    config: &Config,
    flow: &FlowConfig,
    known: &[KnownPartition],
    options: RunOptions,
    book: &Book,
) -> Result<Arc<dyn Source>, Failure> {
    let SourceConfig::Kafka { broker: name, topic, group, start, .. } = &flow.source else {
        return Err(Failure::usage(format!("flow {}: its source is not a topic", flow.spec.flow)));
    };
    let settings = KafkaSettings {
        group: group.clone(),
        membership: membership(config, flow)?,
        start: start.map(kafka_start),
        known: known.iter().map(|known| known.at.clone()).collect(),
        again: options.again,
        tell: teller(flow.spec.flow.clone(), book.clone()),
        ..KafkaSettings::new(broker(config, name)?, topic, "")
    };
    let source = KafkaSource::new(settings);
    Ok(Arc::new(source.map_err(|error| Failure::usage(format!("broker {name}: {error}")))?))
}

/// Whether other processes may have a part of the flow's topic.
fn is_shared(config: &Config, flow: &FlowConfig) -> bool {
    config.ledger.database.is_some() && flow.mode == FlowMode::Run
}

/// Who this process is in the flow's group, where it shares the topic with others.
pub(super) fn membership(config: &Config, flow: &FlowConfig) -> Result<Option<Membership>, Failure> {
    let SourceConfig::Kafka { group: Some(_), member, .. } = &flow.source else { return Ok(None) };
    if !is_shared(config, flow) {
        return Ok(None);
    }
    let name = &flow.spec.flow;
    let member = match member {
        Some(member) => crate::config::expand_env(member)
            .map_err(|error| Failure::usage(format!("flow {name}: `member`: {error}")))?,
        None => format!("{}-{name}", member_of_folder(&config.ledger.path)?),
    };
    match member.trim().is_empty() {
        true => Err(Failure::usage(format!(
            "flow {name}: `member` is empty: each process needs a name of its own"
        ))),
        false => Ok(Some(Membership { member })),
    }
}

/// The id that a ledger's folder keeps for its process: it survives the process, so that whoever starts again in the
/// folder is the same member.
fn member_of_folder(folder: &Path) -> Result<String, Failure> {
    let path = folder.join("member");
    let refused = |error: std::io::Error| Failure::unreachable(format!("{}: {error}", path.display()));
    match std::fs::read_to_string(&path) {
        Ok(kept) if !kept.trim().is_empty() => return Ok(kept.trim().to_owned()),
        Ok(_) => {}
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
        Err(error) => return Err(refused(error)),
    }
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes[..], rustix::rand::GetRandomFlags::empty())
        .map_err(|error| refused(error.into()))?;
    let member = format!("recount-{:016x}", u64::from_be_bytes(bytes));
    std::fs::create_dir_all(folder).map_err(refused)?;
    let new = folder.join("member.new");
    std::fs::write(&new, &member).and_then(|()| std::fs::rename(&new, &path)).map_err(refused)?;
    Ok(member)
}

/// How a topic is shared among processes, for people; none where it isn't.
pub(crate) fn sharing(config: &Config, flow: &FlowConfig) -> Option<String> {
    let SourceConfig::Kafka { group: Some(group), broker: name, member, .. } = &flow.source else {
        return None;
    };
    if !is_shared(config, flow) {
        return None;
    }
    let member = match member {
        Some(member) => crate::config::expand_env(member).unwrap_or_else(|_| member.clone()),
        None => "an id kept in the ledger's folder".to_owned(),
    };
    let timeout_ms = Membership::session_timeout_ms(&broker(config, name).ok()?);
    Some(format!(
        "shared by the processes of the group {group} (cooperative rebalances), here as the member {member}; session \
         timeout {}",
        recount_model::budget::duration_text(timeout_ms)
    ))
}

fn kafka_start(start: StartAt) -> KafkaStart {
    match start {
        StartAt::Earliest => KafkaStart::Earliest,
        StartAt::Latest => KafkaStart::Latest,
        StartAt::Time(unix_ms) => KafkaStart::Time(unix_ms),
        StartAt::Offset(offset) => KafkaStart::Offset(offset),
    }
}

/// A broker of the config, with its secrets looked up.
pub(crate) fn broker(config: &Config, name: &str) -> Result<KafkaBroker, Failure> {
    let missing = || Failure::usage(format!("{} has no broker {name}", config.path.display()));
    let broker: &BrokerConfig = config.brokers.get(name).ok_or_else(missing)?;
    let resolved = broker.resolve().map_err(|error| Failure::usage(format!("broker {name}: {error}")))?;
    let (servers, properties) = resolved;
    Ok(KafkaBroker { servers, properties })
}

/// What the source finds goes to the log and to the journal.
fn teller(flow: FlowName, book: Book) -> Arc<dyn Fn(Told) + Send + Sync> {
    Arc::new(move |told: Told| {
        let Told { reason, partition, sentence } = told;
        tracing::warn!(target: "recount::source", flow = %flow, partition, reason = reason.as_str(), "{sentence}");
        let entry = JournalEntry {
            kind: JournalKind::Flow,
            flow: Some(flow.clone()),
            what: reason.as_str().to_owned(),
            at: now(),
            persisted_at: Timestamp::default(),
            detail: serde_json::json!({ "sentence": sentence, "partition": partition.to_string() }),
        };
        let Ok(runtime) = tokio::runtime::Handle::try_current() else { return };
        let book = book.clone();
        runtime.spawn(async move {
            if let Err(error) = book.with(move |store| store.journal(&entry)).await {
                tracing::error!("a finding could not be written to the journal: {error}");
            }
        });
    })
}

/// Who is asked what a flow's topic holds.
pub(super) fn witness(config: &Config, flow: &FlowConfig) -> Box<dyn SourceWitness> {
    let SourceConfig::Kafka { broker: name, topic, .. } = &flow.source else {
        return Box::new(NotAsked("its source is not a topic".to_owned()));
    };
    match broker(config, name) {
        Ok(broker) => Box::new(KafkaSourceWitness::new(
            flow.spec.flow.clone(),
            broker,
            topic,
            flow.spec.take.payload_bytes_max,
        )),
        Err(failure) => Box::new(NotAsked(failure.message)),
    }
}

/// A topic that can't be asked as the config stands.
struct NotAsked(String);

impl NotAsked {
    fn why<T>(&self) -> Result<T, WitnessError> {
        Err(WitnessError::Unreachable(self.0.clone()))
    }
}

impl SourceWitness for NotAsked {
    fn partitions(&self) -> Result<Vec<PartitionId>, WitnessError> {
        self.why()
    }

    fn published(&self, _: &PartitionId) -> Result<Published, WitnessError> {
        self.why()
    }

    fn read(
        &self,
        _: &PartitionId,
        _: u64,
        _: u64,
        _: &mut dyn FnMut(&RawEvent) -> ControlFlow<()>,
    ) -> Result<(), WitnessError> {
        self.why()
    }
}
