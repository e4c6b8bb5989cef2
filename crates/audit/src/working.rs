//! Whether a flow is working: balanced books are only the first condition.

use crate::books::PartitionFold;
use crate::budgets::BudgetReport;
use crate::inputs::FlowAudit;
use crate::report::{Statement, plural};
use recount_ledger::{JournalEntry, JournalKind, StoredBatch};
use recount_model::budget::duration_text;
use recount_model::{BookStatus, Budget, BudgetLimit, Fate, Origin, ReasonCode, Timestamp};
use std::collections::{BTreeMap, VecDeque};

/// How far back "effects happen while there is input" looks, in events.
const INPUT_EVENTS: u64 = 1000;

/// Whether anything was applied among the last events that were input: decided, and not left out for a
/// reason whose budget is `any`. A fold over batches; memory: at most one entry an event looked at.
pub(crate) struct InputFold {
    unbounded: Vec<ReasonCode>,
    recent: VecDeque<(bool, u64)>,
    events: u64,
    applied: u64,
    last_taken_at: Option<Timestamp>,
}

impl InputFold {
    pub fn new(budgets: &BTreeMap<ReasonCode, Budget>) -> Self {
        let unbounded = budgets.iter().filter(|(_, budget)| budget.limit == BudgetLimit::Any);
        Self {
            unbounded: unbounded.map(|(code, _)| code.clone()).collect(),
            recent: VecDeque::new(),
            events: 0,
            applied: 0,
            last_taken_at: None,
        }
    }

    pub fn add(&mut self, batch: &StoredBatch) {
        for run in &batch.runs {
            if run.correction && run.fate != Fate::Applied {
                // Still not applied: it was counted when it came in.
                continue;
            }
            self.last_taken_at = self.last_taken_at.max(Some(batch.header.taken_at));
            let applied = match &run.fate {
                Fate::Applied => true,
                Fate::Skipped(reason) if self.unbounded.contains(&reason.code) => continue,
                Fate::Skipped(_) | Fate::DeadLettered(_) => false,
            };
            self.push(applied, run.to.saturating_sub(run.from));
        }
    }

    fn push(&mut self, applied: bool, count: u64) {
        match self.recent.back_mut() {
            Some(last) if last.0 == applied => last.1 += count,
            _ => self.recent.push_back((applied, count)),
        }
        self.events += count;
        self.applied += if applied { count } else { 0 };
        while self.events > INPUT_EVENTS {
            let Some(first) = self.recent.front_mut() else { return };
            let gone = first.1.min(self.events - INPUT_EVENTS);
            first.1 -= gone;
            self.events -= gone;
            self.applied -= if first.0 { gone } else { 0 };
            if first.1 == 0 {
                self.recent.pop_front();
            }
        }
    }
}

/// What is to be judged.
pub(crate) struct Judged<'a> {
    pub flow: &'a FlowAudit<'a>,
    pub folds: &'a [PartitionFold],
    pub statements: &'a [Statement],
    pub budgets: &'a [BudgetReport],
    pub input: &'a InputFold,
    pub journal: &'a [(u64, JournalEntry)],
    pub now: Timestamp,
}

/// The sentences that say why a flow is not working, and what would have to be known to say that it is.
pub(crate) fn judge(judged: &Judged<'_>) -> (Vec<String>, Vec<String>) {
    let mut not_working = Vec::new();
    let mut not_known = Vec::new();
    for statement in judged.statements {
        let (equation, name) = (statement.equation.word(), &statement.name);
        match statement.status {
            BookStatus::Imbalanced => {
                not_working.push(format!("{equation} {name} is imbalanced: {}", statement.sentence));
            }
            BookStatus::Unprovable => {
                not_known.push(format!("{equation} {name} is unprovable: {}", statement.sentence));
            }
            BookStatus::Open | BookStatus::Balanced => {}
        }
    }
    not_working.extend(open_too_long(judged));
    not_working.extend(waits_for_acceptance(judged));
    let input = judged.input;
    if input.events > 0 && input.applied == 0 {
        not_working.push(match judged.flow.origin {
            Origin::Expected => format!("none of the last {} events was to have an effect", input.events),
            Origin::Reported => format!("none of the last {} events was reported as applied", input.events),
            Origin::Ran => format!("none of the last {} events had an effect", input.events),
        });
    }
    for budget in judged.budgets {
        if let Some(exceeded) = &budget.exceeded {
            not_working.push(format!(
                "{} exceeded its budget of {}: {} at most in a window, first at {} ({})",
                budget.reason, budget.budget, exceeded.worst, exceeded.position, exceeded.at
            ));
        }
    }
    not_working.extend(silent(judged));
    (not_working, not_known)
}

