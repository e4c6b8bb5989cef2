//! Dead letters to a topic, beside the ledger: with the headers that others' tools read, again rather than never.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order};
use crate::kafka::topic::{Topic, unique};
use crate::kafka::whole;
use rdkafka::message::{Headers, Message};
use serde_json::Value;
use std::collections::BTreeMap;
use std::process::Command;
use std::time::{Duration, Instant};

/// A flow on a topic whose dead letters go to another one.
struct Shop {
    world: World,
    topic: Topic,
    letters: Topic,
}

/// A record as it stands on a topic.
#[derive(Debug, Clone, PartialEq)]
struct Stands {
    key: Option<Vec<u8>>,
    value: Option<Vec<u8>>,
    headers: Vec<(String, Option<Vec<u8>>)>,
    timestamp_ms: i64,
}

impl Stands {
    fn header(&self, name: &str) -> String {
        let found = self.headers.iter().find(|(known, _)| known == name);
        let value = found.unwrap_or_else(|| panic!("no {name} in {self:?}")).1.clone().unwrap();
        String::from_utf8(value).unwrap()
    }
}

impl Shop {
    fn open(headers: &str, flow_keys: &str) -> Option<Self> {
        let kafka = recount_services::kafka()?;
        let topic = Topic::make(&kafka.servers(), "stock", 1);
        let letters = Topic { name: unique("stock.DLT"), servers: kafka.servers() };
        let keys = format!(
            "source = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}\n\
             dead_letters = {{ topic = \"{1}\"{headers} }}\n{flow_keys}",
            topic.name, letters.name
        );
        let broker = format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers());
        let world = World::new(&config(&keys, &format!("{TAKE_FROM_STOCK}{broker}")));
        Some(Self { world, topic, letters })
    }

    fn publish(&self, lines: &[String]) {
        self.topic.publish(0, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    fn run_until(&self, decided: usize) {
        let running = self.world.start(&["run"]);
        eventually("they are decided", || self.world.decided() >= decided);
        running.terminate();
    }

    /// How the dead letters stand, as `status` says.
    fn standing(&self) -> Value {
        self.world.recount(&["status", "--json"]).json()["flows"][0]["dead_letter_topic"].clone()
    }

    fn notes(&self) -> std::path::PathBuf {
        self.world.path("recount-data/dead-letters-stock.json")
    }
}

/// Everything that the first partition of a topic holds.
fn standing_in(topic: &Topic) -> Vec<Stands> {
    let consumer = whole(topic);
    let (mut found, until) = (Vec::new(), Instant::now() + Duration::from_secs(30));
    while Instant::now() < until {
        match consumer.poll(Duration::from_millis(100)) {
            Some(Ok(message)) => {
                let headers = message.headers().into_iter().flat_map(|headers| headers.iter());
                let owned = |header: rdkafka::message::Header<'_, &[u8]>| {
                    (header.key.to_owned(), header.value.map(<[u8]>::to_vec))
                };
                found.push(Stands {
                    key: message.key().map(<[u8]>::to_vec),
                    value: message.payload().map(<[u8]>::to_vec),
                    headers: headers.map(owned).collect(),
                    timestamp_ms: message.timestamp().to_millis().unwrap(),
                });
            }
            Some(Err(rdkafka::error::KafkaError::PartitionEOF(_))) => return found,
            _ => {}
        }
    }
    panic!("the topic {} could not be read to its end", topic.name);
}

