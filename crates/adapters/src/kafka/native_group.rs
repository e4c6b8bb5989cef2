//! What the safe bindings of librdkafka leave out of a consumer group: its state, with how many members.

use super::client::Consumer;
use super::native::text;
use rdkafka::bindings as sys;
use rdkafka::consumer::Consumer as _;
use rdkafka::types::RDKafkaRespErr;
use std::ffi::{CStr, c_char};
use std::time::Duration;

/// A group as its coordinator describes it now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct GroupDescribed {
    /// How many consumers have joined it; none where the coordinator does not say, which it does of a group
    /// that it does not know, and of one that speaks another protocol than this client asks for.
    pub members: Option<u32>,
    /// No consumer ever joined it: offsets are committed under its name, and that is all.
    pub is_simple: bool,
}

/// Asks for a group. Blocks for at most `timeout`.
pub(super) fn describe_group(
    consumer: &Consumer,
    group: &CStr,
    timeout: Duration,
) -> Result<GroupDescribed, String> {
    let client = consumer.client().native_ptr();
    let timeout_ms = i32::try_from(timeout.as_millis()).unwrap_or(i32::MAX);
    // SAFETY: `client` lives as long as `consumer`. What is made here is destroyed here, by the function that
    // librdkafka names for it, after its last use; the options and the group's name are only read during the
    // call, which copies them. The result's parts are read before its event is destroyed.
    unsafe {
        let mut names = [group.as_ptr()];
        let options = sys::rd_kafka_AdminOptions_new(
            client,
            sys::rd_kafka_admin_op_t::RD_KAFKA_ADMIN_OP_DESCRIBECONSUMERGROUPS,
        );
        let mut why = [0 as c_char; 256];
        sys::rd_kafka_AdminOptions_set_request_timeout(options, timeout_ms, why.as_mut_ptr(), why.len());
        let queue = sys::rd_kafka_queue_new(client);
        sys::rd_kafka_DescribeConsumerGroups(client, names.as_mut_ptr(), names.len(), options, queue);
        sys::rd_kafka_AdminOptions_destroy(options);
        // The request times out by itself; the queue waits a little longer for its answer.
        let event = sys::rd_kafka_queue_poll(queue, timeout_ms.saturating_add(1000));
        let described = match event.is_null() {
            true => Err("no answer in time".to_owned()),
            false => read(event),
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
unsafe fn read(event: *mut sys::rd_kafka_event_t) -> Result<GroupDescribed, String> {
    use sys::rd_kafka_consumer_group_state_t as State;
    // SAFETY: the event is alive, as the caller promises; the result and all that it points to belong to it,
    // and null is checked for before anything is read.
    unsafe {
        let error = sys::rd_kafka_event_error(event);
        if error != RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR {
            return Err(text(sys::rd_kafka_event_error_string(event)));
        }
        let result = sys::rd_kafka_event_DescribeConsumerGroups_result(event);
        if result.is_null() {
            return Err("the answer is not a description of a group".to_owned());
        }
        let mut count = 0;
        let groups = sys::rd_kafka_DescribeConsumerGroups_result_groups(result, &mut count);
        if groups.is_null() || count == 0 {
            return Err("the answer is empty".to_owned());
        }
        let group = *groups;
        let error = sys::rd_kafka_ConsumerGroupDescription_error(group);
        match sys::rd_kafka_error_code(error) {
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_NO_ERROR => {}
            RDKafkaRespErr::RD_KAFKA_RESP_ERR_GROUP_ID_NOT_FOUND => {
                return Ok(GroupDescribed { members: None, is_simple: false });
            }
            _ => return Err(text(sys::rd_kafka_error_string(error))),
        }
        let members = match sys::rd_kafka_ConsumerGroupDescription_state(group) {
            State::RD_KAFKA_CONSUMER_GROUP_STATE_DEAD | State::RD_KAFKA_CONSUMER_GROUP_STATE_UNKNOWN => None,
            _ => {
                let members = sys::rd_kafka_ConsumerGroupDescription_member_count(group);
                Some(u32::try_from(members).unwrap_or(u32::MAX))
            }
        };
        let is_simple = sys::rd_kafka_ConsumerGroupDescription_is_simple_consumer_group(group) != 0;
        Ok(GroupDescribed { members, is_simple })
    }
}

/// Whether the group's coordinator has given this consumer a member id that it has not given back.
pub(super) fn is_member(consumer: &Consumer) -> bool {
    // SAFETY: the client lives as long as `consumer`. The text, if any, ends with a null byte, is this caller's own
    // and is freed by the function that librdkafka names for it.
    unsafe {
        let client = consumer.client().native_ptr();
        let id = sys::rd_kafka_memberid(client);
        if id.is_null() {
            return false;
        }
        let is_member = *id != 0;
        sys::rd_kafka_mem_free(client, id.cast());
        is_member
    }
}
