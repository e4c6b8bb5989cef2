//! Real consumers on a real topic, observed from beside: what they committed past without an effect is named, and
//! what they have not committed is nobody's fault yet. And one that reports its verdicts by partition and offset.

use crate::harness::{Running, Told, World, config, eventually, order, statement};
use crate::kafka::topic::{Topic, unique};
use rdkafka::ClientConfig;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _};
use rdkafka::message::Message;
use rdkafka::producer::Producer as _;
use rdkafka::{Offset, TopicPartitionList};
use rusqlite::Connection;
use serde_json::{Value, json};
use std::collections::{BTreeSet, HashMap};
use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::Duration;

const BY_ID: &str = "{ sql = \"SELECT order_id FROM movement\", id = \"order_id\" }";
const BARE: &str = "{ sql = \"SELECT order_id FROM movement\" }";

/// A topic with orders, a consumer group's name, and a flow that observes it.
struct Shop {
    world: World,
    topic: Topic,
}

impl Shop {
    /// None where Kafka was left out on purpose.
    fn open(partitions: i32, effects: &str, within: &str, window: &str) -> Option<Self> {
        let kafka = recount_services::kafka()?;
        let topic = Topic::make(&kafka.servers(), "observed", partitions);
        let source = format!(
            "mode = \"observe\"\nsource = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\", group_window = \
             \"{window}\" }}\n",
            topic.name
        );
        let tables = format!(
            "[flow.stock.apply]\ndatabase = \"shop\"\neffects = {effects}\nwithin = \"{within}\"\n\n{}",
            broker(&topic)
        );
        let world = World::new(&config(&source, &tables));
        world.shop().execute_batch("CREATE TABLE movement (order_id TEXT)").unwrap();
        Some(Self { world, topic })
    }

    /// Orders `o0`, `o1` …, dealt out to the partitions in turn.
    fn publish(&self, ids: std::ops::Range<u64>, partitions: u64) {
        for partition in 0..partitions {
            let of_partition = ids.clone().filter(|id| id % partitions == partition);
            let lines: Vec<String> = of_partition.map(|id| order(&format!("o{id}"), "a", 1)).collect();
            let lines: Vec<&str> = lines.iter().map(String::as_str).collect();
            self.topic.publish(i32::try_from(partition).unwrap(), &lines);
        }
    }

    fn consumer(&self) -> Consumer {
        Consumer::join(&self.topic, &[])
    }

    /// The usual effect.
    fn move_all(&self) -> impl FnMut(&str) {
        let shop = self.world.shop();
        move |id| assert_eq!(shop.execute("INSERT INTO movement VALUES (?1)", [id]).unwrap(), 1)
    }

    fn audit(&self) -> Told {
        self.world.recount(&["audit", "--json", "--names", "1000"])
    }

    /// The audit, once it says so of E2 and of the group; an empty word stands for any.
    fn audit_until(&self, e2: &str, group: &str) -> Value {
        let mut last = Value::Null;
        eventually(&format!("E2 is {e2} and the group {group}"), || {
            let told = self.audit();
            let Ok(report) = serde_json::from_str::<Value>(&told.out) else { return false };
            last = report;
            last["flows"][0]["statements"].as_array().is_some_and(|all| !all.is_empty())
                && statement(&last, "E2")["status"] == e2
                && (group.is_empty() || last["flows"][0]["group"]["status"] == group)
        });
        last
    }
}

fn broker(topic: &Topic) -> String {
    format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", topic.servers)
}

/// An ordinary consumer: polls, does its work, and commits.
struct Consumer {
    consumer: BaseConsumer,
}

