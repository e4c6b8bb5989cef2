//! What is refused before the first event, and what the message says to do.

use crate::flow::*;
use recount_adapters::sqlite::{
    SqliteEffect, SqliteEffectSettings, SqliteOpenError, examine, open_arbiter, tables_sql,
};
use recount_engine::OtherwiseVerdict::Skip;
use recount_engine::{Effect, EffectRows};

fn refusal(settings: SqliteEffectSettings) -> SqliteOpenError {
    match SqliteEffect::open(settings) {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

#[test]
fn a_database_is_not_made_silently() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let error = refusal(settings(&path, vec![]));
    assert!(matches!(&error, SqliteOpenError::Missing(text) if text.contains("create it")), "{error}");
    assert!(!path.exists());
    assert!(matches!(examine(&settings(&path, vec![])), Err(SqliteOpenError::Missing(_))));
}

#[test]
fn tables_are_made_only_where_that_is_allowed() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, SHOP);
    let mut strict = settings(&path, vec![stock_route()]);
    strict.create_tables = false;
    let error = refusal(strict.clone());
    assert!(matches!(&error, SqliteOpenError::Missing(text) if text.contains("--prepare")), "{error}");
    user.execute_batch(tables_sql()).unwrap();
    user.execute_batch(tables_sql()).unwrap();
    SqliteEffect::open(strict).unwrap();
}

#[test]
fn tables_of_another_format_are_left_alone() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, tables_sql());
    user.execute_batch("UPDATE recount_format SET version = 2").unwrap();
    let error = refusal(settings(&path, vec![]));
    assert!(matches!(&error, SqliteOpenError::Foreign(text) if text.contains("format 2")), "{error}");
}

#[test]
fn a_file_that_is_no_database_is_unusable() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    std::fs::write(&path, "sku,on_hand\na,10\n".repeat(100)).unwrap();
    let error = refusal(settings(&path, vec![]));
    assert!(matches!(&error, SqliteOpenError::Unusable(text) if text.contains("not a database")), "{error}");
}

#[test]
fn every_fault_of_the_statements_is_told_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    make(&path, SHOP);
    let routes = vec![
        route(
            vec![statement(TAKE_STOCK, 1, 1), statement("COMMIT", 0, 9)],
            &["sku"],
            vec![rule(Some("DELETE FROM stock"), Skip, "gone")],
        ),
        route(vec![statement("UPDATE stok SET on_hand = 1", 1, 1)], &[], vec![]),
    ];
    let mut wrong = settings(&path, routes);
    wrong.effects = EffectRows::Custom { sql: "SELECT nowhere FROM stock".to_owned(), id: None };
    let examined = examine(&wrong).unwrap_err();
    let SqliteOpenError::Refused(faults) = refusal(wrong) else { panic!("another error") };
    let told: Vec<String> = faults.iter().map(|f| format!("{}: {}", f.rule, f.message)).collect();
    assert_eq!(examined.to_string(), told.join("\n"));
    let expected = [
        "apply[0].sql[0]: :quantity is not given: add it to `with` (which gives :sku), or correct it",
        "apply[0].sql[1]: the transaction is Recount's",
        "apply[0].otherwise[0].when: a query must only read",
        "apply[1].sql[0]: no such table: stok",
        "effects.sql: no such column: nowhere",
    ];
    assert_eq!(told.len(), expected.len(), "{told:#?}");
    for (told, expected) in told.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\nexpected {expected}");
    }
}

#[test]
fn a_parameter_that_nothing_uses_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    make(&path, SHOP);
    let mut unused = stock_route();
    unused.params.push("colour".to_owned());
    let settings = settings(&path, vec![unused]);
    let examined = examine(&settings).unwrap();
    assert!(examined.plain);
    let effect = SqliteEffect::open(settings).unwrap();
    assert_eq!(effect.warnings(), examined.warnings);
    assert_eq!(effect.warnings()[0].rule, "apply[0].with.colour");
}

#[test]
fn looking_changes_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, SHOP);
    examine(&settings(&path, vec![stock_route()])).unwrap();
    assert_eq!(rows(&user, "SELECT name FROM sqlite_schema WHERE type = 'table'"), "stock");
}

#[tokio::test]
async fn the_arbiter_of_other_effects_lies_in_the_ledgers_folder() {
    let folder = tempfile::tempdir().unwrap();
    for threaded in [true, false] {
        let arbiter = open_arbiter(folder.path(), flow(), threaded).unwrap();
        Owner::take(&arbiter, at()).await.apply(&[]).await;
        assert_eq!(arbiter.peek(&at()).await.unwrap().unwrap().seq, if threaded { 1 } else { 2 });
    }
    let conn = rusqlite::Connection::open(folder.path().join("arbiter.db")).unwrap();
    assert_eq!(rows(&conn, "PRAGMA journal_mode"), "wal");
}
