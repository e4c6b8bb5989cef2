//! The plain form with its redo gives what applying one by one with savepoints gives: for any statements,
//! events and order of them, the same outcomes and the same database.

use crate::flow::*;
use proptest::prelude::*;
use recount_adapters::sqlite::SqliteEffect;
use recount_engine::OtherwiseVerdict::{DeadLetter, Retry, Skip};
use recount_engine::{EffectEvent, SqlRoute, SqlStatement};
use std::path::Path;

const TABLES: &str = "
    CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand >= -3)) STRICT;
    INSERT INTO stock VALUES ('a', 5), ('b', 5), ('c', 0);
    CREATE TABLE orders (n INTEGER PRIMARY KEY, sku TEXT REFERENCES stock (sku)) STRICT;
    CREATE TABLE log (n INTEGER);";

/// A trigger that does nothing, so that the flow runs guarded from the start.
const GUARDED: &str = "
    CREATE TRIGGER t1 BEFORE UPDATE ON stock BEGIN DELETE FROM log WHERE n IS NULL; END;
    CREATE TRIGGER t2 BEFORE INSERT ON orders BEGIN DELETE FROM log WHERE n IS NULL; END;
    CREATE TRIGGER t3 BEFORE DELETE ON orders BEGIN DELETE FROM log WHERE n IS NULL; END;
    CREATE TRIGGER t4 BEFORE INSERT ON log BEGIN DELETE FROM stock WHERE sku IS NULL; END;";

fn any_statement() -> impl Strategy<Value = SqlStatement> {
    let sql = prop::sample::select(vec![
        TAKE_STOCK,
        "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku",
        "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku >= :sku",
        "UPDATE OR IGNORE stock SET on_hand = on_hand - :quantity",
        "UPDATE OR FAIL stock SET on_hand = on_hand - :quantity",
        "INSERT INTO orders VALUES (:quantity, :sku)",
        "INSERT OR IGNORE INTO orders VALUES (:quantity, :sku)",
        "INSERT OR REPLACE INTO orders VALUES (:quantity, :sku)",
        "INSERT INTO orders VALUES (:quantity, :sku) ON CONFLICT DO UPDATE SET sku = :sku WHERE sku < :sku",
        "DELETE FROM orders WHERE n = :quantity",
        "INSERT INTO log SELECT :quantity FROM stock WHERE on_hand > :quantity",
        "INSERT INTO log SELECT abs(-9223372036854775807 - :quantity)",
    ]);
    (sql, 0..2_u64, 0..2_u64).prop_map(|(sql, min, more)| statement(sql, min, min + more))
}

fn any_route() -> impl Strategy<Value = SqlRoute> {
    let when = prop::sample::select(vec![
        None,
        Some("SELECT on_hand < 3 FROM stock WHERE sku = :sku"),
        Some("SELECT count(*) FROM orders WHERE n > :quantity"),
        Some("SELECT EXISTS (SELECT 1 FROM log)"),
        Some("SELECT abs(-9223372036854775807 - :quantity)"),
    ]);
    let verdict = prop::sample::select(vec![DeadLetter, Skip, Retry]);
    let otherwise = prop::collection::vec((when, verdict), 0..3);
    (prop::collection::vec(any_statement(), 1..4), otherwise).prop_map(|(statements, otherwise)| {
        let rules = otherwise.into_iter().enumerate();
        let rules = rules.map(|(i, (when, verdict))| rule(when, verdict, &format!("reason_{i}"))).collect();
        route(statements, &["quantity", "sku"], rules)
    })
}

fn any_events() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    let sku = prop::sample::select(vec!["a", "b", "c", "d"]);
    prop::collection::vec((sku, 0..4_i64), 1..12)
}

/// Outcomes with their evidence, and everything that the database holds.
async fn run(path: &Path, setup: &str, route: &SqlRoute, batches: &[Vec<EffectEvent>]) -> (String, String) {
    let user = make(path, &format!("PRAGMA journal_mode = WAL; PRAGMA synchronous = OFF; {TABLES} {setup}"));
    let effect = SqliteEffect::open(settings(path, vec![route.clone()])).unwrap();
    let mut owner = Owner::take(&effect, at()).await;
    let mut outcomes = String::new();
    for batch in batches {
        outcomes += &format!("{:#?}", owner.apply(batch).await);
    }
    let mut state = String::new();
    for table in ["stock", "orders", "log", "recount_effect", "recount_position", "recount_batch"] {
        state += &format!("{table}: {}\n", rows(&user, &format!("SELECT * FROM {table}")));
    }
    (outcomes, state)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 128, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn plain_with_redo_equals_one_by_one(route in any_route(), first in any_events(), second in any_events()) {
        let checks = checks(&["quantity", "sku"]);
        let mut offset = 0;
        let mut batch = |orders: &[(&str, i64)]| -> Vec<EffectEvent> {
            orders.iter().map(|(sku, quantity)| { offset += 1; order(&checks, offset, sku, *quantity) }).collect()
        };
        let batches = [batch(&first), batch(&second)];
        let folder = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let plain = runtime.block_on(run(&folder.path().join("plain.db"), "", &route, &batches));
        let guarded = runtime.block_on(run(&folder.path().join("guarded.db"), GUARDED, &route, &batches));
        prop_assert_eq!(plain, guarded);
    }
}
