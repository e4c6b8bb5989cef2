//! The embedded log: durable, resumable, bounded, shared by processes.

use crate::support::{LIMITS, changed, drain, only, settle, shown, take_positions};
use recount_adapters::embedded_log::witness::{LogWitness, LogWitnessError, WitnessedEvent};
use recount_adapters::embedded_log::{
    EmbeddedLog, LogError, LogSettings, LogSource, LogSourceSettings, NewEvent, RetentionSettings,
    StdinSettings, StdinSource,
};
use recount_engine::{Source, SourceError, TakeLimits};
use recount_model::{Header, SourceId, Timestamp};
use std::io::Read;
use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use tempfile::TempDir;

fn open(path: &Path) -> EmbeddedLog {
    EmbeddedLog::open(path, LogSettings::default()).unwrap()
}

fn event(text: &str, at: i64) -> NewEvent {
    NewEvent::new(text, Timestamp(at))
}

async fn source_of(log: &EmbeddedLog) -> LogSource {
    LogSource::new(log.clone(), LogSourceSettings { poll_interval_ms: 5, ..LogSourceSettings::default() })
}

#[tokio::test]
async fn what_was_appended_is_read_back_whole_by_another_connection() {
    let folder = TempDir::new().unwrap();
    let path = EmbeddedLog::path_in(folder.path(), "or/ders");
    assert!(path.ends_with("log-or_ders.db"));
    let first = open(&path);
    let mut rich = event("b", 2);
    rich.headers = vec![Header { name: "ce-id".into(), value: "7 ü".into() }];
    rich.key = Some("sku-1".into());
    rich.payload_bytes = 99;
    assert_eq!(first.append(vec![event("a", 1), rich.clone()]).await.unwrap(), 0..2);
    let second = open(&path);
    assert_eq!(second.source_id(), first.source_id());
    assert!(first.source_id().as_str().starts_with("log:"));
    drop(first);
    let source = source_of(&second).await;
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    assert_eq!(reader.backlog().await, Some(2));
    let polled = reader.take(LIMITS).await.unwrap();
    assert_eq!(shown(&polled), ["0 a", "1 b"]);
    assert_eq!(polled.deliveries[1].headers, rich.headers);
    assert_eq!(polled.deliveries[1].broker_key, rich.key);
    assert_eq!(polled.deliveries[1].payload_bytes, 99);
    assert_eq!(reader.backlog().await, Some(0));
    let mode: String = rusqlite::Connection::open(&path)
        .unwrap()
        .query_row("PRAGMA journal_mode", [], |row| row.get(0))
        .unwrap();
    assert_eq!(mode, "wal");
}

#[tokio::test]
async fn reading_resumes_anywhere_and_waits_at_the_end() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder.path().join("log.db"));
    log.append((0..1000).map(|i| event(&format!("e{i}"), i)).collect()).await.unwrap();
    let source = source_of(&log).await;
    let partition = only(&source).await;
    for (from, events_max, bytes_max) in
        [(0, 500, 1 << 20), (997, 500, 1 << 20), (990, 3, 1 << 20), (990, 500, 5)]
    {
        let mut reader = source.open(&partition, from).await.unwrap();
        let mut seen = Vec::new();
        while seen.len() < 1000 - from as usize {
            let polled = reader.take(TakeLimits { events_max, bytes_max, ..LIMITS }).await.unwrap();
            assert!(polled.deliveries.len() <= events_max);
            seen.extend(polled.deliveries.iter().map(|d| d.offset));
        }
        assert_eq!(seen, (from..1000).collect::<Vec<_>>());
        let nothing = reader.take(TakeLimits { wait_ms: 20, ..LIMITS }).await.unwrap();
        assert!(nothing.deliveries.is_empty() && !nothing.drained && nothing.next_offset == 1000);
    }
    let why = changed(source.open(&partition, 1001).await);
    assert!(why.contains("ends at offset 1000"), "{why}");

    // An append wakes a reader that waits, also one by another connection.
    let mut reader = source.open(&partition, 1000).await.unwrap();
    let other = open(&folder.path().join("log.db"));
    for (writer, text, expected) in [(&log, "mine", "1000 mine"), (&other, "theirs", "1001 theirs")] {
        let limits = TakeLimits { wait_ms: 5000, ..LIMITS };
        let (polled, appended) = tokio::join!(reader.take(limits), writer.append(vec![event(text, 1)]));
        appended.unwrap();
        assert_eq!(shown(&polled.unwrap()), [expected]);
    }
}

