//! `cargo xtask bench loop --source kafka`: the orders from Kafka to PostgreSQL, through two loops written by
//! hand and through `recount run`, in turn, on servers that nobody else uses.

use super::servers::{Servers, Usage};
use super::{median, spread};
use crate::inventory::{self, Orders};
use crate::orders::Expected;
use crate::program::{self, Finished};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, ExitCode};

/// What is wanted beside the loop in Go, and beside the one in Rust.
const WANTED: [f64; 2] = [1.0, 0.8];
const FLOW: &str = "reserve-stock";
/// Events before the held rate, and how long it is held.
const WARM_EVENTS: usize = 600;
const HELD_SECONDS: f64 = 6.0;

/// What is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Who {
    Recount,
    Go,
    Rust,
}

impl Who {
    const ALL: [Self; 3] = [Self::Go, Self::Rust, Self::Recount];

    fn word(self) -> &'static str {
        match self {
            Self::Recount => "recount run",
            Self::Go => "loop in Go",
            Self::Rust => "loop in Rust",
        }
    }

    fn field(self) -> &'static str {
        match self {
            Self::Recount => "recount",
            Self::Go => "go_loop",
            Self::Rust => "rust_loop",
        }
    }
}

/// One run of one of them.
struct Run {
    finished: Finished,
    /// From its first to its last committed effect.
    seconds: f64,
    postgres: Usage,
}

/// Quantiles from publish to committed effect, in milliseconds.
#[derive(Clone, Copy)]
struct Delay {
    p50: f64,
    p99: f64,
    p999: f64,
}

struct Bench {
    servers: Servers,
    orders: Orders,
    checks: bool,
    recount: PathBuf,
    rust_loop: PathBuf,
    go_loop: PathBuf,
    folder: tempfile::TempDir,
}

