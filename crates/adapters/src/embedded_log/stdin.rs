//! Standard input, made durable before anything is decided about it.

use super::source::{Input, LogSource, LogSourceSettings};
use super::{EmbeddedLog, LogError, NewEvent};
use async_trait::async_trait;
use recount_engine::{Capabilities, Source, SourceError, SourcePartition, SourceReader};
use recount_model::Timestamp;
use std::io::{self, BufRead, BufReader, Read};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;

/// One commit takes at most so many lines, and so many bytes.
const COMMIT_LINES_MAX: usize = 1000;
const COMMIT_BYTES_MAX: usize = 4 * 1024 * 1024;
const TRIES_MAX: u32 = 5;

/// How standard input is spooled.
#[derive(Clone)]
pub struct StdinSettings {
    /// Of a longer line so many bytes are kept, and one more.
    pub payload_bytes_max: usize,
    /// The time.
    pub clock: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    /// How the log is read.
    pub source: LogSourceSettings,
}

/// A stream of lines, spooled to a log and read from there as positions.
///
/// Each line but a blank one becomes an event. What the log holds from an earlier run that wasn't decided
/// comes first. Drained once the stream has ended and the log was read to its end. Input that is given
/// again gets new positions: the flow's search for duplicates has to deal with it.
#[derive(Debug)]
pub struct StdinSource {
    source: LogSource,
}

impl StdinSource {
    /// Starts a thread that spools `input` until it ends. The thread ends with the input; if the program
    /// ends before, what wasn't spooled was never acknowledged to anyone.
    pub fn start(
        input: impl Read + Send + 'static,
        log: EmbeddedLog,
        settings: StdinSettings,
    ) -> Result<Self, SourceError> {
        let (state, watched) = watch::channel(Input::Open);
        let source = LogSource::new(log.clone(), settings.source.clone()).with_input(watched);
        std::thread::Builder::new()
            .name("recount-stdin".to_owned())
            .spawn(move || {
                let ended = spool(input, &log, &settings);
                state.send_replace(match ended {
                    Ok(()) => Input::Ended,
                    Err(why) => Input::Broken(why),
                });
            })
            .map_err(|e| SourceError::Away(format!("standard input can't be spooled: no thread: {e}")))?;
        Ok(Self { source })
    }
}

#[async_trait]
impl Source for StdinSource {
    fn capabilities(&self) -> Capabilities {
        self.source.capabilities()
    }

    async fn partitions(&self) -> Result<Vec<SourcePartition>, SourceError> {
        self.source.partitions().await
    }

    async fn open(
        &self,
        partition: &SourcePartition,
        next_offset: u64,
    ) -> Result<Box<dyn SourceReader>, SourceError> {
        self.source.open(partition, next_offset).await
    }
}

fn spool(input: impl Read, log: &EmbeddedLog, settings: &StdinSettings) -> Result<(), String> {
    let mut input = BufReader::with_capacity(256 * 1024, input);
    let mut first = true;
    loop {
        let mut events = Vec::new();
        let mut bytes = 0;
        let mut ended = false;
        while events.len() < COMMIT_LINES_MAX && bytes < COMMIT_BYTES_MAX {
            let line = read_line(&mut input, settings.payload_bytes_max, first)
                .map_err(|e| format!("standard input can't be read: {e}"))?;
            first = false;
            let Some((kept, bytes_full)) = line else {
                ended = true;
                break;
            };
            bytes += kept.len();
            if !(kept.len() as u64 == bytes_full && kept.iter().all(|b| matches!(b, b' ' | b'\t'))) {
                let mut event = NewEvent::new(kept, (settings.clock)());
                event.payload_bytes = bytes_full;
                events.push(event);
            }
            // A slow producer: what came so far is not kept waiting for a full commit.
            if input.buffer().is_empty() {
                break;
            }
        }
        append(log, events).map_err(|e| format!("standard input can't be spooled: {e}"))?;
        if ended {
            return Ok(());
        }
    }
}

/// Tries a few times: a full disk may get room, and the producer waits meanwhile.
fn append(log: &EmbeddedLog, events: Vec<NewEvent>) -> Result<(), LogError> {
    if events.is_empty() {
        return Ok(());
    }
    let mut pause = Duration::from_millis(100);
    for _ in 1..TRIES_MAX {
        match log.append_blocking(events.clone()) {
            Ok(_) => return Ok(()),
            Err(e) => tracing::warn!("standard input waits: {e}"),
        }
        std::thread::sleep(pause);
        pause *= 2;
    }
    log.append_blocking(events).map(drop)
}

/// The next line without its end, cut to `kept_bytes_max` and one more, and its full length.
fn read_line(
    input: &mut impl BufRead,
    kept_bytes_max: usize,
    first: bool,
) -> io::Result<Option<(Vec<u8>, u64)>> {
    let (mut kept, mut bytes_full, mut last, mut any) = (Vec::new(), 0_u64, 0, false);
    let ended = loop {
        let there = match input.fill_buf() {
            Ok(there) => there,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
            Err(e) => return Err(e),
        };
        if there.is_empty() {
            break false;
        }
        any = true;
        let newline = memchr::memchr(b'\n', there);
        let length = newline.unwrap_or(there.len());
        // Room for the one byte that shows the cut, a carriage return, and a byte order mark.
        let room = kept_bytes_max.saturating_add(5).saturating_sub(kept.len());
        kept.extend_from_slice(&there[..length.min(room)]);
        bytes_full += length as u64;
        last = there[..length].last().copied().unwrap_or(last);
        input.consume(length + usize::from(newline.is_some()));
        if newline.is_some() {
            break true;
        }
    };
    if !any && !ended {
        return Ok(None);
    }
    if last == b'\r' {
        bytes_full -= 1;
        kept.truncate(usize::try_from(bytes_full).unwrap_or(usize::MAX));
    }
    if first && kept.starts_with(b"\xef\xbb\xbf") {
        kept.drain(..3);
        bytes_full -= 3;
    }
    kept.truncate(kept_bytes_max.saturating_add(1));
    Ok(Some((kept, bytes_full)))
}
