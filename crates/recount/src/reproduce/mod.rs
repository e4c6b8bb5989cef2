//! One event, decided again from a folder: `recount reproduce`.

use crate::exit::{Failure, Outcome};
use clap::Args;

/// `recount reproduce`.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    /// The event: flow/partition/offset
    #[arg(value_name = "POSITION")]
    pub position: String,
}

/// Runs the command.
pub fn command(_args: &ReproduceArgs) -> Outcome {
    Err(Failure::usage("`reproduce` is being built"))
}
