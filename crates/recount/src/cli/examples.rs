//! What one would type: the examples in the help of each command.

use clap::Command;

/// A command, and the examples of it: what it is for, and the line to type.
type Examples = (&'static str, &'static [(&'static str, &'static str)]);

const EXAMPLES: &[Examples] = &[
    (
        "init",
        &[
            ("from a file of your events, one a line", "recount init --from orders.ndjson"),
            ("then see what would become of them", "recount run recount.toml --dry-run"),
        ],
    ),
    (
        "validate",
        &[
            ("recount.toml in this folder", "recount validate"),
            (
                "the tables that Recount keeps in your database, to look at first",
                "recount validate --prepare",
            ),
        ],
    ),
    (
        "demo",
        &[
            ("", "recount demo"),
            ("in a folder that you choose", "recount demo --folder incident"),
            ("on your own orders", "recount demo --data orders-folder"),
        ],
    ),
    (
        "explain",
        &[
            ("a reason", "recount explain schema_mismatch"),
            ("all reasons, those of a config too", "recount explain --config recount.toml"),
        ],
    ),
    (
        "run",
        &[
            ("first, without keeping anything", "recount run recount.toml --dry-run"),
            ("then", "recount run recount.toml"),
            (
                "in a script that must fail where anything was not applied",
                "recount run recount.toml --fail-on dead-letters,skips --metrics-file metrics.txt",
            ),
        ],
    ),
    (
        "publish",
        &[
            ("", "recount publish orders --file orders.ndjson"),
            ("one, from standard input", "echo '{\"id\":\"1\"}' | recount publish orders"),
            (
                "into a topic that no flow reads yet, events of one article in one partition",
                "recount publish --to localhost:9092 orders --key sku --file orders.ndjson",
            ),
        ],
    ),
    ("pause", &[("", "recount pause reserve-stock --because 'the price list is wrong'")]),
    ("resume", &[("", "recount resume reserve-stock --because 'the price list was corrected'")]),
    (
        "status",
        &[
            ("", "recount status"),
            ("another config, for a script", "recount status orders/recount.toml --json"),
            ("a running instance, without its config", "recount status --at http://127.0.0.1:7601"),
        ],
    ),
    (
        "story",
        &[
            ("of a key", "recount story 1095275"),
            ("of one event, by id or by position", "recount story 31198570044-1095275"),
            ("", "recount story reserve-stock/0/4711"),
        ],
    ),
    ("audit", &[("", "recount audit"), ("with more names in each finding", "recount audit --names 100")]),
    (
        "dead-letters",
        &[
            ("", "recount dead-letters list"),
            ("one of them whole", "recount dead-letters show reserve-stock/0/4711"),
        ],
    ),
    (
        "dead-letters list",
        &[
            ("", "recount dead-letters list"),
            ("for one reason", "recount dead-letters list --flow reserve-stock --reason unknown_sku"),
        ],
    ),
    ("dead-letters show", &[("", "recount dead-letters show reserve-stock/0/4711")]),
    (
        "replay",
        &[
            (
                "how many are there, and can they be had?",
                "recount replay reserve-stock --reason unknown_sku --dry-run",
            ),
            (
                "all of them",
                "recount replay reserve-stock --reason unknown_sku --because 'the list was completed'",
            ),
            (
                "one of them first",
                "recount replay reserve-stock --dead-letter reserve-stock/0/4711 --because 'one of them first'",
            ),
        ],
    ),
    ("reproduce", &[("", "recount reproduce reserve-stock/0/4711")]),
    (
        "ledger",
        &[
            ("every decision as NDJSON", "recount ledger export > decisions.ndjson"),
            (
                "a customer asked to be forgotten",
                "recount ledger forget 4711 --because 'asked to, ticket 77'",
            ),
        ],
    ),
    (
        "ledger export",
        &[
            (
                "what was skipped, for a spreadsheet",
                "recount ledger export --verdict skipped --form csv > skipped.csv",
            ),
            ("one reason's", "recount ledger export --reason zero_quantity"),
        ],
    ),
    (
        "ledger recover",
        &[
            (
                "the database was restored: apply again what it lost",
                "recount ledger recover --reapply --because 'restored from Monday'",
            ),
            ("or leave it so", "recount ledger recover --accept --because 'the shop was reset on purpose'"),
        ],
    ),
    ("ledger forget", &[("", "recount ledger forget 4711 --because 'asked to, ticket 77'")]),
    (
        "completions",
        &[
            ("bash", "recount completions bash > ~/.local/share/bash-completion/completions/recount"),
            ("zsh, in a folder of $fpath", "recount completions zsh > ~/.zfunc/_recount"),
            ("fish", "recount completions fish > ~/.config/fish/completions/recount.fish"),
        ],
    ),
    (
        "man",
        &[
            ("read it", "recount man | man -l -"),
            ("install it", "recount man --folder ~/.local/share/man/man1"),
        ],
    ),
];

/// Puts the examples under the help of each command.
pub fn add(command: Command) -> Command {
    EXAMPLES.iter().fold(command, |command, (path, _)| {
        let names: Vec<&str> = path.split(' ').collect();
        let examples = text(path);
        at(command, &names, |command| command.after_help(examples))
    })
}

/// The examples of a command, as its help shows them; empty where there are none.
pub fn text(path: &str) -> String {
    let Some((_, examples)) = EXAMPLES.iter().find(|(known, _)| *known == path) else {
        return String::new();
    };
    let mut out = if examples.len() == 1 { "Example:" } else { "Examples:" }.to_owned();
    for (what, line) in *examples {
        if !what.is_empty() {
            out.push_str(&format!("\n  # {what}"));
        }
        out.push_str(&format!("\n  {line}"));
    }
    out
}

fn at(command: Command, path: &[&str], change: impl FnOnce(Command) -> Command) -> Command {
    match path {
        [] => change(command),
        [name, rest @ ..] => command.mut_subcommand(name, |sub| at(sub, rest, change)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    fn check_each(command: &Command, path: &str) {
        let shown = command.get_after_help().map(ToString::to_string).unwrap_or_default();
        assert!(shown.starts_with("Example"), "recount {path} shows no example: {shown}");
        for sub in command.get_subcommands() {
            check_each(sub, &format!("{path} {}", sub.get_name()));
        }
    }

    #[test]
    fn every_command_shows_an_example() {
        let command = crate::cli::description();
        command.get_subcommands().for_each(|sub| check_each(sub, sub.get_name()));
    }

    #[test]
    fn every_example_is_a_command_that_exists() {
        for (path, examples) in EXAMPLES {
            for (_, line) in *examples {
                let line = line.split_once(" | recount ").map_or(*line, |(_, rest)| rest);
                let line = line.split(" > ").next().unwrap().split(" | ").next().unwrap();
                let line = line.strip_prefix("recount ").unwrap_or(line);
                let words = line.split('\'').enumerate().flat_map(|(index, part)| match index % 2 {
                    0 => part.split_whitespace().collect::<Vec<_>>(),
                    _ => vec![part],
                });
                let parsed = crate::cli::Cli::try_parse_from(["recount"].into_iter().chain(words));
                assert!(parsed.is_ok(), "{path}: recount {line}: {}", parsed.err().unwrap());
            }
        }
    }
}
