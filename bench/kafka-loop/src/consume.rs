//! The loop: a task and a connection a partition.

use crate::checks::{Checks, Passed};
use crate::database::{Came, Database};
use crate::{BATCH_EVENTS, PARTITIONS};
use anyhow::{Context, Result, bail};
use futures_util::FutureExt;
use rdkafka::consumer::stream_consumer::StreamPartitionQueue;
use rdkafka::consumer::{CommitMode, Consumer, DefaultConsumerContext, StreamConsumer};
use rdkafka::message::{BorrowedMessage, Message};
use rdkafka::{ClientConfig, Offset, TopicPartitionList};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinSet;

/// What the statements need of an order.
pub struct Order {
    pub offset: i64,
    pub id: String,
    pub sku: String,
    pub quantity: i32,
}

/// What all tasks share.
struct Shared {
    consumer: Arc<StreamConsumer>,
    topic: String,
    url: String,
    checks: Option<Checks>,
    seen: AtomicUsize,
    all: usize,
}

/// What came of the events of a partition.
#[derive(Default)]
struct Counts {
    applied: usize,
    unknown_sku: usize,
    insufficient_stock: usize,
    zero_quantity: usize,
    schema_mismatch: usize,
    negative_amount: usize,
    bulk_order: u64,
}

impl Counts {
    fn add(&mut self, came: &Came) {
        self.applied += came.applied;
        self.unknown_sku += came.unknown_sku;
        self.insufficient_stock += came.insufficient_stock;
    }
}

type Queue = StreamPartitionQueue<DefaultConsumerContext>;

/// A consumer that has all partitions, each with a queue of its own.
fn open(servers: &str, topic: &str, group: &str) -> Result<(Arc<StreamConsumer>, Vec<Queue>)> {
    let mut config = ClientConfig::new();
    config.set("bootstrap.servers", servers).set("group.id", group).set("enable.auto.commit", "false");
    config.set("isolation.level", "read_committed");
    let consumer: Arc<StreamConsumer> = Arc::new(config.create()?);
    let mut assignment = TopicPartitionList::new();
    for partition in 0..PARTITIONS {
        assignment.add_partition_offset(topic, partition, Offset::Beginning)?;
    }
    consumer.assign(&assignment)?;
    let queues: Option<Vec<Queue>> =
        (0..PARTITIONS).map(|partition| consumer.split_partition_queue(topic, partition)).collect();
    let served = Arc::clone(&consumer);
    // Records come through the queues; this one only hears of the connection.
    tokio::spawn(async move { while served.recv().await.is_ok() {} });
    Ok((consumer, queues.context("a partition has no queue")?))
}

/// Consumes so many events, and prints what came of them.
pub async fn run(
    servers: &str,
    topic: &str,
    group: &str,
    url: &str,
    all: usize,
    checks: Option<Checks>,
) -> Result<()> {
    let (consumer, queues) = open(servers, topic, group)?;
    let (topic, url) = (topic.to_owned(), url.to_owned());
    let shared = Arc::new(Shared { consumer, topic, url, checks, seen: AtomicUsize::new(0), all });
    let mut tasks = JoinSet::new();
    for (partition, queue) in queues.into_iter().enumerate() {
        tasks.spawn(consume(Arc::clone(&shared), queue, partition as i32));
    }
    let mut sums = Counts::default();
    while let Some(counts) = tasks.join_next().await {
        let counts = counts??;
        sums.applied += counts.applied;
        sums.unknown_sku += counts.unknown_sku;
        sums.insufficient_stock += counts.insufficient_stock;
        sums.zero_quantity += counts.zero_quantity;
        sums.schema_mismatch += counts.schema_mismatch;
        sums.negative_amount += counts.negative_amount;
        sums.bulk_order += counts.bulk_order;
    }
    println!(
        "{}",
        serde_json::json!({
            "events": shared.seen.load(Ordering::Relaxed),
            "applied": sums.applied,
            "unknown_sku": sums.unknown_sku,
            "insufficient_stock": sums.insufficient_stock,
            "zero_quantity": sums.zero_quantity,
            "schema_mismatch": sums.schema_mismatch,
            "negative_amount": sums.negative_amount,
            "bulk_order": sums.bulk_order,
        })
    );
    Ok(())
}

