//! One batch from its transaction to the ledger and the source.

use super::{Exit, HoldKey, InLedger, PartitionLoop, hold_key};
use crate::clock::backoff_ms;
use crate::duplicates::{First, FirstFate};
use crate::effect::{Committed, Conclusion, EffectBatch, EffectFault, Outcome};
use crate::hold::Until;
use crate::plan::{Judged, Plan, Progress, Underway};
use crate::probe::{BatchOver, Step};
use crate::start::{Stop, ledger_stop};
use recount_ledger::{EncodedBatch, LedgerError};
use recount_model::batch::Attempt;
use recount_model::decide::Action;
use recount_model::{BatchRecord, Fate, Gap, Reason, Timestamp, reason};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

/// Deadlocks in a row after which the database counts as away.
const AGAIN_MAX: u32 = 20;

/// What kept a batch's effect from being done, none of it the events' fault.
#[derive(Default)]
struct Faults {
    count: u32,
    last: Option<String>,
}

impl PartitionLoop {
    pub(super) async fn run_batch(
        &mut self,
        events: Vec<Underway>,
        gaps: Vec<Gap>,
        taken_at: Timestamp,
    ) -> Result<(), Exit> {
        if events.is_empty() && gaps.is_empty() {
            return Ok(());
        }
        let waiting_max = self.shared.spec.ledger_batches_waiting_max;
        self.wait_for_ledger(waiting_max.saturating_sub(1)).await?;
        let plan = Arc::new(Plan {
            at: self.at.clone(),
            epoch: self.claim.epoch,
            seq: self.claim.expected_seq + 1,
            taken_at,
            events,
            gaps,
            progress: self.progress.clone(),
            spec: Arc::clone(&self.shared.spec),
        });
        let began = Instant::now();
        let mut faults = Faults::default();
        let committed = self.commit(&plan, &mut faults).await;
        self.shared.probe.batch_over(&BatchOver {
            plan: &plan,
            record: committed.as_ref().ok().map(|committed| &*committed.conclusion.record),
            took: began.elapsed(),
            faults: faults.count,
            last_fault: faults.last.as_deref(),
        });
        self.committed(&plan, committed?).await
    }

    /// The effect's transaction, again and again until it commits; a fault is never the events'.
    async fn commit(&mut self, plan: &Arc<Plan>, faults: &mut Faults) -> Result<Committed, Exit> {
        loop {
            self.shared.probe.reached(Step::Effect);
            let batch = self.effect_batch(plan);
            match self.shared.effect.apply(batch).await {
                Ok(committed) => {
                    self.shared.tell_back();
                    return Ok(committed);
                }
                Err(fault) => {
                    faults.count += 1;
                    faults.last = Some(fault.to_string());
                    self.bear(fault, faults.count).await?;
                }
            }
        }
    }

    fn effect_batch(&self, plan: &Arc<Plan>) -> EffectBatch {
        let (concluding, shared) = (Arc::clone(plan), Arc::clone(&self.shared));
        EffectBatch {
            at: self.at.clone(),
            claim: self.claim,
            events: plan.effect_events(),
            ledger_has_seq: self.ledger_has_seq,
            conclude: Box::new(move |outcomes| {
                let record = concluding.conclude(outcomes, shared.clock.now());
                let bytes = recount_ledger::codec::encode(&record);
                shared.probe.reached(Step::Commit);
                Conclusion { record: Arc::new(record), bytes: bytes.into() }
            }),
        }
    }

    /// Waits as the fault asks, or gives up the partition.
    pub(super) async fn bear(&mut self, fault: EffectFault, tries: u32) -> Result<(), Exit> {
        let spec = Arc::clone(&self.shared.spec);
        let wait_ms = match fault {
            EffectFault::NotMine => {
                return Err(self.taken_by_another().into());
            }
            EffectFault::CommitUnknown(why) => {
                tracing::warn!(target: "recount::flow", flow = %self.at.flow, partition = %self.at.partition,
                    "the outcome of a commit is unknown: {why}");
                return Err(Exit::Restart);
            }
            EffectFault::Foreign(sentence) => return Err(Stop::new(reason::LEDGER_FOREIGN, sentence).into()),
            EffectFault::Again(why) if tries <= AGAIN_MAX => {
                tracing::debug!(target: "recount::flow", flow = %self.at.flow, "the batch again: {why}");
                backoff_ms(2, 200, tries)
            }
            EffectFault::Again(why) | EffectFault::Away(why) => {
                let wait_ms = backoff_ms(spec.away_backoff_first_ms, spec.away_backoff_max_ms, tries);
                self.shared.tell_away(&self.at, &why, wait_ms).await;
                wait_ms
            }
        };
        let wait_ms = self.jitter.shorten(wait_ms, 0.2);
        if self.asked.wait(wait_ms).await {
            return Err(Exit::ShutDown);
        }
        Ok(())
    }

    fn taken_by_another(&self) -> Stop {
        let sentence = format!(
            "{}: another process took the partition; this one lets go of it. Only one process may run a flow on \
             one ledger",
            self.at
        );
        Stop::new(reason::PARTITION_TAKEN, sentence)
    }

