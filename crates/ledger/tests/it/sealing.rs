//! Sealed and dropped segments, and what stays of them.

use crate::data::{
    NOON, all_of, applied, batch, body, correction, dead, decisions, encoded, offsets, open, partition,
    settings, usual,
};
use recount_ledger::{
    ClosedBook, DecisionFilter, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger,
    StoredDecision,
};
use recount_model::{Gap, GapKind, Timestamp};
use std::ops::ControlFlow;
use std::path::Path;

const HOUR_MS: i64 = 3_600_000;

fn hourly() -> LedgerSettings {
    LedgerSettings { segment_age_ms_max: HOUR_MS as u64, ..settings() }
}

fn everything() -> DecisionFilter {
    DecisionFilter { superseded: true, ..DecisionFilter::default() }
}

/// Two partitions in turn, some 4,000 decisions: several stripes of 1,000.
fn fill(ledger: &mut SqliteLedger) {
    let (a, b) = (partition("a"), partition("b"));
    for n in 0..8 {
        let batches = [
            encoded(batch(&a, n + 1, n * 300..n * 300 + 300)),
            encoded(batch(&b, n + 1, n * 200..n * 200 + 200)),
        ];
        ledger.append(&batches, Timestamp(NOON)).unwrap();
    }
    ledger.append(&[encoded(correction(&a, 9, 3, 1, 2400))], Timestamp(NOON)).unwrap();
}

fn maintain_until_sealed(ledger: &mut SqliteLedger, now: i64) {
    for _ in 0..20 {
        ledger.maintain(Timestamp(now)).unwrap();
    }
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| name.ends_with(".db"))
        .collect();
    names.sort();
    names
}

fn answers(folder: &Path) -> Vec<Vec<StoredDecision>> {
    let reader = LedgerReader::open(folder).unwrap();
    let id = applied(777).event_id.map(Into::into);
    [
        everything(),
        DecisionFilter::default(),
        DecisionFilter { key: Some("1000042".into()), ..everything() },
        DecisionFilter { event_id: id, ..everything() },
        DecisionFilter { verdict: Some("skipped".into()), ..everything() },
        DecisionFilter { reason: Some(crate::data::code("bulk_order")), ..everything() },
        DecisionFilter {
            partition: Some("b".into()),
            offset_from: Some(700),
            offset_to: Some(1100),
            ..everything()
        },
        DecisionFilter {
            from: Some(Timestamp(NOON + 3007)),
            to: Some(Timestamp(NOON + 4008)),
            ..everything()
        },
    ]
    .iter()
    .map(|filter| all_of(&reader, filter))
    .collect()
}

#[test]
fn a_sealed_segment_answers_every_question_as_before() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    fill(&mut ledger);
    let before = answers(folder.path());
    assert_eq!(before[0].len(), 4001);
    let reader_from_before = LedgerReader::open(folder.path()).unwrap();
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS);
    assert_eq!(files(folder.path()), ["catalog.db", "segment-000001-sealed.db", "segment-000002.db"]);
    assert_eq!(answers(folder.path()), before);
    assert_eq!(all_of(&reader_from_before, &everything()), before[0]);
    let a = partition("a");
    assert_eq!(ledger.current(&a, 3).unwrap().unwrap().0, 9);
    assert_eq!(ledger.current(&a, 1234).unwrap(), Some((5, usual(1234))));
    assert_eq!(ledger.recent(&a, 10).unwrap()[1].offset, 2399);
    assert_eq!(ledger.recent(&a, 10_000).unwrap().len(), 2400);
    assert_eq!(reader_from_before.body(&a, 53).unwrap(), Some(body(53)));
    drop(ledger);
    let mut again = SqliteLedger::open(folder.path(), hourly()).unwrap();
    assert_eq!(again.mark(&a).unwrap().unwrap().seq, 9);
    again.append(&[encoded(batch(&a, 10, 2400..2500))], Timestamp(NOON)).unwrap();
    assert_eq!(decisions(folder.path(), &everything()).len(), 4101);
}

#[test]
fn a_story_of_a_sealed_segment_unpacks_few_blocks() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    fill(&mut ledger);
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS);
    let plain = rusqlite::Connection::open(folder.path().join("segment-000001-sealed.db")).unwrap();
    let sql = "SELECT (SELECT count(*) FROM block_range WHERE key_first <= '1000042' AND key_last >= '1000042'), \
               (SELECT count(*) FROM stripe) * (SELECT count(*) FROM partition)";
    let (holding, most): (i64, i64) = plain.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert!(holding <= most, "{holding} blocks hold a key in {most} stripes and partitions");
}

