//! Figures over real orders. By hand, in a release build:
//! `RECOUNT_ORDERS=orders.ndjson cargo test --release -p recount-ledger -- --ignored --nocapture measured`.

use crate::data::{NOON, all_of, code, encoded, partition, settings};
use recount_ledger::{
    DecisionFilter, LedgerRead, LedgerReader, LedgerSettings, LedgerStore, SqliteLedger, codec,
};
use recount_model::{
    BatchRecord, ConfigVersion, Decision, Fate, KeptBody, OffsetSet, Origin, PayloadHash, Reason, Timestamp,
};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;
use std::time::Instant;

/// RFC 3339 in UTC without a fraction, as the orders have it.
fn parse_time(text: &str) -> Timestamp {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let days_before_month = [0, 31, 59, 90, 120, 151, 181, 212, 243, 273, 304, 334];
    let days = (number(0..4) - 1970) * 365
        + (number(0..4) - 1969) / 4
        + days_before_month[number(5..7) as usize - 1]
        + number(8..10)
        - 1;
    Timestamp((((days * 24 + number(11..13)) * 60 + number(14..16)) * 60 + number(17..19)) * 1000)
}

fn decision(offset: u64, line: &str) -> (Decision, Option<KeptBody>) {
    let event: serde_json::Value = serde_json::from_str(line).unwrap();
    let (id, quantity) = (event["id"].as_str().unwrap(), event["quantity"].as_i64().unwrap());
    let digest = blake3::hash(line.as_bytes());
    let body = || KeptBody {
        offset,
        payload: line.as_bytes().to_vec(),
        payload_bytes: line.len() as u64,
        headers: Vec::new(),
        attempts: Vec::new(),
    };
    let (fate, kept) = match (quantity, offset % 121) {
        (0, _) => {
            let reason =
                Reason::new(code("zero_quantity"), "an order line for nothing takes nothing out of stock");
            (Fate::Skipped(reason), None)
        }
        (_, 0) => {
            let reason = Reason::new(code("insufficient_stock"), "less on hand than asked for");
            (Fate::DeadLettered(reason), Some(body()))
        }
        _ => (Fate::Applied, None),
    };
    let is_plain = fate == Fate::Applied;
    let decision = Decision {
        offset,
        event_id: Some(id.into()),
        key: Some(event["sku"].as_str().unwrap().into()),
        payload_hash: PayloadHash(u64::from_be_bytes(digest.as_bytes()[..8].try_into().unwrap())),
        fate,
        flags: if quantity > 100 { vec![code("bulk_order")] } else { Vec::new() },
        attempt: 1,
        event_time: Some(parse_time(event["placed_at"].as_str().unwrap())),
        origin: Origin::Ran,
        corrects: None,
        evidence: (!is_plain).then(|| format!("{{\"rows\":[0],\"quantity\":{quantity}}}").into()),
        received: true,
        measures: vec![Some(recount_model::decision::Measure {
            amount: recount_model::Amount::from_integer(quantity),
            group: None,
        })],
    };
    (decision, kept)
}

fn batches(text: &str) -> Vec<BatchRecord> {
    let lines: Vec<&str> = text.lines().collect();
    let batch = |(nth, lines): (usize, &[&str])| {
        let first = nth as u64 * 500;
        let both: Vec<_> = lines.iter().zip(first..).map(|(line, offset)| decision(offset, line)).collect();
        let taken_at = Timestamp(NOON + nth as i64 * 10);
        BatchRecord {
            at: partition("orders.ndjson"),
            epoch: 1,
            seq: nth as u64 + 1,
            config: ConfigVersion(1),
            taken_at,
            decided_at: Timestamp(taken_at.0 + 9),
            next_offset: first + lines.len() as u64,
            bodies: both.iter().filter_map(|(_, body)| body.clone()).collect(),
            decisions: both.into_iter().map(|(decision, _)| decision).collect(),
            gaps: Vec::new(),
            decided_above: OffsetSet::new(),
        }
    };
    lines.chunks(500).enumerate().map(batch).collect()
}

/// What this thread used of a processor, in seconds: on a busy machine more telling than the clock.
fn cpu_seconds() -> f64 {
    let told = std::fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    told.split(' ').next().and_then(|nanos| nanos.parse::<f64>().ok()).unwrap_or(0.0) / 1e9
}

fn timed<T>(what: &str, events: usize, work: impl FnOnce() -> T) -> T {
    let (begin, cpu) = (Instant::now(), cpu_seconds());
    let done = work();
    let (took, cpu) = (begin.elapsed().as_secs_f64(), cpu_seconds() - cpu);
    let each = cpu * 1e6 / events as f64;
    let (wall_ms, cpu_ms, rate) = (took * 1e3, cpu * 1e3, events as f64 / took);
    println!("{what}: {wall_ms:.1} ms ({rate:.0}/s), cpu {cpu_ms:.1} ms, {each:.2} µs an event");
    done
}

