//! The command line, described once: help, completions and man page come from here.

use crate::demo::DemoArgs;
use crate::init::InitArgs;
use crate::reproduce::ReproduceArgs;
use crate::status::StatusArgs;
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::path::PathBuf;

/// Consumes events and says what it did with every one of them.
#[derive(Debug, Parser)]
#[command(
    name = "recount",
    version,
    about = "Consumes events and says what it did with every one of them.",
    disable_help_subcommand = true,
    after_help = "Exit codes, the first that applies: 2 usage or config; 4 the instance or ledger that was asked can't \
                  be reached; 1 what was asked about is not well; 3 unprovable; 0 well.",
    help_template = "{about}\n\n{usage-heading} {usage}\n\n\
Set up:\n  init          Write a commented config and a schema from sampled events\n  \
validate      Show every fault of a config, its promises, and who is told what\n  \
demo          Show the silent consumer, and what Recount says beside it\n  \
explain       Say what a reason means and what to do next\n\n\
Run:\n  run           Run the flows of a config\n  \
publish       Append events to a flow's embedded log\n  \
pause         Let a flow take no more, with a reason that is recorded\n  \
resume        Let a paused flow go on, with a reason that is recorded\n\n\
At 2 AM:\n  status        Say on one screen whether each flow is working, and why not\n  \
story         Tell what was decided about a key, an id or a position (alias: why)\n  \
audit         Count again: published = decided = what the database shows\n  \
dead-letters  List dead letters, or show one whole (alias: dlq)\n  \
replay        Decide events anew that were not applied\n  \
reproduce     Write a folder that decides one event again\n\n\
Keep well:\n  ledger        Export decisions, mend after a restore, forget a key\n\nOptions:\n{options}{after-help}"
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Write a commented config and a schema from sampled events
    Init(InitArgs),
    /// Show the silent consumer, and what Recount says beside it
    Demo(DemoArgs),
    /// Say on one screen whether each flow is working, and why not
    Status(StatusArgs),
    /// Write a folder that decides one event again: bytes, config of that time, a command
    Reproduce(ReproduceArgs),
    /// Run the flows of a config
    Run(RunArgs),
    /// Show every fault of a config, its promises, and who is told what
    Validate(ValidateArgs),
    /// Say what a reason means and what to do next
    Explain(ExplainArgs),
    /// Append events to a flow's embedded log
    Publish(PublishArgs),
    /// Let a flow take no more, with a reason that is recorded
    Pause(OperateArgs),
    /// Let a paused flow go on, with a reason that is recorded
    Resume(OperateArgs),
    /// Tell what was decided about a key, an id or a position
    #[command(alias = "why")]
    Story(StoryArgs),
    /// Count again: published = decided = what the database shows
    Audit(AuditArgs),
    /// List dead letters, or show one whole
    #[command(alias = "dlq")]
    DeadLetters(DeadLettersArgs),
    /// Decide events anew that were not applied
    Replay(ReplayArgs),
    /// Export decisions, mend after a restore, forget a key
    Ledger(LedgerArgs),
}

/// Which config, for the commands that take it as their argument.
#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The config
    #[arg(value_name = "CONFIG", default_value = "recount.toml", env = "RECOUNT_CONFIG")]
    pub config: PathBuf,
}

/// Which config, for the commands whose argument is something else.
#[derive(Debug, Args)]
pub struct ConfigOption {
    /// The config
    #[arg(
        short,
        long = "config",
        value_name = "CONFIG",
        default_value = "recount.toml",
        env = "RECOUNT_CONFIG"
    )]
    pub config: PathBuf,
}

/// `recount run`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  recount run recount.toml\n  recount run recount.toml --dry-run\n  \
recount run recount.toml --fail-on dead-letters,skips --metrics-file metrics.txt")]
pub struct RunArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArg,
    /// Decide everything on a copy of the database and a ledger that is thrown away
    #[arg(long)]
    pub dry_run: bool,
    /// Exit 1 if there were any
    #[arg(long, value_delimiter = ',', value_name = "WHAT")]
    pub fail_on: Vec<FailOn>,
    /// Write the metrics to this file at the end (OpenMetrics)
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Read the source from its first event as if it were another: everything is decided and APPLIED again
    #[arg(long)]
    pub again: bool,
    /// Go on although the ledger lost decisions: their positions are recorded as unrecorded, for ever
    #[arg(long)]
    pub adopt: bool,
    /// Run only these flows
    #[arg(long = "flow", value_name = "FLOW")]
    pub flows: Vec<String>,
    /// Print the summary as one JSON object
    #[arg(long)]
    pub json: bool,
}

/// What `--fail-on` looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum FailOn {
    /// Any dead letter.
    DeadLetters,
    /// Any skipped event.
    Skips,
    /// Any flag.
    Flags,
}

/// `recount validate`.
#[derive(Debug, Args)]
pub struct ValidateArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArg,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
    /// Print the SQL of the tables that Recount keeps in the database
    #[arg(long)]
    pub prepare: bool,
}

