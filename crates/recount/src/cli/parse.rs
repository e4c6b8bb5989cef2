//! From the words that were typed to a command, or to a message that says what to type instead.

use super::{Cli, description, examples};
use clap::error::{ContextKind, ContextValue, Error, ErrorKind};
use clap::{Command, FromArgMatches};
use std::ffi::OsString;
use std::path::Path;

/// Reads the words of the process; where they are no command, prints what to type instead, and ends.
pub fn parse() -> Cli {
    let words: Vec<OsString> = std::env::args_os().collect();
    let mut command = description();
    let parsed = command
        .try_get_matches_from_mut(&words)
        .and_then(|matches| Cli::from_arg_matches(&matches))
        .map_err(|error| error.format(&mut command));
    match parsed {
        Ok(cli) => cli,
        Err(error) => {
            // Where not even this can be printed, the exit code says it.
            drop(error.print());
            if let Some(hint) = hint(&error, &command, &words) {
                eprintln!("\n{hint}");
            }
            std::process::exit(error.exit_code());
        }
    }
}

/// What else may help somebody whose words were not understood.
fn hint(error: &Error, command: &Command, words: &[OsString]) -> Option<String> {
    match error.kind() {
        ErrorKind::InvalidSubcommand => {
            let word = text(error, ContextKind::InvalidSubcommand).unwrap_or_default();
            Some(file_hint(&word).unwrap_or_else(|| "all commands: recount --help".to_owned()))
        }
        ErrorKind::UnknownArgument => {
            let word = text(error, ContextKind::InvalidArg).unwrap_or_default();
            if word.ends_with(".toml") {
                return Some(format!("a config is named with -c here: -c {word}"));
            }
            examples_of(command, words)
        }
        ErrorKind::MissingRequiredArgument | ErrorKind::InvalidValue | ErrorKind::ValueValidation => {
            examples_of(command, words)
        }
        _ => None,
    }
}

fn text(error: &Error, kind: ContextKind) -> Option<String> {
    match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.clone()),
        _ => None,
    }
}

/// A file where a command was expected.
fn file_hint(word: &str) -> Option<String> {
    if word.ends_with(".toml") {
        return Some(format!("to run a config: recount run {word}"));
    }
    let is_file = Path::new(word).is_file();
    is_file.then(|| format!("to begin with a file of events: recount init --from {word}"))
}

/// The examples of the command that the words name so far.
fn examples_of(command: &Command, words: &[OsString]) -> Option<String> {
    let mut path = Vec::new();
    let mut current = command;
    for word in words.iter().skip(1).filter_map(|word| word.to_str()) {
        match current.find_subcommand(word) {
            Some(sub) => {
                path.push(sub.get_name());
                current = sub;
            }
            None => break,
        }
    }
    Some(examples::text(&path.join(" "))).filter(|examples| !examples.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(line: &str) -> String {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        let mut command = description();
        let error = command.try_get_matches_from_mut(&words).unwrap_err();
        hint(&error, &command, &words).unwrap_or_default()
    }

    #[test]
    fn words_that_are_no_command_are_answered_with_one_that_is() {
        for (line, expected) in [
            ("recount validat", "recount --help"),
            ("recount shop.toml", "recount run shop.toml"),
            ("recount story 4711 recount.toml", "-c recount.toml"),
            ("recount pause reserve-stock", "recount pause reserve-stock --because "),
            ("recount dlq show", "recount dead-letters show reserve-stock/0/4711"),
            ("recount replay x --reason y", "--dry-run"),
            ("recount run --fail-on everything", "--fail-on dead-letters,skips"),
        ] {
            let told = told(line);
            assert!(told.contains(expected), "{line}: {told}");
        }
    }

    #[test]
    fn a_config_is_named_in_one_way_or_the_other_with_every_command() {
        use crate::cli::Command as Does;
        for line in
            ["recount audit shop.toml", "recount audit -c shop.toml", "recount audit --config shop.toml"]
        {
            let matches = description().try_get_matches_from(line.split(' ')).unwrap();
            let Does::Audit(args) = Cli::from_arg_matches(&matches).unwrap().command else { panic!() };
            assert_eq!(args.config.config, Path::new("shop.toml"), "{line}");
        }
        let matches =
            description().try_get_matches_from(["recount", "run", "a.toml", "-c", "b.toml"]).unwrap();
        assert!(Cli::from_arg_matches(&matches).unwrap_err().to_string().contains("name one"));
    }
}
