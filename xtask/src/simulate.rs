//! `cargo xtask simulate`: the simulator's seeds, from the command line.

use anyhow::{Result, anyhow};
use recount_simulator::{Arguments, Sabotage, simulate};
use std::process::ExitCode;
use std::time::Duration;

/// Which seeds, and for how long.
#[derive(clap::Args)]
pub struct Options {
    /// So many seeds
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them
    #[arg(long, default_value_t = 1)]
    first_seed: u64,
    /// Only this one, twice, with its last steps
    #[arg(long)]
    seed: Option<u64>,
    /// Begin no new seed after so many seconds
    #[arg(long)]
    seconds: Option<u64>,
    /// Take a guard away; then a failure is what is wanted
    #[arg(long, value_name = "NAME")]
    sabotage: Option<String>,
}

/// Simulates; 1 where a promise was broken, or a sabotage was not noticed.
pub fn run(options: Options, json: bool) -> Result<ExitCode> {
    let sabotage =
        options.sabotage.map(|name| name.parse::<Sabotage>()).transpose().map_err(|text| anyhow!(text))?;
    let arguments = Arguments {
        first_seed: options.first_seed,
        seeds: options.seeds,
        seed: options.seed,
        time_max: options.seconds.map(Duration::from_secs),
        sabotage,
        json,
    };
    let (text, is_well) = simulate(&arguments);
    print!("{text}");
    Ok(ExitCode::from(u8::from(!is_well)))
}
