//! Files that are read once.

use crate::support::{LIMITS, changed, drain, only};
use recount_adapters::file::witness::{FileWitness, FileWitnessError};
use recount_adapters::file::{FileSettings, FileSource, KnownFile, Sameness, same_incarnation};
use recount_engine::{Source, SourceError, TakeLimits};
use recount_model::{Partition, SourceId};
use std::io::Write;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

fn write(folder: &TempDir, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
    let path = folder.path().join(name);
    std::fs::write(&path, content).unwrap();
    path
}

fn gzip(content: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(content).unwrap();
    encoder.finish().unwrap()
}

fn numbered(count: usize) -> Vec<u8> {
    (0..count).flat_map(|i| format!("{{\"n\":{i}}}\n").into_bytes()).collect()
}

fn known(source: &SourceId, partition: &str, next_offset: u64) -> KnownFile {
    KnownFile { source: source.clone(), partition: Partition::new(partition), next_offset }
}

fn with_known(path: &Path, known: Vec<KnownFile>) -> FileSource {
    FileSource::new(FileSettings { known, ..FileSettings::new(path) }).unwrap()
}

async fn read_all(path: &Path, from: u64, limits: TakeLimits) -> Result<Vec<String>, SourceError> {
    let source = FileSource::new(FileSettings::new(path))?;
    let Some(partition) = source.partitions().await?.pop() else { return Ok(Vec::new()) };
    drain(&mut *source.open(&partition, from).await?, limits).await
}

fn witnessed(path: &Path, source: &SourceId) -> Vec<String> {
    let witness = FileWitness::new(path, source.clone(), true);
    let end = witness.positions().unwrap();
    let mut lines = Vec::new();
    let visit = &mut |line: recount_adapters::file::witness::WitnessedLine<'_>| {
        lines.push(if line.blank {
            format!("{0}-{0} not-an-event", line.offset)
        } else {
            format!("{} {}", line.offset, String::from_utf8_lossy(line.bytes))
        });
        ControlFlow::Continue(())
    };
    witness.visit(0, end, 1 << 16, visit).unwrap();
    lines
}

#[tokio::test]
async fn lines_are_positions_however_they_end() {
    let folder = TempDir::new().unwrap();
    for (content, expected) in [
        ("a\nb\n", &["0 a", "1 b"][..]),
        ("a\nb", &["0 a", "1 b"]),
        ("a\r\nb\r\n", &["0 a", "1 b"]),
        ("a\r\nb\r", &["0 a", "1 b"]),
        ("\u{feff}a\nb\n", &["0 a", "1 b"]),
        ("\u{feff}\r\n\u{feff}b\n", &["0-0 not-an-event", "1 \u{feff}b"]),
        ("a\n\n \t\r\nb\n\n", &["0 a", "1-2 not-an-event", "3 b", "4-4 not-an-event"]),
        ("\n", &["0-0 not-an-event"]),
        ("", &[]),
    ] {
        let plain = write(&folder, "plain", content);
        assert_eq!(read_all(&plain, 0, LIMITS).await.unwrap(), expected, "{content:?}");
        if content.is_empty() {
            continue;
        }
        let packed = [
            write(&folder, "lines.gz", gzip(content.as_bytes())),
            write(&folder, "lines.zst", zstd::encode_all(content.as_bytes(), 3).unwrap()),
            write(&folder, "packed-but-named-otherwise", gzip(content.as_bytes())),
        ];
        for path in &packed {
            assert_eq!(read_all(path, 0, LIMITS).await.unwrap(), expected, "{content:?} {path:?}");
        }
        // The auditor's own reader sees the same, but tells blank lines one by one.
        let source = only(&FileSource::new(FileSettings::new(&plain)).unwrap()).await.source;
        let singly: Vec<String> = expected
            .iter()
            .flat_map(|line| {
                if *line == "1-2 not-an-event" {
                    vec!["1-1 not-an-event", "2-2 not-an-event"]
                } else {
                    vec![*line]
                }
            })
            .map(str::to_owned)
            .collect();
        assert_eq!(witnessed(&plain, &source), singly, "{content:?}");
    }
}

