//! `recount publish` into topics of a real broker: what is acknowledged is what is there.

use crate::harness::{TAKE_FROM_STOCK, Told, World, config, eventually, order, orders};
use crate::kafka::topic::{Topic, unique};
use serde_json::Value;
use std::fs;

/// A flow on a topic of three partitions.
struct Shop {
    world: World,
    topic: Topic,
}

impl Shop {
    fn open() -> Option<Self> {
        let kafka = recount_services::kafka()?;
        let topic = Topic::make(&kafka.servers(), "published", 3);
        let source =
            format!("source = {{ broker = \"main\", topic = \"{0}\", group = \"{0}\" }}\n", topic.name);
        let broker = format!("[broker.main]\nkafka = {{ servers = \"{}\" }}\n", kafka.servers());
        Some(Self { world: World::new(&config(&source, &format!("{TAKE_FROM_STOCK}{broker}"))), topic })
    }

    fn publish(&self, lines: &[String], arguments: &[&str]) -> Told {
        fs::write(self.world.path("more.ndjson"), lines.join("\n")).unwrap();
        self.world.recount(&[&["publish", "--file", "more.ndjson", "--json"], arguments].concat())
    }
}

fn acknowledged(receipt: &Value) -> u64 {
    receipt["receipt"]["partitions"].as_array().unwrap().iter().map(|at| at["events"].as_u64().unwrap()).sum()
}

#[test]
fn what_is_published_to_a_flow_s_topic_is_what_the_flow_then_decides() {
    let Some(shop) = Shop::open() else { return };
    let lines = [orders(0..30, "a"), vec![String::new()], orders(30..60, "b")].concat();
    let receipt = shop.publish(&lines, &["stock"]).expect(0).json();
    assert_eq!((&receipt["receipt"]["events"], acknowledged(&receipt)), (&60.into(), 60), "{receipt:#}");
    // The flow's own key, so that the orders of an article are in one partition.
    assert!(receipt["receipt"]["partitions"].as_array().unwrap().len() <= 2, "{receipt:#}");
    let running = shop.world.start(&["run"]);
    eventually("all are decided", || shop.world.decided() == 60);
    running.terminate().expect(0);
    assert_eq!((shop.world.on_hand("a"), shop.world.on_hand("b")), (70, 70));
    shop.world.audit().expect(0);
}

#[test]
fn a_line_that_the_broker_does_not_take_ends_it_and_is_named() {
    let Some(shop) = Shop::open() else { return };
    let large = order(&"9".repeat(2 << 20), "a", 1);
    let lines = [orders(0..5, "a"), vec![large], orders(5..9, "a")].concat();
    let told = shop.publish(&lines, &["stock"]).expect(1);
    let receipt = told.json();
    assert_eq!((&receipt["receipt"]["events"], &receipt["receipt"]["refused"]), (&5.into(), &1.into()));
    assert_eq!(receipt["receipt"]["refused_first"][0]["line"], 6, "{receipt:#}");
}

#[test]
fn a_topic_or_a_key_that_is_not_there_is_told_and_nothing_is_made() {
    let Some(shop) = Shop::open() else { return };
    let servers = shop.topic.servers.clone();
    let nowhere = unique("nowhere");
    let told = shop.publish(&orders(0..1, "a"), &["--to", &servers, &nowhere]).expect(4);
    assert!(told.all().contains(&format!("has no topic {nowhere}")), "{}", told.all());
    let told =
        shop.publish(&orders(0..1, "a"), &["--to", "main", &shop.topic.name, "--key", "shop"]).expect(2);
    assert!(told.all().contains("line 1") && told.all().contains("at shop"), "{}", told.all());
    shop.publish(&orders(0..3, "a"), &["--to", "main", &shop.topic.name, "--key", "sku"]).expect(0);
    let told = shop.publish(&orders(0..1, "a"), &["--to", "main"]).expect(2);
    assert!(told.all().contains("--to"), "{}", told.all());
}
