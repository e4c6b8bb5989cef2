//! Budgets, counted again from the ledger's runs in the order decided; never from the engine's counters.
//!
//! Every decision that isn't a correction is one event received; a correction decides none anew.

use recount_ledger::{JournalEntry, JournalKind, StoredBatch};
use recount_model::{Budget, BudgetLimit, BudgetWindow, Position, ReasonCode, Timestamp};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Where and when a budget was exceeded first, since an operator last accepted it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exceeded {
    /// The event that was one too many.
    pub position: Position,
    /// When it was decided.
    pub at: Timestamp,
    /// The most that a window held since.
    pub worst: u64,
}

/// How one reason's budget stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BudgetReport {
    /// The reason, or the assumption that flags it.
    pub reason: ReasonCode,
    /// As declared.
    pub budget: Budget,
    /// How many the window holds now.
    pub now: u64,
    /// Among how many.
    pub among: u64,
    /// The most that any window held, accepted or not.
    pub worst: u64,
    /// Set until an operator accepts it, also where the window is within the budget again.
    pub exceeded: Option<Exceeded>,
    /// When an operator last accepted that it was exceeded.
    pub accepted_at: Option<Timestamp>,
}

impl BudgetReport {
    /// `within`, `at its limit`, `exceeded`, or `any`.
    pub fn word(&self) -> &'static str {
        match self.budget.events_allowed() {
            _ if self.exceeded.is_some() => "exceeded",
            None if self.budget.limit == BudgetLimit::Any => "any",
            Some(allowed) if self.worst == allowed && allowed > 0 => "at its limit",
            _ => "within",
        }
    }

    /// Its JSON form.
    pub fn json(&self) -> Value {
        json!({
            "reason": self.reason.as_str(),
            "budget": self.budget.to_string(),
            "status": self.word(),
            "allowed": self.budget.events_allowed(),
            "now": self.now,
            "among": self.among,
            "worst": self.worst,
            "exceeded": self.exceeded.is_some(),
            "exceeded_at_position": self.exceeded.as_ref().map(|e| e.position.to_string()),
            "exceeded_at": self.exceeded.as_ref().map(|e| e.at.to_string()),
            "accepted_at": self.accepted_at.map(|at| at.to_string()),
        })
    }
}

/// When an operator resumed the flow, ascending: what was exceeded before is accepted.
pub fn acceptances(journal: &[(u64, JournalEntry)]) -> Vec<Timestamp> {
    let mut times: Vec<Timestamp> = journal
        .iter()
        .map(|(_, entry)| entry)
        .filter(|entry| entry.kind == JournalKind::Operator && entry.what == "resumed")
        .filter(|entry| entry.flow.is_some())
        .map(|entry| entry.at)
        .collect();
    times.sort_unstable();
    times
}

/// One reason while it is folded.
struct Fold {
    window: BudgetWindow,
    worst: u64,
    /// What the window held when it was accepted, until it is within the budget again.
    accepted_level: Option<u64>,
    accepted_at: Option<Timestamp>,
    exceeded: Option<Exceeded>,
}

impl Fold {
    fn new(budget: Budget) -> Self {
        Self {
            window: BudgetWindow::new(budget),
            worst: 0,
            accepted_level: None,
            accepted_at: None,
            exceeded: None,
        }
    }

    /// `first` is the ordinal of the run's first event in the fold, and where that event stands.
    fn observe(&mut self, hit: bool, count: u64, first: (u64, &Position), at: Timestamp) {
        self.window.observe(hit, count, at);
        let stand = self.window.stand();
        self.worst = self.worst.max(stand.now);
        if !stand.exceeded_now {
            self.accepted_level = None;
        }
        let Some(ordinal) = stand.exceeded_at else { return };
        if let Some(exceeded) = &mut self.exceeded {
            exceeded.worst = exceeded.worst.max(stand.now);
        } else if self.accepted_level.is_some_and(|level| stand.now <= level) {
            self.window.accept();
        } else {
            let mut position = first.1.clone();
            position.offset += ordinal.saturating_sub(first.0);
            self.exceeded = Some(Exceeded { position, at, worst: stand.now });
        }
    }