#[tokio::test]
async fn any_offset_can_be_resumed_whatever_the_batch() {
    let folder = TempDir::new().unwrap();
    let content = numbered(2000);
    let paths = [
        write(&folder, "plain", &content),
        write(&folder, "a.gz", [gzip(&content[..5000]), gzip(&content[5000..])].concat()),
        write(&folder, "a.zst", zstd::encode_all(&content[..], 3).unwrap()),
    ];
    for path in paths {
        for (from, events_max, bytes_max) in
            [(0, 500, 1 << 20), (0, 7, 1 << 20), (1, 500, 30), (1999, 500, 1), (2000, 500, 1), (777, 1, 1)]
        {
            let limits = TakeLimits { events_max, bytes_max, ..LIMITS };
            let lines = read_all(&path, from, limits).await.unwrap();
            let expected: Vec<_> = (from..2000).map(|i| format!("{i} {{\"n\":{i}}}")).collect();
            assert_eq!(lines, expected, "{path:?} from {from}");
        }
    }
}

#[tokio::test]
async fn a_take_stays_within_its_bytes_but_brings_one() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", "12345\n12345\n123456789\n1\n");
    let source = FileSource::new(FileSettings::new(&path)).unwrap();
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    for (bytes_max, expected) in [(10, 2), (3, 1), (3, 1)] {
        let polled = reader.take(TakeLimits { bytes_max, ..LIMITS }).await.unwrap();
        assert_eq!(polled.deliveries.len(), expected);
    }
    assert!(reader.take(LIMITS).await.unwrap().drained);
}

#[tokio::test]
async fn a_long_line_is_cut_and_its_length_told() {
    let folder = TempDir::new().unwrap();
    let long = "x".repeat(3_000_000);
    let content =
        format!("\u{feff}{long}\r\n{}\n{}\n{}\nend\n", "y".repeat(100), "z".repeat(101), "w".repeat(102));
    for path in [write(&folder, "f", &content), write(&folder, "f.gz", gzip(content.as_bytes()))] {
        let source = FileSource::new(FileSettings::new(&path)).unwrap();
        let partition = only(&source).await;
        let mut reader = source.open(&partition, 0).await.unwrap();
        let polled = reader.take(TakeLimits { payload_bytes_max: 100, ..LIMITS }).await.unwrap();
        let sizes: Vec<_> = polled.deliveries.iter().map(|d| (d.payload.len(), d.payload_bytes)).collect();
        assert_eq!(sizes, [(101, 3_000_000), (100, 100), (101, 101), (101, 102), (3, 3)]);
        let mut seen = Vec::new();
        let witness = FileWitness::new(&path, partition.source, true);
        let visit = &mut |line: recount_adapters::file::witness::WitnessedLine<'_>| {
            seen.push((line.bytes.len(), line.bytes_full));
            ControlFlow::Continue(())
        };
        witness.visit(0, 5, 100, visit).unwrap();
        assert_eq!(seen, sizes);
    }
}

/// Gigabytes of one line through a pipe of zeroes, packed to some kilobytes.
#[tokio::test]
async fn memory_stays_bounded_on_an_endless_line() {
    let folder = TempDir::new().unwrap();
    let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), 1).unwrap();
    let block = vec![b'x'; 1 << 20];
    for _ in 0..512 {
        encoder.write_all(&block).unwrap();
    }
    encoder.write_all(b"\nnext\n").unwrap();
    let path = write(&folder, "f.zst", encoder.finish().unwrap());
    let before = peak_kib();
    let source = FileSource::new(FileSettings::new(&path)).unwrap();
    let mut reader = source.open(&only(&source).await, 0).await.unwrap();
    let lines = drain(&mut *reader, TakeLimits { payload_bytes_max: 10, ..LIMITS }).await.unwrap();
    assert_eq!(lines, ["0 xxxxxxxxxxx", "1 next"]);
    assert!(peak_kib() - before < 64 * 1024, "{} KiB more", peak_kib() - before);
}

