//! Names that a person typed: one that nothing is called must not look like an empty answer.

use crate::config::{Config, nearest};
use crate::exit::Failure;
use crate::wiring::ledger_failure;
use recount_ledger::{LedgerError, LedgerRead, LedgerReader};
use recount_model::{FlowName, ReasonCode};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// At most so many names are listed.
const NAMES_MAX: usize = 20;

/// A flow of the config, or one that the ledger knows from earlier.
pub fn flow_name(config: &Config, ledger: &LedgerReader, name: &str) -> Result<FlowName, Failure> {
    let mut known: BTreeSet<String> = config.flows.iter().map(|flow| flow.spec.flow.to_string()).collect();
    if !known.contains(name) {
        let partitions = ledger.partitions().map_err(ledger_failure)?;
        known.extend(partitions.iter().map(|at| at.flow.to_string()));
    }
    if known.contains(name) {
        return FlowName::new(name).map_err(Failure::usage);
    }
    Err(unknown("flow", name, &known))
}

/// A reason or flag that the config declares for the flow (all flows where none is given), that is built in,
/// or that the ledger holds.
pub fn reason_code(
    config: &Config,
    ledger: &LedgerReader,
    flow: Option<&FlowName>,
    code: &str,
) -> Result<ReasonCode, Failure> {
    let flows = config.flows.iter().filter(|of| flow.is_none_or(|flow| *flow == of.spec.flow));
    let mut declared = BTreeSet::new();
    let mut all = BTreeSet::new();
    for reason in flows.flat_map(|flow| &flow.reasons) {
        all.insert(reason.code.to_string());
        if reason.line > 0 {
            declared.insert(reason.code.to_string());
        }
    }
    if !all.contains(code) {
        let occurred = occurred(ledger, flow)?;
        declared.extend(occurred.iter().cloned());
        all.extend(occurred);
    }
    if all.contains(code) {
        return ReasonCode::new(code).map_err(Failure::usage);
    }
    let meant = nearest(code, all.iter().map(String::as_str)).map(ToOwned::to_owned);
    declared.extend(meant);
    Err(unknown("reason", code, &declared))
}

/// Reasons and flags that decisions in the ledger have.
fn occurred(ledger: &LedgerReader, flow: Option<&FlowName>) -> Result<BTreeSet<String>, Failure> {
    let mut codes = BTreeSet::new();
    let read = ledger.batches(flow, &mut |batch| {
        for run in &batch.runs {
            let code = run.fate.reason().map(|reason| &reason.code);
            for code in code.into_iter().chain(&run.flags) {
                if !codes.contains(code.as_str()) {
                    codes.insert(code.to_string());
                }
            }
        }
        ControlFlow::Continue(())
    });
    match read {
        Ok(()) | Err(LedgerError::Corrupt(_)) => Ok(codes),
        Err(error) => Err(ledger_failure(error)),
    }
}

/// `applied`, `skipped` or `dead-lettered`.
pub fn verdict_word(word: &str) -> Result<String, Failure> {
    let known: BTreeSet<String> = ["applied", "skipped", "dead-lettered"].map(ToOwned::to_owned).into();
    if known.contains(word) {
        return Ok(word.to_owned());
    }
    // What a check's `otherwise` says is another form of the same word.
    let meant = known.iter().find(|verdict| verdict.starts_with(word) && word.len() > 2);
    match meant {
        Some(meant) => {
            Err(Failure::usage(format!("there is no verdict {word}: did you mean {meant}? {}", has(&known))))
        }
        None => Err(unknown("verdict", word, &known)),
    }
}

fn unknown(kind: &str, name: &str, known: &BTreeSet<String>) -> Failure {
    let place = match kind {
        "verdict" => "",
        _ => " in this config or ledger",
    };
    let meant = nearest(name, known.iter().map(String::as_str));
    let meant = meant.map(|meant| format!("did you mean {meant}? ")).unwrap_or_default();
    Failure::usage(format!("there is no {kind} {name}{place}: {meant}{}", has(known)))
}

fn has(known: &BTreeSet<String>) -> String {
    let names: Vec<&str> = known.iter().take(NAMES_MAX).map(String::as_str).collect();
    match known.len().saturating_sub(NAMES_MAX) {
        _ if names.is_empty() => "it has none".to_owned(),
        0 => format!("it has {}", names.join(", ")),
        more => format!("it has {} and {more} more", names.join(", ")),
    }
}
