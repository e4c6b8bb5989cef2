//! Not a test of time: prints how the plain form compares with a bare loop. Run it in release with
//! `--ignored --nocapture speed`; `RECOUNT_STOCK` and `RECOUNT_ORDERS` (plain CSV and NDJSON) name real
//! input in place of a made-up one.

use crate::flow::*;
use recount_adapters::sqlite::SqliteEffect;
use recount_engine::EffectEvent;
use rusqlite::{Connection, params};
use serde_json::Value;
use std::path::Path;
use std::time::Instant;

const ARTICLES: usize = 92_331;
const EVENTS: usize = 100_000;
const BATCH: usize = 500;

/// Articles: from the CSV's first column, or made up.
fn articles() -> Vec<String> {
    match std::env::var("RECOUNT_STOCK") {
        Ok(file) => {
            let text = std::fs::read_to_string(file).unwrap();
            text.lines().skip(1).map(|line| line.split(',').next().unwrap().to_owned()).collect()
        }
        Err(_) => (0..ARTICLES).map(sku).collect(),
    }
}

/// Orders as events: from the file, or a fixed pseudo-random walk over the articles.
fn orders() -> Vec<EffectEvent> {
    let checks = checks(&["quantity", "sku"]);
    match std::env::var("RECOUNT_ORDERS") {
        Ok(file) => {
            let text = std::fs::read_to_string(file).unwrap();
            let event = |(offset, line): (usize, &str)| {
                let mut json: Value = serde_json::from_str(line).unwrap();
                json["key"] = json["sku"].clone();
                checked(&checks, offset as u64, &json)
            };
            text.lines().enumerate().map(event).collect()
        }
        Err(_) => (0..EVENTS).map(|event| order(&checks, event as u64, &article(event), 1)).collect(),
    }
}

fn fill(path: &Path) {
    let conn = make(
        path,
        "PRAGMA journal_mode = WAL;
         CREATE TABLE stock (sku TEXT PRIMARY KEY, department TEXT, brand TEXT, category TEXT,
                             on_hand INTEGER NOT NULL) STRICT;",
    );
    conn.execute_batch("BEGIN").unwrap();
    let mut insert =
        conn.prepare("INSERT INTO stock VALUES (?1, 'GROCERY', 'National', 'FRZN ICE', 10000)").unwrap();
    for article in articles() {
        insert.execute([article]).unwrap();
    }
    drop(insert);
    conn.execute_batch("COMMIT").unwrap();
}

fn sku(article: usize) -> String {
    (25_671 + article * 173).to_string()
}

/// Every hundredth doesn't exist.
fn article(event: usize) -> String {
    if event % 100 == 99 {
        "none".to_owned()
    } else {
        sku((event.wrapping_mul(2_654_435_761) >> 7) % ARTICLES)
    }
}

fn bare(path: &Path, events: &[EffectEvent]) -> f64 {
    let conn = Connection::open(path).unwrap();
    conn.pragma_update(None, "synchronous", "FULL").unwrap();
    conn.execute_batch(
        "CREATE TABLE bare_effect (flow TEXT, source_id TEXT, partition TEXT, n INTEGER, id TEXT)",
    )
    .unwrap();
    let started = Instant::now();
    let mut update = conn.prepare(TAKE_STOCK).unwrap();
    let mut effect = conn.prepare("INSERT INTO bare_effect VALUES (?1, ?2, ?3, ?4, ?5)").unwrap();
    for batch in events.chunks(BATCH) {
        conn.execute_batch("BEGIN IMMEDIATE").unwrap();
        for event in batch {
            let data = &event.event.data;
            let (sku, quantity) = (data["sku"].as_str().unwrap(), data["quantity"].as_i64().unwrap());
            let changed =
                update.execute(rusqlite::named_params! { ":quantity": quantity, ":sku": sku }).unwrap();
            if changed == 1 {
                let meta = &event.event.meta;
                effect
                    .execute(params![
                        "reserve-stock",
                        "orders-1",
                        "0",
                        meta.offset as i64,
                        meta.id.as_deref()
                    ])
                    .unwrap();
            }
        }
        conn.execute_batch("COMMIT").unwrap();
    }
    events.len() as f64 / started.elapsed().as_secs_f64()
}

async fn ours(path: &Path, events: &[EffectEvent]) -> f64 {
    let effect = SqliteEffect::open(settings(path, vec![stock_route()])).unwrap();
    let mut owner = Owner::take(&effect, at()).await;
    let started = Instant::now();
    for (seq, batch) in events.chunks(BATCH).enumerate() {
        owner.ledger_has_seq = seq as u64;
        owner.apply(batch).await;
    }
    events.len() as f64 / started.elapsed().as_secs_f64()
}

#[tokio::test]
#[ignore = "prints figures"]
async fn speed() {
    let events = orders();
    for pair in 0..5 {
        let folder = tempfile::tempdir().unwrap();
        let (one, other) = (folder.path().join("bare.db"), folder.path().join("ours.db"));
        fill(&one);
        fill(&other);
        let (bare, ours) = (bare(&one, &events), ours(&other, &events).await);
        println!(
            "pair {pair}: bare loop {bare:.0} events/s, effect {ours:.0} events/s, ratio {:.2}",
            ours / bare
        );
    }
}
