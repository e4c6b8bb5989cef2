//! `recount replay`.

use super::foresee::{Foreseen, foresee, would_be};
use super::select::{Selection, select};
use super::{for_config, operator, quoted, runtime, said_why};
use crate::cli::ReplayArgs;
use crate::client::{Instance, Writer, writer};
use crate::config::{Config, EffectConfig, FlowConfig, FlowMode};
use crate::exit::{Exit, Failure, Outcome};
use crate::replaying::{self, POSITIONS_A_REQUEST_MAX, Receipt, Request};
use crate::wiring::{self, Handlers, RunOptions, now};
use indicatif::{ProgressBar, ProgressStyle};
use recount_ledger::{JournalEntry, JournalKind};
use recount_model::{FlowName, PartitionId, Timestamp};
use serde_json::json;
use std::io::IsTerminal;
use std::sync::Arc;

/// Decides anew what was not applied.
pub fn replay(args: &ReplayArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    let flow = wiring::flow(&config, &args.flow)?;
    refuse_of_consumer(flow)?;
    let flow = flow.spec.flow.clone();
    let because = said_why(args.because.as_deref().unwrap_or("a dry run"))?;
    let selection = select(&config, &wiring::read_ledger(&config.ledger)?, &flow, args)?;
    let foreseen = foresee(&config, &selection)?;
    if !args.json {
        print!("{}", foreseen.text(&flow, &selection));
    }
    if args.dry_run {
        let would = would_be(&config, &flow, &selection)?;
        if args.json {
            println!("{}", foreseen.json(&would));
        } else {
            print!("{}", would.text());
            println!("next: {}", next_after_dry_run(args, &foreseen));
        }
        return Ok(Exit::Well);
    }
    let replay_id = now().0.unsigned_abs();
    if selection.events() == 0 {
        return conclude(args, replay_id, &Receipt::default());
    }
    let requests = requests(&selection, replay_id);
    let receipt = match writer(&config)? {
        Writer::Instance(instance) => ask(&instance, &config, &flow, because, requests)?,
        Writer::Us(mut ledger) => {
            refuse_other_programs(&config, &flow)?;
            let entry = entry(&flow, because, replay_id, selection.events(), now());
            ledger.store().journal(&entry).map_err(wiring::ledger_failure)?;
            drop(ledger);
            alone(config, &flow, requests)?
        }
    };
    conclude(args, replay_id, &receipt)
}

/// What another program applies, Recount can't apply anew; it would only be recorded as if it had been.
fn refuse_of_consumer(flow: &FlowConfig) -> Result<(), Failure> {
    if flow.mode != FlowMode::Report {
        return Ok(());
    }
    Err(Failure::usage(format!(
        "flow {}: its consumer applies and reports, so Recount has nothing to apply anew: publish the event again, with \
         an id of its own, and let the consumer have it. Its bytes: recount reproduce POSITION",
        flow.spec.flow
    )))
}

/// A handler in Rust is in the user's own program: only that can decide anew.
fn refuse_other_programs(config: &Config, flow: &FlowName) -> Result<(), Failure> {
    let flow = wiring::flow(config, flow.as_str())?;
    match &flow.effect {
        EffectConfig::Handler { name, .. } => Err(Failure::usage(format!(
            "flow {}: its handler {name} is in your own program, which is not running: start it, and replay again: \
             this command then asks it. Nothing was decided",
            flow.spec.flow
        ))),
        _ => Ok(()),
    }
}

/// The same selection, for real.
fn next_after_dry_run(args: &ReplayArgs, foreseen: &Foreseen) -> String {
    if foreseen.to_be_had() == 0 {
        return for_config(&format!("recount dead-letters list --flow {}", args.flow), &args.config.config);
    }
    let mut command = format!("recount replay {}", args.flow);
    let options = [
        ("--reason", &args.reason),
        ("--from", &args.from),
        ("--to", &args.to),
        ("--dead-letter", &args.dead_letter),
    ];
    for (option, value) in options {
        if let Some(value) = value {
            command.push_str(&format!(" {option} {}", quoted(value)));
        }
    }
    for_config(&format!("{command} --because 'what was mended'"), &args.config.config)
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
    Request { replay_id, source, partition, events, of_applied: false, config_hash: None }
}

fn entry(flow: &FlowName, because: &str, replay_id: u64, events: u64, at: Timestamp) -> JournalEntry {
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
    config: &Config,
    flow: &FlowName,
    because: &str,
    requests: Vec<Request>,
) -> Result<Receipt, Failure> {
    let mut receipt = Receipt::default();
    let bar = progress_bar(&requests);
    for request in requests {
        let events = request.events.len() as u64;
        let request = Request { config_hash: Some(config.hash()), ..request };
        let mut body = json!(request);
        body["by"] = operator().into();
        body["because"] = because.into();
        let answer = instance.post(&format!("/v1/flows/{flow}/replay"), &body)?;
        let part: Receipt = serde_json::from_value(answer["receipt"].clone())
            .map_err(|error| Failure::unreachable(format!("the instance's answer can't be read: {error}")))?;
        receipt.add(part);
        bar.inc(events);
    }
    bar.finish_and_clear();
    Ok(receipt)
}

/// Counts events, where somebody watches and there is more than one request.
fn progress_bar(requests: &[Request]) -> ProgressBar {
    let events: usize = requests.iter().map(|request| request.events.len()).sum();
    if requests.len() < 2 || !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {human_pos} of {human_len} decided anew, {per_sec}, {eta} to go";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(events as u64).with_style(style)
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
        let bar = progress_bar(&requests);
        for request in requests {
            let events = request.events.len() as u64;
            for running in &running.flows {
                receipt.add(replaying::replay(&config, &running.handle, request.clone()).await?);
            }
            bar.inc(events);
        }
        bar.finish_and_clear();
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
        println!("next: {}", for_config("recount status", &args.config.config));
    }
    Ok(if receipt.gone > 0 { Exit::NotWell } else { Exit::Well })
}
