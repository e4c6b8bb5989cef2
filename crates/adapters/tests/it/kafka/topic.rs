//! A topic of a test's own on the real broker, and a producer for it.

use rdkafka::ClientConfig;
use rdkafka::admin::{AdminClient, AdminOptions, NewTopic, TopicReplication};
use rdkafka::client::DefaultClientContext;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::message::{Header, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer};
use rdkafka::{Offset, TopicPartitionList};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

const WAIT: Duration = Duration::from_secs(30);

/// A name that no other test has, nor an earlier run of this one.
pub fn unique(name: &str) -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap().as_millis();
    format!("{name}-{}-{number}-{since}", std::process::id())
}

pub struct Topic {
    pub name: String,
    pub servers: String,
}

impl Topic {
    /// Makes the topic, with an empty log in each partition.
    pub fn make(servers: &str, name: &str, partitions: i32) -> Self {
        let topic = Self { name: unique(name), servers: servers.to_owned() };
        topic.make_again(partitions, &[]);
        topic
    }

    /// Makes it under the name that it has.
    pub fn make_again(&self, partitions: i32, config: &[(&str, &str)]) {
        let mut new = NewTopic::new(&self.name, partitions, TopicReplication::Fixed(1));
        for (name, value) in config {
            new = new.set(name, value);
        }
        let made = block_on(self.admin().create_topics([&new], &AdminOptions::new()));
        made.unwrap().into_iter().for_each(|one| drop(one.unwrap()));
    }

    pub fn delete(&self) {
        let deleted = block_on(self.admin().delete_topics(&[&self.name], &AdminOptions::new()));
        deleted.unwrap().into_iter().for_each(|one| drop(one.unwrap()));
    }

    /// Removes what lies below `offset`, as retention would.
    pub fn delete_below(&self, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        block_on(self.admin().delete_records(&list, &AdminOptions::new())).unwrap();
    }

    fn config(&self) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("bootstrap.servers", &self.servers);
        config
    }

    fn admin(&self) -> AdminClient<DefaultClientContext> {
        self.config().create().unwrap()
    }

    /// A producer; with a name, a transactional one.
    pub fn producer(&self, transactional_id: Option<&str>) -> BaseProducer {
        let mut config = self.config();
        config.set("linger.ms", "5").set("enable.idempotence", "true");
        if let Some(id) = transactional_id {
            config.set("transactional.id", id);
        }
        let producer: BaseProducer = config.create().unwrap();
        if transactional_id.is_some() {
            producer.init_transactions(WAIT).unwrap();
        }
        producer
    }

    /// Publishes and waits until the broker has all of it.
    pub fn publish(&self, partition: i32, payloads: &[&str]) {
        let producer = self.producer(None);
        for payload in payloads {
            self.send(&producer, partition, payload);
        }
        producer.flush(WAIT).unwrap();
    }

    pub fn send(&self, producer: &BaseProducer, partition: i32, payload: &str) {
        let record = BaseRecord::<str, str>::to(&self.name).partition(partition).payload(payload);
        send(producer, record);
    }

    /// One transaction in the first partition, which is committed or aborted.
    pub fn transaction(&self, producer: &BaseProducer, payloads: &[impl AsRef<str>], commits: bool) {
        producer.begin_transaction().unwrap();
        payloads.iter().for_each(|payload| self.send(producer, 0, payload.as_ref()));
        producer.flush(WAIT).unwrap();
        match commits {
            true => producer.commit_transaction(WAIT).unwrap(),
            false => producer.abort_transaction(WAIT).unwrap(),
        }
    }

    /// One record with everything that a record can have.
    pub fn publish_whole(&self, payload: Option<&[u8]>, key: Option<&[u8]>, headers: &[(&str, &[u8])]) {
        let producer = self.producer(None);
        let mut record = BaseRecord::<[u8], [u8]>::to(&self.name).partition(0);
        record.payload = payload;
        record.key = key;
        let all = headers
            .iter()
            .fold(OwnedHeaders::new(), |all, (key, value)| all.insert(Header { key, value: Some(*value) }));
        producer.send(record.headers(all)).map_err(|(error, _)| error).unwrap();
        producer.flush(WAIT).unwrap();
    }

    fn group(&self, group: &str) -> BaseConsumer {
        let mut config = self.config();
        config.set("group.id", group).set("enable.auto.commit", "false");
        config.create().unwrap()
    }

    /// What a group has committed.
    pub fn committed(&self, group: &str, partition: i32) -> Option<i64> {
        let mut list = TopicPartitionList::new();
        list.add_partition(&self.name, partition);
        let found = self.group(group).committed_offsets(list, WAIT).unwrap();
        match found.find_partition(&self.name, partition).unwrap().offset() {
            Offset::Offset(offset) => Some(offset),
            _ => None,
        }
    }

    /// Moves a group, as somebody outside would.
    pub fn move_group(&self, group: &str, partition: i32, offset: i64) {
        let mut list = TopicPartitionList::new();
        list.add_partition_offset(&self.name, partition, Offset::Offset(offset)).unwrap();
        self.group(group).commit(&list, CommitMode::Sync).unwrap();
    }
}

/// Sends, and waits where the producer's queue is full.
pub fn send<K: rdkafka::message::ToBytes + ?Sized, P: rdkafka::message::ToBytes + ?Sized>(
    producer: &BaseProducer,
    record: BaseRecord<'_, K, P>,
) {
    let mut record = record;
    loop {
        match producer.send(record) {
            Ok(()) => return,
            Err((error, back)) => {
                let full = rdkafka::types::RDKafkaErrorCode::QueueFull;
                assert_eq!(error.rdkafka_error_code(), Some(full), "{error}");
                producer.poll(Duration::from_millis(50));
                record = back;
            }
        }
    }
}

fn block_on<F: std::future::Future>(future: F) -> F::Output {
    // The tests' own runtime may be running on this thread, so this takes another one.
    struct Waker(std::thread::Thread);
    impl std::task::Wake for Waker {
        fn wake(self: std::sync::Arc<Self>) {
            self.0.unpark();
        }
    }
    let waker = std::sync::Arc::new(Waker(std::thread::current())).into();
    let mut future = std::pin::pin!(future);
    loop {
        match future.as_mut().poll(&mut std::task::Context::from_waker(&waker)) {
            std::task::Poll::Ready(output) => return output,
            std::task::Poll::Pending => std::thread::park(),
        }
    }
}