#[test]
fn the_books_of_a_sealed_segment_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = SqliteLedger::open(folder.path(), hourly()).unwrap();
    fill(&mut ledger);
    let mut gap = batch(&partition("a"), 10, 2410..2420);
    gap.gaps = vec![Gap { from: 2400, to: 2410, kind: GapKind::Lost, cause: "retention overtook".into() }];
    ledger.append(&[encoded(gap)], Timestamp(NOON)).unwrap();
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS);
    let reader = LedgerReader::open(folder.path()).unwrap();
    let books = reader.books().unwrap();
    let of_a: &ClosedBook = &books[0];
    assert_eq!((of_a.at.partition.as_str(), of_a.seq_from, of_a.seq_to, of_a.lost), ("a", 1, 10, 10));
    assert_eq!(of_a.covered.to_string(), "0-2419");
    let count = |word: &str, correction| -> u64 {
        of_a.lines
            .iter()
            .filter(|l| l.verdict == word && l.correction == correction)
            .map(|l| l.decisions)
            .sum()
    };
    let usual_of =
        |word: &str| (0..2420).filter(|o| !(2400..2410).contains(o) && usual(*o).fate.word() == word).count();
    for word in ["applied", "skipped", "dead-lettered"] {
        assert_eq!(count(word, false), usual_of(word) as u64, "{word}");
    }
    assert_eq!(count("applied", true), 1);
    let mut sum = 0_u128;
    reader
        .batches_with_identity(None, &mut |stored, identity| {
            sum = if stored.header.at == of_a.at { sum.wrapping_add(identity) } else { sum };
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(of_a.identity, sum);
}

#[test]
fn retention_keeps_unresolved_dead_letters_and_the_books() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let keep_ms = Some(HOUR_MS as u64);
    let mut ledger = SqliteLedger::open(folder.path(), LedgerSettings { keep_ms, ..hourly() }).unwrap();
    ledger.append(&[encoded(batch(&at, 1, 0..200))], Timestamp(NOON)).unwrap();
    ledger.append(&[encoded(correction(&at, 2, 53, 1, 200))], Timestamp(NOON)).unwrap();
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS);
    assert_eq!(decisions(folder.path(), &everything()).len(), 201);
    ledger.append(&[encoded(batch(&at, 3, 200..210))], Timestamp(NOON + HOUR_MS)).unwrap();
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS + 1);
    assert_eq!(files(folder.path()), ["catalog.db", "segment-000002.db"]);
    let left = decisions(folder.path(), &everything());
    let mut expected = vec![3, 103, 153];
    expected.extend(200..210);
    assert_eq!(offsets(&left), expected);
    assert!(left.iter().all(|s| s.current));
    assert_eq!(left[0].decision, dead(3));
    let reader = LedgerReader::open(folder.path()).unwrap();
    assert_eq!(reader.body(&at, 103).unwrap(), Some(body(103)));
    assert_eq!(reader.body(&at, 53).unwrap(), None);
    let dropped: u64 = reader.books().unwrap()[0].lines.iter().map(|line| line.decisions).sum();
    assert_eq!((dropped, reader.books().unwrap()[0].dropped), (201, true));
    let mut seqs = Vec::new();
    reader
        .batches(None, &mut |b| {
            seqs.push(b.header.seq);
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(seqs, [3]);
    let resolved = correction(&at, 4, 3, 1, 210);
    ledger.append(&[encoded(resolved)], Timestamp(NOON + HOUR_MS)).unwrap();
    let three = DecisionFilter { offset_from: Some(3), offset_to: Some(4), ..DecisionFilter::default() };
    assert_eq!(decisions(folder.path(), &three).iter().map(|s| s.header.seq).collect::<Vec<_>>(), [4]);
    assert_eq!(ledger.current(&at, 103).unwrap(), Some((1, dead(103))));
    drop(ledger);
    assert_eq!(open(folder.path()).current(&at, 3).unwrap().unwrap().0, 4);
}

#[test]
fn retention_by_size_drops_the_oldest() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("a");
    let mut ledger =
        SqliteLedger::open(folder.path(), LedgerSettings { keep_bytes: Some(0), ..hourly() }).unwrap();
    ledger.append(&[encoded(batch(&at, 1, 0..3))], Timestamp(NOON)).unwrap();
    maintain_until_sealed(&mut ledger, NOON + HOUR_MS);
    assert_eq!(files(folder.path()), ["catalog.db", "segment-000002.db"]);
    assert_eq!(ledger.mark(&at).unwrap().unwrap().next_offset, 3);
}
