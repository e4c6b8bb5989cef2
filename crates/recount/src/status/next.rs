//! What to do next, as commands to paste.

use super::answer::{FlowStatus, Status};
use recount_audit::AuditReport;

/// At most so many.
const COMMANDS_MAX: usize = 6;

/// The most pressing first. They name no config: whoever prints them adds it.
pub fn commands(status: &Status, report: &AuditReport) -> Vec<String> {
    let mut commands = Vec::new();
    for (flow, audited) in status.flows.iter().zip(&report.flows) {
        let statements = audited.statements.iter().filter(|statement| !statement.findings.is_empty());
        let look = statements.flat_map(|statement| &statement.look);
        commands.extend(look.filter(|command| command.starts_with("recount ")).take(2).cloned());
        of_flow(flow, &mut commands);
    }
    if status.working != Some(true) {
        commands.push("recount audit".to_owned());
    }
    let waits = |flow: &FlowStatus| flow.paused.is_none() && flow.backlog.is_some_and(|backlog| backlog > 0);
    if !status.running && status.flows.iter().any(waits) {
        commands.push("recount run".to_owned());
    }
    if commands.is_empty() {
        commands.push("recount audit".to_owned());
    }
    let mut said = std::collections::BTreeSet::new();
    commands.retain(|command| said.insert(command.clone()));
    commands.truncate(COMMANDS_MAX);
    commands
}

fn of_flow(flow: &FlowStatus, commands: &mut Vec<String>) {
    let name = &flow.flow;
    let exceeded: Vec<_> = flow.reasons.iter().filter(|r| r.budget_status == "exceeded").collect();
    for reason in exceeded.iter().take(2) {
        commands.push(format!("recount explain {}", reason.reason));
        if reason.events > 0 && reason.verdict != "flagged" {
            commands.push(format!("recount replay {name} --reason {} --dry-run", reason.reason));
        }
    }
    if let Some(letter) = flow.dead_letters.first() {
        commands.push(format!("recount dead-letters show {}", letter.newest));
        let told = exceeded.iter().any(|reason| reason.reason == letter.reason);
        if !told {
            commands.push(format!("recount replay {name} --reason {} --dry-run", letter.reason));
        }
    }
    if flow.paused.is_some() || flow.keys_held > 0 {
        commands.push(format!("recount resume {name} --because 'why it may go on'"));
    } else if !exceeded.is_empty() {
        commands.push(format!("recount resume {name} --because 'why what was exceeded is accepted'"));
    }
}