fn age_ms(now: Timestamp, at: Timestamp) -> u64 {
    u64::try_from(now.0.saturating_sub(at.0)).unwrap_or(0)
}

/// The age of what is open is not known to any witness; it is at most as old as the partition's last
/// decision, or, where nothing was decided yet, as the flow, so that is what is told.
fn open_too_long(judged: &Judged<'_>) -> Option<String> {
    let allowed = judged.flow.open_allowed_ms;
    let since = |fold: &PartitionFold| fold.last_decided_at.or(judged.flow.began);
    let open: Vec<&PartitionFold> = judged
        .folds
        .iter()
        .filter(|fold| fold.books.counts.open > 0)
        .filter(|fold| since(fold).is_some_and(|at| age_ms(judged.now, at) > allowed))
        .collect();
    let oldest = open.iter().filter_map(|fold| since(fold)).min()?;
    let positions: u64 = open.iter().map(|fold| fold.books.counts.open).sum();
    Some(format!(
        "{} open and nothing decided there since {oldest}; {} is allowed{}",
        plural(positions, "position"),
        duration_text(allowed),
        match judged.flow.origin {
            Origin::Reported =>
                "; the consumer reports nothing more: see whether it runs, and whether its posts to /v1/decisions are answered 200",
            Origin::Ran | Origin::Expected => "",
        }
    ))
}

fn waits_for_acceptance(judged: &Judged<'_>) -> Vec<String> {
    let accepted = |words: &[&str]| {
        let operators = judged.journal.iter().map(|(_, entry)| entry).filter(|entry| {
            entry.kind == JournalKind::Operator
                && entry.flow.is_some()
                && words.contains(&entry.what.as_str())
        });
        operators.map(|entry| entry.at).max()
    };
    let mut waiting = Vec::new();
    let lost: u64 = judged.folds.iter().map(|fold| fold.books.counts.lost).sum();
    let lost_at = judged.folds.iter().filter_map(|fold| fold.lost_at).max();
    if lost > 0 && accepted(&["accepted", "resumed"]) < lost_at {
        waiting.push(format!("{} lost, and nobody has accepted it", plural(lost, "position")));
    }
    let unreported: u64 = judged.folds.iter().map(|fold| fold.unreported_waiting.count()).sum();
    if unreported > 0 {
        let were = if unreported == 1 { "was" } else { "were" };
        waiting.push(format!(
            "{} {were} committed and not reported, and nobody has accepted it; when it is known what became of them: \
             recount resume {} --because …",
            plural(unreported, "position"),
            judged.flow.flow
        ));
    }
    let without_record =
        |fold: &PartitionFold| fold.books.counts.unrecorded.saturating_sub(fold.unreported.count());
    let unrecorded: u64 = judged.folds.iter().map(without_record).sum();
    let unrecorded_at = judged.folds.iter().filter_map(|fold| fold.unrecorded_at).max();
    let accepted_at = accepted(&["accepted", "resumed"]);
    // What left the ledger with retention has no time any more: then any acceptance counts.
    let is_accepted = accepted_at.is_some() && unrecorded_at <= accepted_at;
    // Adopting comes before the range is recorded, and is the acceptance.
    if unrecorded > 0 && !is_accepted && accepted(&["adopted"]).is_none() {
        waiting.push(format!("{} unrecorded, and nobody has accepted it", plural(unrecorded, "position")));
    }
    waiting
}

fn silent(judged: &Judged<'_>) -> Option<String> {
    let allowed = judged.flow.silence_allowed_ms?;
    let Some(last) = judged.input.last_taken_at else {
        return Some(format!("no event ever came; one is expected every {}", duration_text(allowed)));
    };
    (age_ms(judged.now, last) > allowed)
        .then(|| format!("no event came since {last}; one is expected every {}", duration_text(allowed)))
}
