//! The recount command.

use clap::Parser;
use recount::cli::Cli;
use std::process::ExitCode;

fn main() -> ExitCode {
    match recount::commands::run(Cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{}", failure.message.trim_end());
            failure.exit.into()
        }
    }
}
