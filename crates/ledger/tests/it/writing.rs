//! What was appended is found again by every question.

use crate::data::{
    NOON, all_of, applied, batch, body, code, correction, decisions, encoded, offsets, open, partition,
    settings, usual,
};
use recount_ledger::{
    DecisionFilter, IdentitySum, JournalEntry, JournalKind, LedgerError, LedgerId, LedgerRead, LedgerReader,
    LedgerStore, SqliteLedger, StoredConfig, identity_hash, running_instance,
};
use recount_model::{BatchRecord, ConfigVersion, Decision, Fate, Gap, GapKind, Reason, Timestamp, reason};
use std::ops::ControlFlow;
use std::os::unix::fs::PermissionsExt;

fn everything() -> DecisionFilter {
    DecisionFilter { superseded: true, ..DecisionFilter::default() }
}

#[test]
fn what_was_appended_is_read_back_by_every_question() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("orders.ndjson");
    let mut ledger = open(folder.path());
    let batches: Vec<_> = (0..4).map(|n| encoded(batch(&at, n + 1, n * 500..n * 500 + 500))).collect();
    ledger.append(&batches, Timestamp(NOON)).unwrap();
    let all = decisions(folder.path(), &everything());
    assert_eq!(
        all.iter().map(|s| s.decision.clone()).collect::<Vec<_>>(),
        (0..2000).map(usual).collect::<Vec<_>>()
    );
    assert!(all.iter().all(|s| s.current && s.header.at == at));
    let by = |filter: DecisionFilter| offsets(&decisions(folder.path(), &filter));
    let expected = |holds: &dyn Fn(&Decision) -> bool| -> Vec<u64> {
        (0..2000).map(usual).filter(|d| holds(d)).map(|d| d.offset).collect()
    };
    let key = || Some("1000042".to_owned());
    assert_eq!(
        by(DecisionFilter { key: key(), ..everything() }),
        expected(&|d| d.key.as_deref() == Some("1000042"))
    );
    let id = applied(777).event_id.unwrap().to_string();
    assert_eq!(by(DecisionFilter { event_id: Some(id.clone()), ..everything() }), [777]);
    assert_eq!(by(DecisionFilter { event_id: Some(id), key: key(), ..everything() }), [0_u64; 0]);
    assert_eq!(by(DecisionFilter { reason: Some(code("unknown_sku")), ..everything() }).len(), 40);
    assert_eq!(
        by(DecisionFilter { reason: Some(code("bulk_order")), ..everything() }),
        expected(&|d| !d.flags.is_empty())
    );
    let skipped = DecisionFilter { verdict: Some("skipped".into()), ..everything() };
    assert_eq!(by(skipped), expected(&|d| d.fate.word() == "skipped"));
    let range = DecisionFilter { offset_from: Some(498), offset_to: Some(503), ..everything() };
    assert_eq!(by(range), [498, 499, 500, 501, 502]);
    let third = Timestamp(NOON + 3007);
    let time = DecisionFilter { from: Some(third), to: Some(Timestamp(third.0 + 1)), ..everything() };
    assert_eq!(by(time), (1000..1500).collect::<Vec<u64>>());
    let reader = LedgerReader::open(folder.path()).unwrap();
    assert_eq!(reader.body(&at, 53).unwrap(), Some(body(53)));
    assert_eq!(reader.body(&at, 54).unwrap(), None);
    assert_eq!(reader.current(&at, 53).unwrap(), Some((1, usual(53))));
    assert_eq!(reader.current(&at, 1777).unwrap(), Some((4, usual(1777))));
    assert_eq!(reader.current(&at, 2000).unwrap(), None);
}

#[test]
fn a_visitor_may_stop_and_may_ask_again() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    let reader = LedgerReader::open(folder.path()).unwrap();
    let mut seen = 0;
    reader
        .decisions(&everything(), &mut |stored| {
            assert!(reader.mark(&stored.header.at).unwrap().is_some());
            seen += 1;
            if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })
        .unwrap();
    assert_eq!(seen, 3);
}

