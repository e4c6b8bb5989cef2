//! Flows on topics of a real broker: exact over kills, whatever somebody does to the group or the topic.

#[allow(dead_code)]
#[path = "../../../adapters/tests/it/kafka/topic.rs"]
pub mod topic;

use crate::harness::{TAKE_FROM_STOCK, Told, World, config, eventually, order, orders, statement};
use rdkafka::consumer::{BaseConsumer, Consumer};
use rdkafka::producer::{BaseRecord, Producer};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use recount_services::{Kafka, Postgres};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::{Duration, Instant};
use topic::{Topic, send, unique};

/// A flow on a topic, with its effects in SQLite.
struct Shop {
    world: World,
    topic: Topic,
    kafka: &'static Kafka,
}

impl Shop {
    /// None where Kafka was left out on purpose.
    fn open(source_keys: &str) -> Option<Self> {
        let kafka = recount_services::kafka()?;
        let topic = Topic::make(&kafka.servers(), "stock", 1);
        let source = format!(
            "source = {{ broker = \"main\", topic = \"{}\", group = \"{}\"{source_keys} }}\n",
            topic.name, topic.name
        );
        let broker = format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers());
        let world = World::new(&config(&source, &format!("{TAKE_FROM_STOCK}{broker}")));
        Some(Self { world, topic, kafka })
    }

    fn publish(&self, lines: &[String]) {
        self.topic.publish(0, &lines.iter().map(String::as_str).collect::<Vec<_>>());
    }

    /// Runs until so many are decided, and asks it to stop.
    fn run_until(&self, decided: usize) -> Told {
        let running = self.world.start(&["run"]);
        eventually("they are decided", || self.world.decided() >= decided);
        running.terminate()
    }

    fn committed(&self) -> Option<i64> {
        self.topic.committed(&self.topic.name, 0)
    }
}

#[test]
fn what_is_published_is_applied_once_and_the_books_balance() {
    let Some(shop) = Shop::open("") else { return };
    let validated = shop.world.recount(&["validate"]).expect(0).all();
    assert!(validated.contains("the topic stock-") && validated.contains("exactly once"), "{validated}");
    shop.publish(&orders(0..40, "a"));
    shop.run_until(40).expect(0);
    shop.publish(&[order("x", "none", 1), order("y", "b", 2)]);
    shop.run_until(42).expect(0);
    assert_eq!((shop.world.on_hand("a"), shop.world.on_hand("b")), (60, 98));
    assert_eq!(shop.committed(), Some(42));
    let report = shop.world.audit().expect(0).json();
    for equation in ["E1", "E2"] {
        assert_eq!(statement(&report, equation)["status"], "balanced", "{report:#}");
    }
    assert_eq!(report["flows"][0]["books"]["published"], 42, "{report:#}");
    // What became of one, and getting it back, from the topic.
    shop.world.put("none", 10);
    let replay = ["replay", "stock", "--reason", "unknown_sku", "--because", "the list was completed"];
    shop.world.recount(&replay).expect(0);
    assert_eq!(shop.world.on_hand("none"), 9);
    shop.world.audit().expect(0);
}

#[test]
fn an_effect_that_is_gone_from_the_database_and_an_event_that_was_never_decided_are_found() {
    let Some(shop) = Shop::open("") else { return };
    shop.publish(&orders(0..10, "a"));
    shop.run_until(10).expect(0);
    shop.world.shop().execute("DELETE FROM recount_effect WHERE \"offset\" = 7", ()).unwrap();
    let report = shop.world.audit().expect(1).json();
    assert!(report.to_string().contains("stock/0/7"), "{report:#}");
    shop.publish(&orders(10..12, "a"));
    let report = shop.world.audit().expect(1).json();
    assert_eq!(statement(&report, "E1")["status"], "open", "{report:#}");
    assert_eq!(report["flows"][0]["books"]["open"], 2, "{report:#}");
}

