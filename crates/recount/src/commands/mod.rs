//! What each command does.

mod audit;
mod control;
mod dead_letters;
mod foresee;
mod ledger;
mod names;
mod paused;
mod publish;
#[cfg(feature = "kafka")]
mod publish_topic;
mod recover;
mod replay;
pub(crate) mod run;
mod select;
mod story;
mod waiting;

pub(crate) use foresee::new_event;

use crate::cli::{Cli, Command};
use crate::exit::{Failure, Outcome};
use std::path::Path;

/// Runs a command.
pub fn run(cli: Cli) -> Outcome {
    if let Some(folder) = cli.ledger_folder {
        crate::config::name_folder(folder);
    }
    crate::exit::as_reached(run_command(cli.command))
}

fn run_command(command: Command) -> Outcome {
    match command {
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
        Command::Completions(args) => crate::cli::completions(&args),
        Command::Man(args) => crate::cli::man(&args),
    }
}

/// A runtime for the commands that start flows.
pub(crate) fn runtime() -> Result<tokio::runtime::Runtime, Failure> {
    let builder = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    builder.map_err(|error| Failure::unreachable(format!("no threads can be started: {error}")))
}

/// Who does this, for the journal: `RECOUNT_AUTHOR`, else the user.
pub(crate) fn operator() -> String {
    let named = |name: &str| std::env::var(name).ok().filter(|value| !value.trim().is_empty());
    let user = || {
        let users = std::fs::read_to_string("/etc/passwd").ok()?;
        user_name(&users, rustix::process::getuid().as_raw())
    };
    ["RECOUNT_AUTHOR", "USER", "LOGNAME"]
        .into_iter()
        .find_map(named)
        .or_else(user)
        .unwrap_or_else(|| "unknown".to_owned())
}

/// The name that `/etc/passwd` gives a user id.
fn user_name(users: &str, id: u32) -> Option<String> {
    users.lines().find_map(|line| {
        let mut fields = line.split(':');
        let name = fields.next()?;
        (fields.nth(1)?.parse() == Ok(id) && !name.is_empty()).then(|| name.to_owned())
    })
}

/// Refuses a reason that says nothing: it is recorded, and read when somebody asks why.
pub(crate) fn said_why(because: &str) -> Result<&str, Failure> {
    match because.trim() {
        "" => Err(Failure::usage("--because is empty: say why, it is recorded")),
        _ => Ok(because),
    }
}

/// Commands that take the config as their argument; the others take `-c`.
const TAKE_CONFIG: [&str; 4] = ["run", "audit", "status", "validate"];

/// A command as it must be pasted, so that it means this config: `recount run` becomes `recount run
/// orders/recount.toml` where the config is not the one that is taken anyway.
pub(crate) fn for_config(command: &str, config: &Path) -> String {
    let from_env = std::env::var_os("RECOUNT_CONFIG").is_some_and(|path| Path::new(&path) == config);
    if from_env || config == Path::new("recount.toml") {
        return command.to_owned();
    }
    let path = quoted(&config.display().to_string());
    let verb = command.split(' ').nth(1).unwrap_or_default();
    let option = if TAKE_CONFIG.contains(&verb) { "" } else { "-c " };
    format!("{command} {option}{path}")
}

/// As a shell takes it for one word.
pub(crate) fn quoted(word: &str) -> String {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || "/._-+:=@%,".contains(c);
    if !word.is_empty() && word.chars().all(is_plain) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', "'\\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_to_paste_name_the_config_where_it_is_another() {
        let told = |command: &str, config: &str| for_config(command, Path::new(config));
        assert_eq!(told("recount run", "recount.toml"), "recount run");
        assert_eq!(told("recount run", "a/recount.toml"), "recount run a/recount.toml");
        assert_eq!(told("recount explain x", "my shop.toml"), "recount explain x -c 'my shop.toml'");
    }

    #[test]
    fn a_user_id_has_its_name_in_the_list_of_users() {
        let users = "root:x:0:0:root:/root:/bin/sh\nada:x:1000:1000::/home/ada:/bin/sh\n\nbroken\n";
        assert_eq!(user_name(users, 1000).as_deref(), Some("ada"));
        assert_eq!(user_name(users, 0).as_deref(), Some("root"));
        assert_eq!(user_name(users, 7), None);
    }
}
