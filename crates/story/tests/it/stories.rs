//! What is told, word for word.

use crate::memory::MemoryLedger;
use expect_test::expect;
use recount_ledger::{JournalEntry, JournalKind, StoredConfig};
use recount_model::batch::Attempt;
use recount_model::{
    BatchRecord, ConfigVersion, Corrects, Decision, Fate, FlowName, Header, KeptBody, OffsetSet, Origin,
    Partition, PartitionId, PayloadHash, Reason, ReasonCode, SourceId, Timestamp,
};
use recount_story::{LetterFilter, Secrets, StoryOptions, dead_letters, render, show, story};
use std::collections::{BTreeMap, BTreeSet};

const SHORT: ReasonCode = ReasonCode::literal("insufficient_stock");
const BULK: ReasonCode = ReasonCode::literal("bulk_order");
const START: i64 = 1_795_379_926_000;

fn at(flow: &str) -> PartitionId {
    PartitionId {
        flow: FlowName::new(flow).unwrap(),
        source: SourceId::new("file-1"),
        partition: Partition::new("orders"),
    }
}

fn decision(offset: u64, key: &str, fate: Fate) -> Decision {
    let refused = matches!(fate, Fate::DeadLettered(_));
    Decision {
        offset,
        event_id: Some(format!("o-{offset}").into()),
        key: Some(key.into()),
        payload_hash: PayloadHash(offset),
        fate,
        flags: vec![],
        attempt: 1,
        event_time: None,
        origin: Origin::Ran,
        corrects: None,
        evidence: refused.then(|| r#"{"rows":0}"#.into()),
        received: true,
        measures: vec![],
    }
}

fn short() -> Fate {
    Fate::DeadLettered(Reason::new(SHORT, "less on hand than asked for"))
}

pub struct Told {
    pub ledger: MemoryLedger,
}

impl Told {
    fn new() -> Self {
        let config = |version, author: &str| StoredConfig {
            version: ConfigVersion(version),
            hash: "00".into(),
            text: String::new(),
            files: vec![],
            author: author.into(),
            revision: "abc123".into(),
            since: Timestamp(START),
        };
        let ledger = MemoryLedger { configs: vec![config(1, "ana"), config(2, "ben")], ..Default::default() };
        Self { ledger }
    }

    fn next_offset(&self, flow: &str) -> u64 {
        let last = self.ledger.batches.iter().rev().find(|batch| batch.at == at(flow));
        last.map_or(0, |batch| batch.next_offset)
    }

    fn batch(&mut self, flow: &str, config: u32, decisions: Vec<Decision>) -> &mut BatchRecord {
        let seq = 1 + self.ledger.batches.iter().filter(|b| b.at == at(flow)).count() as u64;
        let instant = Timestamp(START + 60_000 * self.ledger.batches.len() as i64);
        let next_offset = self.next_offset(flow).max(decisions.last().map_or(0, |d| d.offset + 1));
        self.ledger.batches.push(BatchRecord {
            at: at(flow),
            epoch: 1,
            seq,
            config: ConfigVersion(config),
            taken_at: instant,
            decided_at: instant,
            next_offset,
            decisions,
            gaps: vec![],
            bodies: vec![],
            decided_above: OffsetSet::new(),
        });
        self.ledger.batches.last_mut().unwrap()
    }

    fn text(&self, asked: &str) -> String {
        render::text(&story(&self.ledger, asked, &StoryOptions::default()).unwrap())
    }
}

pub fn an_eventful_key() -> Told {
    let mut told = Told::new();
    let flagged = Decision { flags: vec![BULK], ..decision(1, "1095275", Fate::Applied) };
    told.batch("reserve-stock", 1, vec![decision(0, "1095275", Fate::Applied), flagged]);
    let refused = Decision { attempt: 2, ..decision(2, "1095275", short()) };
    let batch = told.batch("reserve-stock", 2, vec![refused, decision(3, "other", Fate::Applied)]);
    let attempt =
        |number, found: &str| Attempt { number, at: Timestamp(START + 100), found: found.to_owned() };
    batch.bodies.push(KeptBody {
        offset: 2,
        payload: br#"{"id":"o-2","sku":"1095275","customer_id":77}"#.to_vec(),
        payload_bytes: 45,
        headers: vec![
            Header { name: "traceparent".into(), value: "00-1".into() },
            Header { name: "Authorization".into(), value: "Bearer x".into() },
        ],
        attempts: vec![attempt(1, "retry timeout: no answer"), attempt(2, "insufficient_stock")],
    });
    told.ledger.journal.push(JournalEntry {
        kind: JournalKind::Operator,
        flow: Some(FlowName::new("reserve-stock").unwrap()),
        what: "resumed".into(),
        at: Timestamp(START + 90_000),
        persisted_at: Timestamp(START + 90_000),
        detail: serde_json::json!({ "because": "stock was counted", "by": "ana" }),
    });
    let corrects = Some(Corrects { seq: 2, replay_id: 4 });
    told.batch("reserve-stock", 2, vec![Decision { corrects, ..decision(2, "1095275", Fate::Applied) }]);
    told.batch("bill", 2, vec![decision(9, "1095275", short())]);
    told
}

#[test]
fn a_story_tells_what_was_decided_and_what_changed() {
    expect![[r#"
        4 events about 1095275 in flows bill, reserve-stock: 3 applied, 1 dead-lettered insufficient_stock; replayed: 1 dead-lettered insufficient_stock became applied

        2026-11-22T20:38:46Z  config 1 decides from here: by ana, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:38:46Z  event o-0 at reserve-stock/orders/0 was applied
        2026-11-22T20:38:46Z  event o-1 at reserve-stock/orders/1 was applied
            flags bulk_order
        2026-11-22T20:39:46Z  config 2 decides from here: by ben, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:39:46Z  event o-2 at reserve-stock/orders/2 was dead-lettered, insufficient_stock: less on hand than asked for
            at attempt 2
            attempt 1 at 2026-11-22T20:38:46.100Z: retry timeout: no answer
            attempt 2 at 2026-11-22T20:38:46.100Z: insufficient_stock
            found {"rows":0}
            replay 4 decided it anew at 2026-11-22T20:40:46Z: it was applied
        2026-11-22T20:40:16Z  operator ana: reserve-stock resumed, stock was counted
        2026-11-22T20:40:46Z  event o-2 at reserve-stock/orders/2 was applied
            replay 4 decided it anew; before, it was dead-lettered insufficient_stock
        2026-11-22T20:41:46Z  config 2 decides from here: by ben, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:41:46Z  event o-9 at bill/orders/9 was dead-lettered, insufficient_stock: less on hand than asked for
            found {"rows":0}
            next: recount dead-letters show bill/orders/9
    "#]].assert_eq(&an_eventful_key().text("1095275"));
}

#[test]
fn an_id_and_a_position_lead_to_their_one_event() {
    expect![[r#"
        1 event about o-3 in flow reserve-stock: 1 applied

        2026-11-22T20:39:46Z  config 2 decides from here: by ben, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:39:46Z  event o-3 (key other) at reserve-stock/orders/3 was applied
        2026-11-22T20:40:16Z  operator ana: reserve-stock resumed, stock was counted
    "#]]
    .assert_eq(&an_eventful_key().text("o-3"));
    expect![[r#"
        1 event at reserve-stock/orders/2 in flow reserve-stock: 1 applied; replayed: 1 dead-lettered insufficient_stock became applied

        2026-11-22T20:39:46Z  config 2 decides from here: by ben, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:39:46Z  event o-2 (key 1095275) at reserve-stock/orders/2 was dead-lettered, insufficient_stock: less on hand than asked for
            at attempt 2
            attempt 1 at 2026-11-22T20:38:46.100Z: retry timeout: no answer
            attempt 2 at 2026-11-22T20:38:46.100Z: insufficient_stock
            found {"rows":0}
            replay 4 decided it anew at 2026-11-22T20:40:46Z: it was applied
        2026-11-22T20:40:16Z  operator ana: reserve-stock resumed, stock was counted
        2026-11-22T20:40:46Z  event o-2 (key 1095275) at reserve-stock/orders/2 was applied
            replay 4 decided it anew; before, it was dead-lettered insufficient_stock
    "#]].assert_eq(&an_eventful_key().text("reserve-stock/orders/2"));
    expect![[r#"
        nothing was decided about nobody: no key, id or position in this ledger is called that
    "#]]
    .assert_eq(&an_eventful_key().text("nobody"));
}

#[test]
fn many_applied_events_are_folded_unless_all_are_asked_for() {
    let mut told = Told::new();
    for batch in 0..50_u64 {
        let decisions = (0..10)
            .map(|i| batch * 10 + i)
            .map(|o| decision(o, "k", if o == 250 { short() } else { Fate::Applied }))
            .collect();
        told.batch("reserve-stock", 1, decisions);
    }
    expect![[r#"
        500 events about k in flow reserve-stock: 499 applied, 1 dead-lettered insufficient_stock

        2026-11-22T20:38:46Z  config 1 decides from here: by ana, revision abc123, since 2026-11-22T20:38:46Z
        2026-11-22T20:38:46Z  250 events applied until 2026-11-22T21:02:46Z, from reserve-stock/orders/0 to reserve-stock/orders/249
        2026-11-22T21:03:46Z  event o-250 at reserve-stock/orders/250 was dead-lettered, insufficient_stock: less on hand than asked for
            found {"rows":0}
            next: recount dead-letters show reserve-stock/orders/250
        2026-11-22T21:03:46Z  249 events applied until 2026-11-22T21:27:46Z, from reserve-stock/orders/251 to reserve-stock/orders/499
    "#]].assert_eq(&told.text("k"));
    let all = StoryOptions { all: true, ..Default::default() };
    assert_eq!(story(&told.ledger, "k", &all).unwrap().entries.len(), 501);
    let few = StoryOptions { decisions_max: 30, ..Default::default() };
    assert_eq!(story(&told.ledger, "k", &few).unwrap().more, 470);
}

#[test]
fn the_json_form_has_the_evidence_as_json() {
    let told = an_eventful_key();
    let json = story(&told.ledger, "1095275", &StoryOptions::default()).unwrap().json();
    assert_eq!(json["events"], 4);
    let refused = json["entries"].as_array().unwrap().iter().find(|e| e["reason"] == "insufficient_stock");
    let refused = refused.unwrap();
    assert_eq!(refused["evidence"]["rows"], 0);
    assert_eq!(refused["position"], "reserve-stock/orders/2");
    assert_eq!(refused["current"], false);
    assert_eq!(refused["attempts"][0]["found"], "retry timeout: no answer");
}

#[test]
fn dead_letters_are_those_whose_current_fate_it_is() {
    let (mut told, open) = (an_eventful_key(), Secrets::default());
    expect![[r#"
        1 dead letter: 1 insufficient_stock in bill
        2026-11-22T20:41:46Z  event o-9 (key 1095275) at bill/orders/9 was dead-lettered, insufficient_stock: less on hand than asked for
    "#]].assert_eq(&dead_letters(&told.ledger, &LetterFilter::default(), &open).unwrap().text());
    told.batch("bill", 2, (10..15).map(|o| decision(o, "k", short())).collect());
    let newest = LetterFilter { letters_max: 2, key: Some("k".into()), ..Default::default() };
    expect![[r#"
        5 dead letters: 5 insufficient_stock in bill
        the newest 2; 3 older ones are not shown
        2026-11-22T20:42:46Z  event o-13 (key k) at bill/orders/13 was dead-lettered, insufficient_stock: less on hand than asked for
        2026-11-22T20:42:46Z  event o-14 (key k) at bill/orders/14 was dead-lettered, insufficient_stock: less on hand than asked for
    "#]].assert_eq(&dead_letters(&told.ledger, &newest, &open).unwrap().text());
    let other = LetterFilter { reason: Some(BULK), ..Default::default() };
    assert_eq!(dead_letters(&told.ledger, &other, &open).unwrap().total, 0);
}

#[test]
fn one_dead_letter_is_shown_whole_and_without_secrets() {
    let told = an_eventful_key();
    let flow = FlowName::new("reserve-stock").unwrap();
    let paths = BTreeMap::from([(flow, vec!["event.customer_id".to_owned()])]);
    let secret = Secrets { paths, ..Default::default() };
    let letter = show(&told.ledger, "o-2", &secret).unwrap().unwrap();
    expect![[r#"
        event o-2 (key 1095275) at reserve-stock/orders/2 was dead-lettered, insufficient_stock: less on hand than asked for
          decided 2026-11-22T20:39:46Z by config 2
          a later decision replaced this one
          found {"rows":0}
          attempt 1 at 2026-11-22T20:38:46.100Z: retry timeout: no answer
          attempt 2 at 2026-11-22T20:38:46.100Z: insufficient_stock
          header traceparent: 00-1
          header Authorization: (secret)
          payload, 45 bytes:
            {
              "id": "o-2",
              "sku": "1095275",
              "customer_id": "(secret)"
            }
          next: recount explain insufficient_stock
          next: recount story 1095275
    "#]].assert_eq(&letter.text());
    assert_eq!(letter.json()["payload"]["customer_id"], "(secret)");
    let gone = show(&told.ledger, "bill/orders/9", &secret).unwrap().unwrap();
    expect![[r#"
        event o-9 (key 1095275) at bill/orders/9 was dead-lettered, insufficient_stock: less on hand than asked for
          decided 2026-11-22T20:41:46Z by config 2
          found {"rows":0}
          the payload is no longer kept
          next: recount explain insufficient_stock
          next: recount story 1095275
          next: recount replay bill --dead-letter bill/orders/9 --dry-run
    "#]].assert_eq(&gone.text());
    assert_eq!(show(&told.ledger, "o-0", &secret).unwrap(), None);
}

#[test]
fn secret_ids_and_keys_are_found_and_not_shown() {
    let told = an_eventful_key();
    let flows: BTreeSet<FlowName> =
        ["reserve-stock", "bill"].iter().map(|name| FlowName::new(name).unwrap()).collect();
    let secrets = Secrets { ids: flows.clone(), keys: flows, ..Default::default() };
    let options = StoryOptions { secrets: secrets.clone(), ..Default::default() };
    let found = story(&told.ledger, "1095275", &options).unwrap();
    assert_eq!(found.events, 4);
    let text = render::text(&found) + &found.json()["entries"].to_string();
    assert!(!text.contains("o-2"), "{text}");
    let letter = show(&told.ledger, "o-9", &secrets).unwrap().unwrap();
    assert!(!letter.text().contains("o-9") && !letter.text().contains("1095275"), "{}", letter.text());
}
