//! A ledger in PostgreSQL with replicas in folders, on a real server with a database a test.

use recount_adapters::postgres_ledger::{PostgresLedger, PostgresLedgerSettings};
use recount_ledger::{
    DecisionFilter, EncodedBatch, ExportFormat, JournalEntry, JournalKind, LedgerError, LedgerRead,
    LedgerReader, LedgerSettings, LedgerStore, SqliteLedger, StoredConfig, codec, export,
};
use recount_model::batch::Attempt;
use recount_model::{
    BatchRecord, ConfigVersion, Decision, Fate, FlowName, KeptBody, OffsetSet, Origin, Partition,
    PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};
use recount_services::Postgres;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A database, and a folder for each process.
struct Ops {
    server: &'static Postgres,
    url: String,
    folder: tempfile::TempDir,
}

impl Ops {
    /// None where PostgreSQL was left out on purpose.
    fn new() -> Option<Self> {
        let server = recount_services::postgres()?;
        Some(Self { server, url: server.fresh_database().unwrap(), folder: tempfile::tempdir().unwrap() })
    }

    fn folder(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn settings(&self, name: &str) -> PostgresLedgerSettings {
        PostgresLedgerSettings {
            patience_ms: 20_000,
            ..PostgresLedgerSettings::new(&self.url, self.folder(name))
        }
    }

    fn open(&self, name: &str) -> PostgresLedger {
        PostgresLedger::open(self.settings(name)).unwrap()
    }

    fn refused(&self, name: &str) -> LedgerError {
        PostgresLedger::open(self.settings(name)).err().expect("it is refused")
    }

    fn sql(&self, sql: &str) -> String {
        let database = self.url.rsplit('/').next().unwrap();
        self.server.sql(database, sql).unwrap().trim().to_owned()
    }

    /// What readers see of a folder: decisions, configs, journal, and what counting reads with its identity sums.
    fn dump(&self, name: &str) -> String {
        dump(&self.folder(name))
    }
}

fn dump(folder: &Path) -> String {
    let reader = LedgerReader::open(folder).unwrap();
    let mut out = Vec::new();
    let filter = DecisionFilter { superseded: true, ..DecisionFilter::default() };
    export(&reader, &filter, ExportFormat::Ndjson, &mut out).unwrap();
    let mut text = String::from_utf8(out).unwrap();
    reader
        .batches_with_identity(None, &mut |batch, sum| {
            text.push_str(&format!("{batch:?} {sum}\n"));
            std::ops::ControlFlow::Continue(())
        })
        .unwrap();
    for at in reader.partitions().unwrap() {
        text.push_str(&format!("{at:?} {:?}\n", reader.mark(&at).unwrap()));
        text.push_str(&format!("{:?}\n", reader.bodies(&at, &[0, 1, 2, 3]).unwrap()));
    }
    text.push_str(&format!("{:?}\n{:?}\n", reader.configs().unwrap(), reader.journal(None).unwrap()));
    format!("{text}{}", reader.id().0)
}

fn partition(name: &str) -> PartitionId {
    let flow = FlowName::new("stock").unwrap();
    PartitionId { flow, source: SourceId::new("topic-1"), partition: Partition::new(name) }
}

/// Ten decisions, the first of them a dead letter with its body.
fn batch(at: &PartitionId, seq: u64) -> EncodedBatch {
    let from = (seq - 1) * 10;
    let decision = |offset: u64| Decision {
        offset,
        event_id: Some(format!("o{offset}").into()),
        key: Some("sku".into()),
        payload_hash: PayloadHash(offset),
        fate: match offset % 10 {
            0 => Fate::DeadLettered(Reason::new(ReasonCode::new("unknown_sku").unwrap(), "no such article")),
            _ => Fate::Applied,
        },
        flags: Vec::new(),
        attempt: 1,
        event_time: None,
        origin: Origin::Ran,
        corrects: None,
        evidence: None,
        received: true,
        measures: Vec::new(),
    };
    let body = KeptBody {
        offset: from,
        payload: b"{}".to_vec(),
        payload_bytes: 2,
        headers: Vec::new(),
        attempts: vec![Attempt { number: 1, at: Timestamp(5), found: "unknown_sku".into() }],
    };
    let record = BatchRecord {
        at: at.clone(),
        epoch: 1,
        seq,
        config: ConfigVersion(1),
        taken_at: Timestamp(1000),
        decided_at: Timestamp(1001),
        decisions: (from..from + 10).map(decision).collect(),
        gaps: Vec::new(),
        bodies: vec![body],
        next_offset: from + 10,
        decided_above: OffsetSet::new(),
    };
    EncodedBatch { bytes: codec::encode(&record).into(), record: Arc::new(record) }
}

fn paused() -> JournalEntry {
    JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(FlowName::new("stock").unwrap()),
        what: "paused".to_owned(),
        at: Timestamp(7),
        persisted_at: Timestamp::default(),
        detail: serde_json::json!({ "by": "ada" }),
    }
}