impl Consumer {
    fn join(topic: &Topic, settings: &[(&str, &str)]) -> Self {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &topic.servers).set("group.id", &topic.name);
        config.set("auto.offset.reset", "earliest").set("enable.auto.commit", "false");
        for (name, value) in settings {
            config.set(*name, *value);
        }
        let consumer: BaseConsumer = config.create().unwrap();
        consumer.subscribe(&[&topic.name]).unwrap();
        Self { consumer }
    }

    /// Takes so many and commits each; `work` is given the id.
    fn take(&self, count: usize, mut work: impl FnMut(&str)) {
        self.records(count, |_, _, order| work(order["id"].as_str().unwrap()));
    }

    /// The same with partition and offset.
    fn records(&self, count: usize, mut work: impl FnMut(i32, i64, &Value)) {
        let mut left = count;
        let mut passed = HashMap::new();
        eventually("the consumer has what it waits for", || {
            while left > 0 {
                let Some(record) = self.consumer.poll(Duration::from_millis(200)) else { return false };
                let record = record.unwrap();
                let order = serde_json::from_slice(record.payload().unwrap()).unwrap();
                work(record.partition(), record.offset(), &order);
                self.consumer.commit_message(&record, CommitMode::Async).unwrap();
                let place = (record.topic().to_owned(), record.partition());
                passed.insert(place, Offset::Offset(record.offset() + 1));
                left -= 1;
            }
            true
        });
        // By name: the client's own state has nothing left to commit once the others were answered, which it calls an
        // error.
        let passed = TopicPartitionList::from_topic_map(&passed).unwrap();
        self.consumer.commit(&passed, CommitMode::Sync).unwrap();
    }
}

fn finding<'j>(report: &'j Value, code: &str) -> &'j Value {
    let findings = statement(report, "E2")["findings"].as_array().unwrap();
    findings.iter().find(|f| f["code"] == code).unwrap_or_else(|| panic!("no {code}: {report:#}"))
}

/// The ids in a finding's names, which are `flow/partition/offset (id X)`.
fn ids(finding: &Value) -> BTreeSet<String> {
    let names = finding["names"].as_array().unwrap().iter().map(|name| name.as_str().unwrap());
    names.map(|name| name.split_once("(id ").unwrap().1.trim_end_matches(')').to_owned()).collect()
}

fn group(report: &Value) -> &Value {
    &report["flows"][0]["group"]
}

fn sentence(report: &Value) -> &str {
    statement(report, "E2")["sentence"].as_str().unwrap()
}

#[test]
fn what_a_silent_consumer_committed_past_is_named_and_a_correct_one_is_not_accused() {
    let Some(server) = recount_services::postgres() else { return };
    let Some(shop) = Shop::open(3, BY_ID, "1s", "5s") else { return };
    let url = server.fresh_database().unwrap();
    let database = url.rsplit('/').next().unwrap().to_owned();
    server.sql(&database, "CREATE TABLE movement (order_id text)").unwrap();
    let text = std::fs::read_to_string(shop.world.path("recount.toml")).unwrap();
    shop.world.configure(&text.replace("sqlite:shop.db", &url));
    shop.publish(0..300, 3);
    let running = shop.world.start(&["run"]);

    // The line that this project exists for: no error, no alert, nothing done.
    let is_left_out = |id: &str| id[1..].parse::<u64>().unwrap() % 20 == 7;
    let consumer = shop.consumer();
    let mut moved = Vec::new();
    consumer.take(300, |id| {
        if is_left_out(id) {
            return;
        }
        moved.push(format!("('{id}')"));
    });
    server.sql(&database, &format!("INSERT INTO movement VALUES {}", moved.join(","))).unwrap();

    let report = shop.audit_until("imbalanced", "OK");
    let missing = finding(&report, "expected_effect_missing");
    let expected: BTreeSet<String> = (0..300).map(|n| format!("o{n}")).filter(|id| is_left_out(id)).collect();
    assert_eq!((missing["count"].as_u64(), ids(missing)), (Some(15), expected.clone()));
    let begin = format!(
        "300 published, 300 committed by the group {0}; 15 of 300 expected effects are not in the database: ",
        shop.topic.name
    );
    assert!(sentence(&report).starts_with(&begin), "{report:#}");
    assert!(sentence(&report).contains("committed past these and left nothing"), "{report:#}");
    assert_eq!(statement(&report, "E1")["status"], "balanced", "{report:#}");
    assert_eq!(shop.audit().code, Some(1));

    let late: Vec<String> = expected.iter().map(|id| format!("('{id}')")).collect();
    server.sql(&database, &format!("INSERT INTO movement VALUES {}", late.join(","))).unwrap();
    let told = shop.audit().expect(0);
    assert_eq!(statement(&told.json(), "E2")["status"], "balanced", "{}", told.out);
    assert_eq!(told.json()["flows"][0]["working"], true);
    let told = running.terminate().expect(0);
    assert!(told.out.contains("flow stock: balanced"), "{}", told.all());
    drop(consumer);
}

