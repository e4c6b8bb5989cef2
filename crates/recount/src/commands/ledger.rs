//! `recount ledger export|recover|forget`.

use super::names::{flow_name, reason_code, verdict_word};
use super::recover::{Mend, recover};
use super::said_why;
use super::select::instant;
use crate::cli::{ExportForm, LedgerCommand};
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring::{self, ledger_failure};
use recount_ledger::export::{ExportError, ExportFormat, export};
use recount_ledger::{DecisionFilter, LedgerReader};
use serde_json::json;
use std::io::{BufWriter, Write};

/// What to do with the ledger.
pub fn ledger(command: &LedgerCommand) -> Outcome {
    match command {
        LedgerCommand::Recover { reapply, accept: _, because, config, json } => {
            said_why(because)?;
            let mend = if *reapply { Mend::Reapply } else { Mend::Accept };
            recover(&wiring::load(&config.config)?, mend, because, *json)
        }
        LedgerCommand::Forget { key, because, config, json } => {
            said_why(because)?;
            let config = wiring::load(&config.config)?;
            let mut ledger = wiring::open_ledger(&config.ledger)?;
            let forgotten = ledger.forget(key, because)?;
            if *json {
                let counts = json!({ "decisions": forgotten.decisions, "bodies": forgotten.bodies });
                println!("{}", json!({ "recount": 1, "command": "ledger forget", "forgotten": counts }));
            } else if forgotten.decisions == 0 && forgotten.bodies == 0 {
                println!(
                    "nothing was destroyed: no decision in this ledger tells the key {key}; is it written as the \
                     events have it, or forgotten already?"
                );
            } else {
                println!(
                    "{} decisions no longer tell their key and id, {} bodies are gone; verdicts and positions stay",
                    forgotten.decisions, forgotten.bodies
                );
                println!(
                    "not touched: the source, your own tables, and, after a flow was killed, the last batch in \
                     recount_batch, until the flow runs and stops again"
                );
            }
            Ok(Exit::Well)
        }
        LedgerCommand::Export { form, flow, key, verdict, reason, from, to, superseded, config } => {
            let config = wiring::load(&config.config)?;
            let reader = wiring::read_ledger(&config.ledger)?;
            let flow = flow.as_deref().map(|name| flow_name(&config, &reader, name)).transpose()?;
            let code = |code: &str| reason_code(&config, &reader, flow.as_ref(), code);
            let reason = reason.as_deref().map(code).transpose()?;
            let at = |text: &Option<String>| text.as_deref().map(instant).transpose();
            let filter = DecisionFilter {
                flow,
                key: key.clone(),
                verdict: verdict.as_deref().map(verdict_word).transpose()?,
                reason,
                from: at(from)?,
                to: at(to)?,
                superseded: *superseded,
                ..DecisionFilter::default()
            };
            write_export(&reader, *form, &filter)
        }
    }
}

fn write_export(reader: &LedgerReader, form: ExportForm, filter: &DecisionFilter) -> Outcome {
    let format = match form {
        ExportForm::Ndjson => ExportFormat::Ndjson,
        ExportForm::Csv => ExportFormat::Csv,
    };
    let mut out = BufWriter::new(std::io::stdout().lock());
    let written = export(reader, filter, format, &mut out);
    match written.and_then(|_| out.flush().map_err(ExportError::Write)) {
        Ok(()) => Ok(Exit::Well),
        // Whoever reads may have seen enough.
        Err(ExportError::Write(error)) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(Exit::Well),
        Err(ExportError::Write(error)) => {
            Err(Failure::unreachable(format!("the export can't be written: {error}")))
        }
        Err(ExportError::Ledger(error)) => Err(ledger_failure(error)),
    }
}