fn config(hash: &str) -> StoredConfig {
    StoredConfig {
        version: ConfigVersion(0),
        hash: hash.to_owned(),
        text: "[flow.stock]".to_owned(),
        files: vec![("a.json".to_owned(), "{}".to_owned())],
        author: "ada".to_owned(),
        revision: "r1".to_owned(),
        since: Timestamp(3),
    }
}

#[test]
fn two_processes_write_one_book_and_their_replicas_are_equal() {
    let Some(ops) = Ops::new() else { return };
    let (mut a, mut b) = (ops.open("a"), ops.open("b"));
    assert_eq!(a.id(), b.id());
    let (one, two) = (partition("1"), partition("2"));
    assert_eq!(a.config(&config("x")).unwrap(), ConfigVersion(1));
    assert_eq!(b.config(&config("x")).unwrap(), ConfigVersion(1), "numbered once for all");
    for seq in 1..=20 {
        a.append(&[batch(&one, seq)], Timestamp(2000)).unwrap();
        b.append(&[batch(&two, 2 * seq - 1), batch(&two, 2 * seq)], Timestamp(3000)).unwrap();
    }
    assert_eq!(b.journal(&paused()).unwrap(), 2);
    assert_eq!(b.config(&config("y")).unwrap(), ConfigVersion(2));
    assert_eq!(a.config(&config("x")).unwrap(), ConfigVersion(3), "it is not the latest");
    b.catch_up().unwrap();
    assert_eq!(ops.dump("a"), ops.dump("b"));
    assert_eq!(LedgerReader::open(ops.folder("a")).unwrap().journal(None).unwrap().len(), 4);

    // A folder that is lost is made anew, and so is one of a process that was never there.
    drop(b);
    std::fs::remove_dir_all(ops.folder("b")).unwrap();
    drop((ops.open("b"), ops.open("c")));
    assert_eq!(ops.dump("a"), ops.dump("b"));
    assert_eq!(ops.dump("a"), ops.dump("c"));
    assert_eq!(ops.sql("SELECT count(*), max(ordinal) FROM recount_ledger_entry"), "64|64");
}

#[test]
fn a_partition_taken_over_has_its_marks_and_nothing_is_appended_twice() {
    let Some(ops) = Ops::new() else { return };
    let (mut a, mut b) = (ops.open("a"), ops.open("b"));
    let at = partition("1");
    assert_eq!(b.mark(&at).unwrap(), None);
    a.append(&[batch(&at, 1), batch(&at, 2)], Timestamp(1)).unwrap();
    assert_eq!(b.mark(&at).unwrap().unwrap().seq, 2);
    assert_eq!(b.recent(&at, 5).unwrap().len(), 5);
    assert_eq!(b.current(&at, 10).unwrap().unwrap().0, 2);
    assert_eq!(b.partitions(&at.flow).unwrap(), std::slice::from_ref(&at));
    // What the arbiter still holds is appended by the new owner, whatever of it is there.
    b.append(&[batch(&at, 2), batch(&at, 3)], Timestamp(2)).unwrap();
    // The old one does not know, and repeats it.
    a.append(&[batch(&at, 3)], Timestamp(3)).unwrap();
    assert_eq!(
        ops.sql("SELECT string_agg(seq::text, ',' ORDER BY ordinal) FROM recount_ledger_entry"),
        "1,2,3"
    );
    let gap = a.append(&[batch(&at, 5)], Timestamp(4)).unwrap_err();
    assert!(matches!(&gap, LedgerError::Corrupt(why) if why.contains("would leave a gap")), "{gap}");
    assert_eq!(ops.sql("SELECT count(*) FROM recount_ledger_entry"), "3");
    drop((a, b));
    drop(ops.open("a"));
    drop(ops.open("b"));
    assert_eq!(ops.dump("a"), ops.dump("b"));
}

