//! `recount run`.

use super::{paused, waiting};
use crate::cli::{FailOn, RunArgs};
use crate::config::{Config, EffectConfig, FlowMode, SourceConfig};
use crate::exit::{Exit, Failure, Outcome};
use crate::metrics::{FlowMetrics, book_metrics, render};
use crate::server::Server;
use crate::wiring::audit::{AuditOptions, count_again, tell_paused};
use crate::wiring::letters::{self, tell_letters};
use crate::wiring::{self, Handlers, RunOptions, Running};
use crate::{logging, steps};
use indicatif::{ProgressBar, ProgressStyle};
use recount_audit::AuditReport;
use recount_engine::{FlowCounts, FlowEnd};
use std::io::IsTerminal;
use std::time::{Duration, Instant};
use tokio::signal::unix::{Signal, SignalKind, signal};

/// At the end of a run, so many names in a finding.
const NAMES_MAX: usize = 20;
/// Signals that come this soon after the first are the same request.
const ONE_REQUEST: Duration = Duration::from_millis(500);

/// Runs the flows of a config until their sources are drained, or a signal asks them to stop.
pub fn run(args: &RunArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    logging::start(&config.log);
    for warning in &config.warnings {
        eprintln!("{}", warning.render("warning"));
    }
    if args.dry_run {
        let dry = wiring::dry_run(config, &args.flows)?;
        eprintln!(
            "dry run: everything is decided from the first event on, {}; nothing is kept",
            wiring::tried_where(&dry.config)
        );
        return run_config(&dry.config, args);
    }
    if !args.checks_only {
        refuse_without_effect(&config, &args.flows)?;
    }
    run_config(&config, args)
}

/// A flow without an effect would record every event as applied, for good, while nothing is done.
fn refuse_without_effect(config: &Config, wanted: &[String]) -> Result<(), Failure> {
    let is_wanted = |name: &str| wanted.is_empty() || wanted.iter().any(|wanted| wanted == name);
    let without = config.flows.iter().find(|flow| {
        matches!(flow.effect, EffectConfig::None)
            && flow.mode == FlowMode::Run
            && is_wanted(flow.spec.flow.as_str())
    });
    let Some(flow) = without else { return Ok(()) };
    let name = &flow.spec.flow;
    Err(Failure::usage(format!(
        "flow {name} has no apply, so every event that passes its checks would be recorded as applied, for good, and \
         nothing be done. Write [flow.{name}.apply]; or try the checks: recount run --dry-run; or, where checking is \
         all that is wanted: recount run --checks-only"
    )))
}

fn run_config(config: &Config, args: &RunArgs) -> Outcome {
    let runtime = super::runtime()?;
    let began = Instant::now();
    let (ends, counts, before, took) = runtime.block_on(async {
        let options =
            RunOptions { again: args.again, adopt: args.adopt, read_sources: true, operator_only: false };
        let signals = Signals::new();
        let listening = wiring::listen(config)?;
        let mut running =
            wiring::start(config, &args.flows, options, &Handlers::new(), steps::probe(), Some(&listening))
                .await?;
        let server = Server::start(config, &mut running, listening).await?;
        let bar = progress_bar(config, &running);
        let (ends, ()) =
            tokio::join!(until_ended(&running, &bar, signals), paused::watch(config, &running, args.dry_run));
        running.finish_letters().await;
        let took = began.elapsed();
        if !args.dry_run && ends.iter().all(|end| matches!(end, FlowEnd::Drained)) {
            waiting::for_effects(config, &args.flows).await?;
        }
        let before = running.decided_before.clone();
        let counts: Vec<FlowCounts> = running.flows.iter().map(|flow| flow.handle.stats()).collect();
        server.stop().await;
        Ok::<_, Failure>((ends, counts, before, took))
    })?;
    runtime.shutdown_timeout(Duration::from_secs(5));
    conclude(config, args, &ends, &counts, &before, took)
}

