//! One property of one source: a folder, a database, the flow's config, and the process at work.

use super::Sabotage;
use super::account::{Effect, Effects, Expected, decisions};
use super::bench::{Bench, Source};
use super::event::Event;
use super::handler::{Answers, Handler};
use super::properties::Property;
use crate::program::{self, Finished};
use crate::torture::processes::{Place, Process};
use crate::verify;
use anyhow::{Context, Result, bail};
use recount_services::{Kafka, Postgres};
use rustix::process::Signal;
use serde_json::Value;
use std::cell::RefCell;
use std::fs;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How long anything may take that is waited for.
pub const PATIENCE: Duration = Duration::from_secs(60);
/// A process that is asked to end and takes longer does not drain.
const DRAINED_WITHIN: Duration = Duration::from_secs(15);
const TICK: Duration = Duration::from_millis(25);

/// The servers, which are of this suite alone.
pub struct Servers {
    /// Where the effects are.
    pub postgres: Arc<Postgres>,
    /// None where no source asks for it.
    pub kafka: Option<Kafka>,
    /// The program.
    pub binary: PathBuf,
}

impl Servers {
    /// Starts them; each process that may write has a role of its own, so that a row tells who wrote it.
    pub fn start(sources: &[Source], binary: PathBuf) -> Result<Self> {
        let postgres = Arc::new(Postgres::start()?);
        for number in 1..=2 {
            postgres.sql("postgres", &format!("CREATE ROLE process_{number} SUPERUSER LOGIN"))?;
        }
        let kafka = if sources.contains(&Source::Kafka) { Some(Kafka::start()?) } else { None };
        Ok(Self { postgres, kafka, binary })
    }
}

/// One property of one source.
pub struct Scene<'a> {
    /// The source.
    pub bench: Rc<dyn Bench + 'a>,
    /// The process at work, where one is.
    pub process: Option<Process>,
    /// The handler, where the property has one.
    pub handler: Option<Handler>,
    /// The folder of which process is looked at.
    pub number: u64,
    postgres: Arc<Postgres>,
    database: String,
    place: Place,
    commands: RefCell<Vec<String>>,
    sabotage: Option<Sabotage>,
}

impl<'a> Scene<'a> {
    /// Makes everything that is needed, and starts nothing yet.
    pub fn set(
        servers: &'a Servers,
        source: Source,
        property: Property,
        folder: &Path,
        sabotage: Option<Sabotage>,
    ) -> Result<Self> {
        let postgres = Arc::clone(&servers.postgres);
        let url = postgres.fresh_database()?;
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        // Nothing but the handler's own keys is unique: what is there twice must show.
        let table = "CREATE TABLE shipped (seq bigserial, number bigint NOT NULL, key text NOT NULL, \
                     idempotency_key text UNIQUE, writer text NOT NULL DEFAULT session_user, \
                     at timestamptz NOT NULL DEFAULT clock_timestamp())";
        postgres.sql(&database, table)?;
        let bench = source.bench(property, servers.kafka.as_ref())?;
        let handler = match property.handler() {
            Some(answers) => Some(handler(&postgres, &database, answers)?),
            None => None,
        };
        let config = {
            let from = bench.config(folder);
            let apply = apply(handler.as_ref());
            let (port, database) = (postgres.port(), database.clone());
            Box::new(move |number| {
                let url = format!("postgres://process_{number}@127.0.0.1:{port}/{database}");
                config(&from, &url, property.batch_events(), &apply)
            })
        };
        let place = Place { binary: servers.binary.clone(), folder: folder.to_path_buf(), config };
        let commands = RefCell::default();
        let scene =
            Self { bench, process: None, handler, number: 1, postgres, database, place, commands, sabotage };
        fs::create_dir_all(scene.of_process())?;
        fs::write(scene.of_process().join("recount.toml"), (scene.place.config)(1))?;
        Ok(scene)
    }

    /// The folder of the scene, above those of the processes.
    pub fn folder(&self) -> &Path {
        &self.place.folder
    }

