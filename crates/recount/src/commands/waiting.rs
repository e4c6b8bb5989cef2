//! After the events are read: waiting for the effects of a consumer that Recount doesn't run.

use super::run::Signals;
use crate::config::{Config, FlowConfig};
use crate::exit::Failure;
use crate::wiring::audit::{AuditOptions, count_again};
use indicatif::ProgressBar;
use recount_audit::{AuditReport, Equation, FlowReport, Statement};
use recount_model::{BookStatus, Timestamp};
use std::io::IsTerminal;
use std::time::Duration;

/// Between two audits.
const PAUSE: Duration = Duration::from_secs(1);

/// Counts again about every second until the effects of every observed flow are there, until their time is
/// over, or until a signal asks for the books as they are.
///
/// # Errors
/// Where the ledger can't be read.
pub(super) async fn for_effects(config: &Config, wanted: &[String]) -> Result<(), Failure> {
    let watched: Vec<String> =
        config.flows.iter().filter(|flow| is_waited_for(flow, wanted)).map(name).collect();
    if watched.is_empty() {
        return Ok(());
    }
    let mut signals = Signals::new();
    let bar =
        if std::io::stderr().is_terminal() { ProgressBar::new_spinner() } else { ProgressBar::hidden() };
    let mut told = false;
    loop {
        let options = AuditOptions { identified: false, names_max: 0 };
        let report = tokio::task::block_in_place(|| count_again(config, &watched, options))?;
        let waits: Vec<(&FlowReport, &Statement)> = still_open(config, &report);
        let Some((flow, statement)) = waits.first() else { break };
        if !told {
            eprintln!(
                "flow {}: every event is read; now waits for the consumer's effects, as long as its `within` says \
                 (an interrupt shows the books as they are)",
                flow.flow
            );
            told = true;
        }
        bar.set_message(statement.sentence.clone());
        bar.tick();
        tokio::select! {
            () = signals.next() => break,
            () = tokio::time::sleep(PAUSE) => {}
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn name(flow: &FlowConfig) -> String {
    flow.spec.flow.to_string()
}

fn is_waited_for(flow: &FlowConfig, wanted: &[String]) -> bool {
    flow.effect.watched().is_some() && (wanted.is_empty() || wanted.contains(&name(flow)))
}

/// Statements about effects that time may still mend.
fn still_open<'r>(config: &Config, report: &'r AuditReport) -> Vec<(&'r FlowReport, &'r Statement)> {
    let mut open = Vec::new();
    for flow in &report.flows {
        let within_ms =
            config.flow(flow.flow.as_str()).and_then(|flow| Some(flow.effect.watched()?.within_ms));
        let until = flow.last_decided_at.zip(within_ms).map(|(Timestamp(at), within_ms)| {
            at.saturating_add(i64::try_from(within_ms).unwrap_or(i64::MAX))
        });
        if until.is_some_and(|until| report.at.0 < until) {
            let about_effects = flow.statements.iter().filter(|statement| statement.equation != Equation::E1);
            let uneven = about_effects.filter(|statement| statement.status != BookStatus::Balanced);
            open.extend(uneven.map(|statement| (flow, statement)));
        }
    }
    open
}
