//! `recount ledger recover`: the database is older than the ledger, since it was restored.

use super::replay::{alone, request};
use super::{operator, runtime};
use crate::config::{Config, FlowConfig};
use crate::exit::{Exit, Failure, Outcome};
use crate::replaying::{POSITIONS_A_REQUEST_MAX, Receipt, Request, bytes_of};
use crate::wiring::{self, Handlers, RunOptions, ledger_failure, now};
use recount_engine::{ReplayEvent, ReplayFrom};
use recount_ledger::{DecisionFilter, JournalEntry, JournalKind, LedgerRead, LedgerStore, StoredDecision};
use recount_model::{FlowName, Partition, PartitionId, SourceId, Timestamp, Verdict, reason};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// What is done with the effects that are gone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mend {
    /// Apply their events again.
    Reapply,
    /// Accept it: their decisions are corrected to skipped, `accepted`.
    Accept,
}

/// The batches of one partition whose effects are gone: above `from_seq`, up to `to_seq`.
#[derive(Debug, Clone)]
struct Lost {
    at: PartitionId,
    from_seq: u64,
    to_seq: u64,
}

struct Recovery {
    replay_id: u64,
    lost: Vec<Lost>,
}

/// Mends every flow of the config whose database is older than the ledger.
pub fn recover(config: &Config, mend: Mend, because: &str, json: bool) -> Outcome {
    let mut told = Vec::new();
    let mut exit = Exit::Well;
    for flow in &config.flows {
        match recover_flow(config, flow, mend, because)? {
            None => told.push(json!({ "flow": flow.spec.flow.as_str(), "mended": 0 })),
            Some((receipt, unmended)) => {
                if unmended > 0 {
                    exit = Exit::NotWell;
                }
                told.push(json!({
                    "flow": flow.spec.flow.as_str(), "receipt": receipt, "unmended": unmended,
                }));
            }
        }
    }
    if json {
        println!("{}", json!({ "recount": 1, "command": "ledger recover", "flows": told }));
    } else {
        told.iter().for_each(print_told);
    }
    Ok(exit)
}

fn print_told(told: &Value) {
    let flow = told["flow"].as_str().unwrap_or_default();
    let Some(receipt) = told.get("receipt") else {
        println!("flow {flow}: the database is as far as the ledger, nothing to mend");
        return;
    };
    println!("flow {flow}:");
    for (fate, count) in receipt["decided"].as_object().into_iter().flatten() {
        println!("  {count:>8}  now {fate}");
    }
    if told["unmended"].as_u64() > Some(0) {
        println!(
            "  {:>8}  still without their effect: the recovery is not finished, the flow won't start",
            told["unmended"]
        );
    }
    if receipt["gone"].as_u64() > Some(0) {
        println!(
            "  {:>8}  could not be applied again: their bytes can't be had any more; accept them with --accept",
            receipt["gone"]
        );
    }
}

fn recover_flow(
    config: &Config,
    flow: &FlowConfig,
    mend: Mend,
    because: &str,
) -> Result<Option<(Receipt, usize)>, Failure> {
    let mut ledger = wiring::open_ledger(&config.ledger)?;
    let journal = wiring::read_held(&config.ledger)?.journal(None).map_err(ledger_failure)?;
    let begun = wiring::unfinished_recovery(&journal, &flow.spec.flow);
    let lost = runtime()?.block_on(find_lost(config, flow, ledger.store()))?;
    refuse_dropped(config, &lost)?;
    let is_new = begun.is_none() || !lost.is_empty();
    let recovery = match begun {
        // The database may have been restored once more since.
        Some((_, entry)) => read_entry(&flow.spec.flow, &entry.detail)?.with(lost),
        None => Recovery { replay_id: now().0.unsigned_abs(), lost },
    };
    if recovery.lost.is_empty() {
        return Ok(None);
    }
    if is_new {
        let entry = entry(flow, "recovering", &recovery, mend, because);
        ledger.store().journal(&entry).map_err(ledger_failure)?;
    }
    runtime()?.block_on(reset(config, flow, ledger.store()))?;
    drop(ledger);
    let receipt = match mend {
        Mend::Reapply => reapply(config, flow, &recovery)?,
        Mend::Accept => accept(config, flow, &recovery)?,
    };
    let mut unmended = 0;
    for lost in &recovery.lost {
        unmended += applied_of(config, lost)?.len();
    }
    if unmended == 0 {
        let mut ledger = wiring::open_ledger(&config.ledger)?;
        let entry = entry(flow, "recovered", &recovery, mend, because);
        ledger.store().journal(&entry).map_err(ledger_failure)?;
    }
    Ok(Some((receipt, unmended)))
}

