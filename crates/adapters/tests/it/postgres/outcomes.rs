//! What becomes of events, and that one that isn't applied leaves nothing: the same as in SQLite.

use super::{SHOP, Shop};
use crate::flow::{
    Owner, TAKE_STOCK, at, checked, evidence, replayed, route, rule, state_rule, statement, told,
};
use recount_engine::OtherwiseVerdict::{DeadLetter, Retry, Skip};
use recount_model::Value;

#[tokio::test]
async fn an_applied_event_is_in_the_database_with_its_record() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 3), shop.order(1, "b", 4)]).await;
    assert_eq!(told(&outcomes), ["applied", "applied"]);
    assert_eq!(shop.rows("SELECT * FROM stock ORDER BY sku"), "a 7, b 6, c 10");
    assert_eq!(
        shop.rows("SELECT * FROM recount_effect"),
        "reserve-stock orders-1 0 0 e0, reserve-stock orders-1 0 1 e1"
    );
    assert_eq!(
        shop.rows("SELECT seq, convert_from(decisions, 'UTF8') FROM recount_batch"),
        "1 applied, applied"
    );
    assert_eq!(
        shop.rows(
            "SELECT epoch, seq, next_offset, decided_above, ledger_id, clean::int FROM recount_position"
        ),
        "1 1 2 90-95 ledger-1 0"
    );
}

#[tokio::test]
async fn many_effects_are_written_one_row_each() {
    let Some(shop) = Shop::with(
        "CREATE TABLE log (n integer)",
        vec![route(vec![statement("INSERT INTO log VALUES (:n)", 1, 1)], &["n"], vec![])],
        &["n"],
    )
    .await
    else {
        return;
    };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let event = |offset| {
        let json = serde_json::json!({ "id": format!("e{offset}"), "key": "k", "n": offset });
        checked(&shop.checks, offset, &json)
    };
    owner.apply(&(0..217).map(event).collect::<Vec<_>>()).await;
    let exact = "SELECT count(*), count(DISTINCT \"offset\"), min(\"offset\"), max(\"offset\"), \
                 count(*) FILTER (WHERE event_id = 'e' || \"offset\") FROM recount_effect";
    assert_eq!(shop.rows(exact), "217 217 0 216 217");
}

#[tokio::test]
async fn an_empty_batch_is_claimed_all_the_same() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    assert!(owner.apply(&[]).await.is_empty());
    assert_eq!(shop.rows("SELECT seq FROM recount_position"), "1");
    assert_eq!(shop.rows("SELECT seq FROM recount_batch"), "1");
}

#[tokio::test]
async fn batches_that_the_ledger_has_are_deleted() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    for _ in 0..3 {
        owner.apply(&[]).await;
    }
    owner.ledger_has_seq = 2;
    owner.apply(&[]).await;
    assert_eq!(shop.rows("SELECT seq FROM recount_batch"), "3, 4");
}

#[tokio::test]
async fn no_row_changed_is_what_otherwise_says() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let orders =
        [shop.order(0, "a", 8), shop.order(1, "none", 1), shop.order(2, "a", 8), shop.order(3, "a", 2)];
    let outcomes = owner.apply(&orders).await;
    let expected = ["applied", "dead-letter unknown_sku", "dead-letter insufficient_stock", "applied"];
    assert_eq!(told(&outcomes), expected);
    assert_eq!(evidence(&outcomes[1]), serde_json::json!({ "statement": 1, "rows": 0, "otherwise": 1 }));
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "0");
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect"), "0, 3");
}

#[tokio::test]
async fn a_row_count_that_no_otherwise_matches_is_rows_unexpected() {
    let never = rule(Some("SELECT 0"), Skip, "never");
    let routes = vec![route(vec![statement(TAKE_STOCK, 1, 1)], &["quantity", "sku"], vec![never])];
    let Some(shop) = Shop::with(SHOP, routes, &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "none", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter rows_unexpected"]);
    assert_eq!(evidence(&outcomes[0]), serde_json::json!({ "statement": 1, "rows": 0, "expected": "1" }));
}

#[tokio::test]
async fn too_many_rows_leave_nothing() {
    let all = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku OR :sku = '*'";
    let routes =
        vec![route(vec![statement(all, 1, 1)], &["quantity", "sku"], vec![rule(None, Skip, "too_wide")])];
    let Some(shop) = Shop::with(SHOP, routes, &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 1), shop.order(1, "*", 1), shop.order(2, "b", 1)]).await;
    assert_eq!(told(&outcomes), ["applied", "skip too_wide", "applied"]);
    assert_eq!(evidence(&outcomes[1])["rows"], 3);
    assert_eq!(shop.rows("SELECT * FROM stock ORDER BY sku"), "a 9, b 9, c 10");
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect"), "0, 2");
}

