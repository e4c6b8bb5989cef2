//! What was damaged on disk is named, never passed over.

use crate::data::{NOON, batch, encoded, open, partition, settings};
use recount_ledger::{
    DecisionFilter, LedgerError, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger,
};
use recount_model::Timestamp;
use std::ops::ControlFlow;
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;

fn ledger_of_two_batches(sealed: bool) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let hourly = LedgerSettings { segment_age_ms_max: HOUR_MS as u64, ..settings() };
    let mut ledger = SqliteLedger::open(folder.path(), hourly).unwrap();
    let batches = [encoded(batch(&at, 1, 0..100)), encoded(batch(&at, 2, 100..200))];
    ledger.append(&batches, Timestamp(NOON)).unwrap();
    if sealed {
        (0..5).for_each(|_| ledger.maintain(Timestamp(NOON + HOUR_MS)).unwrap());
    }
    folder
}

fn spoil(folder: &Path, file: &str, sql: &str) {
    let changed = rusqlite::Connection::open(folder.join(file)).unwrap().execute(sql, []).unwrap();
    assert_eq!(changed, 1, "{sql}");
}

fn read_all(folder: &Path, filter: &DecisionFilter) -> Result<u64, LedgerError> {
    let mut count = 0;
    LedgerReader::open(folder)?.decisions(filter, &mut |_| {
        count += 1;
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

fn read_batches(folder: &Path) -> Result<u64, LedgerError> {
    let mut count = 0;
    LedgerReader::open(folder)?.batches(None, &mut |batch| {
        count += batch.runs.iter().map(|run| run.to - run.from).sum::<u64>();
        ControlFlow::Continue(())
    })?;
    Ok(count)
}

fn says(result: Result<u64, LedgerError>, expected: &[&str]) {
    let error = result.unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt(_)), "{error:?}");
    expected.iter().for_each(|part| assert!(error.to_string().contains(part), "{error}"));
}

#[test]
fn what_was_taken_away_or_changed_is_named() {
    let open_file = "segment-000001.db";
    let dead_letters = DecisionFilter { verdict: Some("dead-lettered".into()), ..DecisionFilter::default() };
    let check = |sql: &str, filter: &DecisionFilter, expected: &[&str]| {
        let folder = ledger_of_two_batches(false);
        spoil(folder.path(), open_file, sql);
        says(read_all(folder.path(), filter), expected);
    };
    let all = DecisionFilter::default();
    check(
        "DELETE FROM block WHERE block_no = 2",
        &all,
        &[open_file, "batch 2 of reserve-stock/0, offsets 100..200", "its decisions are missing"],
    );
    check(
        "UPDATE block SET packed = (SELECT packed FROM block WHERE block_no = 1) WHERE block_no = 2",
        &all,
        &["batch 2", "another batch"],
    );
    check(
        "UPDATE block SET packed = substr(packed, 1, length(packed) - 1) WHERE block_no = 2",
        &all,
        &["batch 2", "it ends early"],
    );
    check(
        "UPDATE block SET packed = CAST(substr(packed, 1, 80) || x'00' || substr(packed, 82) AS BLOB) WHERE block_no = 1",
        &all,
        &["batch 1", "offsets 0..100", "checksum"],
    );
    check("DELETE FROM decision WHERE offset = 53", &dead_letters, &[open_file, "reserve-stock/0/53"]);
}

#[test]
fn a_batch_or_run_that_is_gone_is_named() {
    let check = |sql: &str, expected: &[&str]| {
        let folder = ledger_of_two_batches(false);
        spoil(folder.path(), "segment-000001.db", sql);
        says(read_batches(folder.path()), expected);
    };
    check(
        "DELETE FROM run WHERE ordinal = 1 AND run_no = 0",
        &["batch 1 of reserve-stock/0", "99 decisions"],
    );
    check("DELETE FROM batch WHERE ordinal = 1", &["ordinal 1, which has no batch"]);
    let folder = ledger_of_two_batches(false);
    let plain = rusqlite::Connection::open(folder.path().join("segment-000001.db")).unwrap();
    plain.execute_batch("DELETE FROM batch WHERE ordinal = 1; DELETE FROM run WHERE ordinal = 1").unwrap();
    drop(plain);
    says(read_batches(folder.path()), &["batch 2, from offset 100 on, follows batch 0"]);
}

#[test]
fn a_sealed_block_that_is_gone_or_damaged_is_named() {
    let sealed = "segment-000001-sealed.db";
    let folder = ledger_of_two_batches(true);
    assert_eq!(read_all(folder.path(), &DecisionFilter::default()).unwrap(), 200);
    spoil(folder.path(), sealed, "UPDATE block SET packed = zeroblob(length(packed))");
    says(read_all(folder.path(), &DecisionFilter::default()), &[sealed, "reserve-stock/0", "0..200"]);
    let folder = ledger_of_two_batches(true);
    spoil(folder.path(), sealed, "DELETE FROM block_range");
    says(read_all(folder.path(), &DecisionFilter::default()), &[sealed, "holds 0 decisions and not 200"]);
}

#[test]
fn flipped_bytes_in_the_file_never_pass_for_other_decisions() {
    let folder = ledger_of_two_batches(false);
    drop(open(folder.path()));
    let path = folder.path().join("segment-000001.db");
    let whole = std::fs::read(&path).unwrap();
    let truth: Vec<_> = crate::data::decisions(folder.path(), &DecisionFilter::default());
    let mut found = 0;
    for at in (0..whole.len()).step_by(97) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        std::fs::write(&path, &bytes).unwrap();
        let Ok(reader) = LedgerReader::open(folder.path()) else { continue };
        let mut read = Vec::new();
        let result = reader.decisions(&DecisionFilter::default(), &mut |stored| {
            read.push(stored.decision.clone());
            ControlFlow::Continue(())
        });
        match result {
            Err(_) => found += 1,
            Ok(()) => {
                assert_eq!(read, truth.iter().map(|s| s.decision.clone()).collect::<Vec<_>>(), "byte {at}")
            }
        }
    }
    assert!(found > 20, "{found}");
}

