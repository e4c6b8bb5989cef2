//! The incident, shown: `recount demo`.

use crate::exit::{Failure, Outcome};
use clap::Args;

/// `recount demo`.
#[derive(Debug, Args)]
pub struct DemoArgs {}

/// Runs the command.
pub fn command(_args: &DemoArgs) -> Outcome {
    Err(Failure::usage("`demo` is being built"))
}
