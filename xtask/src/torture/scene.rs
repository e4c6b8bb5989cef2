//! The servers, the topic, the table and the flow; and what is found there at the end.

use super::checker::{Effects, Verdicts};
use super::plan::Happened;
use super::processes::Place;
use super::strikes::Through;
use super::{Finished, Options, Sabotage};
use anyhow::{Context, Result, bail};
use recount_services::{Kafka, Postgres};
use serde_json::Value;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

const TOPIC: &str = "orders";
const PARTITIONS: &str = "6";

/// Everything that the torture happens to.
pub struct Scene<'a> {
    /// Real, and of this process alone.
    pub kafka: Kafka,
    /// Real, and of this process alone.
    pub postgres: Postgres,
    /// Where the processes run.
    pub place: Place,
    /// For logs.
    pub folder: &'a Path,
    database: String,
}

impl<'a> Scene<'a> {
    /// Starts the servers and makes topic and table.
    pub fn set(folder: &'a Path, binary: &Path, options: &Options) -> Result<Self> {
        let (kafka, postgres) = (Kafka::start()?, Postgres::start()?);
        let create = ["--create", "--topic", TOPIC, "--partitions", PARTITIONS, "--replication-factor", "1"];
        kafka.tool("org.apache.kafka.tools.TopicCommand", &create)?;
        let url = postgres.fresh_database()?;
        let database = url.rsplit('/').next().unwrap_or_default().to_owned();
        // No unique key: what is there twice must show. Each process has a role of its own, so that a row
        // tells who wrote it.
        let table = "CREATE TABLE shipped (number bigint NOT NULL, quantity bigint NOT NULL CHECK (quantity < 100), \
                     writer text NOT NULL DEFAULT session_user, at timestamptz NOT NULL DEFAULT clock_timestamp())";
        postgres.sql(&database, table)?;
        for number in 1..=options.freezes + 1 {
            postgres.sql(&database, &format!("CREATE ROLE {} SUPERUSER LOGIN", role(number)))?;
        }
        let (servers, port, batch) = (kafka.servers(), postgres.port(), options.batch);
        let config = {
            let database = database.clone();
            Box::new(move |number| config(&servers, port, &database, number, batch))
        };
        let place = Place { binary: binary.to_path_buf(), folder: folder.to_path_buf(), config };
        Ok(Self { kafka, postgres, place, folder, database })
    }