#[test]
fn a_group_moved_from_outside_moves_nothing_and_is_told() {
    let Some(shop) = Shop::open("") else { return };
    shop.publish(&orders(0..20, "a"));
    shop.run_until(20).expect(0);
    shop.publish(&orders(20..40, "a"));
    let tool = "org.apache.kafka.tools.consumer.group.ConsumerGroupCommand";
    let topic = shop.topic.name.as_str();
    let to = |offset: &str| {
        let reset =
            ["--group", topic, "--topic", topic, "--reset-offsets", "--to-offset", offset, "--execute"];
        shop.kafka.tool(tool, &reset).unwrap();
    };
    to("35");
    shop.run_until(40).expect(0);
    assert_eq!(shop.world.on_hand("a"), 60, "what lay below the moved offset is applied");
    let told = shop.world.journal();
    let told: Vec<_> = told.iter().filter(|(what, _)| what == "offset_moved_outside").collect();
    assert_eq!(told.len(), 1, "{told:?}");
    assert!(told[0].1["sentence"].as_str().unwrap().contains("committed offset 35"), "{told:?}");
    to("3");
    shop.publish(&orders(40..41, "a"));
    shop.run_until(41).expect(0);
    assert_eq!(shop.world.on_hand("a"), 59, "nothing is applied twice");
    shop.world.audit().expect(0);
}

#[test]
fn a_topic_made_anew_stops_the_flow_until_it_is_read_as_another() {
    let Some(shop) = Shop::open("") else { return };
    shop.publish(&orders(0..5, "a"));
    shop.run_until(5).expect(0);
    shop.topic.delete();
    eventually("it can be made again", || {
        std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| shop.topic.make_again(1, &[]))).is_ok()
    });
    shop.publish(&orders(100..103, "a"));
    let stopped = shop.world.run();
    assert_eq!(stopped.code, Some(1), "{}", stopped.all());
    assert!(stopped.all().contains("was deleted and made again"), "{}", stopped.all());
    assert_eq!(shop.world.on_hand("a"), 95);
    let running = shop.world.start(&["run", "--again"]);
    eventually("the new ones are applied", || shop.world.on_hand("a") == 92);
    running.terminate();
}

#[test]
fn a_flow_that_begins_late_says_so_and_what_retention_took_is_lost() {
    let Some(shop) = Shop::open(", start = \"latest\"") else { return };
    shop.publish(&orders(0..10, "a"));
    let running = shop.world.start(&["run"]);
    let begun = || {
        // Before the first batch there is no ledger.
        let audit: Value = serde_json::from_str(&shop.world.audit().out).unwrap_or_default();
        audit["flows"][0]["books"]["not-an-event"] == 10
    };
    eventually("it has begun at the end", begun);
    shop.publish(&orders(10..15, "a"));
    eventually("the new ones are applied", || shop.world.on_hand("a") == 95);
    running.terminate();
    shop.world.audit().expect(0);

    shop.publish(&orders(15..20, "a"));
    shop.topic.delete_below(0, 18);
    shop.run_until(7);
    assert_eq!(shop.world.on_hand("a"), 93);
    let report = shop.world.audit().expect(1).json();
    assert_eq!(report["flows"][0]["books"]["lost"], 3, "{report:#}");
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
}

#[test]
fn a_flow_whose_cluster_is_away_ends_soon_after_it_is_asked_to() {
    // Nothing listens at port 1.
    let source = "source = { broker = \"main\", topic = \"stock\", group = \"stock\" }\n";
    let broker = "[broker.main]\nkafka = { servers = \"127.0.0.1:1\" }\n";
    let world = World::new(&config(source, &format!("{TAKE_FROM_STOCK}{broker}")));
    let running = world.start(&["run"]);
    // Beyond the first questions, between which it waits.
    std::thread::sleep(Duration::from_secs(1));
    let asked = Instant::now();
    let told = running.terminate();
    assert!(asked.elapsed() < Duration::from_secs(8), "{:?}: {}", asked.elapsed(), told.all());
    assert!(told.all().contains("127.0.0.1:1"), "what it waited for is told: {}", told.all());
}