async fn consume(shared: Arc<Shared>, queue: Queue, partition: i32) -> Result<Counts> {
    let database = Database::open(&shared.url).await?;
    let name = partition.to_string();
    let mut counts = Counts::default();
    while shared.seen.load(Ordering::Relaxed) < shared.all {
        let Ok(first) = tokio::time::timeout(Duration::from_millis(50), queue.recv()).await else { continue };
        let mut orders = Vec::with_capacity(BATCH_EVENTS);
        let (mut message, mut taken, mut next_offset) = (first?, 0, 0);
        loop {
            taken += 1;
            next_offset = next_offset.max(message.offset() + 1);
            orders.extend(read(&message, shared.checks.as_ref(), &mut counts)?);
            if taken == BATCH_EVENTS {
                break;
            }
            let Some(next) = queue.recv().now_or_never() else { break };
            message = next?;
        }
        counts.add(&database.apply(&name, &orders).await?);
        let mut offsets = TopicPartitionList::new();
        offsets.add_partition_offset(&shared.topic, partition, Offset::Offset(next_offset))?;
        shared.consumer.commit(&offsets, CommitMode::Async)?;
        shared.seen.fetch_add(taken, Ordering::Relaxed);
    }
    Ok(counts)
}

/// One event, parsed and checked; none where it is not to be applied.
fn read(
    message: &BorrowedMessage<'_>,
    checks: Option<&Checks>,
    counts: &mut Counts,
) -> Result<Option<Order>> {
    let event: serde_json::Value = serde_json::from_slice(message.payload().context("no payload")?)?;
    if let Some(checks) = checks {
        match checks.of(&event, &mut counts.bulk_order)? {
            Passed::Yes => {}
            refused => {
                *match refused {
                    Passed::SchemaMismatch => &mut counts.schema_mismatch,
                    Passed::NegativeAmount => &mut counts.negative_amount,
                    Passed::Yes | Passed::ZeroQuantity => &mut counts.zero_quantity,
                } += 1;
                return Ok(None);
            }
        }
    }
    let text = |name: &str| event[name].as_str().map(str::to_owned).with_context(|| format!("no {name}"));
    let quantity = i32::try_from(event["quantity"].as_i64().context("no quantity")?)?;
    Ok(Some(Order { offset: message.offset(), id: text("id")?, sku: text("sku")?, quantity }))
}

/// Reads all events first, and times what PostgreSQL takes of them.
pub async fn driver(servers: &str, topic: &str, url: &str, all: usize) -> Result<()> {
    let (_consumer, queues) = open(servers, topic, "driver")?;
    let mut partitions: Vec<Vec<Order>> = queues.iter().map(|_| Vec::new()).collect();
    let mut seen = 0;
    let begun = Instant::now();
    while seen < all {
        for (queue, orders) in queues.iter().zip(&mut partitions) {
            while let Some(message) = queue.recv().now_or_never() {
                orders.extend(read(&message?, None, &mut Counts::default())?);
                seen += 1;
            }
        }
        if begun.elapsed() > Duration::from_secs(120) {
            bail!("only {seen} of {all} events came");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let mut tasks = JoinSet::new();
    let mut databases = Vec::new();
    for _ in &partitions {
        databases.push(Database::open(url).await?);
    }
    let begun = Instant::now();
    for (partition, (orders, database)) in partitions.into_iter().zip(databases).enumerate() {
        tasks.spawn(async move {
            for batch in orders.chunks(BATCH_EVENTS) {
                database.apply(&partition.to_string(), batch).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(done) = tasks.join_next().await {
        done??;
    }
    println!("{}", serde_json::json!({ "events": seen, "seconds": begun.elapsed().as_secs_f64() }));
    Ok(())
}