/// Compares; 1 where Recount is slower than wanted.
pub fn run(data: Option<PathBuf>, rounds: usize, checks: bool, json: bool) -> Result<ExitCode> {
    let bench = Bench::prepare(data, checks)?;
    let all = bench.orders.lines.len();
    bench.fill("orders", all, &[])?;
    let driver = bench.driver()?;
    let mut runs: BTreeMap<&str, Vec<Run>> = BTreeMap::new();
    for round in 0..rounds.max(1) {
        // Who begins changes, so that none always meets the others' warm or worn disk.
        let mut told = format!("round {} of {rounds}:", round + 1);
        for turn in 0..Who::ALL.len() {
            let who = Who::ALL[(turn + round) % Who::ALL.len()];
            let run = bench.round(who, "orders", all)?;
            told.push_str(&format!("  {} {:.0} events/s", who.word(), all as f64 / run.seconds));
            runs.entry(who.field()).or_default().push(run);
        }
        println!("{told}");
    }
    let slowest = Who::ALL.map(|who| median(&rates(&runs[who.field()], all)));
    let half = slowest.into_iter().fold(f64::INFINITY, f64::min) / 2.0;
    let mut delays = BTreeMap::new();
    for who in Who::ALL {
        delays.insert(who.field(), bench.held(who, half)?);
    }
    let ratios = [Who::Go, Who::Rust].map(|rival| ratios(&runs, rival));
    print(&runs, &delays, &ratios, all, half, driver);
    let ok = ratios.iter().zip(WANTED).all(|(ratios, wanted)| median(ratios) >= wanted);
    println!(
        "{}: wanted are ratios of {:.1} to the loop in Go and {:.1} to the one in Rust",
        if ok { "holds" } else { "does not hold" },
        WANTED[0],
        WANTED[1]
    );
    if json {
        println!("{}", figures(&runs, &delays, &ratios, all, half, driver, ok, checks));
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

impl Bench {
    /// Builds the programs, starts the servers, and makes the database that each run gets a copy of.
    fn prepare(data: Option<PathBuf>, checks: bool) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let (orders, stock) = match data {
            Some(data) => (
                Some(unpacked(&one_of(&data, "orders", ".ndjson")?, &folder.path().join("orders.ndjson"))?),
                Some(one_of(&data, "stock", ".csv")?),
            ),
            None => (None, None),
        };
        let orders = Orders::read(orders, stock)?;
        let go_loop = folder.path().join("go-loop");
        eprintln!("building the loops and recount …");
        let mut go = Command::new("go");
        go.args(["build", "-o"]).arg(&go_loop).arg(".").current_dir(program::root().join("bench/go-loop"));
        let status = go.status().context("Go is missing: install it (Debian: golang), 1.22 or newer")?;
        ensure!(status.success(), "bench/go-loop does not build");
        let (rust_loop, recount) = programs()?;
        let servers = Servers::start()?;
        servers.template(&orders.stock)?;
        Ok(Self { servers, orders, checks, recount, rust_loop, go_loop, folder })
    }

    fn kafka_loop(&self, arguments: &[&str]) -> Result<Finished> {
        program::run(Command::new(&self.rust_loop).args(arguments))?.expect_success("kafka-loop")
    }

    fn fill(&self, topic: &str, events: usize, pace: &[&str]) -> Result<()> {
        let (servers, path) = (self.servers.kafka(), self.orders.path.display().to_string());
        let events = events.to_string();
        let mut arguments = vec!["fill", &servers, topic, &path, &events];
        arguments.extend(pace);
        self.kafka_loop(&arguments).map(drop)
    }

    /// Events that PostgreSQL takes in a second of a driver that has them in memory.
    fn driver(&self) -> Result<f64> {
        let database = self.servers.fresh()?;
        let events = self.orders.lines.len();
        let finished = self.kafka_loop(&[
            "driver",
            &self.servers.kafka(),
            "orders",
            &self.servers.url(&database),
            &events.to_string(),
        ])?;
        self.servers.drop(&database)?;
        let seconds = finished.json()?["seconds"].as_f64().context("the driver tells no seconds")?;
        Ok(events as f64 / seconds)
    }

    fn command(&self, who: Who, database: &str, topic: &str, events: usize) -> Result<Command> {
        let (kafka, url, events) = (self.servers.kafka(), self.servers.url(database), events.to_string());
        let mut command = match who {
            Who::Go => Command::new(&self.go_loop),
            Who::Rust => Command::new(&self.rust_loop),
            Who::Recount => Command::new(&self.recount),
        };
        let room = self.folder.path().join(database);
        match who {
            Who::Go => {
                let mode = if self.checks { "checks" } else { "plain" };
                command.args([&kafka, topic, database, &url, &events, mode]);
            }
            Who::Rust => {
                command.args(["run", &kafka, topic, database, &url, &events]);
                if self.checks {
                    command.arg(inventory::example().join("order-placed.schema.json"));
                }
            }
            Who::Recount => {
                fs::create_dir(&room)?;
                let name = if self.checks { "checks.toml" } else { "plain.toml" };
                let config = fs::read_to_string(program::root().join("bench").join(name))?;
                let source = format!("{{ broker = \"main\", topic = \"{topic}\", group = \"{database}\" }}");
                let config =
                    config.replace("sqlite:shop.db", &url).replace("{ file = \"orders.ndjson\" }", &source);
                let config = format!("{config}\n[broker.main]\nkafka = {{ servers = \"{kafka}\" }}\n");
                fs::write(room.join("recount.toml"), config)?;
                let schema = "order-placed.schema.json";
                fs::copy(inventory::example().join(schema), room.join(schema))?;
                command.args(["run", "recount.toml"]).current_dir(&room);
                command.env_remove("RECOUNT_CONFIG").env_remove("RECOUNT_STEP_FILE");
            }
        }
        Ok(command)
    }

    /// One run, ended once everything is decided. A loop ends by itself; Recount is watched through its
    /// position rows, and asked to end.
    fn go(&self, who: Who, database: &str, topic: &str, events: usize) -> Result<Finished> {
        let mut command = self.command(who, database, topic, events)?;
        if who != Who::Recount {
            return program::run(&mut command)?.expect_success(who.word());
        }
        let (url, events) = (self.servers.url(database), events.to_string());
        let watch = || {
            let watched = Command::new(&self.rust_loop).args(["watch", &url, &events]).status();
            watched.is_ok_and(|status| status.success())
        };
        program::run_until(&mut command, watch)
    }

    fn round(&self, who: Who, topic: &str, events: usize) -> Result<Run> {
        let database = self.servers.fresh()?;
        let watched = self.servers.watch_postgres()?;
        let finished = self.go(who, &database, topic, events)?;
        let postgres = watched.end()?;
        self.verify(who, &database, &finished)?;
        let seconds = self.servers.sql(
            &database,
            "SELECT extract(epoch FROM max(at) - min(at)) FROM (SELECT pg_xact_commit_timestamp(xmin) AS at \
             FROM recount_effect) AS effects",
        )?;
        let seconds = seconds.parse().with_context(|| format!("no seconds: {seconds}"))?;
        self.leave(&database)?;
        Ok(Run { finished, seconds, postgres })
    }

    fn leave(&self, database: &str) -> Result<()> {
        self.servers.drop(database)?;
        let room = self.folder.path().join(database);
        if room.exists() {
            fs::remove_dir_all(room)?;
        }
        Ok(())
    }

    /// Counts and stock are what the rules come to; each effect is there once.
    fn verify(&self, who: Who, database: &str, finished: &Finished) -> Result<()> {
        let account = &self.orders.account;
        let mut applied = account.count(Expected::Applied);
        if !self.checks {
            let zero = |(order, fate): &(&crate::orders::Order, &Expected)| {
                **fate == Expected::ZeroQuantity && account.on_hand.contains_key(&order.sku)
            };
            // Without checks an order for nothing takes nothing, successfully.
            applied += self.orders.lines.iter().zip(&account.fates).filter(zero).count() as u64;
        }
        let counted = self.servers.sql(
            database,
            "SELECT count(*), count(DISTINCT (partition, \"offset\")), count(DISTINCT event_id) FROM recount_effect",
        )?;
        let right = format!("{applied}|{applied}|{applied}");
        ensure!(
            counted == right,
            "{}: effects, positions and ids are {counted}, must be {right}: {}",
            who.word(),
            finished.tail()
        );
        let stock = self.servers.sql(database, "SELECT sku, on_hand FROM stock")?;
        let mut articles = 0;
        for row in stock.lines() {
            let (sku, on_hand) = row.split_once('|').with_context(|| format!("no stock: {row}"))?;
            let must = account.on_hand.get(sku);
            ensure!(
                must.is_some_and(|must| must.to_string() == on_hand),
                "{sku}: {on_hand}, must be {must:?}"
            );
            articles += 1;
        }
        ensure!(articles == account.on_hand.len(), "{articles} articles, must be {}", account.on_hand.len());
        Ok(())
    }

    /// The delays at a held rate, on a topic of its own.
    fn held(&self, who: Who, rate: f64) -> Result<Delay> {
        let events = (WARM_EVENTS + (rate * HELD_SECONDS) as usize).min(self.orders.lines.len());
        let (topic, database) = (format!("held-{}", who.field()), self.servers.fresh()?);
        let published = self.folder.path().join("published");
        let (rate, warm) = ((rate as usize).to_string(), WARM_EVENTS.to_string());
        let pace = [rate.as_str(), &warm, published.to_str().context("a path that is no text")?];
        std::thread::scope(|scope| {
            let filled = scope.spawn(|| self.fill(&topic, events, &pace));
            // The topic must be there first.
            std::thread::sleep(std::time::Duration::from_secs(1));
            let went = self.go(who, &database, &topic, events);
            let Ok(filled) = filled.join() else { bail!("the producer panicked") };
            filled.and(went.map(drop))
        })?;
        let commits = self.servers.sql(
            &database,
            "SELECT partition, \"offset\", (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000000)::int8 \
             FROM recount_effect",
        )?;
        let committed: BTreeMap<(&str, &str), f64> = commits
            .lines()
            .filter_map(|row| {
                let mut fields = row.split('|');
                Some(((fields.next()?, fields.next()?), fields.next()?.parse().ok()?))
            })
            .collect();
        let text = fs::read_to_string(&published)?;
        let mut delays: Vec<f64> = text
            .lines()
            .filter_map(|line| {
                let mut fields = line.split(',');
                let at = committed.get(&(fields.next()?, fields.next()?))?;
                Some((at - fields.next()?.parse::<f64>().ok()?) / 1000.0)
            })
            .collect();
        ensure!(
            delays.len() * 10 > (events - WARM_EVENTS) * 9,
            "only {} of {events} have a delay",
            delays.len()
        );
        delays.sort_by(f64::total_cmp);
        let at = |share: f64| delays[((delays.len() - 1) as f64 * share) as usize];
        self.leave(&database)?;
        Ok(Delay { p50: at(0.5), p99: at(0.99), p999: at(0.999) })
    }
}

/// The loop in Rust, and Recount: built together, so that what both need is built once and alike; or those
/// that `RECOUNT_KAFKA_LOOP` and `RECOUNT_BINARY` name.
fn programs() -> Result<(PathBuf, PathBuf)> {
    let named = ["RECOUNT_KAFKA_LOOP", "RECOUNT_BINARY"].map(std::env::var_os);
    if let [Some(rust_loop), Some(recount)] = named {
        return Ok((PathBuf::from(rust_loop).canonicalize()?, PathBuf::from(recount).canonicalize()?));
    }
    let mut cargo = program::cargo();
    cargo.args(["build", "--quiet", "--release", "--package", "kafka-loop", "--package", "recount"]);
    ensure!(cargo.status()?.success(), "recount or kafka-loop does not build");
    let built = |name: &str| program::target().join("release").join(name);
    Ok((built("kafka-loop"), built("recount")))
}

/// The only file of a folder that begins and ends so, packed or not.
fn one_of(folder: &std::path::Path, begin: &str, end: &str) -> Result<PathBuf> {
    let entries = fs::read_dir(folder).with_context(|| format!("can't read {}", folder.display()))?;
    let fits = |name: &str| name.starts_with(begin) && name.trim_end_matches(".zst").ends_with(end);
    let mut found = entries.flatten().filter(|entry| entry.file_name().to_str().is_some_and(fits));
    let found = found.next().with_context(|| format!("{} has no {begin}…{end}", folder.display()))?;
    Ok(found.path())
}

fn unpacked(path: &std::path::Path, to: &std::path::Path) -> Result<PathBuf> {
    std::io::copy(&mut crate::orders::open(path)?, &mut fs::File::create(to)?)?;
    Ok(to.to_path_buf())
}

fn rates(runs: &[Run], events: usize) -> Vec<f64> {
    runs.iter().map(|run| events as f64 / run.seconds).collect()
}

/// Recount's rate over a rival's, round by round.
fn ratios(runs: &BTreeMap<&str, Vec<Run>>, rival: Who) -> Vec<f64> {
    let pairs = runs[rival.field()].iter().zip(&runs[Who::Recount.field()]);
    pairs.map(|(rival, recount)| rival.seconds / recount.seconds).collect()
}

fn shares(runs: &[Run]) -> Vec<(String, f64)> {
    let mut sums: BTreeMap<&str, f64> = BTreeMap::new();
    for (name, seconds) in runs.iter().flat_map(|run| &run.finished.thread_cpu_seconds) {
        *sums.entry(name).or_default() += seconds;
    }
    let total: f64 = sums.values().sum();
    let mut shares: Vec<(String, f64)> =
        sums.into_iter().map(|(name, sum)| (name.to_owned(), sum / total)).collect();
    shares.sort_by(|a, b| b.1.total_cmp(&a.1));
    shares
}

fn print(
    runs: &BTreeMap<&str, Vec<Run>>,
    delays: &BTreeMap<&str, Delay>,
    ratios: &[Vec<f64>; 2],
    events: usize,
    half: f64,
    driver: f64,
) {
    println!("\n{events} events; median (least to most); each run exact at its end");
    let told = |numbers: &[f64], digits: usize| {
        let (low, high) = spread(numbers);
        format!("{:.digits$} ({low:.digits$} to {high:.digits$})", median(numbers))
    };
    for who in Who::ALL {
        let (runs, delay) = (&runs[who.field()], &delays[who.field()]);
        let of = |number: &dyn Fn(&Run) -> f64| runs.iter().map(number).collect::<Vec<f64>>();
        println!("  {:<13} {} events/s", who.word(), told(&rates(runs, events), 0));
        println!(
            "                {} CPU s, at most {:.0} MiB; PostgreSQL {} CPU s, at most {:.0} MiB",
            told(&of(&|run| run.finished.cpu_seconds), 2),
            of(&|run| run.finished.peak_rss_bytes as f64 / 1048576.0).into_iter().fold(0.0, f64::max),
            told(&of(&|run| run.postgres.cpu_seconds), 2),
            of(&|run| run.postgres.peak_bytes as f64 / 1048576.0).into_iter().fold(0.0, f64::max),
        );
        println!(
            "                published to committed at {half:.0} events/s: p50 {:.1} ms, p99 {:.1} ms, p99.9 {:.1} ms",
            delay.p50, delay.p99, delay.p999
        );
    }
    println!("  PostgreSQL takes {driver:.0} events/s of a driver that has them in memory");
    println!("  recount / loop in Go    {}", told(&ratios[0], 3));
    println!("  recount / loop in Rust  {}", told(&ratios[1], 3));
    let shares = shares(&runs[Who::Recount.field()]);
    let shares: Vec<String> =
        shares.iter().map(|(name, share)| format!("{name} {:.0} %", 100.0 * share)).collect();
    println!("  recount's threads: {}", shares.join(", "));
}

#[allow(clippy::too_many_arguments)]
fn figures(
    runs: &BTreeMap<&str, Vec<Run>>,
    delays: &BTreeMap<&str, Delay>,
    ratios: &[Vec<f64>; 2],
    events: usize,
    half: f64,
    driver: f64,
    ok: bool,
    checks: bool,
) -> Value {
    let of = |numbers: &[f64]| {
        let (low, high) = spread(numbers);
        json!({ "median": median(numbers), "min": low, "max": high, "rounds": numbers })
    };
    let mut figures = json!({
        "ok": ok,
        "flow": FLOW,
        "events": events,
        "checks": checks,
        "held_events_per_s": half,
        "driver_events_per_s": driver,
        "ratio_to_go_loop": of(&ratios[0]),
        "ratio_to_rust_loop": of(&ratios[1]),
        "recount_thread_shares": shares(&runs[Who::Recount.field()]).into_iter().collect::<BTreeMap<_, _>>(),
    });
    for who in Who::ALL {
        let (runs, delay) = (&runs[who.field()], &delays[who.field()]);
        let list = |number: &dyn Fn(&Run) -> f64| of(&runs.iter().map(number).collect::<Vec<f64>>());
        figures[who.field()] = json!({
            "events_per_s": of(&rates(runs, events)),
            "cpu_seconds": list(&|run| run.finished.cpu_seconds),
            "peak_rss_bytes": list(&|run| run.finished.peak_rss_bytes as f64),
            "postgres_cpu_seconds": list(&|run| run.postgres.cpu_seconds),
            "postgres_peak_bytes": list(&|run| run.postgres.peak_bytes as f64),
            "publish_to_commit_ms": { "p50": delay.p50, "p99": delay.p99, "p999": delay.p999 },
        });
    }
    figures
}