#[test]
fn aborted_transactions_and_markers_are_not_events_and_the_books_balance_over_a_restart() {
    let Some(shop) = Shop::open("") else { return };
    let producer = shop.topic.producer(Some(&shop.topic.name));
    let transaction = |lines: &[String], commits| shop.topic.transaction(&producer, lines, commits);
    transaction(&orders(0..5, "a"), true);
    transaction(&orders(5..12, "a"), false);
    shop.run_until(5).expect(0);
    transaction(&orders(12..15, "a"), false);
    transaction(&orders(15..18, "a"), true);
    shop.run_until(8).expect(0);
    assert_eq!(shop.world.on_hand("a"), 92, "what was aborted took nothing out of stock");
    // Ten aborted records and a marker for each of the four transactions.
    let not_an_event = |report: &Value| report["flows"][0]["books"]["not-an-event"].clone();
    let running = shop.world.start(&["run"]);
    eventually("the last marker is passed over too", || not_an_event(&shop.world.audit().json()) == 14);
    running.terminate().expect(0);
    let report = shop.world.audit().expect(0).json();
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
    assert_eq!(report["flows"][0]["books"]["published"], 22, "{report:#}");
    assert_eq!(report["flows"][0]["books"]["applied"], 8, "{report:#}");
}

/// Reads the first partition of a topic from its beginning, and is told where it ends.
pub fn whole(topic: &Topic) -> BaseConsumer {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", &topic.servers).set("group.id", "reads");
    let consumer: BaseConsumer = config.set("enable.partition.eof", "true").create().unwrap();
    let mut list = TopicPartitionList::new();
    list.add_partition_offset(&topic.name, 0, Offset::Beginning).unwrap();
    consumer.assign(&list).unwrap();
    consumer
}

/// The orders of the example, six partitions, PostgreSQL.
struct Orders {
    world: World,
    topic: Topic,
    server: &'static Postgres,
    database: String,
}

const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../examples/inventory");

