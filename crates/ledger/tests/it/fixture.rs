//! Ledgers that older versions wrote must still open. `tests/fixtures/ledger-v1` was written by the first
//! version: a sealed segment of 200 positions, an open one of 100, a correction and a config.

use crate::data::{NOON, batch, correction, dead, encoded, open, partition, settings, usual};
use recount_ledger::{
    DecisionFilter, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger, StoredConfig,
};
use recount_model::{ConfigVersion, Timestamp};
use std::path::{Path, PathBuf};

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/ledger-v1")
}

/// Run by hand, `cargo test -p recount-ledger -- --ignored write_the_fixture`, when a version has a format of
/// its own; under a new name, since an old fixture never changes.
#[test]
#[ignore = "writes the fixture of this version's format"]
fn write_the_fixture() {
    let folder = fixture();
    assert!(!folder.exists(), "an old fixture never changes");
    let hourly = LedgerSettings { segment_age_ms_max: 3_600_000, ..settings() };
    let mut ledger = SqliteLedger::open(&folder, hourly).unwrap();
    let at = partition("orders.ndjson");
    let config = StoredConfig {
        version: ConfigVersion(0),
        hash: "00ff".into(),
        text: "[flow.reserve-stock]\n".into(),
        files: Vec::new(),
        author: "unknown".into(),
        revision: "unknown".into(),
        since: Timestamp(NOON),
    };
    ledger.config(&config).unwrap();
    ledger.append(&[encoded(batch(&at, 1, 0..200))], Timestamp(NOON)).unwrap();
    (0..5).for_each(|_| ledger.maintain(Timestamp(NOON + 3_600_000)).unwrap());
    let batches = [encoded(batch(&at, 2, 200..300)), encoded(correction(&at, 3, 53, 1, 300))];
    ledger.append(&batches, Timestamp(NOON + 3_600_000)).unwrap();
    drop(ledger);
    std::fs::remove_file(folder.join("lock")).unwrap();
}

#[test]
fn a_ledger_of_the_first_format_still_opens() {
    let copy = tempfile::tempdir().unwrap();
    for entry in std::fs::read_dir(fixture()).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), copy.path().join(entry.file_name())).unwrap();
    }
    let check = || {
        let reader = LedgerReader::open(copy.path()).unwrap();
        let all = crate::data::all_of(&reader, &DecisionFilter { superseded: true, ..Default::default() });
        assert_eq!(all.len(), 301);
        assert_eq!(
            all[..300].iter().map(|s| s.decision.clone()).collect::<Vec<_>>(),
            (0..300).map(usual).collect::<Vec<_>>()
        );
        assert_eq!((all[53].current, all[300].current), (false, true));
        assert_eq!(all[3].decision, dead(3));
        assert_eq!(reader.configs().unwrap().len(), 1);
        assert!(reader.body(&partition("orders.ndjson"), 53).unwrap().is_some());
    };
    check();
    let mut ledger = open(copy.path());
    check();
    let at = partition("orders.ndjson");
    assert_eq!(ledger.mark(&at).unwrap().unwrap().seq, 3);
    ledger.append(&[encoded(batch(&at, 4, 300..310))], Timestamp(NOON)).unwrap();
}
