//! Files that are followed while they grow, rotate and are cut.

use crate::support::{LIMITS, only, take_error, take_positions};
use recount_adapters::file::{FileSettings, FileSource};
use recount_engine::{Source, SourceError, SourcePartition, SourceReader, TakeLimits};
use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn follow(path: &Path) -> FileSource {
    let settings = FileSettings { follow: true, poll_interval_ms: 5, ..FileSettings::new(path) };
    FileSource::new(settings).unwrap()
}

fn append(path: &Path, text: &str) {
    let mut file = OpenOptions::new().create(true).append(true).open(path).unwrap();
    file.write_all(text.as_bytes()).unwrap();
}

async fn started(content: &str) -> (TempDir, PathBuf, FileSource, SourcePartition, Box<dyn SourceReader>) {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.log");
    append(&path, content);
    let source = follow(&path);
    let partition = only(&source).await;
    let reader = source.open(&partition, 0).await.unwrap();
    (folder, path, source, partition, reader)
}

async fn until_drained(reader: &mut dyn SourceReader) -> Vec<String> {
    let until = Instant::now() + Duration::from_secs(10);
    let mut all = Vec::new();
    loop {
        assert!(Instant::now() < until, "never drained; {all:?} came");
        let polled = reader.take(TakeLimits { wait_ms: 20, ..LIMITS }).await.unwrap();
        all.extend(crate::support::shown(&polled));
        let drained = polled.drained;
        crate::support::settle(reader, polled).await;
        if drained {
            return all;
        }
    }
}

#[tokio::test]
async fn appended_lines_come_and_an_unfinished_one_waits() {
    let (_folder, path, source, partition, mut reader) = started("a\nb\n").await;
    assert_eq!(take_positions(&mut *reader, 2).await, ["0 a", "1 b"]);
    append(&path, "unfini");
    let polled = reader.take(TakeLimits { wait_ms: 40, ..LIMITS }).await.unwrap();
    assert!(polled.deliveries.is_empty() && !polled.drained);
    assert_eq!((polled.next_offset, reader.backlog().await), (2, Some(1)));
    append(&path, "shed\nc\n\nd");
    assert_eq!(take_positions(&mut *reader, 3).await, ["2 unfinished", "3 c", "4-4 not-an-event"]);
    append(&path, "\r\n");
    assert_eq!(take_positions(&mut *reader, 1).await, ["5 d"]);
    assert_eq!(only(&source).await, partition, "the id stays while the file grows");
}

#[tokio::test]
async fn a_cancelled_take_loses_nothing() {
    let (_folder, path, _source, _partition, mut reader) = started("a\n").await;
    let mut all = Vec::new();
    for i in 0..50 {
        append(&path, &format!("line {i}\n"));
        let waits = reader.take(TakeLimits { wait_ms: 1000, events_max: 2, ..LIMITS });
        if let Ok(polled) = tokio::time::timeout(Duration::from_micros(i * 40), waits).await {
            all.extend(polled.unwrap().deliveries.iter().map(|d| d.offset));
        }
    }
    while all.len() < 51 {
        all.extend(reader.take(LIMITS).await.unwrap().deliveries.iter().map(|d| d.offset));
    }
    assert_eq!(all, (0..51).collect::<Vec<_>>());
}

#[tokio::test]
async fn an_empty_file_waits_for_its_first_line() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "");
    let source = follow(&path);
    assert!(matches!(source.partitions().await, Err(SourceError::Away(_))));
    append(&path, "{\"half\"");
    let few = source.partitions().await;
    assert!(matches!(few, Err(SourceError::Away(_))), "few bytes are a poor identity");
    append(&path, ":1}\nsecond\n");
    let partition = only(&source).await;
    let mut reader = source.open(&partition, 0).await.unwrap();
    assert_eq!(take_positions(&mut *reader, 2).await, ["0 {\"half\":1}", "1 second"]);
}

#[tokio::test]
async fn a_rotation_goes_on_in_the_new_file_once_all_is_settled() {
    let (folder, path, source, partition, mut reader) = started("a\nb\n").await;
    let old = folder.path().join("app.log.1");
    std::fs::rename(&path, &old).unwrap();
    assert_eq!(only(&source).await, partition, "nothing stands there yet");
    append(&old, "late in the old one\nwithout newline");
    append(&path, "a\nnew\n");
    assert_eq!(only(&source).await, partition, "the old one is not finished");

    // Taken but not settled: it is not done yet.
    let first = reader.take(LIMITS).await.unwrap();
    assert_eq!(first.deliveries.len(), 3);
    let mut rest = reader.take(TakeLimits { wait_ms: 200, ..LIMITS }).await.unwrap();
    assert_eq!(crate::support::shown(&rest), ["3 without newline"], "a rotated file ends its last line");
    rest.deliveries.extend(first.deliveries);
    let polled = reader.take(TakeLimits { wait_ms: 60, ..LIMITS }).await.unwrap();
    assert!(!polled.drained && polled.deliveries.is_empty());
    crate::support::settle(&mut *reader, rest).await;
    assert!(until_drained(&mut *reader).await.is_empty());

    let next = only(&source).await;
    assert_ne!(next.source, partition.source, "though both begin alike");
    let mut reader = source.open(&next, 0).await.unwrap();
    assert_eq!(take_positions(&mut *reader, 2).await, ["0 a", "1 new"]);
}