#[test]
fn appends_from_threads_and_connections_get_their_own_offsets() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    let each = 200;
    let threads: Vec<_> = (0..8)
        .map(|thread| {
            let path = path.clone();
            std::thread::spawn(move || {
                let log = open(&path);
                (0..each)
                    .map(|i| {
                        let texts = [format!("{thread}.{i}.a"), format!("{thread}.{i}.b")];
                        let offsets =
                            log.append_blocking(texts.iter().map(|t| event(t, i)).collect()).unwrap();
                        assert_eq!(offsets.end - offsets.start, 2);
                        (offsets.start, texts)
                    })
                    .collect::<Vec<_>>()
            })
        })
        .collect();
    let mut acknowledged = vec![String::new(); 8 * each as usize * 2];
    for thread in threads {
        for (first, [a, b]) in thread.join().unwrap() {
            acknowledged[first as usize] = a;
            acknowledged[first as usize + 1] = b;
        }
    }
    let log = open(&path);
    let witness = LogWitness::new(&path, log.source_id().as_str());
    assert_eq!(witness.positions().unwrap(), acknowledged.len() as u64);
    let mut stored = Vec::new();
    let visit = &mut |event: &WitnessedEvent<'_>| {
        stored.push(String::from_utf8(event.payload.to_vec()).unwrap());
        ControlFlow::Continue(())
    };
    witness.visit(0, u64::MAX, visit).unwrap();
    assert_eq!(stored, acknowledged, "each acknowledged offset holds the event that it was given for");
}

#[tokio::test]
async fn retention_drops_what_is_settled_and_names_what_was_not() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    let retention = RetentionSettings {
        settled_age_max_ms: 1000,
        settled_bytes_max: 1 << 30,
        unsettled_age_max_ms: Some(100_000),
        log_bytes_max: 1 << 30,
    };
    let log = EmbeddedLog::open(&path, LogSettings { retention, vfs: None }).unwrap();
    log.append((0..10).map(|i| event(&format!("e{i}"), i * 1000)).collect()).await.unwrap();
    let source = source_of(&log).await;
    let partition = only(&source).await;
    let mut reader = source.open(&partition, 0).await.unwrap();
    let limits = TakeLimits { events_max: 6, ..LIMITS };
    let polled = reader.take(limits).await.unwrap();
    settle(&mut *reader, polled).await;

    // 0 to 5 are settled; of these 0 to 3 are older than a second at 5.0 s.
    let retained = log.retain(Timestamp(4_500)).unwrap();
    assert_eq!((retained.dropped_settled, retained.dropped_unsettled), (4, 0));
    assert_eq!(log.bounds().unwrap().first_offset, 4);
    let retained = log.retain(Timestamp(90_000)).unwrap();
    assert_eq!((retained.dropped_settled, retained.dropped_unsettled), (2, 0), "unsettled ones stay");
    assert_eq!(drain_open(&source, 6).await, ["6 e6", "7 e7", "8 e8", "9 e9"]);

    // Beyond the age at which even unsettled ones leave.
    let retained = log.retain(Timestamp(107_500)).unwrap();
    assert_eq!((retained.dropped_settled, retained.dropped_unsettled), (0, 2));
    assert_eq!(drain_open(&source, 6).await, ["6-7 lost", "8 e8", "9 e9"]);
    log.retain(Timestamp(1_000_000)).unwrap();
    assert_eq!(drain_open(&source, 6).await, ["6-9 lost"]);
    assert_eq!(log.append(vec![event("next", 0)]).await.unwrap(), 10..11, "no offset is given twice");
    assert_eq!(log.bounds().unwrap().kept_bytes, 4);
    let reopened = open(&path);
    assert_eq!(reopened.bounds().unwrap().first_offset, 10);
}

async fn drain_open(source: &LogSource, from: u64) -> Vec<String> {
    let mut reader = source.open(&only(source).await, from).await.unwrap();
    shown(&reader.take(LIMITS).await.unwrap())
}

#[tokio::test]
async fn a_hole_made_by_hand_is_lost_and_not_silent() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    let log = open(&path);
    log.append((0..5).map(|i| event(&format!("e{i}"), 0)).collect()).await.unwrap();
    rusqlite::Connection::open(&path)
        .unwrap()
        .execute("DELETE FROM log_event WHERE \"offset\" IN (1, 2, 4)", [])
        .unwrap();
    let source = source_of(&log).await;
    assert_eq!(drain_open(&source, 0).await, ["0 e0", "1-2 lost", "3 e3", "4-4 lost"]);
}