#[test]
fn a_dead_letter_has_the_record_as_it_was_and_the_headers_of_spring_and_connect_byte_for_byte() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.letters.make_again(1, &[]);
    shop.publish(&[order("1", "a", 1)]);
    let value = order("2", "none", 1);
    let own: [(&str, &[u8]); 2] = [("trace", b"abc"), ("packed", &[0xff, 0x00])];
    shop.topic.publish_whole(Some(value.as_bytes()), Some(&[0xfe, 0x01]), &own);
    shop.topic.publish_whole(None, None, &[]);
    shop.run_until(3);
    let original = standing_in(&shop.topic);
    let found = standing_in(&shop.letters);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[0].key, Some(vec![0xfe, 0x01]));
    assert_eq!(found[0].value.as_deref(), Some(value.as_bytes()));
    assert_eq!((&found[1].key, &found[1].value), (&None, &None), "null stays null");

    let decisions = shop.world.decisions();
    let decided_at = decisions[1]["decided_at"].as_str().unwrap_or_default().to_owned();
    let mut expected: Vec<(String, Vec<u8>)> =
        own.iter().map(|(name, value)| ((*name).to_owned(), value.to_vec())).collect();
    let mut add = |name: &str, value: &[u8]| expected.push((name.to_owned(), value.to_vec()));
    let topic = shop.topic.name.as_bytes();
    add("kafka_dlt-original-topic", topic);
    add("kafka_dlt-original-partition", &[0, 0, 0, 0]);
    add("kafka_dlt-original-offset", &[0, 0, 0, 0, 0, 0, 0, 1]);
    add("kafka_dlt-original-timestamp", &original[1].timestamp_ms.to_be_bytes());
    add("kafka_dlt-original-timestamp-type", b"CreateTime");
    add("kafka_dlt-original-consumer-group", topic);
    add("kafka_dlt-exception-fqcn", b"recount.unknown_sku");
    add("kafka_dlt-exception-message", b"no such article");
    let attempts = found[0].header("kafka_dlt-exception-stacktrace");
    let first = "recount.unknown_sku: no such article\n\tat attempt 1 (";
    assert!(attempts.starts_with(first), "{attempts}");
    add("kafka_dlt-exception-stacktrace", attempts.as_bytes());
    add("__connect.errors.topic", topic);
    add("__connect.errors.partition", b"0");
    add("__connect.errors.offset", b"1");
    add("__connect.errors.connector.name", b"stock");
    add("__connect.errors.task.id", b"0");
    add("__connect.errors.stage", b"TASK_PUT");
    add("__connect.errors.class.name", b"recount");
    add("__connect.errors.exception.class.name", b"recount.unknown_sku");
    add("__connect.errors.exception.message", b"no such article");
    add("__connect.errors.exception.stacktrace", attempts.as_bytes());
    add("recount.reason", b"unknown_sku");
    add("recount.position", b"stock/0/1");
    add("recount.source", found[0].header("recount.source").as_bytes());
    add("recount.decided-at", found[0].header("recount.decided-at").as_bytes());
    add("recount.taken-from", b"source");
    add("recount.event-id", b"2");
    let shown: Vec<(String, Vec<u8>)> =
        found[0].headers.iter().map(|(name, value)| (name.clone(), value.clone().unwrap())).collect();
    assert_eq!(shown, expected);
    assert!(decided_at.is_empty() || found[0].header("recount.decided-at") == decided_at);
    assert_eq!(found[1].header("__connect.errors.stage"), "VALUE_CONVERTER", "{:?}", found[1]);
    assert_eq!(shop.standing()["sent"], 2);
    assert_eq!(shop.standing()["waiting"], 0);
}

#[test]
fn dead_letters_wait_for_their_topic_while_events_go_on_and_a_crash_sends_again_rather_than_never() {
    let Some(shop) = Shop::open(", headers = \"spring\"", "secret = [\"event.id\"]\n") else { return };
    shop.publish(&[order("1", "none", 1), order("2", "a", 1)]);
    let running = shop.world.start(&["run"]);
    eventually("both are decided", || shop.world.decided() == 2);
    eventually("it is told that they wait", || shop.standing()["trouble"].is_string());
    assert_eq!(shop.world.on_hand("a"), 99, "effects go on");
    let standing = shop.standing();
    assert_eq!((&standing["waiting"], &standing["sent"]), (&1.into(), &0.into()), "{standing:#}");
    assert!(standing["trouble"].as_str().unwrap().contains("has no topic"), "{standing:#}");
    let (_, metrics) = running.get("/metrics");
    assert!(metrics.contains("recount_dead_letters_waiting{flow=\"stock\"} 1"), "{metrics}");
    running.kill();

    shop.letters.make_again(1, &[]);
    let before = std::fs::read(shop.notes()).unwrap();
    let running = shop.world.start(&["run"]);
    eventually("it is sent", || shop.standing()["sent"] == 1);
    running.kill();
    // Killed after the cluster had it, and before that was noted.
    std::fs::write(shop.notes(), before).unwrap();
    let running = shop.world.start(&["run"]);
    eventually("it is sent again", || shop.standing()["sent"] == 1);
    running.terminate();
    let found = standing_in(&shop.letters);
    assert_eq!(found.len(), 2, "{found:#?}");
    assert_eq!(found[0].value, found[1].value);
    let names: BTreeMap<_, _> = found[0].headers.iter().cloned().collect();
    assert!(!names.keys().any(|name| name.starts_with("__connect")), "{names:?}");
    assert!(!names.contains_key("recount.event-id"), "a secret id is in no header: {names:?}");

    // What retention took from the source meanwhile is sent as the ledger has it.
    std::fs::remove_file(shop.notes()).unwrap();
    shop.topic.delete_below(0, 2);
    let running = shop.world.start(&["run"]);
    eventually("it is sent from the ledger", || shop.standing()["sent"] == 1);
    running.terminate();
    let last = standing_in(&shop.letters).pop().unwrap();
    assert_eq!((&last.value, last.header("recount.taken-from").as_str()), (&found[0].value, "ledger"));
}

