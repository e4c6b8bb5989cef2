//! The audit in sentences, for people.

use crate::beside_group::GroupWord;
use crate::beside_report::GroupReport;
use crate::books::Books;
use crate::budgets::BudgetReport;
use crate::report::{AuditReport, Finding, FlowReport, Statement};
use recount_model::Origin;
use std::fmt::Write;

/// How wide names of statements are set.
const STATUS_WIDTH: usize = 11;

/// So many partitions of an observed group are told one by one.
const PARTITIONS_MAX: usize = 12;

/// An audit as text. The shares of skipped and dead-lettered stand beside every "balanced".
pub fn text(report: &AuditReport) -> String {
    let mut out = String::new();
    for flow in &report.flows {
        flow_text(&mut out, flow);
        out.push('\n');
    }
    if let Some(error) = &report.ledger_error {
        let _ = writeln!(out, "the ledger could not be read to the end: {error}");
    }
    out
}

fn flow_text(out: &mut String, flow: &FlowReport) {
    let verdict = match flow.working() {
        Some(true) => "working",
        Some(false) => "not working",
        None => "can't be said to work",
    };
    let status = flow.status().word();
    let _ = writeln!(out, "flow {}: {status}, {}; {verdict}", flow.flow, shares(&flow.books));
    for sentence in &flow.not_working {
        let _ = writeln!(out, "  not working: {sentence}");
    }
    for sentence in &flow.not_known {
        let _ = writeln!(out, "  not known: {sentence}");
    }
    out.push('\n');
    books_text(out, flow);
    out.push('\n');
    for statement in &flow.statements {
        statement_text(out, statement, &flow.books);
    }
    if let Some(group) = &flow.group {
        group_text(out, group);
    }
    budgets_text(out, &flow.budgets);
}

/// `0.5% skipped, 0.8% dead-lettered`.
pub fn shares(books: &Books) -> String {
    let share = |events| percent(books.percent_of_decided(events));
    format!("{} skipped, {} dead-lettered", share(books.counts.skipped), share(books.counts.dead_lettered))
}

/// Two decimals, but something that is there never reads as nothing.
pub fn percent(share: f64) -> String {
    if share > 0.0 && share < 0.01 { "under 0.01%".to_owned() } else { format!("{share:.2}%") }
}

fn books_text(out: &mut String, flow: &FlowReport) {
    let counts = &flow.books.counts;
    let known = if flow.published_known { "" } else { "   (as far as the ledger knows)" };
    let _ = writeln!(out, "  published      {:>12}{known}", counts.published);
    let whose = match flow.origin {
        Origin::Ran => "",
        Origin::Reported => "   (as the consumer reported)",
        Origin::Expected => "   (ought to be: the consumer is only observed)",
    };
    let _ = writeln!(out, "  {:<14} {:>12}{whose}", "applied", counts.applied);
    let _ = writeln!(out, "  {:<14} {:>12}", "skipped", counts.skipped);
    reasons_text(out, flow, "skipped");
    let _ = writeln!(out, "  {:<14} {:>12}", "dead-lettered", counts.dead_lettered);
    reasons_text(out, flow, "dead-lettered");
    for (word, count) in [
        ("lost", counts.lost),
        ("not-an-event", counts.not_an_event),
        ("unrecorded", counts.unrecorded),
        ("open", counts.open),
    ] {
        if count > 0 {
            let _ = writeln!(out, "  {word:<14} {count:>12}");
        }
    }
    let _ = writeln!(out, "  {:<14} {:>12}", "unexplained", counts.unexplained());
    for flag in flow.books.reasons().iter().filter(|r| r.verdict == "flagged") {
        let _ = writeln!(out, "  flagged        {:>12}  {}", flag.events, flag.reason);
    }
}

fn reasons_text(out: &mut String, flow: &FlowReport, verdict: &str) {
    for reason in flow.books.reasons().iter().filter(|r| r.verdict == verdict) {
        let share = percent(flow.books.percent_of_decided(reason.events));
        let _ = writeln!(out, "    {:<28} {:>12}  {share}", reason.reason.as_str(), reason.events);
    }
}

fn statement_text(out: &mut String, statement: &Statement, books: &Books) {
    let (equation, status) = (statement.equation.word(), statement.status.word());
    let _ = writeln!(
        out,
        "  {equation} {status:<STATUS_WIDTH$} {} [{}]; {}",
        statement.name,
        statement.strength.word(),
        shares(books)
    );
    let _ = writeln!(out, "     {}", statement.sentence);
    if let Some((left, right)) = &statement.sides {
        let sign = if left.number == right.number { "=" } else { "|" };
        let _ = writeln!(out, "     {} {} {sign} {} {}", left.number, left.what, right.number, right.what);
    }
    for finding in &statement.findings {
        finding_text(out, finding);
    }
    for command in &statement.look {
        let _ = writeln!(out, "     look: {command}");
    }
}

fn group_text(out: &mut String, group: &GroupReport) {
    let _ = writeln!(out, "  {}", group.sentence());
    let uneven = group.partitions.iter().filter(|partition| partition.status != GroupWord::Ok);
    for partition in uneven.take(PARTITIONS_MAX) {
        let (name, status) = (&partition.at.partition, partition.status.word());
        let committed = partition.committed.map_or("nothing".to_owned(), |offset| offset.to_string());
        let (end, lag) = (partition.end, partition.lag);
        let _ =
            writeln!(out, "     partition {name:<6} {status:<8} committed {committed} of {end}, lag {lag}");
    }
    for moved in &group.moves {
        let _ = writeln!(out, "     {} {}", moved.at, moved.sentence(&group.group));
    }
}

fn finding_text(out: &mut String, finding: &Finding) {
    let since = finding.since.map(|at| format!(", since {at}")).unwrap_or_default();
    let _ = writeln!(out, "     {} ({}{since}): {}", finding.code, finding.count, finding.sentence);
    for name in &finding.names {
        let _ = writeln!(out, "       {name}");
    }
    let told = finding.names.len() as u64;
    if told > 0 && finding.count > told && !finding.names.iter().any(|name| is_range(name)) {
        let _ = writeln!(out, "       and {} more", finding.count - told);
    }
}

/// A range stands for several positions, so "and more" could not be counted by names.
fn is_range(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|offsets| offsets.contains('-'))
}

fn budgets_text(out: &mut String, budgets: &[BudgetReport]) {
    for budget in budgets.iter().filter(|b| b.worst > 0) {
        let _ = write!(
            out,
            "  budget {:<26} {:<12} {}: {} of {}, {} at worst",
            budget.reason.as_str(),
            budget.word(),
            budget.budget,
            budget.now,
            budget.among,
            budget.worst
        );
        if let Some(exceeded) = &budget.exceeded {
            let _ = write!(out, "; first at {} ({})", exceeded.position, exceeded.at);
        }
        if let Some(at) = budget.accepted_at {
            let _ = write!(out, "; accepted {at}");
        }
        out.push('\n');
    }
}
