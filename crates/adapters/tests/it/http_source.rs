//! Events over a real socket.

use crate::support::{LIMITS, only};
use recount_adapters::embedded_log::{
    EmbeddedLog, LogSettings, LogSource, LogSourceSettings, RetentionSettings,
};
use recount_adapters::http_source::{Auth, HttpSettings, Secret, router};
use recount_engine::{Delivery, Source};
use recount_model::{FlowName, Timestamp};
use std::sync::Arc;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

struct Server {
    _folder: TempDir,
    log: EmbeddedLog,
    address: std::net::SocketAddr,
}

fn settings() -> HttpSettings {
    HttpSettings::new(FlowName::new("orders").unwrap(), "/orders", Arc::new(|| Timestamp(5)))
}

impl Server {
    async fn start(settings: HttpSettings) -> Self {
        Self::start_with(settings, LogSettings::default()).await
    }

    async fn start_with(settings: HttpSettings, log: LogSettings) -> Self {
        let folder = TempDir::new().unwrap();
        let log = EmbeddedLog::open(&folder.path().join("log.db"), log).unwrap();
        let app = router(settings, log.clone()).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move { axum::serve(listener, app).await });
        Self { _folder: folder, log, address }
    }

    /// Status and JSON answer.
    async fn send(&self, method: &str, headers: &[(&str, &str)], body: &[u8]) -> (u16, serde_json::Value) {
        let mut stream = TcpStream::connect(self.address).await.unwrap();
        let mut request = format!(
            "{method} /orders HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        );
        for (name, value) in headers {
            request += &format!("{name}: {value}\r\n");
        }
        request += "\r\n";
        stream.write_all(request.as_bytes()).await.unwrap();
        // A server that refuses early may close before it has read everything.
        let _ = stream.write_all(body).await;
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer).await;
        let answer = String::from_utf8(answer).unwrap();
        let status = answer.split(' ').nth(1).unwrap().parse().unwrap();
        let body = answer.split_once("\r\n\r\n").unwrap().1;
        (status, serde_json::from_str(body).unwrap_or_else(|e| panic!("{e}: {answer}")))
    }

    async fn post(&self, content_type: &str, body: impl AsRef<[u8]>) -> (u16, serde_json::Value) {
        self.send("POST", &[("content-type", content_type)], body.as_ref()).await
    }

    async fn stored(&self) -> Vec<Delivery> {
        let source = LogSource::new(self.log.clone(), LogSourceSettings::default());
        let mut reader = source.open(&only(&source).await, 0).await.unwrap();
        reader.take(LIMITS).await.unwrap().deliveries
    }
}

fn headers_of(delivery: &Delivery) -> Vec<(&str, &str)> {
    let mut headers: Vec<_> = delivery.headers.iter().map(|h| (&*h.name, &*h.value)).collect();
    headers.sort_unstable();
    headers
}

const CLOUD_EVENT: &str =
    r#"{"specversion":"1.0","id":"7","source":"/shop","type":"order.placed","data":{"quantity":1}}"#;

