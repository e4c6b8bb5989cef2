//! One screen: is it working: `recount status`.

use crate::exit::{Failure, Outcome};
use clap::Args;

/// `recount status`.
#[derive(Debug, Args)]
pub struct StatusArgs {}

/// Runs the command.
pub fn command(_args: &StatusArgs) -> Outcome {
    Err(Failure::usage("`status` is being built"))
}
