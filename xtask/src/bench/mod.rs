//! `cargo xtask bench loop`: the same orders through a loop written by hand and through `recount run`.

mod kafka;
mod servers;

use crate::inventory::{self, Orders, Recount};
use crate::orders::{self, Expected};
use crate::program::{self, Finished};
use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const RATIO_MIN: f64 = 0.7;
const LEDGER_BYTES_MAX: f64 = 40.0;
/// So often the example's lines are read where no others are named, for a run long enough to judge by.
const REPEATS: usize = 24;

/// What to compare with.
#[derive(clap::Args)]
pub struct Options {
    #[command(subcommand)]
    rival: Rival,
}

#[derive(clap::Subcommand)]
enum Rival {
    /// The bare loop: same parser, statements and batch size, and no record of what it did
    Loop(LoopOptions),
}

/// Where the orders come from, and go to.
#[derive(Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum From {
    /// A file, into SQLite.
    File,
    /// Kafka, into PostgreSQL.
    Kafka,
}

#[derive(clap::Args)]
struct LoopOptions {
    /// From a file into SQLite, or from Kafka into PostgreSQL
    #[arg(long, value_enum, default_value = "file")]
    source: From,
    /// Kafka: a folder with orders….ndjson and stock….csv, plain or .zst; without it those of the example
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Kafka: so many rounds, in each of which every one runs once
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Kafka: a JSON Schema and three checks in each
    #[arg(long)]
    checks: bool,
    /// So many runs of each, in turn
    #[arg(long, default_value_t = 7)]
    pairs: usize,
    /// Order lines, plain or .zst; without it those of the example, over and over
    #[arg(long, value_name = "FILE", requires = "stock")]
    orders: Option<PathBuf>,
    /// The stock list, plain or .zst
    #[arg(long, value_name = "FILE", requires = "orders")]
    stock: Option<PathBuf>,
}

/// Compares; 1 where Recount is too slow or its ledger too large.
pub fn run(options: Options, json: bool) -> Result<ExitCode> {
    let Rival::Loop(options) = options.rival;
    if options.source == From::Kafka {
        return kafka::run(options.data, options.rounds, options.checks, json);
    }
    let bench = Bench::prepare(options.orders, options.stock)?;
    let applied_only = bench.ledger_of_applied_only()?;
    let modes = [Mode::Plain, Mode::Checks].map(|mode| bench.compare(mode, options.pairs));
    let mut comparisons = Vec::new();
    for comparison in modes {
        let comparison = comparison?;
        comparison.print();
        comparisons.push(comparison);
    }
    let specialised = bench.bare_loop(&["struct"])?;
    let bytes = comparisons.iter().map(|c| c.ledger_bytes_per_applied).fold(0.0, f64::max);
    println!(
        "\na loop that takes only the three fields it needs (not compared): {:.0} events/s, {:.2} CPU s",
        bench.orders.lines.len() as f64 / specialised.wall.as_secs_f64(),
        specialised.cpu_seconds
    );
    println!(
        "ledger for each applied event: {applied_only:.1} bytes where all are applied, {bytes:.1} with the kept dead letters and \
         skipped events of the others counted in; ids of {:.1} bytes",
        bench.id_bytes()
    );
    let ok = applied_only <= LEDGER_BYTES_MAX && comparisons.iter().all(|c| median(&c.ratios()) >= RATIO_MIN);
    println!(
        "{}: wanted are a ratio of {RATIO_MIN} and at most {LEDGER_BYTES_MAX} bytes",
        if ok { "holds" } else { "does not hold" }
    );
    if json {
        let mut figures = json!({
            "ok": ok,
            "events": bench.orders.lines.len(),
            "pairs": options.pairs,
            "ledger_bytes_per_applied": applied_only,
            "ledger_bytes_per_applied_with_others": bytes,
            "id_bytes_mean": bench.id_bytes(),
            "struct_loop_events_per_s": bench.orders.lines.len() as f64 / specialised.wall.as_secs_f64(),
        });
        for comparison in &comparisons {
            figures[comparison.mode.word()] = comparison.json();
        }
        println!("{figures}");
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

#[derive(Clone, Copy)]
enum Mode {
    Plain,
    Checks,
}

impl Mode {
    fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain",
            Self::Checks => "checks",
        }
    }
}

struct Bench {
    orders: Orders,
    folder: tempfile::TempDir,
    bare_loop: PathBuf,
    recount: PathBuf,
}

