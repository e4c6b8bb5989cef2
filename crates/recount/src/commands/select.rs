//! Which decisions a replay decides anew: a frozen selection.

use super::names::reason_code;
use crate::cli::ReplayArgs;
use crate::config::Config;
use crate::exit::Failure;
use crate::wiring::ledger_failure;
use recount_ledger::{DecisionFilter, LedgerRead, LedgerReader};
use recount_model::{Address, Fate, FlowName, PartitionId, ReasonCode, Timestamp, reason};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// One decision that is to be replaced.
#[derive(Debug, Clone)]
pub struct Selected {
    /// Its offset.
    pub offset: u64,
    /// The seq of its batch.
    pub seq: u64,
    /// Verdict and reason, as they stand.
    pub fate: String,
}

/// What was selected, by partition, and what was left out.
#[derive(Debug, Default)]
pub struct Selection {
    /// To be decided anew.
    pub partitions: BTreeMap<PartitionId, Vec<Selected>>,
    /// Duplicates: the event that they repeat has its own fate.
    pub duplicates: u64,
}

impl Selection {
    /// How many.
    pub fn events(&self) -> u64 {
        self.partitions.values().map(|events| events.len() as u64).sum()
    }
}

/// Selects as the arguments say.
pub fn select(
    config: &Config,
    ledger: &LedgerReader,
    flow: &FlowName,
    args: &ReplayArgs,
) -> Result<Selection, Failure> {
    let nothing_said =
        args.reason.is_none() && args.dead_letter.is_none() && args.from.is_none() && args.to.is_none();
    if nothing_said {
        let message = "say which: --reason R, --from … --to …, or --dead-letter ID; --dry-run shows how many";
        return Err(Failure::usage(message));
    }
    let mut selection = Selection::default();
    let code = |code: &str| reason_code(config, ledger, Some(flow), code);
    let wanted = args.reason.as_deref().map(code).transpose()?;
    for filter in filters(flow, wanted.clone(), args)? {
        ledger
            .decisions(&filter, &mut |stored| {
                let decision = &stored.decision;
                let is_duplicate = decision.fate.reason().is_some_and(|r| r.code == reason::DUPLICATE);
                // The ledger's own filter by reason also takes flags.
                let has = decision.fate.reason().map(|reason| &reason.code);
                let is_asked = wanted.is_none() || has == wanted.as_ref();
                match &decision.fate {
                    Fate::Applied => {}
                    _ if !is_asked => {}
                    _ if is_duplicate => selection.duplicates += 1,
                    fate => {
                        let selected = Selected {
                            offset: decision.offset,
                            seq: stored.header.seq,
                            fate: fate.to_string(),
                        };
                        selection.partitions.entry(stored.header.at.clone()).or_default().push(selected);
                    }
                }
                ControlFlow::Continue(())
            })
            .map_err(ledger_failure)?;
    }
    for events in selection.partitions.values_mut() {
        events.sort_by_key(|event| event.offset);
        events.dedup_by_key(|event| event.offset);
    }
    if let Some(id) = args.dead_letter.as_ref().filter(|_| selection.events() + selection.duplicates == 0) {
        return Err(Failure::not_well(format!(
            "no event {id} of flow {flow} was skipped or dead-lettered; what became of it: recount story {id}"
        )));
    }
    Ok(selection)
}

fn filters(
    flow: &FlowName,
    reason: Option<ReasonCode>,
    args: &ReplayArgs,
) -> Result<Vec<DecisionFilter>, Failure> {
    let mut filter = DecisionFilter { flow: Some(flow.clone()), reason, ..DecisionFilter::default() };
    if let Some(id) = &args.dead_letter {
        match id.parse::<Address>() {
            Ok(address) if address.flow == *flow => at_address(&mut filter, &address),
            _ => filter.event_id = Some(id.clone()),
        }
    }
    for (text, is_from) in [(&args.from, true), (&args.to, false)] {
        let Some(text) = text else { continue };
        match (when(text)?, is_from) {
            (When::Offset(offset), true) => filter.offset_from = Some(offset),
            (When::Offset(offset), false) => filter.offset_to = Some(offset),
            (When::Instant(at), true) => filter.from = Some(at),
            (When::Instant(at), false) => filter.to = Some(at),
        }
    }
    let of_verdict = |verdict: &str| DecisionFilter { verdict: Some(verdict.to_owned()), ..filter.clone() };
    Ok(vec![of_verdict("skipped"), of_verdict("dead-lettered")])
}

/// Narrows a filter to one position.
pub fn at_address(filter: &mut DecisionFilter, address: &Address) {
    filter.flow = Some(address.flow.clone());
    filter.partition = Some(address.partition.to_string());
    filter.offset_from = Some(address.offset);
    filter.offset_to = Some(address.offset + 1);
}

enum When {
    Offset(u64),
    Instant(Timestamp),
}

fn when(text: &str) -> Result<When, Failure> {
    if let Ok(offset) = text.parse() {
        return Ok(When::Offset(offset));
    }
    instant(text).map(When::Instant)
}

/// Reads an RFC 3339 instant.
pub fn instant(text: &str) -> Result<Timestamp, Failure> {
    let parsed: Result<jiff::Timestamp, _> = text.parse();
    parsed
        .map(|at| Timestamp(at.as_millisecond()))
        .map_err(|_| Failure::usage(format!("{text:?} is not an instant: write 2026-01-31T09:30:00Z")))
}
