//! One batch before and after its transaction: from checked events and outcomes to the record. Pure.

use crate::effect::{EffectEvent, Outcome, Replay};
use crate::hold::Weighed;
use crate::source::ReportedVerdict;
use crate::spec::FlowSpec;
use recount_checks::{CheckResult, Checked, Event, Refused};
use recount_model::batch::Attempt;
use recount_model::decide::{Action, Attempts, Reported, decide};
use recount_model::decision::{Corrects, Measure};
use recount_model::{
    BatchRecord, Decision, Fate, Gap, Header, KeptBody, Meta, OffsetSet, Origin, PartitionId, PayloadHash,
    ReasonCode, Timestamp, Verdict, reason,
};
use std::sync::Arc;

/// What the checks, or the engine before the effect, say of an event.
#[derive(Debug, Clone)]
pub enum Judged {
    /// It goes to the effect.
    Passed(Arc<Checked<Event>>),
    /// It has its verdict already.
    Refused(Box<Refused>),
}

impl From<CheckResult> for Judged {
    fn from(result: CheckResult) -> Self {
        match result {
            CheckResult::Passed(event) => Self::Passed(Arc::new(event)),
            CheckResult::Refused(refused) => Self::Refused(refused),
        }
    }
}

impl Judged {
    /// The consumer's verdict in place of the checks'. Where the two can't both be right, a flag says so, and
    /// the evidence says what the checks found.
    pub fn reported(self, reported: &ReportedVerdict) -> Self {
        let is_applied = reported.verdict == Verdict::Applied;
        let (mut refused, contradiction) = match self {
            Self::Refused(refused) => {
                let expected = refused.verdict.reason().map(|reason| reason.code.clone());
                let found = is_applied.then(|| (expected, Some(refused.evidence.clone())));
                (refused, found)
            }
            Self::Passed(event) => {
                let refused = Refused {
                    verdict: Verdict::Applied,
                    evidence: Box::default(),
                    meta: event.meta.clone(),
                    payload_hash: event.payload_hash,
                    flags: event.flags.clone(),
                    decoded: true,
                    measures: event.measures.clone(),
                };
                (Box::new(refused), reported.is_of_check.then_some((None, None)))
            }
        };
        refused.verdict = reported.verdict.clone();
        refused.evidence = reported.evidence.clone().unwrap_or_default();
        if let Some((expected, found)) = contradiction {
            refused.flags.push(reason::CONTRADICTS_CHECK);
            refused.evidence = contradiction_evidence(reported, expected, found).into();
        }
        Self::Refused(refused)
    }
}

fn contradiction_evidence(
    reported: &ReportedVerdict,
    expected: Option<ReasonCode>,
    found: Option<Box<str>>,
) -> String {
    let json = |text: &str| serde_json::from_str(text).unwrap_or(serde_json::Value::Null);
    let mut evidence = serde_json::json!({
        "checks_say": expected.as_ref().map_or("nothing against it", ReasonCode::as_str),
    });
    for (name, text) in [("found", found.as_deref()), ("reported", reported.evidence.as_deref())] {
        if let Some(text) = text.filter(|text| !text.is_empty()) {
            evidence[name] = json(text);
        }
    }
    evidence.to_string()
}

/// An event on its way through the loop.
#[derive(Debug, Clone)]
pub struct Underway {
    /// Offset within the partition.
    pub offset: u64,
    /// The bytes, for a body that is kept.
    pub payload: Arc<[u8]>,
    /// The length before it was cut.
    pub payload_bytes: u64,
    /// The delivery's headers.
    pub headers: Arc<[Header]>,
    /// What the checks say.
    pub judged: Judged,
    /// The attempt that comes next; 1 for the first.
    pub attempt: u32,
    /// Attempts that failed before.
    pub failed: Vec<Attempt>,
    /// Whether it repeats an earlier event: then it is not *received*.
    pub is_duplicate: bool,
    /// An earlier dead letter with the same id and payload.
    pub linked_to: Option<u64>,
    /// Set when a replay decides it anew.
    pub replay: Option<Replay>,
    /// Its verdict is the consumer's own, and nothing that Recount knows better overrules it.
    pub is_reported: bool,
}

impl Weighed for Underway {
    fn weight_bytes(&self) -> usize {
        self.payload.len()
    }
}

impl Underway {
    /// What is known of the delivery.
    pub fn meta(&self) -> &Meta {
        match &self.judged {
            Judged::Passed(event) => &event.meta,
            Judged::Refused(refused) => &refused.meta,
        }
    }

