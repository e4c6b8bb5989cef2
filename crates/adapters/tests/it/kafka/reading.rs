//! What comes, in which order, and from where.

use super::topic::Topic;
use super::{all, assert_silent, first, known, one, open, servers, settings, source, started, take};
use crate::support::{settle, shown};
use rdkafka::producer::Producer;
use recount_adapters::kafka::{
    KafkaBroker, KafkaSettings, KafkaSource, KafkaSourceWitness, KafkaStart, Told,
};
use recount_audit::SourceWitness;
use recount_engine::{Source, SourceError, TakeLimits};
use recount_model::{FlowName, PartitionId};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_come_in_order_and_a_reader_opened_again_goes_on_where_our_record_says() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "order", 1);
    let payloads: Vec<String> = (0..2000).map(|n| format!("e{n}")).collect();
    topic.publish(0, &payloads.iter().map(String::as_str).collect::<Vec<_>>());
    let expected: Vec<String> = payloads.iter().enumerate().map(|(n, p)| format!("{n} {p}")).collect();

    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    assert_eq!(take(reader.as_mut(), 2000).await, expected);
    assert_eq!(reader.backlog().await, Some(0));
    drop(reader);

    // The same process again, from the middle; and then another process.
    let mut reader = open(&source, 1500).await;
    assert_eq!(take(reader.as_mut(), 500).await, expected[1500..]);
    let partition = first(&source).await;
    drop((reader, source));
    let other = KafkaSource::new(known(&topic, &partition)).unwrap();
    let mut reader = open(&other, 1990).await;
    assert_eq!(take(reader.as_mut(), 10).await, expected[1990..]);
    topic.publish(0, &["late"]);
    assert_eq!(take(reader.as_mut(), 1).await, ["2000 late"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_take_keeps_to_its_limits_and_the_partitions_do_not_mix() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "limits", 3);
    for partition in 0..3 {
        let payloads: Vec<String> =
            (0..100).map(|n| format!("p{partition}-{n:03}-{}", "x".repeat(1000))).collect();
        topic.publish(partition, &payloads.iter().map(String::as_str).collect::<Vec<_>>());
    }
    let source = source(&topic);
    for (number, partition) in all(&source).await.iter().enumerate() {
        let mut reader = source.open(partition, 0).await.unwrap();
        let limits = TakeLimits { events_max: 7, bytes_max: 4096, wait_ms: 2000, payload_bytes_max: 500 };
        let mut next = 0;
        while next < 100 {
            let polled = reader.take(limits).await.unwrap();
            assert!(polled.deliveries.len() <= 7);
            let bytes: usize = polled.deliveries.iter().map(|d| d.payload.len()).sum();
            assert!(bytes <= 4096, "{bytes}");
            for delivery in &polled.deliveries {
                assert_eq!(delivery.offset, next);
                assert!(delivery.payload.starts_with(format!("p{number}-{next:03}").as_bytes()));
                assert_eq!((delivery.payload.len(), delivery.payload_bytes), (501, 1007));
                next += 1;
            }
            settle(reader.as_mut(), polled).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn key_headers_and_a_tombstone_are_delivered_as_they_are() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "whole", 1);
    let headers: [(&str, &[u8]); 3] = [("ce_id", b"e-1"), ("ce_specversion", b"1.0"), ("raw", b"\xff\x00")];
    topic.publish_whole(Some(b"{}"), Some(b"sku-1"), &headers);
    topic.publish_whole(None, Some(b"\xfe"), &[]);
    topic.publish_whole(Some(b""), None, &[]);
    let mut reader = open(&source(&topic), 0).await;
    let mut deliveries = Vec::new();
    while deliveries.len() < 3 {
        deliveries.extend(one(reader.as_mut()).await.deliveries);
    }
    let names: Vec<_> = deliveries[0].headers.iter().map(|h| (&*h.name, &*h.value)).collect();
    assert_eq!(names, [("ce_id", "e-1"), ("ce_specversion", "1.0"), ("raw;base64", "/wA=")]);
    assert_eq!(deliveries[0].broker_key.as_deref(), Some("sku-1"));
    assert_eq!((deliveries[1].payload.len(), deliveries[1].broker_key.as_deref()), (0, Some("/g==")));
    assert_eq!((deliveries[2].payload.len(), deliveries[2].broker_key.as_deref()), (0, None));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn aborted_records_and_markers_are_positions_without_an_event_also_at_the_end() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "aborted", 1);
    let producer = topic.producer(Some(&topic.name));
    let transaction = |payloads: &[&str], commits| topic.transaction(&producer, payloads, commits);
    transaction(&["a", "b"], true); // 0, 1, marker 2
    transaction(&["never"], false); // 3, marker 4
    transaction(&["c"], true); // 5, marker 6
    transaction(&["never", "never"], false); // 7, 8, marker 9
    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    let mut came = String::new();
    while !came.contains("9-9 not-an-event") {
        came.push_str(&take(reader.as_mut(), 1).await.join("; "));
        came.push_str("; ");
    }
    // Parted by what their raw batches say: markers stand beside the aborted records.
    let expected = "0 a; 1 b; 2-2 not-an-event; 3-3 not-an-event; 4-4 not-an-event; 5 c; 6-6 not-an-event; \
                    7-8 not-an-event; 9-9 not-an-event; ";
    assert_eq!(came, expected);

    // What an open transaction has written is not published yet.
    producer.begin_transaction().unwrap();
    topic.send(&producer, 0, "open");
    producer.flush(Duration::from_secs(30)).unwrap();
    assert_silent(reader.as_mut()).await;
    let witness = witness(&topic);
    let at = at(&first(&source).await);
    assert_eq!(published(&witness, &at), (0, 10));
    producer.commit_transaction(Duration::from_secs(30)).unwrap();
    assert_eq!(take(reader.as_mut(), 2).await, ["10 open", "11-11 not-an-event"]);
    assert_eq!(read(&witness, &at), ["0 a", "1 b", "5 c", "10 open"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_a_flow_begins_is_asked_unless_nothing_can_go_wrong() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "start", 1);
    topic.publish(0, &["a", "b", "c"]);
    topic.move_group(&settings(&topic).group.unwrap(), 0, 2);
    let partition = first(&source(&topic)).await;
    let Err(SourceError::Broken(why)) = source(&topic).open(&partition, 0).await else { panic!("began") };
    assert!(why.contains("has committed offset 2") && why.contains("start = "), "{why}");

    let began = |start| {
        let source = started(&topic, start);
        let partition = partition.clone();
        async move {
            first(&source).await;
            let mut reader = source.open(&partition, 0).await.unwrap();
            shown(&one(reader.as_mut()).await)
        }
    };
    assert_eq!(began(KafkaStart::Earliest).await, ["0 a", "1 b", "2 c"]);
    assert_eq!(began(KafkaStart::Offset(1)).await[0], "0-0 not-an-event");
    assert_eq!(began(KafkaStart::Latest).await, ["0-2 not-an-event"]);
    assert_eq!(began(KafkaStart::Time(0)).await, ["0 a", "1 b", "2 c"]);
    assert_eq!(began(KafkaStart::Time(4_000_000_000_000)).await, ["0-2 not-an-event"]);
    let beyond = started(&topic, KafkaStart::Offset(9));
    first(&beyond).await;
    assert!(matches!(beyond.open(&partition, 0).await, Err(SourceError::Broken(_))));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_group_is_told_where_we_are_and_never_asked() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "hint", 1);
    topic.publish(0, &["a", "b", "c", "d"]);
    let group = settings(&topic).group.unwrap();
    let source = source(&topic);
    let mut reader = open(&source, 0).await;
    take(reader.as_mut(), 4).await;
    let partition = first(&source).await;
    drop((reader, source));
    assert_eq!(topic.committed(&group, 0), Some(4), "the last commit is written at the end");

    // Somebody resets the group forward, then backward: neither moves us, and only the first is told.
    for (moved_to, told) in [(4, 1), (0, 0)] {
        topic.move_group(&group, 0, moved_to);
        let heard: Arc<Mutex<Vec<Told>>> = Arc::default();
        let tell = Arc::clone(&heard);
        let settings = KafkaSettings {
            tell: Arc::new(move |one| tell.lock().unwrap().push(one)),
            ..known(&topic, &partition)
        };
        let source = KafkaSource::new(settings).unwrap();
        let mut reader = open(&source, 2).await;
        assert_eq!(take(reader.as_mut(), 2).await, ["2 c", "3 d"]);
        let heard = heard.lock().unwrap();
        assert_eq!(heard.len(), told, "{heard:?}");
        assert!(heard.iter().all(|one| one.reason.as_str() == "offset_moved_outside"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_audit_reads_the_same_with_a_client_of_its_own() {
    let Some((servers, _stays)) = servers().await else { return };
    let topic = Topic::make(&servers, "witness", 2);
    topic.publish(0, &["a", "b", "c"]);
    let source = source(&topic);
    let partitions = all(&source).await;
    let witness = witness(&topic);
    let expected: Vec<_> = partitions.iter().map(at).collect();
    assert_eq!(witness.partitions().unwrap(), expected);
    assert_eq!(published(&witness, &expected[0]), (0, 3));
    assert_eq!(published(&witness, &expected[1]), (0, 0));
    assert_eq!(read(&witness, &expected[0]), ["0 a", "1 b", "2 c"]);
    topic.delete_below(0, 2);
    assert_eq!(published(&witness, &expected[0]), (2, 3));
    assert_eq!(read(&witness, &expected[0]), ["2 c"]);
    let other =
        PartitionId { source: recount_model::SourceId::new("kafka:other:topic"), ..expected[0].clone() };
    assert!(matches!(witness.published(&other), Err(recount_audit::WitnessError::Changed(_))));
}

fn witness(topic: &Topic) -> KafkaSourceWitness {
    let flow = FlowName::new("orders").unwrap();
    KafkaSourceWitness::new(flow, KafkaBroker::new(&topic.servers), &topic.name, 1000)
}

fn at(partition: &recount_engine::SourcePartition) -> PartitionId {
    PartitionId {
        flow: FlowName::new("orders").unwrap(),
        source: partition.source.clone(),
        partition: partition.partition.clone(),
    }
}

fn published(witness: &KafkaSourceWitness, at: &PartitionId) -> (u64, u64) {
    let published = witness.published(at).unwrap();
    (published.first, published.end)
}

fn read(witness: &KafkaSourceWitness, at: &PartitionId) -> Vec<String> {
    let mut read = Vec::new();
    let visited = witness.read(at, 0, u64::MAX, &mut |raw| {
        read.push(format!("{} {}", raw.offset, String::from_utf8_lossy(&raw.payload)));
        ControlFlow::Continue(())
    });
    visited.unwrap();
    read
}
