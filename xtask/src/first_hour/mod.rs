//! `cargo xtask first-hour`: what a newcomer does in the first hour, from a fresh clone, each output checked.
//!
//! The clone is made by this program and has only what is committed. Unless `RECOUNT_BINARY` names a program, recount is built there,
//! in this checkout's output folder so that dependencies need not be built again; the time that takes is told apart and doesn't count.
//! Of the README's two commands, `cargo test --workspace` is not run again: whoever runs this runs it anyway.

mod mistake;
mod newcomer;
mod steps;

use crate::inventory::Orders;
use crate::{example, program};
use anyhow::Result;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use steps::Hour;

/// A step that takes longer loses the newcomer.
const STEP_SECONDS_MAX: f64 = 60.0;

/// On what.
#[derive(clap::Args)]
pub struct Options {
    /// Take the orders and the stock list of this folder: orders*.ndjson[.zst] and stock*.csv[.zst]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
}

/// Takes every step; 1 where something is not as the documents say.
pub fn run(options: &Options, json: bool) -> Result<ExitCode> {
    let orders = example::orders(options.data.as_deref())?;
    let mut hour = Hour::new();
    let outcome = whole(&mut hour, &orders);
    if let Err(error) = &outcome {
        hour.faults.push(format!("it could not go on: {error:#}"));
    }
    hour.print();
    let ok = hour.faults.is_empty();
    if ok {
        println!("\n{} events; everything is as the documents say", orders.lines.len());
    }
    if json {
        println!(
            "{}",
            json!({
                "ok": ok,
                "events": orders.lines.len(),
                "built_from": hour.built_from,
                "build_seconds": hour.build_seconds,
                "steps": hour.steps.iter().map(steps::Step::json).collect::<Vec<_>>(),
                "seconds": hour.steps.iter().map(|step| step.seconds).sum::<f64>(),
                "slowest_step_seconds": hour.steps.iter().map(|step| step.seconds).fold(0.0, f64::max),
                "wrong_rule": hour.wrong_rule,
                "faults": hour.faults,
            })
        );
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

fn whole(hour: &mut Hour, orders: &Orders) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let binary = newcomer::clone(hour, &program::target().join("first-hour"))?;
    newcomer::demo(hour, &binary, &folder.path().join("demo"))?;
    newcomer::init(hour, &binary, orders, &folder.path().join("mine"))?;
    newcomer::rules(hour, &binary, orders, &folder.path().join("shop"))?;
    mistake::make_and_mend(hour, &binary, orders, &folder.path().join("mistake"))
}
