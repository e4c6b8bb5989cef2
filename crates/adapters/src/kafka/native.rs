//! What the safe bindings of librdkafka leave out: a topic's id, and a partition's own queue with the end of
//! what is there as an offset. Each `unsafe` says which rule of librdkafka's it keeps.

use super::client::Consumer;
use super::watermarks::{ANSWER_WAIT, AWAY_ANSWER_WAIT};
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use rdkafka::types::{RDKafkaErrorCode, RDKafkaRespErr};
use recount_model::Header;
use std::ffi::{CStr, CString, c_char, c_void};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::Notify;

/// Records are taken over in runs of at most so many.
const RUN_RECORDS_MAX: usize = 256;

/// A topic as the cluster describes it now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Described {
    /// As Kafka's own tools print it; `None` where the broker gives topics no id.
    pub topic_id: Option<String>,
    /// So many partitions.
    pub partitions: usize,
}

/// Why a topic could not be described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum DescribeError {
    /// The cluster says that there is none of this name.
    NoSuchTopic,
    /// Anything else; it may be otherwise in a moment.
    Other(String),
}

/// Asks the cluster for a topic's id. A cluster that is known to be away, by what `trouble` says once the first
/// question has found no answer, keeps nobody for long; another has [`ANSWER_WAIT`].
pub(super) fn describe_unless_away(
    consumer: &Consumer,
    topic: &CStr,
    trouble: impl Fn() -> Option<String>,
) -> Result<Described, DescribeError> {
    match describe(consumer, topic, AWAY_ANSWER_WAIT) {
        Err(DescribeError::Other(_)) if trouble().is_none() => {
            describe(consumer, topic, ANSWER_WAIT.saturating_sub(AWAY_ANSWER_WAIT))
        }
        described => described,
    }
}

