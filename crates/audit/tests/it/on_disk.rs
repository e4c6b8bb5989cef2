//! The same audit over a ledger on disk, whole and damaged.

use crate::world::{SHORT, World};
use crate::wrong_worlds::told_of;
use expect_test::{Expect, expect};
use recount_audit::{books, render};
use recount_ledger::{EncodedBatch, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger, codec};
use recount_model::{Fate, Reason, Timestamp};
use std::path::Path;

const HOUR_MS: u64 = 3_600_000;

/// Writes the world's batches; the ledger's id goes into the world's position rows.
fn write(world: &mut World, folder: &Path, settings: LedgerSettings) -> SqliteLedger {
    let mut ledger = SqliteLedger::open(folder, settings).unwrap();
    for record in &world.ledger.batches {
        let bytes = codec::encode(record).into();
        let batch = EncodedBatch { record: record.clone().into(), bytes };
        ledger.append(&[batch], record.decided_at).unwrap();
    }
    world.database.rows[0].ledger_id = ledger.id().0;
    ledger
}

fn a_world_with_replays() -> World {
    let mut world = World::new(100);
    world.replay(10, Fate::Applied);
    world.replay(21, Fate::DeadLettered(Reason::new(SHORT, "still")));
    world.replay(21, Fate::Applied);
    world
}

fn check(damage: &str, expected: Expect) {
    let folder = tempfile::tempdir().unwrap();
    let mut world = a_world_with_replays();
    drop(write(&mut world, folder.path(), LedgerSettings::default()));
    let file = rusqlite::Connection::open(folder.path().join("segment-000001.db")).unwrap();
    file.execute_batch(damage).unwrap();
    let report = world.audit_of(&LedgerReader::open(folder.path()).unwrap());
    expected.assert_eq(&told_of(&report));
}

#[test]
fn a_ledger_on_disk_is_counted_like_one_in_memory() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = a_world_with_replays();
    drop(write(&mut world, folder.path(), LedgerSettings::default()));
    let reader = LedgerReader::open(folder.path()).unwrap();
    let on_disk = world.audit_of(&reader);
    assert_eq!(on_disk.exit_code(), 0, "{}", render::text(&on_disk));
    world.database.rows[0].ledger_id = "ledger-1".into();
    assert_eq!(on_disk.json(), world.audit().json());
    assert_eq!(books(&reader, &world.at.flow).unwrap(), books(&world.ledger, &world.at.flow).unwrap());
}

