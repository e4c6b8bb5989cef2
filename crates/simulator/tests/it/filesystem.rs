//! The file system under test: SQLite on it works, and what it loses is what was not synced.

use recount_simulator::rng::Rng;
use recount_simulator::vfs::{Failure, Fault, FileSystem, Loss, Operation};
use rusqlite::{Connection, OpenFlags, Result};

const DISKS: &[&str] = &["effects", "ledger"];
const WAL_FULL: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL;";
/// With `FULL` SQLite doesn't sync the folder after it took the journal away, which is the commit: a loss of
/// power undoes it.
const JOURNAL_FULL: &str = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=FULL;";
const JOURNAL_EXTRA: &str = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=EXTRA;";
const WAL_OFF: &str = "PRAGMA journal_mode=WAL; PRAGMA synchronous=OFF;";
const JOURNAL_OFF: &str = "PRAGMA journal_mode=DELETE; PRAGMA synchronous=OFF;";

fn open(files: &FileSystem, process: u32, settings: &str) -> Result<Connection> {
    let path = format!("/{process}/effects/shop.db");
    let connection = Connection::open_with_flags_and_vfs(path, OpenFlags::default(), files.name())?;
    connection.execute_batch(settings)?;
    Ok(connection)
}

fn numbers(connection: &Connection) -> Vec<i64> {
    let mut statement = connection.prepare("SELECT n FROM t ORDER BY n").unwrap();
    statement.query_map([], |row| row.get(0)).unwrap().map(Result::unwrap).collect()
}

fn check_integrity(connection: &Connection, told: &str) {
    let found: String = connection.query_row("PRAGMA integrity_check", [], |row| row.get(0)).unwrap();
    assert_eq!(found, "ok", "{told}");
}

#[test]
fn a_committed_transaction_outlives_a_loss_of_power_and_an_open_one_does_not() {
    let files = FileSystem::register();
    for settings in [WAL_FULL, JOURNAL_EXTRA] {
        for loss in [Loss::Everything, Loss::Some, Loss::Nothing] {
            files.reset(DISKS, 7);
            let connection = open(files, 1, settings).unwrap();
            connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);").unwrap();
            connection.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (2);").unwrap();
            files.kill(1);
            files.lose_power("effects", loss);
            assert!(connection.execute_batch("COMMIT").is_err());
            drop(connection);
            let connection = open(files, 2, settings).unwrap();
            assert_eq!(numbers(&connection), [1], "{settings} {loss:?}");
            check_integrity(&connection, settings);
        }
    }
}

#[test]
fn what_was_never_synced_vanishes() {
    let files = FileSystem::register();
    for settings in [WAL_OFF, JOURNAL_OFF] {
        files.reset(DISKS, 7);
        let connection = open(files, 1, settings).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);").unwrap();
        files.kill(1);
        drop(connection);
        let connection = open(files, 2, settings).unwrap();
        assert_eq!(numbers(&connection), [1], "a killed process loses nothing: {settings}");
        files.kill(2);
        files.lose_power("effects", Loss::Everything);
        drop(connection);
        let connection = open(files, 3, settings).unwrap();
        assert!(connection.prepare("SELECT n FROM t").is_err(), "{settings}");
    }
}

#[test]
fn two_processes_see_what_the_other_committed_and_wait_for_each_others_locks() {
    let files = FileSystem::register();
    for settings in [WAL_FULL, JOURNAL_EXTRA] {
        files.reset(DISKS, 7);
        let first = open(files, 1, settings).unwrap();
        let second = open(files, 2, settings).unwrap();
        first.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);").unwrap();
        assert_eq!(numbers(&second), [1]);
        second.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(numbers(&first), [1, 2]);

        first.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (3)").unwrap();
        let busy = second.execute_batch("BEGIN IMMEDIATE").unwrap_err();
        assert_eq!(busy.sqlite_error_code(), Some(rusqlite::ErrorCode::DatabaseBusy), "{settings}");
        assert_eq!(numbers(&second), [1, 2], "readers go on: {settings}");
        files.kill(1);
        second.execute_batch("BEGIN IMMEDIATE; INSERT INTO t VALUES (4); COMMIT").unwrap();
        drop(first);
        assert_eq!(numbers(&second), [1, 2, 4], "{settings}");
        check_integrity(&second, settings);
    }
}

/// Inserts 1, 2, 3 … a row a transaction until the process dies; returns the last number that was committed
/// for certain.
fn insert_until_dead(files: &FileSystem, process: u32, settings: &str, rng: &mut Rng) -> i64 {
    let mut run = || -> Result<i64> {
        let connection = open(files, process, settings)?;
        connection
            .execute_batch("PRAGMA wal_autocheckpoint=8; CREATE TABLE IF NOT EXISTS t (n INTEGER, x BLOB)")?;
        let from: i64 = connection.query_row("SELECT coalesce(max(n), 0) FROM t", [], |row| row.get(0))?;
        let mut committed = from;
        for n in from + 1..from + 40 {
            let bytes = rng.between(10, 9_000) as i64;
            let done = connection.execute("INSERT INTO t VALUES (?1, zeroblob(?2))", (n, bytes));
            if done.is_err() {
                break;
            }
            committed = n;
        }
        Ok(committed)
    };
    run().unwrap_or(0)
}

