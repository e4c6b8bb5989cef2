//! Counting again from the database alone.

use crate::flow::*;
use recount_adapters::sqlite::{ReconcileSide, SqliteWitness, WitnessError};
use recount_model::Amount;
use std::ops::ControlFlow;

async fn shop_with_effects() -> Shop {
    let shop =
        Shop::with(&format!("PRAGMA journal_mode = WAL; {SHOP}"), vec![stock_route()], &["quantity", "sku"]);
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&(0..5).map(|offset| shop.order(offset, "a", 1)).collect::<Vec<_>>()).await;
    shop
}

fn witness(shop: &Shop) -> SqliteWitness {
    SqliteWitness::new(shop.path(), None, 1000, 1000)
}

#[tokio::test]
async fn effects_are_counted_listed_and_found_twice() {
    let shop = shop_with_effects().await;
    shop.user
        .execute_batch("INSERT INTO recount_effect SELECT * FROM recount_effect WHERE \"offset\" IN (1, 3)")
        .unwrap();
    let witness = witness(&shop);
    let snapshot = witness.snapshot().unwrap();
    assert!(snapshot.has_tables().unwrap());
    let position = &snapshot.positions(&flow()).unwrap()[0];
    assert_eq!((&position.at, position.seq, position.next_offset), (&at(), 1, 5));
    let summary = &snapshot.effect_summary(&flow()).unwrap()[0];
    assert_eq!((summary.effects, summary.offsets, summary.first_offset, summary.last_offset), (7, 5, 0, 4));
    assert_eq!(snapshot.count_effects(&at(), 1, 4).unwrap(), 5);
    assert_eq!(snapshot.effects_twice(&at(), 0, 10, 10).unwrap(), [(1, 2), (3, 2)]);
    assert_eq!(snapshot.effects_twice(&at(), 0, 10, 1).unwrap(), [(1, 2)]);
    let mut listed = Vec::new();
    snapshot
        .effects(&at(), 2, 9, &mut |offset, id| {
            listed.push(format!("{offset} {}", id.unwrap_or("-")));
            ControlFlow::Continue(())
        })
        .unwrap();
    assert_eq!(listed, ["2 e2", "3 e3", "3 e3", "4 e4"]);
}

#[tokio::test]
async fn a_snapshot_is_one_moment() {
    let shop = shop_with_effects().await;
    let witness = witness(&shop);
    let before = witness.snapshot().unwrap();
    shop.user.execute_batch("DELETE FROM recount_effect; UPDATE stock SET on_hand = 0").unwrap();
    assert_eq!(before.count_effects(&at(), 0, 10).unwrap(), 5);
    drop(before);
    assert_eq!(witness.snapshot().unwrap().count_effects(&at(), 0, 10).unwrap(), 0);
}

#[tokio::test]
async fn a_reconciles_right_side_is_exact() {
    let shop = shop_with_effects().await;
    let witness = witness(&shop);
    let mut snapshot = witness.snapshot().unwrap();
    let amount = |text: &str| Amount::parse(text).unwrap();
    for (sql, expected) in [
        ("SELECT sum(10 - on_hand) FROM stock", "5"),
        ("SELECT sum(on_hand) FROM stock WHERE sku = 'none'", "0"),
        ("SELECT on_hand FROM stock WHERE sku = 'none'", "0"),
        ("SELECT 0.1", "0.1"),
        ("SELECT '12345678901234567.89'", "12345678901234567.89"),
        ("SELECT -9223372036854775807;", "-9223372036854775807"),
    ] {
        assert_eq!(snapshot.reconcile(sql).unwrap(), ReconcileSide::Total(amount(expected)), "{sql}");
    }
    let groups =
        snapshot.reconcile("SELECT sku, 10 - on_hand FROM stock UNION ALL SELECT NULL, NULL").unwrap();
    let ReconcileSide::Groups(groups) = groups else { panic!("{groups:?}") };
    let told: Vec<String> =
        groups.iter().map(|row| format!("{} {}", row.group.as_deref().unwrap_or("-"), row.amount)).collect();
    assert_eq!(told, ["a 5", "b 0", "c 0", "- 0"]);
}

#[tokio::test]
async fn a_question_that_does_not_fit_is_refused() {
    let shop = shop_with_effects().await;
    let witness = witness(&shop);
    let mut snapshot = witness.snapshot().unwrap();
    for (sql, expected) in [
        ("SELECT 'many'", "\"many\", which is no number"),
        ("SELECT on_hand FROM stock", "more than 1 rows"),
        ("SELECT 1, 2, 3", "3 columns"),
        ("SELECT x'00'", "no number"),
        ("DELETE FROM stock", "must only read"),
        ("SELECT :sku", "leave it out"),
        ("SELECT nowhere FROM stock", "no such column: nowhere"),
        ("SELECT 1; SELECT 2", "several statements"),
    ] {
        match snapshot.reconcile(sql) {
            Err(WitnessError::Question(text)) => assert!(text.contains(expected), "{sql}: {text}"),
            other => panic!("{sql}: {other:?}"),
        }
    }
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n";
    assert!(matches!(snapshot.reconcile(endless), Err(WitnessError::Away(_))));
}

#[tokio::test]
async fn the_users_own_effects_are_counted_and_named() {
    let shop = shop_with_effects().await;
    let witness = witness(&shop);
    let mut snapshot = witness.snapshot().unwrap();
    let own = "SELECT sku AS article, 'x' FROM stock ORDER BY sku;";
    assert_eq!(snapshot.custom_count(own).unwrap(), 3);
    for (sql, expected) in
        [("SELECT 41 + 1", 42), ("SELECT sku FROM stock LIMIT 1", 1), ("SELECT 1 WHERE 0", 0)]
    {
        assert_eq!(snapshot.custom_count(sql).unwrap(), expected, "{sql}");
    }
    let mut ids = Vec::new();
    let mut visit = |id: Option<&str>| {
        ids.push(id.unwrap().to_owned());
        ControlFlow::Continue(())
    };
    snapshot.custom_ids(own, "Article", &mut visit).unwrap();
    assert_eq!(ids, ["a", "b", "c"]);
    let missing = snapshot.custom_ids(own, "id", &mut |_| ControlFlow::Continue(()));
    assert!(matches!(missing, Err(WitnessError::Question(_))), "{missing:?}");
}

#[test]
fn a_database_without_our_tables_or_without_a_file_is_told() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let witness = SqliteWitness::new(&path, None, 0, 0);
    assert!(matches!(witness.snapshot(), Err(WitnessError::Away(_))));
    make(&path, SHOP);
    assert!(!witness.snapshot().unwrap().has_tables().unwrap());
}

#[tokio::test]
async fn the_time_limit_is_a_statements_and_not_a_snapshots() {
    let shop = shop_with_effects().await;
    let mut snapshot = witness(&shop).snapshot().unwrap();
    let long =
        "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) SELECT max(i) FROM n";
    for _ in 0..2 {
        assert_eq!(snapshot.reconcile(long).unwrap(), ReconcileSide::Total(Amount::from_integer(5000)));
        std::thread::sleep(std::time::Duration::from_millis(1100));
    }
}