#[tokio::test]
async fn settled_bytes_are_bounded_and_a_full_log_refuses() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    let retention = RetentionSettings {
        settled_age_max_ms: u64::MAX,
        settled_bytes_max: 300,
        unsettled_age_max_ms: None,
        log_bytes_max: 1000,
    };
    let log = EmbeddedLog::open(&path, LogSettings { retention, vfs: None }).unwrap();
    let hundred = "x".repeat(100);
    for i in 0..10 {
        log.append(vec![event(&hundred, i)]).await.unwrap();
    }
    let refused = log.append(vec![event("a", 0), event("b", 0)]).await;
    assert!(
        matches!(&refused, Err(LogError::Unwritable { cause, .. }) if cause.contains("limit")),
        "{refused:?}"
    );
    assert_eq!(log.bounds().unwrap().next_offset, 10, "nothing of it was kept");
    log.note_settled(8);
    assert_eq!(log.retain(Timestamp(0)).unwrap().dropped_settled, 7);
    assert_eq!(log.append(vec![event("a", 0)]).await.unwrap(), 10..11);
}

#[tokio::test]
async fn a_full_disk_acknowledges_nothing_and_heals() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    drop(open(&path));
    let log = open(&path);
    log.append(vec![event("before", 0)]).await.unwrap();
    let trigger = rusqlite::Connection::open(&path).unwrap();
    trigger
        .execute_batch(
            "CREATE TRIGGER full BEFORE INSERT ON log_event BEGIN SELECT RAISE(ABORT, 'disk is full'); END",
        )
        .unwrap();
    let refused = log.append(vec![event("refused", 0)]).await;
    assert!(
        matches!(&refused, Err(LogError::Unwritable { cause, .. }) if cause.contains("full")),
        "{refused:?}"
    );
    trigger.execute_batch("DROP TRIGGER full").unwrap();
    assert_eq!(log.append(vec![event("after", 0)]).await.unwrap(), 1..2);
    assert_eq!(drain_open(&source_of(&log).await, 0).await, ["0 before", "1 after"]);
}

#[tokio::test]
async fn another_log_at_the_place_stops() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("log.db");
    let log = open(&path);
    let recorded = Some(SourceId::new("log:0123"));
    let source = LogSource::new(log.clone(), LogSourceSettings { recorded, ..LogSourceSettings::default() });
    let why = changed(source.partitions().await);
    assert!(why.contains("log:0123"), "{why}");
    assert!(matches!(LogWitness::new(&path, "log:0123").positions(), Err(LogWitnessError::Changed { .. })));
    let gone = LogWitness::new(&folder.path().join("none"), "log:0123").positions();
    assert!(matches!(gone, Err(LogWitnessError::Gone(_))));

    rusqlite::Connection::open(&path).unwrap().execute_batch("PRAGMA user_version = 99").unwrap();
    let newer = EmbeddedLog::open(&path, LogSettings::default());
    assert!(matches!(newer, Err(LogError::TooNew { found: 99, .. })), "{newer:?}");
}

fn stdin_settings() -> StdinSettings {
    StdinSettings {
        payload_bytes_max: 10,
        clock: Arc::new(|| Timestamp(1)),
        source: LogSourceSettings { poll_interval_ms: 5, ..LogSourceSettings::default() },
    }
}

#[tokio::test]
async fn standard_input_is_spooled_and_drained() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder.path().join("log.db"));
    log.append(vec![event("from before", 0)]).await.unwrap();
    let input = "\u{feff}a\r\n\n  \nlonger than ten bytes\nlast".as_bytes();
    let source = StdinSource::start(input, log, stdin_settings()).unwrap();
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    let limits = TakeLimits { wait_ms: 1000, ..LIMITS };
    let lines = drain(&mut *reader, limits).await.unwrap();
    assert_eq!(lines, ["0 from before", "1 a", "2 longer than", "3 last"]);
}

/// Gives one line, waits until it is allowed to go on, and then fails.
struct Breaking(std::sync::mpsc::Receiver<()>, bool);

impl Read for Breaking {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        if self.1 {
            let _ = self.0.recv();
            return Err(std::io::Error::other("the pipe broke"));
        }
        self.1 = true;
        buffer[..2].copy_from_slice(b"a\n");
        Ok(2)
    }
}

#[tokio::test]
async fn a_slow_line_is_not_kept_waiting_and_a_broken_pipe_is_told() {
    let folder = TempDir::new().unwrap();
    let log = open(&folder.path().join("log.db"));
    let (go_on, wait) = std::sync::mpsc::channel();
    let source = StdinSource::start(Breaking(wait, false), log, stdin_settings()).unwrap();
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    assert_eq!(take_positions(&mut *reader, 1).await, ["0 a"]);
    go_on.send(()).unwrap();
    let error = crate::support::take_error(&mut *reader).await;
    assert!(matches!(&error, SourceError::Broken(why) if why.contains("the pipe broke")), "{error:?}");
}
