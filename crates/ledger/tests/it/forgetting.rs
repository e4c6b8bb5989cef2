//! Forgetting a key leaves no trace of it, and keeps the verdicts.

use crate::data::{NOON, batch, body, decisions, encoded, partition, settings, usual};
use recount_ledger::{
    DecisionFilter, Forgotten, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger,
};
use recount_model::{KeptBody, Timestamp};
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;
const KEY: &str = "1000003";

/// Bodies name the key, so that a search of the raw files would find one that stayed.
fn telling_body(offset: u64) -> KeptBody {
    KeptBody { payload: format!("payload with {KEY}").into_bytes(), ..body(offset) }
}

fn raw_files_hold(folder: &Path, needle: &str) -> Vec<String> {
    let holds = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        bytes.windows(needle.len()).any(|window| window == needle.as_bytes())
    };
    let paths = std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    paths.filter(|path| holds(path)).map(|path| path.display().to_string()).collect()
}

#[test]
fn a_forgotten_key_is_gone_and_its_verdicts_and_positions_stay() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let hourly = LedgerSettings { segment_age_ms_max: HOUR_MS as u64, ..settings() };
    let mut ledger = SqliteLedger::open(folder.path(), hourly).unwrap();
    let with_body = |seq: u64, offsets: std::ops::Range<u64>| {
        let mut record = batch(&at, seq, offsets);
        record.bodies.iter_mut().filter(|b| b.offset % 100 == 3).for_each(|b| *b = telling_body(b.offset));
        encoded(record)
    };
    ledger.append(&[with_body(1, 0..500)], Timestamp(NOON)).unwrap();
    (0..5).for_each(|_| ledger.maintain(Timestamp(NOON + HOUR_MS)).unwrap());
    ledger.append(&[with_body(2, 500..1000)], Timestamp(NOON + HOUR_MS)).unwrap();
    assert!(folder.path().join("segment-000001-sealed.db").exists());
    assert_eq!(raw_files_hold(folder.path(), KEY).len(), 2, "the sealed one, and the open one's log");
    let forgotten = ledger.forget(Some(&at.flow), KEY, "asked by mail").unwrap();
    assert_eq!(forgotten, Forgotten { decisions: 10, bodies: 10 });
    let by_key = DecisionFilter { key: Some(KEY.into()), ..DecisionFilter::default() };
    assert!(decisions(folder.path(), &by_key).is_empty());
    let all = decisions(folder.path(), &DecisionFilter::default());
    assert_eq!(all.len(), 1000);
    for stored in &all {
        let before = usual(stored.decision.offset);
        let is_forgotten = before.key.as_deref() == Some(KEY);
        assert_eq!(stored.decision.fate.word(), before.fate.word());
        assert_eq!(stored.decision.payload_hash, before.payload_hash);
        assert_eq!(stored.decision.key.is_none() && stored.decision.event_id.is_none(), is_forgotten);
        assert!(is_forgotten || stored.decision == before);
    }
    let verified = LedgerReader::open(folder.path()).unwrap().verify().unwrap();
    assert_eq!((verified.decisions, verified.forgotten), (1000, 10));
    assert_eq!(LedgerReader::open(folder.path()).unwrap().body(&at, 3).unwrap(), None);
    assert_eq!(raw_files_hold(folder.path(), KEY), [""; 0], "nothing of it in any file");
    assert_eq!(ledger.forget(None, KEY, "again").unwrap(), Forgotten::default());
    let journal = LedgerReader::open(folder.path()).unwrap().journal(None).unwrap();
    let ended = &journal[1].1;
    assert_eq!((ended.what.as_str(), &ended.detail["bodies"]), ("forgotten", &serde_json::json!(10)));
    ledger.append(&[encoded(batch(&at, 3, 1000..1100))], Timestamp(NOON)).unwrap();
    drop(ledger);
    crate::data::open(folder.path());
}
