//! Where spans wait to be sent: bounded, and never in a flow's way.

use super::span::Span;
use std::collections::VecDeque;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Spans that may wait; with all their links, some 8 MiB.
pub const SPANS_WAITING_MAX: usize = 1024;
/// Spans of one request.
pub const SPANS_A_REQUEST_MAX: usize = 128;
/// So long the first span of a request waits for others.
const GATHER_MAX: Duration = Duration::from_secs(1);

/// What became of spans.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct SpanCounts {
    /// Taken by the collector.
    pub sent: u64,
    /// Left out: no room, refused, or the collector was away.
    pub left_out: u64,
}

#[derive(Default)]
struct State {
    waiting: VecDeque<Span>,
    under_way: u64,
    counts: SpanCounts,
    /// Set once the process ends: nothing is taken any more, and until then what waits may be sent.
    finish_by: Option<Instant>,
    is_over: bool,
}

/// Spans between the flows and the thread that sends them.
#[derive(Default)]
pub struct Queue {
    state: Mutex<State>,
    changed: Condvar,
}

impl Queue {
    /// Takes a span, or counts it as left out where there is no room. Never waits for the collector.
    pub fn push(&self, span: Span) {
        let mut state = self.lock();
        if state.waiting.len() >= SPANS_WAITING_MAX || state.finish_by.is_some() {
            state.counts.left_out += 1;
            return;
        }
        state.waiting.push_back(span);
        let is_news = matches!(state.waiting.len(), 1 | SPANS_A_REQUEST_MAX);
        drop(state);
        if is_news {
            self.changed.notify_all();
        }
    }

    /// So many spans were not sent.
    pub fn left_out(&self, spans: u64) {
        self.lock().counts.left_out += spans;
    }

    /// What became of spans so far.
    pub fn counts(&self) -> SpanCounts {
        self.lock().counts
    }

    /// Waits for spans, and a moment for more; none once the process ends and nothing is left.
    pub fn take(&self) -> Option<Vec<Span>> {
        let mut state = self.lock();
        while state.waiting.is_empty() && state.finish_by.is_none() {
            state = self.changed.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        let gather_until = Instant::now() + GATHER_MAX;
        while state.waiting.len() < SPANS_A_REQUEST_MAX && state.finish_by.is_none() {
            let Some(left) = gather_until.checked_duration_since(Instant::now()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        let many = state.waiting.len().min(SPANS_A_REQUEST_MAX);
        let spans: Vec<Span> = state.waiting.drain(..many).collect();
        state.under_way = spans.len() as u64;
        (!spans.is_empty()).then_some(spans)
    }

    /// What became of the spans that were taken last.
    pub fn done(&self, sent: u64) {
        let mut state = self.lock();
        state.counts.sent += sent;
        state.counts.left_out += state.under_way - sent.min(state.under_way);
        state.under_way = 0;
    }

    /// How long one try may take; zero where the process ends and its time is up.
    pub fn try_for(&self, at_most: Duration) -> Duration {
        match self.lock().finish_by {
            Some(by) => by.saturating_duration_since(Instant::now()).min(at_most),
            None => at_most,
        }
    }

    /// Waits before another try; false where the process ends meanwhile, and there is to be none.
    pub fn wait(&self, for_so_long: Duration) -> bool {
        let until = Instant::now() + for_so_long;
        let mut state = self.lock();
        while state.finish_by.is_none() {
            let Some(left) = until.checked_duration_since(Instant::now()) else { return true };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        false
    }

    /// The thread that sends is done: what still waits is left out.
    pub fn close(&self) {
        let mut state = self.lock();
        state.counts.left_out += state.waiting.len() as u64 + state.under_way;
        state.waiting.clear();
        state.under_way = 0;
        state.is_over = true;
        drop(state);
        self.changed.notify_all();
    }

    /// Lets the thread send what waits, and waits for it, so long at most.
    pub fn finish(&self, at_most: Duration) {
        let by = Instant::now() + at_most;
        let mut state = self.lock();
        state.finish_by = Some(by);
        self.changed.notify_all();
        while !state.is_over {
            let Some(left) = by.checked_duration_since(Instant::now()) else { break };
            state = self.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        // Where the thread is not done in time, what it has in hand counts as not sent.
        state.counts.left_out += state.waiting.len() as u64 + state.under_way;
        state.waiting.clear();
        state.under_way = 0;
    }

    /// Each change of the state is whole, so a thread that died within one leaves nothing half done.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
