//! A batch inside the server gives what applying statement by statement with savepoints gives: for any
//! statements, events and order of them, the same outcomes and the same database.

use super::Shop;
use crate::flow::{Owner, TAKE_STOCK, at, order, route, rule, state_rule, statement};
use proptest::prelude::*;
use recount_engine::OtherwiseVerdict::{DeadLetter, Retry, Skip};
use recount_engine::{EffectEvent, SqlRoute, SqlStatement};

const TABLES: &str = "
    CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL CHECK (on_hand >= -3));
    INSERT INTO stock VALUES ('a', 5), ('b', 5), ('c', 0);
    CREATE TABLE orders (n integer PRIMARY KEY, sku text REFERENCES stock (sku));
    CREATE TABLE log (n bigint);
    CREATE FUNCTION picky(n bigint) RETURNS bigint STABLE LANGUAGE plpgsql AS $$ BEGIN
        IF n = 2 THEN RAISE 'no two' USING ERRCODE = 'P0002'; END IF;
        IF n = 3 THEN RAISE 'no three' USING ERRCODE = 'ZZ003'; END IF;
        RETURN n; END $$;";

/// A trigger that leaves something whatever becomes of the row, so that the flow runs guarded.
const NOT_PLAIN: &str = "
    CREATE FUNCTION noted() RETURNS trigger LANGUAGE plpgsql AS
    $$ BEGIN INSERT INTO log VALUES (-1); RETURN new; END $$;
    CREATE TRIGGER noted BEFORE UPDATE ON stock FOR EACH STATEMENT EXECUTE FUNCTION noted();";

fn any_statement() -> impl Strategy<Value = SqlStatement> {
    let sql = prop::sample::select(vec![
        TAKE_STOCK,
        "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku",
        "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku >= :sku",
        "INSERT INTO orders VALUES (:quantity, :sku)",
        "INSERT INTO orders VALUES (:quantity, :sku) ON CONFLICT DO NOTHING",
        "INSERT INTO orders VALUES (:quantity, :sku) ON CONFLICT (n) DO UPDATE SET sku = :sku WHERE orders.sku < :sku",
        "DELETE FROM orders WHERE n = :quantity",
        "INSERT INTO log SELECT :quantity FROM stock WHERE on_hand > :quantity",
        "INSERT INTO log SELECT 10 / (:quantity - 1)",
        "INSERT INTO log VALUES (:sku::integer)",
        "INSERT INTO log VALUES (picky(:quantity))",
        "WITH gone AS (DELETE FROM orders RETURNING n) INSERT INTO log SELECT n FROM gone WHERE n > :quantity",
        "MERGE INTO orders USING (SELECT 1) AS one ON orders.n = :quantity WHEN MATCHED THEN DELETE \
         WHEN NOT MATCHED THEN INSERT VALUES (:quantity, :sku)",
    ]);
    (sql, 0..2_u64, 0..2_u64).prop_map(|(sql, min, more)| statement(sql, min, min + more))
}

fn any_route() -> impl Strategy<Value = SqlRoute> {
    let when = prop::sample::select(vec![
        None,
        Some("SELECT on_hand < 3 FROM stock WHERE sku = :sku"),
        Some("SELECT count(*) FROM orders WHERE n > :quantity"),
        Some("SELECT EXISTS (SELECT 1 FROM log)"),
        Some("SELECT 10 / (:quantity - 1)"),
        Some("SELECT sum(n), 'more' FROM log"),
    ]);
    let states = prop::sample::select(vec![
        vec!["23505"],
        vec!["23"],
        vec!["22012", "22P02"],
        vec!["P0002"],
        vec!["ZZ", "22"],
        vec!["ZZ003", "P0002", "23"],
    ]);
    let verdict = prop::sample::select(vec![DeadLetter, Skip, Retry]);
    let otherwise = prop::collection::vec((when, states, any::<bool>(), verdict), 0..5);
    (prop::collection::vec(any_statement(), 1..4), otherwise).prop_map(|(statements, otherwise)| {
        let rules = otherwise.into_iter().enumerate();
        let rules = rules.map(|(i, (when, states, of_rows, verdict))| {
            let reason = format!("reason_{i}");
            if of_rows { rule(when, verdict, &reason) } else { state_rule(&states, verdict, &reason) }
        });
        // The others are declared in general, or the database would be to blame and the flow wait.
        let sqlstates = ["P0002", "ZZ"].map(str::to_owned).to_vec();
        SqlRoute { sqlstates, ..route(statements, &["quantity", "sku"], rules.collect()) }
    })
}

fn any_events() -> impl Strategy<Value = Vec<(&'static str, i64)>> {
    let sku = prop::sample::select(vec!["a", "b", "c", "d"]);
    prop::collection::vec((sku, 0..4_i64), 1..12)
}

/// Outcomes with their evidence, and everything that the database holds; none where PostgreSQL was left out.
async fn run(
    in_server: bool,
    setup: &str,
    route: &SqlRoute,
    batches: &[Vec<EffectEvent>],
) -> Option<(String, String)> {
    let tables = format!("{TABLES} {setup}");
    let names = ["quantity", "sku"];
    let shop = Shop::told(&tables, vec![route.clone()], &names, |settings| settings.in_server = in_server);
    let shop = shop.await?;
    assert_eq!(shop.effect.examined().not_in_server.is_none(), in_server);
    let mut owner = Owner::take(&shop.effect, at()).await;
    let mut outcomes = String::new();
    for batch in batches {
        outcomes += &format!("{:#?}", owner.apply(batch).await);
    }
    let mut state = String::new();
    for (table, order) in [
        ("stock", "sku"),
        ("orders", "n"),
        ("log", "n"),
        ("recount_effect", "\"offset\""),
        ("recount_position", "flow"),
        ("recount_batch", "seq"),
    ] {
        state += &format!("{table}: {}\n", shop.rows(&format!("SELECT * FROM {table} ORDER BY {order}")));
    }
    shop.server.sql("postgres", &format!("DROP DATABASE {} WITH (FORCE)", shop.database)).unwrap();
    Some((outcomes, state))
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn inside_the_server_equals_one_by_one(
        route in any_route(), first in any_events(), second in any_events(), is_plain in any::<bool>(),
    ) {
        let checks = crate::flow::checks(&["quantity", "sku"]);
        let mut offset = 0;
        let mut batch = |orders: &[(&str, i64)]| -> Vec<EffectEvent> {
            orders.iter().map(|(sku, quantity)| { offset += 1; order(&checks, offset, sku, *quantity) }).collect()
        };
        let batches = [batch(&first), batch(&second)];
        let setup = if is_plain { "" } else { NOT_PLAIN };
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let inside = runtime.block_on(run(true, setup, &route, &batches));
        let one_by_one = runtime.block_on(run(false, setup, &route, &batches));
        prop_assert_eq!(inside, one_by_one);
    }
}