impl Orders {
    fn open() -> Option<Self> {
        let (kafka, server) = (recount_services::kafka()?, recount_services::postgres()?);
        let topic = Topic { name: unique("orders"), servers: kafka.servers() };
        topic.make_again(6, &[]);
        let url = server.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let world = World::of_example("inventory");
        let text = std::fs::read_to_string(world.path("recount.toml")).unwrap();
        let source = format!("{{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}", topic.name);
        let text = text.replace("sqlite:shop.db", &url).replace("{ file = \"orders.ndjson\" }", &source);
        world.configure(&format!("{text}\n[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers()));
        let orders = Self { world, topic, server, database };
        orders.sql("CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL)");
        let rows: Vec<String> = articles().into_iter().map(|(sku, n)| format!("('{sku}', {n})")).collect();
        for rows in rows.chunks(2000) {
            orders.sql(&format!("INSERT INTO stock VALUES {}", rows.join(", ")));
        }
        Some(orders)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim().to_owned()
    }

    /// How far the positions have come, over all partitions.
    fn taken(&self) -> usize {
        self.sql("SELECT coalesce(sum(next_offset), 0) FROM recount_position").parse().unwrap()
    }

    fn applied(&self) -> usize {
        let count = self.server.sql(&self.database, "SELECT count(*) FROM recount_effect");
        // Before the first start there is no such table.
        count.map_or(0, |count| count.trim().parse().unwrap())
    }
}

/// The example's orders and stock list, or all of the data that they are a slice of, where
/// `RECOUNT_TEST_DATA` names its folder.
fn data(name: &str) -> String {
    let Ok(folder) = std::env::var("RECOUNT_TEST_DATA") else {
        return std::fs::read_to_string(Path::new(EXAMPLE).join(name)).unwrap();
    };
    let (stem, ending) = name.split_once('.').unwrap();
    let fits = |name: &str| name.starts_with(stem) && name.ends_with(&format!(".{ending}.zst"));
    let mut files = std::fs::read_dir(folder).unwrap().map(|file| file.unwrap().path());
    let file = files.find(|path| fits(path.file_name().unwrap().to_str().unwrap())).unwrap();
    String::from_utf8(zstd::decode_all(std::fs::File::open(file).unwrap()).unwrap()).unwrap()
}

fn articles() -> BTreeMap<String, i64> {
    let text = data("stock.csv");
    let row = |line: &str| {
        let (sku, on_hand) = (line.split(',').next().unwrap(), line.rsplit(',').next().unwrap());
        (sku.to_owned(), on_hand.parse().unwrap())
    };
    text.lines().skip(1).map(row).collect()
}

/// What the rules come to, counted without Recount: verdict and reason, and what is left of each article.
fn account(lines: &[(String, i64)]) -> (BTreeMap<String, usize>, BTreeMap<String, i64>) {
    let (mut fates, mut stock) = (BTreeMap::<String, usize>::new(), articles());
    for (sku, quantity) in lines {
        let fate = match stock.get_mut(sku) {
            _ if *quantity == 0 => "skipped zero_quantity",
            None => "dead-lettered unknown_sku",
            Some(on_hand) if *on_hand < *quantity => "dead-lettered insufficient_stock",
            Some(on_hand) => {
                *on_hand -= quantity;
                "applied"
            }
        };
        *fates.entry(fate.to_owned()).or_default() += 1;
    }
    (fates, stock)
}

#[test]
fn orders_through_six_partitions_into_postgres_are_exact_over_kills() {
    let Some(shop) = Orders::open() else { return };
    let text = data("orders.ndjson");
    let producer = shop.topic.producer(None);
    let mut lines = Vec::new();
    for line in text.lines() {
        let order: Value = serde_json::from_str(line).unwrap();
        let (sku, quantity) =
            (order["sku"].as_str().unwrap().to_owned(), order["quantity"].as_i64().unwrap());
        send(&producer, BaseRecord::to(&shop.topic.name).key(&sku).payload(line));
        lines.push((sku, quantity));
    }
    producer.flush(Duration::from_secs(60)).unwrap();
    let (expected, stock) = account(&lines);

    for round in 1..=3 {
        let running = shop.world.start(&["run"]);
        let enough = lines.len() * round / 8;
        eventually("it goes on", || shop.applied() > enough);
        running.kill();
    }
    let running = shop.world.start(&["run"]);
    let begun = Instant::now();
    while shop.taken() < lines.len() {
        assert!(begun.elapsed() < Duration::from_secs(600), "{} of {} are taken", shop.taken(), lines.len());
        std::thread::sleep(Duration::from_millis(200));
    }
    eventually("all are in the ledger", || shop.world.decided() == lines.len());
    let told = running.terminate();
    // Budgets are counted in the order decided, which is another one here than that of the file.
    assert!(told.code.is_some() && told.out.contains("flow reserve-stock: balanced"), "{}", told.all());

    let mut fates = BTreeMap::<String, usize>::new();
    shop.world.fates().into_iter().for_each(|fate| *fates.entry(fate).or_default() += 1);
    assert_eq!(fates, expected);
    let counted = "SELECT count(*), count(DISTINCT (\"partition\", \"offset\")), count(DISTINCT event_id) \
                   FROM recount_effect";
    let applied = expected["applied"];
    assert_eq!(shop.sql(counted), format!("{applied}|{applied}|{applied}"));
    let left: BTreeMap<String, i64> = shop
        .sql("SELECT sku, on_hand FROM stock")
        .lines()
        .map(|row| row.split_once('|').unwrap())
        .map(|(sku, on_hand)| (sku.to_owned(), on_hand.parse().unwrap()))
        .collect();
    assert_eq!(left, stock);
    let partitions = "SELECT count(DISTINCT \"partition\") FROM recount_effect";
    assert_eq!(shop.sql(partitions), "6", "all partitions took part");
    let report = shop.world.audit().json();
    for equation in ["E1", "E2", "E3"] {
        assert_eq!(statement(&report, equation)["status"], "balanced", "{report:#}");
    }
}
