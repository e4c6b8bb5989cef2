//! What a cluster does to those who read it.

use super::topic::Topic;
use super::{BROKER, error_of, first, known, open, servers, source, take};
use crate::support::changed;
use recount_adapters::kafka::{KafkaBroker, KafkaSettings, KafkaSource};
use recount_engine::{Source, SourceError};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_took_is_lost_with_its_range_and_reading_goes_on() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "lost", 1);
    topic.publish(0, &["a", "b", "c", "d", "e"]);
    let mut reader = open(&source(&topic), 0).await;
    take(reader.as_mut(), 5).await;
    let partition = first(&source(&topic)).await;
    drop(reader);
    topic.delete_below(0, 4);
    let source = KafkaSource::new(known(&topic, &partition)).unwrap();
    let mut reader = open(&source, 1).await;
    assert_eq!(take(reader.as_mut(), 2).await, ["1-3 lost", "4 e"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_retention_takes_before_a_slow_reader_is_lost_with_its_range() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "slow", 1);
    let large = "x".repeat(300_000);
    topic.publish(0, &vec![large.as_str(); 150]);
    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    let first = take(reader.as_mut(), 1).await;
    assert!(first[0].starts_with("0 xxx"));
    // The client keeps a few megabytes ahead; the rest of 45 goes.
    topic.delete_below(0, 149);
    let mut came = first;
    while !came.last().is_some_and(|last| last.starts_with("149 ")) {
        came.extend(take(reader.as_mut(), 1).await);
    }
    let lost: Vec<_> = came.iter().filter(|one| one.ends_with(" lost")).collect();
    assert_eq!(lost.len(), 1, "{}", came.len());
    let from: usize = lost[0].split('-').next().unwrap().parse().unwrap();
    assert!(lost[0].contains("-148 lost") && came.len() == from + 2, "{} after {}", lost[0], came.len());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_made_anew_is_another_source_at_start_and_while_it_is_read() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "anew", 1);
    topic.publish(0, &["a", "b", "c"]);
    let reading = source(&topic);
    let mut reader = open(&reading, 0).await;
    take(reader.as_mut(), 3).await;
    let partition = first(&reading).await;

    topic.delete();
    make_again(&topic);
    topic.publish(0, &["other 0", "other 1", "other 2", "other 3", "other 4"]);
    let SourceError::Changed(why) = error_of(reader.as_mut()).await else { panic!("not Changed") };
    assert!(why.contains("--again"), "{why}");

    let later = KafkaSource::new(known(&topic, &partition)).unwrap();
    let why = changed(later.partitions().await);
    assert!(why.contains(partition.source.as_str()), "{why}");
    let again = KafkaSettings { again: true, ..known(&topic, &partition) };
    let again = KafkaSource::new(KafkaSettings {
        start: Some(recount_adapters::kafka::KafkaStart::Earliest),
        ..again
    })
    .unwrap();
    let mut reader = open(&again, 0).await;
    assert_eq!(take(reader.as_mut(), 5).await[4], "4 other 4");
}

/// Deleting takes the broker a moment.
fn make_again(topic: &Topic) {
    let until = Instant::now() + Duration::from_secs(20);
    while std::panic::catch_unwind(|| topic.make_again(1, &[])).is_err() {
        assert!(Instant::now() < until, "the topic can't be made again");
        std::thread::sleep(Duration::from_millis(300));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_topic_that_is_gone_stops_the_reader() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "gone", 1);
    topic.publish(0, &["a"]);
    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    take(reader.as_mut(), 1).await;
    topic.delete();
    let until = Instant::now() + Duration::from_secs(40);
    let why = loop {
        match source.partitions().await {
            Err(SourceError::Changed(why)) => break why,
            _ => assert!(Instant::now() < until, "the source never changed"),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(why.contains("deleted"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_position_beyond_the_end_stops_the_flow() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "beyond", 1);
    topic.publish(0, &["a", "b"]);
    let partition = first(&source(&topic)).await;
    let source = KafkaSource::new(known(&topic, &partition)).unwrap();
    first(&source).await;
    let until = Instant::now() + Duration::from_secs(40);
    let why = loop {
        match source.open(&partition, 7).await {
            Err(SourceError::Changed(why)) => break why,
            Err(SourceError::Away(_)) => assert!(Instant::now() < until, "it never stops"),
            other => panic!("{:?}", other.err()),
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    };
    assert!(why.contains("ends at offset 2") && why.contains("below 7"), "{why}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_is_not_there_is_away_and_a_setting_that_is_none_is_told() {
    let broker = KafkaBroker::new("127.0.0.1:1");
    let source = KafkaSource::new(KafkaSettings::new(broker, "orders", "group")).unwrap();
    let begun = Instant::now();
    let Err(SourceError::Away(why)) = source.partitions().await else { panic!("not away") };
    assert!(why.contains("127.0.0.1:1"), "{why}");
    assert!(begun.elapsed() < Duration::from_secs(15));

    let mut broker = KafkaBroker::new("127.0.0.1:1");
    broker.properties.push(("sasl.pasword".to_owned(), "hunter2".to_owned()));
    let error = KafkaSource::new(KafkaSettings::new(broker, "orders", "group")).err().unwrap().to_string();
    assert!(error.contains("sasl.pasword") && !error.contains("hunter2"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_is_killed_and_started_again_costs_nothing_but_time() {
    let Some(kafka) = recount_services::kafka() else { return };
    let _alone = BROKER.write().await;
    let topic = Topic::make(&kafka.servers(), "killed", 1);
    let payloads: Vec<String> = (0..500).map(|n| format!("e{n}")).collect();
    topic.publish(0, &payloads.iter().map(String::as_str).collect::<Vec<_>>());
    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    let mut came = take(reader.as_mut(), 100).await;
    let restart = tokio::task::spawn_blocking(|| kafka.restart(true).unwrap());
    restart.await.unwrap();
    topic.publish(0, &["after"]);
    let missing = 501 - came.len();
    came.extend(take(reader.as_mut(), missing).await);
    let expected: Vec<String> = payloads
        .iter()
        .map(String::as_str)
        .chain(["after"])
        .enumerate()
        .map(|(n, p)| format!("{n} {p}"))
        .collect();
    assert_eq!(came, expected);
}
