//! `cargo xtask kill`: SIGKILL strikes `recount run` at random instants, again and again; then everything
//! must be as if nothing had happened.
//!
//! The instants are drawn from the seed, but where they strike hangs on the machine's own timing: a seed
//! gives the same plan, not the same run.

use crate::inventory::{self, Orders, Recount};
use crate::program;
use crate::random::Random;
use crate::{shop, verify};
use anyhow::{Context, Result, bail};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};
use std::time::{Duration, Instant};

/// The file is cut so that about so many batches come to a kill.
const BATCHES_PER_KILL: u64 = 12;
/// A process that settles nothing for so long is stuck.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often, and on what.
#[derive(clap::Args)]
pub struct Options {
    /// So many kills
    #[arg(long, default_value_t = 200)]
    kills: u64,
    /// The plan of instants
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Order lines, plain or .zst; without it those of the example
    #[arg(long, value_name = "FILE", requires = "stock")]
    orders: Option<PathBuf>,
    /// The stock list, plain or .zst
    #[arg(long, value_name = "FILE", requires = "orders")]
    stock: Option<PathBuf>,
}

/// What the kills came to.
struct Struck {
    kills: u64,
    /// Step and how often it was struck.
    steps: BTreeMap<String, u64>,
    /// Kills since which no batch was committed: against the rule of this test.
    without_progress: u64,
}

/// Kills, lets it finish, and compares; 1 where something differs.
pub fn run(options: Options, json: bool) -> Result<ExitCode> {
    let orders = Orders::read(options.orders, options.stock)?;
    let folder = tempfile::tempdir()?;
    let batch_events = (orders.lines.len() as u64 / (options.kills.max(1) * BATCHES_PER_KILL)).clamp(1, 500);
    let batch = format!("events = {batch_events}");
    let config = inventory::with_flow_table(&inventory::example_config()?, "batch", &batch)?;
    inventory::furnish(folder.path(), &config, &orders.path, &orders.stock)?;
    let recount = Recount { binary: program::recount()?, folder: folder.path().to_path_buf() };
    let begun = Instant::now();
    let mut harness =
        Harness { recount: &recount, random: Random::new(options.seed), orders: &orders, batch_events };
    let struck = harness.strike(options.kills)?;
    let last = recount.run(&["run", "recount.toml"])?;
    let mut faults = verify::all(&recount, &orders)?;
    if !matches!(last.status.code(), Some(0 | 1)) {
        faults.push(format!(
            "the last run, which nobody killed, ended with {}: {}",
            last.status,
            last.tail()
        ));
    }
    if struck.kills < options.kills {
        faults.push(format!("the orders were through after {} of {} kills", struck.kills, options.kills));
    }
    if struck.without_progress > 0 {
        faults.push(format!("{} kills with no batch committed since the last", struck.without_progress));
    }
    report(&orders, &struck, &faults, batch_events, options.seed);
    if json {
        println!("{}", figures(&orders, &struck, &faults, (options.seed, batch_events), begun.elapsed()));
    }
    if !faults.is_empty() {
        eprintln!("kept for a closer look: {}", folder.keep().display());
    }
    Ok(ExitCode::from(u8::from(!faults.is_empty())))
}

struct Harness<'a> {
    recount: &'a Recount,
    random: Random,
    orders: &'a Orders,
    batch_events: u64,
}

