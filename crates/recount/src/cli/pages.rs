//! `recount completions` and `recount man`: what shells and readers of manuals get of the description.

use super::{CompletionsArgs, ManArgs};
use crate::exit::{Exit, Failure, Outcome};
use clap::Command;
use clap_mangen::Man;
use std::io::{Error, Write as _};

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
    let mut all = vec![(format!("{name}.1"), page(&command, &name, spelled)?)];
    for subcommand in command.get_subcommands() {
        let spelled = format!("{spelled} {}", subcommand.get_name());
        all.extend(pages(subcommand.clone(), &spelled)?);
    }
    Ok(all)
}

fn page(command: &Command, name: &str, spelled: &str) -> std::io::Result<Vec<u8>> {
    let has_subcommands = command.has_subcommands();
    let after = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let mut command = command.clone().display_name(name.to_owned()).bin_name(spelled);
    // The first paragraph stands under NAME.
    let long = command.get_long_about().map(ToString::to_string).unwrap_or_default();
    if let Some((_, taught)) = long.split_once("\n\n") {
        command = command.long_about(taught.to_owned());
    }
    let man =
        Man::new(command).source(concat!("recount ", env!("CARGO_PKG_VERSION"))).manual("Recount").date("");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_subcommands {
        man.render_subcommands_section(&mut page)?;
    }
    page.extend(as_written(if after.starts_with("Example") { "EXAMPLES" } else { "NOTES" }, &after));
    Ok(page)
}

/// A section whose lines stay as they are.
fn as_written(heading: &str, text: &str) -> Vec<u8> {
    let mut out = format!(".SH {heading}\n");
    let is_examples = heading == "EXAMPLES";
    let lines = text.lines().skip(usize::from(is_examples));
    out.push_str(if is_examples { ".nf\n" } else { "" });
    for line in lines {
        let line = line.strip_prefix("  ").unwrap_or(line).replace('\\', "\\e").replace('-', "\\-");
        match line.as_str() {
            "" => out.push_str(".PP\n"),
            // Nothing that stands first in a line may be taken for a request.
            line => out.push_str(&format!("\\&{line}\n")),
        }
    }
    out.push_str(if is_examples { ".fi\n" } else { "" });
    out.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::ValueEnum as _;

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
            assert!(page.contains(".SH EXAMPLES") || name == "recount.1", "{name}: {page}");
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
}
