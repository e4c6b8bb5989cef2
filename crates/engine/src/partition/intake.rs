//! What a batch from the source becomes: redelivered, duplicate, behind its key, or in the next batch.

use super::{Exit, HoldKey, Open, PartitionLoop, hold_key};
use crate::duplicates::{First, FirstFate, Seen};
use crate::feed::{Fed, FedEvent};
use crate::hold::Until;
use crate::plan::{Judged, Underway};
use crate::source::Delivery;
use crate::start::{Stop, ledger_stop};
use recount_checks::Refused;
use recount_model::{Decision, Meta, PartitionId, Timestamp, Verdict, reason};
use std::collections::BTreeMap;
use std::sync::atomic::Ordering;
use std::time::Duration;
use tokio::time::Instant;

/// At so many unclean stops in a row, the event that was alone under way is a dead letter.
const UNCLEAN_STOPS_MAX: u32 = 3;
/// An event that repeats an open one of another key is looked at again after this.
const OPEN_DUPLICATE_WAIT: Duration = Duration::from_millis(200);

impl PartitionLoop {
    pub(super) async fn take(&mut self, fed: Fed) -> Result<(), Exit> {
        let Fed { taken_at, events, gaps, backlog, .. } = fed;
        let partition = self.at.partition.to_string();
        self.shared.stats.update(|counts| {
            counts.backlog.insert(partition, backlog.unwrap_or(0));
        });
        let mut batch = Vec::with_capacity(events.len());
        for FedEvent { delivery, judged } in events {
            if self.progress.has_decided(delivery.offset) {
                self.compare_redelivered(delivery, judged, taken_at).await?;
                continue;
            }
            let offset = delivery.offset;
            if self.deliveries.contains_key(&offset) {
                // It is under way or held already; the first delivery of it will be settled.
                continue;
            }
            let alone_left = self.alone_left.load(Ordering::Acquire);
            if judged.is_none() && alone_left > 0 {
                self.go_alone(delivery, taken_at).await?;
                self.alone_left.store(alone_left - 1, Ordering::Release);
                continue;
            }
            // What was taken ahead, unchecked, beyond those that go alone is an event like any other.
            let judged = judged.unwrap_or_else(|| self.checking.check(&delivery, taken_at));
            let underway = self.checking.underway(&delivery, judged);
            self.deliveries.insert(offset, Open { delivery, taken_at });
            batch.extend(self.place(underway));
        }
        let gaps = gaps.into_iter().filter(|gap| !self.progress.has_decided(gap.to - 1)).collect();
        self.run_batch(batch, gaps, taken_at).await
    }

    /// After an unclean stop: one event, its attempt durable before anything looks at it.
    async fn go_alone(&mut self, delivery: Delivery, taken_at: Timestamp) -> Result<(), Exit> {
        let offset = delivery.offset;
        let stops = loop {
            match self.shared.effect.mark_alone(&self.at, self.claim, offset).await {
                Ok(stops) => break stops,
                Err(fault) => self.bear(fault, 1).await?,
            }
        };
        let judged = if stops >= UNCLEAN_STOPS_MAX {
            self.checking.report(&delivery, killed(&self.at, &delivery, stops, taken_at))
        } else {
            self.checking.check(&delivery, taken_at)
        };
        let underway = self.checking.underway(&delivery, judged);
        self.deliveries.insert(offset, Open { delivery, taken_at });
        let batch = self.place(underway).into_iter().collect();
        self.run_batch(batch, Vec::new(), taken_at).await
    }

    /// Where an event goes: into the batch, or behind its key.
    fn place(&mut self, mut underway: Underway) -> Option<Underway> {
        if underway.is_reported {
            self.note_repeated(&mut underway);
            return Some(underway);
        }
        let key = hold_key(&underway);
        let waits = self.hold.holds(&key);
        let until = match self.look_for_duplicate(&mut underway, waits) {
            Some(until) => until,
            None => match &underway.judged {
                Judged::Passed(_) if waits => Until::Due(Instant::now()),
                _ => return Some(underway),
            },
        };
        self.hold.push_behind(key, underway, until);
        None
    }

    /// A reported event keeps its verdict, also where it repeats another one; it is only not *received* twice.
    fn note_repeated(&mut self, underway: &mut Underway) {
        let Some(id) = underway.meta().id.clone() else { return };
        let (offset, payload_hash) = (underway.offset, underway.payload_hash());
        let fate = match &underway.judged {
            Judged::Refused(refused) if matches!(refused.verdict, Verdict::DeadLetter(_)) => {
                FirstFate::DeadLettered
            }
            _ => FirstFate::Done,
        };
        match self.window.look(&id, offset, payload_hash) {
            Seen::New => self.window.put(&id, First { offset, payload_hash, fate }),
            Seen::OfOpen(_) | Seen::Duplicate(_) => underway.is_duplicate = true,
            Seen::OfDeadLetter(first) => {
                underway.linked_to = Some(first.offset);
                self.window.put(&id, First { offset, payload_hash, fate });
            }
            Seen::IdReused(_) => {}
        }
    }

