//! Who owns a partition, whose fault a failure is, and what is found at the start.

use super::Shop;
use crate::flow::{Owner, at, route, statement, stock_route, told};
use recount_adapters::postgres::{PostgresEffect, PostgresOpenError};
use recount_engine::{Claim, Effect, EffectFault};
use recount_ledger::LedgerId;
use recount_model::OffsetSet;

#[tokio::test]
async fn an_owner_that_was_overtaken_changes_nothing() {
    let Some(shop) = Shop::open().await else { return };
    let other = PostgresEffect::open(shop.settings.clone()).await.unwrap();
    let mut first = Owner::take(&shop.effect, at()).await;
    first.apply(&[shop.order(0, "a", 1)]).await;
    let mut second = Owner::take(&other, at()).await;
    assert_eq!(second.claim, Claim { epoch: 2, expected_seq: 1 });

    let late = first.try_apply(&[shop.order(1, "a", 5)]).await;
    assert!(matches!(late, Err(EffectFault::NotMine)), "{late:?}");
    let marked = shop.effect.mark_alone(&at(), first.claim, 1).await;
    assert!(matches!(marked, Err(EffectFault::NotMine)), "{marked:?}");
    let released = shop.effect.release(&at(), first.claim).await;
    assert!(matches!(released, Err(EffectFault::NotMine)), "{released:?}");

    second.apply(&[shop.order(1, "a", 2)]).await;
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "7");
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect ORDER BY 1"), "0, 1");
    other.release(&at(), second.claim).await.unwrap();
    assert_eq!(shop.rows("SELECT clean, (SELECT count(*) FROM recount_batch) FROM recount_position"), "t 0");
}

#[tokio::test]
async fn an_acknowledgement_that_was_lost_applies_nothing_twice() {
    let Some(shop) = Shop::open().await else { return };
    let owner = Owner::take(&shop.effect, at()).await;
    let orders = [shop.order(0, "a", 1), shop.order(1, "none", 1)];
    drop(shop.effect.apply(owner.batch(&orders)).await);
    let again = shop.effect.apply(owner.batch(&orders)).await;
    assert!(matches!(again, Err(EffectFault::NotMine)), "{again:?}");
    let row = shop.effect.peek(&at()).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.seq, row.next_offset), (1, 1, 2));
    let stored = shop.effect.stored_batches(&at(), 0).await.unwrap();
    assert_eq!(stored, [(1, b"applied\ndead-letter unknown_sku".to_vec())]);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "9");
}

#[tokio::test]
async fn another_ledgers_rows_are_refused_and_a_reset_takes_them() {
    let Some(shop) = Shop::open().await else { return };
    Owner::take(&shop.effect, at()).await.apply(&[]).await;
    let other = LedgerId("ledger-2".to_owned());
    let taken = shop.effect.take(&at(), &other).await;
    assert!(matches!(&taken, Err(EffectFault::Foreign(why)) if why.contains("ledger-1")), "{taken:?}");
    let above = OffsetSet::parse("7-9").unwrap();
    shop.effect.reset(&at(), &other, 4, 5, &above).await.unwrap();
    let taken = shop.effect.take(&at(), &other).await.unwrap();
    assert_eq!((taken.epoch, taken.seq, taken.next_offset, taken.decided_above), (3, 4, 5, above));
}

#[tokio::test]
async fn a_kill_while_an_event_was_alone_is_counted_and_another_is_not() {
    let Some(shop) = Shop::open().await else { return };
    let owner = Owner::take(&shop.effect, at()).await;
    assert_eq!(shop.effect.mark_alone(&at(), owner.claim, 7).await.unwrap(), 0);
    let taken = shop.effect.take(&at(), &crate::flow::ledger()).await.unwrap();
    assert_eq!((taken.clean, taken.alone), (false, Some((7, 1))));
    // This owner marked nothing, so its end condemns nobody.
    let taken = shop.effect.take(&at(), &crate::flow::ledger()).await.unwrap();
    assert_eq!(taken.alone, None);
}

#[tokio::test]
async fn a_table_that_is_gone_blames_no_event_and_comes_back() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.rows("ALTER TABLE stock RENAME TO stock_away");
    let away = owner.try_apply(&[shop.order(0, "a", 1)]).await;
    assert!(matches!(&away, Err(EffectFault::Away(why)) if why.contains("stock")), "{away:?}");
    shop.rows("ALTER TABLE stock_away RENAME TO stock");
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
}

