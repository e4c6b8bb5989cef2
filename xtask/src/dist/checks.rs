//! Everything that is checked of what was packed.

use super::stage::SHELLS;
use super::{Check, Outcome, Packed, container, root, unit};
use crate::program;
use anyhow::{Context, Result};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Makes every check.
pub fn all(packed: &Packed) -> Result<Vec<Check>> {
    let folder = tempfile::tempdir()?;
    let unpacked = folder.path().join(&packed.name);
    Ok(vec![
        Check::new("archive unpacks and its binary works", unpacks(packed, folder.path())),
        Check::new("binary runs in an empty root", root::check(packed)),
        Check::new("man pages", manual(&unpacked)),
        Check::new("completions", completions(&unpacked)),
        Check::new("systemd unit verified", unit::verified(&unpacked)),
        Check::new("systemd unit's sandbox", unit::rated()),
        Check::new("systemd unit's system calls", unit::calls_are_let_through(packed)),
        Check::new("Dockerfile in the tree", container::from_source(packed)),
        Check::new("Dockerfile in the archive", container::from_archive(packed)),
    ])
}

/// A table of symbols is what strip takes out.
pub fn stripped(binary: &Path) -> Result<Outcome> {
    let bytes = fs::read(binary).with_context(|| format!("can't read {}", binary.display()))?;
    let has_symbols = bytes.windows(9).any(|at| at == b"\0.symtab\0");
    Ok(if has_symbols {
        Outcome::Fails("it has a table of symbols".to_owned())
    } else {
        Outcome::Holds("no table of symbols".to_owned())
    })
}

/// With the tools that others will use, not with what packed it.
fn unpacks(packed: &Packed, folder: &Path) -> Result<Outcome> {
    let beside = packed.archive.parent().context("an archive without a folder")?;
    let checksum = format!("{}.tar.gz.sha256", packed.name);
    super::said(Command::new("sha256sum").args(["--check", "--status", &checksum]).current_dir(beside))?;
    super::said(Command::new("tar").arg("-xzf").arg(&packed.archive).current_dir(folder))?;
    let unpacked = folder.join(&packed.name);
    for entry in &packed.entries {
        let found = fs::read(unpacked.join(&entry.path)).with_context(|| entry.path.clone())?;
        if found != entry.bytes {
            return Ok(Outcome::Fails(format!("{} is not what was packed", entry.path)));
        }
    }
    let binary = unpacked.join("recount");
    let version = super::said(Command::new(&binary).arg("--version"))?;
    let example = unpacked.join("examples/inventory");
    let mut run = Command::new(&binary);
    let validated = run.args(["validate", "recount.toml"]).current_dir(&example).env_remove("RECOUNT_CONFIG");
    super::said(validated)?;
    let files = packed.entries.len();
    Ok(Outcome::Holds(format!("{files} files, checksum right, {}, its example validates", version.trim())))
}

fn manual(unpacked: &Path) -> Result<Outcome> {
    let pages = files(&unpacked.join("man/man1"))?;
    let tools: [(&str, &[&str], &str); 2] = [
        ("groff", &["-man", "-ww", "-z", "-Tutf8"], "--version"),
        ("mandoc", &["-T", "lint", "-W", "error"], "-V"),
    ];
    let there = tools.iter().find(|(tool, _, version)| {
        Command::new(tool).arg(version).output().is_ok_and(|output| output.status.success())
    });
    let Some((tool, arguments, _)) = there else {
        return Ok(Outcome::NotPossible(
            "neither groff nor mandoc is here (apt-get install groff)".to_owned(),
        ));
    };
    for page in &pages {
        let finished = program::run(Command::new(tool).args(*arguments).arg(page))?;
        if !finished.status.success() || !finished.stderr.trim().is_empty() {
            return Ok(Outcome::Fails(format!("{}: {}", page.display(), finished.tail())));
        }
    }
    Ok(Outcome::Holds(format!("{} pages, {tool} has nothing to warn of", pages.len())))
}

fn completions(unpacked: &Path) -> Result<Outcome> {
    let mut checked = Vec::new();
    let mut absent = Vec::new();
    for (shell, name) in SHELLS {
        let script = unpacked.join("completions").join(name);
        let syntax: &[&str] = match shell {
            "bash" | "zsh" => &["-n"],
            "fish" => &["--no-execute"],
            _ => {
                absent.push(shell);
                continue;
            }
        };
        if Command::new(shell).arg("--version").output().is_err() {
            absent.push(shell);
            continue;
        }
        let finished = program::run(Command::new(shell).args(syntax).arg(&script))?;
        if !finished.status.success() || !finished.stderr.trim().is_empty() {
            return Ok(Outcome::Fails(format!("{shell}: {}", finished.tail())));
        }
        checked.push(shell);
    }
    if !checked.contains(&"bash") {
        return Ok(Outcome::NotPossible(
            "bash is not here, the one shell whose completion is tried".to_owned(),
        ));
    }
    let asked = "source \"$0\"; COMP_WORDS=(recount dead-l); COMP_CWORD=1; _recount recount dead-l recount; \
                 echo \"${COMPREPLY[@]}\"";
    let script = unpacked.join("completions/recount.bash");
    let told = super::said(Command::new("bash").args(["-c", asked]).arg(&script))?;
    if told.trim() != "dead-letters" {
        return Ok(Outcome::Fails(format!("bash completes dead-l to {told:?}")));
    }
    let not = if absent.is_empty() { String::new() } else { format!("; not checked: {}", absent.join(", ")) };
    Ok(Outcome::Holds(format!("understood by {}; a command is completed{not}", checked.join(", "))))
}

fn files(folder: &Path) -> Result<Vec<PathBuf>> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let mut files: Vec<PathBuf> = entries.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    Ok(files)
}
