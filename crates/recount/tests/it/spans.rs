//! `[tracing]`: a span for each batch at a collector that takes what it gets and remembers it.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, order};
use serde_json::Value;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// A collector of spans, in a few lines.
struct Collector {
    url: String,
    /// Heads of the requests, and bodies.
    requests: Arc<Mutex<Vec<(String, Value)>>>,
}

impl Collector {
    /// Answers each request, by its ordinal, with a status and a body.
    fn start(answer: impl Fn(usize) -> (u16, &'static str) + Send + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let requests = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&requests);
        std::thread::spawn(move || {
            for stream in listener.incoming() {
                let Ok(stream) = stream else { continue };
                let Some(request) = read(&stream) else { continue };
                let nth = kept.lock().unwrap().len();
                kept.lock().unwrap().push(request);
                let (status, body) = answer(nth);
                let head = format!(
                    "HTTP/1.1 {status} x\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                    body.len()
                );
                let _ = (&stream).write_all(&[head.as_bytes(), body.as_bytes()].concat());
            }
        });
        Self { url, requests }
    }

    fn willing() -> Self {
        Self::start(|_| (200, "{}"))
    }

    /// The config's table for it.
    fn table(&self) -> String {
        format!("[tracing]\notlp = \"{}\"\n", self.url)
    }

    fn requests(&self) -> Vec<(String, Value)> {
        self.requests.lock().unwrap().clone()
    }

    fn spans(&self) -> Vec<Value> {
        let spans = |(_, body): (String, Value)| {
            body["resourceSpans"][0]["scopeSpans"][0]["spans"].as_array().unwrap().clone()
        };
        self.requests().into_iter().flat_map(spans).collect()
    }
}

fn read(stream: &TcpStream) -> Option<(String, Value)> {
    let mut reader = BufReader::new(stream);
    let (mut head, mut length) = (String::new(), 0);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        if let Some((name, value)) = line.split_once(':')
            && name.eq_ignore_ascii_case("content-length")
        {
            length = value.trim().parse().ok()?;
        }
        if line.trim().is_empty() {
            break;
        }
        head.push_str(&line);
    }
    let mut body = vec![0; length];
    reader.read_exact(&mut body).ok()?;
    Some((head, serde_json::from_slice(&body).ok()?))
}

/// An attribute as text, whatever its kind.
#[track_caller]
fn attribute(of: &Value, key: &str) -> String {
    let found = of["attributes"].as_array().unwrap().iter().find(|attribute| attribute["key"] == key);
    let value = &found.unwrap_or_else(|| panic!("no {key}: {of:#}"))["value"];
    value.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned()
}

fn has(of: &Value, key: &str) -> bool {
    of["attributes"].as_array().unwrap().iter().any(|attribute| attribute["key"] == key)
}

fn traceparent(trace: u32, span: u32) -> String {
    format!("00-{trace:032x}-{span:016x}-01")
}

/// An order with a field for its trace.
fn traced(id: &str, quantity: i64, trace: &str) -> String {
    format!("{{\"id\":\"{id}\",\"sku\":\"a\",\"quantity\":{quantity},\"trace\":{{\"w3c\":\"{trace}\"}}}}")
}

const FROM_PAYLOAD: &str = "traceparent = \"event.trace.w3c\"\n";
const ZERO_IS_SKIPPED: &str = "\n[[flow.stock.check]]\nreason = \"zero_quantity\"\nthat = \"event.quantity > 0\"\n\
    otherwise = \"skip\"\nat_most = \"any\"\nbecause = \"nothing is taken\"\n";

