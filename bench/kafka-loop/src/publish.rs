//! Publishing order lines, as fast as it goes or at a held rate.

use crate::PARTITIONS;
use anyhow::{Context, Result, bail};
use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::{ClientContext, DefaultClientContext};
use rdkafka::error::{KafkaError, RDKafkaErrorCode};
use rdkafka::message::{DeliveryResult, Message};
use rdkafka::producer::{BaseRecord, Producer, ProducerContext, ThreadedProducer};
use std::fmt::Write as _;
use std::io::{BufRead, BufReader};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How long consumers have for the first events, before the held rate begins.
const WARM_PAUSE: Duration = Duration::from_secs(4);
const FLUSH_WAIT: Duration = Duration::from_secs(60);

/// A held rate.
pub struct Pace<'a> {
    /// Events in a second.
    pub rate: usize,
    /// So many before it, at once.
    pub warm: usize,
    /// The file that says of each of the others `partition,offset,microseconds`.
    pub published: &'a str,
}

/// Where each event went, and when it was handed over.
#[derive(Clone, Default)]
struct Receipts(Arc<Mutex<Sent>>);

/// Partition, offset and microseconds of each; and why one was not published.
type Sent = (Vec<(i32, i64, u64)>, Option<String>);

impl ClientContext for Receipts {}

impl ProducerContext for Receipts {
    type DeliveryOpaque = Box<u64>;

    fn delivery(&self, result: &DeliveryResult<'_>, handed_over_micros: Box<u64>) {
        let mut receipts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match result {
            Ok(message) => receipts.0.push((message.partition(), message.offset(), *handed_over_micros)),
            Err((error, _)) => receipts.1 = Some(error.to_string()),
        }
    }
}

/// Makes the topic, and publishes the first so many lines, keyed by article.
pub async fn fill(
    servers: &str,
    topic: &str,
    orders: &str,
    all: usize,
    pace: Option<Pace<'_>>,
) -> Result<()> {
    make(servers, topic).await?;
    let receipts = Receipts::default();
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("enable.idempotence", "true").set("linger.ms", "2");
    let producer: ThreadedProducer<Receipts> = config.create_with_context(receipts.clone())?;
    let lines = BufReader::new(std::fs::File::open(orders).with_context(|| format!("can't open {orders}"))?);
    let (warm, rate) = pace.as_ref().map_or((0, 0), |pace| (pace.warm, pace.rate));
    let mut begun = Instant::now();
    for (nth, line) in lines.lines().take(all).enumerate() {
        if nth == warm && warm > 0 {
            producer.flush(FLUSH_WAIT)?;
            tokio::time::sleep(WARM_PAUSE).await;
            begun = Instant::now();
        }
        if let Some(paced) = nth.checked_sub(warm).filter(|_| rate > 0) {
            let due = Duration::from_secs_f64(paced as f64 / rate as f64);
            // A moment's events together: a sleep for each would be longer than it says.
            if let Some(early) = due.checked_sub(begun.elapsed()).filter(|early| !early.is_zero()) {
                std::thread::sleep(early.max(Duration::from_millis(1)));
            }
        }
        send(&producer, topic, &line?)?;
    }
    producer.flush(FLUSH_WAIT)?;
    let (sent, failed) = std::mem::take(&mut *receipts.0.lock().unwrap_or_else(PoisonError::into_inner));
    if let Some(failed) = failed {
        bail!("an event was not published: {failed}");
    }
    if sent.len() != all {
        bail!("{} of {all} events were published", sent.len());
    }
    if let Some(pace) = pace {
        let mut text = String::new();
        let mut sent = sent;
        // In the order handed over, so that the first are those before the rate was held.
        sent.sort_by_key(|(_, _, micros)| *micros);
        for (partition, offset, micros) in sent.iter().skip(pace.warm) {
            writeln!(text, "{partition},{offset},{micros}")?;
        }
        std::fs::write(pace.published, text).with_context(|| format!("can't write {}", pace.published))?;
    }
    println!("{}", serde_json::json!({ "events": all, "seconds": begun.elapsed().as_secs_f64() }));
    Ok(())
}

async fn make(servers: &str, topic: &str) -> Result<()> {
    let admin: AdminClient<DefaultClientContext> =
        ClientConfig::new().set("bootstrap.servers", servers).create()?;
    let new = NewTopic::new(topic, PARTITIONS, TopicReplication::Fixed(1));
    for made in admin.create_topics([&new], &AdminOptions::new()).await? {
        made.map_err(|(name, why)| anyhow::anyhow!("topic {name} can't be made: {why}"))?;
    }
    Ok(())
}

fn send(producer: &ThreadedProducer<Receipts>, topic: &str, line: &str) -> Result<()> {
    let (_, rest) = line.split_once("\"sku\":\"").with_context(|| format!("no sku: {line}"))?;
    let sku = rest.split('"').next().unwrap_or_default();
    loop {
        let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_micros();
        let record = BaseRecord::with_opaque_to(topic, Box::new(u64::try_from(now)?)).key(sku).payload(line);
        match producer.send(record) {
            Ok(()) => return Ok(()),
            Err((KafkaError::MessageProduction(RDKafkaErrorCode::QueueFull), _)) => {
                std::thread::sleep(Duration::from_millis(1));
            }
            Err((error, _)) => return Err(error.into()),
        }
    }
}
