//! Compares what Recount says of the inventory example with the independent account of it.

use crate::inventory::{Orders, Recount};
use crate::orders::Expected;
use crate::shop;
use anyhow::{Context, Result};
use serde_json::Value;
use std::collections::HashMap;

/// At most so many differences are told of one kind.
const TOLD_MAX: usize = 10;

/// Everything that differs in database, ledger and audit; empty where all of it holds.
pub fn all(recount: &Recount, orders: &Orders) -> Result<Vec<String>> {
    let shop = recount.folder.join("shop.db");
    let mut faults = shortened(shop::differences(&shop, &orders.lines, &orders.account, &orders.stock)?);
    faults.extend(shortened(decisions(recount, orders)?));
    faults.extend(shortened(audit(recount, orders)?));
    Ok(faults)
}

/// The first of them, and how many more there are.
pub fn shortened(mut faults: Vec<String>) -> Vec<String> {
    if faults.len() > TOLD_MAX {
        let left_out = faults.len() - TOLD_MAX;
        faults.truncate(TOLD_MAX);
        faults.push(format!("… and {left_out} more of the kind"));
    }
    faults
}

/// Exactly one current decision a position, and the right one.
fn decisions(recount: &Recount, orders: &Orders) -> Result<Vec<String>> {
    let export = recount.run(&["ledger", "export", "--config", "recount.toml"])?;
    let export = export.expect_success("recount ledger export")?;
    let mut found: HashMap<i64, Vec<(String, String)>> = HashMap::new();
    for line in export.stdout.lines() {
        let decision: Value = serde_json::from_str(line).with_context(|| format!("not JSON: {line}"))?;
        let offset = decision["offset"].as_i64().with_context(|| format!("no offset: {line}"))?;
        let text = |name: &str| decision[name].as_str().unwrap_or_default().to_owned();
        found.entry(offset).or_default().push((text("verdict"), text("reason")));
    }
    let mut faults = Vec::new();
    for (order, fate) in orders.lines.iter().zip(&orders.account.fates) {
        let found = found.remove(&order.offset).unwrap_or_default();
        let expected = (fate.verdict().to_owned(), fate.reason().to_owned());
        if found != [expected] {
            faults.push(format!(
                "line {}: must be {fate:?}, its current decisions are {found:?}",
                order.offset
            ));
        }
    }
    if !found.is_empty() {
        faults.push(format!("{} positions decided that the file doesn't have", found.len()));
    }
    Ok(faults)
}

/// `recount audit` says balanced, with the right counts.
fn audit(recount: &Recount, orders: &Orders) -> Result<Vec<String>> {
    let finished = recount.run(&["audit", "recount.toml", "--json"])?;
    let report = finished.json()?;
    let flow = &report["flows"][0];
    let books = &flow["books"];
    let mut expected = HashMap::from([("published", orders.lines.len() as u64), ("unexplained", 0)]);
    for word in ["lost", "not-an-event", "unrecorded", "open"] {
        expected.insert(word, 0);
    }
    for fate in Expected::ALL {
        *expected.entry(fate.verdict()).or_default() += orders.account.count(fate);
    }
    let mut faults = unlike(flow, expected);
    faults.extend(reasons(books, orders));
    Ok(faults)
}

/// What is wrong with a flow that an audit must find balanced, with these terms of the law.
pub fn unlike<'w>(flow: &Value, expected: impl IntoIterator<Item = (&'w str, u64)>) -> Vec<String> {
    let mut faults = Vec::new();
    if flow["status"] != "balanced" {
        let statements = flow["statements"].as_array().map(Vec::as_slice).unwrap_or_default();
        let odd = statements.iter().filter(|statement| statement["status"] != "balanced");
        let odd: Vec<&str> = odd.filter_map(|statement| statement["sentence"].as_str()).collect();
        faults.push(format!("audit says {}, must be balanced: {}", flow["status"], odd.join("; ")));
    }
    let books = &flow["books"];
    for (word, number) in expected {
        if books[word] != number {
            faults.push(format!("audit counts {} {word}, must be {number}", books[word]));
        }
    }
    faults
}

fn reasons(books: &Value, orders: &Orders) -> Vec<String> {
    let mut expected: HashMap<(&str, &str), u64> =
        HashMap::from([(("flagged", "bulk_order"), orders.account.bulk)]);
    for fate in Expected::ALL.into_iter().filter(|fate| *fate != Expected::Applied) {
        expected.insert((fate.verdict(), fate.reason()), orders.account.count(fate));
    }
    let listed = books["reasons"].as_array().map(Vec::as_slice).unwrap_or_default();
    let counted = |verdict: &str, reason: &str| {
        let same = |entry: &&Value| entry["verdict"] == verdict && entry["reason"] == reason;
        listed.iter().find(same).and_then(|entry| entry["events"].as_u64()).unwrap_or(0)
    };
    let mut faults: Vec<String> = expected
        .iter()
        .filter(|((verdict, reason), number)| counted(verdict, reason) != **number)
        .map(|((verdict, reason), number)| {
            format!("audit counts {} {verdict} {reason}, must be {number}", counted(verdict, reason))
        })
        .collect();
    for entry in listed {
        let (verdict, reason) = (entry["verdict"].as_str(), entry["reason"].as_str());
        let known = verdict.zip(reason).is_some_and(|both| expected.contains_key(&both));
        if !known && entry["events"] != 0 {
            faults.push(format!(
                "audit counts {} {verdict:?} {reason:?}, which the rules don't have",
                entry["events"]
            ));
        }
    }
    faults
}

/// The counts that stand in an OpenMetrics text.
pub fn metrics(text: &str, orders: &Orders) -> Vec<String> {
    let count = |verdict: &str, reason: &str| -> u64 {
        let fits = |line: &&str| {
            line.starts_with("recount_decisions_total{")
                && line.contains(&format!("verdict=\"{verdict}\""))
                && line.contains(&format!("reason=\"{reason}\""))
        };
        let lines = text.lines().filter(fits);
        lines.filter_map(|line| line.rsplit(' ').next()?.parse::<u64>().ok()).sum()
    };
    Expected::ALL
        .into_iter()
        .filter(|fate| count(fate.verdict(), fate.reason()) != orders.account.count(*fate))
        .map(|fate| {
            let (verdict, reason) = (fate.verdict(), fate.reason());
            let found = count(verdict, reason);
            format!("metrics count {found} {verdict} {reason}, must be {}", orders.account.count(fate))
        })
        .collect()
}

/// So many numbers with what is wrong of them, the first of them named; none where there is none.
pub fn told(what: &str, numbers: &[u64]) -> Option<String> {
    if numbers.is_empty() {
        return None;
    }
    let first: Vec<String> = numbers.iter().take(TOLD_MAX).map(u64::to_string).collect();
    let more = if numbers.len() > TOLD_MAX { ", …" } else { "" };
    Some(format!("{} events {what}: {}{more}", numbers.len(), first.join(", ")))
}