    /// The topic's name.
    pub fn topic(&self) -> &'static str {
        TOPIC
    }

    /// Runs SQL in the flow's database.
    pub fn sql(&self, sql: &str) -> Result<String> {
        Ok(self.postgres.sql(&self.database, sql)?.trim().to_owned())
    }

    /// How many positions are decided, in all partitions.
    pub fn decided(&self) -> Result<u64> {
        let sum = self.sql("SELECT coalesce(sum(next_offset), 0) FROM recount_position")?;
        sum.parse().with_context(|| format!("not a number: {sum}"))
    }

    /// Which owner each partition has, the first being 1.
    pub fn epochs(&self) -> Result<Vec<u64>> {
        self.numbers("SELECT epoch FROM recount_position ORDER BY \"partition\"")
    }

    /// Holds everything against what was published.
    pub fn check(&self, options: &Options, through: &Through, happened: &mut Happened) -> Result<Finished> {
        let published = self.published()?;
        if published != options.events {
            happened.faults.push(format!(
                "the topic holds {published} records of {}: the torture's own producer failed",
                options.events
            ));
        }
        if let Some(sabotage) = options.sabotage {
            self.sql(sabotage.sql())?;
        }
        let effects = Effects::check(options.events, self.numbers("SELECT number FROM shipped")?);
        happened.faults.extend(effects.faults());
        self.control(options, &effects)?;
        for woken in &through.woken {
            let query = format!(
                "SELECT count(*) FROM shipped WHERE writer = '{}' AND at > '{}'",
                role(woken.number),
                woken.at
            );
            let rows = self.sql(&query)?;
            if rows != "0" {
                happened
                    .faults
                    .push(format!("process {} wrote {rows} effects after it was woken", woken.number));
            }
        }
        let verdicts = self.verdicts(options, through.last)?;
        happened.faults.extend(verdicts.faults());
        happened.faults.extend(self.audit(options, through.last)?);
        let published_per_second = options.events as f64 / through.published_in.as_secs_f64().max(0.001);
        Ok(Finished { effects, verdicts: verdicts.counts, published_per_second })
    }

    fn published(&self) -> Result<u64> {
        let told = self.kafka.tool("org.apache.kafka.tools.GetOffsetShell", &["--topic", TOPIC])?;
        let ends = told.lines().filter_map(|line| line.rsplit(':').next()?.trim().parse::<u64>().ok());
        Ok(ends.sum())
    }

    fn numbers(&self, sql: &str) -> Result<Vec<u64>> {
        let rows = self.sql(sql)?;
        rows.lines().map(|row| row.parse().with_context(|| format!("not a number: {row}"))).collect()
    }

    /// The checker must see what is spoilt: one of each kind, in a transaction that is rolled back.
    fn control(&self, options: &Options, found: &Effects) -> Result<()> {
        let [lost, twice, unexplained] =
            [Sabotage::Lost, Sabotage::Twice, Sabotage::Unexplained].map(Sabotage::sql);
        let spoilt = format!("BEGIN; {lost} {twice} {unexplained} SELECT number FROM shipped; ROLLBACK");
        let seen = Effects::check(options.events, self.numbers(&spoilt)?);
        let counts = |effects: &Effects| [effects.lost.len(), effects.twice.len(), effects.unexplained.len()];
        if options.sabotage.is_none() && counts(&seen) != counts(found).map(|count| count + 1) {
            bail!(
                "the checker is blind: of one effect lost, one doubled and one foreign it saw {:?}",
                counts(&seen)
            );
        }
        Ok(())
    }

    fn verdicts(&self, options: &Options, last: u64) -> Result<Verdicts> {
        let path = self.folder.join("export.ndjson");
        let mut command = self.place.command(last, &["ledger", "export", "--config", "recount.toml"]);
        let status = command.stdout(File::create(&path)?).status()?;
        if !status.success() {
            bail!("recount ledger export ended with {status}");
        }
        let mut verdicts = Verdicts::new(options.events);
        for line in BufReader::new(File::open(&path)?).lines() {
            let line = line?;
            let decision: Value = serde_json::from_str(&line).with_context(|| format!("not JSON: {line}"))?;
            let text = |name: &str| decision[name].as_str().unwrap_or_default();
            let number = text("event_id").strip_prefix("e-").and_then(|number| number.parse().ok());
            verdicts.see(number, text("verdict"), text("reason"));
        }
        Ok(verdicts)
    }

    fn audit(&self, options: &Options, last: u64) -> Result<Vec<String>> {
        let finished =
            crate::program::run(&mut self.place.command(last, &["audit", "recount.toml", "--json"]))?;
        let report = finished.json()?;
        let nothing = ["lost", "unrecorded", "open", "unexplained", "not-an-event"].map(|word| (word, 0));
        let expected = nothing.into_iter().chain([("published", options.events)]);
        Ok(crate::verify::unlike(&report["flows"][0], expected))
    }
}

fn role(number: u64) -> String {
    format!("process_{number}")
}

fn config(servers: &str, port: u16, database: &str, number: u64, batch: u64) -> String {
    let role = role(number);
    format!(
        r#"[ledger]
path = "recount-data"

[broker.main]
kafka = {{ servers = "{servers}" }}

[database.shop]
url = "postgres://{role}@127.0.0.1:{port}/{database}"

[flow.ship]
owner   = "torture"
purpose = "writes one row an order"
source  = {{ broker = "main", topic = "{TOPIC}", group = "ship" }}
mode    = "run"
decode  = "json"
id      = "event.id"
key     = "event.key"

[flow.ship.batch]
events = {batch}

[[flow.ship.check]]
reason    = "zero_quantity"
that      = "event.quantity != 0"
otherwise = "skip"
at_most   = "any"
because   = "nothing is shipped for it"

[[flow.ship.check]]
reason    = "negative_quantity"
that      = "event.quantity > 0"
otherwise = "dead-letter"
at_most   = "any"
because   = "nobody can ship it"

[flow.ship.apply]
database = "shop"
sql      = "INSERT INTO shipped (number, quantity) VALUES (:number, :quantity)"
with     = {{ number = "event.number", quantity = "event.quantity" }}
rows     = 1
effects  = "recount_effect"
"#
    )
}
