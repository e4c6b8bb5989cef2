//! The same story from a ledger on disk.

use crate::stories::an_eventful_key;
use recount_ledger::{EncodedBatch, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger, codec};
use recount_story::{LetterFilter, Secrets, StoryOptions, dead_letters, render, show, story};

#[test]
fn a_ledger_on_disk_tells_what_one_in_memory_tells() {
    let folder = tempfile::tempdir().unwrap();
    let mut told = an_eventful_key();
    let mut ledger = SqliteLedger::open(folder.path(), LedgerSettings::default()).unwrap();
    for config in &told.ledger.configs {
        ledger.config(config).unwrap();
    }
    for entry in &told.ledger.journal {
        ledger.journal(entry).unwrap();
    }
    for record in &told.ledger.batches {
        let batch = EncodedBatch { record: record.clone().into(), bytes: codec::encode(record).into() };
        ledger.append(&[batch], record.decided_at).unwrap();
    }
    drop(ledger);
    let reader = LedgerReader::open(folder.path()).unwrap();
    let options = StoryOptions::default();
    for asked in ["1095275", "o-3", "reserve-stock/orders/2"] {
        let on_disk = render::text(&story(&reader, asked, &options).unwrap());
        assert_eq!(on_disk, render::text(&story(&told.ledger, asked, &options).unwrap()));
    }
    let (filter, secrets) = (LetterFilter::default(), Secrets::default());
    let letters = dead_letters(&reader, &filter, &secrets).unwrap().text();
    assert_eq!(letters, dead_letters(&told.ledger, &filter, &secrets).unwrap().text());
    let letter = show(&reader, "o-2", &secrets).unwrap().unwrap();
    assert_eq!(letter.text(), show(&told.ledger, "o-2", &secrets).unwrap().unwrap().text());
    told.ledger.batches.clear();
    assert!(story(&told.ledger, "1095275", &options).unwrap().is_empty());
}
