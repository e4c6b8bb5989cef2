//! Seeds in a row, and what `cargo xtask simulate` prints of them.

use crate::options::{Arguments, Options};
use crate::report::{Report, Summary};
use crate::vfs::FileSystem;
use crate::{run, scene};
use recount_checks::FlowChecks;
use std::cell::OnceCell;
use std::fmt::Write as _;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Instant;

thread_local! {
    /// SQLite keeps a pointer to a file system for ever, so each thread has one; compiled rules are the
    /// same for every seed.
    static TOOLS: OnceCell<(&'static FileSystem, Arc<FlowChecks>)> = const { OnceCell::new() };
}

/// Simulates one seed.
pub fn run_one(seed: u64, options: &Options) -> Report {
    let (files, checks) =
        TOOLS.with(|tools| tools.get_or_init(|| (FileSystem::register(), Arc::new(scene::checks()))).clone());
    run::simulate(files, checks, seed, options)
}

/// Simulates seeds until one fails, `visit` breaks, or all are done. A failure is run again with its last
/// steps written down.
pub fn run_many(
    seeds: impl Iterator<Item = u64>,
    options: &Options,
    mut visit: impl FnMut(&Summary) -> ControlFlow<()>,
) -> Summary {
    let began = Instant::now();
    let mut summary = Summary::default();
    for seed in seeds {
        let report = run_one(seed, options);
        summary.add(&report);
        summary.seconds = began.elapsed().as_secs_f64();
        if report.violation.is_some() {
            summary.failure = Some(run_one(seed, &Options { is_traced: true, ..options.clone() }));
            break;
        }
        if visit(&summary).is_break() {
            break;
        }
    }
    summary
}

/// What is printed, and whether all is well: for `cargo xtask simulate`.
pub fn simulate(arguments: &Arguments) -> (String, bool) {
    if let Some(seed) = arguments.seed {
        return replay(seed, arguments);
    }
    let options = Options { sabotage: arguments.sabotage, ..Options::default() };
    let seeds = arguments.first_seed..arguments.first_seed + arguments.seeds;
    let began = Instant::now();
    let summary = run_many(seeds, &options, |_| match arguments.time_max {
        Some(max) if began.elapsed() >= max => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    let is_well = summary.failure.is_some() == arguments.sabotage.is_some();
    let mut text = told(&summary, arguments);
    if arguments.json {
        writeln!(text, "{}", as_json(&summary, arguments, is_well)).expect("a string takes everything");
    }
    (text, is_well)
}

/// One seed twice: it must do the same both times.
fn replay(seed: u64, arguments: &Arguments) -> (String, bool) {
    let options = Options { sabotage: arguments.sabotage, is_traced: true, ..Options::default() };
    let (first, second) = (run_one(seed, &options), run_one(seed, &options));
    let is_same = first.trace == second.trace && first.violation == second.violation;
    let mut summary = Summary::default();
    summary.add(&first);
    summary.failure = first.violation.is_some().then(|| first.clone());
    let mut text = told(&summary, arguments);
    if summary.failure.is_none() {
        text.push_str(&steps(&first));
    }
    let sameness = if is_same { "the same" } else { "NOT the same" };
    text.push_str(&format!("trace {:016x}; a second run did {sameness}\n", first.trace));
    let is_well = is_same && first.violation.is_some() == arguments.sabotage.is_some();
    if arguments.json {
        text.push_str(&format!("{}\n", as_json(&summary, arguments, is_well)));
    }
    (text, is_well)
}

fn steps(report: &Report) -> String {
    report.steps.iter().map(|step| format!("  {step}\n")).collect()
}

fn told(summary: &Summary, arguments: &Arguments) -> String {
    let mut text = String::new();
    for (name, times) in &summary.counts {
        text.push_str(&format!("{times:>12}  {name}\n"));
    }
    let rate = if summary.seconds > 0.0 { summary.seeds as f64 / summary.seconds } else { 0.0 };
    text.push_str(&format!(
        "{} seeds, {} events, {} file operations, {:.1} s, {rate:.0} seeds/s\n",
        summary.seeds, summary.events, summary.operations, summary.seconds
    ));
    match (&summary.failure, arguments.sabotage) {
        (None, None) => text.push_str("every invariant held\n"),
        (None, Some(sabotage)) => {
            text.push_str(&format!(
                "without the guard {sabotage} every invariant held: its absence is not noticed\n"
            ));
        }
        (Some(failure), _) => {
            let violation = failure.violation.as_deref().unwrap_or("a second run of it did not fail");
            text.push_str(&format!(
                "seed {}: {violation}\nthe last steps:\n{}",
                failure.seed,
                steps(failure)
            ));
            let sabotage = arguments.sabotage.map(|s| format!(" --sabotage {s}")).unwrap_or_default();
            text.push_str(&format!("again: cargo xtask simulate --seed {}{sabotage}\n", failure.seed));
        }
    }
    text
}

fn as_json(summary: &Summary, arguments: &Arguments, is_well: bool) -> serde_json::Value {
    let failure = summary.failure.as_ref().map(|report| {
        serde_json::json!({ "seed": report.seed, "violation": report.violation, "steps": report.steps })
    });
    serde_json::json!({
        "chore": "simulate",
        "well": is_well,
        "seeds": summary.seeds,
        "events": summary.events,
        "file_operations": summary.operations,
        "seconds": summary.seconds,
        "sabotage": arguments.sabotage.map(|sabotage| sabotage.word()),
        "occurred": summary.counts,
        "failure": failure,
    })
}
