//! E3: the user's own equations between events and business.

use crate::books::PartitionFold;
use crate::history::{GROUPS_MAX, LeftSums};
use crate::inputs::{AuditInputs, FlowAudit, ReconcileAudit, ReconcileOf};
use crate::report::{Equation, Finding, Side, Statement, Strength, plural};
use crate::witness::{EffectSnapshot, WitnessError};
use recount_model::{Amount, BookStatus, Timestamp, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// The right side as told by the database.
struct Right {
    total: Amount,
    groups: BTreeMap<Box<str>, Amount>,
    too_many_groups: bool,
}

/// One group whose sides differ.
struct Differing {
    group: Box<str>,
    left: Amount,
    right: Amount,
}

/// E3 for one reconcile. `snapshot` shows the instant of the folds' cut, where there is one.
/// `ledger_is_behind` is what E2 comes to where the snapshot has batches that the ledger lacks.
pub(crate) fn statement(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    reconcile: &ReconcileAudit<'_>,
    left: &LeftSums,
    snapshot: Option<&dyn EffectSnapshot>,
    folds: &[PartitionFold],
    ledger_is_behind: Option<BookStatus>,
) -> Statement {
    let has_cut = reconcile.witness.is_none() && folds.iter().all(|fold| fold.cut.effect_seq.is_some());
    let right = match (reconcile.witness, snapshot) {
        (Some(witness), _) => witness.snapshot().and_then(|snapshot| ask(&*snapshot, reconcile)),
        (None, Some(snapshot)) => ask(snapshot, reconcile),
        (None, None) => Err(WitnessError::Gone("no database is declared for its right side".into())),
    };
    match right {
        Ok(_) if has_cut && ledger_is_behind.is_some() => Statement {
            status: ledger_is_behind.unwrap_or(BookStatus::Unprovable),
            ..unprovable(
                reconcile,
                "the database is ahead of the ledger, so there is no instant that both sides show".into(),
            )
        },
        Ok(right) => compare(inputs, flow, reconcile, left, &right, has_cut, folds),
        Err(error) => unprovable(reconcile, format!("the right side can't be had: {error}")),
    }
}

/// E3 where one side can't be told.
pub(crate) fn unprovable(reconcile: &ReconcileAudit<'_>, sentence: String) -> Statement {
    Statement {
        equation: Equation::E3,
        name: reconcile.name.clone(),
        status: BookStatus::Unprovable,
        strength: Strength::None,
        sides: None,
        sentence,
        findings: Vec::new(),
        look: Vec::new(),
    }
}

fn ask(snapshot: &dyn EffectSnapshot, reconcile: &ReconcileAudit<'_>) -> Result<Right, WitnessError> {
    let mut right = Right { total: Amount::ZERO, groups: BTreeMap::new(), too_many_groups: false };
    snapshot.reconcile(&reconcile.sql, reconcile.by_group, &mut |group, amount| {
        right.total = right.total.plus(amount);
        let Some(group) = group else { return ControlFlow::Continue(()) };
        if let Some(sum) = right.groups.get_mut(group) {
            *sum = sum.plus(amount);
        } else if right.groups.len() < GROUPS_MAX {
            right.groups.insert(group.into(), amount);
        } else {
            right.too_many_groups = true;
        }
        ControlFlow::Continue(())
    })?;
    Ok(right)
}

fn compare(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    reconcile: &ReconcileAudit<'_>,
    left: &LeftSums,
    right: &Right,
    has_cut: bool,
    folds: &[PartitionFold],
) -> Statement {
    let expected = left.expected(&reconcile.less);
    let difference = right.total.minus(expected);
    let differing = if reconcile.by_group { differing_groups(reconcile, left, right) } else { Vec::new() };
    let total_differs = difference.abs() > reconcile.tolerance;
    let differs = total_differs || !differing.is_empty();
    let last = folds.iter().filter_map(|fold| fold.last_decided_at).max();
    let may_still_come = !has_cut
        && last.is_some_and(|Timestamp(at)| {
            inputs.now.0.saturating_sub(at) < i64::try_from(reconcile.within_ms).unwrap_or(i64::MAX)
        });
    let dropped: u64 = folds.iter().map(|fold| fold.dropped.count()).sum();
    let incomplete = match incomplete(left, right, dropped) {
        None if !total_differs && !differing.is_empty() && left.ungrouped > 0 => {
            Some(format!("{} decisions name no group: without a key, or forgotten", left.ungrouped))
        }
        other => other,
    };
    let status = match (differs, incomplete.is_some()) {
        (_, true) => BookStatus::Unprovable,
        (true, false) if may_still_come => BookStatus::Open,
        (true, false) => BookStatus::Imbalanced,
        (false, false) => BookStatus::Balanced,
    };
    let mut sentence = equation(reconcile, left, right);
    if let Some(incomplete) = incomplete {
        sentence.push_str(&format!("; {incomplete}"));
    }
    if left.without_amount > 0 {
        sentence.push_str(&format!("; {} decisions have no amount and count as 0", left.without_amount));
    }
    if !has_cut {
        sentence.push_str(&format!(
            "; there is no cut, so the sides may differ for {} s after a decision",
            reconcile.within_ms / 1000
        ));
    }
    let mut findings = Vec::new();
    if differs && status == BookStatus::Imbalanced {
        findings.push(finding(inputs, flow, reconcile, difference, differing));
    }
    let look = look(flow, &findings);
    Statement {
        equation: Equation::E3,
        name: reconcile.name.clone(),
        status,
        strength: if has_cut { Strength::OneCut } else { Strength::NoCut },
        sides: Some((Side::new("by the events", expected), Side::new("by the database", right.total))),
        sentence,
        findings,
        look,
    }
}

/// `received = left the stock + refused, by reason`, with the numbers.
fn equation(reconcile: &ReconcileAudit<'_>, left: &LeftSums, right: &Right) -> String {
    let word = match reconcile.of {
        ReconcileOf::Received => "received",
        ReconcileOf::Applied => "applied",
    };
    let refused: Vec<String> = reconcile
        .less
        .iter()
        .map(|code| (code, left.by_reason.get(code).copied().unwrap_or_default()))
        .map(|(code, amount)| format!(" + {amount} {code}"))
        .collect();
    let difference = left.expected(&reconcile.less).minus(right.total);
    let unexplained = match difference {
        Amount::ZERO => String::new(),
        more if more > Amount::ZERO => format!(" + {more} unexplained"),
        less => format!(" - {} unexplained", less.abs()),
    };
    format!(
        "{} {word} in {} events = {} in the database{}{unexplained}",
        left.total,
        left.events,
        right.total,
        refused.concat()
    )
}

/// Why the sums do not cover everything.
fn incomplete(left: &LeftSums, right: &Right, dropped: u64) -> Option<String> {
    if dropped > 0 {
        Some(format!("{dropped} decisions left the ledger with retention, and their amounts with them"))
    } else if left.unmeasured > 0 {
        Some(format!("{} decisions are from before the reconcile was declared", left.unmeasured))
    } else if left.too_many_groups || right.too_many_groups {
        Some(format!("there are more than {GROUPS_MAX} groups: leave `by` out"))
    } else {
        None
    }
}

/// The groups that differ by more than the tolerance, the largest difference first.
fn differing_groups(reconcile: &ReconcileAudit<'_>, left: &LeftSums, right: &Right) -> Vec<Differing> {
    let mut differing = Vec::new();
    let mut look_at = |group: &str, left: Amount, right: Amount| {
        if left.minus(right).abs() > reconcile.tolerance {
            differing.push(Differing { group: group.into(), left, right });
        }
    };
    for (group, amount) in &left.groups {
        look_at(group, *amount, right.groups.get(group).copied().unwrap_or_default());
    }
    for (group, amount) in right.groups.iter().filter(|(group, _)| !left.groups.contains_key(*group)) {
        look_at(group, Amount::ZERO, *amount);
    }
    differing.sort_by_key(|d| (std::cmp::Reverse(d.left.minus(d.right).abs()), d.group.clone()));
    differing
}

fn finding(
    inputs: &AuditInputs<'_>,
    flow: &FlowAudit<'_>,
    reconcile: &ReconcileAudit<'_>,
    difference: Amount,
    differing: Vec<Differing>,
) -> Finding {
    let signed = |amount: Amount| {
        if amount > Amount::ZERO { format!("+{amount}") } else { amount.to_string() }
    };
    let count = differing.len() as u64;
    let names = differing
        .iter()
        .take(inputs.names_max)
        .map(|d| {
            let group = if flow.groups_are_secret { "(group is secret)" } else { &d.group };
            let off = signed(d.right.minus(d.left));
            format!("{group}: {off} (database {}, events {})", d.right, d.left)
        })
        .collect();
    let sentence = if count > 0 {
        format!("{} off, {} in all", plural(count, "group"), signed(difference))
    } else {
        format!("the database differs by {} from what the events say", signed(difference))
    };
    let sentence = if reconcile.tolerance == Amount::ZERO {
        sentence
    } else {
        format!("{sentence}; {} is tolerated", reconcile.tolerance)
    };
    Finding { code: reason::RECONCILE_DIFFERS, sentence, names, count: count.max(1), since: None }
}

fn look(flow: &FlowAudit<'_>, findings: &[Finding]) -> Vec<String> {
    let first = findings.iter().find_map(|finding| finding.names.first());
    match first.filter(|_| !flow.groups_are_secret) {
        Some(name) => {
            let group = name.rsplit_once(": ").map_or(name.as_str(), |(group, _)| group);
            vec![format!("recount story {group}")]
        }
        None if !findings.is_empty() => vec!["recount audit --json --names 100".to_owned()],
        None => Vec::new(),
    }
}