impl Bench {
    /// Builds both programs, and lays orders and a fresh shop ready.
    fn prepare(orders: Option<PathBuf>, stock: Option<PathBuf>) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let path = folder.path().join("orders.ndjson");
        match orders {
            Some(orders) => {
                std::io::copy(&mut orders::open(&orders)?, &mut fs::File::create(&path)?)?;
            }
            None => fs::write(&path, repeated(&inventory::example().join("orders.ndjson"))?)?,
        }
        let orders = Orders::read(Some(path), stock)?;
        let (recount, bare_loop) = (program::recount()?, program::build("bare-loop")?);
        Ok(Self { orders, folder, bare_loop, recount })
    }

    /// A fresh folder with orders, schema, shop and this config.
    fn room(&self, config: &str, orders: &Path) -> Result<Recount> {
        let folder = self.folder.path().join("room");
        if folder.exists() {
            fs::remove_dir_all(&folder)?;
        }
        fs::create_dir(&folder)?;
        inventory::furnish(&folder, config, orders, &self.orders.stock)?;
        Ok(Recount { binary: self.recount.clone(), folder })
    }

    fn config(mode: Mode) -> Result<String> {
        let path = program::root().join("bench").join(format!("{}.toml", mode.word()));
        fs::read_to_string(&path).with_context(|| format!("can't read {}", path.display()))
    }

    fn compare(&self, mode: Mode, pairs: usize) -> Result<Comparison> {
        let loop_mode: &[&str] = match mode {
            Mode::Plain => &["plain"],
            Mode::Checks => &["checks", "order-placed.schema.json"],
        };
        let mut comparison = Comparison {
            mode,
            events: self.orders.lines.len(),
            pairs: Vec::new(),
            ledger_bytes_per_applied: 0.0,
        };
        for pair in 0..pairs.max(1) {
            eprint!("\r{}: pair {} of {pairs} ", mode.word(), pair + 1);
            // Who begins changes, so that neither always meets the other's warm or worn disk.
            let (bare, recount) = if pair % 2 == 0 {
                let bare = self.bare_loop(loop_mode)?;
                (bare, self.recount(mode, &mut comparison)?)
            } else {
                let recount = self.recount(mode, &mut comparison)?;
                (self.bare_loop(loop_mode)?, recount)
            };
            comparison.pairs.push((bare, recount));
        }
        eprintln!();
        Ok(comparison)
    }

    fn bare_loop(&self, mode: &[&str]) -> Result<Finished> {
        let room = self.room("", &self.folder.path().join("orders.ndjson"))?;
        let mut command = Command::new(&self.bare_loop);
        command.args(["orders.ndjson", "shop.db"]).args(mode).current_dir(&room.folder);
        let finished = program::run(&mut command)?.expect_success("bare-loop")?;
        let lines = self.orders.lines.len();
        ensure!(finished.json()?["events"] == lines, "bare-loop read other than {lines} lines");
        Ok(finished)
    }

    fn recount(&self, mode: Mode, comparison: &mut Comparison) -> Result<Finished> {
        let room = self.room(&Self::config(mode)?, &self.folder.path().join("orders.ndjson"))?;
        let finished = room.run(&["run", "recount.toml"])?.expect_success("recount run")?;
        let applied = effects(&room)?;
        comparison.ledger_bytes_per_applied = ledger_bytes(&room)? as f64 / applied as f64;
        if matches!(mode, Mode::Checks) {
            let right = self.orders.account.count(Expected::Applied);
            ensure!(applied == right, "recount applied {applied} of {right} orders");
        }
        Ok(finished)
    }

    /// Bytes of ledger for an event where every event is applied, so that nothing else is in it.
    fn ledger_of_applied_only(&self) -> Result<f64> {
        let path = self.folder.path().join("applied").join("orders.ndjson");
        fs::create_dir(self.folder.path().join("applied"))?;
        let text = fs::read_to_string(self.folder.path().join("orders.ndjson"))?;
        let fates = text.lines().zip(&self.orders.account.fates);
        let applied: String = fates
            .filter(|(_, fate)| **fate == Expected::Applied)
            .flat_map(|(line, _)| [line, "\n"])
            .collect();
        fs::write(&path, applied)?;
        let room = self.room(&Self::config(Mode::Checks)?, &path)?;
        room.run(&["run", "recount.toml"])?.expect_success("recount run")?;
        let applied = effects(&room)?;
        ensure!(applied == self.orders.account.count(Expected::Applied), "recount applied only {applied}");
        Ok(ledger_bytes(&room)? as f64 / applied as f64)
    }

    fn id_bytes(&self) -> f64 {
        let bytes: usize = self.orders.lines.iter().map(|order| order.id.len()).sum();
        bytes as f64 / self.orders.lines.len().max(1) as f64
    }
}

/// The example's lines, over and over, with ids of their own each time.
fn repeated(path: &Path) -> Result<String> {
    const ID: &str = "{\"id\":\"31";
    let text = fs::read_to_string(path).with_context(|| format!("can't read {}", path.display()))?;
    let mut all = String::with_capacity(text.len() * REPEATS);
    for round in 0..REPEATS {
        for line in text.lines() {
            let rest = line.strip_prefix(ID).with_context(|| format!("does not begin with {ID}: {line}"))?;
            all.push_str(&format!("{{\"id\":\"{}{rest}\n", 31 + round));
        }
    }
    Ok(all)
}

fn effects(room: &Recount) -> Result<u64> {
    let connection = crate::shop::open(&room.folder.join("shop.db"))?;
    let rows: i64 = connection.query_row("SELECT count(*) FROM recount_effect", [], |row| row.get(0))?;
    Ok(rows.cast_unsigned())
}