#[test]
fn many_processes_that_write_at_once_leave_no_hole() {
    let Some(ops) = Ops::new() else { return };
    let names = ["a", "b", "c", "d"];
    std::thread::scope(|scope| {
        for name in names {
            let ops = &ops;
            scope.spawn(move || {
                let mut ledger = ops.open(name);
                for seq in 1..=25 {
                    ledger.append(&[batch(&partition(name), seq)], Timestamp(seq as i64)).unwrap();
                    if seq % 10 == 0 {
                        ledger.journal(&paused()).unwrap();
                    }
                }
            });
        }
    });
    names.iter().for_each(|name| drop(ops.open(name)));
    let whole = "SELECT count(*), max(ordinal), min(next_ordinal) FROM recount_ledger_entry, recount_ledger";
    assert_eq!(ops.sql(whole), "108|108|109");
    for name in names {
        assert_eq!(ops.dump(name), ops.dump("a"));
    }
}

#[test]
fn a_replica_that_fell_behind_its_own_commits_takes_them_in() {
    let Some(ops) = Ops::new() else { return };
    let at = partition("1");
    let mut a = ops.open("a");
    a.append(&[batch(&at, 1)], Timestamp(1)).unwrap();
    a.journal(&paused()).unwrap();
    drop(a);
    // The folder as it was, then commits that only the log has: a crash between the two.
    let copy = ops.folder("old");
    copy_folder(&ops.folder("a"), &copy);
    let mut a = ops.open("a");
    a.append(&[batch(&at, 2), batch(&at, 3)], Timestamp(2)).unwrap();
    a.journal(&paused()).unwrap();
    drop(a);
    drop(ops.open("old"));
    assert_eq!(ops.dump("old"), ops.dump("a"));
}

#[test]
fn batches_that_were_applied_and_not_noted_are_passed_over() {
    let Some(ops) = Ops::new() else { return };
    let at = partition("1");
    let mut a = ops.open("a");
    a.journal(&paused()).unwrap();
    a.append(&[batch(&at, 1), batch(&at, 2)], Timestamp(2)).unwrap();
    // As a process leaves it that is killed here.
    let copy = ops.folder("killed");
    copy_folder(&ops.folder("a"), &copy);
    let catalog = rusqlite::Connection::open(copy.join("catalog.db")).unwrap();
    let noted: i64 = catalog.query_row("SELECT applied FROM replica", [], |row| row.get(0)).unwrap();
    assert_eq!(noted, 1, "its batches are not noted yet");
    drop(catalog);
    a.journal(&paused()).unwrap();
    drop(a);
    drop(ops.open("killed"));
    assert_eq!(ops.dump("killed"), ops.dump("a"));
}

fn copy_folder(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

/// Stands between a process and the server; once told so, it swallows an answer and closes the connection.
fn proxy(server: u16) -> (u16, Arc<AtomicBool>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let swallows = Arc::new(AtomicBool::new(false));
    let told = Arc::clone(&swallows);
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let (mut client, mut server) =
                (client.unwrap(), TcpStream::connect(("127.0.0.1", server)).unwrap());
            let (mut asks, mut hears) = (client.try_clone().unwrap(), server.try_clone().unwrap());
            std::thread::spawn(move || std::io::copy(&mut asks, &mut hears));
            let told = Arc::clone(&told);
            std::thread::spawn(move || {
                let mut bytes = [0; 4096];
                while let Ok(count @ 1..) = server.read(&mut bytes) {
                    if told.swap(false, Ordering::SeqCst) {
                        break;
                    }
                    client.write_all(&bytes[..count]).unwrap();
                }
                let _ = (client.shutdown(Shutdown::Both), server.shutdown(Shutdown::Both));
            });
        }
    });
    (port, swallows)
}

