//! Deciding events anew: a correction names the decision that it replaces.

use super::{Asked, Exit, PartitionLoop};
use crate::duplicates::Seen;
use crate::effect::Replay;
use crate::flow::FlowShared;
use crate::plan::{Judged, Underway};
use crate::start::{Owned, Stop, ledger_stop};
use recount_checks::{RawEvent, Refused};
use recount_model::{Decision, Fate, Meta, PartitionId, Verdict, reason};
use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use tokio::sync::oneshot;

/// One event to be decided anew.
#[derive(Debug, Clone)]
pub struct ReplayEvent {
    /// The seq of the batch whose decision is replaced.
    pub corrects_seq: u64,
    /// Whether the decision may be `applied`: only where its effect is known to be gone.
    pub of_applied: bool,
    /// What it is decided from.
    pub from: ReplayFrom,
}

/// What an event is decided anew from.
#[derive(Debug, Clone)]
pub enum ReplayFrom {
    /// The event as delivered: it goes through checks and effect.
    Delivered(RawEvent),
    /// The decision that is replaced, and the verdict that an operator gives in its place.
    Operator {
        /// The decision.
        decision: Box<Decision>,
        /// The new verdict; never `Applied` or `Retry`.
        verdict: Verdict,
    },
}

/// Events to be decided anew.
pub struct ReplayBatch {
    /// The replay.
    pub replay_id: u64,
    /// The events.
    pub events: Vec<ReplayEvent>,
    /// Is told the outcome.
    pub done: oneshot::Sender<Result<ReplayReceipt, Stop>>,
}

/// What a replay came to.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ReplayReceipt {
    /// New decisions by verdict and reason, as `applied`, `skipped zero_quantity` …
    pub decided: BTreeMap<String, u64>,
    /// Events whose decision had been replaced before.
    pub already: u64,
    /// Events left as they are, since another one with the same id is under way or comes first.
    pub left: u64,
}
/// Decides events of a partition anew that no loop runs.
pub(crate) async fn replay_alone(at: PartitionId, shared: Arc<FlowShared>, batch: ReplayBatch) {
    let asked = Asked::to_shut_down(&shared);
    match PartitionLoop::start(at, shared, asked, &mut Owned::default(), None).await {
        Err(Exit::Stopped(stop)) => drop(batch.done.send(Err(stop))),
        Err(_) => {
            let stop = Stop::new(reason::EFFECTS_AWAY, "the flow was stopped before the replay began");
            drop(batch.done.send(Err(stop)));
        }
        Ok(mut partition) => {
            let exit = match partition.replay(batch).await {
                Ok(()) => partition.leave().await,
                Err(exit) => exit,
            };
            if let Exit::Stopped(stop) = exit {
                tracing::error!(target: "recount::flow", "{stop}");
            }
        }
    }
}

impl PartitionLoop {
    pub(super) async fn replay(&mut self, batch: ReplayBatch) -> Result<(), Exit> {
        let ReplayBatch { replay_id, events, done } = batch;
        let mut receipt = ReplayReceipt::default();
        let mut ids = HashSet::new();
        self.wait_for_ledger(0).await?;
        for chunk in events.chunks(self.shared.spec.take.events_max.max(1)) {
            let mut underway = Vec::with_capacity(chunk.len());
            for event in chunk {
                if !self.may_replace(event).await? {
                    receipt.already += 1;
                    continue;
                }
                let replayed = self.replayed(replay_id, event);
                let id = replayed.meta().id.clone();
                if self.is_under_way(&replayed) || id.is_some_and(|id| !ids.insert(id)) {
                    receipt.left += 1;
                } else {
                    underway.push(replayed);
                }
            }
            if underway.is_empty() {
                continue;
            }
            let asked = underway.len() as u64;
            let decided = match self.run_batch(underway, Vec::new(), self.shared.clock.now()).await {
                Ok(()) => self.in_ledger.back().map(|last| Arc::clone(&last.record)),
                Err(exit) => {
                    if let Exit::Stopped(stop) = &exit {
                        drop(done.send(Err(stop.clone())));
                    }
                    return Err(exit);
                }
            };
            let record = decided.expect("a batch that was just committed waits for the ledger");
            receipt.already += asked - record.decisions.len() as u64;
            for decision in &record.decisions {
                *receipt.decided.entry(decision.fate.to_string()).or_default() += 1;
            }
        }
        self.wait_for_ledger(0).await?;
        // Whoever asked may have gone; the receipt stands in the ledger.
        drop(done.send(Ok(receipt)));
        Ok(())
    }

