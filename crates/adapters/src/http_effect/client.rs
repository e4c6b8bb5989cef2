//! One POST with a deadline and a bounded answer.

use recount_engine::EffectFault;
use std::time::Duration;
use ureq::Agent;
use ureq::config::AutoHeaderValue;

/// Headers of an answer beyond this are refused.
const ANSWER_HEADER_BYTES_MAX: usize = 64 * 1024;

/// How one handler is asked.
#[derive(Clone)]
pub(super) struct Client {
    pub(super) agent: Agent,
    pub(super) url: String,
    pub(super) headers: Vec<(String, String)>,
    pub(super) answer_bytes_max: u64,
    pub(super) deadline_ms: u64,
}

/// One request.
pub(super) struct Post {
    pub(super) body: Vec<u8>,
    pub(super) idempotency_key: Option<String>,
    pub(super) traceparent: Option<String>,
}

/// A 2xx answer.
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) body: Vec<u8>,
}

/// An agent that follows no redirects, takes no proxy from the environment and asks for no compression
/// (whose size could not be bounded beforehand).
pub(crate) fn agent(deadline_ms: u64) -> Agent {
    Agent::config_builder()
        .http_status_as_error(false)
        .max_redirects(0)
        .max_redirects_will_error(false)
        .proxy(None)
        .accept_encoding(AutoHeaderValue::None)
        .max_response_header_size(ANSWER_HEADER_BYTES_MAX)
        .timeout_global(Some(Duration::from_millis(deadline_ms)))
        .user_agent(concat!("recount/", env!("CARGO_PKG_VERSION")))
        .build()
        .new_agent()
}

impl Client {
    /// Sends it. Every answer but a 2xx is the handler's state, never an event's: the flow pauses and
    /// nothing drains into dead letters.
    pub(super) fn post(&self, post: &Post) -> Result<Answer, EffectFault> {
        let mut request = self.agent.post(&self.url).header("Content-Type", "application/json");
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(key) = &post.idempotency_key {
            request = request.header("Idempotency-Key", key);
        }
        if let Some(traceparent) = &post.traceparent {
            request = request.header("traceparent", traceparent);
        }
        let mut response = request.send(&post.body[..]).map_err(|error| self.away(&error))?;
        let status = response.status().as_u16();
        if !(200..300).contains(&status) {
            return Err(EffectFault::Away(self.refusal(status)));
        }
        let read = response.body_mut().with_config().limit(self.answer_bytes_max).read_to_vec();
        let body = read.map_err(|error| self.away(&error))?;
        Ok(Answer { status, body })
    }

    fn refusal(&self, status: u16) -> String {
        let url = &self.url;
        match status {
            300..400 => {
                format!("{url} answered {status}: redirects are not followed; write the final address")
            }
            408 | 425 | 429 => format!("{url} answered {status}: it asks to be tried again later"),
            400..500 => format!(
                "{url} answered {status}: the handler refuses the request as a whole, which says nothing of \
                 its events; answer 200 with a verdict for each, and correct the address or credentials"
            ),
            _ => format!("{url} answered {status}: the handler can't work now"),
        }
    }

    fn away(&self, error: &ureq::Error) -> EffectFault {
        let url = &self.url;
        EffectFault::Away(match error {
            ureq::Error::Timeout(_) => format!("{url} did not answer within {} ms", self.deadline_ms),
            ureq::Error::BodyExceedsLimit(_) => {
                format!("{url} answered more than {} bytes: answer with verdicts only", self.answer_bytes_max)
            }
            other => format!("{url} can't be reached: {other}"),
        })
    }
}