#[test]
fn what_was_deleted_from_the_ledgers_files_is_named() {
    check(
        "DELETE FROM decision WHERE offset = 32",
        expect![[r#"
        exit 1
        E1 counted imbalanced
           ledger_corrupt 1: segment-000001.db: the row of the decision at reserve-stock/orders/32 is missing
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
    check(
        "DELETE FROM run WHERE ordinal = 4 AND offset_from = 32",
        expect![[r#"
        exit 1
        E1 counted imbalanced
           ledger_corrupt 1: segment-000001.db: batch 4 of reserve-stock/orders, offsets 30..40: its runs hold 9 decisions, its row says 10; no run holds reserve-stock/orders/32
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut balanced"#]],
    );
    check(
        "DELETE FROM run WHERE ordinal = 4; DELETE FROM batch WHERE ordinal = 4",
        expect![[r#"
        exit 1
        E1 counted imbalanced
           positions_missing 10: reserve-stock/orders/30-39
           ledger_corrupt 2: segment-000001.db: reserve-stock/orders: batch 5, from offset 40 on, follows batch 3: batches between are missing, segment-000001.db: batch with ordinal 4 is missing
           ledger_corrupt 1: reserve-stock/orders batches 4 to 4
        E1 identified imbalanced
           positions_missing 10: reserve-stock/orders/30 (id o-30), reserve-stock/orders/31 (id o-31), reserve-stock/orders/32 (id o-32), reserve-stock/orders/33 (id o-33), reserve-stock/orders/34 (id o-34)
        E2 counted imbalanced
           effects_without_decision 8: reserve-stock/orders/30, reserve-stock/orders/31, reserve-stock/orders/33, reserve-stock/orders/35, reserve-stock/orders/36
        E3 summed to one cut imbalanced
           reconcile_differs 3: sku-0: +12 (database 79, events 67), sku-1: +5 (database 81, events 76), sku-2: +5 (database 80, events 75)"#]],
    );
    check(
        "DELETE FROM block WHERE block_no = 4",
        expect![[r#"
        exit 1
        E1 counted imbalanced
           ledger_corrupt 1: segment-000001.db: batch 4 of reserve-stock/orders, offsets 30..40: its decisions are missing
        E2 not counted unprovable"#]],
    );
    let consistent = "DELETE FROM run WHERE ordinal = 4 AND offset_from = 32; \
                      DELETE FROM decision WHERE offset = 32; \
                      UPDATE batch SET decisions = decisions - 1, decision_rows = decision_rows - 1 \
                      WHERE ordinal = 4";
    check(
        consistent,
        expect![[r#"
        exit 1
        E1 counted imbalanced
           positions_missing 1: reserve-stock/orders/32
           ledger_corrupt 1: segment-000001.db: batch 4 of reserve-stock/orders, offsets 30..40: it does not hold as many decisions as its row says
        E2 not counted unprovable"#]],
    );
}

#[test]
fn what_left_with_retention_is_still_counted_and_never_called_missing() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(100);
    let settings =
        LedgerSettings { segment_age_ms_max: 1000, keep_ms: Some(HOUR_MS), ..LedgerSettings::default() };
    let mut ledger = write(&mut world, folder.path(), settings);
    (0..40).for_each(|_| ledger.maintain(Timestamp(2 * HOUR_MS as i64)).unwrap());
    drop(ledger);
    let reader = LedgerReader::open(folder.path()).unwrap();
    assert!(reader.books().unwrap().iter().any(|book| book.dropped));
    let report = world.audit_of(&reader);
    expect![[r#"
        exit 3
        E1 counted balanced
        E2 counted balanced
        E3 summed to one cut unprovable"#]]
    .assert_eq(&told_of(&report));
    let sentences: Vec<_> = report.flows[0].statements.iter().map(|s| s.sentence.as_str()).collect();
    expect![[r#"
        each of 100 published positions has a fate; 100 of them left the ledger with retention and are only counted
        0 applied decisions, 0 effects in the database; decisions that left the ledger with retention are not counted on either side
        0 received in 0 events = 237 in the database + 0 insufficient_stock + 0 zero_quantity - 237 unexplained; 100 decisions left the ledger with retention, and their amounts with them"#]].assert_eq(&sentences.join("\n"));
    assert_eq!(report.flows[0].books.counts, world.audit().flows[0].books.counts);
}

#[test]
fn what_was_forgotten_on_request_is_known_by_the_hash_of_its_payload() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::new(100);
    let mut ledger = write(&mut world, folder.path(), LedgerSettings::default());
    assert_eq!(ledger.forget(None, "sku-1", "asked by mail").unwrap().decisions, 33);
    drop(ledger);
    let report = world.audit_of(&LedgerReader::open(folder.path()).unwrap());
    expect![[r#"
        exit 3
        E1 counted balanced
        E1 identified balanced
        E2 counted balanced
        E3 summed to one cut unprovable"#]]
    .assert_eq(&told_of(&report));
    expect!["300 received in 100 events = 237 in the database + 23 insufficient_stock + 40 zero_quantity; 26 decisions name no group: without a key, or forgotten"].assert_eq(&report.flows[0].statements[3].sentence);
    world.source.records[1] = Some(r#"{"id":"o-1","sku":"sku-1","quantity":9}"#.into());
    let report = world.audit_of(&LedgerReader::open(folder.path()).unwrap());
    expect![[r#"
        exit 1
        E1 counted balanced
        E1 identified imbalanced
           position_reused 1: reserve-stock/orders/1 (source (id o-1), ledger (no id))
        E2 counted balanced
        E3 summed to one cut unprovable"#]]
    .assert_eq(&told_of(&report));
}
