//! Without a thread, as the simulator runs it, everything is the same.

use crate::flow::*;
use recount_adapters::sqlite::SqliteEffect;
use std::task::{Context, Poll, Waker};

#[test]
fn without_a_thread_every_call_is_done_when_polled() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("shop.db");
    let user = make(&path, SHOP);
    let mut inline = settings(&path, vec![stock_route()]);
    inline.threaded = false;
    let effect = SqliteEffect::open(inline).unwrap();
    let checks = checks(&["quantity", "sku"]);
    let work = async {
        let mut owner = Owner::take(&effect, at()).await;
        told(&owner.apply(&[order(&checks, 0, "a", 1), order(&checks, 1, "x", 1)]).await)
    };
    let mut work = std::pin::pin!(work);
    let Poll::Ready(told) = work.as_mut().poll(&mut Context::from_waker(Waker::noop())) else {
        panic!("it waited for something")
    };
    assert_eq!(told, ["applied", "dead-letter unknown_sku"]);
    assert_eq!(rows(&user, "SELECT on_hand FROM stock WHERE sku = 'a'"), "9");
}
