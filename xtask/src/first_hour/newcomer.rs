//! From the clone to the first run with rules of one's own.

use super::steps::{Hour, Step};
use crate::inventory::{self, Orders, Recount};
use crate::{program, shop, verify};
use anyhow::{Context, Result, bail};
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Clones what is committed, and does there what the README says to do first. Returns the program to go on with.
pub fn clone(hour: &mut Hour, folder: &Path) -> Result<PathBuf> {
    // The same place each time: cargo keeps what it built by the path of the sources.
    let clone = folder.join("clone");
    if clone.exists() {
        fs::remove_dir_all(&clone)?;
    }
    fs::create_dir_all(folder)?;
    hour.step("git clone", |step| {
        let mut git = Command::new("git");
        let cloned = step.time(git.args(["clone", "--quiet"]).arg(program::root()).arg(&clone))?;
        cloned.expect_success("git clone")?;
        Ok(())
    })?;
    let readme = fs::read_to_string(clone.join("README.md"))?;
    let commands = readme_commands(&readme)?;
    let begun = Instant::now();
    let (binary, xtask) = match std::env::var_os("RECOUNT_BINARY") {
        Some(_) => (program::recount()?, std::env::current_exe()?),
        None => build(&clone)?,
    };
    let given = std::env::var_os("RECOUNT_BINARY").is_some();
    hour.built_from = if given {
        "RECOUNT_BINARY and this checkout's own xtask were taken, nothing was built".to_owned()
    } else {
        "recount and xtask were built from the clone".to_owned()
    };
    hour.build_seconds = begun.elapsed().as_secs_f64();
    for line in commands {
        let Some(chore) = line.strip_prefix("cargo xtask ") else { continue };
        hour.step(format!("cargo xtask {chore}"), |step| {
            let chore: Vec<&str> = chore.split_whitespace().collect();
            let mut command = Command::new(&xtask);
            command.args(&chore).current_dir(&clone).env("CARGO_TARGET_DIR", program::target());
            if given {
                // As it was found from here: a relative path would mean another one from the clone.
                command.env("RECOUNT_BINARY", &binary);
            }
            let finished = step.time(command.env_remove("RECOUNT_CONFIG"))?;
            step.check_exit(&finished, 0);
            step.check_says(&finished, &["published 10000", "unexplained 0", "balanced"]);
            Ok(())
        })?;
    }
    Ok(binary)
}

/// The first block of commands under the README's heading that promises two.
fn readme_commands(readme: &str) -> Result<Vec<String>> {
    let section = readme.split("\n## ").find(|section| {
        let heading = section.lines().next().unwrap_or_default();
        heading.to_lowercase().contains("two commands")
    });
    let section = section.context("the README has no heading with the words \"two commands\"")?;
    let lines = section.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    let block =
        lines.skip_while(|line| !line.starts_with("cargo ")).take_while(|line| line.starts_with("cargo "));
    let commands: Vec<String> = block.map(str::to_owned).collect();
    let tested = commands.iter().any(|command| command == "cargo test --workspace");
    if commands.len() != 2 || !tested || !commands.iter().any(|command| command.starts_with("cargo xtask ")) {
        bail!("two commands are promised, one cargo xtask … and cargo test --workspace; found {commands:?}");
    }
    Ok(commands)
}

/// Builds the clone's recount and xtask.
fn build(clone: &Path) -> Result<(PathBuf, PathBuf)> {
    eprintln!("building recount and xtask from the clone …");
    // One by one, as `cargo xtask` and the chore itself build them: together they would have other features.
    for package in ["xtask", "recount"] {
        let mut cargo = program::cargo();
        cargo.args(["build", "--quiet", "--release", "--package", package, "--bin", package]);
        let status = cargo.current_dir(clone).env("CARGO_TARGET_DIR", program::target()).status()?;
        if !status.success() {
            bail!("a fresh clone does not build");
        }
    }
    // Copies, since the checkout's own build puts its programs in the same place.
    let built = program::target().join("release");
    let kept = clone.with_file_name("built");
    fs::create_dir_all(&kept)?;
    for name in ["recount", "xtask"] {
        let to = kept.join(name);
        drop(fs::remove_file(&to));
        fs::copy(built.join(name), to)?;
    }
    Ok((kept.join("recount"), kept.join("xtask")))
}

/// `recount demo`: its own orders are those of the example, whose account is held against what it shows.
pub fn demo(hour: &mut Hour, binary: &Path, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let units = with_commas(Orders::read(None, None)?.account.units);
    hour.step("recount demo", |step| {
        let mut demo = Command::new(binary);
        // What it leaves to be looked at goes with the rest of the hour.
        demo.arg("demo").current_dir(folder).env("TMPDIR", folder).env_remove("RECOUNT_CONFIG");
        let finished = step.time(&mut demo)?;
        step.check_exit(&finished, 0);
        let right = format!("{units} 0; books balanced, working");
        step.check_says(
            &finished,
            &[
                "errors 0, alerts 0",
                "first sign event 1 after the rename",
                "books balanced",
                "over its budget of 2% of 1000",
                &format!("must be {units}"),
                &format!("Recount, dead-letter {right}"),
                &format!("Recount, skip {right}"),
                "All of it held in this run",
            ],
        );
        Ok(())
    })
}

