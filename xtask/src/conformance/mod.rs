//! `cargo xtask conformance`: the properties that every source must show, held against what it declares, on the
//! real program with real servers.
//!
//! A property holds by an account that is made without Recount (what was published, against the rows in the
//! effect's database), and only if Recount's own word equals it. What a source does not declare is told as
//! not applying, and why; it is never left out in silence.

mod account;
mod bench;
mod event;
mod file;
mod handler;
mod http;
mod kafka;
mod properties;
mod report;
mod scene;
mod wire;

use crate::program;
use anyhow::{Context, Result};
use bench::Source;
use clap::ValueEnum;
use properties::Property;
use report::{Outcome, Row};
use scene::{Scene, Servers};
use serde_json::Value;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// Which part of the table.
#[derive(clap::Args)]
pub struct Options {
    /// This source alone
    #[arg(long, value_enum)]
    source: Option<Source>,
    /// This property alone; may be given several times
    #[arg(long, value_enum, value_name = "PROPERTY")]
    only: Vec<Property>,
    /// List the properties, and ask none
    #[arg(long)]
    list: bool,
    /// Spoil the effects before each check, so that nothing may hold
    #[arg(long, value_enum)]
    sabotage: Option<Sabotage>,
}

/// What the harness does to the effects, to be found out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Sabotage {
    /// An effect is deleted.
    Lost,
    /// An effect is there once more.
    Twice,
    /// An effect of an event that nobody published.
    Unexplained,
    /// The effects stand there in reverse.
    Disordered,
}

impl Sabotage {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Lost, Self::Twice, Self::Unexplained, Self::Disordered];

    /// What is done.
    pub fn sql(self) -> &'static str {
        match self {
            Self::Lost => "DELETE FROM shipped WHERE seq = (SELECT min(seq) FROM shipped);",
            Self::Twice => {
                "INSERT INTO shipped (number, key) SELECT number, key FROM shipped ORDER BY seq DESC LIMIT 1;"
            }
            Self::Unexplained => {
                "INSERT INTO shipped (number, key) SELECT number + 6000000, key FROM shipped ORDER BY seq DESC LIMIT 1;"
            }
            Self::Disordered => "UPDATE shipped SET seq = -seq;",
        }
    }
}

/// Asks each property of each source; 1 where one does not hold.
pub fn run(options: &Options, json: bool) -> Result<ExitCode> {
    if options.list {
        print!("{}", report::listed());
        return Ok(ExitCode::SUCCESS);
    }
    let mut sources = options.source.map_or(Source::ALL.to_vec(), |source| vec![source]);
    let left_out = recount_services::is_left_out("kafka") && sources.contains(&Source::Kafka);
    if left_out {
        sources.retain(|source| *source != Source::Kafka);
        println!("left out: kafka, as RECOUNT_WITHOUT says");
    }
    let properties = Property::ALL.into_iter();
    let asked = |property: &Property| options.only.is_empty() || options.only.contains(property);
    let properties: Vec<Property> = properties.filter(asked).collect();
    let binary = program::recount()?;
    // Others' tests must not notice that servers end here.
    recount_services::apart("conformance");
    let begun = Instant::now();
    let servers = Servers::start(&sources, binary)?;
    let started = begun.elapsed();
    let mut rows = Vec::new();
    for source in &sources {
        let declared = declared(&servers, *source)?;
        println!("{} declares {}", source.name(), report::declared(&declared));
        for property in &properties {
            let row = ask(&servers, *source, *property, &declared, options.sabotage);
            println!("{}", row.told());
            rows.push(row);
        }
    }
    let ok = rows.iter().all(|row| !matches!(row.outcome, Outcome::DoesNotHold(_)));
    print!("\n{}", report::table(&sources, &properties, &rows));
    println!(
        "servers started in {:.1} s, all of it took {:.1} s",
        started.as_secs_f64(),
        begun.elapsed().as_secs_f64()
    );
    if json {
        println!("{}", report::figures(&rows, ok, begun.elapsed()));
    }
    Ok(ExitCode::from(u8::from(!ok)))
}

fn declared(servers: &Servers, source: Source) -> Result<Value> {
    let folder = tempfile::tempdir()?;
    Scene::set(servers, source, Property::Order, folder.path(), None)?.declared()
}

fn ask(
    servers: &Servers,
    source: Source,
    property: Property,
    declared: &Value,
    sabotage: Option<Sabotage>,
) -> Row {
    let begun = Instant::now();
    let outcome = asked(servers, source, property, declared, sabotage);
    let outcome = outcome.unwrap_or_else(|error| Outcome::DoesNotHold(vec![format!("{error:#}")]));
    Row { source, property, outcome, seconds: begun.elapsed().as_secs_f64() }
}

fn asked(
    servers: &Servers,
    source: Source,
    property: Property,
    declared: &Value,
    sabotage: Option<Sabotage>,
) -> Result<Outcome> {
    let (capability, otherwise) = property.needs();
    let is_declared = declared[capability].as_bool();
    if !is_declared.with_context(|| format!("the program does not tell of {capability}"))? {
        return Ok(Outcome::DoesNotApply(format!("it does not declare {capability}: {otherwise}")));
    }
    let folder = tempfile::tempdir()?;
    let mut scene = Scene::set(servers, source, property, folder.path(), sabotage)?;
    if let Some(why) = scene.bench.lacks(property) {
        return Ok(Outcome::DoesNotApply(why.to_owned()));
    }
    let mut faults = property.ask(&mut scene).unwrap_or_else(|error| vec![format!("{error:#}")]);
    // Whatever is still at work ends here.
    scene.process = None;
    if faults.is_empty() {
        return Ok(Outcome::Holds);
    }
    faults.extend(scene.commands().into_iter().map(|command| format!("  {command}")));
    if let Err(error) = scene.keep_evidence() {
        faults.push(format!("the evidence could not be kept: {error:#}"));
    }
    let kept: &Path = &folder.keep();
    faults.push(format!("kept for a closer look: {}", kept.display()));
    Ok(Outcome::DoesNotHold(faults))
}