fn crash_at_random(settings: &str, loss: Loss, rounds: u64) -> Result<(), String> {
    let files = FileSystem::register();
    let mut rng = Rng::new(11);
    files.reset(DISKS, 11);
    let mut process = 0;
    let mut certain = 0;
    for round in 0..rounds {
        if round % 20 == 0 {
            files.reset(DISKS, round);
            certain = 0;
        }
        process += 1;
        let after = rng.below(120);
        files.plan(Fault {
            process: Some(process),
            disk: None,
            operation: None,
            after,
            times: 1,
            failure: Failure::Crash,
        });
        certain = insert_until_dead(files, process, settings, &mut rng).max(certain);
        files.clear_faults();
        files.kill(process);
        files.lose_power("effects", loss);
        process += 1;
        let connection = open(files, process, settings).map_err(|e| format!("round {round}: {e}"))?;
        let found: String = connection
            .query_row("PRAGMA integrity_check", [], |row| row.get(0))
            .map_err(|e| format!("round {round}: {e}"))?;
        if found != "ok" {
            return Err(format!("round {round}: {found}"));
        }
        let last: i64 =
            connection.query_row("SELECT coalesce(max(n), 0) FROM t", [], |row| row.get(0)).unwrap_or(0);
        if last < certain || last > certain + 1 {
            return Err(format!("round {round}: {certain} was committed, {last} is there"));
        }
        files.kill(process);
    }
    Ok(())
}

#[test]
fn a_thousand_crashes_lose_nothing_that_was_committed() {
    for settings in [WAL_FULL, JOURNAL_EXTRA] {
        for loss in [Loss::Everything, Loss::Some, Loss::Nothing] {
            crash_at_random(settings, loss, 334).unwrap_or_else(|e| panic!("{settings} {loss:?}: {e}"));
        }
    }
}

#[test]
fn a_missing_sync_is_caught() {
    for settings in [WAL_OFF, JOURNAL_OFF, JOURNAL_FULL] {
        for loss in [Loss::Everything, Loss::Some] {
            let found = crash_at_random(settings, loss, 60).unwrap_err();
            assert!(found.starts_with("round"), "{found}");
        }
    }
    let files = FileSystem::register();
    files.reset(DISKS, 3);
    files.make_syncs_lie("effects");
    let connection = open(files, 1, WAL_FULL).unwrap();
    connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);").unwrap();
    files.kill(1);
    files.lose_power("effects", Loss::Everything);
    drop(connection);
    assert!(open(files, 2, WAL_FULL).unwrap().prepare("SELECT n FROM t").is_err());
}

#[test]
fn planned_faults_come_back_as_sqlites_own_codes() {
    use rusqlite::ErrorCode::{CannotOpen, DatabaseBusy, DiskFull, SystemIoFailure};
    let files = FileSystem::register();
    for (operation, failure, expected) in [
        (Operation::Write, Failure::IoError, SystemIoFailure),
        (Operation::Write, Failure::Full, DiskFull),
        (Operation::Sync, Failure::IoError, SystemIoFailure),
        (Operation::Lock, Failure::Busy, DatabaseBusy),
        (Operation::Open, Failure::CantOpen, CannotOpen),
    ] {
        files.reset(DISKS, 7);
        let connection = open(files, 1, JOURNAL_FULL).unwrap();
        connection.execute_batch("CREATE TABLE t (n INTEGER)").unwrap();
        let disk = Some("effects");
        let (after, times) = (0, if failure == Failure::Busy { 200 } else { 1 });
        files.plan(Fault { process: Some(1), disk, operation: Some(operation), after, times, failure });
        let error = connection.execute_batch("INSERT INTO t VALUES (1)").unwrap_err();
        assert_eq!(error.sqlite_error_code(), Some(expected), "{operation:?} {failure:?}");
        assert!(files.counts().faults >= 1);
        files.clear_faults();
        connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(numbers(&connection), [2], "{operation:?} {failure:?}");
    }
}

#[test]
fn an_image_brings_the_disk_back_as_it_was() {
    let files = FileSystem::register();
    files.reset(DISKS, 7);
    let connection = open(files, 1, WAL_FULL).unwrap();
    connection.execute_batch("CREATE TABLE t (n INTEGER); INSERT INTO t VALUES (1);").unwrap();
    let earlier = files.image("effects").unwrap();
    connection.execute_batch("INSERT INTO t VALUES (2)").unwrap();
    files.kill(1);
    files.restore("effects", &earlier);
    drop(connection);
    assert_eq!(numbers(&open(files, 2, WAL_FULL).unwrap()), [1]);
}

#[test]
fn the_same_seed_asks_for_the_same_operations() {
    let files = FileSystem::register();
    let run = |seed| {
        files.reset(DISKS, seed);
        let mut rng = Rng::new(seed);
        insert_until_dead(files, 1, WAL_FULL, &mut rng);
        files.lose_power("effects", Loss::Some);
        insert_until_dead(files, 2, WAL_FULL, &mut rng);
        (files.trace(), files.counts())
    };
    let first = run(5);
    assert!(first.1.operations > 100);
    assert_eq!(run(5), first);
    assert_ne!(run(6).0, first.0);
}
