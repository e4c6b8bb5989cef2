//! What the torture came to, for people and as JSON.

use super::plan::{Happened, p50_and_max};
use super::{Finished, Options};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;

/// Prints it.
pub fn told(options: &Options, happened: &Happened, finished: &Finished) {
    println!(
        "seed {}: {} events on 6 partitions, published at {:.0} a second (at most {})",
        options.seed, options.events, finished.published_per_second, options.rate
    );
    for (what, times) in &happened.times {
        println!("  {times:>5} × {what}");
    }
    for (why, times) in &happened.ended {
        println!("  {times:>5} × the process ended by itself and was started again: {why}");
    }
    histogram("SIGKILL struck at", &happened.kills_at);
    histogram("SIGSTOP struck at", &happened.freezes_at);
    let servers = happened.after_server.iter().map(|(after, times)| (*after, times));
    let processes = [("a kill", &happened.after_kill), ("a freeze", &happened.after_freeze)];
    for (after, times) in processes.into_iter().chain(servers).filter(|(_, times)| !times.is_empty()) {
        let (p50, max) = p50_and_max(times);
        println!("settled again after {after}: p50 {p50:.2} s, max {max:.2} s");
    }
    for (verdict, events) in &finished.verdicts {
        println!("  {events:>9} {verdict}");
    }
    for fault in &happened.faults {
        println!("wrong: {fault}");
    }
    if happened.faults.is_empty() {
        println!(
            "lost 0, twice 0, unexplained 0; one current verdict an event, and the right one; the audit says \
             balanced"
        );
        if options.freezes > 0 {
            println!("who was woken did nothing more");
        }
    }
}

fn histogram(what: &str, steps: &BTreeMap<String, u64>) {
    if steps.is_empty() {
        return;
    }
    println!("{what}:");
    for (step, times) in steps {
        println!("  {step:<8} {times:>5}");
    }
}

/// The same as JSON.
pub fn figures(options: &Options, happened: &Happened, finished: &Finished, took: Duration) -> Value {
    let times = |times: &[Duration]| {
        let (p50, max) = p50_and_max(times);
        json!({ "p50_seconds": p50, "max_seconds": max, "times": times.len() })
    };
    let servers: BTreeMap<_, _> =
        happened.after_server.iter().map(|(what, all)| (*what, times(all))).collect();
    json!({
        "ok": happened.faults.is_empty(),
        "seed": options.seed,
        "events": options.events,
        "processes": options.processes,
        "rate_max": options.rate,
        "published_per_second": finished.published_per_second,
        "struck": happened.times,
        "kills_struck_at": happened.kills_at,
        "freezes_struck_at": happened.freezes_at,
        "ended_by_itself": happened.ended,
        "recovered_after_kill": times(&happened.after_kill),
        "recovered_after_freeze": times(&happened.after_freeze),
        "recovered_after_server": servers,
        "effects": finished.effects.figures(),
        "verdicts": finished.verdicts,
        "seconds": took.as_secs_f64(),
        "faults": happened.faults,
    })
}