    /// The folder of the process that is looked at.
    pub fn of_process(&self) -> PathBuf {
        self.place.of(self.number)
    }

    /// What was run, in order.
    pub fn commands(&self) -> Vec<String> {
        self.commands.borrow().clone()
    }

    /// What the source declares.
    pub fn declared(&self) -> Result<Value> {
        let finished = self.recount(&["validate", "--json"])?;
        let declared = finished.json()?["flows"][0]["capabilities"].clone();
        if !declared.is_object() {
            bail!("the program tells no capabilities of the source: {}", finished.tail());
        }
        Ok(declared)
    }

    /// Publishes these.
    pub fn publish(&self, numbers: std::ops::Range<u64>) -> Result<()> {
        self.note(format!("publish {} events from e-{}", numbers.end - numbers.start, numbers.start));
        self.bench.publish(self, &Event::all(numbers))
    }

    fn note(&self, what: String) {
        self.commands.borrow_mut().push(what);
    }

    /// Runs a command of Recount to its end, in the folder of the process that is looked at.
    pub fn recount(&self, arguments: &[&str]) -> Result<Finished> {
        self.note(format!("process-{}$ recount {}", self.number, arguments.join(" ")));
        program::run(&mut self.place.command(self.number, arguments))
    }

    /// Runs SQL in the flow's database.
    pub fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.postgres.sql(&self.database, sql)?.trim().to_owned())
    }

    /// Starts the process.
    pub fn start(&mut self) -> Result<()> {
        self.note(format!("process-{}$ recount run recount.toml", self.number));
        // Left by an earlier one, it would be taken for the new one's.
        self.forget_address()?;
        let process = self.place.start(self.number)?;
        self.handler.iter().for_each(|handler| handler.asked_by(process.id()));
        self.process = Some(process);
        Ok(())
    }

    fn forget_address(&self) -> Result<()> {
        let token = self.of_process().join("recount-data/control-token");
        if token.exists() {
            fs::remove_file(token)?;
        }
        Ok(())
    }

    /// Where the process listens, as soon as it does; none where none runs.
    pub fn address(&self) -> Result<Option<String>> {
        if self.process.is_none() {
            return Ok(None);
        }
        let data = self.of_process().join("recount-data");
        let begun = Instant::now();
        while !data.join("control-token").exists() {
            if begun.elapsed() > PATIENCE {
                bail!("it does not listen: {}", self.tail());
            }
            std::thread::sleep(TICK);
        }
        Ok(Some(fs::read_to_string(data.join("address"))?.trim().to_owned()))
    }

    fn running(&mut self) -> Result<&mut Process> {
        self.process.as_mut().context("no process runs")
    }

    /// Waits until it has settled so many batches.
    pub fn settles(&mut self, batches: u64) -> Result<()> {
        if self.running()?.settles(batches)? {
            return Ok(());
        }
        bail!("it ended by itself: {}", self.tail())
    }

    /// Kills it.
    pub fn kill(&mut self) -> Result<()> {
        self.note("SIGKILL".to_owned());
        let mut process = self.process.take().context("no process runs")?;
        if process.kill()?.is_none() {
            bail!("it had ended by itself: {}", process.tail());
        }
        Ok(())
    }

    /// Kills it and starts it again.
    pub fn kill_and_start(&mut self) -> Result<()> {
        self.kill()?;
        self.start()
    }

    /// Asks it to end, and waits; it drains, so that it ends soon, by itself and not of a signal.
    pub fn stop(&mut self) -> Result<()> {
        self.note("SIGTERM".to_owned());
        let mut process = self.process.take().context("no process runs")?;
        process.signal(Signal::TERM)?;
        match process.ends_within(DRAINED_WITHIN)?.map(|status| (status, status.code())) {
            // 1 where a budget is exceeded, which is a matter of what was published.
            Some((_, Some(0 | 1))) => Ok(()),
            Some((status, _)) => bail!("asked to end, it ended with {status}: {}", process.tail()),
            None => bail!("asked to end, it did not in {} s: {}", DRAINED_WITHIN.as_secs(), process.tail()),
        }
    }

    /// Runs the flow, which must end by itself: its exit code, and the summary.
    pub fn run_to_its_end(&self) -> Result<(Option<i32>, Value)> {
        self.note(format!("process-{}$ recount run recount.toml --json", self.number));
        let summary = self.of_process().join("summary.json");
        let log = fs::File::options().append(true).open(self.of_process().join("run.log"))?;
        let mut command = self.place.command(self.number, &["run", "recount.toml", "--json"]);
        let mut child = command.stdout(fs::File::create(&summary)?).stderr(log).spawn()?;
        let begun = Instant::now();
        let status = loop {
            if let Some(status) = child.try_wait()? {
                break status;
            }
            if begun.elapsed() > PATIENCE {
                child.kill()?;
                child.wait()?;
                bail!("it does not end by itself: {}", self.tail());
            }
            std::thread::sleep(TICK);
        };
        let text = fs::read_to_string(summary)?;
        let summary = serde_json::from_str(&text).with_context(|| format!("no JSON: {text}"))?;
        Ok((status.code(), summary))
    }

    /// The end of the process's log.
    pub fn tail(&self) -> String {
        let log = fs::read_to_string(self.of_process().join("run.log")).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(12)..].join("\n")
    }

    /// Freezes the process, and lets another one go on from a copy of its ledger. Returns the frozen one.
    pub fn freeze_and_take_over(&mut self) -> Result<Process> {
        self.note("SIGSTOP".to_owned());
        let frozen = self.process.take().context("no process runs")?;
        frozen.signal(Signal::STOP)?;
        // A stop is carried out thread by thread; the last of them may be in a system call.
        std::thread::sleep(Duration::from_millis(50));
        // It would be copied, and taken for the successor's.
        self.forget_address()?;
        self.note(format!("cp -r process-{0}/recount-data process-{1}/", self.number, self.number + 1));
        self.process = Some(self.place.take_over(&frozen)?);
        self.number += 1;
        self.note(format!("process-{}$ recount run recount.toml", self.number));
        Ok(frozen)
    }

    /// How many effects there are.
    pub fn effects_now(&self) -> Result<u64> {
        Ok(self.sql("SELECT count(*) FROM shipped")?.parse()?)
    }

    fn export(&self) -> Result<Vec<Value>> {
        let mut command = self.place.command(self.number, &["ledger", "export", "--config", "recount.toml"]);
        let output = command.output()?;
        if !output.status.success() {
            bail!("recount ledger export: {}", String::from_utf8_lossy(&output.stderr));
        }
        let text = String::from_utf8(output.stdout)?;
        text.lines().map(|line| serde_json::from_str(line).context("not JSON")).collect()
    }

    /// How many positions have a decision; none before there is a ledger.
    pub fn decided(&self) -> Result<usize> {
        Ok(self.export().map_or(0, |export| export.len()))
    }

    /// Waits until so many positions have a decision.
    pub fn until_decided(&mut self, events: usize) -> Result<()> {
        let begun = Instant::now();
        loop {
            let decided = self.decided()?;
            if decided >= events {
                return Ok(());
            }
            if self.running()?.ended()?.is_some() {
                bail!("it ended by itself with {decided} of {events} decided: {}", self.tail());
            }
            if begun.elapsed() > PATIENCE {
                bail!("{decided} of {events} decided in {} s: {}", PATIENCE.as_secs(), self.tail());
            }
            std::thread::sleep(TICK);
        }
    }

    /// Stops the process, makes the account, and holds Recount's word against it.
    pub fn stop_and_check(&mut self, expected: &Expected) -> Result<Vec<String>> {
        self.stop()?;
        let mut faults = self.check_effects(expected)?;
        faults.extend(self.check_word(expected)?);
        Ok(faults)
    }

    /// The account, by what is in the table.
    pub fn check_effects(&self, expected: &Expected) -> Result<Vec<String>> {
        if let Some(sabotage) = self.sabotage {
            self.sql(sabotage.sql())?;
        }
        let rows = "SELECT number || '|' || key FROM shipped ORDER BY seq;";
        let effects = Effects::check(expected, &self.rows(rows)?);
        // The checker must see what is spoilt: one of each kind, in a transaction that is rolled back.
        let spoil: String = Sabotage::ALL.iter().map(|sabotage| sabotage.sql()).collect();
        let spoilt = Effects::check(expected, &self.rows(&format!("BEGIN; {spoil} {rows} ROLLBACK"))?);
        if self.sabotage.is_none() && !effects.sees_spoilt(&spoilt) {
            bail!(
                "the checker is blind: of one effect lost, doubled, foreign and disordered it saw {spoilt:?}"
            );
        }
        Ok(effects.faults())
    }

    fn rows(&self, sql: &str) -> Result<Vec<Effect>> {
        let effect = |row: &str| {
            let (number, key) = row.split_once('|').context("no effect")?;
            Ok(Effect { number: number.parse()?, key: key.to_owned() })
        };
        self.sql(sql)?.lines().map(effect).collect()
    }

    /// Recount's own word: its decisions, and what its audit counts.
    fn check_word(&self, expected: &Expected) -> Result<Vec<String>> {
        let export = self.export()?;
        let mut faults = decisions(expected, &export);
        let report = self.recount(&["audit", "recount.toml", "--json"])?.json()?;
        let count = |list: usize| list as u64;
        let (applied, dead) = (count(expected.applied.len()), count(expected.dead.len()));
        // Who has no answer sends again: how often is not known, and each is a position.
        let again = if expected.sent_again { count(export.len()).saturating_sub(applied + dead) } else { 0 };
        let terms = [
            ("published", applied + dead + expected.lost + again),
            ("applied", applied),
            ("dead-lettered", dead),
            ("skipped", again),
            ("lost", expected.lost),
        ];
        let none = ["not-an-event", "unrecorded", "open", "unexplained"].map(|word| (word, 0));
        faults.extend(verify::unlike(&report["flows"][0], terms.into_iter().chain(none)));
        Ok(faults)
    }

    /// Leaves beside the processes' folders what the servers would take with them.
    pub fn keep_evidence(&self) -> Result<()> {
        let rows = self.sql("SELECT seq, number, key, writer, at FROM shipped ORDER BY seq")?;
        fs::write(self.folder().join("shipped.txt"), rows)?;
        fs::write(self.folder().join("commands.txt"), self.commands().join("\n"))?;
        Ok(())
    }
}