#[tokio::test]
async fn a_second_statement_that_fails_takes_the_first_back() {
    let sql = format!("{SHOP} CREATE TABLE orders (id TEXT PRIMARY KEY);");
    let insert = statement("INSERT INTO orders VALUES (:id) ON CONFLICT DO NOTHING", 1, 1);
    let routes = vec![route(
        vec![statement(TAKE_STOCK, 1, 1), insert],
        &["quantity", "sku", "id"],
        vec![rule(Some("SELECT EXISTS (SELECT 1 FROM orders WHERE id = :id)"), Skip, "ordered_before")],
    )];
    let Some(shop) = Shop::with(&sql, routes, &["quantity", "sku", "id"]).await else { return };
    shop.rows("INSERT INTO orders VALUES ('e1')");
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 1), shop.order(1, "a", 1), shop.order(2, "a", 1)]).await;
    assert_eq!(told(&outcomes), ["applied", "skip ordered_before", "applied"]);
    assert_eq!(evidence(&outcomes[1])["statement"], 2);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "8");
    assert_eq!(shop.rows("SELECT id FROM orders ORDER BY id"), "e0, e1, e2");
}

#[tokio::test]
async fn a_statement_that_errs_for_the_events_sake_is_a_dead_letter_alone() {
    let sql = "CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL CHECK (on_hand >= 0));
               INSERT INTO stock VALUES ('a', 10), ('b', 10);";
    let take = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku";
    let routes = vec![route(vec![statement(take, 1, 1)], &["quantity", "sku"], vec![])];
    let Some(shop) = Shop::with(sql, routes, &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let orders = [shop.order(0, "a", 1), shop.order(1, "a", 99), shop.order(2, "b", 1)];
    let outcomes = owner.apply(&orders).await;
    assert_eq!(told(&outcomes), ["applied", "dead-letter statement_failed", "applied"]);
    let found = evidence(&outcomes[1]);
    assert_eq!(found["sqlstate"], "23514");
    assert!(found["message"].as_str().unwrap().contains("stock_on_hand_check"), "{found}");
    assert_eq!(shop.rows("SELECT * FROM stock ORDER BY sku"), "a 9, b 9");
    assert_eq!(
        shop.rows("SELECT seq, convert_from(decisions, 'UTF8') FROM recount_batch"),
        "1 applied, dead-letter statement_failed, applied"
    );
}

#[tokio::test]
async fn a_refusal_by_a_foreign_key_or_a_trigger_is_the_events() {
    let sql = "CREATE TABLE stock (sku TEXT PRIMARY KEY);
               INSERT INTO stock VALUES ('a');
               CREATE TABLE sold (sku TEXT REFERENCES stock (sku), quantity INTEGER);
               CREATE FUNCTION polite() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN IF new.quantity > 100 THEN RAISE 'too many at once'; END IF; RETURN new; END $$;
               CREATE TRIGGER polite BEFORE INSERT ON sold FOR EACH ROW EXECUTE FUNCTION polite();";
    let insert = statement("INSERT INTO sold VALUES (:sku, :quantity)", 1, 1);
    let Some(shop) =
        Shop::with(sql, vec![route(vec![insert], &["quantity", "sku"], vec![])], &["quantity", "sku"]).await
    else {
        return;
    };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes =
        owner.apply(&[shop.order(0, "x", 1), shop.order(1, "a", 101), shop.order(2, "a", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter statement_failed", "dead-letter statement_failed", "applied"]);
    assert!(evidence(&outcomes[0])["message"].as_str().unwrap().contains("foreign key"));
    assert_eq!(evidence(&outcomes[1])["message"], "too many at once");
}

#[tokio::test]
async fn what_a_trigger_did_for_an_event_that_is_not_applied_is_undone() {
    let sql = "CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER);
               INSERT INTO stock VALUES ('a', 10);
               CREATE TABLE seen (sku text);
               CREATE FUNCTION look() RETURNS trigger LANGUAGE plpgsql AS
               $$ BEGIN INSERT INTO seen VALUES (new.sku);
               IF new.on_hand < 0 THEN RETURN NULL; END IF; RETURN new; END $$;
               CREATE TRIGGER look BEFORE UPDATE ON stock FOR EACH ROW EXECUTE FUNCTION look();";
    let take = "UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku";
    let otherwise = vec![rule(None, DeadLetter, "insufficient_stock")];
    let routes = vec![route(vec![statement(take, 1, 1)], &["quantity", "sku"], otherwise)];
    let Some(shop) = Shop::with(sql, routes, &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 99), shop.order(1, "a", 1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter insufficient_stock", "applied"]);
    assert_eq!(shop.rows("SELECT count(*) FROM seen"), "1");
}

#[tokio::test]
async fn a_retry_holds_its_key_and_nobody_elses() {
    let otherwise =
        vec![rule(Some("SELECT :sku = 'gone'"), DeadLetter, "unknown_sku"), rule(None, Retry, "not_yet")];
    let routes = vec![route(vec![statement(TAKE_STOCK, 1, 1)], &["quantity", "sku"], otherwise)];
    let Some(shop) = Shop::with(SHOP, routes, &["quantity", "sku"]).await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let orders = [
        shop.order(0, "a", 11),
        shop.order(1, "a", 1),
        shop.order(2, "b", 1),
        shop.order(3, "gone", 1),
        shop.order(4, "gone", 1),
        shop.order(5, "a", 1),
    ];
    let outcomes = owner.apply(&orders).await;
    let dead = "dead-letter unknown_sku";
    assert_eq!(told(&outcomes), ["retry not_yet", "behind", "applied", dead, dead, "behind"]);
    assert_eq!(shop.rows("SELECT * FROM stock ORDER BY sku"), "a 10, b 9, c 10");
}

#[tokio::test]
async fn values_of_every_kind_are_bound_by_name() {
    let sql = "CREATE TABLE kept (a text, b numeric, c boolean, d text, e smallint)";
    let insert = statement("INSERT INTO kept VALUES (:text, :real, :yes, :nothing, :whole)", 1, 1);
    let names = ["whole", "nothing", "yes", "real", "text"];
    let Some(shop) = Shop::with(sql, vec![route(vec![insert], &names, vec![])], &names).await else { return };
    let json = serde_json::json!({
        "id": "1", "key": "k", "text": "it's", "real": 2.5, "yes": true, "nothing": null, "whole": -7
    });
    let event = checked(&shop.checks, 0, &json);
    assert_eq!(event.event.params[0], Value::Integer(-7));
    Owner::take(&shop.effect, at()).await.apply(&[event]).await;
    assert_eq!(shop.rows("SELECT a, b, c, d, e FROM kept"), "it's 2.5 t  -7");
}

#[tokio::test]
async fn a_replay_happens_once() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 11)]).await;
    assert_eq!(told(&outcomes), ["dead-letter insufficient_stock"]);
    shop.rows("UPDATE stock SET on_hand = 20");
    let again = || replayed(shop.order(0, "a", 11), 7, 1);
    assert_eq!(told(&owner.apply(&[again(), again()]).await), ["applied", "already replayed"]);
    assert_eq!(told(&owner.apply(&[again()]).await), ["already replayed"]);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "9");
    assert_eq!(
        shop.rows("SELECT \"offset\", corrects, replay_id, decision FROM recount_replay"),
        "0 1 7 applied"
    );
    let later = replayed(shop.order(0, "a", 1), 8, 2);
    assert_eq!(told(&owner.apply(&[later]).await), ["applied"]);
}

