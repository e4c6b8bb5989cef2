//! What is the handler's state, and never an event's: the flow pauses, nothing drains into dead letters.

use super::handler::*;
use crate::flow::*;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Redirect};
use recount_adapters::http_effect::{HttpEffect, HttpEffectSettings, HttpOpenError};
use recount_engine::{Effect, EffectFault};
use serde_json::json;
use std::time::{Duration, Instant};

async fn away(handler: &Handler) -> String {
    let mut owner = Owner::take(&handler.effect, at()).await;
    let result = owner.try_apply(&[handler.event(0, "a")]).await;
    assert_eq!(rows(&handler.arbiter(), "SELECT seq FROM recount_position"), "0");
    match result {
        Err(EffectFault::Away(text)) => text,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn any_answer_but_a_2xx_pauses_the_flow() {
    for (status, expected) in [
        (500, "answered 500: the handler can't work now"),
        (503, "answered 503"),
        (400, "answered 400: the handler refuses the request as a whole"),
        (401, "answered 401"),
        (404, "answered 404"),
        (422, "answered 422"),
        (408, "answered 408: it asks to be tried again later"),
        (425, "answered 425: it asks"),
        (429, "answered 429: it asks"),
    ] {
        let status = StatusCode::from_u16(status).unwrap();
        let handler = Handler::new(move |_, _| status.into_response()).await;
        let text = away(&handler).await;
        assert!(text.contains(expected), "{text}");
    }
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let handler = Handler::new(|_, _| Redirect::temporary("/elsewhere").into_response()).await;
    let text = away(&handler).await;
    assert!(text.contains("answered 307: redirects are not followed"), "{text}");
    assert_eq!(handler.asked().len(), 1);
}

#[tokio::test]
async fn a_handler_that_is_slow_or_gone_pauses_the_flow() {
    let slow = Handler::with(
        |_, body| {
            std::thread::sleep(Duration::from_millis(600));
            all(body, &json!({ "verdict": "applied" }))
        },
        |settings| settings.deadline_ms = 100,
    )
    .await;
    let started = Instant::now();
    let text = away(&slow).await;
    assert!(text.contains("did not answer within 100 ms"), "{text}");
    assert!(started.elapsed() < Duration::from_millis(550));

    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let url = format!("http://{nobody}/");
    let gone = Handler::with(|_, _| ok(&json!({})), |settings| settings.url = url).await;
    let text = away(&gone).await;
    assert!(text.contains("can't be reached"), "{text}");
}

#[tokio::test]
async fn an_answer_beyond_its_bound_is_not_read() {
    let handler =
        Handler::with(|_, _| "x".repeat(10_000).into_response(), |s| s.answer_bytes_max = 5_000).await;
    let text = away(&handler).await;
    assert!(text.contains("answered more than 5000 bytes"), "{text}");
}

#[tokio::test]
async fn what_was_said_before_the_trouble_is_not_asked_again() {
    let handler = Handler::new(|ordinal, body| match ordinal {
        1 => StatusCode::SERVICE_UNAVAILABLE.into_response(),
        _ => all(body, &json!({ "verdict": "applied" })),
    })
    .await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let events = [handler.event(0, "a"), handler.event(1, "a")];
    assert!(matches!(owner.try_apply(&events).await, Err(EffectFault::Away(_))));
    assert_eq!(told(&owner.apply(&events).await), ["applied", "applied"]);
    let ids: Vec<String> = handler.asked().iter().map(|a| a.ids().join(" ")).collect();
    assert_eq!(ids, ["e0", "e1", "e1"]);
    // A new batch with the same events (a reset, say) is asked in full.
    owner.apply(&events).await;
    assert_eq!(handler.asked().len(), 5);
}

#[tokio::test]
async fn an_owner_that_was_overtaken_asks_nobody() {
    let handler = Handler::new(|_, body| all(body, &json!({ "verdict": "applied" }))).await;
    let mut first = Owner::take(&handler.effect, at()).await;
    let mut second = Owner::take(&handler.effect, at()).await;
    let late = first.try_apply(&[handler.event(0, "a")]).await;
    assert!(matches!(late, Err(EffectFault::NotMine)), "{late:?}");
    assert!(handler.asked().is_empty());
    second.apply(&[handler.event(0, "a")]).await;
}

#[tokio::test]
async fn an_owner_overtaken_while_it_asked_commits_nothing() {
    let handler = Handler::new(|_, body| {
        std::thread::sleep(Duration::from_millis(300));
        all(body, &json!({ "verdict": "applied" }))
    })
    .await;
    let mut first = Owner::take(&handler.effect, at()).await;
    let events = [handler.event(0, "a")];
    let late = tokio::join!(first.try_apply(&events), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        handler.effect.take(&at(), &ledger()).await.unwrap()
    });
    assert!(matches!(late.0, Err(EffectFault::NotMine)), "{:?}", late.0);
    assert_eq!(rows(&handler.arbiter(), "SELECT epoch, seq FROM recount_position"), "2 0");
}

#[tokio::test]
async fn partitions_are_asked_side_by_side() {
    let handler = Handler::new(|_, body| {
        std::thread::sleep(Duration::from_millis(300));
        all(body, &json!({ "verdict": "applied" }))
    })
    .await;
    let mut one = Owner::take(&handler.effect, at_partition("1")).await;
    let mut two = Owner::take(&handler.effect, at_partition("2")).await;
    let started = Instant::now();
    let (first, second) = ([handler.event(0, "a")], [handler.event(0, "b")]);
    tokio::join!(one.apply(&first), two.apply(&second));
    assert!(started.elapsed() < Duration::from_millis(550), "{:?}", started.elapsed());
}

#[test]
fn an_address_that_cannot_be_used_is_refused_without_showing_it() {
    let folder = tempfile::tempdir().unwrap();
    for (url, expected) in [
        ("localhost:8000/x", "write it as"),
        ("ftp://host/x", "write the whole address"),
        ("http://user:s3cret@host/x", "the address holds credentials"),
        ("not an address", "this is no address"),
    ] {
        match HttpEffect::open(HttpEffectSettings::new(url, flow(), folder.path())) {
            Err(HttpOpenError::Url(text)) => {
                assert!(text.contains(expected) && !text.contains("s3cret"), "{text}")
            }
            Err(other) => panic!("{url}: {other}"),
            Ok(_) => panic!("{url} was taken"),
        }
    }
}
