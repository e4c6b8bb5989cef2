//! Counting again in PostgreSQL: one moment, read only.

use super::Shop;
use crate::flow::{Owner, at, flow};
use recount_adapters::postgres::PostgresEffectWitness;
use recount_audit::{EffectWitness, WitnessError};
use recount_model::Amount;
use std::ops::ControlFlow;

/// The witness has a runtime of its own, so it is asked from a plain thread, as the audit does.
async fn asked<R: Send + 'static>(ask: impl FnOnce() -> R + Send + 'static) -> R {
    tokio::task::spawn_blocking(ask).await.unwrap()
}

#[tokio::test]
async fn everything_is_of_one_moment() {
    let Some(shop) = Shop::open().await else { return };
    let mut owner = Owner::take(&shop.effect, at()).await;
    owner.apply(&[shop.order(0, "a", 3), shop.order(1, "none", 1), shop.order(2, "b", 4)]).await;
    let (url, server, database) = (shop.settings.url.clone(), shop.server, shop.database.clone());
    asked(move || {
        let witness = PostgresEffectWitness::new(url, flow());
        let snapshot = witness.snapshot().unwrap();
        server.sql(&database, "DELETE FROM recount_effect; UPDATE stock SET on_hand = 0").unwrap();
        let rows = snapshot.positions(&flow()).unwrap();
        assert_eq!((rows.len(), rows[0].seq, rows[0].next_offset), (1, 1, 3));
        assert_eq!(snapshot.stored_batches(&at(), 0).unwrap(), [1]);
        let mut seen = Vec::new();
        let mut visit = |offset, id: Option<&str>| {
            seen.push((offset, id.unwrap_or_default().to_owned()));
            ControlFlow::Continue(())
        };
        snapshot.effects(&at(), 0, 10, &mut visit).unwrap();
        seen.sort();
        assert_eq!(seen, [(0, "e0".to_owned()), (2, "e2".to_owned())]);
        let mut groups = Vec::new();
        let mut visit = |group: Option<&str>, amount| {
            groups.push((group.unwrap_or_default().to_owned(), amount));
            ControlFlow::Continue(())
        };
        snapshot.reconcile("SELECT sku, 10 - on_hand FROM stock ORDER BY sku", true, &mut visit).unwrap();
        let expected = [("a", 3), ("b", 4), ("c", 0)].map(|(s, n)| (s.to_owned(), Amount::from_integer(n)));
        assert_eq!(groups, expected);
        assert_eq!(snapshot.custom_count("SELECT count(*) FROM stock").unwrap(), 3);
        assert_eq!(snapshot.custom_count("SELECT sku FROM stock").unwrap(), 3);
        let mut ids = Vec::new();
        let mut visit = |id: &str| {
            ids.push(id.to_owned());
            ControlFlow::Continue(())
        };
        snapshot
            .custom_ids("SELECT event_id FROM recount_effect ORDER BY 1", "event_id", &mut visit)
            .unwrap();
        assert_eq!(ids, ["e0", "e2"]);
    })
    .await;
}

#[tokio::test]
async fn a_query_that_would_write_or_does_not_fit_is_told() {
    let Some(shop) = Shop::open().await else { return };
    let url = shop.settings.url.clone();
    asked(move || {
        let witness = PostgresEffectWitness::new(url, flow());
        for (sql, said) in [
            ("DELETE FROM stock RETURNING sku", "read-only"),
            ("SELECT 1; DELETE FROM stock", "more than one statement"),
            ("SELECT :sku", "no event here"),
            ("SELECT nothing FROM nowhere", "nowhere"),
        ] {
            let told = witness.snapshot().unwrap().custom_count(sql).unwrap_err();
            assert!(matches!(&told, WitnessError::Unreachable(why) if why.contains(said)), "{sql}: {told}");
        }
        let told =
            witness.snapshot().unwrap().reconcile("SELECT 'x'", false, &mut |_, _| ControlFlow::Continue(()));
        assert!(told.unwrap_err().to_string().contains("no number"));
    })
    .await;
    assert_eq!(shop.rows("SELECT count(*) FROM stock"), "3");
}
