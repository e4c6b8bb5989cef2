//! Brokers and sources on them.

use super::check;
#[cfg(feature = "kafka")]
use super::{Config, RIGHT, check_text, load};

#[cfg(feature = "kafka")]
#[test]
fn brokers_and_topics() {
    let file = "source = { file = \"orders.ndjson\" }";
    let topic = "source = { broker = \"main\", topic = \"orders\", group = \"inventory\"";
    let check_in = |broker: &str, rest: &str, expected: &[&str]| {
        let text = RIGHT.replacen("[ledger]", &format!("[broker.main]\n{broker}\n[ledger]"), 1);
        let text = text.replacen(file, &format!("{topic}{rest} }}"), 1);
        check_text(&text, expected);
    };
    let plain = "kafka = { servers = \"a:1\" }";
    for start in [
        "",
        ", start = \"earliest\"",
        ", start = 12",
        ", start = 2026-11-23T02:00:00Z",
        ", start = \"2026-11-23T02:00:00Z\"",
    ] {
        check_in(plain, start, &[]);
    }
    let wrong_start = ["10 flow.reserve-stock.source.start: `start` takes"];
    for start in [", start = \"first\"", ", start = -1", ", start = 2026-11-23", ", start = true"] {
        check_in(plain, start, &wrong_start);
    }
    check_in(plain, ", follow = true", &["10 flow.reserve-stock.source.follow: `follow` is for files"]);
    check_in(plain, ", http = \"/a\"", &["10 flow.reserve-stock.source.http: a flow has one source"]);
    check_in(
        plain,
        ", member = \"a\"",
        &["10 flow.reserve-stock.source.member: `member` is for processes that share a ledger"],
    );
    check(
        file,
        "source = { file = \"a\", topic = \"orders\" }",
        &["8 flow.reserve-stock.source.topic: `topic` is for a source on a broker"],
    );
    check_in(
        "kafka = { security.protocol = \"SASL_SSL\" }",
        "",
        &["2 broker.main.kafka: the broker's settings have no `servers`"],
    );
    let secret = "kafka = { servers = \"a:1\", sasl.password = \"hunter2\" }";
    check_in(secret, "", &["2 broker.main.kafka.sasl.password: `sasl.password` holds a secret"]);
    let shown =
        load(&RIGHT.replacen("[ledger]", &format!("[broker.main]\n{secret}\n[ledger]"), 1)).unwrap_err();
    assert!(!shown.render().contains("hunter2"), "{}", shown.render());
    let refused = "kafka = { servers = \"a:1\", \"enable.auto.commit\" = true, auto = { offset = { reset = \"latest\" } } }";
    check_in(
        refused,
        "",
        &[
            "2 broker.main.kafka.enable.auto.commit: `enable.auto.commit` can't be set: the committed offset is written",
            "2 broker.main.kafka.auto.offset.reset: `auto.offset.reset` can't be set: a position that is gone is recorded",
        ],
    );
}

#[cfg(feature = "kafka")]
#[test]
fn secrets_of_a_broker_are_looked_up_late_and_dotted_keys_are_names() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("password"), "hunter2\n").unwrap();
    let kafka = "[broker.main.kafka]\nservers = \"a:1,b:2\"\nsecurity.protocol = \"SASL_SSL\"\n\"sasl.username\" = \"ada\"\n\
                 sasl.password = { file = \"password\" }\nsocket.timeout.ms = 5000\nssl.ca.location = \"/ca.pem\"\n";
    let text = RIGHT.replace("schema = \"order.schema.json\"\n", "") + kafka;
    let config = Config::from_text(&text, &folder.path().join("recount.toml")).unwrap();
    let broker = &config.brokers["main"];
    assert!(!format!("{broker:?}").contains("hunter2"));
    let (servers, mut properties) = broker.resolve().unwrap();
    properties.sort();
    let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
    assert_eq!(servers, "a:1,b:2");
    assert_eq!(
        properties,
        [
            pair("sasl.password", "hunter2"),
            pair("sasl.username", "ada"),
            pair("security.protocol", "SASL_SSL"),
            pair("socket.timeout.ms", "5000"),
            pair("ssl.ca.location", "/ca.pem"),
        ]
    );
}

#[cfg(not(feature = "kafka"))]
#[test]
fn a_build_without_kafka_says_so_where_a_broker_is_named() {
    check(
        "[ledger]",
        "[broker.main]\nkafka = { servers = \"a:1\" }\n[ledger]",
        &["2 broker.main.kafka: this build of recount has no Kafka"],
    );
}

#[cfg(feature = "kafka")]
#[test]
fn a_topic_for_dead_letters_is_for_a_flow_that_reads_a_topic_and_does_not_come_back_to_it() {
    let file = "source = { file = \"orders.ndjson\" }";
    let letters = |keys: &str| format!("dead_letters = {{ {keys} }}");
    let on_topic = |keys: &str, expected: &[&str]| {
        let broker = "[broker.main]\nkafka = { servers = \"a:1\" }\n[ledger]";
        let text = RIGHT.replacen("[ledger]", broker, 1);
        let topic = "source = { broker = \"main\", topic = \"orders\", group = \"inventory\" }";
        check_text(&text.replacen(file, &format!("{topic}\n{}", letters(keys)), 1), expected);
    };
    on_topic("topic = \"orders.DLT\"", &[]);
    on_topic("topic = \"orders.DLT\", headers = \"connect\", broker = \"main\"", &[]);
    let comes_back = "11 flow.reserve-stock.dead_letters.topic: dead letters would come back to the flow";
    on_topic("topic = \"orders\"", &[comes_back]);
    on_topic(
        "topic = \"d\", headers = \"kafka\"",
        &["11 flow.reserve-stock.dead_letters.headers: `headers` can't be"],
    );
    on_topic(
        "topic = \"d\", broker = \"mian\"",
        &["11 flow.reserve-stock.dead_letters.broker: there is no broker"],
    );
    on_topic(
        "headers = \"spring\"",
        &["11 flow.reserve-stock.dead_letters.topic: `[flow.NAME.dead_letters]` has no `topic`"],
    );
    check(
        file,
        &format!("{file}\n{}", letters("topic = \"d\"")),
        &["9 flow.reserve-stock.dead_letters: `dead_letters` is for a flow that reads a topic"],
    );
}
