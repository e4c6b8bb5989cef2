//! A world of its own for each test: a folder with a config, events, a stock list and the binary's ledger.

use rusqlite::Connection;
use serde_json::Value;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// How long anything may take that a test waits for; the machine may be busy.
pub const WAIT_MAX: Duration = Duration::from_secs(60);

/// The effect that most tests apply.
pub const TAKE_FROM_STOCK: &str = r#"
[flow.stock.apply]
database = "shop"
sql = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND on_hand >= :quantity"
with = { quantity = "event.quantity", sku = "event.sku" }
rows = 1

[[flow.stock.apply.otherwise]]
when = "SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)"
verdict = "dead-letter"
reason = "unknown_sku"
because = "no such article"

[[flow.stock.apply.otherwise]]
verdict = "dead-letter"
reason = "insufficient_stock"
because = "less on hand than asked for"
"#;

/// A config with the flow `stock`: keys of its table, then further tables.
pub fn config(flow_keys: &str, tables: &str) -> String {
    let source = if flow_keys.contains("source") { "" } else { "source = { file = \"orders.ndjson\" }\n" };
    let id = if flow_keys.contains("id =") { "" } else { "id = \"event.id\"\n" };
    let key = if flow_keys.contains("key =") { "" } else { "key = \"event.sku\"\n" };
    format!(
        "[server]\nlisten = \"127.0.0.1:0\"\n\n[log]\nformat = \"json\"\n\n[database.shop]\nurl = \"sqlite:shop.db\"\n\n\
         [flow.stock]\nowner = \"inventory team\"\npurpose = \"takes ordered units out of stock\"\n{source}{id}{key}{flow_keys}\n{tables}"
    )
}

/// An order line.
pub fn order(id: &str, sku: &str, quantity: i64) -> String {
    format!("{{\"id\":\"{id}\",\"sku\":\"{sku}\",\"quantity\":{quantity}}}")
}

/// Order lines `o0`, `o1` … for one unit each of one article.
pub fn orders(ids: std::ops::Range<u64>, sku: &str) -> Vec<String> {
    ids.map(|id| order(&format!("o{id}"), sku, 1)).collect()
}

/// A folder, and the commands that run in it.
pub struct World {
    folder: TempDir,
}

/// What a command said.
pub struct Told {
    /// Its exit code; none where a signal ended it.
    pub code: Option<i32>,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl Told {
    /// What a process said that has ended.
    pub fn of(output: &Output) -> Self {
        Self {
            code: output.status.code(),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// Fails unless it ended with this code.
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.out, self.err);
        self
    }

    /// Standard output as JSON.
    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {}\n{}", self.out, self.err))
    }

    /// Both outputs.
    pub fn all(&self) -> String {
        format!("{}\n{}", self.out, self.err)
    }
}

impl World {
    /// A world with this config, the articles `a`, `b` and `c` with 100 units each, and no orders.
    pub fn new(config: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        world.configure(config);
        let create = "PRAGMA journal_mode = WAL; \
             CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand < 100000)); \
             INSERT INTO stock VALUES ('a', 100), ('b', 100), ('c', 100)";
        world.shop().execute_batch(create).unwrap();
        world.lines::<&str>(&[]);
        world
    }

    /// A world where orders are taken out of stock, with further keys of the flow.
    pub fn stock(flow_keys: &str) -> Self {
        Self::new(&config(flow_keys, TAKE_FROM_STOCK))
    }

    /// A copy of a folder under `examples/`; its instance listens at any free port.
    pub fn of_example(example: &str) -> Self {
        let world = Self { folder: tempfile::tempdir().unwrap() };
        copy_folder(
            &Path::new(env!("CARGO_MANIFEST_DIR")).join("../../examples").join(example),
            world.folder.path(),
        );
        // What somebody's run left in the example itself.
        for left in ["recount-data", "shop.db", "shop.db-wal", "shop.db-shm"] {
            let path = world.path(left);
            let _ = if path.is_dir() { fs::remove_dir_all(path) } else { fs::remove_file(path) };
        }
        let config = fs::read_to_string(world.path("recount.toml")).unwrap();
        let (before, listens): (Vec<&str>, Vec<&str>) =
            config.lines().partition(|line| !line.starts_with("listen = "));
        let config = match listens.is_empty() {
            true => format!("server.listen = \"127.0.0.1:0\"\n{config}"),
            false => before.join("\n").replace("[server]", "[server]\nlisten = \"127.0.0.1:0\""),
        };
        world.configure(&config);
        world
    }