fn ledger_bytes(room: &Recount) -> Result<u64> {
    program::folder_bytes(&room.folder.join("recount-data"))
}

/// Runs of both, in one mode.
struct Comparison {
    mode: Mode,
    events: usize,
    /// The bare loop's, and Recount's.
    pairs: Vec<(Finished, Finished)>,
    ledger_bytes_per_applied: f64,
}

impl Comparison {
    /// Recount's rate over the loop's, pair by pair.
    fn ratios(&self) -> Vec<f64> {
        self.pairs
            .iter()
            .map(|(bare, recount)| bare.wall.as_secs_f64() / recount.wall.as_secs_f64())
            .collect()
    }

    fn of(&self, number: impl Fn(&(Finished, Finished)) -> f64) -> Vec<f64> {
        self.pairs.iter().map(number).collect()
    }

    fn rates(&self) -> (Vec<f64>, Vec<f64>) {
        let events = self.events as f64;
        (
            self.of(|pair| events / pair.0.wall.as_secs_f64()),
            self.of(|pair| events / pair.1.wall.as_secs_f64()),
        )
    }

    fn cpu(&self) -> (Vec<f64>, Vec<f64>) {
        (self.of(|pair| pair.0.cpu_seconds), self.of(|pair| pair.1.cpu_seconds))
    }

    fn peak_rss_bytes(&self) -> u64 {
        self.pairs.iter().map(|pair| pair.1.peak_rss_bytes).max().unwrap_or(0)
    }

    /// The shares of Recount's threads in its CPU time, largest first.
    fn thread_shares(&self) -> Vec<(String, f64)> {
        let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
        for (name, seconds) in self.pairs.iter().flat_map(|pair| &pair.1.thread_cpu_seconds) {
            *sums.entry(name).or_default() += seconds;
        }
        let total: f64 = sums.values().sum();
        let mut shares: Vec<(String, f64)> =
            sums.iter().map(|(name, sum)| ((*name).to_owned(), sum / total)).collect();
        shares.sort_by(|a, b| b.1.total_cmp(&a.1));
        shares
    }

    fn print(&self) {
        let ((bare, recount), (bare_cpu, recount_cpu)) = (self.rates(), self.cpu());
        let what = match self.mode {
            Mode::Plain => "checks off",
            Mode::Checks => "a JSON Schema and three CEL checks in both",
        };
        println!("\n{what}, {} events, {} pairs (median, least to most):", self.events, self.pairs.len());
        let line = |name: &str, numbers: &[f64], digits: usize| {
            let (low, high) = spread(numbers);
            println!("  {name:<24}{:>12.digits$}   {low:.digits$} to {high:.digits$}", median(numbers));
        };
        line("bare loop, events/s", &bare, 0);
        line("recount run, events/s", &recount, 0);
        line("ratio", &self.ratios(), 3);
        line("bare loop, CPU s", &bare_cpu, 2);
        line("recount run, CPU s", &recount_cpu, 2);
        let more = 1e6 * (median(&recount_cpu) - median(&bare_cpu)) / self.events as f64;
        let shares = self.thread_shares();
        let shares: Vec<String> =
            shares.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
        println!("  its threads: {}", shares.join(", "));
        println!(
            "  recount takes {more:.1} µs of CPU more for an event, and at most {} MiB",
            self.peak_rss_bytes() >> 20
        );
    }

    fn json(&self) -> Value {
        let of = |numbers: Vec<f64>| {
            let (low, high) = spread(&numbers);
            json!({ "median": median(&numbers), "min": low, "max": high })
        };
        let ((bare, recount), (bare_cpu, recount_cpu)) = (self.rates(), self.cpu());
        json!({
            "ratio": of(self.ratios()),
            "loop_events_per_s": of(bare),
            "recount_events_per_s": of(recount),
            "loop_cpu_seconds": of(bare_cpu),
            "recount_cpu_seconds": of(recount_cpu),
            "recount_thread_shares": self.thread_shares().into_iter().collect::<BTreeMap<_, _>>(),
            "recount_peak_rss_bytes": self.peak_rss_bytes(),
            "ledger_bytes_per_applied_with_others": self.ledger_bytes_per_applied,
        })
    }
}

fn median(numbers: &[f64]) -> f64 {
    let mut sorted = numbers.to_vec();
    sorted.sort_by(f64::total_cmp);
    match sorted.len() {
        0 => f64::NAN,
        odd if odd % 2 == 1 => sorted[odd / 2],
        even => (sorted[even / 2 - 1] + sorted[even / 2]) / 2.0,
    }
}

fn spread(numbers: &[f64]) -> (f64, f64) {
    numbers.iter().fold((f64::INFINITY, f64::NEG_INFINITY), |(low, high), n| (low.min(*n), high.max(*n)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_the_middle_or_the_mean_of_the_two_in_it() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(spread(&[2.0, 1.0, 3.0]), (1.0, 3.0));
    }
}