#[test]
fn the_same_batch_again_changes_nothing_and_another_of_its_seq_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    let first = encoded(batch(&at, 1, 0..100));
    ledger.append(std::slice::from_ref(&first), Timestamp(NOON)).unwrap();
    ledger.append(&[first.clone(), encoded(batch(&at, 2, 100..200)), first], Timestamp(NOON)).unwrap();
    assert_eq!(decisions(folder.path(), &everything()).len(), 200);
    let error = ledger.append(&[encoded(batch(&at, 2, 100..150))], Timestamp(NOON)).unwrap_err();
    assert!(error.to_string().contains("is there already and is another one"), "{error}");
}

fn refused(record: recount_model::BatchRecord, expected: &str) {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    let error = ledger.append(&[encoded(record)], Timestamp(NOON)).unwrap_err();
    assert!(matches!(error, LedgerError::Corrupt(_)) && error.to_string().contains(expected), "{error}");
    let after = ledger.append(&[encoded(batch(&at, 2, 100..200))], Timestamp(NOON)).unwrap_err();
    assert!(matches!(after, LedgerError::Poisoned(_)), "{after}");
    drop(ledger);
    let mut again = open(folder.path());
    assert_eq!(again.mark(&at).unwrap().unwrap().seq, 1, "nothing of it may be there");
    again.append(&[encoded(batch(&at, 2, 100..200))], Timestamp(NOON)).unwrap();
}

#[test]
fn what_must_not_be_is_refused_and_poisons_until_a_restart() {
    let at = partition("0");
    let next = || batch(&at, 2, 100..200);
    refused(batch(&at, 3, 100..200), "3 would leave a gap");
    refused(batch(&at, 2, 99..200), "offset 99 was decided before");
    let mut beyond = next();
    beyond.next_offset = 150;
    refused(beyond, "offset 150 is decided, and not among");
    let mut back = next();
    back.next_offset = 50;
    refused(back, "its prefix goes from 100 to 50");
    let mut twice = next();
    twice.decisions[7].offset = 100;
    refused(twice, "offset 100 is decided twice");
    let mut gap = next();
    gap.gaps = vec![Gap { from: 300, to: 310, kind: GapKind::Lost, cause: "retention".into() }];
    refused(gap, "the gap 300..310");
    refused(correction(&at, 2, 150, 1, 200), "offset 150 was not decided");
    refused(correction(&at, 2, 50, 2, 100), "corrects batch 2, which is not earlier");
}

#[test]
fn a_seq_may_leave_some_out_only_where_unrecorded_positions_are_declared() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    let mut adopted = batch(&at, 7, 0..0);
    adopted.next_offset = 500;
    adopted.gaps = vec![Gap { from: 0, to: 500, kind: GapKind::Unrecorded, cause: "adopted".into() }];
    ledger.append(&[encoded(adopted.clone()), encoded(batch(&at, 8, 500..600))], Timestamp(NOON)).unwrap();
    let mut gaps = Vec::new();
    LedgerReader::open(folder.path())
        .unwrap()
        .batches(None, &mut |b| {
            gaps.extend(b.gaps.clone());
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(gaps, adopted.gaps);
}

#[test]
fn exactly_one_decision_of_a_position_is_current() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    assert!(ledger.recent(&at, 200).unwrap().iter().any(|e| e.offset == 3 && e.dead_lettered));
    ledger.append(&[encoded(correction(&at, 2, 3, 1, 100))], Timestamp(NOON)).unwrap();
    let of_three = |superseded| {
        let filter =
            DecisionFilter { offset_from: Some(3), offset_to: Some(4), superseded, ..Default::default() };
        decisions(folder.path(), &filter)
            .iter()
            .map(|s| (s.header.seq, s.decision.fate.word(), s.current))
            .collect::<Vec<_>>()
    };
    assert_eq!(of_three(true), [(1, "dead-lettered", false), (2, "applied", true)]);
    assert_eq!(of_three(false), [(2, "applied", true)]);
    assert_eq!(ledger.current(&at, 3).unwrap().unwrap().0, 2);
    let recent = ledger.recent(&at, 200).unwrap();
    assert_eq!(recent.iter().filter(|e| e.offset == 3).map(|e| e.dead_lettered).collect::<Vec<_>>(), [false]);
    assert_eq!(recent.len(), 100);
    drop(ledger);
    assert_eq!(open(folder.path()).current(&at, 3).unwrap().unwrap().0, 2);
}