#[tokio::test]
async fn a_rotation_within_a_folder_is_not_read_twice() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "a\n");
    let source = follow(folder.path());
    let partition = only(&source).await;
    let mut reader = source.open(&partition, 0).await.unwrap();
    assert_eq!(take_positions(&mut *reader, 1).await, ["0 a"]);
    std::fs::rename(&path, folder.path().join("app.log.1")).unwrap();
    append(&path, "other\n");
    assert_eq!(only(&source).await, partition);
    assert!(until_drained(&mut *reader).await.is_empty());
    drop(reader);
    let next = only(&source).await;
    assert_eq!(next.partition, partition.partition);
    let mut reader = source.open(&next, 0).await.unwrap();
    assert_eq!(take_positions(&mut *reader, 1).await, ["0 other"]);
    append(&folder.path().join("second.log"), "new file\n");
    assert_eq!(source.partitions().await.unwrap().len(), 2);
}

#[tokio::test]
async fn a_replaced_file_stops() {
    let (folder, path, source, _partition, mut reader) = started("a\n").await;
    assert_eq!(take_positions(&mut *reader, 1).await, ["0 a"]);
    let other = folder.path().join("other");
    append(&other, "b\n");
    std::fs::rename(&other, &path).unwrap();
    let error = take_error(&mut *reader).await;
    assert!(
        matches!(&error, SourceError::Changed(why) if why.contains("replaced") && why.contains("--again"))
    );
    drop(reader);
    assert!(matches!(source.partitions().await, Err(SourceError::Changed(_))));
}

#[tokio::test]
async fn a_cut_file_stops_and_says_that_lines_may_be_lost() {
    for (name, cut_to) in
        [("copytruncate", ""), ("cut in the middle", "line one\nli"), ("rewritten", "x".repeat(200).as_str())]
            .map(|(name, content)| (name, content.to_owned()))
    {
        let (_folder, path, _source, _partition, mut reader) = started("line one\nline two\n").await;
        assert_eq!(take_positions(&mut *reader, 2).await, ["0 line one", "1 line two"]);
        std::fs::write(&path, &cut_to).unwrap();
        let error = take_error(&mut *reader).await;
        assert!(
            matches!(&error, SourceError::Changed(why) if why.contains("unknown number") && why.contains("--again")),
            "{name}: {error:?}"
        );
    }
}

#[tokio::test]
async fn a_line_continued_after_it_was_decided_stops() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.log");
    append(&path, "a\nb");
    let partition = only(&FileSource::new(FileSettings::new(&path)).unwrap()).await;
    for (continued, expected) in [("\nc\n", Ok("2 c")), ("\r\nc\n", Ok("2 c")), ("bb\nc\n", Err(()))] {
        std::fs::write(&path, "a\nb").unwrap();
        let settings = FileSettings { follow: true, poll_interval_ms: 5, ..FileSettings::new(&path) };
        let source = FileSource::new(FileSettings {
            known: vec![recount_adapters::file::KnownFile {
                source: partition.source.clone(),
                partition: partition.partition.clone(),
                next_offset: 2,
            }],
            ..settings
        })
        .unwrap();
        let mut reader = source.open(&only(&source).await, 2).await.unwrap();
        assert!(reader.take(TakeLimits { wait_ms: 20, ..LIMITS }).await.unwrap().deliveries.is_empty());
        assert_eq!(reader.backlog().await, Some(0));
        append(&path, continued);
        match expected {
            Ok(line) => assert_eq!(take_positions(&mut *reader, 1).await, [line]),
            Err(()) => assert!(matches!(take_error(&mut *reader).await, SourceError::Changed(_))),
        }
    }
}

#[tokio::test]
async fn a_compressed_file_that_is_still_written_is_read_when_it_is_whole() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("app.gz");
    let content: String = (0..3000).map(|i| format!("line {i}\n")).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content.as_bytes()).unwrap();
    let whole = encoder.finish().unwrap();
    std::fs::write(&path, &whole[..whole.len() / 2]).unwrap();
    let source = follow(&path);
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    let before = take_positions(&mut *reader, 100).await.len();
    std::fs::write(&path, &whole).unwrap();
    let after = take_positions(&mut *reader, 3000 - before).await;
    assert_eq!(after.last().unwrap(), "2999 line 2999");
}
