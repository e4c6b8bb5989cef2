//! One consumer for all partitions of a topic, and the thread that serves it.

use super::deal::Deal;
use super::settings::{KafkaError, KafkaSettings, NO_GROUP};
use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer as _, ConsumerContext};
use rdkafka::error::{KafkaError as ClientError, KafkaResult};
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use rdkafka::{Offset, TopicPartitionList};
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::{Duration, Instant};

/// How often the thread looks for offsets to commit, at least.
const SERVE_EVERY: Duration = Duration::from_millis(100);
/// How often it looks whether partitions can be given back.
const GIVE_BACK_EVERY: Duration = Duration::from_millis(10);
/// How long an end waits until the group knows that this member left.
const LEAVE_WAIT: Duration = Duration::from_secs(3);
/// How long an end waits for the last commit.
const LAST_COMMIT_WAIT: Duration = Duration::from_secs(2);

/// The consumer.
pub(super) type Consumer = BaseConsumer<Context>;

/// Why nothing comes or goes, as far as librdkafka said.
#[derive(Debug, Default)]
pub(super) struct Trouble(Mutex<Known>);

#[derive(Debug, Default)]
struct Known {
    /// None since the cluster last answered.
    trouble: Option<String>,
    /// What a broker said last when it could not be spoken to.
    cause: Option<String>,
}

impl Trouble {
    /// What it is; none since the cluster last answered.
    pub fn told(&self) -> Option<String> {
        self.lock().trouble.clone()
    }

    /// The cluster answered.
    pub fn is_over(&self) {
        *self.lock() = Known::default();
    }