#[test]
fn held_events_may_be_decided_later_and_are_found_by_offset() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    let mut first = batch(&at, 1, 0..100);
    first.decisions.retain(|d| d.offset != 40);
    first.next_offset = 40;
    first.decided_above.insert_range(41, 100);
    let mut second = batch(&at, 2, 100..200);
    second.decisions.insert(0, applied(40));
    ledger.append(&[encoded(first), encoded(second)], Timestamp(NOON)).unwrap();
    for (offset, seq) in [(39, 1), (40, 2), (41, 1), (99, 1), (100, 2), (150, 2)] {
        assert_eq!(ledger.current(&at, offset).unwrap().map(|(seq, d)| (seq, d.offset)), Some((seq, offset)));
    }
    assert_eq!(ledger.mark(&at).unwrap().unwrap().next_offset, 200);
}

#[test]
fn partitions_are_kept_apart_and_ordered_together() {
    let folder = tempfile::tempdir().unwrap();
    let (a, b) = (partition("a"), partition("b"));
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&b, 1, 0..10)), encoded(batch(&a, 1, 0..20))], Timestamp(NOON)).unwrap();
    ledger.append(&[encoded(batch(&b, 2, 10..30))], Timestamp(NOON)).unwrap();
    let flow = b.flow.clone();
    assert_eq!(ledger.partitions(&flow).unwrap(), [b.clone(), a.clone()]);
    let reader = LedgerReader::open(folder.path()).unwrap();
    let mut order = Vec::new();
    reader
        .batches(Some(&flow), &mut |batch| {
            order.push((batch.header.at.partition.to_string(), batch.header.seq, batch.header.ordinal));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(order, [("b".into(), 1, 1), ("a".into(), 1, 2), ("b".into(), 2, 3)]);
    let of_b = DecisionFilter { partition: Some("b".into()), ..everything() };
    assert_eq!(all_of(&reader, &of_b).len(), 30);
    assert_eq!(reader.mark(&b).unwrap().unwrap().next_offset, 30);
}

#[test]
fn identity_sums_are_those_of_the_decisions_and_need_no_decoding() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    let reader = LedgerReader::open(folder.path()).unwrap();
    let mut stored = IdentitySum::default();
    reader
        .batches_with_identity(None, &mut |_, sum| {
            stored.add(sum);
            ControlFlow::Continue(())
        })
        .unwrap();
    let mut computed = IdentitySum::default();
    for offset in (0..100).rev() {
        let id = applied(offset).event_id;
        computed.add(identity_hash(reader.identity_key(), &at, offset, id.as_deref()));
    }
    assert_eq!(stored, computed);
    assert_eq!(reader.identity_key(), ledger.identity_key());
    let pinned = identity_hash(&[7; 32], &at, 5, Some("31198570044-1095275"));
    let mut input = at.source.as_str().as_bytes().to_vec();
    input.extend_from_slice(b"\x000\x00\x05\x00\x00\x00\x00\x00\x00\x0031198570044-1095275");
    let expected = blake3::keyed_hash(&[7; 32], &input).as_bytes()[..16].try_into().unwrap();
    assert_eq!(pinned, u128::from_le_bytes(expected));
}

#[test]
fn keys_are_exhausted_until_somebody_resumes_the_flow_or_their_event_is_decided_anew() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    let exhausted = |seq: u64, offset: u64| {
        let fate = Fate::DeadLettered(Reason::new(reason::RETRIES_EXHAUSTED, "attempt 3 of 3"));
        let decision = Decision { fate, key: Some(format!("key-{offset}").into()), ..applied(offset) };
        BatchRecord { decisions: vec![decision], bodies: Vec::new(), ..batch(&at, seq, offset..offset + 1) }
    };
    let keys = |ledger: &mut SqliteLedger| ledger.keys_exhausted(&partition("0")).unwrap().join(" ");
    assert_eq!(keys(&mut ledger), "");
    for (seq, offset) in [(1, 0), (2, 1), (3, 2)] {
        ledger.append(&[encoded(exhausted(seq, offset))], Timestamp(NOON)).unwrap();
    }
    assert_eq!(keys(&mut ledger), "key-0 key-1 key-2");
    ledger.append(&[encoded(correction(&at, 4, 1, 2, 3))], Timestamp(NOON)).unwrap();
    assert_eq!(keys(&mut ledger), "key-0 key-2");
    let resumed = JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(at.flow.clone()),
        what: "resumed".to_owned(),
        at: Timestamp(NOON + 3000),
        persisted_at: Timestamp(0),
        detail: serde_json::json!({}),
    };
    ledger.journal(&resumed).unwrap();
    assert_eq!(keys(&mut ledger), "key-2", "decided after the resume");
}

