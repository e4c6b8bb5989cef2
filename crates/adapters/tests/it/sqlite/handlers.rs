//! Handlers in Rust: a transaction in hand, a verdict out.

use crate::flow::*;
use async_trait::async_trait;
use recount_adapters::sqlite::SqliteEffect;
use recount_checks::{Checked, Event, FlowChecks};
use recount_engine::{EffectFault, Handler, HandlerError, OtherwiseVerdict, Transaction};
use recount_model::{ReasonCode, Value, Verdict};
use std::sync::Arc;
use std::time::Duration;

const SOLD_OUT: ReasonCode = ReasonCode::literal("sold_out");
const NOT_YET: ReasonCode = ReasonCode::literal("not_yet");

/// Does what the event's `do` says, after it took one unit out of stock.
struct Shopkeeper;

#[async_trait]
impl Handler for Shopkeeper {
    async fn handle(
        &self,
        event: &Checked<Event>,
        transaction: &mut dyn Transaction,
    ) -> Result<Verdict, HandlerError> {
        let sku = [("sku", Value::Text(event.data["sku"].as_str().unwrap().into()))];
        transaction.execute("UPDATE stock SET on_hand = on_hand - 1 WHERE sku = :sku", &sku).await?;
        let left = transaction.query_row("SELECT on_hand FROM stock WHERE sku = :sku", &sku).await?;
        match event.data["do"].as_str().unwrap() {
            "apply" => Ok(Verdict::applied()),
            "look" if left == Some(vec![Value::Integer(9)]) => Ok(Verdict::applied()),
            "skip" => Ok(Verdict::skip(SOLD_OUT, "s".repeat(5000))),
            "retry" => Ok(Verdict::retry(NOT_YET, "later")),
            "undeclared" => Ok(Verdict::skip(ReasonCode::literal("whim"), "no")),
            "panic" => panic!("the shop burns"),
            "violate" => {
                transaction.execute("INSERT INTO stock VALUES (:sku, 1)", &sku).await?;
                Ok(Verdict::applied())
            }
            "swallow" => {
                drop(transaction.execute("INSERT INTO missing VALUES (1)", &[]).await);
                Ok(Verdict::applied())
            }
            "commit" => {
                transaction.execute("COMMIT", &[]).await?;
                Ok(Verdict::applied())
            }
            "unbound" => {
                transaction.execute("DELETE FROM stock WHERE sku = :other", &sku).await?;
                Ok(Verdict::applied())
            }
            "work" => {
                let long = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 5000) \
                            SELECT max(i) FROM n";
                transaction.query_row(long, &[]).await?;
                Ok(Verdict::applied())
            }
            "sleep" => {
                tokio::time::sleep(Duration::from_millis(5)).await;
                Ok(Verdict::applied())
            }
            "hang" => std::future::pending().await,
            "give up" => Err(HandlerError { message: "the courier is ill".to_owned(), data_fault: false }),
            other => panic!("{other}"),
        }
    }
}

struct HandledShop {
    _folder: tempfile::TempDir,
    user: rusqlite::Connection,
    effect: SqliteEffect,
    checks: FlowChecks,
}

fn shop() -> HandledShop {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, SHOP);
    let mut settings = settings(&path, vec![]);
    settings.handler = Some(Arc::new(Shopkeeper));
    settings.handler_reasons =
        [(SOLD_OUT, OtherwiseVerdict::Skip), (NOT_YET, OtherwiseVerdict::Retry)].into();
    settings.handler_time_ms_max = 500;
    settings.statement_time_ms_max = 1000;
    let effect = SqliteEffect::open(settings).unwrap();
    HandledShop { _folder: folder, user, effect, checks: checks(&[]) }
}

impl HandledShop {
    fn event(&self, offset: u64, sku: &str, what: &str) -> recount_engine::EffectEvent {
        let json = serde_json::json!({ "id": offset.to_string(), "key": sku, "sku": sku, "do": what });
        checked(&self.checks, offset, &json)
    }
}

#[tokio::test]
async fn a_verdict_other_than_applied_undoes_what_the_handler_did() {
    let shop = shop();
    let mut owner = Owner::take(&shop.effect, at()).await;
    let work =
        [("a", "look"), ("a", "skip"), ("a", "violate"), ("a", "panic"), ("a", "undeclared"), ("a", "sleep")];
    let more = [("b", "retry"), ("b", "apply"), ("c", "apply")];
    let events: Vec<_> = work
        .iter()
        .chain(&more)
        .enumerate()
        .map(|(offset, (sku, what))| shop.event(offset as u64, sku, what))
        .collect();
    let outcomes = owner.apply(&events).await;
    assert_eq!(
        told(&outcomes),
        [
            "applied",
            "skip sold_out",
            "dead-letter statement_failed",
            "dead-letter handler_panicked",
            "dead-letter undeclared_reason",
            "applied",
            "retry not_yet",
            "behind",
            "applied",
        ]
    );
    assert_eq!(rows(&shop.user, "SELECT * FROM stock"), "a 8, b 10, c 9");
    assert_eq!(rows(&shop.user, "SELECT \"offset\" FROM recount_effect"), "0, 5, 8");
    assert_eq!(evidence(&outcomes[3])["panic"], "the shop burns");
    let recount_engine::Outcome::Said { verdict: Verdict::Skip(reason), .. } = &outcomes[1] else { panic!() };
    assert_eq!(reason.sentence.len(), 1024);
}

#[tokio::test]
async fn what_is_not_the_events_fault_undoes_the_batch() {
    let shop = shop();
    let mut owner = Owner::take(&shop.effect, at()).await;
    for (what, expected) in [
        ("give up", "the courier is ill"),
        ("swallow", "no such table: missing"),
        ("commit", "the transaction is Recount's"),
        ("unbound", ":other"),
        ("hang", "took longer than 500 ms"),
    ] {
        let events = [shop.event(0, "a", "apply"), shop.event(1, "b", what)];
        match owner.try_apply(&events).await {
            Err(EffectFault::Away(text)) => assert!(text.contains(expected), "{what}: {text}"),
            other => panic!("{what}: {other:?}"),
        }
        assert_eq!(rows(&shop.user, "SELECT * FROM stock"), "a 10, b 10, c 10");
    }
    assert_eq!(told(&owner.apply(&[shop.event(0, "a", "apply")]).await), ["applied"]);
}

#[tokio::test]
async fn the_time_limit_is_a_statements_and_not_a_connections() {
    let shop = shop();
    let mut owner = Owner::take(&shop.effect, at()).await;
    for offset in 0..2 {
        assert_eq!(told(&owner.apply(&[shop.event(offset, "a", "work")]).await), ["applied"]);
        std::thread::sleep(Duration::from_millis(1100));
    }
}
