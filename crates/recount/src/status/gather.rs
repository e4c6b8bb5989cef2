//! From the books, the ledger and, where one runs, the instance to the answer.

use super::answer::{
    DeadLetterStatus, FlowStatus, LetterTopicStatus, ReasonStatus, StatementStatus, Status, Terms,
};
use super::{change, next};
use crate::config::{Config, FlowConfig};
use crate::exit::Failure;
use crate::wiring::audit::{AuditOptions, Live, PAUSED, count_again, tell_live, tell_paused};
use crate::wiring::letters::{standing, tell_letters};
use crate::wiring::{self, ledger_failure};
use recount_audit::render::{percent, shares};
use recount_audit::{AuditReport, FlowReport, Statement};
use recount_ledger::{DecisionFilter, JournalEntry, JournalKind, LedgerRead, LedgerReader, StoredConfig};
use recount_model::decide::AfterLast;
use recount_model::{Fate, FlowName, Timestamp, reason};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;

/// In a finding, so many names.
const NAMES_MAX: usize = 5;

/// The instance that answers.
#[derive(Debug, Clone)]
pub struct RunningInstance {
    /// Where it listens.
    pub address: String,
    /// Since when it runs.
    pub since: Timestamp,
    /// Its flows.
    pub flows: Vec<Live>,
}

/// Counts again, without reading every event, and puts the answer together. `instance` is given where the
/// process that asks is the one that runs the flows.
pub fn gather(config: &Config, instance: Option<&RunningInstance>) -> Result<Status, Failure> {
    let options = AuditOptions { identified: false, names_max: NAMES_MAX };
    let mut report = count_again(config, &[], options)?;
    tell_paused(config, &mut report)?;
    tell_letters(config, &mut report)?;
    let live = instance.map_or(&[][..], |instance| &instance.flows);
    tell_live(&mut report, live);
    let ledger = wiring::read_ledger(&config.ledger)?;
    let configs = ledger.configs().map_err(ledger_failure)?;
    let mut flows = Vec::with_capacity(report.flows.len());
    for audited in &report.flows {
        let Some(flow) = config.flow(audited.flow.as_str()) else { continue };
        let live = live.iter().find(|live| live.flow == audited.flow);
        flows.push(
            Gathered { config, ledger: &ledger, flow, audited, live, now: report.at }.status(&configs)?,
        );
    }
    let working = working(&report);
    let mut status = Status {
        recount: 1,
        command: "status".to_owned(),
        at: report.at.to_string(),
        exit_code: report.exit_code(),
        working,
        answer: String::new(),
        running: instance.is_some(),
        instance: instance.map(|instance| instance.address.clone()),
        running_since: instance.map(|instance| instance.since.to_string()),
        config_hash: config.hash(),
        notes: notes(config, instance, &configs),
        ledger_error: report.ledger_error.clone(),
        flows,
        next: Vec::new(),
    };
    status.answer = answer(&status);
    status.next = next::commands(&status, &report);
    Ok(status)
}

fn working(report: &AuditReport) -> Option<bool> {
    let flows: Vec<Option<bool>> = report.flows.iter().map(FlowReport::working).collect();
    if flows.contains(&Some(false)) {
        Some(false)
    } else if report.ledger_error.is_some() || flows.contains(&None) {
        None
    } else {
        Some(true)
    }
}

/// The one line that answers: working or not and why, then whether it runs.
fn answer(status: &Status) -> String {
    let running = if status.running { "running" } else { "not running" };
    let many = status.flows.len() > 1;
    let causes: Vec<String> = status
        .flows
        .iter()
        .flat_map(|flow| {
            let sentences = if status.working == Some(false) { &flow.not_working } else { &flow.not_known };
            let of = if many { format!("flow {}: ", flow.flow) } else { String::new() };
            sentences.iter().map(move |sentence| format!("{of}{sentence}"))
        })
        .chain(status.ledger_error.clone())
        .collect();
    let more = match causes.len() {
        0 | 1 => String::new(),
        n => format!(" (and {} more)", n - 1),
    };
    let why = causes.first().cloned().unwrap_or_default();
    match status.working {
        Some(true) => format!("working; {running}"),
        Some(false) => format!("not working: {why}{more}; {running}"),
        None => format!("can't say: {why}{more}; {running}"),
    }
}