    /// Writes the config.
    pub fn configure(&self, config: &str) {
        fs::write(self.path("recount.toml"), config).unwrap();
    }

    /// A path in the folder.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The effect's database.
    pub fn shop(&self) -> Connection {
        let shop = Connection::open(self.path("shop.db")).unwrap();
        shop.busy_timeout(WAIT_MAX).unwrap();
        shop
    }

    /// One number out of the effect's database.
    pub fn number(&self, sql: &str) -> i64 {
        self.shop().query_row(sql, [], |row| row.get(0)).unwrap()
    }

    /// What is left of an article.
    pub fn on_hand(&self, sku: &str) -> i64 {
        self.number(&format!("SELECT on_hand FROM stock WHERE sku = '{sku}'"))
    }

    /// Puts so much of an article on the list.
    pub fn put(&self, sku: &str, on_hand: i64) {
        self.shop().execute("INSERT OR REPLACE INTO stock VALUES (?1, ?2)", (sku, on_hand)).unwrap();
    }

    /// Makes the orders anew.
    pub fn lines<L: AsRef<[u8]>>(&self, lines: &[L]) {
        fs::write(self.path("orders.ndjson"), joined(lines)).unwrap();
    }

    /// Adds to the orders.
    pub fn append<L: AsRef<[u8]>>(&self, lines: &[L]) {
        let mut file = fs::OpenOptions::new().append(true).open(self.path("orders.ndjson")).unwrap();
        file.write_all(&joined(lines)).unwrap();
    }

    /// The binary in this folder.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_recount"));
        command.args(args).current_dir(self.folder.path()).stdin(Stdio::null());
        for name in ["RECOUNT_LOG", "RECOUNT_CONFIG", "RECOUNT_STEP_FILE", "RECOUNT_REVISION"] {
            command.env_remove(name);
        }
        command.env("RECOUNT_AUTHOR", "ada");
        command
    }

    /// Runs a command to its end.
    pub fn recount(&self, args: &[&str]) -> Told {
        Told::of(&self.command(args).output().unwrap())
    }

    /// `recount run --json`.
    pub fn run(&self) -> Told {
        self.recount(&["run", "--json"])
    }

    /// `recount audit --json`.
    pub fn audit(&self) -> Told {
        self.recount(&["audit", "--json"])
    }

    /// Every current decision, by offset where there is one partition.
    pub fn decisions(&self) -> Vec<Value> {
        let told = self.recount(&["ledger", "export"]).expect(0);
        let mut decisions: Vec<Value> =
            told.out.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        decisions.sort_by_key(|decision| decision["offset"].as_u64());
        decisions
    }

    /// How many decisions there are; none where the ledger isn't there yet.
    pub fn decided(&self) -> usize {
        let told = self.recount(&["ledger", "export"]);
        if told.code == Some(0) { told.out.lines().count() } else { 0 }
    }

    /// Every current decision as `verdict reason`.
    pub fn fates(&self) -> Vec<String> {
        self.decisions().iter().map(fate).collect()
    }

    /// What the journal of operators and flows holds: `kind what`, in order.
    pub fn journal(&self) -> Vec<(String, Value)> {
        let catalog = Connection::open(self.path("recount-data/catalog.db")).unwrap();
        let mut rows = catalog.prepare("SELECT what, detail FROM journal ORDER BY entry").unwrap();
        let entry = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let entries = rows.query_map([], entry).unwrap();
        entries
            .map(|entry| entry.unwrap())
            .map(|(what, d)| (what, serde_json::from_str(&d).unwrap()))
            .collect()
    }

    /// Starts a command that goes on by itself.
    pub fn start(&self, args: &[&str]) -> Running {
        self.start_with(args, &[])
    }

    /// The same, with variables in its environment.
    pub fn start_with(&self, args: &[&str], variables: &[(&str, &str)]) -> Running {
        let (out, err) = (self.path("started.out"), self.path("started.err"));
        let mut command = self.command(args);
        command.envs(variables.iter().copied());
        command.stdout(fs::File::create(&out).unwrap()).stderr(fs::File::create(&err).unwrap());
        let _ = fs::remove_file(self.path("recount-data/control-token"));
        Running { child: command.spawn().unwrap(), folder: self.folder.path().to_owned(), out, err }
    }
}