/// `21,602`.
fn with_commas(number: i64) -> String {
    let digits = number.to_string();
    let mut out = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// `recount init` on one's own events, and what it names as next.
pub fn init(hour: &mut Hour, binary: &Path, orders: &Orders, folder: &Path) -> Result<()> {
    fs::create_dir_all(folder)?;
    let events = orders.lines.len() as u64;
    hour.step("recount init --from ORDERS", |step| {
        let from = orders.path.display().to_string();
        let finished = step.run(binary, &["init", "--from", &from], folder)?;
        step.check_exit(&finished, 0);
        step.check_says(
            &finished,
            &["event.id", "recount validate recount.toml", "recount run recount.toml --dry-run"],
        );
        let config = fs::read_to_string(folder.join("recount.toml"))?;
        let parsed: toml::Table = config.parse().context("what init wrote is no TOML")?;
        let flows = parsed.get("flow").and_then(toml::Value::as_table).context("no [flow.…] was written")?;
        let (name, flow) = flows.iter().next().context("no flow was written")?;
        step.check(flow["id"].as_str() == Some("event.id"), format!("flow {name} with id = \"event.id\""));
        step.check(config.lines().filter(|line| line.starts_with('#')).count() > 10, "it is commented");
        let schema = folder.join(flow["schema"].as_str().context("no schema is named")?);
        let schema: serde_json::Value = serde_json::from_str(&fs::read_to_string(schema)?)?;
        step.check(schema["properties"]["quantity"].is_object(), "a schema that knows the field quantity");
        Ok(())
    })?;
    hour.step("recount validate", |step| {
        let finished = step.run(binary, &["validate"], folder)?;
        step.check_exit(&finished, 0);
        step.check_says(&finished, &["no fault"]);
        Ok(())
    })?;
    hour.step("recount run --dry-run", |step| {
        let before = names(folder)?;
        let finished = step.run(binary, &["run", "--dry-run", "--json"], folder)?;
        step.check_count("events decided", &finished.json()?["flows"][0]["decided_now"], events);
        step.check(names(folder)? == before, "nothing was left in the folder");
        Ok(())
    })
}

/// The rules of the inventory example on these orders: looked at first, then run, and compared with the account.
pub fn rules(hour: &mut Hour, binary: &Path, orders: &Orders, folder: &Path) -> Result<()> {
    inventory::furnish(folder, &inventory::example_config()?, &orders.path, &orders.stock)?;
    let events = orders.lines.len() as u64;
    hour.step("with rules and a database: recount run --dry-run", |step| {
        let before = (names(folder)?, on_hand(folder)?);
        let finished = step.run(binary, &["run", "--dry-run", "--json"], folder)?;
        let run = finished.json()?;
        step.check_count("events decided", &run["flows"][0]["decided_now"], events);
        let applied = orders.account.count(crate::orders::Expected::Applied);
        step.check_count("would be applied", &run["flows"][0]["books"]["applied"], applied);
        let after = (names(folder)?, on_hand(folder)?);
        step.check(after == before, "no file is new, and the database holds what it held");
        Ok(())
    })?;
    hour.step("recount run", |step| {
        let finished = step.run(binary, &["run"], folder)?;
        let expected = i32::from(!super::mistake::within_budgets(orders)?);
        step.check_exit(&finished, expected);
        step.check_says(&finished, &["balanced", "unexplained 0"]);
        let recount = Recount { binary: binary.to_path_buf(), folder: folder.to_path_buf() };
        step.check_none(
            &verify::all(&recount, orders)?,
            "every decision, effect, article and count is the account's",
        );
        Ok(())
    })?;
    hour.step("recount run, a second time", |step| again(step, binary, folder))
}

fn again(step: &mut Step, binary: &Path, folder: &Path) -> Result<()> {
    let before = on_hand(folder)?;
    let finished = step.run(binary, &["run"], folder)?;
    step.check_says(&finished, &["already decided, nothing new"]);
    step.check(on_hand(folder)? == before, "the database holds what it held");
    Ok(())
}

/// What lies in a folder; SQLite's own files beside a database come and go.
fn names(folder: &Path) -> Result<BTreeSet<String>> {
    let entries = fs::read_dir(folder)?;
    let names = entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned()));
    let names: Result<BTreeSet<String>> = names.collect();
    Ok(names?.into_iter().filter(|name| !name.ends_with("-wal") && !name.ends_with("-shm")).collect())
}

/// Tables of the shop, and the units on its shelves.
fn on_hand(folder: &Path) -> Result<(i64, i64)> {
    let shop = shop::open(&folder.join("shop.db"))?;
    let row = shop.query_row(
        "SELECT (SELECT count(*) FROM sqlite_schema), (SELECT sum(on_hand) FROM stock)",
        [],
        |row| Ok((row.get(0)?, row.get(1)?)),
    )?;
    Ok(row)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_commands_are_read_from_the_readme() {
        let readme = fs::read_to_string(program::root().join("README.md")).unwrap();
        let commands = readme_commands(&readme).unwrap();
        assert!(commands.contains(&"cargo xtask example inventory".to_owned()), "{commands:?}");
        assert!(readme_commands("# x\n\n## Two commands\n\n    cargo test --workspace\n").is_err());
        assert!(readme_commands("# x\n").is_err());
    }
}