/// Waits for the flows, passing signals on to them, with a bar where somebody watches.
pub(crate) async fn until_ended(running: &Running, bar: &ProgressBar, mut signals: Signals) -> Vec<FlowEnd> {
    let mut asked: Option<Instant> = None;
    let mut tick = tokio::time::interval(Duration::from_millis(200));
    loop {
        tokio::select! {
            () = signals.next() => {
                match asked {
                    // A shell or `timeout` signals the process and its group: that is one request, not two.
                    Some(first) if first.elapsed() < ONE_REQUEST => continue,
                    // The second means at once: what was committed is found again at the next start.
                    Some(_) => std::process::exit(130),
                    None => asked = Some(Instant::now()),
                }
                tracing::info!("drains what is under way and stops; a second signal stops at once");
                running.flows.iter().for_each(|flow| flow.handle.shut_down());
            }
            _ = tick.tick() => {
                show_progress(bar, running);
            }
            ends = all_ended(running) => {
                bar.finish_and_clear();
                return ends;
            }
        }
    }
}

pub(crate) async fn all_ended(running: &Running) -> Vec<FlowEnd> {
    let mut ends = Vec::with_capacity(running.flows.len());
    for flow in &running.flows {
        ends.push(flow.handle.wait().await);
    }
    ends
}

fn progress_bar(config: &Config, running: &Running) -> ProgressBar {
    let follows = |source: &SourceConfig| !matches!(source, SourceConfig::File { follow: false, .. });
    let is_endless = running.flows.iter().any(|flow| follows(&flow.config.source));
    if is_endless || !std::io::stderr().is_terminal() || config.flows.is_empty() {
        return ProgressBar::hidden();
    }
    let template = "{spinner} {human_pos} decided, {per_sec}, {msg}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner());
    ProgressBar::new_spinner().with_style(style)
}

fn show_progress(bar: &ProgressBar, running: &Running) {
    if bar.is_hidden() {
        return;
    }
    let mut decided = 0;
    let mut not_applied = 0;
    for flow in &running.flows {
        for ((verdict, _), count) in &flow.handle.stats().decisions {
            decided += count;
            not_applied += if *verdict == "applied" { 0 } else { *count };
        }
    }
    bar.set_position(decided);
    bar.set_message(format!("{not_applied} of them not applied"));
}

/// SIGTERM and SIGINT, from when it was made on.
pub(crate) struct Signals {
    terminate: Option<Signal>,
    interrupt: Option<Signal>,
}

impl Signals {
    /// To be made before a flow starts: a signal that comes earlier than this ends the process at once.
    pub(crate) fn new() -> Self {
        // Where a signal can't be watched, it ends the process, which loses nothing.
        Self {
            terminate: signal(SignalKind::terminate()).ok(),
            interrupt: signal(SignalKind::interrupt()).ok(),
        }
    }

    pub(crate) async fn next(&mut self) {
        tokio::select! {
            () = came(&mut self.terminate) => {}
            () = came(&mut self.interrupt) => {}
        }
    }
}

async fn came(signal: &mut Option<Signal>) {
    match signal {
        Some(signal) => drop(signal.recv().await),
        None => std::future::pending().await,
    }
}

/// Prints summary and books, writes the metrics, and gives the exit code.
fn conclude(
    config: &Config,
    args: &RunArgs,
    ends: &[FlowEnd],
    counts: &[FlowCounts],
    decided_before: &[u64],
    took: Duration,
) -> Outcome {
    let mut report =
        count_again(config, &args.flows, AuditOptions { identified: false, names_max: NAMES_MAX })?;
    tell_paused(config, &mut report)?;
    tell_letters(config, &mut report)?;
    if let Some(path) = &args.metrics_file {
        let text = metrics_text(config, args, counts, &report);
        std::fs::write(path, text)
            .map_err(|error| Failure::usage(format!("{} can't be written: {error}", path.display())))?;
    }
    let exit = exit_of(args, ends, counts, &report);
    if args.json {
        println!("{}", summary_json(&report, ends, counts, decided_before, took, exit));
    } else {
        for ((flow, end), (counts, before)) in
            report.flows.iter().zip(ends).zip(counts.iter().zip(decided_before))
        {
            println!("{}", summary_line(flow.flow.as_str(), end, counts, *before, took));
        }
        println!();
        print!("{}", recount_audit::render::text(&report));
    }
    Ok(exit)
}

fn decided(counts: &FlowCounts) -> u64 {
    counts.decisions.values().sum()
}