    /// Whether the decision that the event names is the current one, and may be replaced.
    async fn may_replace(&mut self, event: &ReplayEvent) -> Result<bool, Exit> {
        let offset = match &event.from {
            ReplayFrom::Delivered(raw) => raw.offset,
            ReplayFrom::Operator { decision, .. } => decision.offset,
        };
        let at = self.at.clone();
        let current = self.shared.book.with(move |store| store.current(&at, offset)).await;
        let current = current.map_err(|error| Exit::from(ledger_stop(&error)))?;
        Ok(current.is_some_and(|(seq, decision)| {
            seq == event.corrects_seq && (event.of_applied || decision.fate != Fate::Applied)
        }))
    }

    /// Whether another event with the same id waits behind its key: it will be decided by itself.
    fn is_under_way(&self, replayed: &Underway) -> bool {
        let same = |held: &Underway| held.offset != replayed.offset && held.meta().id == replayed.meta().id;
        replayed.meta().id.is_some() && self.hold.any(same)
    }

    fn replayed(&self, replay_id: u64, event: &ReplayEvent) -> Underway {
        let replay = Some(Replay { replay_id, corrects_seq: event.corrects_seq });
        match &event.from {
            ReplayFrom::Delivered(raw) => self.refuse_applied_elsewhere(Underway {
                offset: raw.offset,
                payload: Arc::clone(&raw.payload),
                payload_bytes: raw.payload_bytes,
                headers: raw.headers.as_slice().into(),
                judged: self.shared.checks.check(raw.clone()).into(),
                attempt: 1,
                failed: Vec::new(),
                is_duplicate: false,
                linked_to: None,
                replay,
                is_reported: false,
            }),
            ReplayFrom::Operator { decision, verdict } => Underway {
                offset: decision.offset,
                payload: Arc::new([]),
                payload_bytes: 0,
                headers: Arc::new([]),
                judged: Judged::Refused(Box::new(self.by_operator(decision, verdict))),
                attempt: 1,
                failed: Vec::new(),
                is_duplicate: !decision.received,
                linked_to: None,
                replay,
                is_reported: false,
            },
        }
    }

    fn by_operator(&self, decision: &Decision, verdict: &Verdict) -> Refused {
        Refused {
            verdict: verdict.clone(),
            evidence: serde_json::json!({ "was": decision.fate.to_string() }).to_string().into(),
            meta: Meta {
                id: decision.event_id.clone(),
                key: decision.key.clone(),
                time: decision.event_time,
                partition: self.at.partition.as_str().into(),
                offset: decision.offset,
                ..Meta::default()
            },
            payload_hash: decision.payload_hash,
            flags: decision.flags.clone(),
            decoded: decision.received,
            measures: decision.measures.clone(),
        }
    }

    /// A dead letter whose event came again and was applied must not be applied twice.
    fn refuse_applied_elsewhere(&self, mut underway: Underway) -> Underway {
        let Some(id) = underway.meta().id.clone() else { return underway };
        if let Seen::Duplicate(first) = self.window.look(&id, underway.offset, underway.payload_hash()) {
            let sentence = format!("{} was decided at {}/{}", self.shown(&id), self.at, first.offset);
            underway.is_duplicate = true;
            underway.refuse(
                Verdict::skip(reason::DUPLICATE, sentence),
                serde_json::json!({ "first": self.at.position(first.offset).to_string() }).to_string(),
            );
        }
        underway
    }
}