impl Recovery {
    /// With further lost batches; of a partition that is lost twice, all of both.
    fn with(mut self, lost: Vec<Lost>) -> Self {
        for more in lost {
            match self.lost.iter_mut().find(|known| known.at == more.at) {
                Some(known) => {
                    known.from_seq = known.from_seq.min(more.from_seq);
                    known.to_seq = known.to_seq.max(more.to_seq);
                }
                None => self.lost.push(more),
            }
        }
        self
    }
}

/// Decisions that left with dropped segments can't be applied again, nor corrected one by one.
fn refuse_dropped(config: &Config, lost: &[Lost]) -> Result<(), Failure> {
    let dropped = wiring::read_held(&config.ledger)?.dropped().map_err(ledger_failure)?;
    for lost in lost {
        if let Some(book) = dropped.iter().find(|book| book.at == lost.at && book.seq_to > lost.from_seq) {
            return Err(Failure::not_well(format!(
                "{}: the database is older than what the ledger's retention dropped (batches up to {}); which events \
                 those were can't be told any more. Restore a later backup of the database, or read the source anew \
                 into a fresh ledger",
                lost.at, book.seq_to
            )));
        }
    }
    Ok(())
}

async fn find_lost(
    config: &Config,
    flow: &FlowConfig,
    ledger: &mut dyn LedgerStore,
) -> Result<Vec<Lost>, Failure> {
    let effect = wiring::effect::open(config, flow, &Handlers::new()).await?;
    let mut lost = Vec::new();
    for at in ledger.partitions(&flow.spec.flow).map_err(ledger_failure)? {
        let Some(mark) = ledger.mark(&at).map_err(ledger_failure)? else { continue };
        let row = effect.peek(&at).await.map_err(Failure::unreachable)?;
        let from_seq = row.map_or(0, |row| row.seq);
        if from_seq < mark.seq {
            lost.push(Lost { at, from_seq, to_seq: mark.seq });
        }
    }
    Ok(lost)
}

/// Brings the database's rows to where the ledger is, so that the flow can go on from there.
async fn reset(config: &Config, flow: &FlowConfig, ledger: &mut dyn LedgerStore) -> Result<(), Failure> {
    let effect = wiring::effect::open(config, flow, &Handlers::new()).await?;
    let id = ledger.id();
    for at in ledger.partitions(&flow.spec.flow).map_err(ledger_failure)? {
        let Some(mark) = ledger.mark(&at).map_err(ledger_failure)? else { continue };
        let row = effect.peek(&at).await.map_err(Failure::unreachable)?;
        if row.is_none_or(|row| row.seq < mark.seq) {
            let done = effect.reset(&at, &id, mark.seq, mark.next_offset, &mark.decided_above).await;
            done.map_err(Failure::unreachable)?;
        }
    }
    Ok(())
}

/// Applied decisions of the lost batches that nothing corrected yet.
fn applied_of(config: &Config, lost: &Lost) -> Result<Vec<StoredDecision>, Failure> {
    let ledger = wiring::read_ledger(&config.ledger)?;
    let filter = DecisionFilter {
        flow: Some(lost.at.flow.clone()),
        partition: Some(lost.at.partition.to_string()),
        verdict: Some("applied".to_owned()),
        ..DecisionFilter::default()
    };
    let mut applied = Vec::new();
    ledger
        .decisions(&filter, &mut |stored| {
            let header = &stored.header;
            if header.at == lost.at && header.seq > lost.from_seq && header.seq <= lost.to_seq {
                applied.push(stored.clone());
            }
            ControlFlow::Continue(())
        })
        .map_err(ledger_failure)?;
    applied.sort_by_key(|stored| stored.decision.offset);
    Ok(applied)
}