    /// Events whose wait is over, each key's in order; one that repeats an open event goes back, and with
    /// it what follows it.
    pub(super) fn take_due(&mut self) -> Vec<Underway> {
        let mut back: BTreeMap<HoldKey, (Vec<Underway>, Until)> = BTreeMap::new();
        let mut batch = Vec::new();
        for mut underway in self.hold.take_due(Instant::now(), self.shared.spec.take.events_max) {
            let key = hold_key(&underway);
            if let Some((waiting, _)) = back.get_mut(&key) {
                waiting.push(underway);
            } else if let Some(until) = self.look_for_duplicate(&mut underway, false) {
                back.insert(key, (vec![underway], until));
            } else {
                batch.push(underway);
            }
        }
        for (key, (events, until)) in back {
            self.hold.put_back(key, events, until);
        }
        batch
    }

    /// Judges a repeated id; gives until when the event must wait if the first is still open. One that `waits`
    /// behind its key anyhow does not yet take a dead letter's place: an earlier one before it in the queue
    /// would wait for it, and it behind that one, for ever.
    fn look_for_duplicate(&mut self, underway: &mut Underway, waits: bool) -> Option<Until> {
        let id = underway.meta().id.clone()?;
        let offset = underway.offset;
        let open = First { offset, payload_hash: underway.payload_hash(), fate: FirstFate::Open };
        match self.window.look(&id, offset, open.payload_hash) {
            Seen::New => self.window.put(&id, open),
            Seen::OfOpen(first) => {
                // The first is either in the batch now being made, or held behind some key.
                let is_first_held = self.hold.any(|held| held.offset == first.offset);
                let wait = if is_first_held { OPEN_DUPLICATE_WAIT } else { Duration::ZERO };
                return Some(Until::Due(Instant::now() + wait));
            }
            Seen::Duplicate(first) => {
                let sentence = format!("{} was decided at {}/{}", self.shown(&id), self.at, first.offset);
                underway.is_duplicate = true;
                underway.refuse(
                    Verdict::skip(reason::DUPLICATE, sentence),
                    serde_json::json!({ "first": self.at.position(first.offset).to_string() }).to_string(),
                );
            }
            Seen::OfDeadLetter(_) if waits && matches!(underway.judged, Judged::Passed(_)) => {}
            Seen::OfDeadLetter(first) => {
                underway.linked_to = Some(first.offset);
                self.window.put(&id, open);
            }
            Seen::IdReused(first) => {
                let sentence = format!(
                    "{} stands at {}/{} with another payload",
                    self.shown(&id),
                    self.at,
                    first.offset
                );
                underway.refuse(
                    Verdict::dead_letter(reason::ID_REUSED, sentence),
                    serde_json::json!({ "first": self.at.position(first.offset).to_string() }).to_string(),
                );
            }
        }
        None
    }

    pub(super) fn shown<'a>(&self, id: &'a str) -> &'a str {
        if self.shared.spec.id_is_secret { "the id" } else { id }
    }

    /// Whether a delivery is the event of this decision: first by the id that was recorded, which may be
    /// none although the event has one, then by the id as it is found now.
    fn is_same(
        &self,
        decision: &Decision,
        delivery: &Delivery,
        judged: Option<Judged>,
        taken_at: Timestamp,
    ) -> bool {
        let recorded = recount_checks::payload_hash(decision.event_id.as_deref(), &delivery.payload);
        recorded == decision.payload_hash || {
            let judged = judged.unwrap_or_else(|| self.checking.check(delivery, taken_at));
            self.checking.underway(delivery, judged).payload_hash() == decision.payload_hash
        }
    }

    async fn compare_redelivered(
        &mut self,
        delivery: Delivery,
        judged: Option<Judged>,
        taken_at: Timestamp,
    ) -> Result<(), Exit> {
        let offset = delivery.offset;
        // What was committed a moment ago may not be in the ledger yet, and must be before it is settled.
        self.wait_for_ledger(0).await?;
        if self.shared.guards.payload_compare {
            let at = self.at.clone();
            let known = self.shared.book.with(move |store| store.current(&at, offset)).await;
            let known = known.map_err(|error| Exit::from(ledger_stop(&error)))?;
            if known.is_some_and(|(_, decision)| !self.is_same(&decision, &delivery, judged, taken_at)) {
                let sentence = format!(
                    "{}/{offset} was decided for another event: the source's position was used again. Nothing of it is \
                     acknowledged. Look at it with: recount story {}/{offset}; if the source was made anew, read it as a \
                     new incarnation: recount run --again",
                    self.at, self.at
                );
                return Err(Stop::new(reason::POSITION_REUSED, sentence).into());
            }
        }
        if let Some(settler) = &self.settler {
            settler.settle(vec![delivery.settle()]);
        }
        Ok(())
    }
}

fn killed(at: &PartitionId, delivery: &Delivery, stops: u32, taken_at: Timestamp) -> Judged {
    let sentence = format!("it was alone under way at {stops} unclean stops in a row");
    Judged::Refused(Box::new(Refused {
        verdict: Verdict::dead_letter(reason::KILLED_THE_PROCESS, sentence),
        evidence: format!("{{\"unclean_stops\":{stops}}}").into(),
        meta: Meta {
            partition: at.partition.as_str().into(),
            offset: delivery.offset,
            headers: delivery.headers.clone(),
            taken_at,
            ..Meta::default()
        },
        payload_hash: recount_checks::payload_hash(None, &delivery.payload),
        flags: Vec::new(),
        decoded: false,
        measures: Vec::new(),
    }))
}