#[tokio::test]
async fn a_lock_of_somebody_else_asks_for_the_batch_again() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    let (locker, connection) =
        tokio_postgres::connect(&shop.settings.url, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    locker.batch_execute("BEGIN; SELECT * FROM stock WHERE sku = 'a' FOR UPDATE").await.unwrap();
    let again = owner.try_apply(&[shop.order(0, "a", 1)]).await;
    assert!(matches!(again, Err(EffectFault::Again(_))), "{again:?}");
    locker.batch_execute("COMMIT").await.unwrap();
    assert_eq!(told(&owner.apply(&[shop.order(0, "a", 1)]).await), ["applied"]);
}

#[tokio::test]
async fn connections_that_are_cut_lose_nothing() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&[shop.order(0, "a", 1)]).await;
    let cut = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name LIKE 'recount %' AND datname = current_database()";
    assert_ne!(shop.rows(cut), "0");
    // Whoever is told so reads the position row, and finds where it is.
    let mut tries = 0;
    while let Err(fault) = owner.try_apply(&[shop.order(1, "a", 1)]).await {
        assert!(matches!(fault, EffectFault::Away(_) | EffectFault::CommitUnknown(_)), "{fault:?}");
        let row = shop.effect.peek(&at()).await;
        if let Ok(Some(row)) = row {
            assert_eq!(row.seq, 1, "what was cut before its COMMIT is not there");
        }
        tries += 1;
        assert!(tries < 5);
    }
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "8");
    assert_eq!(shop.rows("SELECT count(*) FROM recount_effect"), "2");
}

#[tokio::test]
async fn statements_that_can_not_be_used_are_all_named() {
    let Some(shop) = Shop::open().await else { return };
    let mut settings = shop.settings.clone();
    let mut odd = stock_route();
    odd.otherwise[0].when = Some("SELECT sku FROM stock".to_owned());
    settings.routes = vec![
        route(vec![statement("UPDATE stok SET on_hand = :quantity", 1, 1)], &["quantity"], vec![]),
        route(vec![statement("COMMIT", 1, 1)], &[], vec![]),
        odd,
    ];
    let Err(PostgresOpenError::Refused(faults)) = PostgresEffect::open(settings).await else {
        panic!("they were taken");
    };
    let said: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect();
    assert_eq!(said.len(), 3, "{said:#?}");
    assert!(said[0].starts_with("apply[0].sql[0]: ") && said[0].contains("stok"), "{said:#?}");
    assert!(said[1].contains("COMMIT is not an effect"), "{said:#?}");
    assert!(said[2].contains("otherwise[0].when") && said[2].contains("text"), "{said:#?}");
}

#[tokio::test]
async fn a_role_without_temporary_objects_runs_statement_by_statement() {
    let Some(shop) = Shop::open().await else { return };
    let role = format!("plain_{}", shop.database);
    shop.rows(&format!(
        "CREATE ROLE {role} LOGIN; REVOKE TEMP ON DATABASE {0} FROM PUBLIC; \
         GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}",
        shop.database
    ));
    let mut settings = shop.settings.clone();
    settings.url = settings.url.replace("postgres@", &format!("{role}@"));
    let effect = PostgresEffect::open(settings).await.unwrap();
    assert!(effect.examined().not_in_server.is_some());
    let mut owner = Owner::take(&effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 8), shop.order(1, "a", 8), shop.order(2, "b", 1)]).await;
    assert_eq!(told(&outcomes), ["applied", "dead-letter insufficient_stock", "applied"]);
    shop.rows(&format!("DROP OWNED BY {role}"));
}

#[tokio::test]
async fn a_server_that_is_not_there_is_told_without_the_password() {
    let Some(shop) = Shop::open().await else { return };
    let mut settings = shop.settings.clone();
    settings.url = "postgres://ada:lovelace@127.0.0.1:1/shop".to_owned();
    let Err(error) = PostgresEffect::open(settings).await else { panic!("nobody is there") };
    let said = error.to_string();
    assert!(said.contains("127.0.0.1:1/shop") && !said.contains("lovelace"), "{said}");
}