#[test]
fn what_the_group_has_not_committed_is_open_however_long_ago_recount_decided_it() {
    let Some(shop) = Shop::open(2, BY_ID, "250ms", "10m") else { return };
    shop.publish(0..60, 2);
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    consumer.take(25, shop.move_all());
    eventually("all are decided", || shop.world.decided() == 60);
    std::thread::sleep(Duration::from_millis(1000));
    let told = shop.audit().expect(0);
    let report = told.json();
    assert_eq!(statement(&report, "E2")["status"], "open", "{report:#}");
    let told = sentence(&report);
    assert!(told.contains("60 published, 25 committed by the group"), "{told}");
    assert!(told.contains("35 not committed by the group"), "{told}");
    assert_eq!((&group(&report)["lag"], &group(&report)["members"]), (&35.into(), &1.into()), "{report:#}");

    // Committed first, and the effect a moment later: within its time that is no finding.
    consumer.take(35, |_| {});
    let report = shop.audit().expect(0).json();
    assert_eq!(statement(&report, "E2")["status"], "open", "{report:#}");
    shop.audit_until("imbalanced", "OK");
    let mut move_it = shop.move_all();
    let there = |id: &String| {
        shop.world.number(&format!("SELECT count(*) FROM movement WHERE order_id = '{id}'")) > 0
    };
    (0..60).map(|n| format!("o{n}")).filter(|id| !there(id)).for_each(|id| move_it(&id));
    shop.audit_until("balanced", "OK");
    running.terminate().expect(0);
}

#[test]
fn a_bare_count_says_how_many_and_that_it_cannot_say_which() {
    let Some(shop) = Shop::open(1, BARE, "1s", "5s") else { return };
    shop.publish(0..40, 1);
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    let mut move_it = shop.move_all();
    consumer.take(30, |id| {
        if id != "o3" && id != "o4" {
            move_it(id)
        }
    });
    let report = shop.audit_until("imbalanced", "");
    let missing = finding(&report, "expected_effect_missing");
    assert_eq!((&missing["count"], missing["names"].as_array().unwrap().len()), (&2.into(), 0), "{report:#}");
    assert!(sentence(&report).contains("40 published, 30 committed by the group"), "{report:#}");
    assert!(sentence(&report).contains("which ones can't be told"), "{report:#}");
    running.terminate().expect(1);
}

/// One gauge of `/metrics`.
fn gauge(running: &Running, begin: &str) -> Option<String> {
    let (_, text) = running.get("/metrics");
    text.lines().find(|line| line.starts_with(begin))?.rsplit(' ').next().map(str::to_owned)
}

#[test]
fn a_stuck_group_is_told_from_one_without_members() {
    let Some(shop) = Shop::open(1, BY_ID, "1s", "2s") else { return };
    let name = &shop.topic.name;
    shop.publish(0..10, 1);
    let running = shop.world.start(&["run"]);
    let report = shop.audit_until("open", "ERR");
    assert_eq!(group(&report)["partitions"][0]["status"], "STOP", "nobody ever joined: {report:#}");
    assert_eq!(group(&report)["members"], 0);

    let consumer = shop.consumer();
    consumer.take(10, shop.move_all());
    shop.audit_until("balanced", "OK");
    assert_eq!(shop.topic.committed(name, 0), Some(10));
    shop.publish(10..20, 1);
    // It is alive, and takes and commits nothing: whoever polls nothing for long would be put out of its group.
    let report = shop.audit_until("open", "ERR");
    assert_eq!(group(&report)["partitions"][0]["status"], "STALL", "{report:#}");
    let told = format!(
        "the group {name} is ERR (STALL): 1 member, 10 positions behind; members are there and commit nothing further \
         for 2s: partition 0 at 10 of 20"
    );
    assert_eq!(report["flows"][0]["not_working"], json!([told]), "{report:#}");
    for _ in 0..4 {
        assert_eq!(
            group(&shop.audit().expect(1).json())["status"],
            "ERR",
            "it stays so while nothing changes"
        );
    }
    let status = shop.world.recount(&["status", "--json"]).expect(1).json();
    assert_eq!(status["flows"][0]["group"]["status"], "ERR");
    let screen = shop.world.recount(&["status"]).expect(1).out;
    assert!(screen.replace("\n    ", " ").contains(&told[..60]), "{screen}");
    let labels = format!("{{flow=\"stock\",group=\"{name}\"");
    let stands = |status: &str| format!("recount_group_status{labels},status=\"{status}\"}}");
    eventually("the metric says it too", || gauge(&running, &stands("ERR")).as_deref() == Some("1"));
    assert_eq!(gauge(&running, &stands("OK")).as_deref(), Some("0"));
    assert_eq!(gauge(&running, &format!("recount_group_lag_positions{labels}")).as_deref(), Some("10"));

    drop(consumer);
    let mut last = Value::Null;
    eventually("it is told from a group without members", || {
        last = shop.audit().json();
        group(&last)["partitions"][0]["status"] == "STOP"
    });
    assert_eq!(
        statement(&last, "E2")["status"],
        "open",
        "what it has not committed is not missing: {last:#}"
    );
    running.terminate().expect(1);
}