#[tokio::test]
async fn without_statements_what_passed_the_checks_is_applied_by_its_record() {
    let Some(shop) = Shop::with("CREATE TABLE t (n integer)", vec![], &["quantity", "sku"]).await else {
        return;
    };
    let mut owner = Owner::take(&shop.effect, at()).await;
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
    assert_eq!(shop.rows("SELECT seq FROM recount_position"), "1");
}

#[tokio::test]
async fn an_error_gets_the_reason_that_is_declared_for_its_sqlstate_in_both_forms() {
    for in_server in [true, false] {
        let sql = "CREATE TABLE orders (n integer PRIMARY KEY CHECK (n < 100), sku text NOT NULL);
                   INSERT INTO orders VALUES (1, 'a');
                   CREATE FUNCTION open(sku text) RETURNS text STABLE LANGUAGE plpgsql AS $$ BEGIN
                   IF sku = 'shut' THEN RAISE 'closed' USING ERRCODE = 'SHOP1'; END IF; RETURN sku; END $$;";
        let insert = statement("INSERT INTO orders VALUES (:quantity, open(:sku))", 1, 1);
        let rules = vec![
            state_rule(&["23505"], Skip, "ordered_before"),
            rule(None, DeadLetter, "of_rows_only"),
            state_rule(&["SHOP1"], Retry, "shop_is_shut"),
        ];
        let of_state = route(vec![insert], &["quantity", "sku"], rules);
        let names = ["quantity", "sku"];
        let shop = Shop::told(sql, vec![of_state], &names, |settings| settings.in_server = in_server);
        let Some(shop) = shop.await else { return };
        let mut owner = Owner::take(&shop.effect, at()).await;
        let orders = [
            shop.order(0, "a", 1),
            shop.order(1, "shut", 2),
            shop.order(2, "shut", 3),
            shop.order(3, "a", 100),
            shop.order(4, "a", 4),
        ];
        let outcomes = owner.apply(&orders).await;
        let expected = [
            "skip ordered_before",
            "retry shop_is_shut",
            "behind",
            "dead-letter statement_failed",
            "applied",
        ];
        assert_eq!(told(&outcomes), expected, "in_server {in_server}");
        let found = evidence(&outcomes[0]);
        assert_eq!((found["sqlstate"].as_str(), found["otherwise"].as_u64()), (Some("23505"), Some(1)));
        assert_eq!(shop.rows("SELECT * FROM orders ORDER BY n"), "1 a, 4 a");
    }
}
