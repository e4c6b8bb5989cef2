//! The command line, described once: help, completions and man pages come from here.

mod args;
mod examples;
mod groups;
mod pages;
mod parse;

pub use args::{
    AuditArgs, CompletionsArgs, ConfigArg, ConfigOption, DeadLettersArgs, DeadLettersCommand, ExplainArgs,
    ExportForm, FailOn, LedgerArgs, LedgerCommand, ManArgs, OperateArgs, PublishArgs, ReplayArgs, RunArgs,
    StoryArgs, ValidateArgs,
};
pub use pages::{completions, man};
pub use parse::parse;

use crate::demo::DemoArgs;
use crate::init::InitArgs;
use crate::reproduce::ReproduceArgs;
use crate::status::StatusArgs;
use std::path::PathBuf;

use clap::{CommandFactory, Parser, Subcommand};

/// Consumes events and says what it did with every one of them.
#[derive(Debug, Parser)]
#[command(
    name = "recount",
    version,
    about = "Consumes events and says what it did with every one of them.",
    arg_required_else_help = true,
    disable_help_subcommand = true,
    after_help = "To begin: recount demo, then recount init --from EVENTS.ndjson. Each command tells more with --help.\n\n\
                  Exit codes, the first that applies: 2 usage or config; 4 the instance or ledger that was asked can't \
                  be reached; 1 what was asked about is not well; 3 unprovable; 0 well."
)]
pub struct Cli {
    /// The folder of the ledger, or of this process's replica of it, in place of the config's [ledger] path;
    /// RECOUNT_LEDGER_FOLDER says the same
    #[arg(long, global = true, value_name = "DIR")]
    pub ledger_folder: Option<PathBuf>,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented config and a schema from sampled events
    ///
    /// Reads up to 1,000 of your events and writes recount.toml and a JSON Schema, with a comment for each thing that
    /// it guessed and each that only you can say. It warns where a proposed id repeats, where a field's type
    /// varies and where bytes look like a schema registry's. Nothing is run and no database is touched.
    Init(InitArgs),
    /// Show every fault of a config, its promises, and who is told what
    ///
    /// Reads the config and the schemas that it names, and shows every fault at once, with file, line and what to
    /// write instead. If there is none, it says what each flow promises and why, what happens when (database
    /// away, bad bytes, disk full), and who is told for each reason. No event is read.
    Validate(ValidateArgs),
    /// Show the silent consumer, and what Recount says beside it
    ///
    /// An ordinary consumer with the silent line `if !isValid(event) { return nil }` and Recount read the same
    /// orders; at some point the producer renames a field. You see what each of them says, and when. It takes
    /// under a minute, needs nothing, and leaves its folder for you to look at.
    Demo(DemoArgs),
    /// Say what a reason means and what to do next
    ///
    /// Every event that is not applied has a reason, and every reason a page: what happened, likely causes, what
    /// to do next. Reasons that a config declares are explained too, with their rule, budget and because; a
    /// recount.toml in this folder is read by itself. Without a reason it lists them all.
    Explain(ExplainArgs),
    /// Run the flows of a config
    ///
    /// Takes events from each flow's source, checks them, applies them, and records what was decided about each
    /// and why. On a file it ends by itself: 0 if the file is drained and the books balance. Otherwise it runs
    /// until SIGTERM or Ctrl-C, finishes what is under way, and stops; started again, it goes on where it was. A
    /// flow that pauses itself on the way (reason breaker_open) waits for `recount resume`.
    ///
    /// Look first with --dry-run: everything is decided on copies, and nothing of yours is written. The log goes
    /// to standard error: for people on a terminal, else one JSON object a line ([log] format says otherwise).
    Run(RunArgs),
    /// Append events to a flow's embedded log
    ///
    /// For flows with source = { http = "/path" }: each line becomes one event, durably, as if it had been posted, and
    /// the positions are printed. Useful to try a flow, or to bring events from a file.
    Publish(PublishArgs),
    /// Let a flow take no more, with a reason that is recorded
    ///
    /// What is under way is finished; nothing further is taken, over restarts too, until `recount resume`. Asks
    /// the running instance, or writes into the ledger where none runs. Who paused it and why is shown by status.
    Pause(OperateArgs),
    /// Let a paused flow go on, with a reason that is recorded
    ///
    /// Undoes `recount pause`, and lets a flow go on that paused by itself because too many events were not
    /// applied (reason breaker_open). It also accepts, and records that, what else keeps a flow from working:
    /// budgets that were exceeded, positions that were not reported. Look first at why: recount status.
    Resume(OperateArgs),
    /// Say on one screen whether each flow is working, and why not
    ///
    /// The first line is the answer. Then each flow: published, decided, effects; the share of each verdict; each
    /// reason with its budget; what is open, held or dead-lettered; the last change. It asks the running instance,
    /// or reads ledger, source and database where none runs. It ends 0 only if all of it is well.
    Status(StatusArgs),
    /// Tell what was decided about a key, an id or a position
    ///
    /// Everything on record about one order, article or customer, across flows, as sentences with position, config
    /// version and evidence. Applied events are counted and the others told, unless --all is given.
    #[command(visible_alias = "why")]
    Story(StoryArgs),
    /// Count again: published = decided = what the database shows
    ///
    /// Reads source, ledger and database independently of the loop, and compares: does every position have a
    /// fate, does every applied decision have its effect, do your own equations hold. Each statement is balanced,
    /// open, imbalanced or unprovable, and says how strong it is. It writes nothing.
    Audit(AuditArgs),
    /// List dead letters, or show one whole
    ///
    /// A dead letter is an event that could not be applied, kept whole: payload, headers, what each check found,
    /// every attempt. Mend the cause, then bring them back with `recount replay`.
    #[command(visible_alias = "dlq")]
    DeadLetters(DeadLettersArgs),
    /// Decide events anew that were not applied
    ///
    /// Takes the events that were skipped or dead-lettered for a reason, or in a range, and decides them anew with
    /// the config of now. It says beforehand how many there are and how many can still be had; --dry-run says only that. None
    /// is applied twice, and each new decision names the one that it corrects.
    Replay(ReplayArgs),
    /// Write a folder that decides one event again: bytes, config of that time, a command
    ///
    /// For the question "why did it decide that?": the event as it was delivered, the config that was in force, and a
    /// command that decides it again on a copy. Nothing of yours is written.
    Reproduce(ReproduceArgs),
    /// Export decisions, mend after a restore, forget a key
    ///
    /// The ledger is the durable book of decisions, in the folder that [ledger] path names. It is only appended to:
    /// a correction is a new decision that names the old.
    Ledger(LedgerArgs),
    /// Write a shell's completions to standard output
    ///
    /// Put the output where your shell looks for completions; the examples say where that usually is.
    Completions(CompletionsArgs),
    /// Write the manual: a page for each command
    ///
    /// Without --folder, the page of recount itself goes to standard output. With it, one file for each command
    /// is written there: recount.1, recount-run.1 and so on.
    Man(ManArgs),
}

/// The whole command line as clap knows it: groups, examples and all.
pub fn description() -> clap::Command {
    examples::add(groups::show(Cli::command()))
}
