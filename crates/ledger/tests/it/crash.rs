//! A writer that is killed loses nothing that it acknowledged.

use crate::data::{NOON, all_of, batch, decisions, encoded, open, partition};
use recount_ledger::{DecisionFilter, LedgerRead, LedgerReader, LedgerStore};
use recount_model::Timestamp;
use std::path::Path;
use std::process::{Command, Stdio};

const FOLDER_OF_CHILD: &str = "RECOUNT_TEST_LEDGER_FOLDER";

fn count(folder: &Path) -> usize {
    decisions(folder, &DecisionFilter::default()).len()
}

/// Not a test of its own: the process that the next one kills. It appends until it dies.
#[test]
fn child_that_appends() {
    let Ok(folder) = std::env::var(FOLDER_OF_CHILD) else { return };
    let at = partition("0");
    let mut ledger = open(Path::new(&folder));
    for n in 0.. {
        ledger.append(&[encoded(batch(&at, n + 1, n * 50..n * 50 + 50))], Timestamp(NOON)).unwrap();
        std::fs::write(Path::new(&folder).join("acknowledged"), n.to_string()).unwrap();
    }
}

#[test]
fn after_a_kill_everything_acknowledged_is_there_for_readers_and_the_next_writer() {
    let folder = tempfile::tempdir().unwrap();
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "crash::child_that_appends"])
        .env(FOLDER_OF_CHILD, folder.path())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let acknowledged = || -> u64 {
        let text = std::fs::read_to_string(folder.path().join("acknowledged")).unwrap_or_default();
        text.parse().unwrap_or(0)
    };
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while acknowledged() < 20 && std::time::Instant::now() < deadline {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let settled = acknowledged();
    assert!(settled >= 20);
    assert!(std::fs::metadata(folder.path().join("segment-000001.db-wal")).unwrap().len() > 0);
    let seen = count(folder.path());
    assert!(seen as u64 >= (settled + 1) * 50 && seen.is_multiple_of(50), "{seen} after {settled}");
    let mut ledger = open(folder.path());
    let mark = ledger.mark(&partition("0")).unwrap().unwrap();
    assert_eq!(mark.next_offset, seen as u64);
    let next = batch(&partition("0"), mark.seq + 1, mark.next_offset..mark.next_offset + 50);
    ledger.append(&[encoded(next)], Timestamp(NOON)).unwrap();
    assert_eq!(count(folder.path()), seen + 50);
}

#[test]
fn readers_read_beside_the_writer_and_see_each_append() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    let reader = LedgerReader::open(folder.path()).unwrap();
    assert_eq!(reader.mark(&at).unwrap(), None);
    for n in 0..5 {
        ledger.append(&[encoded(batch(&at, n + 1, n * 10..n * 10 + 10))], Timestamp(NOON)).unwrap();
        assert_eq!(all_of(&reader, &DecisionFilter::default()).len() as u64, n * 10 + 10);
        assert_eq!(reader.mark(&at).unwrap().unwrap().seq, n + 1);
    }
}

/// A copy of the folder as it is now is what a crash at this instant leaves.
fn copy_as_crashed(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
        }
    }
}

#[test]
fn a_leftover_log_is_read_on_a_read_only_mount() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&partition("0"), 1, 0..100))], Timestamp(NOON)).unwrap();
    let crashed = tempfile::tempdir().unwrap();
    copy_as_crashed(folder.path(), crashed.path());
    let child = Command::new("unshare")
        .args(["-rm", "sh", "-c", "mount --bind \"$1\" \"$1\" && mount -o remount,ro,bind \"$1\" && exec \"$2\" --exact crash::child_that_reads", "sh"])
        .arg(crashed.path())
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER_OF_CHILD, crashed.path())
        .output();
    match child {
        Ok(output) if output.status.success() => {
            let told = String::from_utf8_lossy(&output.stdout).into_owned();
            assert!(told.contains("1 passed"), "{told}");
        }
        Ok(output) if String::from_utf8_lossy(&output.stderr).contains("unshare") => {
            eprintln!("no mount namespaces here: {}", String::from_utf8_lossy(&output.stderr));
        }
        other => panic!("{other:?}"),
    }
}

/// Not a test of its own: what runs where the folder is mounted read-only.
#[test]
fn child_that_reads() {
    let Ok(folder) = std::env::var(FOLDER_OF_CHILD) else { return };
    let probe = std::fs::write(Path::new(&folder).join("probe"), "x");
    assert_eq!(probe.unwrap_err().kind(), std::io::ErrorKind::ReadOnlyFilesystem);
    assert_eq!(count(Path::new(&folder)), 100);
}