#[tokio::test]
async fn every_content_type_is_kept_before_its_receipt_is_given() {
    let server = Server::start(HttpSettings { keep_headers: vec!["X-Shop".into()], ..settings() }).await;
    let (status, answer) = server
        .send(
            "POST",
            &[
                ("Content-Type", "application/json; charset=utf-8"),
                ("Authorization", "Bearer not to be kept"),
                ("Cookie", "not=kept"),
                ("X-Other", "not kept"),
                ("x-shop", "main street"),
                ("traceparent", "00-1-2-01"),
            ],
            b"{\"id\":1}",
        )
        .await;
    assert_eq!(status, 202);
    let expected = serde_json::json!({"recount": 1, "receipts": [{"position": "orders/0/0", "offset": 0}]});
    assert_eq!(answer, expected);

    assert_eq!(server.post("application/cloudevents+json; charset=UTF-8", CLOUD_EVENT).await.0, 202);
    let batch = format!("[{CLOUD_EVENT},\n {}]", CLOUD_EVENT.replace("\"7\"", "\"8\""));
    let (status, answer) = server.post("application/cloudevents-batch+json", batch).await;
    assert_eq!((status, &answer["receipts"][1]["position"]), (202, &"orders/0/3".into()));
    assert_eq!(server.post("application/x-ndjson", "{\"id\":2}\r\n\n{\"id\":3}").await.0, 202);
    let binary = [
        ("ce-specversion", "1.0"),
        ("ce-id", "9"),
        ("CE-Source", "/shop"),
        ("ce-type", "order.placed"),
        ("ce-extension", "x"),
        ("content-type", "text/plain"),
    ];
    assert_eq!(server.send("POST", &binary, b"the body").await.0, 202);
    assert_eq!(
        server.post("application/cloudevents-batch+json", "[]").await.1["receipts"],
        serde_json::json!([])
    );

    let stored = server.stored().await;
    let texts: Vec<_> = stored.iter().map(|d| String::from_utf8_lossy(&d.payload).into_owned()).collect();
    let second = CLOUD_EVENT.replace("\"7\"", "\"8\"");
    assert_eq!(
        texts,
        ["{\"id\":1}", CLOUD_EVENT, CLOUD_EVENT, &second, "{\"id\":2}", "{\"id\":3}", "the body"]
    );
    assert_eq!(
        headers_of(&stored[0]),
        [
            ("content-type", "application/json; charset=utf-8"),
            ("traceparent", "00-1-2-01"),
            ("x-shop", "main street")
        ]
    );
    assert_eq!(headers_of(&stored[3]), [("content-type", "application/cloudevents+json")]);
    assert_eq!(headers_of(&stored[5]), [("content-type", "application/json")]);
    assert_eq!(
        headers_of(&stored[6]),
        [
            ("ce-extension", "x"),
            ("ce-id", "9"),
            ("ce-source", "/shop"),
            ("ce-specversion", "1.0"),
            ("ce-type", "order.placed"),
            ("content-type", "text/plain")
        ]
    );
}

#[tokio::test]
async fn what_is_refused_says_why_and_keeps_nothing() {
    let server = Server::start(HttpSettings { body_bytes_max: 1000, events_max: 3, ..settings() }).await;
    let structured = "application/cloudevents+json";
    let large = format!("\"{}\"", "x".repeat(1000));
    let cases: &[(&str, &str, u16, &str)] = &[
        ("application/json", "{\"id\":", 400, "not JSON"),
        ("application/json", "", 400, "not JSON"),
        ("application/json", "{} {}", 400, "not JSON"),
        ("application/json", &large, 413, "1000 bytes"),
        ("application/x-ndjson", "{}\n{}\nnot json\n", 400, "line 3"),
        ("application/x-ndjson", "1\n2\n3\n4\n", 413, "4 events"),
        (structured, "{\"specversion\":\"1.0\",\"id\":\"1\",\"source\":\"/\"}", 400, "no type"),
        (structured, "{\"specversion\":\"0.3\",\"id\":\"1\",\"source\":\"/\",\"type\":\"t\"}", 400, "0.3"),
        (
            structured,
            "{\"specversion\":\"1.0\",\"id\":\"\",\"source\":\"/\",\"type\":\"t\"}",
            400,
            "id is empty",
        ),
        (
            structured,
            "{\"specversion\":\"1.0\",\"id\":7,\"source\":\"/\",\"type\":\"t\"}",
            400,
            "id is not a text",
        ),
        (structured, "[]", 400, "not a JSON object"),
        ("application/cloudevents-batch+json", "{}", 400, "not a JSON array"),
        ("application/cloudevents-batch+json", "[{\"id\":\"1\"}]", 400, "event 0 of the batch"),
        ("application/cloudevents+avro", "", 415, "application/cloudevents+avro"),
        ("text/xml", "<a/>", 415, "text/xml"),
    ];
    for (content_type, body, expected_status, expected) in cases {
        let (status, answer) = server.post(content_type, body).await;
        let sentence = answer["error"]["sentence"].as_str().unwrap_or_default();
        assert_eq!(status, *expected_status, "{content_type} {body}: {answer}");
        assert!(sentence.contains(expected), "{content_type} {body}: {sentence}");
        assert!(!answer["error"]["code"].as_str().unwrap().is_empty() && answer["recount"] == 1);
    }
    for (headers, expected_status, expected) in [
        (&[("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-type", "t")][..], 400, "ce-source"),
        (&[("ce-specversion", "2.0"), ("ce-id", "1"), ("ce-type", "t"), ("ce-source", "s")], 400, "2.0"),
        (&[], 415, "no content type"),
    ] {
        let (status, answer) = server.send("POST", headers, b"{}").await;
        assert_eq!(status, expected_status, "{answer}");
        assert!(answer["error"]["sentence"].as_str().unwrap().contains(expected), "{answer}");
    }
    let (status, answer) = server.send("GET", &[], b"").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (405, Some("method")));
    assert_eq!(server.log.bounds().unwrap().next_offset, 0, "nothing was kept");
}

