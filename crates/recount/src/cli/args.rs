//! What each command takes.

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{Arg, ArgMatches, Args, Command, FromArgMatches, Subcommand, ValueEnum, value_parser};
use std::path::PathBuf;

/// Which config, for the commands that take it as their argument. `-c` is taken too, so that one spelling
/// works with every command.
#[derive(Debug)]
pub struct ConfigArg {
    /// The config
    pub config: PathBuf,
}

/// The id of `-c`, where the config is also an argument.
const CONFIG_OPTION: &str = "config_option";

impl Args for ConfigArg {
    fn augment_args(command: Command) -> Command {
        let argument = Arg::new("config")
            .value_name("CONFIG")
            .help("The config")
            .default_value("recount.toml")
            .env("RECOUNT_CONFIG")
            .value_parser(value_parser!(PathBuf));
        let option = Arg::new(CONFIG_OPTION)
            .short('c')
            .long("config")
            .value_name("CONFIG")
            .help("The same, as other commands take it")
            .hide(true)
            .value_parser(value_parser!(PathBuf));
        command.arg(argument).arg(option)
    }

    fn augment_args_for_update(command: Command) -> Command {
        Self::augment_args(command)
    }
}

impl FromArgMatches for ConfigArg {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        let argument = matches.get_one::<PathBuf>("config");
        let option = matches.get_one::<PathBuf>(CONFIG_OPTION);
        let is_given = matches.value_source("config") == Some(ValueSource::CommandLine);
        match (argument, option) {
            (Some(one), Some(other)) if is_given => {
                let message =
                    format!("two configs are named, {} and {}: name one", one.display(), other.display());
                Err(clap::Error::raw(ErrorKind::ArgumentConflict, format!("{message}\n")))
            }
            (_, Some(config)) | (Some(config), None) => Ok(Self { config: config.clone() }),
            (None, None) => Err(clap::Error::raw(ErrorKind::MissingRequiredArgument, "no config is named\n")),
        }
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
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
pub struct RunArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArg,
    /// Decide everything on a copy of the database and a ledger that is thrown away
    #[arg(long)]
    pub dry_run: bool,
    /// Run flows that have no apply: what passes their checks counts as applied, and nothing is done
    #[arg(long)]
    pub checks_only: bool,
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
    /// Print the SQL that makes the databases ready (tables, grants); ask at a terminal whether to run it
    #[arg(long)]
    pub prepare: bool,
    /// With --prepare: run it, without asking
    #[arg(long, requires = "prepare")]
    pub yes: bool,
}

/// `recount explain`.
#[derive(Debug, Args)]
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
pub struct PublishArgs {
    /// The flow; its source must be http or a topic
    #[arg(value_name = "FLOW", required_unless_present = "to")]
    pub flow: Option<String>,
    /// A topic: a broker of the config or host:port, and the topic's name
    #[arg(long, num_args = 2, value_names = ["BROKER", "TOPIC"], conflicts_with = "flow")]
    pub to: Option<Vec<String>>,
    /// The field whose value is the record's key; without it a topic that a flow reads gets the flow's own
    #[arg(long, value_name = "FIELD")]
    pub key: Option<String>,
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
    #[arg(long, value_name = "WHY")]
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
    ///
    /// Each line has the event's position, id, key and the sentence that says what was found. Those that were
    /// replayed or accepted since are not listed.
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
    ///
    /// The event as it was delivered, what each check found in it, what the database or handler answered at each
    /// attempt, and the command that brings it back. Secret fields are left out.
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
    #[arg(long, value_name = "ID", visible_alias = "event")]
    pub dead_letter: Option<String>,
    /// Only say how many there are and how many can still be had
    #[arg(long)]
    pub dry_run: bool,
    /// Why; it is recorded
    #[arg(long, value_name = "WHY", required_unless_present = "dry_run")]
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
    ///
    /// One line a decision: position, event id, key, verdict, reason, flags, attempt, config version, times. Without
    /// options every current decision of every flow; the options narrow it down.
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
    ///
    /// Decisions whose effects are gone with the restored database are either applied again or accepted as gone.
    /// Both are recorded, with who and why. Until then the flow does not run (reason effects_rolled_back).
    Recover {
        /// Apply the events again whose effects are gone
        #[arg(long, conflicts_with = "accept", required_unless_present = "accept")]
        reapply: bool,
        /// Accept that their effects are gone; recorded as a decision for each
        #[arg(long)]
        accept: bool,
        /// Why; it is recorded
        #[arg(long, value_name = "WHY")]
        because: String,
        /// Which config
        #[command(flatten)]
        config: ConfigOption,
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Destroy payloads, ids and key of a key; verdicts and positions stay
    ///
    /// For people who have a right to be forgotten. The books go on to balance, since what was decided at which
    /// position stays; what the event held, and whose it was, can't be told any more. It can't be undone.
    Forget {
        /// The key
        #[arg(value_name = "KEY")]
        key: String,
        /// Why; it is recorded
        #[arg(long, value_name = "WHY")]
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

/// `recount completions`.
#[derive(Debug, Args)]
pub struct CompletionsArgs {
    /// The shell
    #[arg(value_enum, value_name = "SHELL")]
    pub shell: clap_complete::Shell,
}

/// `recount man`.
#[derive(Debug, Args)]
pub struct ManArgs {
    /// Write a file for each command into this folder
    #[arg(long, value_name = "DIR")]
    pub folder: Option<PathBuf>,
}
