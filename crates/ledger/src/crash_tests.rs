//! A crash between any two steps of closing, sealing and dropping leaves one authority.

use crate::data::{NOON, all_of, batch, correction, encoded, partition, settings};
use crate::{
    DecisionFilter, LedgerError, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger,
    StoredDecision,
};
use recount_model::Timestamp;
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;

fn hourly() -> LedgerSettings {
    LedgerSettings { segment_age_ms_max: HOUR_MS as u64, ..settings() }
}

/// The folder as a crash at this instant leaves it: without shared memory, all else as it is.
fn crashed(folder: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(folder).unwrap() {
        let entry = entry.unwrap();
        if !entry.file_name().to_string_lossy().ends_with("-shm") {
            std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
        }
    }
    copy
}

fn answer(folder: &Path) -> Vec<StoredDecision> {
    let reader = LedgerReader::open(folder).unwrap();
    all_of(&reader, &DecisionFilter { superseded: true, ..DecisionFilter::default() })
}

struct Steps {
    folder: tempfile::TempDir,
    expected: Vec<StoredDecision>,
}

impl Steps {
    /// Crashes now: readers see the same as before, and so does the next writer, which goes on to the end.
    fn crash_here(&self, step: &str) {
        let copy = crashed(self.folder.path());
        assert_eq!(answer(copy.path()), self.expected, "read after a crash after: {step}");
        let mut ledger = SqliteLedger::open(copy.path(), hourly()).unwrap();
        let at = partition("a");
        assert_eq!(ledger.mark(&at).unwrap().unwrap().seq, 8, "{step}");
        assert_eq!(answer(copy.path()), self.expected, "after a restart after: {step}");
        ledger.append(&[encoded(batch(&at, 9, 2100..2200))], Timestamp(NOON + HOUR_MS)).unwrap();
        (0..9).for_each(|_| ledger.maintain(Timestamp(NOON + 2 * HOUR_MS)).unwrap());
        let mut names: Vec<String> = std::fs::read_dir(copy.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| name.starts_with("segment-") && name.ends_with(".db"))
            .collect();
        names.sort();
        let sealed = names.iter().filter(|name| name.ends_with("-sealed.db")).count();
        assert_eq!(names.len(), sealed + 1, "{step}: {names:?}");
        let all = answer(copy.path());
        assert_eq!(all[..self.expected.len()], self.expected, "{step}");
        assert_eq!(all.len(), self.expected.len() + 100, "{step}");
        assert!(LedgerReader::open(copy.path()).unwrap().body(&at, 2153).unwrap().is_some(), "{step}");
    }
}

#[test]
fn a_crash_between_any_two_steps_leaves_one_authority() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    for n in 0..7 {
        ledger.append(&[encoded(batch(&at, n + 1, n * 300..n * 300 + 300))], Timestamp(NOON)).unwrap();
    }
    ledger.append(&[encoded(correction(&at, 8, 3, 1, 2100))], Timestamp(NOON)).unwrap();
    let steps = Steps { expected: answer(folder.path()), folder };
    let opener = ledger.shelf.opener.clone();
    steps.crash_here("nothing");
    crate::birth::make_segment(&opener, &ledger.settings, 2, &ledger.id.0).unwrap();
    steps.crash_here("the next segment's file");
    ledger.close_segment().unwrap();
    steps.crash_here("closing");
    assert!(ledger.begin_sealing().unwrap());
    steps.crash_here("making the sealed file");
    let mut stripes = 0;
    while ledger.seal_stripe().unwrap() > 0 {
        stripes += 1;
        steps.crash_here("a stripe");
    }
    assert_eq!(stripes, 2);
    ledger.finish_sealing().unwrap();
    steps.crash_here("naming the sealed file");
    ledger.maintain(Timestamp(NOON)).unwrap();
    assert!(!steps.folder.path().join("segment-000001.db").exists());
    steps.crash_here("removing the old file");
}

#[test]
fn a_crash_around_dropping_keeps_what_must_stay() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    ledger.append(&[encoded(batch(&at, 1, 0..200))], Timestamp(NOON)).unwrap();
    (0..5).for_each(|_| ledger.maintain(Timestamp(NOON + HOUR_MS)).unwrap());
    ledger.drop_oldest().unwrap();
    let check = |step: &str| {
        let copy = crashed(folder.path());
        let mut again = SqliteLedger::open(copy.path(), hourly()).unwrap();
        assert!(!copy.path().join("segment-000001-sealed.db").exists(), "{step}");
        let offsets: Vec<u64> = answer(copy.path()).iter().map(|s| s.decision.offset).collect();
        assert_eq!(offsets, [3, 53, 103, 153], "{step}");
        assert_eq!(again.mark(&at).unwrap().unwrap().next_offset, 200, "{step}");
        again.append(&[encoded(batch(&at, 2, 200..300))], Timestamp(NOON)).unwrap();
    };
    check("the catalog's transaction");
    ledger.maintain(Timestamp(NOON)).unwrap();
    check("removing the file");
}

#[test]
fn a_full_disk_is_unwritable_and_poisons_until_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    let (_, open) = ledger.open_segment().unwrap();
    let pages: i64 = open.query_row("PRAGMA page_count", [], |row| row.get(0)).unwrap();
    open.query_row(&format!("PRAGMA max_page_count = {pages}"), [], |_| Ok(())).unwrap();
    let next = || [encoded(batch(&at, 2, 100..600))];
    let error = ledger.append(&next(), Timestamp(NOON)).unwrap_err();
    assert!(matches!(&error, LedgerError::Unwritable(why) if why.contains("full")), "{error}");
    let (_, open) = ledger.open_segment().unwrap();
    open.query_row("PRAGMA max_page_count = 1000000", [], |_| Ok(())).unwrap();
    for error in
        [ledger.append(&next(), Timestamp(NOON)).unwrap_err(), ledger.maintain(Timestamp(NOON)).unwrap_err()]
    {
        assert!(matches!(&error, LedgerError::Poisoned(why) if why.contains("full")), "{error}");
    }
    drop(ledger);
    let mut again = SqliteLedger::open(folder.path(), hourly()).unwrap();
    again.append(&next(), Timestamp(NOON)).unwrap();
    assert_eq!(answer(folder.path()).len(), 600);
}

/// `unix-none` has neither locks nor shared memory: the least that a simulator's VFS may offer.
#[test]
fn it_runs_over_another_vfs_without_shared_memory() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let settings = LedgerSettings { vfs: Some("unix-none".into()), exclusive: true, ..hourly() };
    let mut ledger = SqliteLedger::open(folder.path(), settings.clone()).unwrap();
    for n in 0..7 {
        ledger.append(&[encoded(batch(&at, n + 1, n * 300..n * 300 + 300))], Timestamp(NOON)).unwrap();
    }
    (0..9).for_each(|_| ledger.maintain(Timestamp(NOON + HOUR_MS)).unwrap());
    assert!(folder.path().join("segment-000001-sealed.db").exists());
    assert_eq!(ledger.current(&at, 777).unwrap().unwrap().0, 3);
    ledger.forget(None, "1000042", "asked").unwrap();
    drop(ledger);
    assert!(!folder.path().join("segment-000002.db-shm").exists());
    let reader = LedgerReader::open_with(folder.path(), &settings).unwrap();
    assert_eq!(all_of(&reader, &DecisionFilter::default()).len(), 2100);
    let mut again = SqliteLedger::open(folder.path(), settings).unwrap();
    assert_eq!(again.mark(&at).unwrap().unwrap().seq, 7);
    again.append(&[encoded(batch(&at, 8, 2100..2200))], Timestamp(NOON)).unwrap();
}
