//! `recount replay`.

use super::select::{Selection, select};
use super::{operator, runtime};
use crate::cli::ReplayArgs;
use crate::client::{Instance, Writer, writer};
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use crate::replaying::{self, POSITIONS_A_REQUEST_MAX, Receipt, Request};
use crate::wiring::{self, Handlers, RunOptions, now};
use recount_ledger::{JournalEntry, JournalKind, LedgerStore};
use recount_model::{FlowName, PartitionId, Timestamp};
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

/// Decides anew what was not applied.
pub fn replay(args: &ReplayArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    let flow = wiring::flow(&config, &args.flow)?.spec.flow.clone();
    let selection = select(&wiring::read_ledger(&config.ledger)?, &flow, args)?;
    let foreseen = foresee(&config, &selection)?;
    if args.json && args.dry_run {
        let counts = |(fate, (selected, had)): (&String, &(u64, u64))| {
            (fate.clone(), json!({ "events": selected, "can_be_had": had }))
        };
        let selected: serde_json::Map<_, _> = foreseen.iter().map(counts).collect();
        println!("{}", json!({ "recount": 1, "command": "replay", "dry_run": true, "selected": selected }));
        return Ok(Exit::Well);
    }
    if !args.json {
        print!("{}", foreseen_text(&flow, &selection, &foreseen));
    }
    if args.dry_run || (selection.events() == 0 && !args.json) {
        return Ok(Exit::Well);
    }
    let replay_id = now().0.unsigned_abs();
    if selection.events() == 0 {
        return conclude(args, replay_id, &Receipt::default());
    }
    let because = args.because.as_deref().unwrap_or_default();
    let requests = requests(&selection, replay_id);
    let receipt = match writer(&config)? {
        Writer::Instance(instance) => ask(&instance, &flow, because, requests)?,
        Writer::Us(mut ledger) => {
            let entry = entry(&flow, because, replay_id, selection.events(), now());
            ledger.journal(&entry).map_err(wiring::ledger_failure)?;
            drop(ledger);
            alone(config, &flow, requests)?
        }
    };
    conclude(args, replay_id, &receipt)
}

/// How many of the selected can be had, by verdict and reason: selected and to be had.
fn foresee(config: &Config, selection: &Selection) -> Result<BTreeMap<String, (u64, u64)>, Failure> {
    let mut foreseen: BTreeMap<String, (u64, u64)> = BTreeMap::new();
    for (at, events) in &selection.partitions {
        for chunk in events.chunks(POSITIONS_A_REQUEST_MAX) {
            let offsets: Vec<u64> = chunk.iter().map(|event| event.offset).collect();
            let bytes = replaying::bytes_of(config, at, &offsets)?;
            for event in chunk {
                let count = foreseen.entry(event.fate.clone()).or_default();
                count.0 += 1;
                count.1 += u64::from(bytes.contains_key(&event.offset));
            }
        }
    }
    Ok(foreseen)
}

fn foreseen_text(flow: &FlowName, selection: &Selection, foreseen: &BTreeMap<String, (u64, u64)>) -> String {
    let mut out = format!("{} events of flow {flow} to be decided anew\n", selection.events());
    for (fate, (selected, had)) in foreseen {
        let gone = if had < selected {
            format!("; the bytes of {} can't be had any more", selected - had)
        } else {
            String::new()
        };
        out.push_str(&format!("  {selected:>8}  {fate}{gone}\n"));
    }
    if selection.duplicates > 0 {
        out.push_str(&format!(
            "  {:>8}  skipped duplicate: left as they are, the events that they repeat have their own fate\n",
            selection.duplicates
        ));
    }
    out
}

fn requests(selection: &Selection, replay_id: u64) -> Vec<Request> {
    let mut requests = Vec::new();
    for (at, events) in &selection.partitions {
        for chunk in events.chunks(POSITIONS_A_REQUEST_MAX) {
            requests.push(request(
                at,
                replay_id,
                chunk.iter().map(|event| (event.offset, event.seq)).collect(),
            ));
        }
    }
    requests
}

/// A request for events of one partition.
pub fn request(at: &PartitionId, replay_id: u64, events: Vec<(u64, u64)>) -> Request {
    let (source, partition) = (at.source.to_string(), at.partition.to_string());
    Request { replay_id, source, partition, events, of_applied: false }
}

fn entry(flow: &FlowName, because: &str, replay_id: u64, events: usize, at: Timestamp) -> JournalEntry {
    JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(flow.clone()),
        what: "replayed".to_owned(),
        at,
        persisted_at: Timestamp::default(),
        detail: json!({ "by": operator(), "because": because, "replay_id": replay_id, "events": events }),
    }
}

fn ask(
    instance: &Instance,
    flow: &FlowName,
    because: &str,
    requests: Vec<Request>,
) -> Result<Receipt, Failure> {
    let mut receipt = Receipt::default();
    for request in requests {
        let mut body = json!(request);
        body["by"] = operator().into();
        body["because"] = because.into();
        let answer = instance.post(&format!("/v1/flows/{flow}/replay"), &body)?;
        let part: Receipt = serde_json::from_value(answer["receipt"].clone())
            .map_err(|error| Failure::unreachable(format!("the instance's answer can't be read: {error}")))?;
        receipt.add(part);
    }
    Ok(receipt)
}

/// Replays without a running instance: the flow is started for this alone, and takes nothing.
pub fn alone(config: Config, flow: &FlowName, requests: Vec<Request>) -> Result<Receipt, Failure> {
    runtime()?.block_on(async {
        let wanted = [flow.to_string()];
        let options = RunOptions::default();
        let running =
            wiring::start(&config, &wanted, options, &Handlers::new(), crate::steps::probe(), None).await?;
        let config = Arc::new(config);
        let mut receipt = Receipt::default();
        for request in requests {
            for running in &running.flows {
                receipt.add(replaying::replay(&config, &running.handle, request.clone()).await?);
            }
        }
        Ok(receipt)
    })
}

fn conclude(args: &ReplayArgs, replay_id: u64, receipt: &Receipt) -> Outcome {
    if args.json {
        let json = json!({ "recount": 1, "command": "replay", "replay_id": replay_id, "receipt": receipt });
        println!("{json}");
    } else {
        println!("replay {replay_id}:");
        for (fate, count) in &receipt.decided {
            println!("  {count:>8}  now {fate}");
        }
        if receipt.already > 0 {
            println!("  {:>8}  had been replayed before", receipt.already);
        }
        if receipt.left > 0 {
            println!(
                "  {:>8}  left as they are: an event with the same id was applied, waits, or was replayed first",
                receipt.left
            );
        }
        if receipt.gone > 0 {
            println!("  {:>8}  left as they are: their bytes can't be had any more", receipt.gone);
        }
    }
    Ok(if receipt.gone > 0 { Exit::NotWell } else { Exit::Well })
}
