//! Spans: one a batch, with links to the traces that its events came in, sent by OTLP over HTTP as JSON.
//!
//! Nothing here can hold a flow up: the loop puts a span into a queue of fixed length and goes on; a thread of its
//! own sends, and what the queue has no room for is counted and left out.

mod context;
mod otlp;
mod queue;
mod sender;
mod span;

use crate::config::{FlowConfig, TracingConfig};
use crate::exit::Failure;
use queue::Queue;
use recount_checks::FlowChecks;
use recount_engine::{BatchOver, Probe, Step};
use sender::Sender;
use span::FlowFacts;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use queue::SpanCounts;

/// So long the end of a process waits for what is still to be sent.
const FLUSH_MAX: Duration = Duration::from_secs(2);

/// Sends the spans of a process; dropped, it sends what is left, for a short while.
pub struct Spans {
    queue: Arc<Queue>,
}

impl Spans {
    /// Starts the thread that sends. The collector itself isn't asked.
    pub fn start(config: &TracingConfig) -> Result<Self, Failure> {
        let queue = Arc::new(Queue::default());
        let sender = Sender::new(config, Arc::clone(&queue))?;
        let spawned =
            std::thread::Builder::new().name("recount-spans".to_owned()).spawn(move || sender.run());
        spawned.map_err(|error| Failure::unreachable(format!("no thread to send spans from: {error}")))?;
        Ok(Self { queue })
    }

    /// Where to ask what became of them.
    pub fn counter(&self) -> SpanCounter {
        SpanCounter(Arc::clone(&self.queue))
    }
}

/// What a flow's loop is to tell: where there are spans, a probe that makes one of each batch, and passes on everything.
pub fn probe(
    spans: Option<&Spans>,
    flow: &FlowConfig,
    checks: &FlowChecks,
    inner: &Arc<dyn Probe>,
) -> Arc<dyn Probe> {
    let inner = Arc::clone(inner);
    match spans {
        None => inner,
        Some(Spans { queue }) => Arc::new(FlowSpans {
            facts: FlowFacts::of(flow),
            may_link: checks.may_tell_trace(),
            queue: Arc::clone(queue),
            inner,
        }),
    }
}

impl Drop for Spans {
    fn drop(&mut self) {
        self.queue.finish(FLUSH_MAX);
        let counts = self.queue.counts();
        if counts.left_out > 0 {
            tracing::warn!(
                "{} of {} spans were not sent: the collector was away, refused them or was slower than the flows",
                counts.left_out,
                counts.left_out + counts.sent
            );
        }
    }
}

/// Asks what became of spans.
#[derive(Clone)]
pub struct SpanCounter(Arc<Queue>);

impl SpanCounter {
    /// What became of them so far.
    pub fn counts(&self) -> SpanCounts {
        self.0.counts()
    }
}

struct FlowSpans {
    facts: FlowFacts,
    /// False where the config calls the header secret that links would tell.
    may_link: bool,
    queue: Arc<Queue>,
    inner: Arc<dyn Probe>,
}

impl Probe for FlowSpans {
    fn reached(&self, step: Step) {
        self.inner.reached(step);
    }

    fn batch_over(&self, batch: &BatchOver<'_>) {
        self.inner.batch_over(batch);
        match span::of_batch(&self.facts, batch, SystemTime::now(), self.may_link) {
            Some(span) => self.queue.push(span),
            None => self.queue.left_out(1),
        }
    }
}
