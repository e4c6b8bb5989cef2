//! `recount pause` and `recount resume`.

use super::{operator, said_why};
use crate::cli::OperateArgs;
use crate::client::{Writer, writer};
use crate::exit::{Exit, Outcome};
use crate::server::Operation;
use crate::wiring::{self, ledger_failure, now};
use recount_ledger::{JournalEntry, JournalKind};
use recount_model::Timestamp;
use serde_json::json;

/// Pauses a flow.
pub fn pause(args: &OperateArgs) -> Outcome {
    operate(args, "pause", "paused")
}

/// Lets a flow go on.
pub fn resume(args: &OperateArgs) -> Outcome {
    operate(args, "resume", "resumed")
}

fn operate(args: &OperateArgs, verb: &str, what: &str) -> Outcome {
    said_why(&args.because)?;
    let config = wiring::load(&args.config.config)?;
    let flow = wiring::flow(&config, &args.flow)?.spec.flow.clone();
    let operation = Operation { by: operator(), because: args.because.clone() };
    let where_done = match writer(&config)? {
        Writer::Instance(instance) => {
            instance.post(&format!("/v1/flows/{flow}/{verb}"), &json!(operation))?;
            "by the running instance"
        }
        Writer::Us(mut ledger) => {
            let entry = JournalEntry {
                kind: JournalKind::Operator,
                flow: Some(flow.clone()),
                what: what.to_owned(),
                at: now(),
                persisted_at: Timestamp::default(),
                detail: json!(operation),
            };
            ledger.store().journal(&entry).map_err(ledger_failure)?;
            match config.ledger.database {
                // Who else runs the flow has a folder of its own, and is not known here.
                Some(_) => {
                    "in the ledger; a process that runs the flow heeds it at its next start: to reach it now, \
                            name its folder with --ledger-folder"
                }
                None => "in the ledger; no instance runs, the next start heeds it",
            }
        }
    };
    if args.json {
        println!("{}", json!({ "recount": 1, "command": verb, "flow": flow.as_str(), "what": what }));
    } else {
        println!("flow {flow} {what}, recorded {where_done}: {}", args.because);
    }
    Ok(Exit::Well)
}
