//! Several processes, each with a folder of its own, and one book in PostgreSQL.

use crate::harness::{Told, World, eventually, order, orders, statement};
use recount_services::Postgres;
use serde_json::Value;
use std::process::{Child, Stdio};

struct Shared {
    world: World,
    server: &'static Postgres,
    database: String,
}

/// A process that runs until it is stopped; dropped, it is killed.
struct Process(Child);

impl Process {
    fn signal(&self, signal: rustix::process::Signal) {
        rustix::process::kill_process(rustix::process::Pid::from_child(&self.0), signal).unwrap();
    }

    fn terminate(mut self) -> Option<i32> {
        self.signal(rustix::process::Signal::TERM);
        self.0.wait().unwrap().code()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn flow(name: &str, file: &str) -> String {
    format!(
        r#"
[flow.{name}]
owner = "inventory team"
purpose = "takes ordered units out of stock"
source = {{ file = "{file}", follow = true }}
id = "event.id"
key = "event.sku"
[flow.{name}.apply]
database = "shop"
sql = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku"
with = {{ quantity = "event.quantity", sku = "event.sku" }}
rows = 1
effects = "recount_effect"
[[flow.{name}.apply.otherwise]]
verdict = "dead-letter"
reason = "unknown_sku"
at_most = "any"
because = "no such article"
"#
    )
}

impl Shared {
    /// Two flows, of a file each. None where PostgreSQL was left out on purpose.
    fn new() -> Option<Self> {
        let server = recount_services::postgres()?;
        let url = server.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let sql = "CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL); \
                   INSERT INTO stock VALUES ('a', 100000), ('b', 100000)";
        server.sql(&database, sql).unwrap();
        let text = format!(
            "[server]\nlisten = \"127.0.0.1:0\"\n[log]\nformat = \"json\"\n[ledger]\ndatabase = \"shop\"\n\
             [database.shop]\nurl = \"{url}\"\n{}{}",
            flow("stock", "orders.ndjson"),
            flow("returns", "returns.ndjson")
        );
        let world = World::new(&text);
        std::fs::write(world.path("returns.ndjson"), "").unwrap();
        Some(Self { world, server, database })
    }

    fn sql(&self, sql: &str) -> String {
        self.server.sql(&self.database, sql).unwrap().trim().to_owned()
    }

    fn start(&self, folder: &str, flow: &str) -> Process {
        let mut command = self.world.command(&["run", "--flow", flow, "--ledger-folder", folder]);
        let log = std::fs::File::create(self.world.path(&format!("{folder}.log"))).unwrap();
        Process(command.stdout(Stdio::null()).stderr(log).spawn().unwrap())
    }

    fn log(&self, folder: &str) -> String {
        std::fs::read_to_string(self.world.path(&format!("{folder}.log"))).unwrap()
    }

    /// A command with a folder of its own.
    fn from(&self, folder: &str, args: &[&str]) -> Told {
        let mut command = self.world.command(args);
        Told::of(&command.env("RECOUNT_LEDGER_FOLDER", folder).output().unwrap())
    }

    fn audited(&self, folder: &str) -> Value {
        self.from(folder, &["audit", "--json"]).expect(0).json()
    }

    fn decided(&self) -> usize {
        self.sql("SELECT count(*) FROM recount_effect").parse().unwrap_or(0)
    }
}

#[test]
fn two_processes_keep_one_book_and_a_third_folder_reads_the_whole() {
    let Some(shared) = Shared::new() else { return };
    let world = &shared.world;
    let missing = shared.from("third", &["status"]);
    assert_eq!(missing.code, Some(4), "{}", missing.all());
    let told = world.recount(&["validate"]).expect(0).all();
    assert!(told.contains("no ledger yet; its tables are made in schema public"), "{told}");
    let prepared = world.recount(&["validate", "--prepare"]).expect(0).all();
    assert!(prepared.contains("CREATE TABLE IF NOT EXISTS recount_ledger_entry"), "{prepared}");

    world.lines(&orders(0..40, "a"));
    let returned: Vec<String> = (0..30).map(|id| order(&format!("r{id}"), "b", 1) + "\n").collect();
    std::fs::write(world.path("returns.ndjson"), returned.concat()).unwrap();
    let (one, two) = (shared.start("one", "stock"), shared.start("two", "returns"));
    eventually("both flows are applied", || {
        // Before the first start there is no such table.
        shared
            .server
            .sql(&shared.database, "SELECT count(*) FROM recount_effect")
            .is_ok_and(|n| n.trim() == "70")
    });
    world.append(&[order("o40", "none", 1)]);
    eventually("the dead letter is decided", || {
        let letters = shared.from("third", &["dead-letters", "list", "--json"]);
        letters.code == Some(0) && letters.out.contains("o40")
    });
    // While both run, each folder tells the whole, and so does one that neither of them has.
    for folder in ["third", "two"] {
        let report = shared.audited(folder);
        let flows = report["flows"].as_array().unwrap();
        let applied: Vec<_> = flows.iter().map(|flow| flow["books"]["applied"].as_u64().unwrap()).collect();
        assert_eq!(applied, [40, 30], "{folder}: {report:#}");
        assert_eq!(statement(&report, "E2")["status"], "balanced");
    }
    let story = shared.from("third", &["story", "r7"]).expect(0).out;
    assert!(story.contains("returns/0/7"), "{story}");
    let status = shared.from("third", &["status", "--json"]).json();
    assert_eq!(status["flows"].as_array().unwrap().len(), 2, "{status:#}");

    let held = shared.from("one", &["run", "--flow", "stock"]);
    assert_eq!(held.code, Some(4));
    assert!(held.err.contains("a folder of its own: --ledger-folder"), "{}", held.err);
    assert_eq!(
        (one.terminate(), two.terminate()),
        (Some(0), Some(0)),
        "{}{}",
        shared.log("one"),
        shared.log("two")
    );
    assert_eq!(shared.sql("SELECT count(DISTINCT ledger_id) FROM recount_position"), "1");
    let export = |folder: &str| shared.from(folder, &["ledger", "export"]).expect(0).out;
    assert_eq!(export("one"), export("two"));
    assert_eq!(export("one").lines().count(), 71);
    std::fs::remove_dir_all(world.path("third")).unwrap();
    assert_eq!(export("third"), export("one"), "made anew");
    let told = world.recount(&["validate"]).expect(0).all();
    assert!(told.contains("entries"), "{told}");
}

#[test]
fn work_moves_to_another_process_after_a_kill_and_nothing_is_done_twice() {
    let Some(shared) = Shared::new() else { return };
    let total: u64 = 4000;
    shared.world.lines(&orders(0..total, "a"));
    for round in 0..4 {
        let folder = ["one", "two"][round % 2];
        let running = shared.start(folder, "stock");
        eventually("it goes on", || {
            let seq = shared.server.sql(&shared.database, "SELECT max(seq) FROM recount_position");
            seq.is_ok_and(|seq| seq.trim().parse().is_ok_and(|seq: usize| seq > round))
        });
        running.signal(rustix::process::Signal::KILL);
    }
    let last = shared.start("three", "stock");
    eventually("all are applied", || shared.decided() as u64 == total);
    last.terminate();
    let counted = "SELECT count(*), count(DISTINCT \"offset\") FROM recount_effect";
    assert_eq!(shared.sql(counted), format!("{total}|{total}"));
    assert_eq!(shared.sql("SELECT 100000 - on_hand FROM stock WHERE sku = 'a'"), total.to_string());
    let report = shared.audited("fourth");
    assert_eq!(report["flows"][0]["books"]["applied"], total, "{report:#}");
}

#[test]
fn a_database_that_is_away_for_seconds_stops_nothing_and_readers_say_how_old_they_are() {
    let Some(shared) = Shared::new() else { return };
    shared.world.lines(&orders(0..20, "a"));
    let running = shared.start("one", "stock");
    eventually("the first are applied", || {
        shared
            .server
            .sql(&shared.database, "SELECT count(*) FROM recount_effect")
            .is_ok_and(|n| n.trim() == "20")
    });
    // Nobody gets in, and who is in is thrown out.
    let database = &shared.database;
    shared.from("third", &["status"]);
    let postgres = |sql: &str| shared.server.sql("postgres", sql).unwrap();
    postgres(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS false"));
    postgres(&format!(
        "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE datname = '{database}'"
    ));
    shared.world.append(&orders(20..40, "a"));
    let stale = shared.from("third", &["story", "o3"]);
    assert_eq!(stale.code, Some(4), "{}", stale.all());
    assert!(stale.err.contains("what follows is what the replica in third has"), "{}", stale.err);
    assert!(stale.out.contains("stock/0/3"), "{}", stale.out);
    let nothing = shared.from("fifth", &["story", "o3"]);
    assert_eq!(nothing.code, Some(4), "{}", nothing.all());
    std::thread::sleep(std::time::Duration::from_secs(2));
    postgres(&format!("ALTER DATABASE {database} ALLOW_CONNECTIONS true"));
    eventually("it goes on by itself", || {
        shared.server.sql(database, "SELECT count(*) FROM recount_effect").is_ok_and(|n| n.trim() == "40")
    });
    assert_eq!(running.terminate(), Some(0), "{}", shared.log("one"));
}