fn peak_kib() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|l| l.strip_prefix("VmHWM:")).unwrap_or("0 kB");
    line.trim().trim_end_matches(" kB").parse().unwrap_or(0)
}

#[tokio::test]
async fn a_damaged_archive_gives_what_came_before_and_names_the_byte() {
    let folder = TempDir::new().unwrap();
    // Numbers that don't repeat, so that the damage is not near the end of what can be unpacked.
    let content: Vec<u8> = (0..20_000_u64)
        .flat_map(|i| format!("{}\n", i.wrapping_mul(0x9e37_79b9_7f4a_7c15)).into_bytes())
        .collect();
    let gz = gzip(&content);
    let zst = zstd::encode_all(&content[..], 3).unwrap();
    for (name, whole) in [("a.gz", gz), ("a.zst", zst)] {
        for (what, damaged) in [
            ("cut", whole[..whole.len() * 3 / 4].to_vec()),
            ("overwritten", {
                let mut bytes = whole.clone();
                let at = bytes.len() * 3 / 4;
                bytes[at..at + 64].fill(0xff);
                bytes
            }),
            ("garbage behind", [&whole[..], b"garbage"].concat()),
        ] {
            let path = write(&folder, name, &damaged);
            let source = FileSource::new(FileSettings::new(&path)).unwrap();
            let mut reader = source.open(&only(&source).await, 0).await.unwrap();
            let mut next_offset = 0;
            let error = loop {
                match reader.take(LIMITS).await {
                    Ok(polled) => {
                        assert!(!polled.drained, "{name} {what}");
                        next_offset = polled.next_offset;
                    }
                    Err(e) => break e,
                }
            };
            assert!(next_offset > 5000, "{name} {what}: only {next_offset} lines before the damage");
            let SourceError::Broken(why) = &error else { panic!("{name} {what}: {error:?}") };
            assert!(why.contains("near byte") && why.contains(name), "{why}");
            let again = reader.take(LIMITS).await.unwrap_err();
            assert_eq!(again.to_string(), error.to_string(), "it stays broken");
        }
    }
    let misnamed = write(&folder, "b.gz", "no archive\n");
    let error = read_all(&misnamed, 0, LIMITS).await.unwrap_err();
    assert!(matches!(&error, SourceError::Broken(why) if why.contains("named as gzip")), "{error:?}");
}

#[tokio::test]
async fn a_small_file_keeps_its_id_while_it_grows() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", "first\n");
    let first = only(&FileSource::new(FileSettings::new(&path)).unwrap()).await;
    assert!(first.source.as_str().starts_with("file:6:") && first.source.as_str().ends_with(":g1"));
    for lines in [10, 1000, 5000] {
        std::fs::write(&path, [b"first\n", &numbered(lines)[..]].concat()).unwrap();
        let source = with_known(&path, vec![known(&first.source, "0", 1)]);
        let partition = only(&source).await;
        assert_eq!(partition.source, first.source);
        let mut reader = source.open(&partition, 1).await.unwrap();
        assert_eq!(drain(&mut *reader, LIMITS).await.unwrap().len(), lines);
        assert_eq!(same_incarnation(&first.source, &path).unwrap(), Sameness::Same);
    }
    assert_eq!(same_incarnation(&first.source, &folder.path().join("none")).unwrap(), Sameness::Gone);
}

