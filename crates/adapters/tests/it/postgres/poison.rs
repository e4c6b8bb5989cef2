//! One event, or one slow batch, must not keep a flow from going on, nor leave anything behind.

use super::{SHOP, Shop};
use crate::flow::{Owner, TAKE_STOCK, at, route, rule, statement, stock_route, told};
use recount_engine::OtherwiseVerdict::DeadLetter;

#[tokio::test]
async fn a_zero_byte_is_its_events_fault_and_stops_no_other() {
    for in_server in [true, false] {
        let names = ["quantity", "sku"];
        let shop = Shop::told(SHOP, vec![stock_route()], &names, |settings| settings.in_server = in_server);
        let Some(shop) = shop.await else { return };
        let mut owner = Owner::take(&shop.effect, at()).await;
        let key = serde_json::json!({ "id": "e1", "key": "k", "sku": "a\u{0}b", "quantity": 1 });
        let odd = crate::flow::checked(&shop.checks, 1, &key);
        let outcomes = owner.apply(&[shop.order(0, "a", 1), odd, shop.order(2, "b", 1)]).await;
        assert_eq!(told(&outcomes), ["applied", "dead-letter statement_failed", "applied"], "{in_server}");
        assert_eq!(shop.rows("SELECT on_hand FROM stock ORDER BY sku"), "9, 9, 10");
    }
}

#[tokio::test]
async fn a_when_that_writes_leaves_nothing() {
    let tables = format!(
        "{SHOP} CREATE TABLE log (sku text);
         CREATE FUNCTION noted(text) RETURNS boolean LANGUAGE sql AS $$ INSERT INTO log VALUES ($1); SELECT true $$;"
    );
    for in_server in [true, false] {
        let otherwise = vec![rule(Some("SELECT noted(:sku)"), DeadLetter, "unknown_sku")];
        let route = route(vec![statement(TAKE_STOCK, 1, 1)], &["quantity", "sku"], otherwise);
        let names = ["quantity", "sku"];
        let shop = Shop::told(&tables, vec![route], &names, |settings| settings.in_server = in_server);
        let Some(shop) = shop.await else { return };
        let mut owner = Owner::take(&shop.effect, at()).await;
        let outcomes = owner.apply(&[shop.order(0, "none", 1), shop.order(1, "a", 1)]).await;
        assert_eq!(told(&outcomes), ["dead-letter unknown_sku", "applied"]);
        assert_eq!(shop.rows("SELECT count(*) FROM log"), "0", "{in_server}");
    }
}

#[tokio::test]
async fn a_trigger_of_a_part_of_a_table_leaves_nothing() {
    let tables = "CREATE TABLE stock (sku text, on_hand integer NOT NULL) PARTITION BY LIST (sku);
         CREATE TABLE stock_a PARTITION OF stock FOR VALUES IN ('a');
         CREATE TABLE stock_rest PARTITION OF stock DEFAULT;
         INSERT INTO stock VALUES ('a', 10), ('b', 10);
         CREATE TABLE log (n integer);
         CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS
         $$ BEGIN INSERT INTO log VALUES (1); RETURN NULL; END $$;
         CREATE TRIGGER refuse BEFORE UPDATE ON stock_a FOR EACH ROW EXECUTE FUNCTION refuse();";
    let Some(shop) = Shop::with(tables, vec![stock_route()], &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 1), shop.order(1, "b", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter insufficient_stock", "applied"]);
    assert_eq!(shop.rows("SELECT count(*) FROM log"), "0");
}

#[tokio::test]
async fn a_batch_that_takes_longer_than_one_statement_may_goes_on() {
    let slow =
        "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku AND pg_sleep(0.15) IS NOT NULL";
    let route = route(vec![statement(slow, 1, 1)], &["quantity", "sku"], vec![]);
    let shop = Shop::told(SHOP, vec![route], &["quantity", "sku"], |settings| {
        settings.statement_time_ms_max = 700;
    });
    let Some(shop) = shop.await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let orders: Vec<_> = (0..8).map(|offset| shop.order(offset, "a", 1)).collect();
    assert_eq!(told(&owner.apply(&orders).await), ["applied"; 8]);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "2");
}

#[tokio::test]
async fn a_host_that_holds_the_rest_of_a_password_is_not_shown() {
    let settings = recount_adapters::postgres::PostgresEffectSettings::new(
        "postgres://shop:secr@t@127.0.0.1:1/shop",
        crate::flow::flow(),
    );
    let error = recount_adapters::postgres::PostgresEffect::open(settings).await.err().unwrap().to_string();
    assert!(!error.contains("t@127"), "{error}");
    assert!(error.contains("%40"), "{error}");
}

#[tokio::test]
async fn an_error_that_quotes_a_value_is_told_without_it() {
    let tables = format!(
        "{SHOP} CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN \
         RAISE EXCEPTION 'not for %', new.sku USING ERRCODE = 'ZZ001'; END $$; \
         CREATE TRIGGER refuse BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION refuse(); \
         INSERT INTO stock VALUES ('anna@example.org', 5);"
    );
    for in_server in [true, false] {
        let names = ["quantity", "sku"];
        let shop =
            Shop::told(&tables, vec![stock_route()], &names, |settings| settings.in_server = in_server);
        let Some(shop) = shop.await else { return };
        let mut owner = Owner::take(&shop.effect, at()).await;
        let refused = owner.try_apply(&[shop.order(0, "anna@example.org", 1)]).await;
        let told = refused.err().unwrap().to_string();
        assert!(told.contains("not for :sku") && !told.contains("anna"), "{told}");
    }
}

/// Everything that the shop's effect is connected by, stopped or going on.
fn signal(shop: &Shop, signal: &str) {
    let connected = "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'recount %' \
                     AND datname = current_database()";
    for pid in shop.rows(connected).split(", ") {
        assert!(std::process::Command::new("kill").args([signal, pid]).status().unwrap().success());
    }
}

#[tokio::test]
async fn a_server_that_stands_still_is_away_and_nothing_is_applied_twice() {
    let Some(shop) = Shop::told(SHOP, vec![stock_route()], &["quantity", "sku"], |settings| {
        settings.statement_time_ms_max = 100;
        settings.silence_ms_max = 500;
    })
    .await
    else {
        return;
    };
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&[shop.order(0, "a", 1)]).await;
    signal(&shop, "-STOP");
    let silent = owner.try_apply(&[shop.order(1, "a", 1)]).await;
    signal(&shop, "-CONT");
    let silent = silent.err().unwrap().to_string();
    assert!(silent.contains("has not answered for"), "{silent}");
    owner.apply(&[shop.order(1, "a", 1)]).await;
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "8");
}