fn notes(config: &Config, instance: Option<&RunningInstance>, configs: &[StoredConfig]) -> Vec<String> {
    let mut notes = Vec::new();
    if instance.is_none()
        && let Some(last) = configs.last()
        && last.hash != config.hash()
    {
        notes.push(format!(
            "{} is not as it was when a flow last ran (config {}): the next start makes it config {}",
            config.path.display(),
            last.version.0,
            last.version.0 + 1
        ));
    }
    notes
}

/// One flow, with everything that is known of it.
struct Gathered<'a> {
    config: &'a Config,
    ledger: &'a LedgerReader,
    flow: &'a FlowConfig,
    audited: &'a FlowReport,
    live: Option<&'a Live>,
    now: Timestamp,
}

impl Gathered<'_> {
    fn status(&self, configs: &[StoredConfig]) -> Result<FlowStatus, Failure> {
        let (audited, spec) = (self.audited, &self.flow.spec);
        let books = Terms::from(&audited.books.counts);
        let backlog = (books.published)
            .saturating_sub(books.decided + books.lost + books.not_an_event + books.unrecorded);
        let oldest_open = self.oldest_open(books.open);
        let age = |at: Timestamp| u64::try_from(self.now.0.saturating_sub(at.0)).unwrap_or(0);
        let paused = audited.not_working.iter().find_map(|sentence| sentence.strip_prefix(PAUSED));
        Ok(FlowStatus {
            flow: spec.flow.to_string(),
            owner: spec.owner.clone(),
            purpose: spec.purpose.clone(),
            running: self.live.is_some_and(|live| live.ended.is_none()),
            working: audited.working(),
            status: audited.status().word().to_owned(),
            not_working: audited.not_working.clone(),
            not_known: audited.not_known.clone(),
            published_known: audited.published_known,
            shares: shares(&audited.books),
            statements: audited.statements.iter().map(statement).collect(),
            reasons: reasons(audited),
            backlog: audited.published_known.then_some(backlog),
            oldest_open_at: oldest_open.map(|at| at.to_string()),
            oldest_open_age_ms: oldest_open.map(age),
            held: self.live.map(|live| live.counts.held.values().sum()),
            keys_held: self.keys_held()?,
            dead_letters: self.dead_letters()?,
            dead_letter_topic: standing(self.config, self.flow)?.map(LetterTopicStatus::from),
            paused: paused.map(|why| why.trim_start_matches(": ").to_owned()),
            group: audited.group.as_ref().map(recount_audit::GroupReport::json),
            last_decided_at: audited.last_decided_at.map(|at| at.to_string()),
            change: change::last_change(configs, spec.flow.as_str()),
            books,
        })
    }

    /// Known to the instance; without one it is as old as the last decision, at most.
    fn oldest_open(&self, open: u64) -> Option<Timestamp> {
        match self.live {
            Some(live) => live.counts.oldest_open.values().min().copied(),
            None => self.audited.last_decided_at.filter(|_| open > 0),
        }
    }

    fn decisions(
        &self,
        filter: &DecisionFilter,
        visit: &mut dyn FnMut(&recount_ledger::StoredDecision),
    ) -> Result<(), Failure> {
        let read = self.ledger.decisions(filter, &mut |stored| {
            visit(stored);
            ControlFlow::Continue(())
        });
        match read {
            // The audit has told it, and what could be read is shown.
            Err(recount_ledger::LedgerError::Corrupt(_)) => Ok(()),
            other => other.map_err(ledger_failure),
        }
    }

    fn dead_letters(&self) -> Result<Vec<DeadLetterStatus>, Failure> {
        let filter = DecisionFilter {
            flow: Some(self.flow.spec.flow.clone()),
            verdict: Some("dead-lettered".to_owned()),
            ..DecisionFilter::default()
        };
        let mut by_reason: BTreeMap<String, DeadLetterStatus> = BTreeMap::new();
        self.decisions(&filter, &mut |stored| {
            let Fate::DeadLettered(reason) = &stored.decision.fate else { return };
            let letter = by_reason.entry(reason.code.to_string()).or_insert_with(|| DeadLetterStatus {
                reason: reason.code.to_string(),
                events: 0,
                newest: String::new(),
                newest_at: String::new(),
            });
            letter.events += 1;
            letter.newest = stored.header.at.position(stored.decision.offset).to_string();
            letter.newest_at = stored.header.decided_at.to_string();
        })?;
        let mut letters: Vec<DeadLetterStatus> = by_reason.into_values().collect();
        letters.sort_by_key(|letter| std::cmp::Reverse(letter.events));
        Ok(letters)
    }

    /// With `after_last = "stay-held"`: keys whose last attempt failed since the flow was last resumed.
    fn keys_held(&self) -> Result<u64, Failure> {
        if self.flow.spec.retry.after_last != AfterLast::StayHeld {
            return Ok(0);
        }
        let journal = self.ledger.journal(Some(&self.flow.spec.flow)).map_err(ledger_failure)?;
        let filter = DecisionFilter {
            flow: Some(self.flow.spec.flow.clone()),
            verdict: Some("dead-lettered".to_owned()),
            reason: Some(reason::RETRIES_EXHAUSTED),
            from: resumed_at(&journal, &self.flow.spec.flow),
            ..DecisionFilter::default()
        };
        let mut keys = BTreeSet::new();
        self.decisions(&filter, &mut |stored| keys.extend(stored.decision.key.clone()))?;
        Ok(keys.len() as u64)
    }
}

