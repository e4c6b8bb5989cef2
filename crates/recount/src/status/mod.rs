//! One screen: is it working: `recount status`, and the same over HTTP: `GET /v1/status`.

pub mod answer;
mod change;
mod gather;
mod next;
mod render;

pub use gather::{RunningInstance, gather};

use crate::cli::ConfigArg;
use crate::client::get_json;
use crate::commands::for_config;
use crate::config::Config;
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring;
use answer::Status;
use clap::Args;

/// `recount status`.
#[derive(Debug, Args)]
pub struct StatusArgs {
    /// Which config
    #[command(flatten)]
    pub config: ConfigArg,
    /// Ask the instance at this address, without a config
    #[arg(long, value_name = "URL")]
    pub at: Option<String>,
    /// Ask only whether the instance runs, for liveness probes: a restart does not make a flow work
    #[arg(long, requires = "at")]
    pub running: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn command(args: &StatusArgs) -> Outcome {
    if let (Some(url), true) = (&args.at, args.running) {
        let answer = get_json(url.trim_end_matches('/'), "/health/running")?;
        println!("{}", if args.json { answer.to_string() } else { format!("{url} runs") });
        return Ok(Exit::Well);
    }
    let mut status = match &args.at {
        Some(url) => ask(url)?,
        None => of_config(&wiring::load(&args.config.config)?)?,
    };
    let command = |command: &str| match &args.at {
        Some(_) => command.to_owned(),
        None => for_config(command, &args.config.config),
    };
    if args.json {
        status.next = status.next.iter().map(|next| command(next)).collect();
        println!("{}", serde_json::json!(status));
    } else {
        print!("{}", render::text(&status, &command));
    }
    Ok(Exit::from_code(i32::from(status.exit_code)))
}

/// Asks the instance that holds the ledger; where none can be asked, counts from outside.
fn of_config(config: &Config) -> Result<Status, Failure> {
    let mut unanswered = None;
    if let Some(address) = recount_ledger::running_instance(&config.ledger.path) {
        match ask(&address) {
            Ok(mut status) => {
                if status.config_hash != config.hash() {
                    let path = config.path.display();
                    status.notes.push(format!(
                        "{path} was changed since the instance was started: a restart brings the change"
                    ));
                }
                return Ok(status);
            }
            Err(failure) => unanswered = Some(failure.message),
        }
    } else if recount_ledger::is_held(&config.ledger.path) {
        unanswered = Some("a process holds the ledger and does not say where it listens".to_owned());
    }
    let mut status = gather(config, None)?;
    if let Some(why) = unanswered {
        status.notes.push(format!("{why}; what follows was read from outside"));
    }
    Ok(status)
}

fn ask(url: &str) -> Result<Status, Failure> {
    let url = url.trim_end_matches('/');
    let json = get_json(url, "/v1/status")?;
    serde_json::from_value(json).map_err(|error| {
        Failure::unreachable(format!("what {url}/v1/status answers is no status of this version: {error}"))
    })
}