/// Asks the cluster for a topic's id. Blocks for at most `timeout`.
fn describe(consumer: &Consumer, topic: &CStr, timeout: Duration) -> Result<Described, DescribeError> {
    let client = consumer.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` lives as long as `consumer`. What is made here is destroyed here, by the function that
    // librdkafka names for it, after its last use; the options, the topics and their names are only read
    // during the call, which copies them. The result's parts are read before its event is destroyed.
    unsafe {
        let mut names = [topic.as_ptr()];
        let topics = sys::rd_kafka_TopicCollection_of_topic_names(names.as_mut_ptr(), names.len());
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBETOPICS,
        );
        let mut why = [0 as c_char; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, why.as_mut_ptr(), why.len());
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeTopics(client, topics, options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        sys::rd_kafka_TopicCollection_destroy(topics);
        // The request times out by itself; the queue waits a little longer for its answer.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1000));
        let described = match event.is_null() {
            true => Err(DescribeError::Other("no answer in time".to_owned())),
            false => read_description(event),
        };
        if !event.is_null() {
            sys::rd_kafka_event_destroy(event);
        }
        sys::rd_kafka_queue_destroy(queue);
        described
    }
}

/// # Safety
/// `event` is an event that wasn't destroyed.
unsafe fn read_description(event: *mut sys::rd_kafka_event_t) -> Result<Described, DescribeError> {
    // SAFETY: the event is alive, as the caller promises; the result and all that it points to belong to it,
    // and null is checked for before anything is read.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(DescribeError::Other(text(sys::rd_kafka_event_error_string(event))));
        }
        let result = sys::rd_kafka_event_DescribeTopics_result(event);
        if result.is_null() {
            return Err(DescribeError::Other("the answer is not a description".to_owned()));
        }
        let mut count = 0;
        let topics = sys::rd_kafka_DescribeTopics_result_topics(result, &mut count);
        if topics.is_null() || count == 0 {
            return Err(DescribeError::Other("the answer is empty".to_owned()));
        }
        let topic = *topics;
        let error = sys::rd_kafka_TopicDescription_error(topic);
        match sys::rd_kafka_error_code(error) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_OR_PART
            | RDKafkaRespErr::RD_KAFKA_RESP_ERR_UNKNOWN_TOPIC_ID => return Err(DescribeError::NoSuchTopic),
            _ => return Err(DescribeError::Other(text(sys::rd_kafka_error_string(error)))),
        }
        let mut partitions = 0;
        sys::rd_kafka_TopicDescription_partitions(topic, &mut partitions);
        let id = sys::rd_kafka_TopicDescription_topic_id(topic);
        let halves = match id.is_null() {
            true => (0, 0),
            false => {
                (sys::rd_kafka_Uuid_most_significant_bits(id), sys::rd_kafka_Uuid_least_significant_bits(id))
            }
        };
        Ok(Described { topic_id: topic_id(halves), partitions })
    }
}

/// # Safety
/// `text` is null or a text that ends with a null byte.
pub(super) unsafe fn text(text: *const c_char) -> String {
    match text.is_null() {
        true => String::new(),
        // SAFETY: it isn't null, and ends as the caller promises.
        false => unsafe { CStr::from_ptr(text) }.to_string_lossy().into_owned(),
    }
}

/// The 16 bytes in URL-safe base64, as Kafka's tools print them; all zero is none.
fn topic_id((most, least): (i64, i64)) -> Option<String> {
    use base64::Engine;
    let bytes = (u128::from(most.cast_unsigned()) << 64 | u128::from(least.cast_unsigned())).to_be_bytes();
    (bytes != [0; 16]).then(|| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes))
}

/// One thing from a partition's queue.
pub(super) enum Fetched {
    /// A record.
    Record(Record),
    /// Everything below this offset that carries an event was given out before.
    End(u64),
    /// librdkafka's word on this partition.
    Error(RDKafkaErrorCode),
}

/// A record, copied out of librdkafka.
pub(super) struct Record {
    pub offset: u64,
    /// At most one byte more than the limit; empty where there is no value (a tombstone).
    pub payload: Arc<[u8]>,
    pub payload_bytes: u64,
    pub key: Option<Box<str>>,
    pub headers: Vec<Header>,
}

/// The queue of one partition, split from its consumer's before the partition is assigned, so that every
/// record comes here.
pub(super) struct PartitionQueue {
    queue: *mut sys::rd_kafka_queue_t,
    /// Told when the queue fills; librdkafka holds a pointer to it until `drop` takes it back.
    filled: Arc<Notify>,
    /// The queue must not outlive its client.
    _consumer: Arc<Consumer>,
}

// SAFETY: librdkafka's queues may be used from any thread.
unsafe impl Send for PartitionQueue {}
// SAFETY: as above; each call takes the queue's own lock.
unsafe impl Sync for PartitionQueue {}

impl PartitionQueue {
    /// Splits the queue of a partition. `None` where librdkafka knows no such partition.
    pub fn split(consumer: &Arc<Consumer>, topic: &CStr, partition: i32) -> Option<Self> {
        let filled = Arc::new(Notify::new());
        // SAFETY: the client lives as long as `_consumer`; the queue is destroyed in `drop`. The callback's
        // pointer is valid until `drop` takes the callback away, since `filled` lives as long as `self`.
        let queue = unsafe {
            let queue =
                sys::rd_kafka_queue_get_partition(consumer.client().native_ptr(), topic.as_ptr(), partition);
            if queue.is_null() {
                return None;
            }
            sys::rd_kafka_queue_forward(queue, std::ptr::null_mut());
            sys::rd_kafka_queue_cb_event_enable(
                queue,
                Some(queue_filled),
                Arc::as_ptr(&filled) as *mut c_void,
            );
            queue
        };
        Some(Self { queue, filled, _consumer: Arc::clone(consumer) })
    }

    /// Wakes when something came since the last look; it may also wake for nothing.
    pub async fn wait(&self) {
        self.filled.notified().await;
    }

    /// Takes what is there now, at most `records_max`, without waiting. False: nothing was there.
    pub fn take(
        &self,
        records_max: usize,
        payload_bytes_max: usize,
        found: &mut impl FnMut(Fetched),
    ) -> bool {
        let mut records = [std::ptr::null_mut(); RUN_RECORDS_MAX];
        let room = records_max.clamp(1, RUN_RECORDS_MAX);
        // SAFETY: the array has room for that many. Each pointer that was given out is read while it lives
        // and destroyed once.
        unsafe {
            let count = sys::rd_kafka_consume_batch_queue(self.queue, 0, records.as_mut_ptr(), room);
            let count = usize::try_from(count).unwrap_or(0).min(room);
            for record in &records[..count] {
                found(copy(*record, payload_bytes_max));
                sys::rd_kafka_message_destroy(*record);
            }
            count > 0
        }
    }
}

impl Drop for PartitionQueue {
    fn drop(&mut self) {
        // SAFETY: the queue wasn't destroyed before; without the callback nothing points to `filled` any more.
        unsafe {
            sys::rd_kafka_queue_cb_event_enable(self.queue, None, std::ptr::null_mut());
            sys::rd_kafka_queue_destroy(self.queue);
        }
    }
}

unsafe extern "C" fn queue_filled(_: *mut sys::rd_kafka_t, filled: *mut c_void) {
    // SAFETY: the pointer is that of the queue's own `filled`, which lives until the callback is taken away.
    unsafe { &*filled.cast::<Notify>() }.notify_one();
}

/// # Safety
/// `message` is one that librdkafka gave out and that wasn't destroyed.
unsafe fn copy(message: *mut sys::rd_kafka_message_t, payload_bytes_max: usize) -> Fetched {
    // SAFETY: as the caller promises; payload and key belong to the message and are as long as it says.
    unsafe {
        let record = &*message;
        let offset = u64::try_from(record.offset).unwrap_or(0);
        match RDKafkaErrorCode::from(record.err) {
            RDKafkaErrorCode::NoError => {}
            RDKafkaErrorCode::PartitionEOF => return Fetched::End(offset),
            error => return Fetched::Error(error),
        }
        let payload = bytes(record.payload, record.len);
        let kept = payload.len().min(payload_bytes_max.saturating_add(1));
        Fetched::Record(Record {
            offset,
            payload: payload[..kept].into(),
            payload_bytes: payload.len() as u64,
            key: (!record.key.is_null()).then(|| as_text(bytes(record.key, record.key_len)).0),
            headers: headers(message),
        })
    }
}

/// # Safety
/// `from` is null or has `length` bytes that live for `'a`.
unsafe fn bytes<'a>(from: *const c_void, length: usize) -> &'a [u8] {
    match from.is_null() {
        true => &[],
        // SAFETY: it isn't null, and as long as the caller promises.
        false => unsafe { std::slice::from_raw_parts(from.cast(), length) },
    }
}

/// # Safety
/// As of [`copy`].
unsafe fn headers(message: *mut sys::rd_kafka_message_t) -> Vec<Header> {
    let mut copied = Vec::new();
    // SAFETY: the headers belong to the message; each name ends with a null byte, and each value is as long as
    // it says.
    unsafe {
        let mut headers = std::ptr::null_mut();
        let ok = RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR;
        if sys::rd_kafka_message_headers(message, &mut headers) != ok {
            return copied;
        }
        for index in 0.. {
            let (mut name, mut value, mut length) = (std::ptr::null(), std::ptr::null(), 0);
            if sys::rd_kafka_header_get_all(headers, index, &mut name, &mut value, &mut length) != ok {
                break;
            }
            copied.push(header(text(name), bytes(value, length)));
        }
    }
    copied
}

/// A value that isn't UTF-8 is kept as base64, and its name says so.
pub(super) fn header(name: String, value: &[u8]) -> Header {
    let (value, is_text) = as_text(value);
    let name = if is_text { name } else { format!("{name};base64") };
    Header { name: name.into(), value }
}

/// UTF-8 as it is, anything else as base64.
pub(super) fn as_text(bytes: &[u8]) -> (Box<str>, bool) {
    use base64::Engine;
    match std::str::from_utf8(bytes) {
        Ok(text) => (text.into(), true),
        Err(_) => (base64::engine::general_purpose::STANDARD.encode(bytes).into(), false),
    }
}

/// A topic's name for librdkafka; `None` where it holds a null byte, which no topic's does.
pub(super) fn c_name(topic: &str) -> Option<CString> {
    CString::new(topic).ok()
}

/// The end of a partition as of the last answer to a fetch, as far as librdkafka keeps it.
pub(super) fn known_end(consumer: &Consumer, topic: &CStr, partition: i32) -> Option<u64> {
    let (mut first, mut end) = (-1, -1);
    // SAFETY: the client lives as long as `consumer`; both numbers live longer than the call.
    let error = unsafe {
        let client = consumer.client().native_ptr();
        sys::rd_kafka_get_watermark_offsets(client, topic.as_ptr(), partition, &mut first, &mut end)
    };
    (error == RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR).then(|| u64::try_from(end).ok()).flatten()
}