#[test]
fn offsets_moved_from_outside_are_told_and_what_was_passed_over_is_missing() {
    let Some(shop) = Shop::open(1, BY_ID, "1s", "3s") else { return };
    let name = shop.topic.name.as_str();
    shop.publish(0..30, 1);
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    consumer.take(10, shop.move_all());
    eventually("what it committed is seen", || group(&shop.audit().json())["committed"] == 10);
    drop(consumer);
    // Nobody is in the group: now it can be moved.
    eventually("the group is seen without members", || group(&shop.audit().json())["members"] == 0);
    let moves = || {
        let journal = shop.world.journal();
        let told = journal.iter().filter(|(what, _)| what == "offset_moved_outside");
        told.map(|(_, detail)| detail["sentence"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    shop.topic.move_group(name, 0, 4);
    eventually("that it went back is told", || moves().len() == 1);
    assert!(moves()[0].contains("went back from 10 to 4"), "{:?}", moves());
    shop.topic.move_group(name, 0, 20);
    eventually("that it went on by itself is told", || moves().len() == 2);
    assert!(moves()[1].contains("went from 4 to 20 while nobody was in the group"), "{:?}", moves());
    let mut report = Value::Null;
    eventually("what was passed over is due", || {
        report = shop.audit().json();
        statement(&report, "E2")["status"] == "imbalanced"
    });
    let missing = finding(&report, "expected_effect_missing");
    assert_eq!(ids(missing), (10..20).map(|n| format!("o{n}")).collect(), "{report:#}");
    let kinds: Vec<_> = group(&report)["moves"].as_array().unwrap().iter().map(|m| &m["kind"]).collect();
    assert_eq!(kinds, ["back", "forward"]);
    let text = shop.world.recount(&["audit"]).out;
    assert!(text.contains("went back from 10 to 4"), "{text}");
    running.terminate().expect(1);
}

#[test]
fn nothing_of_the_observed_group_is_touched_whatever_is_asked() {
    let Some(shop) = Shop::open(1, BY_ID, "1s", "2s") else { return };
    let name = &shop.topic.name;
    shop.publish(0..5, 1);
    let running = shop.world.start(&["run"]);
    eventually("all are decided", || shop.world.decided() == 5);
    shop.audit_until("open", "ERR");
    assert_eq!(shop.topic.committed(name, 0), None, "Recount committed in the consumer's name");
    assert_eq!(running.terminate().code, Some(1));
    // A consumer of the group's newer protocol is not described to older clients; its offsets are seen all the same.
    let consumer = Consumer::join(&shop.topic, &[("group.protocol", "consumer")]);
    let running = shop.world.start(&["run"]);
    consumer.take(5, shop.move_all());
    let report = shop.audit_until("balanced", "OK");
    assert!(group(&report)["members"] != 0, "{report:#}");
    shop.publish(5..9, 1);
    let report = shop.audit_until("open", "ERR");
    assert_eq!(group(&report)["partitions"][0]["status"], "STALL", "{report:#}");
    running.terminate().expect(1);
}

#[test]
fn a_group_that_cannot_be_asked_leaves_the_effects_unprovable() {
    let Some(shop) = Shop::open(1, BY_ID, "1s", "2s") else { return };
    shop.publish(0..5, 1);
    let running = shop.world.start(&["run"]);
    eventually("all are decided", || shop.world.decided() == 5);
    running.terminate();
    // Nothing listens at port 1.
    let text = std::fs::read_to_string(shop.world.path("recount.toml")).unwrap();
    shop.world.configure(&text.replace(&shop.topic.servers, "127.0.0.1:1"));
    let report = shop.audit().expect(3).json();
    assert_eq!(statement(&report, "E2")["status"], "unprovable", "{report:#}");
    assert!(report["flows"][0]["not_known"].to_string().contains("127.0.0.1:1"), "{report:#}");
}

#[test]
fn a_consumer_reports_by_partition_and_offset_and_what_it_passed_in_silence_is_unreported() {
    let Some(kafka) = recount_services::kafka() else { return };
    let topic = Topic { name: unique("reported"), servers: kafka.servers() };
    topic.make_again(2, &[]);
    let source = format!("mode = \"report\"\nsource = {{ broker = \"main\", topic = \"{}\" }}\n", topic.name);
    let apply = "[flow.stock.apply]\nwithin = \"1s\"\n\n";
    let world = World::new(&config(&source, &format!("{apply}{}", broker(&topic))));
    let shop = Shop { world, topic };
    shop.publish(0..40, 2);
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    let is_left_out = |id: &str| ["o6", "o17"].contains(&id);
    let report_it = |partition: i32, offset: i64, order: &Value| {
        let mut body = json!({ "flow": "stock", "partition": partition, "committed": offset + 1 });
        if !is_left_out(order["id"].as_str().unwrap()) {
            body["decisions"] = json!([{ "offset": offset, "verdict": "applied" }]);
        }
        eventually("the post is taken", || {
            let (status, answer) = running.post("/v1/decisions", &[], &body.to_string());
            assert!(status == 200 || status == 503, "{answer}");
            status == 200
        });
    };
    consumer.records(40, report_it);
    let mut report = Value::Null;
    eventually("all are decided or unreported", || {
        report = shop.audit().json();
        report["flows"][0]["books"]["applied"] == 38 && report["flows"][0]["books"]["unrecorded"] == 2
    });
    let findings = statement(&report, "E1")["findings"].as_array().unwrap();
    let unreported = findings.iter().find(|finding| finding["code"] == "unreported").unwrap();
    assert_eq!(ids(unreported), BTreeSet::from(["o17".to_owned(), "o6".to_owned()]), "{report:#}");
    let positions = unreported["names"].to_string();
    assert!(positions.contains("stock/0/3 ") && positions.contains("stock/1/8 "), "{positions}");
    assert_eq!(running.terminate().code, Some(1));
}

#[test]
fn two_audits_at_once_keep_one_record_of_what_was_seen() {
    let Some(shop) = Shop::open(1, BY_ID, "1s", "2s") else { return };
    shop.publish(0..5, 1);
    let running = shop.world.start(&["run"]);
    eventually("all are decided", || shop.world.decided() == 5);
    std::thread::scope(|scope| {
        let audits: Vec<_> = (0..4).map(|_| scope.spawn(|| shop.audit())).collect();
        audits.into_iter().for_each(|audit| assert!(group(&audit.join().unwrap().json()).is_object()));
    });
    running.terminate();
    let notes = Connection::open(shop.world.path("recount-data/groups.db")).unwrap();
    let looks: i64 = notes.query_row("SELECT count(*) FROM look", [], |row| row.get(0)).unwrap();
    assert!(looks > 1);
}

/// Answers each GET with how many effects there are.
fn count_over_http(shop: std::path::PathBuf) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = format!("http://{}/movements", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            let mut asked = [0; 4096];
            let length = client.read(&mut asked).unwrap();
            assert!(asked[..length].starts_with(b"GET /movements HTTP/1.1"));
            let shop = Connection::open(&shop).unwrap();
            let count: i64 = shop.query_row("SELECT count(*) FROM movement", [], |row| row.get(0)).unwrap();
            let body = format!("{{\"movements\":{{\"total\":{count}}}}}");
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n");
            client.write_all(format!("{head}{body}").as_bytes()).unwrap();
        }
    });
    address
}