    /// Takes in an error that librdkafka told.
    pub fn hear(&self, error: &ClientError, reason: &str) {
        tracing::debug!(target: "recount::kafka", "{error}: {reason}");
        let mut known = self.lock();
        match error.rdkafka_error_code() {
            // That all are down follows what is wrong with the last of them, and does not say it.
            Some(RDKafkaErrorCode::AllBrokersDown) => {
                let why = known.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
                known.trouble = Some(reason.to_owned() + &why);
            }
            Some(
                RDKafkaErrorCode::Authentication
                | RDKafkaErrorCode::SaslAuthenticationFailed
                | RDKafkaErrorCode::SSL
                | RDKafkaErrorCode::Resolve
                | RDKafkaErrorCode::TopicAuthorizationFailed
                | RDKafkaErrorCode::ClusterAuthorizationFailed
                | RDKafkaErrorCode::GroupAuthorizationFailed
                | RDKafkaErrorCode::InconsistentGroupProtocol
                | RDKafkaErrorCode::InvalidSessionTimeout
                | RDKafkaErrorCode::Fatal,
            ) => {
                known.trouble = Some(reason.to_owned());
                known.cause = Some(reason.to_owned());
            }
            _ => known.cause = Some(reason.to_owned()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Hears what librdkafka says of the connection.
#[derive(Debug, Default)]
pub(super) struct Context {
    trouble: Trouble,
    is_commit_trouble_told: AtomicBool,
    /// Where the process is a member of a group.
    deal: Option<Arc<Deal>>,
}

impl Context {
    /// Why nothing comes, as far as librdkafka said; none since the cluster last answered.
    pub fn trouble(&self) -> Option<String> {
        self.trouble.told()
    }

    /// The cluster answered.
    pub fn is_well(&self) {
        self.trouble.is_over();
    }
}

impl ClientContext for Context {
    fn log(&self, level: RDKafkaLogLevel, fac: &str, message: &str) {
        log(level, fac, message);
    }

    fn error(&self, error: ClientError, reason: &str) {
        self.trouble.hear(&error, reason);
    }
}

/// A line of librdkafka's own log.
pub(super) fn log(level: RDKafkaLogLevel, fac: &str, message: &str) {
    tracing::debug!(target: "recount::kafka", ?level, "{fac}: {message}");
}

impl ConsumerContext for Context {
    fn rebalance(&self, consumer: &BaseConsumer<Self>, what: RDKafkaRespErr, list: &mut TopicPartitionList) {
        if let Some(deal) = &self.deal {
            deal.rebalance(consumer, what, list);
        }
    }

    fn commit_callback(&self, result: KafkaResult<()>, _: &TopicPartitionList) {
        match result {
            Ok(()) => self.is_commit_trouble_told.store(false, Ordering::Relaxed),
            Err(error) => self.tell_commit_trouble(&error),
        }
    }
}

impl Context {
    /// Once, until one works again: the flow does not depend on it.
    fn tell_commit_trouble(&self, error: &ClientError) {
        if self.deal.is_some() && is_of_rebalance(error) {
            // The next one of whoever has the partition then says it.
            tracing::debug!(target: "recount::kafka", "not committed, since the group deals anew: {error}");
            return;
        }
        if !self.is_commit_trouble_told.swap(true, Ordering::Relaxed) {
            tracing::warn!(target: "recount::source",
                "the group's offsets could not be committed; the flow's own record is not touched by that, but tools \
                 that look at the group's lag are: {error}");
        }
    }
}

fn is_of_rebalance(error: &ClientError) -> bool {
    matches!(
        error.rdkafka_error_code(),
        Some(
            RDKafkaErrorCode::RebalanceInProgress
                | RDKafkaErrorCode::IllegalGeneration
                | RDKafkaErrorCode::UnknownMemberId
                | RDKafkaErrorCode::AssignmentLost
        )
    )
}

/// Makes a consumer. It connects by itself.
pub(super) fn consumer(
    settings: &super::KafkaBroker,
    group: Option<&str>,
    partitions: usize,
) -> Result<Consumer, KafkaError> {
    let config = settings.config(group.unwrap_or(NO_GROUP), partitions);
    config.create_with_context(Context::default()).map_err(KafkaError::of_settings)
}

/// Makes the consumer of a source: a member of its group where it is one of several processes.
fn source_consumer(
    settings: &KafkaSettings,
    partitions: usize,
    deal: Option<Arc<Deal>>,
) -> Result<Consumer, KafkaError> {
    let mut config = settings.broker.config(settings.group.as_deref().unwrap_or(NO_GROUP), partitions);
    if let Some(membership) = &settings.membership {
        membership.configure(&settings.broker, &mut config);
    }
    let context = Context { deal, ..Context::default() };
    config.create_with_context(context).map_err(KafkaError::of_settings)
}

/// Serves a consumer: its events are polled, and offsets that were settled are committed, for all partitions
/// at once. It ends with [`Served`].
pub(super) struct Served {
    /// The consumer.
    pub consumer: Arc<Consumer>,
    /// What the group deals, where the process is a member of one.
    pub deal: Option<Arc<Deal>>,
    to_commit: Arc<Mutex<BTreeMap<i32, u64>>>,
    ends: Arc<AtomicBool>,
    ended: Mutex<mpsc::Receiver<()>>,
}

impl Served {
    pub fn start(settings: &KafkaSettings, partitions: usize) -> Result<Self, KafkaError> {
        let deal = settings.membership.is_some().then(|| Arc::new(Deal::new(&settings.topic)));
        let consumer = Arc::new(source_consumer(settings, partitions, deal.clone())?);
        let to_commit = Arc::new(Mutex::new(BTreeMap::new()));
        let ends = Arc::new(AtomicBool::new(false));
        let (ended_in, ended) = mpsc::channel();
        let thread = Thread {
            consumer: Arc::clone(&consumer),
            deal: deal.clone(),
            topic: settings.topic.clone(),
            has_group: settings.group.is_some(),
            to_commit: Arc::clone(&to_commit),
            ends: Arc::clone(&ends),
        };
        std::thread::Builder::new()
            .name("recount-kafka".to_owned())
            .spawn(move || {
                thread.run();
                // Nobody may wait for it any more.
                ended_in.send(()).ok();
            })
            .map_err(|error| KafkaError::Thread(error.to_string()))?;
        Ok(Self { consumer, deal, to_commit, ends, ended: Mutex::new(ended) })
    }

    /// Everything below is settled; told to the broker soon.
    pub fn note_settled(&self, partition: i32, next_offset: u64) {
        self.to_commit.lock().unwrap_or_else(PoisonError::into_inner).insert(partition, next_offset);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.ends.store(true, Ordering::Release);
        // The last commit is a hint like the others: it is not waited for beyond this.
        let ended = self.ended.get_mut().unwrap_or_else(PoisonError::into_inner);
        let leave_wait = if self.deal.is_some() { LEAVE_WAIT } else { Duration::ZERO };
        ended.recv_timeout(LAST_COMMIT_WAIT + leave_wait).ok();
    }
}

struct Thread {
    consumer: Arc<Consumer>,
    deal: Option<Arc<Deal>>,
    topic: String,
    has_group: bool,
    to_commit: Arc<Mutex<BTreeMap<i32, u64>>>,
    ends: Arc<AtomicBool>,
}

impl Thread {
    fn run(&self) {
        while !self.ends.load(Ordering::Acquire) {
            // Records come through the partitions' own queues; here are only events of the connection, which
            // the context hears.
            let is_leaving = self.deal.as_ref().is_some_and(|deal| deal.is_leaving());
            drop(self.consumer.poll(if is_leaving { GIVE_BACK_EVERY } else { SERVE_EVERY }));
            self.commit(CommitMode::Async);
            if let Some(deal) = &self.deal {
                deal.give_back_if_due(&self.consumer);
                if let Some((_, why)) = self.consumer.client().fatal_error() {
                    deal.ends(|| why);
                }
            }
        }
        self.commit(CommitMode::Sync);
        if let Some(deal) = &self.deal {
            self.leave(deal);
        }
    }

    /// Tells the group that this member is gone, so that the others need not wait out its session timeout: a
    /// static member that just closes does not.
    fn leave(&self, deal: &Deal) {
        deal.close();
        deal.give_back_if_due(&self.consumer);
        let has_ended = self.consumer.client().fatal_error().is_some();
        if has_ended || !super::native_group::is_member(&self.consumer) {
            return;
        }
        self.consumer.unsubscribe();
        let until = Instant::now() + LEAVE_WAIT;
        while Instant::now() < until && super::native_group::is_member(&self.consumer) {
            drop(self.consumer.poll(GIVE_BACK_EVERY));
            deal.give_back_if_due(&self.consumer);
        }
    }

    fn commit(&self, mode: CommitMode) {
        let offsets = std::mem::take(&mut *self.to_commit.lock().unwrap_or_else(PoisonError::into_inner));
        if offsets.is_empty() || !self.has_group {
            return;
        }
        let mut list = TopicPartitionList::with_capacity(offsets.len());
        for (partition, next_offset) in offsets {
            if self.deal.as_ref().is_some_and(|deal| !deal.may_commit(partition)) {
                continue;
            }
            let offset = Offset::Offset(i64::try_from(next_offset).unwrap_or(i64::MAX));
            if let Err(error) = list.add_partition_offset(&self.topic, partition, offset) {
                self.consumer.context().tell_commit_trouble(&error);
            }
        }
        if list.count() == 0 {
            return;
        }
        if let Err(error) = self.consumer.commit(&list, mode) {
            self.consumer.context().tell_commit_trouble(&error);
        }
    }
}