#[tokio::test]
async fn only_who_proves_it_may_post() {
    let bearer = Auth::Bearer(Secret::new("s3cret").unwrap());
    let server = Server::start(HttpSettings { auth: bearer, ..settings() }).await;
    let json = ("content-type", "application/json");
    for (value, expected) in [
        (Some("Bearer s3cret"), 202),
        (Some("bearer s3cret"), 202),
        (Some("Bearer s3cre"), 401),
        (Some("Bearer "), 401),
        (Some("Basic s3cret"), 401),
        (None, 401),
    ] {
        let mut headers = vec![json];
        headers.extend(value.map(|value| ("authorization", value)));
        let (status, answer) = server.send("POST", &headers, b"{}").await;
        assert_eq!(status, expected, "{value:?}");
        assert!(!answer.to_string().contains("s3cret"));
    }
    assert_eq!(server.log.bounds().unwrap().next_offset, 2);

    // RFC 4231, test case 2: key "Jefe".
    let server = Server::start(HttpSettings {
        auth: Auth::Hmac(Secret::new("Jefe").unwrap()),
        any_content_type: true,
        ..settings()
    })
    .await;
    let body = b"what do ya want for nothing?";
    let right = "sha256=5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
    for (signature, body, expected) in [
        (Some(right), &body[..], 202),
        (Some(right), b"what do ya want for nothing!", 401),
        (Some("sha256=00"), body, 401),
        (Some("5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843"), body, 401),
        (None, body, 401),
    ] {
        let mut headers = vec![("content-type", "text/plain")];
        headers.extend(signature.map(|value| ("x-recount-signature", value)));
        assert_eq!(server.send("POST", &headers, body).await.0, expected, "{signature:?}");
    }
    let stored = server.stored().await;
    assert_eq!(stored.len(), 1);
    assert_eq!(headers_of(&stored[0]), [("content-type", "text/plain")], "the signature is not kept");
}

#[tokio::test]
async fn a_log_that_cannot_be_written_answers_503_without_its_path() {
    let retention = RetentionSettings { log_bytes_max: 10, ..RetentionSettings::default() };
    let server = Server::start_with(settings(), LogSettings { retention, vfs: None }).await;
    let (status, answer) = server.post("application/json", "{\"id\":\"too much\"}").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("not_durable")));
    assert!(!answer.to_string().contains("log.db"), "{answer}");
    let server = Server::start(HttpSettings { requests_max: 0, ..settings() }).await;
    let (status, answer) = server.post("application/json", "{}").await;
    assert_eq!((status, answer["error"]["code"].as_str()), (503, Some("busy")));
}

#[test]
fn settings_that_cannot_be_meant_are_refused() {
    let folder = TempDir::new().unwrap();
    let log = EmbeddedLog::open(&folder.path().join("log.db"), LogSettings::default()).unwrap();
    for (settings, expected) in [
        (HttpSettings { path: "orders".into(), ..settings() }, "slash"),
        (HttpSettings { path: "/{id}".into(), ..settings() }, "slash"),
        (HttpSettings { keep_headers: vec!["Authorization".into()], ..settings() }, "never kept"),
        (HttpSettings { keep_headers: vec!["Cookie".into()], ..settings() }, "never kept"),
        (HttpSettings { keep_headers: vec!["not a name".into()], ..settings() }, "not the name"),
    ] {
        let why = router(settings, log.clone()).unwrap_err();
        assert!(why.contains(expected), "{why}");
    }
}