#[tokio::test]
async fn another_or_shorter_file_stops_and_again_reads_it() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", numbered(100));
    let source = only(&FileSource::new(FileSettings::new(&path)).unwrap()).await.source;
    let recorded = vec![known(&source, "0", 100)];

    // Other content, as after a copy was made and the file truncated: the copy is no renamed predecessor.
    std::fs::copy(&path, folder.path().join("f.copy")).unwrap();
    std::fs::write(&path, "{\"m\":1}\n".repeat(200)).unwrap();
    let why = changed(with_known(&path, recorded.clone()).partitions().await);
    assert!(
        why.contains("another one") && why.contains("--again") && why.contains("unknown number"),
        "{why}"
    );

    // Fewer bytes than make the identity.
    std::fs::write(&path, &numbered(100)[..20]).unwrap();
    let why = changed(with_known(&path, recorded.clone()).partitions().await);
    assert!(why.contains("cut short") && why.contains("--again"), "{why}");

    // The same beginning, but fewer lines than were decided.
    let long_source = {
        std::fs::write(&path, numbered(1000)).unwrap();
        only(&FileSource::new(FileSettings::new(&path)).unwrap()).await.source
    };
    std::fs::write(&path, numbered(900)).unwrap();
    let cut = with_known(&path, vec![known(&long_source, "0", 1000)]);
    let partition = only(&cut).await;
    let why = changed(cut.open(&partition, 1000).await);
    assert!(why.contains("has 900 lines and 1000 of it were decided"), "{why}");

    let settings =
        FileSettings { known: vec![known(&long_source, "0", 1000)], again: true, ..FileSettings::new(&path) };
    let again = FileSource::new(settings).unwrap();
    let partition = only(&again).await;
    assert_eq!(partition.source.as_str(), long_source.as_str().replace(":g1", ":g2"));
    assert_eq!(only(&again).await, partition, "it stays the same incarnation within a run");
    assert_eq!(drain(&mut *again.open(&partition, 0).await.unwrap(), LIMITS).await.unwrap().len(), 900);
    let later = with_known(&path, vec![known(&long_source, "0", 1000), known(&partition.source, "0", 5)]);
    assert_eq!(only(&later).await.source, partition.source, "the newest incarnation goes on");
}

#[tokio::test]
async fn a_rotated_file_goes_on_only_after_its_predecessor_was_decided() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", numbered(100));
    let source = only(&FileSource::new(FileSettings::new(&path)).unwrap()).await.source;
    // File systems tell the age of files in ticks of some milliseconds.
    tokio::time::sleep(std::time::Duration::from_millis(30)).await;
    std::fs::rename(&path, folder.path().join("f.1")).unwrap();
    std::fs::write(&path, "after rotation\n").unwrap();

    let why = changed(with_known(&path, vec![known(&source, "0", 99)]).partitions().await);
    assert!(why.contains("f.1") && why.contains("100 lines only 99"), "{why}");

    let next = with_known(&path, vec![known(&source, "0", 100)]);
    let partition = only(&next).await;
    assert_ne!(partition.source, source);
    let lines = drain(&mut *next.open(&partition, 0).await.unwrap(), LIMITS).await.unwrap();
    assert_eq!(lines, ["0 after rotation"]);

    // The advice of the message: the rest of the predecessor is read from its own place.
    let rest = with_known(&folder.path().join("f.1"), vec![known(&source, "0", 99)]);
    let partition = only(&rest).await;
    assert_eq!(partition.source, source);
    assert_eq!(
        drain(&mut *rest.open(&partition, 99).await.unwrap(), LIMITS).await.unwrap(),
        ["99 {\"n\":99}"]
    );
}

#[tokio::test]
async fn a_folder_has_a_partition_for_each_file() {
    let folder = TempDir::new().unwrap();
    write(&folder, "b.ndjson", "b0\nb1\n");
    write(&folder, "a.ndjson.gz", gzip(b"a0\n"));
    write(&folder, "empty.ndjson", "");
    write(&folder, ".hidden", "no\n");
    let source = FileSource::new(FileSettings::new(folder.path())).unwrap();
    let names = |partitions: &[recount_engine::SourcePartition]| {
        partitions.iter().map(|p| p.partition.as_str().to_owned()).collect::<Vec<_>>()
    };
    let partitions = source.partitions().await.unwrap();
    assert_eq!(names(&partitions), ["a.ndjson.gz", "b.ndjson"]);
    let mut all = Vec::new();
    for partition in &partitions {
        all.push(drain(&mut *source.open(partition, 0).await.unwrap(), LIMITS).await.unwrap());
    }
    assert_eq!(all, [vec!["0 a0"], vec!["0 b0", "1 b1"]]);

    write(&folder, "c.ndjson", "c0\n");
    assert_eq!(names(&source.partitions().await.unwrap()), ["a.ndjson.gz", "b.ndjson", "c.ndjson"]);
    let pattern = FileSource::new(FileSettings::new(folder.path().join("?.ndjson"))).unwrap();
    assert_eq!(names(&pattern.partitions().await.unwrap()), ["b.ndjson", "c.ndjson"]);

    // A file that was rotated within the folder is not read a second time.
    let recorded: Vec<_> = partitions.iter().map(|p| known(&p.source, p.partition.as_str(), 2)).collect();
    std::fs::rename(folder.path().join("b.ndjson"), folder.path().join("b.ndjson.1")).unwrap();
    let rotated = with_known(folder.path(), recorded);
    assert_eq!(names(&rotated.partitions().await.unwrap()), ["a.ndjson.gz", "c.ndjson"]);
    let recorded: Vec<_> = partitions.iter().map(|p| known(&p.source, p.partition.as_str(), 1)).collect();
    let why = changed(with_known(folder.path(), recorded).partitions().await);
    assert!(why.contains("b.ndjson.1") && why.contains("only 1 of its 2 lines"), "{why}");
}