#[test]
fn a_batch_is_a_span_that_links_to_its_events_traces() {
    let collector = Collector::willing();
    let token = "token = { file = \"token\" }\nservice = \"stock-of-the-shop\"\n";
    let tables = format!("{ZERO_IS_SKIPPED}{TAKE_FROM_STOCK}{}{token}", collector.table());
    let world = World::new(&config(FROM_PAYLOAD, &tables));
    std::fs::write(world.path("token"), "hunter2\n").unwrap();
    let without = order("t5", "a", 1);
    world.lines(&[
        traced("t0", 1, &traceparent(1, 1)),
        traced("t1", 1, &traceparent(1, 1)),
        traced("t2", 0, &traceparent(2, 7)),
        traced("t3", 999, &traceparent(3, 8)),
        traced("t4", 1, "not a trace"),
        without,
    ]);
    let told = world.run().expect(0);
    assert!(!told.all().contains("hunter2"), "{}", told.all());

    let [(head, body)] = collector.requests().try_into().unwrap();
    assert!(head.starts_with("POST /v1/traces HTTP/1.1"), "{head}");
    let head = head.to_ascii_lowercase();
    assert!(
        head.contains("content-type: application/json") && head.contains("authorization: bearer hunter2"),
        "{head}"
    );
    assert_eq!(attribute(&body["resourceSpans"][0]["resource"], "service.name"), "stock-of-the-shop");

    let [span] = collector.spans().try_into().unwrap();
    assert_eq!((span["name"].as_str(), span["kind"].as_u64()), (Some("process stock"), Some(5)));
    assert_eq!(span["status"]["code"], 1, "{span:#}");
    for (key, value) in [
        ("recount.flow", "stock"),
        ("recount.offset.first", "0"),
        ("recount.offset.last", "5"),
        ("messaging.batch.message_count", "6"),
        ("recount.applied", "4"),
        ("recount.skipped", "1"),
        ("recount.dead_lettered", "1"),
        ("recount.undecided", "0"),
        ("recount.links.malformed", "1"),
    ] {
        assert_eq!(attribute(&span, key), value, "{key}");
    }
    assert_eq!(attribute(&span, "recount.partition"), "0");
    its_ids_and_times_are_right(&span);
    let links: Vec<_> = span["links"].as_array().unwrap().iter().map(linked).collect();
    let expected = [(1, 1, "0"), (2, 7, "2"), (3, 8, "3")];
    let expected = expected
        .map(|(trace, span, offset)| (format!("{trace:032x}"), format!("{span:016x}"), offset.to_owned()));
    assert_eq!(links, expected);
    assert_eq!(span["links"][0]["flags"], 1);
}

#[track_caller]
fn its_ids_and_times_are_right(span: &Value) {
    let hex = |value: &Value, digits: usize| {
        let text = value.as_str().unwrap();
        assert!(text.len() == digits && u128::from_str_radix(text, 16).unwrap() > 0, "{text}");
    };
    hex(&span["traceId"], 32);
    hex(&span["spanId"], 16);
    let nanos = |key: &str| span[key].as_str().unwrap().parse::<u64>().unwrap();
    let (began, ended) = (nanos("startTimeUnixNano"), nanos("endTimeUnixNano"));
    let hour = 3_600_000_000_000;
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(began < ended && ended <= now && now - began < hour, "{began} {ended} {now}");
}

fn linked(link: &Value) -> (String, String, String) {
    let text = |key: &str| link[key].as_str().unwrap().to_owned();
    (text("traceId"), text("spanId"), attribute(link, "recount.offset"))
}

#[test]
fn a_header_brings_the_trace_and_a_stop_sends_what_waits() {
    let collector = Collector::willing();
    let tables = format!("{TAKE_FROM_STOCK}{}", collector.table());
    let world = World::new(&config("source = { http = \"/orders\" }\n", &tables));
    let running = world.start(&["run"]);
    let header = traceparent(0xabc, 0xdef);
    let headers = [("content-type", "application/json"), ("traceparent", header.as_str())];
    assert_eq!(running.post("/orders", &headers, &order("h0", "a", 1)).0, 202);
    let cloud_event = format!(
        "{{\"specversion\":\"1.0\",\"id\":\"h1\",\"source\":\"/shop\",\"type\":\"order\",\"traceparent\":\"{}\",\
          \"data\":{}}}",
        traceparent(0x123, 0x456),
        order("h1", "a", 1)
    );
    let headers = [("content-type", "application/cloudevents+json")];
    assert_eq!(running.post("/orders", &headers, &cloud_event).0, 202);
    eventually("both are decided", || world.decided() == 2);
    let (_, metrics) = running.get("/metrics");
    assert!(metrics.contains("recount_spans_left_out_total 0\n"), "{metrics}");
    running.terminate().expect(0);
    let spans = collector.spans();
    let mut traces: Vec<_> =
        spans.iter().flat_map(|span| span["links"].as_array().unwrap()).map(|link| linked(link).0).collect();
    traces.sort();
    assert_eq!(traces, [format!("{:032x}", 0x123), format!("{:032x}", 0xabc)]);
}

#[test]
fn links_beyond_the_limit_are_counted_and_a_secret_trace_is_not_told() {
    let collector = Collector::willing();
    let tables = format!("{TAKE_FROM_STOCK}{}", collector.table());
    let world =
        World::new(&config(&format!("{FROM_PAYLOAD}source = {{ file = \"many.ndjson\" }}\n"), &tables));
    let lines: Vec<String> = (1..=300).map(|n| traced(&format!("m{n}"), 0, &traceparent(n, n))).collect();
    std::fs::write(world.path("many.ndjson"), lines.join("\n") + "\n").unwrap();
    world.run().expect(0);
    let [span] = collector.spans().try_into().unwrap();
    assert_eq!(span["links"].as_array().unwrap().len(), 128);
    assert_eq!(
        (attribute(&span, "recount.links.left_out").as_str(), &span["droppedLinksCount"]),
        ("172", &172.into())
    );

    let secret = "secret = [\"meta.headers.traceparent\"]\nsource = { http = \"/orders\" }\n";
    let collector = Collector::willing();
    let world = World::new(&config(secret, &format!("{TAKE_FROM_STOCK}{}", collector.table())));
    let running = world.start(&["run"]);
    let header = traceparent(0xabc, 0xdef);
    let headers = [("content-type", "application/json"), ("traceparent", header.as_str())];
    assert_eq!(running.post("/orders", &headers, &order("h0", "a", 1)).0, 202);
    eventually("it is decided", || world.decided() == 1);
    running.terminate().expect(0);
    let [span] = collector.spans().try_into().unwrap();
    assert_eq!((span["links"].as_array().unwrap().len(), has(&span, "recount.links.left_out")), (0, false));
}

