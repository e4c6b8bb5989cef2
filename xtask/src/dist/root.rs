//! The binary in a root that holds only what it links to.

use super::{Outcome, Packed, said};
use crate::program::{self, Finished};
use crate::{inventory, shop};
use anyhow::{Context, Result, bail};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Runs the inventory example there.
pub fn check(packed: &Packed) -> Result<Outcome> {
    let folder = tempfile::tempdir()?;
    let root = folder.path();
    let libraries = libraries(&packed.binary)?;
    for library in &libraries {
        let at = root.join(library.strip_prefix("/").unwrap_or(library));
        fs::create_dir_all(at.parent().context("a library at the root")?)?;
        fs::copy(library, at).with_context(|| format!("can't copy {}", library.display()))?;
    }
    fs::copy(&packed.binary, root.join("recount"))?;
    let events = furnish(&root.join("data"))?;
    let Some(enter) = entrance(root)? else {
        let why = "neither chroot nor unshare --map-root-user chroot is allowed here: try it as root";
        return Ok(Outcome::NotPossible(why.to_owned()));
    };
    for arguments in [
        ["validate", "/data/recount.toml", "--json"],
        ["run", "/data/recount.toml", "--json"],
        ["audit", "/data/recount.toml", "--json"],
    ] {
        let finished = enter_and_run(&enter, root, &arguments)?;
        if !finished.status.success() {
            let tail = finished.tail();
            return Ok(Outcome::Fails(format!(
                "recount {} ended with {}: {tail}",
                arguments[0], finished.status
            )));
        }
        if arguments[0] == "run" && finished.json()?["flows"][0]["decided_now"] != events {
            return Ok(Outcome::Fails(format!("{events} events, and it says: {}", finished.tail())));
        }
    }
    let names: Vec<_> = libraries.iter().map(|path| path.display().to_string()).collect();
    let with = if names.is_empty() { "nothing else".to_owned() } else { names.join(", ") };
    Ok(Outcome::Holds(format!("validate, run ({events} events) and audit of the example, with {with}")))
}

/// The example with its database, and how many events it has.
pub fn furnish(folder: &Path) -> Result<u64> {
    fs::create_dir_all(folder)?;
    let example = inventory::example();
    for name in ["recount.toml", "order-placed.schema.json", "orders.ndjson"] {
        fs::copy(example.join(name), folder.join(name))?;
    }
    shop::create(&folder.join("shop.db"), &crate::orders::read_stock(&example.join("stock.csv"))?)?;
    Ok(fs::read_to_string(folder.join("orders.ndjson"))?.lines().count() as u64)
}

/// What the loader would load, as `ldd` tells it.
fn libraries(binary: &Path) -> Result<Vec<PathBuf>> {
    let finished = program::run(Command::new("ldd").arg(binary))?;
    if finished.stdout.contains("not a dynamic executable") || finished.stdout.contains("statically linked") {
        return Ok(Vec::new());
    }
    if !finished.status.success() {
        bail!("ldd can't tell what it links to: {}", finished.tail());
    }
    let words = finished.stdout.split_whitespace();
    Ok(words.filter(|word| word.starts_with('/')).map(PathBuf::from).collect())
}

/// The command that enters a root, if one is allowed here.
fn entrance(root: &Path) -> Result<Option<Vec<&'static str>>> {
    for enter in [vec!["chroot"], vec!["unshare", "--map-root-user", "chroot"]] {
        if enter_and_run(&enter, root, &["--version"]).is_ok_and(|finished| finished.status.success()) {
            return Ok(Some(enter));
        }
    }
    // Whose fault is it that neither works? A root where nothing can be started is ours.
    let plain = said(Command::new("chroot").arg("/").args(["true"]));
    if plain.is_ok() {
        bail!("the binary does not start in a root with only what it links to")
    }
    Ok(None)
}

fn enter_and_run(enter: &[&str], root: &Path, arguments: &[&str]) -> Result<Finished> {
    let mut command = Command::new(enter[0]);
    command.args(&enter[1..]).arg(root).arg("/recount").args(arguments);
    program::run(command.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"))
}
