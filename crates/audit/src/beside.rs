//! E2 beside a consumer that Recount doesn't run: what ought to have happened, against what its database
//! holds. There is no cut between the two, so every difference has a time within which it is only open.

use crate::beside_ids;
use crate::books::PartitionFold;
use crate::effects::{Attested, EffectsSide, attest, away};
use crate::history::History;
use crate::inputs::{AuditInputs, FlowAudit};
use crate::names::first_of_range;
use crate::report::{Equation, Finding, Side, Statement, Strength, plural};
use crate::witness::WitnessError;
use recount_ledger::{LedgerError, StoredBatch};
use recount_model::budget::duration_text;
use recount_model::{BookStatus, Fate, Origin, ReasonCode, Timestamp, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

const NAME: &str = "ledger = effects";

/// What retention hides: effects of events whose decisions are no longer kept.
const DROPPED: &str = "decisions that left the ledger with retention are not looked for, and effects without a \
                       decision are not told";

/// Where the consumer's effects are seen.
#[derive(Clone, Copy)]
pub(crate) struct Seen<'a> {
    pub sql: &'a str,
    pub id: Option<&'a str>,
    pub within_ms: u64,
}

/// What comparing came to.
pub(crate) struct Compared {
    pub strength: Strength,
    /// Effects in the database.
    pub effects: u64,
    /// Worst first.
    pub findings: Vec<Finding>,
    /// What differs and can't be told apart.
    pub unprovable: Vec<Finding>,
    /// What is not a finding yet.
    pub open: Vec<String>,
    /// What can't be seen.
    pub blind: Vec<String>,
    /// The worst finding in words, for people who read one line.
    pub told: Option<String>,
}

/// How the differences of a flow are looked at.
pub(crate) struct Comparing<'a> {
    pub inputs: &'a AuditInputs<'a>,
    pub flow: &'a FlowAudit<'a>,
    pub side: &'a EffectsSide<'a>,
    pub seen: Seen<'a>,
    pub folds: &'a [PartitionFold],
    /// Applied decisions: what ought to be there.
    pub expected: i64,
}

impl Comparing<'_> {
    /// The code of an effect that ought to be there and isn't.
    pub fn missing_code(&self) -> ReasonCode {
        match self.flow.origin {
            Origin::Expected => reason::EXPECTED_EFFECT_MISSING,
            Origin::Reported | Origin::Ran => reason::EFFECTS_MISSING,
        }
    }

    /// Whether an effect may still be missing. Where the group is known, its own word counts: an event that it has
    /// not committed past is open, and one that it has is due `within` later. Else our decision's time counts.
    pub fn standing(&self, fold: usize, offset: u64, decided_at: Timestamp) -> Standing {
        let Some(group) = self.side.group else {
            return if self.has_time(decided_at) { Standing::HasTime } else { Standing::Due };
        };
        let at = &self.folds[fold].at;
        if offset >= group.committed(at) {
            Standing::NotCommitted
        } else if offset < group.due_below(at, self.inputs.now, self.seen.within_ms) {
            Standing::Due
        } else {
            Standing::HasTime
        }
    }

    /// Whether the consumer still has time for the effect of something decided then.
    pub fn has_time(&self, decided_at: Timestamp) -> bool {
        let within_ms = i64::try_from(self.seen.within_ms).unwrap_or(i64::MAX);
        self.inputs.now.0 < decided_at.0.saturating_add(within_ms)
    }

    /// Whether an event may be under way of which Recount knows nothing yet.
    pub fn may_be_ahead(&self) -> bool {
        let last = self.folds.iter().filter_map(|fold| fold.last_decided_at).max();
        self.side.undecided || last.is_none_or(|at| self.has_time(at))
    }

    /// What the group has done so far; it stands before everything else.
    fn group_told(&self) -> Option<String> {
        let group = self.side.group?;
        let published: u64 = self.folds.iter().map(|fold| fold.books.counts.published).sum();
        let lag: u64 = self.folds.iter().map(|fold| group.lag(&fold.at, fold.no_event_at_end)).sum();
        let committed = published.saturating_sub(lag);
        Some(format!("{published} published, {committed} committed by the group {}; ", group.group))
    }

    /// Events of which the group has not said that it is done with them.
    pub fn not_committed_yet(&self, count: u64) -> String {
        let group = self.side.group.map_or("", |group| group.group.as_str());
        format!("{count} not committed by the group {group} yet")
    }

    pub fn within(&self) -> String {
        duration_text(self.seen.within_ms)
    }

    pub fn has_dropped(&self) -> bool {
        self.folds.iter().any(|fold| !fold.dropped.is_empty())
    }

    /// What the flow expects, in words: `expected effects`, or of a consumer that reports, what it says.
    pub fn expected_effects(&self) -> &'static str {
        match self.flow.origin {
            Origin::Expected => "expected effects",
            Origin::Reported | Origin::Ran => "effects reported as applied",
        }
    }
}