#[test]
fn a_collector_that_is_away_or_never_answers_holds_nothing_up() {
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    // Bound, so that connections are taken, and nobody reads from them.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for address in [closed, silent.local_addr().unwrap()] {
        let tables = format!("{TAKE_FROM_STOCK}\n[tracing]\notlp = \"http://{address}\"\n");
        let world = World::new(&config("batch = { events = 1 }\n", &tables));
        world.put("a", 50_000);
        world.lines(&crate::harness::orders(0..1500, "a"));
        let without = Instant::now();
        let told = world.run().expect(0);
        assert_eq!((world.on_hand("a"), told.json()["flows"][0]["batches"].as_u64()), (48_500, Some(1500)));
        // What was beyond the 1,024 that may wait is counted with those that waited in vain.
        assert!(told.err.contains("1500 of 1500 spans were not sent"), "{}", told.err);
        // Said once at most: not at all where the flow was done before the first try had lasted its time.
        assert!(told.err.matches("spans are not taken").count() <= 1, "{}", told.err);
        assert!(without.elapsed() < Duration::from_secs(45), "{:?}", without.elapsed());
    }
}

#[test]
fn what_a_busy_collector_did_not_take_is_sent_again_and_what_it_refuses_is_not() {
    let busy = Collector::start(|nth| if nth == 0 { (503, "") } else { (200, "{}") });
    let world = World::new(&config("", &format!("{TAKE_FROM_STOCK}{}", busy.table())));
    world.lines(&crate::harness::orders(0..3, "a"));
    let told = world.run().expect(0);
    let requests = busy.requests();
    assert_eq!((requests.len(), &requests[0].1), (2, &requests[1].1), "the same again");
    assert!(told.err.contains("answered 503") && !told.err.contains("were not sent"), "{}", told.err);

    let refuses = Collector::start(|_| (401, ""));
    let world = World::new(&config("", &format!("{TAKE_FROM_STOCK}{}", refuses.table())));
    world.lines(&crate::harness::orders(0..3, "a"));
    let told = world.run().expect(0);
    assert_eq!(refuses.requests().len(), 1);
    assert!(
        told.err.contains("answered 401") && told.err.contains("1 of 1 spans were not sent"),
        "{}",
        told.err
    );

    let picks =
        Collector::start(|_| (200, r#"{"partialSuccess":{"rejectedSpans":"1","errorMessage":"too long"}}"#));
    let world = World::new(&config("", &format!("{TAKE_FROM_STOCK}{}", picks.table())));
    world.lines(&crate::harness::orders(0..3, "a"));
    let told = world.run().expect(0);
    assert!(told.err.contains("took 0 of 1 spans: too long"), "{}", told.err);
}

#[test]
fn a_batch_that_is_given_up_says_why() {
    let collector = Collector::willing();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let tables = format!("[flow.stock.apply]\nhttp = \"http://{closed}/reserve\"\n{}", collector.table());
    let world = World::new(&config("", &tables));
    world.lines(&crate::harness::orders(0..3, "a"));
    let running = world.start(&["run"]);
    eventually("the handler is away", || running.log().contains("effects_away"));
    running.terminate();
    let [span] = collector.spans().try_into().unwrap();
    let status = &span["status"];
    assert_eq!(status["code"], 2, "{span:#}");
    assert!(status["message"].as_str().unwrap().contains("can't be reached"), "{status}");
    assert!(attribute(&span, "recount.faults").parse::<u32>().unwrap() >= 1);
    assert!(!has(&span, "recount.applied"), "nothing was decided: {span:#}");
}

#[test]
fn a_dry_run_sends_no_spans() {
    let collector = Collector::willing();
    let world = World::new(&config("", &format!("{TAKE_FROM_STOCK}{}", collector.table())));
    world.lines(&crate::harness::orders(0..3, "a"));
    world.recount(&["run", "--dry-run"]).expect(0);
    assert_eq!(collector.requests().len(), 0);
}
