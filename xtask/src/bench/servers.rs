//! PostgreSQL and Kafka for one measurement: nobody else uses them, and PostgreSQL keeps the times of commits.

use crate::orders::Article;
use crate::program;
use anyhow::{Context, Result, ensure};
use recount_services::{Kafka, Postgres};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

const TEMPLATE: &str = "bench_template";

/// Both servers.
pub struct Servers {
    postgres: Postgres,
    kafka: Kafka,
    made: AtomicU32,
}

impl Servers {
    /// Starts them, apart from those of the tests.
    pub fn start() -> Result<Self> {
        recount_services::apart("bench");
        let postgres = Postgres::start()?;
        postgres.sql("postgres", "ALTER SYSTEM SET track_commit_timestamp = on")?;
        postgres.crash_and_restart()?;
        Ok(Self { postgres, kafka: Kafka::start()?, made: AtomicU32::new(0) })
    }

    /// Kafka's address.
    pub fn kafka(&self) -> String {
        self.kafka.servers()
    }

    /// A database's URL.
    pub fn url(&self, database: &str) -> String {
        format!("postgres://postgres@127.0.0.1:{}/{database}", self.postgres.port())
    }

    /// Runs SQL.
    pub fn sql(&self, database: &str, sql: &str) -> Result<String> {
        Ok(self.postgres.sql(database, sql)?.trim().to_owned())
    }

    /// Makes the database that each run gets a copy of: the stock, and the table of effects as Recount makes it.
    pub fn template(&self, stock: &[Article]) -> Result<()> {
        self.sql("postgres", &format!("CREATE DATABASE {TEMPLATE}"))?;
        self.sql(TEMPLATE, "CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL)")?;
        self.sql(
            TEMPLATE,
            "CREATE TABLE recount_effect (flow text NOT NULL, source_id text NOT NULL, partition text NOT NULL, \
             \"offset\" bigint NOT NULL, event_id text)",
        )?;
        for rows in stock.chunks(2000) {
            let row = |a: &Article| format!("('{}', {})", a.text[0].replace('\'', "''"), a.on_hand);
            let rows: Vec<String> = rows.iter().map(row).collect();
            self.sql(TEMPLATE, &format!("INSERT INTO stock VALUES {}", rows.join(", ")))?;
        }
        self.sql(TEMPLATE, "VACUUM ANALYZE").map(drop)
    }

    /// A copy of it, with nothing left to write from before.
    pub fn fresh(&self) -> Result<String> {
        let name = format!("bench_{}", self.made.fetch_add(1, Ordering::Relaxed));
        self.sql("postgres", &format!("CREATE DATABASE {name} TEMPLATE {TEMPLATE}"))?;
        self.sql("postgres", "CHECKPOINT")?;
        Ok(name)
    }

    /// Drops a database.
    pub fn drop(&self, database: &str) -> Result<()> {
        self.sql("postgres", &format!("DROP DATABASE {database} WITH (FORCE)")).map(drop)
    }

    /// Looks at PostgreSQL's processes until [`Watched::end`].
    pub fn watch_postgres(&self) -> Result<Watched> {
        let server = self.postgres.process()?;
        let ends = Arc::new(AtomicBool::new(false));
        let before = cpu_seconds(server);
        let thread = std::thread::spawn({
            let ends = Arc::clone(&ends);
            move || {
                let mut peak_bytes = 0;
                while !ends.load(Ordering::Relaxed) {
                    peak_bytes = peak_bytes.max(resident_bytes(server));
                    std::thread::sleep(Duration::from_millis(100));
                }
                peak_bytes
            }
        });
        Ok(Watched { server, before, ends, thread })
    }
}

/// What a server used.
#[derive(Clone, Copy)]
pub struct Usage {
    /// Of all its processes.
    pub cpu_seconds: f64,
    /// Memory of their own together, and the shared memory once.
    pub peak_bytes: u64,
}

/// PostgreSQL, watched.
pub struct Watched {
    server: u32,
    before: f64,
    ends: Arc<AtomicBool>,
    thread: JoinHandle<u64>,
}

impl Watched {
    /// What it used since.
    pub fn end(self) -> Result<Usage> {
        self.ends.store(true, Ordering::Relaxed);
        let peak_bytes = self.thread.join().ok().context("the sampler panicked")?;
        // Connections that were closed end in a moment, and are counted by the server then.
        std::thread::sleep(Duration::from_millis(200));
        let cpu_seconds = cpu_seconds(self.server) - self.before;
        ensure!(peak_bytes > 0, "PostgreSQL's processes can't be seen");
        Ok(Usage { cpu_seconds, peak_bytes })
    }
}

fn with_children(server: u32) -> Vec<u32> {
    let children = std::fs::read_to_string(format!("/proc/{server}/task/{server}/children"));
    let children = children.unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok());
    std::iter::once(server).chain(children).collect()
}

/// Of the server, of its children that live, and of those that ended.
fn cpu_seconds(server: u32) -> f64 {
    let of = |process: u32| program::cpu_seconds(std::path::Path::new(&format!("/proc/{process}/stat")));
    with_children(server).into_iter().map(of).sum::<f64>() + program::ended_children_cpu_seconds(server)
}

fn resident_bytes(server: u32) -> u64 {
    let (mut own, mut shared) = (0, 0);
    for process in with_children(server) {
        let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let kib = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.split_whitespace().next().and_then(|n| n.parse::<u64>().ok()).unwrap_or(0)
        };
        own += kib("RssAnon:");
        shared = shared.max(kib("RssShmem:"));
    }
    (own + shared) * 1024
}
