//! What each command does.

mod audit;
mod control;
mod dead_letters;
mod ledger;
mod publish;
mod recover;
mod replay;
pub(crate) mod run;
mod select;
mod story;

use crate::cli::{Cli, Command};
use crate::exit::{Failure, Outcome};

/// Runs a command.
pub fn run(cli: Cli) -> Outcome {
    match cli.command {
        Command::Init(args) => crate::init::command(&args),
        Command::Demo(args) => crate::demo::command(&args),
        Command::Status(args) => crate::status::command(&args),
        Command::Reproduce(args) => crate::reproduce::command(&args),
        Command::Run(args) => run::run(&args),
        Command::Validate(args) => crate::validate::command(&args),
        Command::Explain(args) => crate::explain::command(&args),
        Command::Publish(args) => publish::publish(&args),
        Command::Pause(args) => control::pause(&args),
        Command::Resume(args) => control::resume(&args),
        Command::Story(args) => story::story(&args),
        Command::Audit(args) => audit::audit(&args),
        Command::DeadLetters(args) => dead_letters::dead_letters(&args.command),
        Command::Replay(args) => replay::replay(&args),
        Command::Ledger(args) => ledger::ledger(&args.command),
    }
}

/// A runtime for the commands that start flows.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let builder = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    builder.map_err(|error| Failure::unreachable(format!("no threads can be started: {error}")))
}

/// Who does this: for the journal.
pub(crate) fn operator() -> String {
    let named = std::env::var("RECOUNT_AUTHOR").or_else(|_| std::env::var("USER"));
    named.unwrap_or_else(|_| "unknown".to_owned())
}