fn reapply(config: &Config, flow: &FlowConfig, recovery: &Recovery) -> Result<Receipt, Failure> {
    let mut receipt = Receipt::default();
    let mut requests = Vec::new();
    for lost in &recovery.lost {
        let applied = applied_of(config, lost)?;
        for chunk in applied.chunks(POSITIONS_A_REQUEST_MAX) {
            let offsets: Vec<u64> = chunk.iter().map(|stored| stored.decision.offset).collect();
            let had = bytes_of(config, &lost.at, &offsets)?;
            receipt.gone += offsets.iter().filter(|offset| !had.contains_key(offset)).count() as u64;
            let pairs = chunk.iter().map(|stored| (stored.decision.offset, stored.header.seq)).collect();
            requests.push(Request { of_applied: true, ..request(&lost.at, recovery.replay_id, pairs) });
        }
    }
    if receipt.gone > 0 {
        // Nothing is half done: either all can be had, or the operator accepts.
        return Ok(receipt);
    }
    alone(config.clone(), &flow.spec.flow, requests)
}

fn accept(config: &Config, flow: &FlowConfig, recovery: &Recovery) -> Result<Receipt, Failure> {
    let mut by_partition: BTreeMap<PartitionId, Vec<ReplayEvent>> = BTreeMap::new();
    for lost in &recovery.lost {
        let events = applied_of(config, lost)?.into_iter().map(|stored| {
            let verdict = Verdict::skip(
                reason::ACCEPTED,
                "its effect went with a restored database, and that was accepted",
            );
            ReplayEvent {
                corrects_seq: stored.header.seq,
                of_applied: true,
                from: ReplayFrom::Operator { decision: Box::new(stored.decision), verdict },
            }
        });
        by_partition.entry(lost.at.clone()).or_default().extend(events);
    }
    runtime()?.block_on(async {
        let wanted = [flow.spec.flow.to_string()];
        let options = RunOptions { operator_only: true, ..RunOptions::default() };
        let running =
            wiring::start(config, &wanted, options, &Handlers::new(), crate::steps::probe(), None).await?;
        let mut receipt = Receipt::default();
        for running in &running.flows {
            for (at, events) in &by_partition {
                let done = running.handle.replay(at, recovery.replay_id, events.clone()).await;
                let done = done.map_err(Failure::not_well)?;
                receipt.add(Receipt {
                    decided: done.decided,
                    already: done.already,
                    left: done.left,
                    gone: 0,
                });
            }
        }
        Ok(receipt)
    })
}

fn entry(flow: &FlowConfig, what: &str, recovery: &Recovery, mend: Mend, because: &str) -> JournalEntry {
    let lost = recovery.lost.iter().map(|lost| {
        json!({
            "source": lost.at.source.as_str(), "partition": lost.at.partition.as_str(),
            "from_seq": lost.from_seq, "to_seq": lost.to_seq,
        })
    });
    let mend = match mend {
        Mend::Reapply => "reapply",
        Mend::Accept => "accept",
    };
    JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(flow.spec.flow.clone()),
        what: what.to_owned(),
        at: now(),
        persisted_at: Timestamp::default(),
        detail: json!({
            "by": operator(), "because": because, "how": mend, "replay_id": recovery.replay_id,
            "lost": lost.collect::<Vec<_>>(),
        }),
    }
}

fn read_entry(flow: &FlowName, detail: &Value) -> Result<Recovery, Failure> {
    let unreadable =
        || Failure::not_well(format!("flow {flow}: the journal's entry of a recovery can't be read"));
    let lost = detail["lost"].as_array().ok_or_else(unreadable)?.iter().map(|lost| {
        Some(Lost {
            at: PartitionId {
                flow: flow.clone(),
                source: SourceId::new(lost["source"].as_str()?),
                partition: Partition::new(lost["partition"].as_str()?),
            },
            from_seq: lost["from_seq"].as_u64()?,
            to_seq: lost["to_seq"].as_u64()?,
        })
    });
    let lost = lost.collect::<Option<Vec<_>>>().ok_or_else(unreadable)?;
    let replay_id = detail["replay_id"].as_u64().ok_or_else(unreadable)?;
    Ok(Recovery { replay_id, lost })
}
