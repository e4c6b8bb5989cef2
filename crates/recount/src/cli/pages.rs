//! `recount completions` and `recount man`: what shells and readers of manuals get of the description.

use super::{CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure, Outcome};
use clap::Command;
use clap_mangen::Man;
use std::io::{Error, Write as _};
use std::path::Path;

/// Writes a shell's completions to standard output.
pub fn completions(args: &CompletionsArgs) -> Outcome {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut super::description(), "recount", &mut script);
    to_stdout(&script)
}

/// Writes the manual.
pub fn man(args: &ManArgs) -> Outcome {
    let cant = |error: Error| Failure::usage(format!("the manual can't be written: {error}"));
    let pages = pages(super::description(), "recount").map_err(cant)?;
    let Some(folder) = &args.folder else {
        let own = pages.first().map(|(_, page)| page.as_slice()).unwrap_or_default();
        return to_stdout(own);
    };
    std::fs::create_dir_all(folder).map_err(cant)?;
    for (name, page) in &pages {
        std::fs::write(folder.join(name), page).map_err(cant)?;
    }
    println!("{} pages in {}: man -l {}", pages.len(), folder.display(), folder.join("recount.1").display());
    Ok(Exit::Well)
}

/// Whoever reads may have seen enough.
fn to_stdout(bytes: &[u8]) -> Outcome {
    match std::io::stdout().write_all(bytes) {
        Err(error) if error.kind() != std::io::ErrorKind::BrokenPipe => {
            Err(Failure::unreachable(format!("it can't be written: {error}")))
        }
        _ => Ok(Exit::Well),
    }
}

/// The page of a command and those of its subcommands, by file name.
fn pages(command: Command, spelled: &str) -> std::io::Result<Vec<(String, Vec<u8>)>> {
    let name = spelled.replace(' ', "-");
    let subcommands: Vec<Command> = command.get_subcommands().cloned().collect();
    let command = command.display_name(name.clone()).bin_name(spelled).version(env!("CARGO_PKG_VERSION"));
    let man = Man::new(command.disable_help_subcommand(true)).manual("Recount").date("");
    let mut page = Vec::new();
    man.render(&mut page)?;
    let mut all = vec![(Path::new(&name).with_extension("1").display().to_string(), page)];
    for subcommand in subcommands {
        let spelled = format!("{spelled} {}", subcommand.get_name());
        all.extend(pages(subcommand, &spelled)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page_with_usage_and_examples() {
        let pages = pages(crate::cli::description(), "recount").unwrap();
        let names: Vec<&str> = pages.iter().map(|(name, _)| name.as_str()).collect();
        for name in ["recount.1", "recount-run.1", "recount-dead-letters-list.1"] {
            assert!(names.contains(&name), "{names:?}");
        }
        for (name, page) in &pages {
            let page = String::from_utf8(page.clone()).unwrap();
            assert!(page.contains(".SH SYNOPSIS") && page.contains(".SH DESCRIPTION"), "{name}: {page}");
            assert!(page.contains("Example") || name == "recount.1", "{name}: {page}");
        }
    }

    #[test]
    fn each_shell_is_given_the_commands() {
        for shell in clap_complete::Shell::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut crate::cli::description(), "recount", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("dead-letters") && script.contains("dry-run"), "{shell}");
        }
    }

    use clap::ValueEnum as _;
}