fn folder_bytes(folder: &Path) -> u64 {
    std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().metadata().unwrap().len()).sum()
}

fn lookups(folder: &Path, key: &str, id: &str) {
    let ask = |what: &str, filter: DecisionFilter| {
        let (begin, cpu) = (Instant::now(), cpu_seconds());
        let found = all_of(&LedgerReader::open(folder).unwrap(), &filter).len();
        let (wall_ms, cpu_ms) = (begin.elapsed().as_secs_f64() * 1e3, (cpu_seconds() - cpu) * 1e3);
        println!("  {what}: {found} found in {wall_ms:.1} ms, cpu {cpu_ms:.1} ms");
    };
    let of = |key: Option<&str>, id: Option<&str>| DecisionFilter {
        key: key.map(Into::into),
        event_id: id.map(Into::into),
        ..DecisionFilter::default()
    };
    ask("by key", of(Some(key), None));
    ask("by id", of(None, Some(id)));
    ask("by reason", DecisionFilter { reason: Some(code("insufficient_stock")), ..Default::default() });
    ask("by flag", DecisionFilter { reason: Some(code("bulk_order")), ..Default::default() });
    let range = DecisionFilter { offset_from: Some(120_000), offset_to: Some(120_001), ..Default::default() };
    ask("by position", range);
    ask("everything", DecisionFilter::default());
    let begin = Instant::now();
    let mut runs = 0;
    let count = &mut |batch: &recount_ledger::StoredBatch| {
        runs += batch.runs.len();
        ControlFlow::Continue(())
    };
    LedgerReader::open(folder).unwrap().batches(None, count).unwrap();
    println!("  all batches: {runs} runs in {:.1} ms", begin.elapsed().as_secs_f64() * 1e3);
}

#[test]
#[ignore = "measures, over a file of orders"]
fn measured() {
    let text = std::fs::read_to_string(std::env::var("RECOUNT_ORDERS").unwrap()).unwrap();
    let records = batches(&text);
    let events: usize = records.iter().map(|r| r.decisions.len()).sum();
    let applied = records.iter().flat_map(|r| &r.decisions).filter(|d| d.fate == Fate::Applied).count();
    let mut keys: HashMap<&str, usize> = HashMap::new();
    records
        .iter()
        .flat_map(|r| &r.decisions)
        .for_each(|d| *keys.entry(d.key.as_deref().unwrap()).or_default() += 1);
    let (key, _) = keys.iter().min_by_key(|(_, count)| count.abs_diff(500)).unwrap();
    let id = records[200].decisions[77].event_id.clone().unwrap();
    println!("{events} events, {applied} applied; key {key} has {}", keys[key]);
    let bytes = timed("encode", events, || records.iter().map(|r| codec::encode(r).len()).sum::<usize>());
    println!("encoded, bodies included: {:.1} bytes an event", bytes as f64 / events as f64);
    let packed: Vec<Vec<u8>> = records.iter().map(codec::encode).collect();
    timed("decode", events, || packed.iter().for_each(|bytes| assert!(codec::decode(bytes).is_ok())));
    let batches: Vec<_> = records.iter().cloned().map(encoded).collect();
    let folder = tempfile::tempdir_in(std::env::var("RECOUNT_FOLDER").unwrap_or(".".into())).unwrap();
    let hourly = LedgerSettings { segment_age_ms_max: 3_600_000, stripe_decisions: 65_536, ..settings() };
    let mut ledger = SqliteLedger::open(folder.path(), hourly).unwrap();
    timed("append, a durable commit a batch", events, || {
        batches.iter().for_each(|b| ledger.append(std::slice::from_ref(b), Timestamp(NOON)).unwrap());
    });
    lookups(folder.path(), key, &id);
    let recent =
        timed("recent, the same process", 100_000, || ledger.recent(&partition("orders.ndjson"), 100_000));
    assert_eq!(recent.unwrap().len(), 100_000);
    drop(ledger);
    println!(
        "open: {:.1} bytes an applied event in the folder",
        folder_bytes(folder.path()) as f64 / applied as f64
    );
    let settings = LedgerSettings { segment_age_ms_max: 3_600_000, stripe_decisions: 65_536, ..settings() };
    let mut ledger = timed("open to write", events, || SqliteLedger::open(folder.path(), settings).unwrap());
    timed("recent, newly opened", 100_000, || ledger.recent(&partition("orders.ndjson"), 100_000)).unwrap();
    timed("seal", events, || (0..9).for_each(|_| ledger.maintain(Timestamp(NOON + 3_600_000)).unwrap()));
    lookups(folder.path(), key, &id);
    timed("recent, sealed", 100_000, || ledger.recent(&partition("orders.ndjson"), 100_000)).unwrap();
    drop(ledger);
    println!(
        "sealed: {:.1} bytes an applied event in the folder",
        folder_bytes(folder.path()) as f64 / applied as f64
    );
}
