//! The groups in which `--help` shows the commands.

use clap::Command;
use std::fmt::Write as _;

/// Every command stands in one of them.
const GROUPS: [(&str, &[&str]); 4] = [
    ("Set up", &["init", "validate", "demo", "explain", "completions", "man"]),
    ("Run", &["run", "publish", "pause", "resume"]),
    ("At 2 AM", &["status", "story", "audit", "dead-letters", "replay", "reproduce"]),
    ("Keep well", &["ledger"]),
];

/// Has the help show the commands by group, in the words that each says about itself.
pub fn show(command: Command) -> Command {
    let template = template(&command);
    command.help_template(template)
}

fn template(command: &Command) -> String {
    let styles = command.get_styles();
    let (header, literal) = (styles.get_header(), styles.get_literal());
    let longest = command.get_subcommands().map(|sub| sub.get_name().len()).max().unwrap_or(0);
    let mut out = "{about}\n\n{usage-heading} {usage}\n".to_owned();
    for (group, names) in GROUPS {
        let _ = writeln!(out, "\n{header}{group}:{header:#}");
        for sub in names.iter().filter_map(|name| command.find_subcommand(name)) {
            let (name, about) =
                (sub.get_name(), sub.get_about().map(ToString::to_string).unwrap_or_default());
            let aliases: Vec<&str> = sub.get_visible_aliases().collect();
            let alias =
                if aliases.is_empty() { String::new() } else { format!(" [also: {}]", aliases.join(", ")) };
            let _ = writeln!(out, "  {literal}{name:longest$}{literal:#}  {about}{alias}");
        }
    }
    let _ = write!(out, "\n{header}Options:{header:#}\n{{options}}{{after-help}}");
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;
    use std::collections::BTreeSet;

    #[test]
    fn every_command_is_in_exactly_one_group() {
        let listed: Vec<&str> = GROUPS.iter().flat_map(|(_, names)| names.iter().copied()).collect();
        let command = crate::cli::Cli::command();
        let all: BTreeSet<&str> = command.get_subcommands().map(Command::get_name).collect();
        assert_eq!(listed.iter().copied().collect::<BTreeSet<_>>(), all);
        assert_eq!(listed.len(), all.len(), "one stands in two groups: {listed:?}");
    }

    #[test]
    fn the_help_shows_each_command_with_its_own_words_on_one_line() {
        let help = crate::cli::description().render_long_help().to_string();
        for sub in crate::cli::Cli::command().get_subcommands() {
            let about = sub.get_about().unwrap().to_string();
            let line = help.lines().find(|line| line.starts_with(&format!("  {} ", sub.get_name()))).unwrap();
            assert!(line.contains(&about), "{line}");
            assert!(line.len() <= 100, "{line}");
        }
    }

    #[test]
    fn every_command_teaches_what_it_is_for() {
        fn check(command: &Command, path: &str) {
            let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
            let words = long.split_whitespace().count();
            assert!((20..=130).contains(&words), "{path}: {words} words: {long}");
            for sub in command.get_subcommands() {
                check(sub, &format!("{path} {}", sub.get_name()));
            }
        }
        for sub in crate::cli::Cli::command().get_subcommands() {
            check(sub, sub.get_name());
        }
    }
}