/// How an event whose effect is not there stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Standing {
    /// The consumer has not said that it is done with it.
    NotCommitted,
    /// It may still come.
    HasTime,
    /// It ought to be there.
    Due,
}

/// E2, from what the arbiter attests, the ledger says and the consumer's database holds.
pub(crate) fn statement(
    comparing: &Comparing<'_>,
    history: Option<&History>,
) -> Result<Statement, LedgerError> {
    let attested = match attest(comparing.inputs, comparing.side, comparing.folds) {
        Ok(attested) => attested,
        Err(error) => return Ok(away(&error)),
    };
    let compared = match (comparing.seen.id, history) {
        (Some(id), Some(history)) => beside_ids::compare(comparing, id, history)?,
        (Some(_), None) => Err(WitnessError::Gone("the ledger's decisions can't be read to the end".into())),
        (None, _) if comparing.has_dropped() => Err(WitnessError::Gone(DROPPED.into())),
        (None, _) => in_total(comparing)?,
    };
    Ok(match compared {
        Ok(compared) => put_together(comparing, attested, compared),
        Err(error) => away(&error),
    })
}

fn put_together(comparing: &Comparing<'_>, attested: Attested, compared: Compared) -> Statement {
    let mut findings = attested.findings;
    findings.extend(compared.findings);
    let mut unprovable = attested.unprovable;
    unprovable.extend(compared.unprovable);
    let open: Vec<String> = attested.open.into_iter().chain(compared.open).collect();
    let status = if !findings.is_empty() {
        BookStatus::Imbalanced
    } else if !unprovable.is_empty() {
        BookStatus::Unprovable
    } else if !open.is_empty() {
        BookStatus::Open
    } else {
        BookStatus::Balanced
    };
    let is_told = compared.told.is_some();
    let mut sentence = comparing.group_told().unwrap_or_default();
    sentence.push_str(&compared.told.unwrap_or_else(|| {
        format!("{} {}, {} there", comparing.expected, comparing.expected_effects(), compared.effects)
    }));
    for part in &open {
        sentence.push_str(&format!("; {part}"));
    }
    if !is_told {
        let since = match comparing.side.group {
            Some(group) => format!("the group {} was seen past its event", group.group),
            None => "Recount has decided its event".to_owned(),
        };
        let within = comparing.within();
        sentence.push_str(&format!("; there is no cut: an effect may come up to {within} after {since}"));
    }
    for blind in &compared.blind {
        sentence.push_str(&format!("; {blind}"));
    }
    findings.extend(unprovable);
    let look = look(&findings);
    let sides =
        (Side::new(comparing.expected_effects(), comparing.expected), Side::new("effects", compared.effects));
    Statement {
        equation: Equation::E2,
        name: NAME.into(),
        status,
        strength: compared.strength,
        sides: Some(sides),
        sentence,
        findings,
        look,
    }
}