    /// Hash of id and payload.
    pub fn payload_hash(&self) -> PayloadHash {
        match &self.judged {
            Judged::Passed(event) => event.payload_hash,
            Judged::Refused(refused) => refused.payload_hash,
        }
    }

    /// Gives it a verdict of the engine's own, before any effect.
    pub fn refuse(&mut self, verdict: Verdict, evidence: String) {
        let refused = match &self.judged {
            Judged::Passed(event) => Refused {
                verdict,
                evidence: evidence.into(),
                meta: event.meta.clone(),
                payload_hash: event.payload_hash,
                flags: event.flags.clone(),
                decoded: true,
                measures: event.measures.clone(),
            },
            Judged::Refused(before) => {
                Refused { verdict, evidence: evidence.into(), ..before.as_ref().clone() }
            }
        };
        self.judged = Judged::Refused(Box::new(refused));
    }

    fn flags(&self) -> &[ReasonCode] {
        match &self.judged {
            Judged::Passed(event) => &event.flags,
            Judged::Refused(refused) => &refused.flags,
        }
    }

    fn measures(&self) -> &[Option<Measure>] {
        match &self.judged {
            Judged::Passed(event) => &event.measures,
            Judged::Refused(refused) => &refused.measures,
        }
    }

    fn is_received(&self) -> bool {
        let decoded = match &self.judged {
            Judged::Passed(_) => true,
            Judged::Refused(refused) => refused.decoded,
        };
        decoded && !self.is_duplicate
    }
}

/// How far a partition is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Progress {
    /// The first offset that isn't decided.
    pub next_offset: u64,
    /// Offsets decided beyond it.
    pub decided_above: OffsetSet,
}

impl Progress {
    /// Whether the offset has a fate.
    pub fn has_decided(&self, offset: u64) -> bool {
        offset < self.next_offset || self.decided_above.contains(offset)
    }

    /// Adds `from..to`.
    pub fn pass(&mut self, from: u64, to: u64) {
        self.decided_above.insert_range(from.max(self.next_offset), to);
        self.next_offset = self.decided_above.absorb_prefix(self.next_offset);
    }
}

/// Everything that the record of a batch is made of, except the outcomes.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The partition.
    pub at: PartitionId,
    /// Our ownership.
    pub epoch: u64,
    /// The seq that this batch will have.
    pub seq: u64,
    /// When it was taken from the source.
    pub taken_at: Timestamp,
    /// In the order to be decided.
    pub events: Vec<Underway>,
    /// Positions passed over.
    pub gaps: Vec<Gap>,
    /// Before the batch.
    pub progress: Progress,
    /// The flow.
    pub spec: Arc<FlowSpec>,
}

/// What came of one event of a plan.
#[derive(Debug, Clone, PartialEq)]
pub struct Settlement {
    /// What is to be done, in order.
    pub actions: Vec<Action>,
    /// What the effect found, one JSON object.
    pub evidence: Option<Box<str>>,
}

impl Plan {
    /// The events that go to the effect, in order.
    pub fn effect_events(&self) -> Vec<EffectEvent> {
        let passed = |underway: &Underway| match &underway.judged {
            Judged::Passed(event) => Some(EffectEvent {
                event: Arc::clone(event),
                attempt: underway.attempt,
                replay: underway.replay,
            }),
            Judged::Refused(_) => None,
        };
        self.events.iter().filter_map(passed).collect()
    }

    /// What is to be done with each event, given the outcomes of those that went to the effect.
    ///
    /// # Panics
    /// If there are not as many outcomes as events that went to the effect: the effect broke its contract.
    pub fn settle(&self, outcomes: &[Outcome]) -> Vec<Settlement> {
        let mut outcomes = outcomes.iter();
        let settlements = self.events.iter().map(|underway| match &underway.judged {
            Judged::Refused(refused) => {
                let actions = decide(Reported::Checks(refused.verdict.clone()), self.attempts(underway));
                Settlement {
                    actions,
                    evidence: Some(refused.evidence.clone()).filter(|evidence| !evidence.is_empty()),
                }
            }
            Judged::Passed(_) => {
                let outcome = outcomes.next().expect("an effect returns one outcome an event");
                self.settle_outcome(underway, outcome)
            }
        });
        let settlements = settlements.collect();
        assert!(outcomes.next().is_none(), "an effect returns one outcome an event, not more");
        settlements
    }

