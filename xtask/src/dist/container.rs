//! The container's recipes, read as far as that can be done without a container engine.

use super::{Outcome, Packed};
use crate::program;
use anyhow::{Context, Result};
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

/// An instruction and the rest of its line, continued lines joined.
type Instruction = (String, String);

fn instructions(recipe: &str) -> Vec<Instruction> {
    let lines = recipe.lines().filter(|line| !line.trim_start().starts_with('#'));
    let joined = lines.collect::<Vec<_>>().join("\n").replace("\\\n", " ");
    let instruction = |line: &str| {
        let (word, rest) = line.trim().split_once(char::is_whitespace)?;
        Some((word.to_uppercase(), rest.trim().to_owned()))
    };
    joined.lines().filter_map(instruction).collect()
}

/// The recipe that builds from source: context is the tree.
pub fn from_source(packed: &Packed) -> Result<Outcome> {
    let recipe = fs::read_to_string(program::root().join("packaging/Dockerfile"))?;
    let mut faults = faults(&recipe, &|path| program::root().join(path).exists(), packed)?;
    let copied: BTreeSet<String> = copies(&instructions(&recipe)).into_iter().flatten().collect();
    faults.extend(not_copied(&copied)?);
    Ok(outcome(faults))
}

/// The recipe in the archive: context is the unpacked folder.
pub fn from_archive(packed: &Packed) -> Result<Outcome> {
    let entry = packed.entries.iter().find(|entry| entry.path == "Dockerfile").context("it is not packed")?;
    let recipe = String::from_utf8_lossy(&entry.bytes);
    Ok(outcome(faults(&recipe, &|path| packed.entries.iter().any(|entry| entry.path == path), packed)?))
}

fn outcome(faults: Vec<String>) -> Outcome {
    if !faults.is_empty() {
        return Outcome::Fails(faults.join("; "));
    }
    let engine = ["docker", "podman"]
        .into_iter()
        .find(|engine| Command::new(engine).arg("info").output().is_ok_and(|output| output.status.success()));
    let read = "what it copies exists, its user is not root, its health check is a command that exists";
    match engine {
        Some(engine) => Outcome::Holds(format!("{read}; not built ({engine} would)")),
        None => Outcome::Holds(format!("{read}; not built, since no container engine answers here")),
    }
}

/// Sources of each COPY from the context.
fn copies(instructions: &[Instruction]) -> Vec<Vec<String>> {
    let of_context = instructions.iter().filter(|(word, rest)| word == "COPY" && !rest.contains("--from="));
    let sources = of_context.map(|(_, rest)| {
        let mut words: Vec<String> =
            rest.split_whitespace().filter(|word| !word.starts_with("--")).map(str::to_owned).collect();
        words.pop();
        words
    });
    sources.collect()
}

fn faults(recipe: &str, exists: &dyn Fn(&str) -> bool, packed: &Packed) -> Result<Vec<String>> {
    let instructions = instructions(recipe);
    let mut faults = Vec::new();
    for source in copies(&instructions).into_iter().flatten() {
        if !exists(&source) {
            faults.push(format!("it copies {source}, which is not there"));
        }
    }
    let stages: BTreeSet<&str> = instructions
        .iter()
        .filter(|(word, _)| word == "FROM")
        .filter_map(|(_, rest)| rest.split_once(" AS ").map(|(_, stage)| stage.trim()))
        .collect();
    for (_, rest) in instructions.iter().filter(|(word, _)| word == "COPY") {
        let from = rest.split_whitespace().find_map(|word| word.strip_prefix("--from="));
        if from.is_some_and(|stage| !stages.contains(stage)) {
            faults.push(format!("no stage has the name that COPY {rest} names"));
        }
    }
    let value =
        |name: &str| instructions.iter().rfind(|(word, _)| word == name).map(|(_, rest)| rest.as_str());
    match value("USER") {
        None => faults.push("it names no USER".to_owned()),
        Some(user) if user.starts_with('0') || user.starts_with("root") => {
            faults.push(format!("it runs as {user}"));
        }
        Some(_) => {}
    }
    for name in ["VOLUME", "ENTRYPOINT", "CMD", "HEALTHCHECK"] {
        if value(name).is_none() {
            faults.push(format!("it has no {name}"));
        }
    }
    faults.extend(commands(&instructions, &packed.binary)?);
    Ok(faults)
}

/// The commands in its lists of words are ones that the binary takes.
fn commands(instructions: &[Instruction], binary: &Path) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for (name, rest) in instructions.iter().filter(|(word, _)| word == "HEALTHCHECK" || word == "CMD") {
        let list =
            rest.find('[').map(|at| &rest[at..]).with_context(|| format!("{name} is no list of words"))?;
        let mut words: Vec<String> = serde_json::from_str(list).with_context(|| format!("{name} {list}"))?;
        words.retain(|word| word != "/recount");
        let finished = program::run(Command::new(binary).args(&words))?;
        // What is asked is not there, which is not a question of usage.
        if finished.stderr.contains("Usage: ") {
            faults.push(format!("{name}: recount {} is refused: {}", words.join(" "), finished.tail()));
        }
    }
    Ok(faults)
}

/// Files that the crates build in from folders that the recipe doesn't copy.
fn not_copied(copied: &BTreeSet<String>) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut folders = vec![program::root().join("crates")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder)? {
            let path = entry?.path();
            if path.is_dir() {
                let name = path.file_name().unwrap_or_default();
                if name != "tests" && name != "target" {
                    folders.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path)?;
                faults.extend(built_in(&text, &folder).filter(|found| {
                    let top = found.split('/').next().unwrap_or_default();
                    !copied.contains(top)
                }));
            }
        }
    }
    faults.sort();
    faults.dedup();
    Ok(faults.into_iter().map(|found| format!("{found} is built in and not copied")).collect())
}

/// What `include_str!` and `include_bytes!` of a source name, relative to the tree, where it lies outside of `crates`.
fn built_in<'t>(text: &'t str, folder: &'t Path) -> impl Iterator<Item = String> + 't {
    let quoted = text.split(['"']).skip(1).step_by(2);
    let upwards = quoted.filter(|path| path.starts_with("../"));
    upwards.filter_map(|path| {
        let mut at = folder.to_path_buf();
        for part in path.split('/') {
            if part == ".." {
                at.pop();
            } else {
                at.push(part);
            }
        }
        let inside = at.strip_prefix(program::root()).ok()?.to_path_buf();
        let first = inside.components().next()?.as_os_str().to_string_lossy().into_owned();
        (first != "crates" && program::root().join(&first).is_dir()).then(|| inside.display().to_string())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn continued_lines_are_one_instruction_and_comments_none() {
        let recipe =
            "# a comment\nFROM a AS build\nRUN x \\\n  && y\nCOPY --from=build /a /b\nCOPY one two /there/\n";
        let instructions = instructions(recipe);
        let words: Vec<&str> = instructions.iter().map(|(word, _)| word.as_str()).collect();
        assert_eq!(words, ["FROM", "RUN", "COPY", "COPY"]);
        assert_eq!(copies(&instructions), [["one", "two"]]);
    }

    #[test]
    fn what_a_crate_builds_in_from_elsewhere_is_found() {
        let folder = program::root().join("crates/recount/src");
        let text = "include_str!(\"../../../docs/reasons/x.md\"); include_str!(\"../y.md\")";
        assert_eq!(built_in(text, &folder).collect::<Vec<_>>(), ["docs/reasons/x.md"]);
    }
}