#[test]
fn a_dead_letter_that_its_topic_refuses_is_told_and_kept_and_the_others_go_on() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.letters.make_again(1, &[("max.message.bytes", "4000")]);
    let long = format!("{{\"id\":\"1\",\"sku\":\"none\",\"quantity\":1,\"note\":\"{}\"}}", "x".repeat(6000));
    shop.publish(&[long.clone(), order("2", "none", 1), order("3", "a", 1)]);
    shop.run_until(3);
    let standing = shop.standing();
    assert_eq!((&standing["sent"], &standing["refused"]), (&1.into(), &1.into()), "{standing:#}");
    assert_eq!(standing["waiting"], 0, "{standing:#}");
    let found = standing_in(&shop.letters);
    assert_eq!(found.len(), 1);
    assert_eq!(found[0].header("recount.position"), "stock/0/1");
    let told = shop.world.journal();
    let told: Vec<_> = told.iter().filter(|(what, _)| what == "dead_letter_refused").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert_eq!(told[0].1["position"], "stock/0/0", "{told:?}");
    let kept = shop.world.recount(&["dead-letters", "show", "stock/0/0"]).expect(0).all();
    assert!(kept.contains("xxxxxxxx"), "the ledger keeps it: {kept}");
}

/// As broadway_kafka #30 asks for: a dead letter that is nowhere must not be passed over.
#[test]
fn a_dead_letter_that_cannot_be_made_durable_leaves_neither_an_effect_nor_the_groups_offset() {
    let Some(shop) = Shop::open("", "") else { return };
    shop.letters.make_again(1, &[]);
    shop.publish(&[order("1", "a", 1)]);
    shop.run_until(1);
    assert_eq!(shop.topic.committed(&shop.topic.name, 0), Some(1));
    // Decisions travel to the ledger with the effects of their batch: their row can't be written.
    let full = "CREATE TRIGGER full BEFORE INSERT ON recount_batch BEGIN SELECT RAISE(ABORT, 'the disk is full'); END";
    shop.world.shop().execute(full, ()).unwrap();
    shop.publish(&[order("2", "none", 1), order("3", "a", 1)]);
    let running = shop.world.start(&["run"]);
    eventually("it is told", || running.log().contains("the disk is full"));
    std::thread::sleep(Duration::from_secs(1));
    running.terminate();
    assert_eq!((shop.world.on_hand("a"), shop.world.decided()), (99, 1));
    assert_eq!(shop.topic.committed(&shop.topic.name, 0), Some(1));
    assert!(standing_in(&shop.letters).is_empty(), "what is not decided is not sent");

    shop.world.shop().execute("DROP TRIGGER full", ()).unwrap();
    shop.run_until(3);
    assert_eq!(shop.world.on_hand("a"), 98);
    assert_eq!(shop.topic.committed(&shop.topic.name, 0), Some(3));
    assert_eq!(standing_in(&shop.letters).len(), 1);
}

#[test]
fn a_ledger_that_cannot_be_written_keeps_the_groups_offset_behind_what_it_holds() {
    let Some(shop) = Shop::open("", "batch = { events = 5 }\n") else { return };
    shop.letters.make_again(1, &[]);
    let noise = |n: u32| char::from(b'a' + (n.wrapping_mul(2_654_435_761) >> 24) as u8 % 26);
    let long: String = (0..40_000).map(noise).collect();
    let line = |n: u32| match n % 2 {
        0 => format!("{{\"id\":\"{n}\",\"sku\":\"none\",\"quantity\":1,\"note\":\"{n}{long}\"}}"),
        _ => order(&n.to_string(), "a", 1),
    };
    shop.publish(&(0..100).map(line).collect::<Vec<_>>());
    // No file may grow beyond 1 MiB: the ledger needs twice that for the bodies.
    let binary = env!("CARGO_BIN_EXE_recount");
    let limited = Command::new("bash")
        .args(["-c", &format!("trap '' XFSZ; ulimit -f 1024; exec '{binary}' run")])
        .current_dir(shop.world.path(""))
        .output()
        .unwrap();
    let told = String::from_utf8_lossy(&limited.stderr).into_owned();
    assert_eq!(limited.status.code(), Some(1), "{told}");
    assert!(told.contains("ledger_full"), "{told}");
    let decided = shop.world.decided() as i64;
    let committed = shop.topic.committed(&shop.topic.name, 0).unwrap_or(0);
    assert!(0 < decided && decided < 100 && committed <= decided, "{committed} committed, {decided} decided");
    shop.run_until(100);
    assert_eq!(shop.world.on_hand("a"), 50, "exact, once it can be written");
    assert_eq!(shop.topic.committed(&shop.topic.name, 0), Some(100));
}
