//! The service's unit: verified, rated, and its filter of system calls held against what a run calls.

use super::{Outcome, Packed, root};
use crate::program;
use anyhow::{Context, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::Command;

/// A user without rights, as the service's is.
const NOBODY: u32 = 65534;
/// At most so much exposure, of 10.
const EXPOSURE_MAX: f64 = 2.0;
const HOW_TO_GET: &str = "systemd-analyze is not on this machine (Debian: apt-get install systemd)";

/// The unit as it lies in the tree.
fn unit() -> Result<String> {
    let path = program::root().join("packaging/recount.service");
    fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
}

fn has(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok_and(|output| output.status.success())
}

/// `systemd-analyze verify`, with the binary and the manual that were unpacked.
pub fn verified(unpacked: &Path) -> Result<Outcome> {
    if !has("systemd-analyze") {
        return Ok(Outcome::NotPossible(HOW_TO_GET.to_owned()));
    }
    let folder = tempfile::tempdir()?;
    let here = unpacked.join("recount").display().to_string();
    let path = folder.path().join("recount.service");
    fs::write(&path, unit()?.replace("/usr/local/bin/recount", &here))?;
    let mut command = Command::new("systemd-analyze");
    command.arg("verify").arg(&path).env("MANPATH", unpacked.join("man")).env("SYSTEMD_LOG_LEVEL", "warning");
    let finished = program::run(&mut command)?;
    // Other units of this machine may have faults of their own.
    let ours: Vec<&str> = finished.stderr.lines().filter(|line| line.contains("recount")).collect();
    Ok(match ours.as_slice() {
        [] if finished.status.success() => Outcome::Holds("no fault, its manual pages found".to_owned()),
        [] => Outcome::Fails(finished.tail()),
        faults => Outcome::Fails(faults.join("; ")),
    })
}

/// `systemd-analyze security`.
pub fn rated() -> Result<Outcome> {
    if !has("systemd-analyze") {
        return Ok(Outcome::NotPossible(HOW_TO_GET.to_owned()));
    }
    let path = program::root().join("packaging/recount.service");
    let mut command = Command::new("systemd-analyze");
    command.args(["security", "--offline=true", "--no-pager"]).arg(path);
    let finished = program::run(&mut command)?;
    let rating = finished.stdout.lines().find(|line| line.contains("Overall exposure level"));
    let Some(rating) = rating else {
        return Ok(Outcome::NotPossible(format!(
            "this systemd can't rate a unit offline: {}",
            finished.tail()
        )));
    };
    let level =
        rating.rsplit(": ").next().and_then(|text| text.split_whitespace().next()?.parse::<f64>().ok());
    let level = level.with_context(|| format!("no level in {rating:?}"))?;
    let said = format!("exposure {level} of 10, {EXPOSURE_MAX} is the most");
    Ok(if level <= EXPOSURE_MAX { Outcome::Holds(said) } else { Outcome::Fails(said) })
}

/// Every system call of a run of the example is one that the unit's filter lets through.
pub fn calls_are_let_through(packed: &Packed) -> Result<Outcome> {
    if !has("systemd-analyze") {
        return Ok(Outcome::NotPossible(HOW_TO_GET.to_owned()));
    }
    if !has("strace") {
        return Ok(Outcome::NotPossible("strace is not on this machine (apt-get install strace)".to_owned()));
    }
    let folder = tempfile::tempdir()?;
    root::furnish(folder.path())?;
    let (table, binary) = (folder.path().join("calls"), folder.path().join("recount"));
    fs::copy(&packed.binary, &binary)?;
    let mut command = Command::new("strace");
    command.args(["-f", "-c", "-o"]).arg(&table).arg(&binary).args(["run", "recount.toml"]);
    if rustix::process::geteuid().is_root() {
        // As the service runs: SQLite, for one, keeps the owner of files only where it is root.
        give_away(folder.path())?;
        command.uid(NOBODY).gid(NOBODY);
    }
    let finished = program::run(command.current_dir(folder.path()).env_remove("RECOUNT_CONFIG"))?;
    if !finished.status.success() {
        return Ok(Outcome::NotPossible(format!("strace can't follow it here: {}", finished.tail())));
    }
    let called = called(&fs::read_to_string(&table)?);
    let groups =
        groups(&super::said(Command::new("systemd-analyze").args(["syscall-filter", "--no-pager"]))?);
    let allowed = allowed(&unit()?, &groups);
    let refused: Vec<&str> =
        called.iter().filter(|call| !allowed.contains(*call)).map(String::as_str).collect();
    Ok(if refused.is_empty() {
        Outcome::Holds(format!("{} different calls in a run, the filter lets each through", called.len()))
    } else {
        Outcome::Fails(format!("a run calls what the filter refuses: {}", refused.join(", ")))
    })
}

/// Gives a folder and what is in it to nobody.
fn give_away(folder: &Path) -> Result<()> {
    chown(folder, Some(NOBODY), Some(NOBODY))?;
    for entry in fs::read_dir(folder)? {
        chown(entry?.path(), Some(NOBODY), Some(NOBODY))?;
    }
    Ok(())
}

/// The names in the table of `strace -c`.
fn called(table: &str) -> BTreeSet<String> {
    let rows = table.lines().skip_while(|line| !line.starts_with("---")).skip(1);
    let rows = rows.take_while(|line| !line.starts_with("---"));
    rows.filter_map(|line| line.split_whitespace().last()).map(str::to_owned).collect()
}

/// The groups that systemd knows: names of calls, and of other groups.
fn groups(text: &str) -> BTreeMap<String, Vec<String>> {
    let mut groups: BTreeMap<String, Vec<String>> = BTreeMap::new();
    let mut current = String::new();
    for line in text.lines() {
        let word = line.trim();
        if line.starts_with('@') {
            current = word.to_owned();
        } else if !word.is_empty() && !word.starts_with('#') && line.starts_with(' ') {
            groups.entry(current.clone()).or_default().push(word.to_owned());
        }
    }
    groups
}

/// What the `SystemCallFilter` lines of a unit come to.
fn allowed(unit: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    let mut allowed = expanded("@default", groups);
    for value in unit.lines().filter_map(|line| line.strip_prefix("SystemCallFilter=")) {
        let (refuses, names) = value.strip_prefix('~').map_or((false, value), |names| (true, names));
        for call in names.split_whitespace().flat_map(|name| expanded(name, groups)) {
            if refuses {
                allowed.remove(&call);
            } else {
                allowed.insert(call);
            }
        }
    }
    allowed
}

fn expanded(name: &str, groups: &BTreeMap<String, Vec<String>>) -> BTreeSet<String> {
    match groups.get(name) {
        Some(members) => members.iter().flat_map(|member| expanded(member, groups)).collect(),
        None => BTreeSet::from([name.to_owned()]),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_lets_through_what_its_groups_hold_and_no_more() {
        let groups = groups(
            "@default\n    # always\n    read\n\n@a\n    @b\n    open\n@b\n    fork\n    nice\n@c\n    nice\n",
        );
        let allowed = allowed("[Service]\nSystemCallFilter=@a\nSystemCallFilter=~@c\n", &groups);
        assert_eq!(allowed.into_iter().collect::<Vec<_>>(), ["fork", "open", "read"]);
    }

    #[test]
    fn the_calls_stand_last_in_a_table_with_or_without_errors() {
        let table = "% time calls errors syscall\n------ ---\n 83.08 1 1   execve\n 3.0 2 2 statx\n----- ---\n100 total\n";
        assert_eq!(called(table).into_iter().collect::<Vec<_>>(), ["execve", "statx"]);
    }
}
