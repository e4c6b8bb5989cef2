//! DESIGN §12 and §4: what a handler in another language may answer.

use crate::harness::{World, config, eventually, order};
use crate::http_server::{Handler, handler};
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

fn world(handler: &Handler) -> World {
    let apply = format!(
        "[flow.stock.away]\nbackoff = \"50ms\"\nbackoff_max = \"100ms\"\n\n[flow.stock.apply]\nhttp = \"{}\"\n\n\
         [[flow.stock.apply.reason]]\nreason = \"card_declined\"\nverdict = \"dead-letter\"\nbecause = \"the bank refused\"\n",
        handler.url
    );
    World::new(&config("key = \"event.id\"", &apply))
}

/// A verdict for each event that was sent.
fn verdicts(body: &Value, verdict: impl Fn(&str) -> Value) -> Value {
    let events = body["events"].as_array().unwrap();
    let entry = |event: &Value| {
        let mut entry = verdict(event["id"].as_str().unwrap());
        entry["position"] = event["position"].clone();
        entry
    };
    json!({ "verdicts": events.iter().map(entry).collect::<Vec<_>>() })
}

/// What three events get where the handler answers so.
fn fates_for(answer: impl Fn(&Value) -> Value + Send + 'static) -> Vec<String> {
    let handler = handler(move |_, body| (200, answer(body).to_string()));
    let world = world(&handler);
    world.lines(&["h0", "h1", "h2"].map(|id| order(id, "a", 1)));
    world.run();
    let decisions = world.decisions();
    for decision in decisions.iter().filter(|d| d["reason"] == "no_verdict") {
        assert_eq!(decision["evidence"]["status"], 200, "the answer is evidence: {decision}");
    }
    world.fates()
}

#[test]
fn a_verdict_for_each_event_is_what_becomes_of_it() {
    let applied = fates_for(|body| verdicts(body, |_| json!({ "verdict": "applied" })));
    assert_eq!(applied, ["applied"; 3]);
    let one_declined = fates_for(|body| {
        verdicts(body, |id| match id {
            "h1" => json!({ "verdict": "dead-letter", "reason": "card_declined" }),
            _ => json!({ "verdict": "applied" }),
        })
    });
    assert_eq!(one_declined, ["applied", "dead-lettered card_declined", "applied"]);
}

#[test]
fn an_answer_without_a_verdict_for_an_event_is_a_dead_letter() {
    let none = "dead-lettered no_verdict";
    assert_eq!(fates_for(|_| json!({})), [none; 3]);
    assert_eq!(fates_for(|_| json!("fine")), [none; 3]);
    let too_few = fates_for(|body| {
        let mut answer = verdicts(body, |_| json!({ "verdict": "applied" }));
        answer["verdicts"].as_array_mut().unwrap().truncate(2);
        answer
    });
    assert_eq!(too_few, ["applied", "applied", none]);
    let unknown_ids = fates_for(
        |_| json!({ "verdicts": [{ "id": "h99", "verdict": "applied" }, { "id": "h1", "verdict": "applied" }] }),
    );
    assert_eq!(unknown_ids, [none, "applied", none]);
    let undeclared =
        fates_for(|body| verdicts(body, |_| json!({ "verdict": "skip", "reason": "felt_like_it" })));
    assert_eq!(undeclared, ["dead-lettered undeclared_reason"; 3]);
}

#[test]
fn a_handler_that_fails_pauses_the_flow_and_nothing_is_dead_lettered() {
    let handler = handler(|nth, body| match nth {
        0..=2 => (500, "it crashed".to_owned()),
        _ => (200, verdicts(body, |_| json!({ "verdict": "applied" })).to_string()),
    });
    let world = world(&handler);
    world.lines(&["h0", "h1", "h2"].map(|id| order(id, "a", 1)));
    let told = world.run().expect(0);
    assert_eq!(world.fates(), ["applied"; 3]);
    assert!(handler.requests.load(Ordering::SeqCst) >= 4);
    assert!(told.err.contains("effects_away"), "{}", told.err);
    let attempts: Vec<Value> = world.decisions().iter().map(|d| d["attempt"].clone()).collect();
    assert_eq!(attempts, [1, 1, 1], "no attempt is counted against an event");
}

#[test]
fn a_handler_that_is_not_there_keeps_the_flow_waiting_until_it_is_asked_to_stop() {
    let gone = {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        Handler {
            url: format!("http://{}/reserve", listener.local_addr().unwrap()),
            requests: Default::default(),
            bodies: Default::default(),
        }
    };
    let world = world(&gone);
    world.lines(&[order("h0", "a", 1)]);
    let running = world.start(&["run", "--json"]);
    eventually("the flow says that it waits", || running.log().contains("effects_away"));
    assert_eq!(running.get("/health/running").0, 200);
    assert_eq!(running.get("/health/working").0, 503);
    running.terminate();
    assert!(world.fates().is_empty());
    assert!(world.journal().iter().any(|(what, _)| what == "effects_away"), "{:?}", world.journal());
}

#[test]
fn a_batch_sent_again_carries_the_same_idempotency_keys() {
    let handler = handler(|nth, body| match nth {
        0 => (503, String::new()),
        _ => (200, verdicts(body, |_| json!({ "verdict": "applied" })).to_string()),
    });
    let world = world(&handler);
    world.lines(&[order("h0", "a", 1)]);
    world.run().expect(0);
    let bodies = handler.bodies.lock().unwrap();
    let keys: Vec<&Value> = bodies.iter().map(|body| &body["events"][0]["idempotency_key"]).collect();
    assert_eq!(keys.len(), 2);
    assert_eq!(keys[0], keys[1]);
    assert!(keys[0].as_str().unwrap().starts_with("stock/"), "{keys:?}");
}

#[test]
fn an_event_that_kills_the_process_three_times_while_alone_is_a_dead_letter() {
    let pid = Arc::new(AtomicU64::new(0));
    let killed = Arc::new(AtomicU64::new(0));
    let (victim, kills) = (Arc::clone(&pid), Arc::clone(&killed));
    let handler = handler(move |_, body| {
        let events = body["events"].as_array().unwrap();
        if events.iter().any(|event| event["id"] == "h2") {
            let raw = i32::try_from(victim.load(Ordering::SeqCst)).unwrap();
            let process = rustix::process::Pid::from_raw(raw).unwrap();
            rustix::process::kill_process(process, rustix::process::Signal::KILL).unwrap();
            kills.fetch_add(1, Ordering::SeqCst);
        }
        (200, verdicts(body, |_| json!({ "verdict": "applied" })).to_string())
    });
    let world = world(&handler);
    world.lines(&["h0", "h1", "h2", "h3"].map(|id| order(id, "a", 1)));
    let mut codes = Vec::new();
    for _ in 0..8 {
        let mut running = world.start(&["run"]);
        pid.store(running.child.id().into(), Ordering::SeqCst);
        let code = running.wait().code;
        codes.push(code);
        if code.is_some() {
            break;
        }
    }
    assert_eq!(
        world.fates(),
        ["applied", "applied", "dead-lettered killed_the_process", "applied"],
        "{codes:?}"
    );
    // Once in company, which proves nothing, and three times alone.
    assert_eq!(killed.load(Ordering::SeqCst), 4, "{codes:?}");
    world.audit().expect(0);
}
