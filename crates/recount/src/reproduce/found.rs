//! Which event is meant, what was decided about it, and its bytes.

use crate::config::Config;
use crate::exit::Failure;
use crate::replaying::bytes_and_why_not;
use crate::wiring::audit::source_witness;
use crate::wiring::{flow, ledger_failure, now};
use recount_checks::RawEvent;
use recount_ledger::{DecisionFilter, LedgerRead, LedgerReader, StoredConfig, StoredDecision};
use recount_model::{Address, PartitionId, reason};
use std::collections::BTreeSet;
use std::ops::ControlFlow;

/// At most so many positions are named where an id is ambiguous.
const NAMES_MAX: usize = 10;
/// An event that is larger is not fetched whole.
const PAYLOAD_BYTES_MAX: u64 = 256 << 20;

/// One event and its past.
pub struct Found {
    /// Its decisions, oldest first; the last is the current one.
    pub history: Vec<StoredDecision>,
    /// The config that made the current one.
    pub config: StoredConfig,
    /// The event as delivered, after the one that it depends on, if it does.
    pub events: Vec<RawEvent>,
    /// What should be known of the bytes.
    pub notes: Vec<String>,
}

impl Found {
    /// The current decision.
    pub fn decided(&self) -> &StoredDecision {
        self.history.last().expect("an event without a decision is not found")
    }

    /// The event itself.
    pub fn event(&self) -> &RawEvent {
        self.events.last().expect("an event whose bytes can't be had is not found")
    }
}

/// Looks a position or an id up.
pub fn find(config: &Config, ledger: &LedgerReader, asked: &str) -> Result<Found, Failure> {
    let mut notes = Vec::new();
    let history = history(ledger, asked, &mut notes)?;
    let decided = history.last().expect("an event without a decision is not found");
    let version = decided.header.config;
    let configs = ledger.configs().map_err(ledger_failure)?;
    let stored = configs
        .into_iter()
        .find(|stored| stored.version == version)
        .ok_or_else(|| Failure::not_well(format!("config {} is not in the ledger any more", version.0)))?;
    let at = &decided.header.at;
    let mut events = first_of_duplicate(config, ledger, decided, &mut notes)?;
    events.push(whole(config, ledger, at, decided.decision.offset, &mut notes)?);
    Ok(Found { history, config: stored, events, notes })
}

/// Every decision about the event that is meant.
fn history(
    ledger: &LedgerReader,
    asked: &str,
    notes: &mut Vec<String>,
) -> Result<Vec<StoredDecision>, Failure> {
    let by_position = asked.parse::<Address>().ok().map(|address| DecisionFilter {
        flow: Some(address.flow),
        partition: Some(address.partition.to_string()),
        offset_from: Some(address.offset),
        offset_to: address.offset.checked_add(1),
        superseded: true,
        ..DecisionFilter::default()
    });
    let by_id =
        DecisionFilter { event_id: Some(asked.to_owned()), superseded: true, ..DecisionFilter::default() };
    for (filter, is_position) in by_position.into_iter().map(|f| (f, true)).chain([(by_id, false)]) {
        let mut found: Vec<StoredDecision> = Vec::new();
        let read = ledger.decisions(&filter, &mut |stored| {
            found.push(stored.clone());
            ControlFlow::Continue(())
        });
        read.map_err(ledger_failure)?;
        let Some(newest) = found.last() else { continue };
        let (at, offset) = (newest.header.at.clone(), newest.decision.offset);
        let mut others = BTreeSet::new();
        for stored in found.iter().filter(|s| (&s.header.at, s.decision.offset) != (&at, offset)) {
            others.insert(stored.header.at.position(stored.decision.offset).to_string());
        }
        if !is_position && !others.is_empty() {
            others.insert(at.position(offset).to_string());
            let names: Vec<String> = others.into_iter().take(NAMES_MAX).collect();
            return Err(Failure::usage(format!(
                "{asked} is the id of several events; say which: {}",
                names.join(", ")
            )));
        }
        if !others.is_empty() {
            notes.push(format!(
                "several incarnations of the source have a position {asked}; this is of the newest, {}",
                at.source
            ));
        }
        found.retain(|stored| stored.header.at == at && stored.decision.offset == offset);
        found.sort_by_key(|stored| stored.header.seq);
        return Ok(found);
    }
    let next = match asked.parse::<Address>() {
        Ok(address) => format!("see how far flow {} is: recount status", address.flow),
        Err(_) => "write a position, flow/partition/offset, or an event's id".to_owned(),
    };
    Err(Failure::usage(format!("nothing was decided about {asked}: {next}")))
}

/// Kept, or from the source; there again with a higher limit, if it was cut.
fn whole(
    config: &Config,
    ledger: &LedgerReader,
    at: &PartitionId,
    offset: u64,
    notes: &mut Vec<String>,
) -> Result<RawEvent, Failure> {
    let (mut bytes, why) = bytes_and_why_not(config, at, &[offset])?;
    let Some(raw) = bytes.remove(&offset) else {
        let why = why.unwrap_or_else(|| "the source does not hold it".to_owned());
        return Err(Failure::not_well(format!(
            "the bytes of {} can't be had any more: they were not kept, and {why}",
            at.position(offset)
        )));
    };
    if raw.payload.len() as u64 == raw.payload_bytes {
        return Ok(raw);
    }
    let mut wider = config.clone();
    for flow in wider.flows.iter_mut().filter(|flow| flow.spec.flow == at.flow) {
        let bytes = raw.payload_bytes.min(PAYLOAD_BYTES_MAX);
        flow.spec.take.payload_bytes_max = usize::try_from(bytes).unwrap_or(usize::MAX);
    }
    let known = ledger.partitions().map_err(ledger_failure)?;
    let witness = source_witness(&wider, flow(&wider, at.flow.as_str())?, &known);
    let mut found = None;
    let read = witness.read(at, offset, offset + 1, &mut |raw| {
        found = Some(RawEvent { taken_at: now(), ..raw.clone() });
        ControlFlow::Break(())
    });
    match found.filter(|found| read.is_ok() && found.payload.len() as u64 == found.payload_bytes) {
        Some(found) => Ok(found),
        None => {
            notes.push(format!(
                "only the first {} of its {} bytes could be had, so that it may be decided otherwise",
                raw.payload.len(),
                raw.payload_bytes
            ));
            Ok(raw)
        }
    }
}

/// A duplicate is one only after the event that it repeats.
fn first_of_duplicate(
    config: &Config,
    ledger: &LedgerReader,
    decided: &StoredDecision,
    notes: &mut Vec<String>,
) -> Result<Vec<RawEvent>, Failure> {
    let code = decided.decision.fate.reason().map(|reason| &reason.code);
    if !code.is_some_and(|code| [reason::DUPLICATE, reason::ID_REUSED].contains(code)) {
        return Ok(Vec::new());
    }
    let evidence: serde_json::Value = decided
        .decision
        .evidence
        .as_deref()
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default();
    let first = evidence["first"].as_str().and_then(|first| first.parse::<Address>().ok());
    let at = &decided.header.at;
    match first.filter(|first| first.flow == at.flow && first.partition == at.partition) {
        Some(first) => {
            notes.push(format!(
                "it was decided so because of the event before it, {}/{}/{}, which therefore comes first",
                first.flow, first.partition, first.offset
            ));
            Ok(vec![whole(config, ledger, at, first.offset, notes)?])
        }
        None => {
            notes.push("it was decided so because of an earlier event, which is not here".to_owned());
            Ok(Vec::new())
        }
    }
}
