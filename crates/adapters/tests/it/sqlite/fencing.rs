//! Who owns a partition, and what happens to those who don't any more.

use crate::flow::*;
use recount_adapters::sqlite::SqliteEffect;
use recount_engine::{Claim, Effect, EffectFault};
use recount_ledger::LedgerId;
use recount_model::OffsetSet;

#[tokio::test]
async fn an_owner_that_was_overtaken_changes_nothing() {
    let shop = Shop::open();
    let other = SqliteEffect::open(settings(&shop.path(), vec![stock_route()])).unwrap();
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
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect"), "0, 1");
}

#[tokio::test]
async fn a_guarded_redo_is_claimed_anew() {
    let sql = "CREATE TABLE t (n INTEGER PRIMARY KEY) STRICT";
    let insert = statement("INSERT INTO t VALUES (:quantity)", 1, 1);
    let shop = Shop::with(sql, vec![route(vec![insert], &["quantity"], vec![])], &["quantity"]);
    let mut owner = Owner::take(&shop.effect, at()).await;
    let outcomes = owner.apply(&[shop.order(0, "a", 1), shop.order(1, "a", 1)]).await;
    assert_eq!(told(&outcomes), ["applied", "dead-letter statement_failed"]);
    assert_eq!(shop.rows("SELECT epoch, seq FROM recount_position"), "1 1");
}

#[tokio::test]
async fn an_acknowledgement_that_was_lost_applies_nothing_twice() {
    let shop = Shop::open();
    let owner = Owner::take(&shop.effect, at()).await;
    let orders = [shop.order(0, "a", 1), shop.order(1, "none", 1)];
    let committed = shop.effect.apply(owner.batch(&orders)).await;
    drop(committed);
    // The answer never came: the same batch under the same claim is not ours any more.
    let again = shop.effect.apply(owner.batch(&orders)).await;
    assert!(matches!(again, Err(EffectFault::NotMine)), "{again:?}");
    let row = shop.effect.peek(&at()).await.unwrap().unwrap();
    assert_eq!((row.epoch, row.seq, row.next_offset), (1, 1, 2));
    let stored = shop.effect.stored_batches(&at(), 0).await.unwrap();
    assert_eq!(stored, [(1, b"applied\ndead-letter unknown_sku".to_vec())]);
    assert!(shop.effect.stored_batches(&at(), 1).await.unwrap().is_empty());
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "9");
}

#[tokio::test]
async fn a_call_that_nobody_waits_for_is_done_all_the_same() {
    let shop = Shop::open();
    let owner = Owner::take(&shop.effect, at()).await;
    let mut call = Box::pin(shop.effect.apply(owner.batch(&[shop.order(0, "a", 1)])));
    let polled = futures_poll_once(call.as_mut()).await;
    drop((polled, call));
    let row = shop.effect.peek(&at()).await.unwrap().unwrap();
    assert_eq!(row.seq, 1);
    assert_eq!(shop.rows("SELECT on_hand FROM stock WHERE sku = 'a'"), "9");
}

async fn futures_poll_once<F: Future>(future: std::pin::Pin<&mut F>) -> bool {
    let mut future = Some(future);
    std::future::poll_fn(move |context| {
        std::task::Poll::Ready(future.take().is_some_and(|f| f.poll(context).is_ready()))
    })
    .await
}

#[tokio::test]
async fn partitions_of_a_flow_are_claimed_each_by_itself() {
    let shop = Shop::open();
    let mut one = Owner::take(&shop.effect, at_partition("1")).await;
    let mut two = Owner::take(&shop.effect, at_partition("2")).await;
    one.apply(&[shop.order(0, "a", 1)]).await;
    one.apply(&[shop.order(1, "a", 1)]).await;
    two.apply(&[shop.order(0, "b", 1)]).await;
    assert_eq!(shop.rows("SELECT partition, seq FROM recount_position"), "1 2, 2 1");
}

#[tokio::test]
async fn a_partition_that_was_never_seen_has_no_row() {
    let shop = Shop::open();
    assert_eq!(shop.effect.peek(&at()).await.unwrap(), None);
    let taken = shop.effect.take(&at(), &ledger()).await.unwrap();
    assert!(!taken.existed && taken.clean && taken.epoch == 1 && taken.seq == 0);
    let taken = shop.effect.take(&at(), &ledger()).await.unwrap();
    assert!(taken.existed && !taken.clean && taken.epoch == 2);
    shop.effect.release(&at(), Claim { epoch: 2, expected_seq: 0 }).await.unwrap();
    assert!(shop.effect.take(&at(), &ledger()).await.unwrap().clean);
}

#[tokio::test]
async fn another_ledger_is_refused() {
    let shop = Shop::open();
    Owner::take(&shop.effect, at()).await;
    let fault = shop.effect.take(&at(), &LedgerId("ledger-2".to_owned())).await.unwrap_err();
    let EffectFault::Foreign(text) = fault else { panic!("{fault}") };
    assert!(text.contains("ledger-1") && text.contains("ledger-2"), "{text}");
    assert_eq!(shop.rows("SELECT epoch FROM recount_position"), "1");
}