impl Harness<'_> {
    fn strike(&mut self, kills: u64) -> Result<Struck> {
        let mut struck = Struck { kills: 0, steps: BTreeMap::new(), without_progress: 0 };
        let mut committed = (0, 0);
        while struck.kills < kills {
            let left = (self.orders.lines.len() as u64).saturating_sub(committed.1) / self.batch_events;
            // What may pass before this kill, so that the rest has its share: half of it on average.
            let share = (left / (kills - struck.kills)).saturating_sub(BATCHES_PER_KILL / 3);
            let batches = 1 + self.random.below(share);
            let Some(step) = self.one(batches)? else { break };
            *struck.steps.entry(step).or_default() += 1;
            struck.kills += 1;
            let now = committed_position(&self.recount.folder.join("shop.db"));
            struck.without_progress += u64::from(now.0 <= committed.0);
            committed = now;
        }
        Ok(struck)
    }

    /// Starts it, waits until it has settled so many batches and a random moment more, and kills it.
    /// Returns the step that it was at; none where it was through before.
    fn one(&mut self, batches: u64) -> Result<Option<String>> {
        let steps = self.recount.folder.join("step");
        fs::write(&steps, "start")?;
        let log = self.recount.folder.join("run.log");
        let mut command = self.recount.command(&["run", "recount.toml"]);
        command.env("RECOUNT_STEP_FILE", &steps).stdin(Stdio::null());
        command.stdout(File::create(&log)?).stderr(File::options().append(true).open(&log)?);
        let mut child = command.spawn()?;
        let outcome = self.wait(&mut child, &steps, batches);
        if !matches!(outcome, Ok(true)) {
            // Whatever went wrong, no process is left behind.
            let _ = child.kill();
            child.wait()?;
            return outcome.map(|_| None).with_context(|| fs::read_to_string(&log).unwrap_or_default());
        }
        child.kill()?;
        let status = child.wait()?;
        Ok(status.code().is_none().then(|| Step::read(&steps).word))
    }

    /// True when the moment has come, false when the process has ended by itself.
    fn wait(&mut self, child: &mut Child, steps: &Path, batches: u64) -> Result<bool> {
        let begun = Instant::now();
        let mut first: Option<(Instant, u64)> = None;
        loop {
            if let Some(status) = child.try_wait()? {
                return if status.success() { Ok(false) } else { bail!("recount run ended with {status}") };
            }
            let settled = Step::read(steps).settled;
            if settled > 0 && first.is_none() {
                first = Some((Instant::now(), settled));
            }
            // One more than that has begun, so that so many are done.
            if settled > batches {
                break;
            }
            if begun.elapsed() > PATIENCE {
                bail!("{settled} batches settled in {} s", PATIENCE.as_secs());
            }
            std::thread::sleep(Duration::from_micros(50));
        }
        // Somewhere within the next two batches, as long as they took so far.
        let (since, at_first) = first.unwrap_or((begun, 0));
        let passed = Step::read(steps).settled.saturating_sub(at_first);
        let batch_us = since.elapsed().as_micros() as u64 / passed.max(1);
        std::thread::sleep(Duration::from_micros(self.random.below(2 * batch_us.clamp(200, 50_000))));
        Ok(true)
    }
}

/// What the running process last wrote of itself.
pub struct Step {
    /// The step's word.
    pub word: String,
    /// How many batches it began to settle.
    pub settled: u64,
}

impl Step {
    /// Of the file that `RECOUNT_STEP_FILE` named.
    pub fn read(path: &Path) -> Self {
        let text = fs::read_to_string(path).unwrap_or_default();
        let mut words = text.split_whitespace();
        let word = words.next().unwrap_or("unknown").to_owned();
        Self { word, settled: words.next().and_then(|number| number.parse().ok()).unwrap_or(0) }
    }
}

/// Seq of the last committed batch, and the first offset that isn't decided.
fn committed_position(path: &Path) -> (u64, u64) {
    let connection = shop::open(path);
    connection.map_or((0, 0), |connection| shop::committed_position(&connection))
}

fn report(orders: &Orders, struck: &Struck, faults: &[String], batch_events: u64, seed: u64) {
    println!(
        "{} kills (seed {seed}) on {} lines, {batch_events} to a batch, each after at least one batch was settled",
        struck.kills,
        orders.lines.len()
    );
    println!("struck at:");
    for (step, kills) in &struck.steps {
        println!("  {step:<8} {kills:>5}");
    }
    for fault in faults {
        println!("wrong: {fault}");
    }
    if faults.is_empty() {
        println!(
            "every position has exactly one current decision, and every decision, effect and article is as the rules \
             say: {} applied, {} units out of stock; the audit says balanced",
            orders.account.count(crate::orders::Expected::Applied),
            orders.account.units
        );
    }
}

fn figures(
    orders: &Orders,
    struck: &Struck,
    faults: &[String],
    (seed, batch_events): (u64, u64),
    took: Duration,
) -> serde_json::Value {
    json!({
        "ok": faults.is_empty(),
        "seed": seed,
        "kills": struck.kills,
        "events": orders.lines.len(),
        "batch_events": batch_events,
        "struck_at": struck.steps,
        "applied": orders.account.count(crate::orders::Expected::Applied),
        "units": orders.account.units,
        "seconds": took.as_secs_f64(),
        "faults": faults,
    })
}