    fn accept(&mut self, at: Timestamp) {
        if self.exceeded.take().is_some() {
            let stand = self.window.stand();
            self.accepted_level = stand.exceeded_now.then_some(stand.now);
            self.accepted_at = Some(at);
            self.window.accept();
        }
    }
}

/// All budgets of a flow as one fold over its batches.
pub(crate) struct BudgetsFold {
    declared: BTreeMap<ReasonCode, Budget>,
    /// Reasons that occurred, and those over time, whose windows need every instant.
    folds: BTreeMap<ReasonCode, Fold>,
    acceptances: Vec<Timestamp>,
    accepted: usize,
    seen: u64,
}

impl BudgetsFold {
    /// A reason that occurs without being declared has the default budget.
    pub fn new(declared: &BTreeMap<ReasonCode, Budget>, acceptances: Vec<Timestamp>) -> Self {
        let over_time = |b: &&Budget| matches!(b.limit, BudgetLimit::PerTime { .. });
        let folds = declared
            .iter()
            .filter(|(_, b)| over_time(b))
            .map(|(code, budget)| (code.clone(), Fold::new(*budget)))
            .collect();
        Self { declared: declared.clone(), folds, acceptances, accepted: 0, seen: 0 }
    }

    /// Adds a batch, in the order decided.
    pub fn add(&mut self, batch: &StoredBatch) {
        let at = batch.header.decided_at;
        self.accept_before(at);
        for run in batch.runs.iter().filter(|run| !run.correction) {
            let count = run.to.saturating_sub(run.from);
            let first = batch.header.at.position(run.from);
            for code in run.fate.reason().map(|r| &r.code).into_iter().chain(&run.flags) {
                if !self.folds.contains_key(code) {
                    self.begin(code, &first, at);
                }
            }
            for (code, fold) in &mut self.folds {
                let hit = run.fate.reason().is_some_and(|r| r.code == *code) || run.flags.contains(code);
                fold.observe(hit, count, (self.seen, &first), at);
            }
            self.seen += count;
        }
    }

    /// A reason that occurs for the first time: everything before had it not.
    fn begin(&mut self, code: &ReasonCode, first: &Position, at: Timestamp) {
        let mut fold = Fold::new(self.declared.get(code).copied().unwrap_or(Budget::DEFAULT));
        if self.seen > 0 {
            fold.observe(false, self.seen, (0, first), at);
        }
        self.folds.insert(code.clone(), fold);
    }

    fn accept_before(&mut self, instant: Timestamp) {
        while let Some(&at) = self.acceptances.get(self.accepted).filter(|at| **at <= instant) {
            self.folds.values_mut().for_each(|fold| fold.accept(at));
            self.accepted += 1;
        }
    }

