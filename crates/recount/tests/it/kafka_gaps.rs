//! Positions that carry no event: what their raw batches say of them, and that the audit holds none against the flow.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order, orders, statement};
use crate::kafka::topic::{Topic, unique};
use crate::kafka::whole;
use rdkafka::error::KafkaError;
use rdkafka::producer::{BaseRecord, Producer};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

struct Shop {
    world: World,
    topic: Topic,
}

impl Shop {
    fn open(topic_config: &[(&str, &str)]) -> Option<Self> {
        let kafka = recount_services::kafka()?;
        let topic = Topic { name: unique("stock"), servers: kafka.servers() };
        topic.make_again(1, topic_config);
        let source =
            format!("source = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}\n", topic.name);
        let broker = format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers());
        let world = World::new(&config(&source, &format!("{TAKE_FROM_STOCK}{broker}")));
        Some(Self { world, topic })
    }

    /// How many positions the ledger has for each cause.
    fn causes(&self) -> BTreeMap<String, i64> {
        let mut causes = BTreeMap::new();
        let folder = std::fs::read_dir(self.world.path("recount-data")).unwrap();
        for file in folder.map(|file| file.unwrap().path()) {
            let name = file.file_name().unwrap().to_str().unwrap();
            if !name.starts_with("segment-") || !name.ends_with(".db") {
                continue;
            }
            let connection = rusqlite::Connection::open(file).unwrap();
            let sql = "SELECT cause, sum(offset_to - offset_from) FROM gap GROUP BY cause";
            let mut statement = connection.prepare(sql).unwrap();
            let rows = statement.query_map([], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
            for row in rows {
                let (cause, count): (String, i64) = row.unwrap();
                *causes.entry(cause).or_default() += count;
            }
        }
        causes
    }
}

/// How many records the first partition has, whatever its offsets say.
fn kept_in(topic: &Topic) -> usize {
    let consumer = whole(topic);
    let mut kept = 0;
    loop {
        match consumer.poll(Duration::from_secs(30)).expect("an answer in time") {
            Ok(_) => kept += 1,
            Err(KafkaError::PartitionEOF(_)) => return kept,
            Err(error) => panic!("{error}"),
        }
    }
}

fn counts(expected: &[(&str, i64)]) -> BTreeMap<String, i64> {
    expected.iter().map(|(cause, count)| ((*cause).to_owned(), *count)).collect()
}

#[test]
fn markers_and_aborted_records_are_told_apart_by_their_raw_batches() {
    let Some(shop) = Shop::open(&[]) else { return };
    let producer = shop.topic.producer(Some(&shop.topic.name));
    let transaction = |lines: &[String], commits| shop.topic.transaction(&producer, lines, commits);
    transaction(&orders(0..2, "a"), true);
    transaction(&orders(2..5, "a"), false);
    shop.topic.publish(0, &[&order("5", "a", 1)]);
    let running = shop.world.start(&["run"]);
    eventually("all are decided", || shop.world.decided() == 3);
    running.terminate().expect(0);
    assert_eq!(shop.causes(), counts(&[("aborted transaction", 3), ("control record", 2)]));
    let report = shop.world.audit().expect(0).json();
    assert_eq!(report["flows"][0]["books"]["not-an-event"], 5, "{report:#}");
}

#[test]
fn a_compacted_topic_balances_and_what_was_compacted_away_says_so() {
    let compacts = [
        ("cleanup.policy", "compact"),
        ("segment.ms", "200"),
        ("segment.bytes", "1048576"),
        ("min.cleanable.dirty.ratio", "0.001"),
        ("max.compaction.lag.ms", "1"),
        ("delete.retention.ms", "0"),
    ];
    let Some(shop) = Shop::open(&compacts) else { return };
    let producer = shop.topic.producer(None);
    let publish = |key: &str, line: &str| {
        crate::kafka::topic::send(
            &producer,
            BaseRecord::to(&shop.topic.name).partition(0).key(key).payload(line),
        );
        producer.flush(Duration::from_secs(30)).unwrap();
    };
    for n in 0..10 {
        publish("one", &order(&n.to_string(), "a", 1));
    }
    publish("two", &order("10", "a", 1));
    // A new segment is begun by the next record that comes after `segment.ms`; only older ones are cleaned.
    let begun = Instant::now();
    let mut next = 11;
    loop {
        assert!(begun.elapsed() < Duration::from_secs(90), "the cleaner never came");
        std::thread::sleep(Duration::from_millis(400));
        publish("two", &order(&next.to_string(), "a", 1));
        next += 1;
        // The ten that were published of the first key have become one.
        if kept_in(&shop.topic) + 9 <= usize::try_from(next).unwrap() {
            break;
        }
    }
    let kept = i64::try_from(kept_in(&shop.topic)).unwrap();
    let running = shop.world.start(&["run"]);
    let taken = "SELECT coalesce(max(next_offset), 0) FROM recount_position";
    eventually("all are taken", || shop.world.decided() > 0 && shop.world.number(taken) == next);
    let decided = || i64::try_from(shop.world.decided()).unwrap();
    eventually("all are in the ledger", || decided() + shop.causes().values().sum::<i64>() == next);
    running.terminate().expect(0);
    let report = shop.world.audit().expect(0).json();
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
    let missing = next - decided();
    assert!(missing >= next - kept, "{missing} positions are gone, {kept} of {next} were kept");
    assert_eq!(shop.causes(), counts(&[("compacted away", missing)]), "of {next} positions");
}
