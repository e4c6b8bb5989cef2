//! The Kafka source against a real broker.

mod group;
mod reading;
mod topic;
mod trouble;

use crate::support::{LIMITS, settle, shown};
use recount_adapters::kafka::{KafkaBroker, KafkaSettings, KafkaSource, KafkaStart};
use recount_engine::{Polled, Source, SourceError, SourcePartition, SourceReader, TakeLimits};
use recount_model::{FlowName, PartitionId};
use std::time::{Duration, Instant};
use tokio::sync::{RwLock, RwLockReadGuard};
use topic::Topic;

/// Held for writing by the test that kills the broker, for reading by the others.
static BROKER: RwLock<()> = RwLock::const_new(());

/// The broker's address, and the word that nobody kills it meanwhile; `None` where `RECOUNT_WITHOUT` leaves
/// it out.
async fn servers() -> Option<(String, RwLockReadGuard<'static, ()>)> {
    let kafka = recount_services::kafka()?;
    Some((kafka.servers(), BROKER.read().await))
}

fn settings(topic: &Topic) -> KafkaSettings {
    KafkaSettings::new(KafkaBroker::new(&topic.servers), &topic.name, format!("group-of-{}", topic.name))
}

fn source(topic: &Topic) -> KafkaSource {
    KafkaSource::new(settings(topic)).unwrap()
}

fn started(topic: &Topic, start: KafkaStart) -> KafkaSource {
    KafkaSource::new(KafkaSettings { start: Some(start), ..settings(topic) }).unwrap()
}

/// The settings of a process that begins after another one has decided something.
fn known(topic: &Topic, partition: &SourcePartition) -> KafkaSettings {
    let known = PartitionId {
        flow: FlowName::new("orders").unwrap(),
        source: partition.source.clone(),
        partition: partition.partition.clone(),
    };
    KafkaSettings { known: vec![known], ..settings(topic) }
}

/// The first partition, once the broker can be asked.
async fn first(source: &dyn Source) -> SourcePartition {
    all(source).await.remove(0)
}

async fn all(source: &dyn Source) -> Vec<SourcePartition> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        match source.partitions().await {
            Ok(partitions) => return partitions,
            Err(SourceError::Away(why)) => assert!(Instant::now() < until, "still away: {why}"),
            Err(other) => panic!("{other:?}"),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

async fn open(source: &dyn Source, next_offset: u64) -> Box<dyn SourceReader> {
    let partition = first(source).await;
    source.open(&partition, next_offset).await.unwrap()
}

/// Takes, and settles, until `count` positions or gaps came. Being away is borne.
async fn take(reader: &mut dyn SourceReader, count: usize) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(60);
    let mut shown_all = Vec::new();
    while shown_all.len() < count {
        assert!(Instant::now() < until, "only {shown_all:?} came");
        let polled = match reader.take(TakeLimits { wait_ms: 100, ..LIMITS }).await {
            Ok(polled) => polled,
            Err(SourceError::Away(_)) => continue,
            Err(other) => panic!("after {shown_all:?}: {other:?}"),
        };
        shown_all.extend(shown(&polled));
        settle(reader, polled).await;
    }
    shown_all
}

/// Nothing comes for a while.
async fn assert_silent(reader: &mut dyn SourceReader) {
    let polled = reader.take(TakeLimits { wait_ms: 700, ..LIMITS }).await.unwrap();
    assert_eq!(shown(&polled), Vec::<String>::new());
}

/// Takes until an error comes that isn't `Away`.
async fn error_of(reader: &mut dyn SourceReader) -> SourceError {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "no error came");
        match reader.take(TakeLimits { wait_ms: 100, ..LIMITS }).await {
            Ok(polled) => settle(reader, polled).await,
            Err(SourceError::Away(_)) => tokio::time::sleep(Duration::from_millis(200)).await,
            Err(error) => return error,
        }
    }
}

/// One take that brings something.
async fn one(reader: &mut dyn SourceReader) -> Polled {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        assert!(Instant::now() < until, "nothing came");
        let polled = reader.take(TakeLimits { wait_ms: 100, ..LIMITS }).await.unwrap();
        if !polled.deliveries.is_empty() || !polled.gaps.is_empty() {
            return polled;
        }
    }
}
