//! What a handler says, and what it leaves unsaid.

use super::handler::*;
use crate::flow::*;
use axum::response::IntoResponse;
use recount_engine::Outcome;
use recount_model::Verdict;
use serde_json::{Value, json};

fn sentence(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Said { verdict, .. } => &verdict.reason().unwrap().sentence,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn the_request_says_everything_about_the_events() {
    let handler = Handler::with(
        |_, body| all(body, &json!({ "verdict": "applied" })),
        |settings| settings.headers = vec![("Authorization".to_owned(), "Bearer s3cret".to_owned())],
    )
    .await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let mut second = handler.event(8, "b");
    second.attempt = 2;
    assert_eq!(told(&owner.apply(&[handler.event(7, "a"), second]).await), ["applied", "applied"]);
    owner.apply(&[handler.event(9, "a")]).await;

    let asked = handler.asked();
    assert_eq!(
        asked[0].body,
        json!({ "flow": "reserve-stock", "events": [
            { "position": "reserve-stock/0/7", "id": "e7", "key": "a", "type": null, "time": null,
              "idempotency_key": "reserve-stock/orders-1/0/7", "attempt": 1, "traceparent": "00-abc-def-01",
              "data": { "id": "e7", "key": "a", "traceparent": "00-abc-def-01" } },
            { "position": "reserve-stock/0/8", "id": "e8", "key": "b", "type": null, "time": null,
              "idempotency_key": "reserve-stock/orders-1/0/8", "attempt": 2, "traceparent": "00-abc-def-01",
              "data": { "id": "e8", "key": "b", "traceparent": "00-abc-def-01" } },
        ] })
    );
    assert_eq!(asked[0].header("authorization"), Some("Bearer s3cret"));
    assert_eq!(asked[0].header("idempotency-key"), None);
    assert_eq!(asked[1].header("idempotency-key"), Some("reserve-stock/orders-1/0/9"));
    assert_eq!(asked[1].header("traceparent"), Some("00-abc-def-01"));
    assert_eq!(rows(&handler.arbiter(), "SELECT seq, next_offset FROM recount_position"), "2 10");
}

#[tokio::test]
async fn verdicts_are_taken_by_position_or_id() {
    let handler = Handler::new(|_, _| {
        ok(&json!({ "verdicts": [
            { "id": "e1", "verdict": "skip", "reason": "sold_out" },
            { "position": "reserve-stock/0/0", "verdict": "applied" },
            { "id": "e2", "position": "reserve-stock/0/2", "verdict": "skip", "reason": "sold_out",
              "because": "the last one went yesterday" },
        ] }))
    })
    .await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let events: Vec<_> = (0..3).map(|offset| handler.event(offset, &format!("k{offset}"))).collect();
    let outcomes = owner.apply(&events).await;
    assert_eq!(told(&outcomes), ["applied", "skip sold_out", "skip sold_out"]);
    assert_eq!(sentence(&outcomes[1]), "nothing is left");
    assert_eq!(sentence(&outcomes[2]), "the last one went yesterday");
    assert_eq!(evidence(&outcomes[1])["verdict"]["reason"], "sold_out");
}

#[tokio::test]
async fn an_event_without_a_plain_verdict_has_none() {
    let applied = |entry: Value| json!({ "verdicts": [entry] });
    let cases: Vec<(&str, Value, &str, &str)> = vec![
        ("no verdicts at all", json!({ "ok": true }), "no_verdict", "without `verdicts`"),
        ("not a list", json!({ "verdicts": { "e0": "applied" } }), "no_verdict", "without `verdicts`"),
        ("too few", json!({ "verdicts": [] }), "no_verdict", "leaves this event out"),
        (
            "an unknown id",
            applied(json!({ "id": "e99", "verdict": "applied" })),
            "no_verdict",
            "leaves this event out",
        ),
        (
            "id and position differ",
            applied(json!({ "id": "e9", "position": "reserve-stock/0/0", "verdict": "applied" })),
            "no_verdict",
            "leaves this event out",
        ),
        ("another word", applied(json!({ "id": "e0", "verdict": "ok" })), "no_verdict", "\"ok\""),
        ("no word", applied(json!({ "id": "e0" })), "no_verdict", "must be applied"),
        (
            "no reason",
            applied(json!({ "id": "e0", "verdict": "skip" })),
            "undeclared_reason",
            "without a reason",
        ),
        (
            "an undeclared reason",
            applied(json!({ "id": "e0", "verdict": "retry", "reason": "mood" })),
            "undeclared_reason",
            "\"mood\"",
        ),
        (
            "another verdict than declared",
            applied(json!({ "id": "e0", "verdict": "retry", "reason": "sold_out" })),
            "undeclared_reason",
            "declared with another verdict",
        ),
        (
            "no code",
            applied(json!({ "id": "e0", "verdict": "skip", "reason": "No!" })),
            "undeclared_reason",
            "\"No!\"",
        ),
        (
            "two verdicts",
            json!({ "verdicts": [{ "id": "e0", "verdict": "applied" }, { "id": "e0", "verdict": "skip", "reason": "sold_out" }] }),
            "no_verdict",
            "two different verdicts",
        ),
    ];
    for (name, answer, code, expected) in cases {
        let given = answer.clone();
        let handler = Handler::new(move |_, _| ok(&given)).await;
        let mut owner = Owner::take(&handler.effect, at()).await;
        let outcomes = owner.apply(&[handler.event(0, "a")]).await;
        assert_eq!(told(&outcomes), [format!("dead-letter {code}")], "{name}");
        assert!(sentence(&outcomes[0]).contains(expected), "{name}: {}", sentence(&outcomes[0]));
        if code == "no_verdict" {
            let whole: Value =
                serde_json::from_str(evidence(&outcomes[0])["answer"].as_str().unwrap()).unwrap();
            assert_eq!(whole, answer, "{name}");
        }
    }
}

#[tokio::test]
async fn the_same_verdict_twice_is_one() {
    let entry = json!({ "id": "e0", "verdict": "applied" });
    let handler = Handler::new(move |_, _| ok(&json!({ "verdicts": [entry, entry] }))).await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    assert_eq!(told(&owner.apply(&[handler.event(0, "a")]).await), ["applied"]);
}

#[tokio::test]
async fn an_id_that_was_sent_twice_names_neither() {
    let handler =
        Handler::new(|_, _| ok(&json!({ "verdicts": [{ "id": "same", "verdict": "applied" }] }))).await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let event =
        |offset: u64| checked(&handler.checks, offset, &json!({ "id": "same", "key": offset.to_string() }));
    let outcomes = owner.apply(&[event(0), event(1)]).await;
    assert_eq!(told(&outcomes), ["dead-letter no_verdict", "dead-letter no_verdict"]);
}

#[tokio::test]
async fn an_answer_that_is_no_json_is_kept_cut() {
    let handler = Handler::new(|_, _| "ß".repeat(5000).into_response()).await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let outcomes = owner.apply(&[handler.event(0, "a"), handler.event(1, "b")]).await;
    assert_eq!(told(&outcomes), ["dead-letter no_verdict", "dead-letter no_verdict"]);
    assert_eq!(evidence(&outcomes[1])["answer"].as_str().unwrap().len(), 4096);
    let empty = Handler::new(|_, _| axum::http::StatusCode::NO_CONTENT.into_response()).await;
    let mut owner = Owner::take(&empty.effect, at()).await;
    let outcomes = owner.apply(&[empty.event(0, "a")]).await;
    assert_eq!(told(&outcomes), ["dead-letter no_verdict"]);
    assert_eq!(evidence(&outcomes[0])["status"], 204);
}

#[tokio::test]
async fn a_key_stands_once_in_a_request_and_keeps_its_order() {
    let handler = Handler::with(
        |_, body| all(body, &json!({ "verdict": "applied" })),
        |settings| settings.events_a_request_max = 2,
    )
    .await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let keys = ["a", "a", "b", "c", "a", "b"];
    let events: Vec<_> = keys.iter().enumerate().map(|(i, key)| handler.event(i as u64, key)).collect();
    assert_eq!(told(&owner.apply(&events).await), ["applied"; 6]);
    let ids: Vec<Vec<String>> =
        handler.asked().iter().map(|a| a.ids().iter().map(|id| (*id).to_owned()).collect()).collect();
    assert_eq!(ids, [vec!["e0", "e2"], vec!["e3"], vec!["e1", "e5"], vec!["e4"]]);
}

#[tokio::test]
async fn a_retry_holds_its_key_and_later_events_of_it_are_not_sent() {
    let handler = Handler::new(|_, body| {
        let verdict = |event: &Value| match event["key"].as_str() {
            Some("a") => json!({ "id": event["id"], "verdict": "retry", "reason": "not_yet" }),
            _ => json!({ "id": event["id"], "verdict": "applied" }),
        };
        let verdicts: Vec<Value> = body["events"].as_array().unwrap().iter().map(verdict).collect();
        ok(&json!({ "verdicts": verdicts }))
    })
    .await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let keys = ["a", "b", "a", "b", "a"];
    let events: Vec<_> = keys.iter().enumerate().map(|(i, key)| handler.event(i as u64, key)).collect();
    let outcomes = owner.apply(&events).await;
    assert_eq!(told(&outcomes), ["retry not_yet", "applied", "behind", "applied", "behind"]);
    let Outcome::Said { verdict: Verdict::Retry(reason), .. } = &outcomes[0] else { panic!() };
    assert_eq!(reason.sentence, "the shop is closed");
    let asked = handler.asked();
    assert_eq!((asked[0].ids(), asked[1].ids()), (vec!["e0", "e1"], vec!["e3"]));
    assert_eq!(asked.len(), 2);
}

#[tokio::test]
async fn a_replay_is_sent_once() {
    let handler = Handler::new(|_, body| all(body, &json!({ "verdict": "applied" }))).await;
    let mut owner = Owner::take(&handler.effect, at()).await;
    let again = || replayed(handler.event(3, "a"), 7, 1);
    assert_eq!(told(&owner.apply(&[again(), again()]).await), ["applied", "already replayed"]);
    assert_eq!(told(&owner.apply(&[again()]).await), ["already replayed"]);
    assert_eq!(handler.asked().len(), 1);
}
