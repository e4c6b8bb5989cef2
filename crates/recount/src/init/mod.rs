//! A config and a schema from sampled events: `recount init`.

use crate::exit::{Failure, Outcome};
use clap::Args;

/// `recount init`.
#[derive(Debug, Args)]
pub struct InitArgs {
    /// Sample events from this file, one a line
    #[arg(long, value_name = "FILE")]
    pub from: std::path::PathBuf,
}

/// Runs the command.
pub fn command(_args: &InitArgs) -> Outcome {
    Err(Failure::usage("`init` is being built"))
}