    /// How each declared or seen reason stands, by code.
    pub fn finish(mut self) -> Vec<BudgetReport> {
        self.accept_before(Timestamp(i64::MAX));
        let mut reports: BTreeMap<ReasonCode, BudgetReport> = BTreeMap::new();
        for (code, fold) in self.folds {
            let stand = fold.window.stand();
            let report = BudgetReport {
                reason: code.clone(),
                budget: fold.window.budget(),
                now: stand.now,
                among: stand.among,
                worst: fold.worst,
                exceeded: fold.exceeded,
                accepted_at: fold.accepted_at,
            };
            reports.insert(code, report);
        }
        for (code, budget) in self.declared {
            let among = match budget.limit {
                BudgetLimit::OfLast { events, .. } => self.seen.min(u64::from(events)),
                _ => self.seen,
            };
            let unseen = BudgetReport {
                reason: code.clone(),
                budget,
                now: 0,
                among,
                worst: 0,
                exceeded: None,
                accepted_at: None,
            };
            reports.entry(code).or_insert(unseen);
        }
        reports.into_values().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use recount_ledger::BatchHeader;
    use recount_ledger::store::Run;
    use recount_model::{ConfigVersion, Fate, FlowName, OffsetSet, Partition, PartitionId, Reason, SourceId};

    const ZERO: ReasonCode = ReasonCode::literal("zero_quantity");

    /// Batches of one run each, a second apart: (had the reason, how many).
    fn batches(runs: &[(bool, u64)]) -> Vec<StoredBatch> {
        let at = PartitionId {
            flow: FlowName::new("f").unwrap(),
            source: SourceId::new("s"),
            partition: Partition::new("p"),
        };
        let mut next = 0;
        let mut made = Vec::new();
        for (i, &(hit, count)) in runs.iter().enumerate() {
            let fate = if hit { Fate::Skipped(Reason::new(ZERO, "")) } else { Fate::Applied };
            let time = Timestamp(i as i64 * 1000);
            let run =
                Run { from: next, to: next + count, fate, flags: vec![], received: true, correction: false };
            next += count;
            let header = BatchHeader {
                at: at.clone(),
                epoch: 1,
                seq: i as u64 + 1,
                ordinal: i as u64 + 1,
                config: ConfigVersion(1),
                taken_at: time,
                decided_at: time,
                persisted_at: time,
                next_offset: next,
                decided_above: OffsetSet::new(),
            };
            made.push(StoredBatch { header, runs: vec![run], gaps: vec![] });
        }
        made
    }

    fn check(budget: &str, runs: &[(bool, u64)], accepted_at_ms: &[i64], expected: &str) {
        let declared = BTreeMap::from([(ZERO, Budget::parse(budget).unwrap())]);
        let accepted = accepted_at_ms.iter().map(|ms| Timestamp(*ms)).collect();
        let mut fold = BudgetsFold::new(&declared, accepted);
        batches(runs).iter().for_each(|batch| fold.add(batch));
        let report = &fold.finish()[0];
        let exceeded = report.exceeded.as_ref().map(|e| format!(" at {} {}", e.position, e.at.0));
        let told = format!(
            "{} now {} of {} worst {}{}",
            report.word(),
            report.now,
            report.among,
            report.worst,
            exceeded.unwrap_or_default()
        );
        assert_eq!(told, expected, "{budget} {runs:?}");
    }

    #[test]
    fn a_budget_at_its_limit_is_within_and_one_more_exceeds_it() {
        check("2% of 100", &[(false, 50)], &[], "within now 0 of 50 worst 0");
        check("2% of 100", &[(false, 50), (true, 2)], &[], "at its limit now 2 of 52 worst 2");
        check("2% of 100", &[(true, 2), (false, 98), (true, 1)], &[], "at its limit now 2 of 100 worst 2");
        check("2% of 100", &[(false, 50), (true, 3)], &[], "exceeded now 3 of 53 worst 3 at f/p/52 1000");
        check("2% of 100", &[(true, 9), (false, 500)], &[], "exceeded now 0 of 100 worst 9 at f/p/2 0");
        check("any", &[(true, 9)], &[], "any now 9 of 9 worst 9");
        check("50% per 10s", &[(false, 1), (true, 1)], &[], "within now 1 of 2 worst 1");
        check("50% per 10s", &[(false, 1), (true, 2)], &[], "exceeded now 2 of 3 worst 2 at f/p/2 1000");
    }

    #[test]
    fn an_exceeded_budget_stays_so_until_an_operator_accepts_it_later() {
        let runs = [(true, 3), (false, 10)];
        check("2% of 100", &runs, &[-1], "exceeded now 3 of 13 worst 3 at f/p/2 0");
        check("2% of 100", &runs, &[500], "within now 3 of 13 worst 3");
        check("2% of 100", &runs, &[9000], "within now 3 of 13 worst 3");
        let again = [(true, 3), (false, 10), (true, 1)];
        check("2% of 100", &again, &[500], "exceeded now 4 of 14 worst 4 at f/p/13 2000");
        let later = [(true, 3), (false, 200), (true, 3)];
        check("2% of 100", &later, &[500], "exceeded now 3 of 100 worst 3 at f/p/205 2000");
    }
}