/// The story of the first that each finding names, where it is one of an event.
fn look(findings: &[Finding]) -> Vec<String> {
    let named = findings.iter().filter(|finding| finding.code != reason::EFFECTS_WITHOUT_DECISION);
    let first = named.filter_map(|finding| finding.names.first());
    let mut look: Vec<String> = first.map(|name| format!("recount story {}", first_of_range(name))).collect();
    if findings.iter().any(|finding| finding.count > finding.names.len() as u64 && !finding.names.is_empty())
    {
        look.push("recount audit --names 1000".to_owned());
    }
    look.dedup();
    look
}

type Outcome = Result<Result<Compared, WitnessError>, LedgerError>;

/// One total against another.
fn in_total(comparing: &Comparing<'_>) -> Outcome {
    let effects = match comparing.side.snapshot.custom_count(comparing.seen.sql) {
        Ok(effects) => effects,
        Err(error) => return Ok(Err(error)),
    };
    let NotDue { young, not_committed } = not_due(comparing)?;
    let expected = u64::try_from(comparing.expected).unwrap_or(0);
    let due = expected.saturating_sub(young);
    let which = "the query names no id, so which ones can't be told: write id = \"COLUMN\" in effects";
    let (mut findings, mut open, mut told) = (Vec::new(), Vec::new(), None);
    let mut find = |code, count, sentence: String| {
        told = Some(format!("{sentence}; {which}"));
        findings.push(Finding { code, sentence: which.to_owned(), names: Vec::new(), count, since: None });
    };
    if effects < due {
        let count = due - effects;
        let what = comparing.expected_effects();
        let atleast = if young > 0 { "at least " } else { "" };
        find(
            comparing.missing_code(),
            count,
            format!("{atleast}{count} of {expected} {what} are not in the database"),
        );
    } else if effects < expected {
        open.push(format!("{} not there yet", plural(expected - effects, "effect")));
        if not_committed > 0 {
            open.push(comparing.not_committed_yet(not_committed));
        }
    } else if effects > expected && comparing.may_be_ahead() {
        open.push(format!("{} of events that are not decided yet", plural(effects - expected, "effect")));
    } else if effects > expected {
        let count = effects - expected;
        find(
            reason::EFFECTS_WITHOUT_DECISION,
            count,
            format!("{} more than expected in the database", plural(count, "effect")),
        );
    }
    let blind = vec!["one left out and one there twice would cancel unseen".to_owned()];
    Ok(Ok(Compared {
        strength: Strength::TotalWithoutCut,
        effects,
        findings,
        unprovable: Vec::new(),
        open,
        blind,
        told,
    }))
}

/// Applied decisions whose effects need not be there yet.
#[derive(Default)]
struct NotDue {
    young: u64,
    /// Of those, how many the group has not committed past.
    not_committed: u64,
}

fn not_due(comparing: &Comparing<'_>) -> Result<NotDue, LedgerError> {
    let mut not_due = NotDue::default();
    let mut bounds = BTreeMap::new();
    for (fold, group) in comparing.folds.iter().filter_map(|fold| Some((fold, comparing.side.group?))) {
        let due_below = group.due_below(&fold.at, comparing.inputs.now, comparing.seen.within_ms);
        bounds.insert(&fold.at, (due_below, group.committed(&fold.at)));
    }
    comparing.inputs.ledger.batches(Some(&comparing.flow.flow), &mut |batch: &StoredBatch| {
        let (due_below, committed) = match comparing.side.group {
            Some(_) => bounds.get(&batch.header.at).copied().unwrap_or((0, 0)),
            None if comparing.has_time(batch.header.decided_at) => (0, u64::MAX),
            None => (u64::MAX, u64::MAX),
        };
        for run in batch.runs.iter().filter(|run| run.fate == Fate::Applied) {
            not_due.young += run.to.saturating_sub(run.from.max(due_below));
            not_due.not_committed += run.to.saturating_sub(run.from.max(committed));
        }
        ControlFlow::Continue(())
    })?;
    Ok(not_due)
}
