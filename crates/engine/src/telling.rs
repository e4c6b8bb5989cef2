//! The log: every decision that isn't `applied` at info or warn, applied ones at debug; where a reason
//! floods, some lines are left out and their number is told.

use crate::clock::Clock;
use crate::spec::FlowSpec;
use recount_model::{BatchRecord, Decision, Fate};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

/// In each window, so many lines of a reason are written in full.
const LINES_A_WINDOW: u64 = 10;
const WINDOW_MS: i64 = 10_000;

#[derive(Debug, Default)]
struct Written {
    since_ms: i64,
    lines: u64,
    left_out: u64,
}

/// Writes a flow's decisions to the log.
pub struct Teller {
    spec: Arc<FlowSpec>,
    clock: Arc<dyn Clock>,
    reasons: Mutex<BTreeMap<String, Written>>,
}

impl Teller {
    /// For one flow.
    pub fn new(spec: Arc<FlowSpec>, clock: Arc<dyn Clock>) -> Self {
        Self { spec, clock, reasons: Mutex::default() }
    }

    /// Tells a batch that is about to be durable in the ledger.
    pub fn tell(&self, record: &BatchRecord) {
        for decision in &record.decisions {
            match &decision.fate {
                Fate::Applied => self.tell_applied(record, decision),
                Fate::Skipped(reason) | Fate::DeadLettered(reason) => {
                    self.tell_not_applied(record, decision, reason.code.as_str(), &reason.sentence);
                }
            }
            for flag in &decision.flags {
                tracing::debug!(
                    target: "recount::decision",
                    flow = %record.at.flow,
                    partition = %record.at.partition,
                    offset = decision.offset,
                    flag = %flag,
                    "an assumption does not hold"
                );
            }
        }
    }

    fn tell_applied(&self, record: &BatchRecord, decision: &Decision) {
        tracing::debug!(
            target: "recount::decision",
            flow = %record.at.flow,
            event_id = self.shown_id(decision),
            key = self.shown_key(decision),
            partition = %record.at.partition,
            offset = decision.offset,
            attempt = decision.attempt,
            "applied"
        );
    }

    fn tell_not_applied(&self, record: &BatchRecord, decision: &Decision, reason: &str, sentence: &str) {
        if !self.may_write(reason) {
            return;
        }
        let word = decision.fate.word();
        macro_rules! line {
            ($level:ident) => {
                tracing::$level!(
                    target: "recount::decision",
                    flow = %record.at.flow,
                    event_id = self.shown_id(decision),
                    key = self.shown_key(decision),
                    partition = %record.at.partition,
                    offset = decision.offset,
                    reason,
                    attempt = decision.attempt,
                    "{word}: {sentence}"
                )
            };
        }
        match decision.fate {
            Fate::DeadLettered(_) => line!(warn),
            _ => line!(info),
        }
    }

    /// A retry is on the way: the event has no verdict yet.
    pub fn tell_retry(
        &self,
        partition: &str,
        offset: u64,
        attempt: u32,
        wait_ms: u64,
        reason: &str,
        sentence: &str,
    ) {
        if self.may_write(reason) {
            tracing::info!(
                target: "recount::decision",
                flow = %self.spec.flow,
                partition,
                offset,
                reason,
                attempt,
                "retry in {wait_ms} ms, its key waits: {sentence}"
            );
        }
    }

    fn shown_id<'a>(&self, decision: &'a Decision) -> &'a str {
        match &decision.event_id {
            Some(_) if self.spec.id_is_secret => "(secret)",
            Some(id) => id,
            None => "",
        }
    }

    fn shown_key<'a>(&self, decision: &'a Decision) -> &'a str {
        match &decision.key {
            Some(_) if self.spec.key_is_secret => "(secret)",
            Some(key) => key,
            None => "",
        }
    }

    fn may_write(&self, reason: &str) -> bool {
        let now_ms = self.clock.now().0;
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        let written = match reasons.get_mut(reason) {
            Some(written) => written,
            None => reasons.entry(reason.to_owned()).or_default(),
        };
        if now_ms - written.since_ms >= WINDOW_MS {
            let left_out = std::mem::take(written).left_out;
            written.since_ms = now_ms;
            self.tell_left_out(reason, left_out);
        }
        written.lines += 1;
        if written.lines > LINES_A_WINDOW {
            written.left_out += 1;
            return false;
        }
        true
    }

    fn tell_left_out(&self, reason: &str, left_out: u64) {
        if left_out > 0 {
            tracing::info!(
                target: "recount::decision",
                flow = %self.spec.flow,
                reason,
                left_out,
                "{left_out} more lines like this were left out; each is in the ledger"
            );
        }
    }

    /// Tells what was left out so far; called at a drain.
    pub fn finish(&self) {
        let mut reasons = self.reasons.lock().unwrap_or_else(PoisonError::into_inner);
        for (reason, written) in reasons.iter_mut() {
            self.tell_left_out(reason, std::mem::take(&mut written.left_out));
        }
    }
}
