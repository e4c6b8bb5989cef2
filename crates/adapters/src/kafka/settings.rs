//! What a Kafka source is given.

use rdkafka::ClientConfig;
use rdkafka::error::KafkaError as ClientError;
use recount_model::{PartitionId, ReasonCode};
use std::fmt;
use std::sync::Arc;

/// Properties of librdkafka that a config may not set, each with what it would break.
pub const BROKEN_PROMISES: &[(&str, &str)] = &[
    ("bootstrap.servers", "it is written as `servers`"),
    ("metadata.broker.list", "it is written as `servers`"),
    ("group.id", "it is the flow's, written in `source` as `group`"),
    ("group.instance.id", "it is written in `source` as `member`"),
    (
        "group.protocol",
        "partitions are dealt cooperatively among processes that share a ledger, and assigned else",
    ),
    (
        "group.remote.assignor",
        "partitions are dealt cooperatively among processes that share a ledger, and assigned else",
    ),
    (
        "partition.assignment.strategy",
        "partitions are dealt cooperatively among processes that share a ledger, and assigned else",
    ),
    ("enable.auto.commit", "the committed offset is written once the decision is durable, and not before"),
    (
        "auto.commit.interval.ms",
        "the committed offset is written once the decision is durable, and not before",
    ),
    ("auto.commit.enable", "the committed offset is written once the decision is durable, and not before"),
    (
        "enable.auto.offset.store",
        "the committed offset is written once the decision is durable, and not before",
    ),
    ("auto.offset.reset", "a position that is gone is recorded as lost, and nothing is skipped in silence"),
    ("isolation.level", "records of a transaction that was aborted were never published"),
    ("enable.partition.eof", "the end of a partition is how positions without an event are told"),
    ("check.crcs", "a damaged record must not be decided"),
    ("allow.auto.create.topics", "a topic that is missing is told, and not made"),
    ("topic.blacklist", "the topic is the flow's, written in `source` as `topic`"),
    ("test.mock.num.brokers", "a broker that is made up holds no events"),
    ("plugin.library.paths", "no other program's code is loaded"),
    ("log_level", "log lines are set in `[log]`"),
    ("debug", "log lines are set in `[log]`"),
    ("queued.max.messages.kbytes", "it is set from the number of partitions, so that memory stays bounded"),
    ("fetch.max.bytes", "it is set so that memory stays bounded"),
];

/// How long the broker may hold a fetch back for records to come, unless the broker's settings say otherwise.
const FETCH_WAIT_MS: &str = "20";
/// Memory for records that were fetched and not taken, over all partitions of a source.
const QUEUED_KIB: usize = 64 * 1024;
const FETCH_BYTES_MAX: usize = 16 << 20;

/// A cluster, and how it is reached.
#[derive(Clone, PartialEq, Eq)]
pub struct KafkaBroker {
    /// `host:port`, several with commas between.
    pub servers: String,
    /// Further properties of librdkafka, such as `security.protocol`. They may hold secrets.
    pub properties: Vec<(String, String)>,
}

impl fmt::Debug for KafkaBroker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = self.properties.iter().map(|(name, _)| name).collect();
        f.debug_struct("KafkaBroker").field("servers", &self.servers).field("properties", &names).finish()
    }
}

impl KafkaBroker {
    /// A cluster that asks for nothing.
    pub fn new(servers: impl Into<String>) -> Self {
        Self { servers: servers.into(), properties: Vec::new() }
    }

    /// What a property of the client is set to.
    pub(super) fn property(&self, name: &str) -> Option<&str> {
        self.properties.iter().rev().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// Any client's config: ours where theirs says nothing, and theirs; the caller sets over it what our
    /// promises need.
    pub(super) fn client(&self, ours: &[(&str, &str)]) -> ClientConfig {
        let mut config = ClientConfig::new();
        config.set("client.id", "recount");
        let theirs = self.properties.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        for (name, value) in ours.iter().copied().chain(theirs) {
            config.set(name, value);
        }
        config.set("bootstrap.servers", &self.servers).set("allow.auto.create.topics", "false");
        config
    }

    /// A consumer's config.
    pub(super) fn config(&self, group: &str, partitions: usize) -> ClientConfig {
        // Each batch asks the cluster whether the topic is still the same one, on the connection that fetches:
        // where a fetch waits there for new records, the question waits behind it. librdkafka's 500 ms would be
        // what a batch takes.
        let mut config = self.client(&[("fetch.wait.max.ms", FETCH_WAIT_MS)]);
        let queued_kib = (QUEUED_KIB / partitions.max(1)).clamp(256, 16 * 1024);
        config
            .set("group.id", group)
            .set("enable.auto.commit", "false")
            .set("enable.auto.offset.store", "false")
            .set("auto.offset.reset", "error")
            .set("isolation.level", "read_committed")
            .set("enable.partition.eof", "true")
            .set("check.crcs", "true")
            .set("queued.max.messages.kbytes", queued_kib.to_string())
            .set("fetch.max.bytes", FETCH_BYTES_MAX.to_string())
            .set("fetch.message.max.bytes", (1 << 20).to_string());
        config
    }
}

/// librdkafka wants the name of a group where partitions are assigned; nothing is ever written under this one.
pub(super) const NO_GROUP: &str = "recount";

/// Where a flow begins in a partition of which our own record has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KafkaStart {
    /// With the first that is kept.
    Earliest,
    /// With what is published from then on.
    Latest,
    /// With the first that isn't older, in Unix milliseconds.
    Time(i64),
    /// At this offset, in each partition.
    Offset(u64),
}