/// How a flow ended and how much it decided, in one line.
pub(crate) fn summary_line(
    flow: &str,
    end: &FlowEnd,
    counts: &FlowCounts,
    before: u64,
    took: Duration,
) -> String {
    let new = decided(counts);
    let what = match end {
        FlowEnd::Stopped(stops) => {
            let sentences: Vec<_> = stops.iter().map(ToString::to_string).collect();
            return format!("flow {flow} stopped after {new} decisions: {}", sentences.join("; "));
        }
        FlowEnd::ShutDown => "shut down",
        FlowEnd::Drained => "drained",
    };
    if new == 0 && before > 0 {
        return format!("flow {flow} {what}: {before} already decided, nothing new");
    }
    let seconds = took.as_secs_f64();
    let rate = new as f64 / seconds.max(0.001);
    format!(
        "flow {flow} {what}: {new} decided in {seconds:.1} s ({rate:.0} a second), {before} were decided before"
    )
}

fn exit_of(args: &RunArgs, ends: &[FlowEnd], counts: &[FlowCounts], report: &AuditReport) -> Exit {
    if ends.iter().any(|end| matches!(end, FlowEnd::Stopped(_))) {
        return Exit::NotWell;
    }
    let count = |word: &str| -> u64 {
        let of_flow = |counts: &FlowCounts| -> u64 {
            counts.decisions.iter().filter(|((verdict, _), _)| *verdict == word).map(|(_, n)| *n).sum()
        };
        counts.iter().map(of_flow).sum()
    };
    let failed = args.fail_on.iter().any(|what| match what {
        FailOn::DeadLetters => count("dead-lettered") > 0,
        FailOn::Skips => count("skipped") > 0,
        FailOn::Flags => counts.iter().any(|counts| counts.flags.values().any(|n| *n > 0)),
    });
    if failed { Exit::NotWell } else { Exit::from_code(i32::from(report.exit_code())) }
}

fn metrics_text(whole: &Config, args: &RunArgs, counts: &[FlowCounts], report: &AuditReport) -> String {
    let is_wanted = |name: &str| args.flows.is_empty() || args.flows.iter().any(|wanted| wanted == name);
    let flows = whole.flows.iter().filter(|flow| is_wanted(flow.spec.flow.as_str()));
    let metrics: Vec<FlowMetrics<'_>> = flows
        .zip(counts)
        .map(|(config, counts)| {
            let audited = report.flows.iter().find(|flow| flow.flow == config.spec.flow);
            FlowMetrics {
                config,
                counts: counts.clone(),
                books: audited.map(book_metrics).unwrap_or_default(),
                group: audited.and_then(crate::metrics::group_metric),
                book_counts: audited.map(|flow| flow.books.counts),
                audit_completed_s: Some(report.at.0 / 1000),
                letters: letters::standing(whole, config).ok().flatten(),
            }
        })
        .collect();
    render(&metrics)
}

fn summary_json(
    report: &AuditReport,
    ends: &[FlowEnd],
    counts: &[FlowCounts],
    decided_before: &[u64],
    took: Duration,
    exit: Exit,
) -> serde_json::Value {
    let mut json = report.json();
    json["command"] = "run".into();
    json["exit_code"] = exit.code().into();
    json["took_ms"] = u64::try_from(took.as_millis()).unwrap_or(u64::MAX).into();
    let flows = json["flows"].as_array_mut();
    for (i, flow) in flows.into_iter().flatten().enumerate() {
        let (word, stops) = match &ends[i] {
            FlowEnd::Drained => ("drained", Vec::new()),
            FlowEnd::ShutDown => ("shut down", Vec::new()),
            FlowEnd::Stopped(stops) => {
                let json = stops.iter().map(
                    |stop| serde_json::json!({ "reason": stop.reason.as_str(), "sentence": stop.sentence }),
                );
                ("stopped", json.collect())
            }
        };
        flow["end"] = word.into();
        flow["stops"] = stops.into();
        flow["decided_now"] = decided(&counts[i]).into();
        flow["decided_before"] = decided_before[i].into();
        flow["attempts"] = counts[i].attempts.into();
        flow["batches"] = counts[i].batches.into();
    }
    json
}
