//! Decisions as NDJSON or CSV, one a line, with the law's words as keys.

use crate::rows::measures_json;
use crate::store::{DecisionFilter, LedgerError, LedgerRead, StoredDecision};
use serde_json::{Map, Value, json};
use std::io::Write;
use std::ops::ControlFlow;

/// The version of an exported record. It grows when a field changes its meaning or goes; new fields don't
/// change it.
pub const EXPORT_VERSION: u32 = 1;

/// How an export is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ExportFormat {
    /// One JSON object a line.
    Ndjson,
    /// RFC 4180, with a line of names first; flags have spaces between; evidence and measures are JSON.
    Csv,
}

/// Why an export ended early.
#[derive(Debug, thiserror::Error)]
pub enum ExportError {
    /// The ledger could not be read.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// What it was written to failed.
    #[error("the export can't be written: {0}")]
    Write(#[from] std::io::Error),
}

const COLUMNS: [&str; 26] = [
    "version",
    "position",
    "flow",
    "source",
    "partition",
    "offset",
    "event_id",
    "key",
    "verdict",
    "reason",
    "sentence",
    "flags",
    "attempt",
    "event_time",
    "decided_at",
    "persisted_at",
    "config",
    "origin",
    "epoch",
    "seq",
    "corrects_seq",
    "current",
    "received",
    "payload_hash",
    "evidence",
    "measures",
];

/// Writes the decisions that the filter takes, in the order decided, and returns how many.
pub fn export(
    ledger: &dyn LedgerRead,
    filter: &DecisionFilter,
    format: ExportFormat,
    out: &mut dyn Write,
) -> Result<u64, ExportError> {
    if format == ExportFormat::Csv {
        write!(out, "{}\r\n", COLUMNS.join(","))?;
    }
    let mut written = 0;
    let mut failure = None;
    ledger.decisions(filter, &mut |stored| {
        let line = match format {
            ExportFormat::Ndjson => write_json(stored, out),
            ExportFormat::Csv => write_csv(stored, out),
        };
        match line {
            Ok(()) => {
                written += 1;
                ControlFlow::Continue(())
            }
            Err(error) => {
                failure = Some(error);
                ControlFlow::Break(())
            }
        }
    })?;
    match failure {
        Some(error) => Err(error.into()),
        None => Ok(written),
    }
}

/// A decision as one object; the same fields as a line of an NDJSON export. Evidence that is no JSON stands
/// there as text.
pub fn decision_json(stored: &StoredDecision) -> Value {
    let (header, decision) = (&*stored.header, &stored.decision);
    let reason = decision.fate.reason();
    let evidence = decision.evidence.as_deref().map_or(Value::Null, |text| {
        serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()))
    });
    let time = |at: recount_model::Timestamp| Value::String(at.to_string());
    let values = [
        json!(EXPORT_VERSION),
        json!(header.at.position(decision.offset).to_string()),
        json!(header.at.flow.as_str()),
        json!(header.at.source.as_str()),
        json!(header.at.partition.as_str()),
        json!(decision.offset),
        json!(decision.event_id),
        json!(decision.key),
        json!(decision.fate.word()),
        json!(reason.map(|r| r.code.as_str())),
        json!(reason.map(|r| r.sentence.as_str())),
        json!(decision.flags.iter().map(|f| f.as_str()).collect::<Vec<_>>()),
        json!(decision.attempt),
        decision.event_time.map_or(Value::Null, time),
        time(header.decided_at),
        time(header.persisted_at),
        json!(header.config.0),
        json!(decision.origin.word()),
        json!(header.epoch),
        json!(header.seq),
        json!(decision.corrects.map(|c| c.seq)),
        json!(stored.current),
        json!(decision.received),
        json!(format!("{:016x}", decision.payload_hash.0)),
        evidence,
        measures_json(&decision.measures),
    ];
    Value::Object(COLUMNS.iter().map(|c| (*c).to_owned()).zip(values).collect::<Map<_, _>>())
}

fn write_json(stored: &StoredDecision, out: &mut dyn Write) -> std::io::Result<()> {
    serde_json::to_writer(&mut *out, &decision_json(stored))?;
    out.write_all(b"\n")
}

fn write_csv(stored: &StoredDecision, out: &mut dyn Write) -> std::io::Result<()> {
    let record = decision_json(stored);
    for (nth, column) in COLUMNS.iter().enumerate() {
        if nth > 0 {
            out.write_all(b",")?;
        }
        let field = match &record[*column] {
            Value::Null => String::new(),
            Value::String(text) => text.clone(),
            Value::Array(flags) if *column == "flags" => {
                flags.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(" ")
            }
            Value::Array(none) if none.is_empty() => String::new(),
            other => other.to_string(),
        };
        write_field(&field, out)?;
    }
    out.write_all(b"\r\n")
}

fn write_field(field: &str, out: &mut dyn Write) -> std::io::Result<()> {
    if field.contains(['"', ',', '\r', '\n']) {
        write!(out, "\"{}\"", field.replace('"', "\"\""))
    } else {
        out.write_all(field.as_bytes())
    }
}