/// A decision as `verdict reason`.
pub fn fate(decision: &Value) -> String {
    let verdict = decision["verdict"].as_str().unwrap();
    decision["reason"].as_str().map_or_else(|| verdict.to_owned(), |reason| format!("{verdict} {reason}"))
}

fn joined<L: AsRef<[u8]>>(lines: &[L]) -> Vec<u8> {
    lines.iter().flat_map(|line| [line.as_ref(), b"\n"].concat()).collect()
}

/// A command that goes on until it is stopped; dropped, it is killed.
pub struct Running {
    /// The process.
    pub child: Child,
    folder: PathBuf,
    out: PathBuf,
    err: PathBuf,
}

impl Running {
    /// Where it listens, as soon as it does.
    pub fn address(&self) -> String {
        let folder = self.folder.join("recount-data");
        eventually("the instance listens", || folder.join("control-token").exists());
        fs::read_to_string(folder.join("address")).unwrap().trim().to_owned()
    }

    /// A page of it: status and body.
    pub fn get(&self, path: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut answer = agent.get(format!("{}{path}", self.address())).call().unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// Posts to it: status and body.
    pub fn post(&self, path: &str, headers: &[(&str, &str)], body: &str) -> (u16, String) {
        let agent: ureq::Agent = ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let mut request = agent.post(format!("{}{path}", self.address()));
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let mut answer = request.send(body).unwrap();
        (answer.status().as_u16(), answer.body_mut().read_to_string().unwrap())
    }

    /// What it logged so far.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.err).unwrap()
    }

    /// Asks it to stop, as soon as it listens, and waits.
    pub fn terminate(mut self) -> Told {
        self.address();
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
        self.wait()
    }

    /// Kills it at once.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> Told {
        let began = Instant::now();
        let code = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status.code();
            }
            assert!(began.elapsed() < WAIT_MAX, "it does not end: {}", self.log());
            std::thread::sleep(Duration::from_millis(20));
        };
        Told { code, out: fs::read_to_string(&self.out).unwrap(), err: self.log() }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Waits until something holds.
#[track_caller]
pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < WAIT_MAX, "it never came to this: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// Copies a folder with all that is in it.
pub fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy_folder(&entry.path(), &target);
        } else {
            fs::copy(entry.path(), target).unwrap();
        }
    }
}

/// Copies the effect's database as a backup would.
pub fn back_up(world: &World, to: &str) {
    world.shop().execute("VACUUM INTO ?1", [world.path(to).to_str().unwrap()]).unwrap();
}

/// Puts a backup of the effect's database in its place.
pub fn restore(world: &World, from: &str) {
    for name in ["shop.db", "shop.db-wal", "shop.db-shm"] {
        let _ = fs::remove_file(world.path(name));
    }
    fs::copy(world.path(from), world.path("shop.db")).unwrap();
}

/// The statement of a flow's audit for an equation.
#[track_caller]
pub fn statement<'j>(report: &'j Value, equation: &str) -> &'j Value {
    let statements = report["flows"][0]["statements"].as_array().unwrap();
    statements
        .iter()
        .find(|s| s["equation"] == equation)
        .unwrap_or_else(|| panic!("no {equation}: {report:#}"))
}