    fn settle_outcome(&self, underway: &Underway, outcome: &Outcome) -> Settlement {
        match outcome {
            Outcome::Behind => {
                Settlement { actions: decide(Reported::Behind, self.attempts(underway)), evidence: None }
            }
            Outcome::AlreadyReplayed => Settlement { actions: Vec::new(), evidence: None },
            Outcome::Said { verdict, evidence } => {
                let verdict = self.declared(verdict.clone());
                let actions = decide(Reported::Effect(verdict), self.attempts(underway));
                Settlement { actions, evidence: evidence.clone() }
            }
        }
    }

    fn attempts(&self, underway: &Underway) -> Attempts {
        let retry = &self.spec.retry;
        // A replay is one attempt: what it comes to is said at once, and nothing waits for it.
        let max = if underway.replay.is_some() { underway.attempt } else { retry.attempts_max };
        Attempts { number: underway.attempt, max, after_last: retry.after_last }
    }

    /// A reason that the flow doesn't declare becomes a dead letter that says so.
    fn declared(&self, verdict: Verdict) -> Verdict {
        match verdict.reason() {
            Some(given) if !self.spec.budgets.contains_key(&given.code) => Verdict::dead_letter(
                reason::UNDECLARED_REASON,
                format!(
                    "the effect gave {}, which the flow does not declare: {}",
                    given.code, given.sentence
                ),
            ),
            _ => verdict,
        }
    }

    /// The record of the batch.
    pub fn conclude(&self, outcomes: &[Outcome], now: Timestamp) -> BatchRecord {
        let mut progress = self.progress.clone();
        let mut decisions = Vec::with_capacity(self.events.len());
        let mut bodies = Vec::new();
        for (underway, settlement) in self.events.iter().zip(self.settle(outcomes)) {
            let Settlement { actions, evidence } = settlement;
            let keeps_body = actions.contains(&Action::KeepBody);
            let Some(fate) = actions.into_iter().find_map(|action| match action {
                Action::Record(fate) => Some(fate),
                _ => None,
            }) else {
                continue;
            };
            if underway.replay.is_none() {
                progress.pass(underway.offset, underway.offset + 1);
            }
            if keeps_body && self.is_body_kept(underway, &fate) {
                bodies.push(self.body(underway, &fate, now));
            }
            decisions.push(decision(self.spec.origin, underway, fate, evidence));
        }
        for gap in &self.gaps {
            progress.pass(gap.from, gap.to);
        }
        BatchRecord {
            at: self.at.clone(),
            epoch: self.epoch,
            seq: self.seq,
            config: self.spec.config,
            taken_at: self.taken_at,
            decided_at: now,
            decisions,
            gaps: self.gaps.clone(),
            bodies,
            next_offset: progress.next_offset,
            decided_above: progress.decided_above,
        }
    }

    fn is_body_kept(&self, underway: &Underway, fate: &Fate) -> bool {
        match fate {
            Fate::Applied => false,
            Fate::DeadLettered(_) => true,
            Fate::Skipped(_) => {
                !underway.payload.is_empty() && underway.payload.len() <= self.spec.keep_skipped_bytes_max
            }
        }
    }

    fn body(&self, underway: &Underway, fate: &Fate, now: Timestamp) -> KeptBody {
        let mut attempts = underway.failed.clone();
        let found = fate.reason().map(|r| format!("{}: {}", r.code, r.sentence)).unwrap_or_default();
        attempts.push(Attempt { number: underway.attempt, at: now, found });
        let kept_bytes = underway.payload.len().min(self.spec.take.payload_bytes_max);
        KeptBody {
            offset: underway.offset,
            payload: underway.payload[..kept_bytes].to_vec(),
            payload_bytes: underway.payload_bytes,
            headers: underway.headers.to_vec(),
            attempts,
        }
    }
}

fn decision(origin: Origin, underway: &Underway, fate: Fate, evidence: Option<Box<str>>) -> Decision {
    let meta = underway.meta();
    let evidence = match (evidence, underway.linked_to) {
        (None, Some(first)) => Some(format!("{{\"linked_to_dead_letter\":{first}}}").into()),
        (evidence, _) => evidence,
    };
    Decision {
        offset: underway.offset,
        event_id: meta.id.clone(),
        key: meta.key.clone(),
        payload_hash: underway.payload_hash(),
        fate,
        flags: underway.flags().to_vec(),
        attempt: underway.attempt,
        event_time: meta.time,
        origin,
        corrects: underway.replay.map(|r| Corrects { seq: r.corrects_seq, replay_id: r.replay_id }),
        evidence,
        received: underway.is_received(),
        measures: underway.measures().to_vec(),
    }
}
