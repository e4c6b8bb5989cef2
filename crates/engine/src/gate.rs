//! What the flow's decisions, in the order decided, say about the flow: budgets and the breaker.

use crate::spec::{BreakerSpec, FlowSpec};
use recount_model::budget::BudgetStand;
use recount_model::{BatchRecord, Budget, BudgetLimit, BudgetWindow, Decision, Fate, ReasonCode, Timestamp};
use std::collections::BTreeMap;

/// What a batch changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tripped {
    /// A reason took more than its budget for the first time since it was accepted.
    Budget {
        /// The reason.
        reason: ReasonCode,
        /// Its budget.
        budget: Budget,
        /// How it stands.
        stand: BudgetStand,
    },
    /// Too many of the last events were not applied.
    Breaker {
        /// How many of them.
        not_applied: u64,
        /// Among how many, at most.
        of_last: u32,
    },
}

#[derive(Debug)]
struct ReasonWindow {
    window: BudgetWindow,
    seen_up_to: u64,
    exceeded: bool,
}

/// A fold over the flow's decisions. Corrections don't count: the event was received once.
#[derive(Debug)]
pub struct Gate {
    reasons: BTreeMap<ReasonCode, ReasonWindow>,
    breaker: BudgetWindow,
    breaker_spec: BreakerSpec,
    breaker_open: bool,
    received: u64,
}

impl Gate {
    /// An empty fold.
    pub fn new(spec: &FlowSpec) -> Self {
        let window = |budget: &Budget| ReasonWindow {
            window: BudgetWindow::new(*budget),
            seen_up_to: 0,
            exceeded: false,
        };
        let share = BudgetLimit::OfLast { share_ppm: spec.breaker.share_ppm, events: spec.breaker.of_last };
        Self {
            reasons: spec.budgets.iter().map(|(code, budget)| (code.clone(), window(budget))).collect(),
            breaker: BudgetWindow::new(Budget { limit: share }),
            breaker_spec: spec.breaker,
            breaker_open: false,
            received: 0,
        }
    }

    /// Adds a committed batch.
    pub fn observe(&mut self, record: &BatchRecord) -> Vec<Tripped> {
        for decision in record.decisions.iter().filter(|d| d.corrects.is_none()) {
            if let Some(reason) = decision.fate.reason() {
                self.hit(&reason.code, record);
            }
            for flag in &decision.flags {
                self.hit(flag, record);
            }
            let counts = self.counts_for_breaker(decision);
            self.breaker.observe(counts, 1, record.decided_at);
            self.received += 1;
        }
        self.observe_time(record);
        self.tripped()
    }

    /// Windows of time see every batch at its own instant.
    fn observe_time(&mut self, record: &BatchRecord) {
        let received = record.decisions.iter().filter(|d| d.corrects.is_none());
        let received: Vec<&Decision> = received.collect();
        for (code, reason) in &mut self.reasons {
            if !matches!(reason.window.budget().limit, BudgetLimit::PerTime { .. }) {
                continue;
            }
            let has =
                |d: &&&Decision| d.fate.reason().is_some_and(|r| r.code == *code) || d.flags.contains(code);
            let hits = received.iter().filter(has).count() as u64;
            reason.window.observe(true, hits, record.decided_at);
            reason.window.observe(false, received.len() as u64 - hits, record.decided_at);
        }
    }

    fn hit(&mut self, code: &ReasonCode, record: &BatchRecord) {
        let received = self.received;
        let of_time =
            |reason: &ReasonWindow| matches!(reason.window.budget().limit, BudgetLimit::PerTime { .. });
        if let Some(reason) = self.reasons.get_mut(code).filter(|reason| !of_time(reason)) {
            reason.window.observe(false, received - reason.seen_up_to, record.decided_at);
            reason.window.observe(true, 1, record.decided_at);
            reason.seen_up_to = received + 1;
        }
    }

    fn counts_for_breaker(&self, decision: &Decision) -> bool {
        match &decision.fate {
            Fate::Applied => false,
            Fate::Skipped(reason) | Fate::DeadLettered(reason) => {
                let window = self.reasons.get(&reason.code);
                window.is_none_or(|w| w.window.budget().limit != BudgetLimit::Any)
            }
        }
    }

    fn tripped(&mut self) -> Vec<Tripped> {
        let mut tripped = Vec::new();
        for (code, reason) in &mut self.reasons {
            let stand = reason.window.stand();
            if stand.exceeded_at.is_some() && !reason.exceeded {
                reason.exceeded = true;
                tripped.push(Tripped::Budget { reason: code.clone(), budget: reason.window.budget(), stand });
            }
        }
        if self.breaker.stand().exceeded_now && !self.breaker_open {
            self.breaker_open = true;
            let not_applied = self.breaker.stand().now;
            tripped.push(Tripped::Breaker { not_applied, of_last: self.breaker_spec.of_last });
        }
        tripped
    }

    /// An operator resumed the flow: what was exceeded is accepted, and the breaker begins anew.
    pub fn accept(&mut self) {
        for reason in self.reasons.values_mut() {
            reason.exceeded = false;
            reason.window.accept();
        }
        self.breaker = BudgetWindow::new(self.breaker.budget());
        self.breaker_open = false;
    }

    /// Each reason's budget and how it stands.
    pub fn stands(&self) -> Vec<(ReasonCode, Budget, BudgetStand)> {
        let stand = |(code, reason): (&ReasonCode, &ReasonWindow)| {
            let mut window = reason.window.clone();
            if matches!(window.budget().limit, BudgetLimit::OfLast { .. }) {
                window.observe(false, self.received - reason.seen_up_to, Timestamp::default());
            }
            (code.clone(), window.budget(), window.stand())
        };
        self.reasons.iter().map(stand).collect()
    }
}