/// What a source tells besides its events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    /// The finding.
    pub reason: ReasonCode,
    /// Which partition.
    pub partition: i32,
    /// What was seen.
    pub sentence: String,
}

/// How long a member of a group may be silent before its partitions are dealt to others, in milliseconds, unless the
/// broker's settings say otherwise.
const SESSION_TIMEOUT_MS: u64 = 10_000;
/// How often a member shows that it is there, which is also how soon it hears of a rebalance.
const HEARTBEAT_MS: u64 = 1_000;
/// How soon a partition that was added to the topic is dealt.
const METADATA_REFRESH_MS: u64 = 10_000;

/// One of several processes of a group, each with a part of the topic's partitions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Membership {
    /// Who it is, the same after a restart: whoever comes back under it within the session timeout has its
    /// partitions again at once.
    pub member: String,
}

impl Membership {
    /// The session timeout that a broker's settings make, in milliseconds.
    pub fn session_timeout_ms(broker: &KafkaBroker) -> u64 {
        broker.property("session.timeout.ms").and_then(|ms| ms.parse().ok()).unwrap_or(SESSION_TIMEOUT_MS)
    }

    pub(super) fn configure(&self, broker: &KafkaBroker, config: &mut ClientConfig) {
        let session_timeout_ms = Self::session_timeout_ms(broker);
        config
            .set("group.instance.id", &self.member)
            .set("group.protocol", "classic")
            .set("partition.assignment.strategy", "cooperative-sticky");
        let ours = [
            ("session.timeout.ms", session_timeout_ms),
            ("heartbeat.interval.ms", HEARTBEAT_MS.min(session_timeout_ms / 3)),
            ("topic.metadata.refresh.interval.ms", METADATA_REFRESH_MS),
        ];
        for (name, value) in ours {
            if broker.property(name).is_none() {
                config.set(name, value.to_string());
            }
        }
    }
}

/// How a topic is read.
#[derive(Clone)]
pub struct KafkaSettings {
    /// The cluster.
    pub broker: KafkaBroker,
    /// The topic.
    pub topic: String,
    /// The consumer group in which the position is written for others; `None` writes it nowhere.
    pub group: Option<String>,
    /// Where the topic is shared with other processes of the group; `None`: this process reads all of it.
    pub membership: Option<Membership>,
    /// Where to begin where our record has nothing; `None`: only where nothing can go wrong by it.
    pub start: Option<KafkaStart>,
    /// The partitions that the ledger knows of the flow, oldest first.
    pub known: Vec<PartitionId>,
    /// A topic that was made anew is read as a new source.
    pub again: bool,
    /// Is told findings.
    pub tell: Arc<dyn Fn(Told) + Send + Sync>,
}

impl KafkaSettings {
    /// Reads a topic from where our record says, or from its beginning.
    pub fn new(broker: KafkaBroker, topic: impl Into<String>, group: impl Into<String>) -> Self {
        Self {
            broker,
            topic: topic.into(),
            group: Some(group.into()),
            membership: None,
            start: None,
            known: Vec::new(),
            again: false,
            tell: Arc::new(|_| {}),
        }
    }
}

/// Why a source can't be made of its settings.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KafkaError {
    /// librdkafka refuses a property, or what it says.
    #[error("librdkafka refuses the broker's settings: {0}")]
    Settings(String),
    /// The topic's name holds what no topic's does.
    #[error("{0:?} is not the name of a topic")]
    Topic(String),
    /// The system gives no thread.
    #[error("no thread for Kafka's client: {0}")]
    Thread(String),
}

impl KafkaError {
    /// Why no client can be made of its settings.
    pub(super) fn of_settings(error: ClientError) -> Self {
        match error {
            // What was written may be a password.
            ClientError::ClientConfig(_, _, name, _) => {
                Self::Settings(format!("`{name}` is not a property that it knows, or what it says is wrong"))
            }
            error => Self::Settings(error.to_string()),
        }
    }
}
