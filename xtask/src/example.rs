//! `cargo xtask example inventory`: make the shop's database, run the flow, and show what came of it.

use crate::inventory::{self, Orders, Recount};
use crate::orders::Expected;
use crate::program::{self, Finished};
use crate::verify;
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// What the whole run may take.
const PEAK_RSS_BYTES_MAX: u64 = 150 << 20;

/// Which example, on what, where.
#[derive(clap::Args)]
pub struct Options {
    /// Its name
    #[arg(value_parser = ["inventory"])]
    name: String,
    /// Take the orders and the stock list of this folder: orders-*.ndjson[.zst] and stock.csv[.zst]
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Run in this folder; what an earlier run left there is removed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Compare every decision, effect, count and metric with an independent account of the rules
    #[arg(long)]
    check: bool,
}

/// Runs it; 1 where it doesn't end well, or `--check` finds a difference.
pub fn run(options: Options, json: bool) -> Result<ExitCode> {
    let orders = orders(options.data.as_deref())?;
    let folder = match options.out {
        Some(folder) => folder,
        None => program::target().join(format!("example-{}", options.name)),
    };
    clear(&folder)?;
    inventory::furnish(&folder, &inventory::example_config()?, &orders.path, &orders.stock)?;
    let recount = Recount { binary: program::recount()?, folder };
    let run = recount.run(&["run", "recount.toml", "--metrics-file", "metrics.txt"])?;
    print!("{}", run.stdout);
    fs::write(recount.folder.join("run.log"), &run.stderr)?;
    if !run.status.success() {
        eprint!("{}", run.stderr);
    }
    let faults = if options.check { check(&recount, &orders, &run)? } else { Vec::new() };
    let ok = run.status.success() && faults.is_empty();
    report(&recount, &orders, &run, &faults, options.check);
    if json {
        println!("{}", figures(&orders, &run, &faults, ok));
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

/// The orders and the stock list of a folder; those of the example where none is named.
pub fn orders(folder: Option<&Path>) -> Result<Orders> {
    match folder {
        None => Orders::read(None, None),
        Some(folder) => {
            Orders::read(Some(find(folder, "orders", "ndjson")?), Some(find(folder, "stock", "csv")?))
        }
    }
}

/// Removes what an earlier run left, and nothing else.
fn clear(folder: &Path) -> Result<()> {
    let config = ["recount.toml", "order-placed.schema.json", "orders.ndjson"];
    let left = ["run.log", "metrics.txt", "shop.db", "shop.db-wal", "shop.db-shm"];
    for entry in fs::read_dir(folder).into_iter().flatten() {
        let entry = entry?;
        let name = entry.file_name();
        if name == "recount-data" {
            fs::remove_dir_all(entry.path())?;
        } else if config.iter().chain(&left).any(|ours| name == *ours) {
            fs::remove_file(entry.path())?;
        } else {
            bail!("{} holds something else ({}): name another folder", folder.display(), name.display());
        }
    }
    Ok(())
}

/// The one file `NAME….EXTENSION` or `NAME….EXTENSION.zst` of a folder.
fn find(folder: &Path, name: &str, extension: &str) -> Result<PathBuf> {
    let packed = format!(".{extension}.zst");
    let plain = format!(".{extension}");
    let mut found: Vec<PathBuf> = Vec::new();
    for entry in fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))? {
        let path = entry?.path();
        let file = path.file_name().map(|file| file.to_string_lossy().into_owned()).unwrap_or_default();
        if file.starts_with(name) && (file.ends_with(&packed) || file.ends_with(&plain)) {
            found.push(path);
        }
    }
    match found.as_slice() {
        [one] => Ok(one.clone()),
        [] => bail!("{} has no {name}*{plain} or {name}*{packed}", folder.display()),
        many => bail!("{} has {} files {name}*{plain}: one is wanted", folder.display(), many.len()),
    }
}

fn check(recount: &Recount, orders: &Orders, run: &Finished) -> Result<Vec<String>> {
    let mut faults = verify::all(recount, orders)?;
    faults.extend(verify::metrics(&fs::read_to_string(recount.folder.join("metrics.txt"))?, orders));
    if run.peak_rss_bytes > PEAK_RSS_BYTES_MAX {
        let (peak, most) = (run.peak_rss_bytes >> 20, PEAK_RSS_BYTES_MAX >> 20);
        faults.push(format!("it took {peak} MiB of memory, {most} are the most"));
    }
    Ok(faults)
}

fn report(recount: &Recount, orders: &Orders, run: &Finished, faults: &[String], checked: bool) {
    println!(
        "\n{} lines in {:.1} s, at most {} MiB of memory; everything is in {}, what it logged in run.log",
        orders.lines.len(),
        run.wall.as_secs_f64(),
        run.peak_rss_bytes >> 20,
        recount.folder.display()
    );
    let refused = orders.account.fates.iter().position(|fate| *fate == Expected::InsufficientStock);
    if let Some(order) = refused.and_then(|line| orders.lines.get(line)) {
        let (folder, binary) = (recount.folder.display(), recount.binary.display());
        println!("look closer: cd {folder} && {binary} story {}", order.sku);
    }
    for fault in faults {
        println!("wrong: {fault}");
    }
    if checked && faults.is_empty() {
        println!("checked: every decision, effect, article, count and metric is as the rules say");
    }
    if !run.status.success() {
        println!("recount run ended with {}", run.status);
    }
}

fn figures(orders: &Orders, run: &Finished, faults: &[String], ok: bool) -> serde_json::Value {
    let counts: serde_json::Map<String, serde_json::Value> = Expected::ALL
        .into_iter()
        .map(|fate| {
            let name = if fate == Expected::Applied { fate.verdict() } else { fate.reason() };
            (name.to_owned(), orders.account.count(fate).into())
        })
        .collect();
    json!({
        "ok": ok,
        "events": orders.lines.len(),
        "expected": counts,
        "expected_units": orders.account.units,
        "expected_bulk_order": orders.account.bulk,
        "seconds": run.wall.as_secs_f64(),
        "cpu_seconds": run.cpu_seconds,
        "peak_rss_bytes": run.peak_rss_bytes,
        "exit_code": run.status.code(),
        "faults": faults,
    })
}