#[test]
fn effects_counted_over_http_are_held_against_what_the_group_committed() {
    let Some(shop) = Shop::open(1, BARE, "1s", "5s") else { return };
    let address = count_over_http(shop.world.path("shop.db"));
    let text = std::fs::read_to_string(shop.world.path("recount.toml")).unwrap();
    let over_http = format!("{{ http = \"{address}\", count = \"/movements/total\" }}");
    shop.world.configure(&text.replace(BARE, &over_http).replace("\ndatabase = \"shop\"", ""));
    let validated = shop.world.recount(&["validate"]).expect(0).out;
    assert!(validated.contains("gives the number of effects, 0 now"), "{validated}");
    shop.publish(0..20, 1);
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    let mut move_it = shop.move_all();
    consumer.take(20, |id| {
        if id != "o3" {
            move_it(id);
        }
    });
    let report = shop.audit_until("imbalanced", "OK");
    assert_eq!(finding(&report, "expected_effect_missing")["count"], 1, "{report:#}");
    move_it("o3");
    shop.audit_until("balanced", "OK");
    running.terminate().expect(0);
}

#[test]
fn a_transactions_marker_behind_the_last_event_is_no_lag() {
    let Some(shop) = Shop::open(1, BY_ID, "250ms", "1s") else { return };
    let producer = shop.topic.producer(Some(&shop.topic.name));
    producer.begin_transaction().unwrap();
    (0..5).for_each(|id| shop.topic.send(&producer, 0, &order(&format!("o{id}"), "a", 1)));
    producer.commit_transaction(Duration::from_secs(30)).unwrap();
    let running = shop.world.start(&["run"]);
    let consumer = shop.consumer();
    consumer.take(5, shop.move_all());
    assert_eq!(shop.topic.committed(&shop.topic.name, 0), Some(5), "the consumer stands before the marker");
    eventually("the marker is known", || shop.audit().json()["flows"][0]["books"]["not-an-event"] == 1);
    std::thread::sleep(Duration::from_millis(1500));
    let report = shop.audit().expect(0).json();
    assert_eq!((&group(&report)["status"], &group(&report)["lag"]), (&"OK".into(), &0.into()), "{report:#}");
    running.terminate().expect(0);
}