#[test]
fn a_missing_segment_or_catalog_is_no_new_ledger() {
    let folder = ledger_of_two_batches(false);
    let (segment, away) = (folder.path().join("segment-000001.db"), folder.path().join("away"));
    std::fs::rename(&segment, &away).unwrap();
    let error = SqliteLedger::open(folder.path(), settings()).unwrap_err();
    assert!(error.to_string().contains("segment-000001.db is missing"), "{error}");
    std::fs::rename(&away, &segment).unwrap();
    std::fs::remove_file(folder.path().join("catalog.db")).unwrap();
    let error = SqliteLedger::open(folder.path(), settings()).unwrap_err();
    assert!(error.to_string().contains("catalog.db is missing beside segment-000001.db"), "{error}");
}

#[test]
fn a_newer_format_is_refused() {
    let folder = ledger_of_two_batches(false);
    spoil(folder.path(), "catalog.db", "UPDATE ledger SET format = 99");
    let error = SqliteLedger::open(folder.path(), settings()).unwrap_err();
    assert!(matches!(error, LedgerError::TooNew { found: 99, known: 1 }), "{error}");
    assert!(matches!(LedgerReader::open(folder.path()), Err(LedgerError::TooNew { .. })));
}

#[test]
fn verifying_finds_what_single_questions_need_not_see() {
    for sealed in [false, true] {
        let file = if sealed { "segment-000001-sealed.db" } else { "segment-000001.db" };
        let verify = |folder: &Path| LedgerReader::open(folder)?.verify().map(|verified| verified.decisions);
        assert_eq!(verify(ledger_of_two_batches(sealed).path()).unwrap(), 200);
        for (sql, expected) in [
            (
                "UPDATE run SET verdict = 0, reason = NULL WHERE offset_from = 53",
                "what its runs say of 53..54",
            ),
            ("UPDATE decision SET reason = 'other' WHERE offset = 53", "reserve-stock/0/53"),
            ("DELETE FROM decision WHERE offset = 153", "reserve-stock/0/153"),
            ("UPDATE batch SET identity = zeroblob(16) WHERE seq = 2", "offsets 100..200: its identity sum"),
        ] {
            let folder = ledger_of_two_batches(sealed);
            spoil(folder.path(), file, sql);
            says(verify(folder.path()), &[file, expected]);
        }
    }
}