#[tokio::test]
async fn a_missing_file_is_named() {
    let folder = TempDir::new().unwrap();
    let path = folder.path().join("none.ndjson");
    let once = FileSource::new(FileSettings::new(&path)).unwrap().partitions().await;
    assert!(matches!(&once, Err(SourceError::Broken(why)) if why.contains("none.ndjson")), "{once:?}");
    let follow = FileSettings { follow: true, ..FileSettings::new(&path) };
    let waits = FileSource::new(follow).unwrap().partitions().await;
    assert!(matches!(&waits, Err(SourceError::Away(why)) if why.contains("waiting")), "{waits:?}");
    assert!(FileSource::new(FileSettings::new("-")).is_err());
}

#[tokio::test]
async fn the_witness_says_what_it_cannot_tell() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", numbered(100));
    let source = only(&FileSource::new(FileSettings::new(&path)).unwrap()).await.source;
    let witness = FileWitness::new(&path, source.clone(), true);
    assert_eq!(witness.positions().unwrap(), 100);
    let mut seen = 0;
    let stop = &mut |_: recount_adapters::file::witness::WitnessedLine<'_>| {
        seen += 1;
        if seen == 3 { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    };
    witness.visit(10, 100, 100, stop).unwrap();
    assert_eq!(seen, 3);
    let go = &mut |_: recount_adapters::file::witness::WitnessedLine<'_>| ControlFlow::Continue(());
    assert!(matches!(witness.visit(90, 101, 100, go), Err(FileWitnessError::Shorter(_))));

    let moved = folder.path().join("f.1");
    std::fs::rename(&path, &moved).unwrap();
    assert_eq!(witness.place().unwrap(), moved);
    std::fs::write(&path, "x\n").unwrap();
    assert_eq!(witness.positions().unwrap(), 100, "the renamed one is still its witness");
    std::fs::remove_file(&moved).unwrap();
    assert!(matches!(witness.positions(), Err(FileWitnessError::Shorter(_))));
    std::fs::write(&path, "x\n".repeat(2000)).unwrap();
    assert!(matches!(witness.positions(), Err(FileWitnessError::Changed(_))));
    std::fs::remove_file(&path).unwrap();
    assert!(matches!(witness.positions(), Err(FileWitnessError::Gone(_))));
}

#[tokio::test]
async fn the_backlog_is_counted_exactly() {
    let folder = TempDir::new().unwrap();
    let path = write(&folder, "f", [&numbered(1000)[..], b"unfinished"].concat());
    let source = FileSource::new(FileSettings::new(&path)).unwrap();
    let mut reader = source.open(&only(&source).await, 100).await.unwrap();
    assert_eq!(reader.backlog().await, Some(901));
    let taken = reader.take(TakeLimits { events_max: 300, ..LIMITS }).await.unwrap();
    assert_eq!((taken.next_offset, reader.backlog().await), (400, Some(601)));
    drain(&mut *reader, LIMITS).await.unwrap();
    assert_eq!(reader.backlog().await, Some(0));
}