/// The blocks of the guide's section about groups: the config, and what the audit prints.
fn guide() -> (String, String) {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/guide/observe.md");
    let page = std::fs::read_to_string(path).unwrap();
    let (_, section) = page.split_once("## Beside a consumer group on Kafka").unwrap();
    let block = |language: &str| {
        let (_, from) = section.split_once(&format!("```{language}\n")).unwrap();
        from.split_once("```").unwrap().0.to_owned()
    };
    (block("toml"), block("text"))
}

#[test]
fn the_guides_config_is_short_and_finds_what_the_guide_says() {
    let (config, printed) = guide();
    assert!(config.lines().count() < 20, "{config}");
    let Some(server) = recount_services::postgres() else { return };
    let Some(shop) = Shop::open(1, BY_ID, "30s", "10m") else { return };
    let url = server.fresh_database().unwrap();
    let database = url.rsplit('/').next().unwrap().to_owned();
    server.sql(&database, "CREATE TABLE movement (order_id text)").unwrap();
    let name = &shop.topic.name;
    let real = [
        ("localhost:9092", shop.topic.servers.as_str()),
        ("postgres://reader@localhost/shop", &url),
        ("\"orders\"", &format!("\"{name}\"")),
        ("\"inventory\"", &format!("\"{name}\"")),
        ("\"30s\"", "\"1s\""),
    ];
    let config = real.iter().fold(config, |config, (written, here)| {
        assert!(config.contains(written), "{written}");
        config.replace(written, here)
    });
    shop.world.configure(&format!("server.listen = \"127.0.0.1:0\"\n{config}"));
    shop.publish(0..20, 1);
    let running = shop.world.start(&["run"]);
    shop.consumer().take(15, |id| {
        if id != "o3" {
            server.sql(&database, &format!("INSERT INTO movement VALUES ('{id}')")).unwrap();
        }
    });
    shop.audit_until("imbalanced", "");
    let told = shop.world.recount(&["audit"]).expect(1).out;
    let printed = printed.replace("group inventory", &format!("group {name}")).replace("30s", "1s");
    let (_, since) = told.split_once("expected_effect_missing (1").unwrap();
    let since = since.split_once("):").unwrap().0;
    assert!(
        told.contains(&printed.replace("missing (1)", &format!("missing (1{since})"))),
        "{told}{printed}"
    );
    running.terminate().expect(1);
}