fn handler(postgres: &Arc<Postgres>, database: &str, answers: Answers) -> Result<Handler> {
    Handler::start(Arc::clone(postgres), database.to_owned(), answers)
}

fn apply(handler: Option<&Handler>) -> String {
    match handler {
        Some(handler) => format!(
            r#"
[flow.ship.retry]
attempts = 4
backoff = "40ms"
backoff_max = "40ms"

[flow.ship.apply]
http = "{}"

[[flow.ship.apply.reason]]
reason  = "not_yet"
verdict = "retry"
because = "the carrier has no room now"
"#,
            handler.url
        ),
        None => r#"
[flow.ship.apply]
database = "shop"
sql      = "INSERT INTO shipped (number, key) VALUES (:number, :key)"
with     = { number = "event.number", key = "event.key" }
rows     = 1
effects  = "recount_effect"
"#
        .to_owned(),
    }
}

fn config((source, tables): &(String, String), url: &str, batch_events: u64, apply: &str) -> String {
    format!(
        r#"[server]
listen = "127.0.0.1:0"

[ledger]
path = "recount-data"

[database.shop]
url = "{url}"

{tables}
[flow.ship]
owner   = "conformance"
purpose = "writes one row an order"
source  = {source}
decode  = "json"
id      = "event.id"
key     = "event.key"
batch   = {{ events = {batch_events} }}
{apply}"#
    )
}