fn resumed_at(journal: &[(u64, JournalEntry)], flow: &FlowName) -> Option<Timestamp> {
    let resumed = journal.iter().map(|(_, entry)| entry).filter(|entry| {
        entry.kind == JournalKind::Operator && entry.what == "resumed" && entry.flow.as_ref() == Some(flow)
    });
    resumed.map(|entry| entry.at).max()
}

fn statement(statement: &Statement) -> StatementStatus {
    let number = |side: fn(&(recount_audit::report::Side, recount_audit::report::Side)) -> String| {
        statement.sides.as_ref().map(side)
    };
    StatementStatus {
        equation: statement.equation.word().to_owned(),
        name: statement.name.clone(),
        status: statement.status.word().to_owned(),
        strength: statement.strength.word().to_owned(),
        left: number(|sides| sides.0.number.clone()),
        right: number(|sides| sides.1.number.clone()),
    }
}

/// Reasons that current decisions have, and those whose budget ever held one: the most frequent first.
fn reasons(audited: &FlowReport) -> Vec<ReasonStatus> {
    let budget_of = |code: &recount_model::ReasonCode| audited.budgets.iter().find(|b| b.reason == *code);
    let mut reasons: Vec<ReasonStatus> = Vec::new();
    for counted in audited.books.reasons() {
        let share = audited.books.percent_of_decided(counted.events);
        let budget = budget_of(&counted.reason);
        reasons.push(ReasonStatus {
            verdict: counted.verdict.to_owned(),
            reason: counted.reason.to_string(),
            events: counted.events,
            share_percent: share,
            share: percent(share),
            budget: budget.map(|b| b.budget.to_string()).unwrap_or_default(),
            budget_status: budget.map_or("any", |b| b.word()).to_owned(),
            allowed: budget.and_then(|b| b.budget.events_allowed()),
            worst: budget.map_or(0, |b| b.worst),
        });
    }
    for budget in audited.budgets.iter().filter(|budget| budget.worst > 0) {
        if reasons.iter().any(|reason| reason.reason == budget.reason.as_str()) {
            continue;
        }
        reasons.push(ReasonStatus {
            verdict: "corrected".to_owned(),
            reason: budget.reason.to_string(),
            events: 0,
            share_percent: 0.0,
            share: percent(0.0),
            budget: budget.budget.to_string(),
            budget_status: budget.word().to_owned(),
            allowed: budget.budget.events_allowed(),
            worst: budget.worst,
        });
    }
    let rank = |verdict: &str| {
        ["skipped", "dead-lettered", "corrected", "flagged"].iter().position(|v| *v == verdict)
    };
    reasons.sort_by_key(|reason| (rank(&reason.verdict), std::cmp::Reverse(reason.events)));
    reasons
}
