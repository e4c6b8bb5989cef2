//! Several processes share a topic and a ledger in PostgreSQL, and work moves: one joins, leaves, is killed, hangs.

use crate::harness::{Running, TAKE_FROM_STOCK, World, config, eventually, order, statement};
use crate::kafka::topic::Topic;
use recount_services::{Kafka, Postgres};
use std::time::{Duration, Instant};

const PARTITIONS: i32 = 6;
const SESSION_TIMEOUT: Duration = Duration::from_secs(3);

/// One topic, one database for effects and ledger, and a folder for each process.
struct Shared {
    kafka: &'static Kafka,
    server: &'static Postgres,
    database: String,
    topic: Topic,
    worlds: Vec<World>,
    published: u64,
}

impl Shared {
    /// None where a service was left out on purpose.
    fn open(ledger_is_shared: bool, processes: usize) -> Option<Self> {
        let (kafka, server) = (recount_services::kafka()?, recount_services::postgres()?);
        let topic = Topic::make(&kafka.servers(), "shared", PARTITIONS);
        let url = server.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let source = format!(
            "source = {{ broker = \"main\", topic = \"{}\", group = \"{}\" }}\n",
            topic.name, topic.name
        );
        let broker = format!(
            "[broker.main]\nkafka = {{ servers = \"{}\", session.timeout.ms = {} }}\n",
            kafka.servers(),
            SESSION_TIMEOUT.as_millis()
        );
        let ledger = if ledger_is_shared { "[ledger]\ndatabase = \"shop\"\n\n" } else { "" };
        let apply = TAKE_FROM_STOCK.replacen("rows = 1", "rows = 1\neffects = \"recount_effect\"", 1);
        let text = config(&source, &format!("{apply}{broker}{ledger}"));
        let text = text.replace("sqlite:shop.db", &url);
        let worlds = (0..processes).map(|_| World::new(&text)).collect();
        let shared = Self { kafka, server, database, topic, worlds, published: 0 };
        shared.sql("CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL)");
        shared.sql("INSERT INTO stock SELECT 's' || n, 100000 FROM generate_series(0, 40) n");
        Some(shared)
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim().to_owned()
    }

    /// Publishes so many orders to each partition.
    fn publish(&mut self, each: u64) {
        let producer = self.topic.producer(None);
        for _ in 0..each {
            for partition in 0..PARTITIONS {
                let line = order(&format!("o{}", self.published), &format!("s{}", self.published % 40), 1);
                self.topic.send(&producer, partition, &line);
                self.published += 1;
            }
        }
        rdkafka::producer::Producer::flush(&producer, Duration::from_secs(30)).unwrap();
    }

    fn applied(&self) -> u64 {
        let count = self.server.sql(&self.database, "SELECT count(*) FROM recount_effect");
        // Before the first start there is no such table.
        count.map_or(0, |count| count.trim().parse().unwrap())
    }

    /// Publishes, and gives how long it took until all of it was applied.
    fn work(&mut self, each: u64) -> Duration {
        let began = Instant::now();
        self.publish(each);
        let published = self.published;
        eventually("all is applied", || self.applied() >= published);
        began.elapsed()
    }

    fn start(&self, process: usize) -> Running {
        self.worlds[process].start(&["run"])
    }

    /// How many partitions the group has dealt to each of these, by the word of its coordinator.
    fn members(&self) -> Vec<usize> {
        use rdkafka::consumer::Consumer;
        let mut config = rdkafka::ClientConfig::new();
        config.set("bootstrap.servers", self.kafka.servers());
        let asks: rdkafka::consumer::BaseConsumer = config.create().unwrap();
        let Ok(list) = asks.fetch_group_list(Some(&self.topic.name), Duration::from_secs(10)) else {
            // The coordinator itself may just begin.
            return Vec::new();
        };
        let Some(group) = list.groups().first().filter(|group| group.state() == "Stable") else {
            return Vec::new();
        };
        let count = |assignment: Option<&[u8]>| {
            // Version, one topic with its name, and its partitions.
            let bytes = assignment.unwrap_or_default();
            let number =
                |at: usize| bytes.get(at..at + 4).map(|four| u32::from_be_bytes(four.try_into().unwrap()));
            match number(2) {
                Some(1) => number(8 + self.topic.name.len()).unwrap_or(0) as usize,
                _ => 0,
            }
        };
        let mut counts: Vec<_> = group.members().iter().map(|member| count(member.assignment())).collect();
        counts.sort_unstable();
        counts
    }

