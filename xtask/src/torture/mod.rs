//! `cargo xtask torture`: events through a real broker into a real database, while processes are killed and
//! frozen and the servers restarted; then each effect must be there exactly once.
//!
//! The seed gives the same plan, not the same run: where a strike falls hangs on the machine's own timing.

mod checker;
mod plan;
pub mod processes;
mod publisher;
mod report;
mod scene;
mod strikes;

use crate::program;
use anyhow::Result;
use clap::ValueEnum;
use plan::Happened;
use scene::Scene;
use std::process::ExitCode;
use std::time::Instant;
use strikes::Torture;

/// How much, and what is done to it.
#[derive(clap::Args)]
pub struct Options {
    /// Where the events come from
    #[arg(long, value_enum, default_value = "kafka")]
    broker: Broker,
    /// So many distinct events
    #[arg(long, default_value_t = 20_000)]
    events: u64,
    /// SIGKILL strikes the process that works so often
    #[arg(long, default_value_t = 8)]
    kills: u64,
    /// So often it is frozen until another one took over, and woken
    #[arg(long, default_value_t = 2)]
    freezes: u64,
    /// Kafka is restarted so often, in order and by a crash in turn
    #[arg(long, default_value_t = 1)]
    broker_restarts: u64,
    /// PostgreSQL crashes and is started again so often
    #[arg(long, default_value_t = 1)]
    database_restarts: u64,
    /// The plan of strikes
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// One process works; so many less one may be frozen at the same time
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u64).range(2..=16))]
    processes: u64,
    /// Events published a second; held back where strikes fall behind
    #[arg(long, default_value_t = 800, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    rate: u64,
    /// Events to a batch at most
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u64).range(1..=10_000))]
    batch: u64,
    /// Spoils the database before it is checked, so that the check must fail
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Broker {
    Kafka,
}

/// What the harness does to the effects, to be found out.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Sabotage {
    /// An effect is deleted.
    Lost,
    /// An effect is there once more.
    Twice,
    /// An effect of an event that nobody published.
    Unexplained,
}

impl Sabotage {
    fn sql(self) -> &'static str {
        match self {
            Self::Lost => "DELETE FROM shipped WHERE number = (SELECT min(number) FROM shipped);",
            Self::Twice => "INSERT INTO shipped (number, quantity) SELECT max(number), 1 FROM shipped;",
            Self::Unexplained => {
                "INSERT INTO shipped (number, quantity) SELECT max(number) + 1000000, 1 FROM shipped;"
            }
        }
    }
}

/// Tortures, lets it finish, and checks; 1 where something does not hold.
pub fn run(options: Options, json: bool) -> Result<ExitCode> {
    let Broker::Kafka = options.broker;
    let binary = program::recount()?;
    // Others' tests must not notice that servers end here.
    recount_services::apart("torture");
    let folder = tempfile::tempdir()?;
    let begun = Instant::now();
    let scene = Scene::set(folder.path(), &binary, &options)?;
    let mut torture = Torture::begin(&scene, &options)?;
    let outcome = torture.all(&options);
    let mut happened = torture.end();
    if let Err(error) = &outcome {
        happened.faults.push(format!("{error:#}"));
    }
    let finished = finish(&scene, &options, &mut happened, outcome.ok());
    report::told(&options, &happened, &finished);
    if json {
        println!("{}", report::figures(&options, &happened, &finished, begun.elapsed()));
    }
    let ok = happened.faults.is_empty();
    if !ok {
        eprintln!("kept for a closer look: {}", folder.keep().display());
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

/// What the check at the end came to, where the events got through.
#[derive(Debug, Default)]
struct Finished {
    effects: checker::Effects,
    verdicts: std::collections::BTreeMap<String, u64>,
    published_per_second: f64,
}

fn finish(
    scene: &Scene<'_>,
    options: &Options,
    happened: &mut Happened,
    through: Option<strikes::Through>,
) -> Finished {
    let Some(through) = through else { return Finished::default() };
    let checked = scene.check(options, &through, happened);
    checked.unwrap_or_else(|error| {
        happened.faults.push(format!("the end can't be checked: {error:#}"));
        Finished::default()
    })
}