#[test]
fn one_process_has_the_folder_and_the_others_are_told_which() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("deep/recount-data");
    let ledger = open(&path);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o700);
    assert_eq!(running_instance(&path), None);
    ledger.announce("http://127.0.0.1:8080").unwrap();
    assert_eq!(running_instance(&path).as_deref(), Some("http://127.0.0.1:8080"));
    let error = SqliteLedger::open(&path, settings()).unwrap_err();
    let holder = format!("{} at http://127.0.0.1:8080", std::process::id());
    assert!(matches!(&error, LedgerError::Locked { holder: h, .. } if *h == holder), "{error}");
    drop(ledger);
    assert_eq!(running_instance(&path), None);
    assert!(!path.join("address").exists());
    open(&path);
    let missing = LedgerReader::open(folder.path()).unwrap_err();
    assert!(matches!(missing, LedgerError::Missing(_)), "{missing}");
}

#[test]
fn the_journal_and_config_versions_are_kept() {
    let folder = tempfile::tempdir().unwrap();
    let mut ledger = open(folder.path());
    let config = |hash: &str, author: &str| StoredConfig {
        version: ConfigVersion(0),
        hash: hash.into(),
        text: "[flow.x]".into(),
        files: vec![("x.schema.json".into(), "{}".into())],
        author: author.into(),
        revision: "unknown".into(),
        since: Timestamp(NOON),
    };
    let versions: Vec<u32> = [("a", "ann"), ("a", "ann"), ("b", "ann"), ("a", "ann"), ("a", "bob")]
        .iter()
        .map(|(hash, author)| ledger.config(&config(hash, author)).unwrap().0)
        .collect();
    assert_eq!(versions, [1, 1, 2, 3, 4]);
    let flow = partition("0").flow;
    let entry = JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(flow.clone()),
        what: "paused".into(),
        at: Timestamp(5),
        persisted_at: Timestamp(0),
        detail: serde_json::json!({ "because": "deploying" }),
    };
    let ordinal = ledger.journal(&entry).unwrap();
    let id = ledger.id();
    drop(ledger);
    let reader = LedgerReader::open(folder.path()).unwrap();
    assert_eq!(reader.id(), id);
    assert_ne!(id, LedgerId(String::new()));
    let configs = reader.configs().unwrap();
    assert_eq!(configs.len(), 4);
    assert_eq!(configs[2], StoredConfig { version: ConfigVersion(3), ..config("a", "ann") });
    let journal = reader.journal(Some(&flow)).unwrap();
    assert_eq!(journal.last().unwrap(), &(ordinal, JournalEntry { persisted_at: Timestamp(NOON), ..entry }));
    let other = recount_model::FlowName::new("other").unwrap();
    assert!(reader.journal(Some(&other)).unwrap().iter().all(|(_, e)| e.kind == JournalKind::Config));
}

#[test]
fn plain_sql_reads_runs_and_what_was_not_applied() {
    let folder = tempfile::tempdir().unwrap();
    let at = partition("0");
    let mut ledger = open(folder.path());
    ledger.append(&[encoded(batch(&at, 1, 0..100))], Timestamp(NOON)).unwrap();
    let plain = rusqlite::Connection::open(folder.path().join("segment-000001.db")).unwrap();
    let sql = "SELECT group_concat(partition || ' ' || verdict || ' ' || reason || ' ' || offset || ' ' || key, ';') \
               FROM (SELECT * FROM decisions_not_applied ORDER BY offset LIMIT 2)";
    let told: String = plain.query_row(sql, [], |row| row.get(0)).unwrap();
    assert_eq!(told, "0 skipped zero_quantity 0 1000000;0 dead-lettered unknown_sku 3 1000003");
    let sql = "SELECT sum(events), count(*) FROM runs WHERE verdict = 'applied'";
    let (events, runs): (i64, i64) = plain.query_row(sql, [], |row| Ok((row.get(0)?, row.get(1)?))).unwrap();
    assert_eq!(events, 93);
    assert!(runs >= 7);
}