#[test]
fn a_commit_of_unknown_outcome_is_looked_up() {
    let Some(ops) = Ops::new() else { return };
    let at = partition("1");
    let (port, swallows) = proxy(ops.server.port());
    let url = ops.url.replace(&format!(":{}/", ops.server.port()), &format!(":{port}/"));
    let mut a = PostgresLedger::open(PostgresLedgerSettings { url, ..ops.settings("a") }).unwrap();
    a.append(&[batch(&at, 1)], Timestamp(1)).unwrap();
    // The answer gets lost after the entry is durable.
    swallows.store(true, Ordering::SeqCst);
    a.append(&[batch(&at, 2)], Timestamp(2)).unwrap();
    assert!(!swallows.load(Ordering::SeqCst), "an answer was swallowed");
    swallows.store(true, Ordering::SeqCst);
    assert_eq!(a.journal(&paused()).unwrap(), 1);
    // The connection is gone before anything is asked.
    let cut = "SELECT count(pg_terminate_backend(pid, 5000)) FROM pg_stat_activity WHERE application_name = \
               'recount ledger' AND datname = current_database()";
    assert_eq!(ops.sql(cut), "1");
    a.append(&[batch(&at, 3)], Timestamp(3)).unwrap();
    let seqs = "SELECT string_agg(coalesce(seq::text, 'j'), ',' ORDER BY ordinal) FROM recount_ledger_entry";
    assert_eq!(ops.sql(seqs), "1,2,j,3");
    drop(a);
    drop(ops.open("b"));
    assert_eq!(ops.dump("a"), ops.dump("b"));
}

#[test]
fn folders_that_do_not_belong_are_refused_and_left_as_they_are() {
    let Some(ops) = Ops::new() else { return };
    // A ledger of its own does not become a replica, not even of an empty database.
    let own = SqliteLedger::open(ops.folder("own"), LedgerSettings::default()).unwrap();
    let own_id = own.id().0;
    drop(own);
    let told = ops.refused("own").to_string();
    assert!(told.contains(&own_id) && told.contains("is not shared"), "{told}");
    assert_eq!(ops.sql("SELECT to_regclass('recount_ledger') IS NULL"), "t", "nothing was begun");

    let mut a = ops.open("a");
    a.append(&[batch(&partition("1"), 1)], Timestamp(1)).unwrap();
    let locked = ops.refused("a");
    assert!(matches!(locked, LedgerError::Locked { .. }), "{locked}");
    let id = a.id().0;
    drop(a);
    // Nor does a replica become a ledger of its own.
    let told = SqliteLedger::open(ops.folder("a"), LedgerSettings::default()).unwrap_err().to_string();
    assert!(told.contains(&id) && told.contains("is a replica of ledger"), "{told}");
    // Nor of another ledger, nor the beginning of a new one.
    let other = Ops::new().unwrap();
    let elsewhere = PostgresLedgerSettings { folder: ops.folder("a"), ..other.settings("a") };
    let empty = PostgresLedger::open(elsewhere.clone()).err().unwrap().to_string();
    assert!(empty.contains("holds no ledger") && empty.contains(&id), "{empty}");
    let other_id = other.open("b").id().0;
    let foreign = PostgresLedger::open(elsewhere).err().unwrap().to_string();
    assert!(foreign.contains(&id) && foreign.contains(&other_id), "{foreign}");
    // A log that was restored to an earlier time is not written on.
    ops.sql("DELETE FROM recount_ledger_entry; UPDATE recount_ledger SET next_ordinal = 1");
    let shorter = ops.refused("a");
    assert!(matches!(&shorter, LedgerError::Corrupt(why) if why.contains("ends before it")), "{shorter}");
}

#[test]
fn blocks_are_those_of_an_embedded_ledger() {
    let Some(ops) = Ops::new() else { return };
    let at = partition("1");
    let (mut shared, mut own) =
        (ops.open("a"), SqliteLedger::open(ops.folder("own"), LedgerSettings::default()).unwrap());
    for ledger in [&mut shared as &mut dyn LedgerStore, &mut own] {
        ledger.append(&[batch(&at, 1)], Timestamp(1)).unwrap();
        ledger.append(&[batch(&at, 2)], Timestamp(2)).unwrap();
    }
    drop((shared, own));
    let blocks = |name: &str| -> Vec<Vec<u8>> {
        let segment = rusqlite::Connection::open(ops.folder(name).join("segment-000001.db")).unwrap();
        let mut statement = segment.prepare("SELECT packed FROM block ORDER BY block_no").unwrap();
        statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
    };
    assert_eq!(blocks("a"), blocks("own"));
    assert_eq!(blocks("a").len(), 2);
    let hex: String = batch(&at, 1).bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    assert_eq!(ops.sql("SELECT encode(body, 'hex') FROM recount_ledger_entry WHERE ordinal = 1"), hex);
}
