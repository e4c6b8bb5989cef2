//! The incident, shown: `recount demo`. An ordinary consumer and Recount read the same orders; the producer
//! renames a field. What is told comes from the run itself, and the folder is left for looking at.

mod account;
mod acts;
mod claims;
mod data;
mod figures;
mod folder;
mod ordinary;
mod program;
mod story;

use crate::exit::{Exit, Failure, Outcome};
use clap::Args;
use data::Orders;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// `recount demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {
    /// Leave everything in this folder, which must be new or empty; without it, a fresh temporary one
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
    /// Take orders-*.ndjson[.zst] and stock.csv[.zst] from this folder instead of the orders that are built in
    #[arg(long, value_name = "DIR")]
    pub data: Option<PathBuf>,
    /// Read at most so many orders of them
    #[arg(long, value_name = "N", default_value_t = 10_000)]
    pub orders: usize,
    /// After so many orders the producer renames the field: a number, or a share of all
    #[arg(long, value_name = "N|N%", default_value = "40%")]
    pub rename_at: String,
    /// Print all figures as one JSON object instead of the story
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn command(args: &DemoArgs) -> Outcome {
    let began = Instant::now();
    let orders = Orders::read(args)?;
    let root = folder::make(args.folder.as_deref())?;
    let mut figures = acts::perform(&orders, &root)?;
    figures.not_held = claims::not_held(&figures);
    figures.held = figures.not_held.is_empty();
    let exit = if figures.held { Exit::Well } else { Exit::NotWell };
    figures.exit_code = exit.code();
    figures.took_ms = u64::try_from(began.elapsed().as_millis()).unwrap_or(u64::MAX);
    if args.json {
        println!("{}", serde_json::json!(figures));
    } else {
        print!("{}", story::text(&figures));
    }
    Ok(exit)
}

/// A file of the demo's folder could not be read or written.
fn file_failure(path: &Path, error: impl std::fmt::Display) -> Failure {
    Failure::unreachable(format!("{}: {error}", path.display()))
}
