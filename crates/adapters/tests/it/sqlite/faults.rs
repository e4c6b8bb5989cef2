//! Faults that are the database's: nothing is decided, nothing is left, no event pays for it.

use crate::flow::*;
use recount_adapters::sqlite::SqliteEffect;
use recount_engine::{Effect, EffectFault};
use std::time::Duration;

fn away(result: Result<recount_engine::Committed, EffectFault>) -> String {
    match result {
        Err(EffectFault::Away(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_missing_table_pauses_the_flow_until_it_is_back() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.user.execute_batch("ALTER TABLE stock RENAME TO elsewhere").unwrap();
    let text = away(owner.try_apply(&[shop.order(0, "a", 1)]).await);
    assert!(text.contains("no such table: stock"), "{text}");
    assert_eq!(shop.rows("SELECT seq FROM recount_position"), "0");
    shop.user.execute_batch("ALTER TABLE elsewhere RENAME TO stock").unwrap();
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
}

#[tokio::test]
async fn a_lock_asks_to_try_again() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.user.execute_batch("BEGIN IMMEDIATE").unwrap();
    let busy = owner.try_apply(&[shop.order(0, "a", 1)]).await;
    assert!(matches!(busy, Err(EffectFault::Again(_))), "{busy:?}");
    shop.user.execute_batch("ROLLBACK").unwrap();
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
}

#[tokio::test]
async fn a_full_database_is_nobodys_event() {
    let shop = Shop::with(
        "CREATE TABLE blobs (b BLOB)",
        vec![route(
            vec![statement("INSERT INTO blobs VALUES (zeroblob(:quantity))", 1, 1)],
            &["quantity"],
            vec![],
        )],
        &["quantity"],
    );
    let mut owner = Owner::take(&shop.effect, at()).await;
    // Beyond SQLite's own limit a value is the event's fault.
    let outcomes = owner.apply(&[shop.order(0, "a", 4_000_000_000), shop.order(1, "a", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter statement_failed", "applied"]);
    assert_eq!(evidence(&outcomes[0])["message"], "string or blob too big");
}

#[tokio::test]
async fn a_database_that_was_replaced_is_seen_at_once() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&[shop.order(0, "a", 1)]).await;
    let backup = shop.folder.path().join("backup.db");
    shop.user.execute("VACUUM INTO ?1", [backup.to_str().unwrap()]).unwrap();
    owner.apply(&[shop.order(1, "a", 1)]).await;
    std::fs::rename(&backup, shop.path()).unwrap();
    let stale = owner.try_apply(&[shop.order(2, "a", 1)]).await;
    assert!(matches!(stale, Err(EffectFault::NotMine)), "{stale:?}");
    let row = shop.effect.peek(&at()).await.unwrap().unwrap();
    assert_eq!((row.seq, row.next_offset), (1, 1));

    std::fs::remove_file(shop.path()).unwrap();
    let gone = shop.effect.peek(&at()).await.unwrap_err();
    assert!(gone.to_string().contains("there is no database"), "{gone}");
    assert!(!shop.path().exists());
}

#[tokio::test]
async fn a_statement_that_takes_too_long_is_interrupted() {
    let sql = "CREATE TABLE t (n)";
    let endless = "INSERT INTO t WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) \
                   SELECT i FROM n WHERE i < 0 LIMIT :quantity";
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, sql);
    let routes = vec![route(vec![statement(endless, 0, 9)], &["quantity"], vec![])];
    let mut slow = settings(&path, routes);
    slow.statement_time_ms_max = 50;
    let effect = SqliteEffect::open(slow).unwrap();
    let mut owner = Owner::take(&effect, at()).await;
    let checks = checks(&["quantity"]);
    let text = away(owner.try_apply(&[order(&checks, 0, "a", 1)]).await);
    assert!(text.contains("took longer than 50 ms"), "{text}");
    assert_eq!(rows(&user, "SELECT seq FROM recount_position"), "0");
}

#[tokio::test]
async fn a_trigger_that_comes_later_is_noticed() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&[shop.order(0, "a", 1)]).await;
    shop.user
        .execute_batch(
            "CREATE TABLE seen (sku TEXT);
             CREATE TRIGGER look BEFORE UPDATE ON stock
             BEGIN INSERT INTO seen VALUES (new.sku); SELECT RAISE(IGNORE) WHERE new.on_hand = 8; END;",
        )
        .unwrap();
    let outcomes = owner.apply(&[shop.order(1, "a", 1), shop.order(2, "b", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter insufficient_stock", "applied"]);
    assert_eq!(shop.rows("SELECT sku FROM seen"), "b");

    shop.user
        .execute_batch(
            "CREATE TRIGGER worse BEFORE UPDATE ON stock WHEN new.sku = 'c'
             BEGIN SELECT RAISE(ROLLBACK, 'out'); END;",
        )
        .unwrap();
    let text = away(owner.try_apply(&[shop.order(3, "c", 1)]).await);
    assert!(text.contains("write ABORT instead"), "{text}");
    assert_eq!(shop.rows("SELECT seq FROM recount_position"), "2");
}

#[tokio::test]
async fn a_panic_is_reported_and_nothing_is_committed() {
    let shop = Shop::open();
    let owner = Owner::take(&shop.effect, at()).await;
    let mut batch = owner.batch(&[shop.order(0, "a", 1)]);
    batch.conclude = Box::new(|_| panic!("no conclusion"));
    let fault = shop.effect.apply(batch).await.unwrap_err();
    assert!(matches!(&fault, EffectFault::CommitUnknown(text) if text.contains("no conclusion")), "{fault}");
    let fault = shop.effect.peek(&at()).await.unwrap_err();
    assert!(matches!(fault, EffectFault::Away(_)), "{fault}");
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "10");
    let fresh = SqliteEffect::open(settings(&shop.path(), vec![stock_route()])).unwrap();
    assert_eq!(fresh.peek(&at()).await.unwrap().unwrap().seq, 0);
}

#[tokio::test]
async fn a_reader_does_not_stop_a_commit_in_wal_mode() {
    let shop =
        Shop::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"), vec![stock_route()], &["quantity", "sku"]);
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.user.execute_batch("BEGIN; SELECT * FROM stock").unwrap();
    let applied = tokio::time::timeout(Duration::from_secs(5), owner.apply(&[shop.order(0, "a", 1)])).await;
    assert_eq!(told(&applied.unwrap()), ["applied"]);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "10");
}

#[tokio::test]
async fn a_reader_makes_a_commit_wait_in_the_old_mode() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.user.execute_batch("BEGIN").unwrap();
    assert_eq!(shop.rows("SELECT count(*) FROM stock"), "3");
    let busy = owner.try_apply(&[shop.order(0, "a", 1)]).await;
    assert!(matches!(busy, Err(EffectFault::Again(_))), "{busy:?}");
    shop.user.execute_batch("COMMIT").unwrap();
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect"), "0");
}