/// `recount explain`.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  recount explain schema_mismatch")]
pub struct ExplainArgs {
    /// The reason's code; none lists them all
    #[arg(value_name = "REASON")]
    pub reason: Option<String>,
    /// Also explain the reasons that this config declares
    #[arg(short, long = "config", value_name = "CONFIG", env = "RECOUNT_CONFIG")]
    pub config: Option<PathBuf>,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `recount publish`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  recount publish orders --file orders.ndjson\n  \
echo '{\"id\":\"1\"}' | recount publish orders")]
pub struct PublishArgs {
    /// The flow, whose source must be http
    #[arg(value_name = "FLOW")]
    pub flow: String,
    /// One event a line; - is standard input
    #[arg(long, value_name = "FILE", default_value = "-")]
    pub file: PathBuf,
    /// Which config
    #[command(flatten)]
    pub config: ConfigOption,
    /// Print the receipts as JSON
    #[arg(long)]
    pub json: bool,
}

/// `recount pause` and `recount resume`.
#[derive(Debug, Args)]
pub struct OperateArgs {
    /// The flow
    #[arg(value_name = "FLOW")]
    pub flow: String,
    /// Why; it is recorded
    #[arg(long, value_name = "REASON")]
    pub because: String,
    /// Which config
    #[command(flatten)]
    pub config: ConfigOption,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `recount story`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  recount story 1095275\n  recount story 31198570044-1095275\n  \
recount story reserve-stock/0/4711")]
pub struct StoryArgs {
    /// A key, an event id, or a position flow/partition/offset
    #[arg(value_name = "KEY")]
    pub key: String,
    /// Tell every applied event too, instead of counting them
    #[arg(long)]
    pub all: bool,
    /// Which config
    #[command(flatten)]
    pub config: ConfigOption,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `recount audit`.
#[derive(Debug, Args)]
pub struct AuditArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArg,
    /// Name at most so many positions, ids or groups in a finding
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub names: usize,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `recount dead-letters`.
#[derive(Debug, Args)]
pub struct DeadLettersArgs {
    /// List or show
    #[command(subcommand)]
    pub command: DeadLettersCommand,
}

/// What to do with dead letters.
#[derive(Debug, Subcommand)]
pub enum DeadLettersCommand {
    /// List dead letters, by reason, newest last
    List {
        /// Of this flow
        #[arg(long, value_name = "FLOW")]
        flow: Option<String>,
        /// With this reason
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// At most so many lines
        #[arg(long, value_name = "N", default_value_t = 50)]
        limit: usize,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Show one whole: payload, headers, every attempt, what to do next
    Show {
        /// An event id, or a position flow/partition/offset
        #[arg(value_name = "ID")]
        id: String,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// `recount replay`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  recount replay reserve-stock --reason unknown_sku --dry-run\n  \
recount replay reserve-stock --reason unknown_sku --because 'the list was completed'\n  \
recount replay reserve-stock --dead-letter reserve-stock/0/4711 --because 'one of them first'")]
pub struct ReplayArgs {
    /// The flow
    #[arg(value_name = "FLOW")]
    pub flow: String,
    /// Those with this reason
    #[arg(long, value_name = "REASON")]
    pub reason: Option<String>,
    /// Those decided at or after this instant, or from this offset
    #[arg(long, value_name = "WHEN")]
    pub from: Option<String>,
    /// Those decided before this instant, or below this offset
    #[arg(long, value_name = "WHEN")]
    pub to: Option<String>,
    /// This one: an event id, or a position flow/partition/offset
    #[arg(long, value_name = "ID")]
    pub dead_letter: Option<String>,
    /// Only say how many there are and how many can still be had
    #[arg(long)]
    pub dry_run: bool,
    /// Why; it is recorded
    #[arg(long, value_name = "REASON", required_unless_present = "dry_run")]
    pub because: Option<String>,
    /// Which config
    #[command(flatten)]
    pub config: ConfigOption,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// `recount ledger`.
#[derive(Debug, Args)]
pub struct LedgerArgs {
    /// What to do
    #[command(subcommand)]
    pub command: LedgerCommand,
}

/// What to do with the ledger.
#[derive(Debug, Subcommand)]
pub enum LedgerCommand {
    /// Write decisions as NDJSON or CSV to standard output
    Export {
        /// The form
        #[arg(long, value_enum, default_value_t = ExportForm::Ndjson)]
        form: ExportForm,
        /// Of this flow
        #[arg(long, value_name = "FLOW")]
        flow: Option<String>,
        /// With this key
        #[arg(long, value_name = "KEY")]
        key: Option<String>,
        /// With this verdict: applied, skipped, dead-lettered
        #[arg(long, value_name = "VERDICT")]
        verdict: Option<String>,
        /// With this reason or flag
        #[arg(long, value_name = "REASON")]
        reason: Option<String>,
        /// Decided at or after (RFC 3339)
        #[arg(long, value_name = "WHEN")]
        from: Option<String>,
        /// Decided before (RFC 3339)
        #[arg(long, value_name = "WHEN")]
        to: Option<String>,
        /// Also decisions that were corrected
        #[arg(long)]
        superseded: bool,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
    },
    /// Mend after the database was restored from earlier than the ledger
    Recover {
        /// Apply the events again whose effects are gone
        #[arg(long, conflicts_with = "accept", required_unless_present = "accept")]
        reapply: bool,
        /// Accept that their effects are gone; recorded as a decision for each
        #[arg(long)]
        accept: bool,
        /// Why; it is recorded
        #[arg(long, value_name = "REASON")]
        because: String,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Destroy payloads, ids and key of a key; verdicts and positions stay
    Forget {
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
        /// Why; it is recorded
        #[arg(long, value_name = "REASON")]
        because: String,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
}

/// How decisions are exported.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ExportForm {
    /// One JSON object a line.
    Ndjson,
    /// Comma-separated, with a header.
    Csv,
}
