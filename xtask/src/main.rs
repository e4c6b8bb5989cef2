//! The project's own chores.

mod orders;
mod program;
mod shop;
mod tidy;

use anyhow::Result;
use clap::{Parser, Subcommand};
use std::process::ExitCode;

/// The project's own chores. Each exits 1 where what it checks does not hold.
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
}

fn main() -> Result<ExitCode> {
    let arguments = Arguments::parse();
    match arguments.chore {
        Chore::Tidy => tidy::run(arguments.json),
    }
}
