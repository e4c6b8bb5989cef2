//! The project's own chores.

mod bench;
mod conformance;
mod dist;
mod example;
mod first_hour;
mod inventory;
mod kill;
mod orders;
mod program;
mod random;
mod samples;
mod services;
mod shop;
mod simulate;
mod tidy;
mod torture;
mod verify;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's own chores. Each exits 1 where what it checks does not hold. `RECOUNT_BINARY` names a
/// program to be tried instead of the one that would be built.
#[derive(Parser)]
#[command(name = "cargo xtask")]
struct Arguments {
    /// Print the figures as one JSON object on the last line.
    #[arg(long, global = true)]
    json: bool,
    #[command(subcommand)]
    chore: Chore,
}

#[derive(Subcommand)]
enum Chore {
    /// Check what the workspace promises of its own shape: edges, docs, reasons with pages, lengths.
    Tidy,
    /// Run an example from scratch and show what came of it.
    Example(example::Options),
    /// Do what a newcomer does in the first hour, from a fresh clone, and check each output.
    FirstHour(first_hour::Options),
    /// Kill `recount run` at random instants, and compare the end with an undisturbed one.
    Kill(kill::Options),
    /// Hold each source against what it declares: the same properties for file, HTTP and Kafka, on real servers.
    Conformance(conformance::Options),
    /// Drive the production loop over a file system, a database and a source that fail, from seeds.
    Simulate(simulate::Options),
    /// Publish to a real broker while processes are killed and frozen and servers restarted, and check each effect.
    Torture(torture::Options),
    /// Start real servers for tests (PostgreSQL, Kafka) on private ports, or stop them.
    Services(services::Options),
    /// Pack binary, completions, manual and example; check them, the service's unit and the container's recipe.
    Dist(dist::Options),
    /// Check the samples for Kubernetes and Compose: schemas, what must fit, and their flow on real servers.
    Samples,
    /// Measure what Recount costs beside a consumer written by hand.
    Bench(bench::Options),
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.chore {
        Chore::Tidy => tidy::run(arguments.json),
        Chore::Example(options) => example::run(options, arguments.json),
        Chore::Services(options) => services::run(options, arguments.json),
        Chore::FirstHour(options) => first_hour::run(&options, arguments.json),
        Chore::Conformance(options) => conformance::run(&options, arguments.json),
        Chore::Simulate(options) => simulate::run(options, arguments.json),
        Chore::Dist(options) => dist::run(&options, arguments.json),
        Chore::Samples => samples::run(arguments.json),
        Chore::Bench(options) => bench::run(options, arguments.json),
        Chore::Torture(options) => torture::run(options, arguments.json),
        Chore::Kill(options) => kill::run(options, arguments.json),
    }
}