#[tokio::test]
async fn a_reset_gives_up_what_lies_beyond_it() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    for offset in 0..3 {
        owner.apply(&[shop.order(offset, "a", 1)]).await;
    }
    let other = LedgerId("ledger-2".to_owned());
    let above = OffsetSet::parse("4").unwrap();
    shop.effect.reset(&at(), &other, 1, 1, &above).await.unwrap();
    assert_eq!(shop.rows("SELECT seq FROM recount_batch"), "1");
    let late = owner.try_apply(&[]).await;
    assert!(matches!(late, Err(EffectFault::NotMine)));
    let taken = shop.effect.take(&at(), &other).await.unwrap();
    assert_eq!((taken.epoch, taken.seq, taken.next_offset, taken.clean), (3, 1, 1, true));
    assert_eq!(taken.decided_above, above);

    let fresh = at_partition("new");
    shop.effect.reset(&fresh, &other, 9, 90, &OffsetSet::new()).await.unwrap();
    assert_eq!(shop.effect.peek(&fresh).await.unwrap().unwrap().next_offset, 90);
}

#[tokio::test]
async fn without_its_guard_the_claim_fences_nobody() {
    let shop = Shop::open();
    let mut unguarded = settings(&shop.path(), vec![stock_route()]);
    unguarded.guards.claim = false;
    let frozen = SqliteEffect::open(unguarded).unwrap();
    let mut first = Owner::take(&frozen, at()).await;
    let mut second = Owner::take(&shop.effect, at()).await;
    second.apply(&[shop.order(0, "a", 1)]).await;
    first.apply(&[shop.order(0, "a", 1)]).await;
    assert_eq!(shop.rows("SELECT \"offset\" FROM recount_effect"), "0, 0");
}

/// Stops as `kill -9` does: nothing is released.
async fn stop_uncleanly(shop: &Shop) -> Option<(u64, u32)> {
    let taken = shop.effect.take(&at(), &ledger()).await.unwrap();
    assert!(!taken.clean);
    taken.alone
}

async fn claim(shop: &Shop) -> Claim {
    let row = shop.effect.peek(&at()).await.unwrap().unwrap();
    Claim { epoch: row.epoch, expected_seq: row.seq }
}

#[tokio::test]
async fn an_event_alone_under_way_at_three_stops_in_a_row_is_known_as_such() {
    let shop = Shop::open();
    Owner::take(&shop.effect, at()).await;
    for stops in 0..3 {
        assert_eq!(shop.effect.mark_alone(&at(), claim(&shop).await, 7).await.unwrap(), stops);
        assert_eq!(stop_uncleanly(&shop).await, Some((7, stops + 1)));
    }
    assert_eq!(shop.effect.mark_alone(&at(), claim(&shop).await, 7).await.unwrap(), 3);
}

#[tokio::test]
async fn a_kill_from_outside_condemns_nobody() {
    let shop = Shop::open();
    Owner::take(&shop.effect, at()).await;
    shop.effect.mark_alone(&at(), claim(&shop).await, 7).await.unwrap();
    assert_eq!(stop_uncleanly(&shop).await, Some((7, 1)));
    // Killed before the event was tried again: it was not under way.
    assert_eq!(stop_uncleanly(&shop).await, None);
    assert_eq!(shop.effect.mark_alone(&at(), claim(&shop).await, 7).await.unwrap(), 0);
    // Another event was under way.
    assert_eq!(shop.effect.mark_alone(&at(), claim(&shop).await, 8).await.unwrap(), 0);
    assert_eq!(stop_uncleanly(&shop).await, Some((8, 1)));
    // A commit ends it, and so does a clean drain.
    let mut owner = Owner { effect: &shop.effect, at: at(), claim: claim(&shop).await, ledger_has_seq: 0 };
    shop.effect.mark_alone(&at(), owner.claim, 8).await.unwrap();
    owner.apply(&[shop.order(8, "a", 1)]).await;
    assert_eq!(stop_uncleanly(&shop).await, None);
    shop.effect.mark_alone(&at(), claim(&shop).await, 9).await.unwrap();
    shop.effect.release(&at(), claim(&shop).await).await.unwrap();
    let taken = shop.effect.take(&at(), &ledger()).await.unwrap();
    assert_eq!((taken.clean, taken.alone), (true, None));
}

#[tokio::test]
async fn an_attempt_that_ended_without_a_commit_was_not_under_way() {
    let shop = Shop::open();
    let mut owner = Owner::take(&shop.effect, at()).await;
    shop.effect.mark_alone(&at(), owner.claim, 7).await.unwrap();
    shop.user.execute_batch("ALTER TABLE stock RENAME TO elsewhere").unwrap();
    let away = owner.try_apply(&[shop.order(7, "a", 1)]).await;
    assert!(matches!(away, Err(EffectFault::Away(_))), "{away:?}");
    assert_eq!(stop_uncleanly(&shop).await, None);
}