    fn shared_by(&self, counts: &[usize]) -> Duration {
        let began = Instant::now();
        eventually(&format!("the group deals {counts:?}"), || self.members() == counts);
        began.elapsed()
    }

    /// Every order has one effect, and the books of the whole balance.
    fn assert_exact(&self, process: usize) {
        assert_eq!(self.applied(), self.published);
        let different =
            "SELECT count(*) FROM (SELECT DISTINCT \"partition\", \"offset\" FROM recount_effect) e";
        assert_eq!(self.sql(different), self.published.to_string());
        let taken = "SELECT sum(100000 - on_hand) FROM stock";
        assert_eq!(self.sql(taken), self.published.to_string());
        let report = self.worlds[process].audit().json();
        for equation in ["E1", "E2"] {
            assert_eq!(statement(&report, equation)["status"], "balanced", "{report:#}");
        }
        assert_eq!(report["flows"][0]["books"]["applied"], self.published, "{report:#}");
    }
}

fn signal(running: &Running, signal: rustix::process::Signal) {
    rustix::process::kill_process(rustix::process::Pid::from_child(&running.child), signal).unwrap();
}

#[test]
fn work_moves_as_processes_join_leave_and_are_killed_and_every_order_counts_once() {
    let Some(mut shared) = Shared::open(true, 2) else { return };
    let validated = shared.worlds[0].recount(&["validate"]).expect(0).all();
    assert!(validated.contains("shared by the processes of the group"), "{validated}");
    assert!(validated.contains("session timeout 3s"), "{validated}");
    let first = shared.start(0);
    shared.work(50);
    let second = shared.start(1);
    let joined = shared.shared_by(&[3, 3]);
    shared.work(50);

    // A clean stop: the other need not wait out the session timeout.
    shared.publish(50);
    let asked = Instant::now();
    first.terminate();
    shared.shared_by(&[6]);
    let left = asked.elapsed();
    let moved = shared.work(10);

    let first = shared.start(0);
    shared.shared_by(&[3, 3]);
    // Killed with work under way: the other has it after the session timeout.
    shared.publish(50);
    let killed = Instant::now();
    first.kill();
    shared.shared_by(&[6]);
    let taken_over = killed.elapsed();
    shared.work(10);
    println!(
        "with a session timeout of {SESSION_TIMEOUT:?}: shared {joined:?} after the join, dealt anew {left:?} after SIGTERM \
         (orders then took {moved:?}) and {taken_over:?} after SIGKILL"
    );
    assert!(left < SESSION_TIMEOUT, "it left the group: {left:?}");
    second.terminate();
    shared.assert_exact(1);
}

#[test]
fn one_that_hung_past_the_session_timeout_robs_nobody_and_gets_work_again() {
    let Some(mut shared) = Shared::open(true, 2) else { return };
    let (first, second) = (shared.start(0), shared.start(1));
    shared.shared_by(&[3, 3]);
    shared.work(50);
    shared.publish(50);
    signal(&first, rustix::process::Signal::STOP);
    shared.shared_by(&[6]);
    shared.work(50);
    shared.publish(50);
    signal(&first, rustix::process::Signal::CONT);
    shared.shared_by(&[3, 3]);
    shared.work(50);
    assert!(!second.log().contains("another process took the partition"), "{}", second.log());
    for running in [first, second] {
        running.terminate();
    }
    shared.assert_exact(0);
}

#[test]
fn after_a_sigkill_a_process_that_comes_back_alone_goes_on_within_ten_seconds() {
    for ledger_is_shared in [false, true] {
        let Some(mut shared) = Shared::open(ledger_is_shared, 1) else { return };
        // As long as Kafka's own clients wait.
        let text = std::fs::read_to_string(shared.worlds[0].path("recount.toml")).unwrap();
        shared.worlds[0].configure(&text.replace("session.timeout.ms = 3000", "session.timeout.ms = 45000"));
        let running = shared.start(0);
        shared.work(50);
        shared.publish(50);
        running.kill();
        let began = Instant::now();
        let running = shared.start(0);
        shared.work(50);
        let flowed = began.elapsed();
        let mode = if ledger_is_shared { "member of a group" } else { "alone" };
        println!(
            "{mode}: all effects there again {:.1} s after a SIGKILL, with a session timeout of 45 s",
            flowed.as_secs_f64()
        );
        assert!(flowed < Duration::from_secs(10), "{mode}: {flowed:?}");
        shared.work(1);
        running.terminate();
        shared.assert_exact(0);
    }
}