    async fn committed(&mut self, plan: &Plan, committed: Committed) -> Result<(), Exit> {
        let Committed { conclusion, outcomes } = committed;
        let record = conclusion.record;
        assert_eq!(record.seq, self.claim.expected_seq + 1, "a batch has the seq that its claim made");
        self.shared.probe.reached(Step::Ledger);
        self.claim.expected_seq = record.seq;
        self.progress =
            Progress { next_offset: record.next_offset, decided_above: record.decided_above.clone() };
        if !self.shared.guards.ledger_before_settle {
            self.settle(&record);
        }
        let encoded = EncodedBatch { record: Arc::clone(&record), bytes: conclusion.bytes };
        let pending = self.shared.book.append(encoded);
        self.in_ledger.push_back(InLedger { record: Arc::clone(&record), pending });
        let attempted = plan.events.iter().filter(|e| matches!(e.judged, Judged::Passed(_))).count();
        self.perform(plan, &outcomes);
        self.shared.stats.observe(&record, attempted as u64);
        self.shared.teller.tell(&record);
        self.shared.look_at_gate(&record).await.map_err(Exit::from)
    }

    /// Does what deciding said for each event: holds keys, lets them go on, remembers fates.
    fn perform(&mut self, plan: &Plan, outcomes: &[Outcome]) {
        let now = Instant::now();
        let mut back: BTreeMap<HoldKey, (Vec<Underway>, Instant)> = BTreeMap::new();
        let mut kept = BTreeSet::new();
        for (underway, settlement) in plan.events.iter().zip(plan.settle(outcomes)) {
            if underway.replay.is_some() && settlement.actions.is_empty() {
                continue;
            }
            let key = hold_key(underway);
            for action in settlement.actions {
                match action {
                    Action::KeepBody | Action::ReleaseKey => {}
                    Action::Record(fate) => self.remember(underway, &fate),
                    Action::KeepKeyHeld => {
                        self.hold.keep_held(key.clone());
                        kept.insert(key.clone());
                    }
                    Action::WaitBehind => {
                        back.entry(key.clone()).or_insert((Vec::new(), now)).0.push(underway.clone());
                    }
                    Action::HoldKey { attempt, reason } => {
                        let (again, wait_ms) = self.failed_attempt(underway, attempt, &reason);
                        let due = now + Duration::from_millis(wait_ms);
                        let entry = back.entry(key.clone()).or_insert((Vec::new(), due));
                        entry.0.push(again);
                        entry.1 = due;
                    }
                }
            }
        }
        for (key, (events, due)) in back {
            let until = if kept.contains(&key) { Until::Operator } else { Until::Due(due) };
            self.hold.put_back(key, events, until);
        }
    }

    fn failed_attempt(&mut self, underway: &Underway, attempt: u32, reason: &Reason) -> (Underway, u64) {
        let retry = self.shared.spec.retry;
        let backoff = backoff_ms(retry.backoff_first_ms, retry.backoff_max_ms, attempt);
        let wait_ms = self.jitter.shorten(backoff, retry.jitter);
        let found = format!("{}: {}", reason.code, reason.sentence);
        let mut again = underway.clone();
        again.failed.push(Attempt { number: attempt, at: self.shared.clock.now(), found });
        again.attempt = attempt + 1;
        self.shared.stats.update(|counts| *counts.retries.entry(reason.code.to_string()).or_default() += 1);
        let partition = self.at.partition.as_str();
        let (code, sentence) = (reason.code.as_str(), reason.sentence.as_str());
        self.shared.teller.tell_retry(partition, underway.offset, attempt, wait_ms, code, sentence);
        (again, wait_ms)
    }

    fn remember(&mut self, underway: &Underway, fate: &Fate) {
        let Some(id) = &underway.meta().id else { return };
        let fate = match fate {
            Fate::DeadLettered(_) => FirstFate::DeadLettered,
            Fate::Applied | Fate::Skipped(_) => FirstFate::Done,
        };
        if underway.replay.is_some() && fate == FirstFate::Done {
            // Whichever of several deliveries was the first: the event with this id is done now.
            let first = First { offset: underway.offset, payload_hash: underway.payload_hash(), fate };
            self.window.put(id, first);
        }
        self.window.decided(id, underway.offset, fate);
    }

    pub(super) fn ledger_done(&mut self, result: Result<(), Arc<LedgerError>>) -> Result<(), Exit> {
        let Some(done) = self.in_ledger.pop_front() else { return Ok(()) };
        result.map_err(|error| Exit::from(ledger_stop(&error)))?;
        self.ledger_has_seq = done.record.seq;
        self.shared.probe.reached(Step::Settle);
        self.settle(&done.record);
        Ok(())
    }

    fn settle(&mut self, record: &BatchRecord) {
        let durable = record.decisions.iter().filter(|d| d.corrects.is_none());
        let settled: Vec<_> = durable
            .filter_map(|d| self.deliveries.remove(&d.offset))
            .map(|open| open.delivery.settle())
            .collect();
        if let Some(settler) = &self.settler {
            settler.settle(settled);
        }
    }

    /// Waits until at most `waiting_max` committed batches are not in the ledger yet.
    pub(super) async fn wait_for_ledger(&mut self, waiting_max: usize) -> Result<(), Exit> {
        while self.in_ledger.len() > waiting_max {
            let Some(oldest) = self.in_ledger.front_mut() else { break };
            let result = oldest.pending.as_mut().await;
            self.ledger_done(result)?;
        }
        Ok(())
    }
}
