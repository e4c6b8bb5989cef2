//! The thread that sends spans to the collector.

use super::otlp;
use super::queue::Queue;
use super::span::Span;
use crate::config::TracingConfig;
use crate::exit::Failure;
use std::sync::Arc;
use std::time::Duration;
use ureq::Agent;
use ureq::config::AutoHeaderValue;

/// One try.
const TRY_MAX: Duration = Duration::from_secs(5);
/// Tries at one request; then its spans are left out.
const TRIES_MAX: u32 = 5;
/// Before the second try; doubles each time.
const WAIT_FIRST: Duration = Duration::from_secs(1);
/// A longer answer is not read.
const ANSWER_BYTES_MAX: u64 = 64 * 1024;

/// Why a request was not taken.
enum Refusal {
    /// It may be taken later.
    Later(String),
    /// It never will.
    Never(String),
}

/// Sends what a queue holds.
pub struct Sender {
    agent: Agent,
    url: String,
    authorization: Option<String>,
    service: String,
    queue: Arc<Queue>,
    /// What the collector said last, where it did not take spans.
    away: Option<String>,
}

impl Sender {
    /// For the collector that the config names. Redirects are not followed, and no proxy is taken from the
    /// environment.
    pub fn new(config: &TracingConfig, queue: Arc<Queue>) -> Result<Self, Failure> {
        let token = config.token.as_ref().map(|token| token.resolve()).transpose();
        let token = token.map_err(|error| Failure::usage(format!("tracing.token: {error}")))?;
        let agent = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .proxy(None)
            .accept_encoding(AutoHeaderValue::None)
            .user_agent(concat!("recount/", env!("CARGO_PKG_VERSION")))
            .build()
            .new_agent();
        Ok(Self {
            agent,
            url: config.url.clone(),
            authorization: token.map(|token| format!("Bearer {}", token.expose())),
            service: config.service.clone(),
            queue,
            away: None,
        })
    }

    /// Sends until the process ends.
    pub fn run(mut self) {
        while let Some(spans) = self.queue.take() {
            let sent = self.send(&spans);
            self.queue.done(sent);
            if sent == 0 && self.queue.try_for(TRY_MAX) < TRY_MAX {
                // The process ends and the collector is away: the rest would fare no better.
                break;
            }
        }
        self.queue.close();
    }

    /// How many of them the collector took.
    fn send(&mut self, spans: &[Span]) -> u64 {
        let body = otlp::body(&self.service, spans);
        let count = spans.len() as u64;
        let mut wait = WAIT_FIRST;
        let mut tried = 0;
        loop {
            tried += 1;
            match self.post(&body) {
                Ok(None) => {
                    self.back();
                    return count;
                }
                Ok(Some((rejected, why))) => {
                    self.tell(format!(
                        "{} took {} of {count} spans: {why}",
                        self.url,
                        count.saturating_sub(rejected)
                    ));
                    return count.saturating_sub(rejected);
                }
                Err(Refusal::Never(why)) => {
                    self.tell(why);
                    return 0;
                }
                Err(Refusal::Later(why)) => self.tell(why),
            }
            if tried >= TRIES_MAX {
                return 0;
            }
            if !self.queue.wait(wait) {
                // The process ends: once more, and then no more.
                tried = TRIES_MAX - 1;
            }
            wait *= 2;
        }
    }

    fn post(&self, body: &[u8]) -> Result<Option<(u64, String)>, Refusal> {
        let url = &self.url;
        let for_so_long = self.queue.try_for(TRY_MAX);
        if for_so_long.is_zero() {
            return Err(Refusal::Never(format!("{url} was not asked: the process ends")));
        }
        let mut request = self.agent.post(url).header("Content-Type", "application/json");
        if let Some(authorization) = &self.authorization {
            request = request.header("Authorization", authorization);
        }
        let request = request.config().timeout_global(Some(for_so_long)).build();
        let away = |error: &ureq::Error| match error {
            ureq::Error::Timeout(_) => {
                Refusal::Later(format!("{url} did not answer within {} ms", for_so_long.as_millis()))
            }
            other => Refusal::Later(format!("{url} can't be reached: {other}")),
        };
        let mut response = request.send(body).map_err(|error| away(&error))?;
        let status = response.status().as_u16();
        let refused = format!("{url} answered {status}");
        match status {
            200..300 => {
                let read = response.body_mut().with_config().limit(ANSWER_BYTES_MAX).read_to_vec();
                // It has taken them, whatever its answer says further.
                Ok(read.ok().and_then(|answer| otlp::rejected(&answer)))
            }
            // As OTLP says: these may be tried again, no others.
            429 | 502 | 503 | 504 => Err(Refusal::Later(refused)),
            _ => Err(Refusal::Never(format!(
                "{refused}: look at `otlp` and `token` in [tracing], and at its log"
            ))),
        }
    }

    /// Says it once, and again only when it is something else.
    fn tell(&mut self, why: String) {
        if self.away.as_deref() != Some(&why) {
            tracing::warn!("spans are not taken: {why}; the flows go on, and what can't be sent is counted");
            self.away = Some(why);
        }
    }

    fn back(&mut self) {
        if self.away.take().is_some() {
            let left_out = self.queue.counts().left_out;
            tracing::info!("spans are taken again by {}; {left_out} were left out", self.url);
        }
    }
}
