//! One open file.

use super::FileSettings;
use super::content::{Content, Packing};
use super::identity::{FileId, IDENTITY_BYTES_MAX, Sameness};
use super::lines::{Lines, Step};
use super::resolve::Shared;
use crate::settled::SettledPrefix;
use async_trait::async_trait;
use memchr::memchr_iter;
use recount_engine::source::Settled;
use recount_engine::{Delivery, Polled, SourceError, SourceReader, TakeLimits};
use recount_model::{Gap, GapKind, Partition, SourceId};
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// A take reads at most about so many bytes before it lets others run.
pub const TAKE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// One call of `backlog` counts at most so many bytes: it is asked after each batch.
const BACKLOG_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// A checkpoint is kept each so many bytes at first; the distance doubles with their number.
const CHECKPOINT_BYTES: u64 = 16 * 1024 * 1024;
const CHECKPOINTS_MAX: usize = 1024;

/// Which file, as which incarnation.
#[derive(Debug, Clone)]
pub(super) struct Target {
    pub(super) source: SourceId,
    pub(super) partition: Partition,
    pub(super) path: PathBuf,
}

/// Why a reader can't go on; kept, so that each further take says the same.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    Changed(String),
    Broken(String),
    Away(String),
}

impl Fault {
    fn error(&self) -> SourceError {
        match self.clone() {
            Self::Changed(text) => SourceError::Changed(text),
            Self::Broken(text) => SourceError::Broken(text),
            Self::Away(text) => SourceError::Away(text),
        }
    }
}

/// What one step of reading came to.
pub(super) enum Next {
    /// A line is ready.
    Line,
    /// Nothing now.
    Nothing,
    /// Nothing ever.
    Drained,
}

/// A reader of one file's lines.
pub(super) struct FileReader {
    pub(super) target: Target,
    pub(super) id: FileId,
    pub(super) follow: bool,
    pub(super) alone: bool,
    pub(super) poll_interval: Duration,
    pub(super) shared: Arc<Shared>,
    /// For looking at the file beside the stream: positioned reads and its metadata.
    pub(super) file: File,
    pub(super) packing: Packing,
    pub(super) lines: Lines,
    pub(super) next_offset: u64,
    pub(super) settled: SettledPrefix,
    /// The unfinished last line was decided before; only its end may follow.
    pub(super) last_line_decided: bool,
    /// A followed compressed stream ended; it is opened anew when the file has grown.
    pub(super) stream_ended: bool,
    /// It ended in the middle of a frame or member.
    pub(super) stream_incomplete: bool,
    pub(super) file_bytes_seen: u64,
    pub(super) looked_at: Option<Instant>,
    pub(super) rotated_at: Option<Instant>,
    fault: Option<Fault>,
    checkpoint_bytes: u64,
    checkpoint_at: u64,
    counted_lines: u64,
    counted_bytes: u64,
    /// The file's size when all of it was counted, and whether it had an unfinished last line.
    counted_file: Option<(u64, bool)>,
}

impl FileReader {
    pub(super) fn open(
        settings: &FileSettings,
        shared: Arc<Shared>,
        target: Target,
        next_offset: u64,
    ) -> Result<Self, SourceError> {
        let shown = target.path.display().to_string();
        let unreadable = |e: io::Error| SourceError::Broken(format!("file {shown} can't be read: {e}"));
        let file = File::open(&target.path).map_err(unreadable)?;
        let mut head = [0; IDENTITY_BYTES_MAX];
        let head_bytes = read_at_most(&file, &mut head, 0).map_err(unreadable)?;
        let id = FileId::parse(&target.source)
            .filter(|id| id.compare(&head[..head_bytes]) == Sameness::Same)
            .ok_or_else(|| {
                SourceError::Changed(format!(
                    "file {shown} is not {} any more: its first bytes changed; run with --again to read it as \
                     a new incarnation from its first line",
                    target.source
                ))
            })?;
        let packing = Packing::of_head(&head[..head_bytes]);
        if let Some(promised) = Packing::of_name(&target.path).filter(|p| *p != packing) {
            return Err(SourceError::Broken(format!(
                "file {shown} is named as {} and begins as {}: it is damaged, or has the wrong name",
                promised.word(),
                packing.word()
            )));
        }
        let file_bytes_seen = file.metadata().map_err(unreadable)?.len();
        let stream = file.try_clone().map_err(unreadable)?;
        let mut reader = Self {
            id,
            follow: settings.follow,
            alone: target.partition.as_str() == "0" && !settings.path.is_dir(),
            poll_interval: Duration::from_millis(settings.poll_interval_ms.max(1)),
            shared,
            file,
            packing,
            lines: Lines::new(Content::new(stream, packing).map_err(unreadable)?, 0),
            next_offset,
            settled: SettledPrefix::starting_at(next_offset),
            last_line_decided: false,
            stream_ended: false,
            stream_incomplete: false,
            file_bytes_seen,
            looked_at: None,
            rotated_at: None,
            fault: None,
            checkpoint_bytes: CHECKPOINT_BYTES,
            checkpoint_at: 0,
            counted_lines: 0,
            counted_bytes: 0,
            counted_file: None,
            target,
        };
        reader.seek_to_line()?;
        reader.shared.update(&reader.target.partition, &reader.target.source, |current| {
            current.reading = true;
            current.settled_next_offset = current.settled_next_offset.max(next_offset);
        });
        Ok(reader)
    }

    /// Opens the stream anew and passes the lines below `next_offset`.
    pub(super) fn seek_to_line(&mut self) -> Result<(), SourceError> {
        let shown = self.target.path.display().to_string();
        let (mut line, mut byte) = (0, 0);
        if self.packing == Packing::Plain {
            let partitions = self.shared.lock();
            let checkpoints = partitions.get(&self.target.partition).map(|c| &c.checkpoints[..]);
            let before = checkpoints.unwrap_or(&[]).iter().rev().find(|(l, _)| *l <= self.next_offset);
            (line, byte) = before.copied().unwrap_or((0, 0));
        }
        let opened = self.file.try_clone().and_then(|mut stream| {
            stream.seek(SeekFrom::Start(byte))?;
            Content::new(stream, self.packing)
        });
        let broken = |e: io::Error| SourceError::Broken(format!("file {shown} can't be read: {e}"));
        self.lines = Lines::new(opened.map_err(broken)?, byte);
        let missing = self.next_offset - line;
        let skipped = match self.lines.skip(missing) {
            Ok(skipped) => skipped,
            Err(e) => return Err(self.damage(&e).error()),
        };
        self.last_line_decided = skipped + 1 == missing && self.lines.unfinished_bytes() > 0;
        if skipped < missing && !self.last_line_decided {
            return Err(SourceError::Changed(format!(
                "file {shown} was cut short: it has {} lines and {} of it were decided; an unknown number may \
                 be lost: restore it, or run with --again to read it as a new incarnation from its first line",
                line + skipped,
                self.next_offset
            )));
        }
        (self.counted_lines, self.counted_bytes) = (self.next_offset, self.lines.line_start());
        if self.last_line_decided {
            self.counted_bytes += self.lines.unfinished_bytes();
        }
        Ok(())
    }

    /// Takes what is there, without waiting.
    fn fill(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let mut polled = Polled { next_offset: self.next_offset, ..Polled::default() };
        let mut budget_bytes = TAKE_BYTES_MAX;
        let mut payload_bytes = 0;
        self.lines.keep_at_most(limits.payload_bytes_max);
        while polled.deliveries.len() < limits.events_max.max(1) && self.fault.is_none() {
            match self.step(&mut budget_bytes) {
                Ok(Next::Line) => {}
                Ok(Next::Nothing) => break,
                Ok(Next::Drained) => {
                    polled.drained = true;
                    break;
                }
                Err(fault) => {
                    self.fault = Some(fault);
                    break;
                }
            }
            let line = self.lines.line();
            if is_blank(line.bytes, line.bytes_full) {
                note_blank(&mut polled.gaps, self.next_offset);
                self.settled.add(self.next_offset, self.next_offset + 1);
            } else {
                payload_bytes += line.bytes.len();
                if payload_bytes > limits.bytes_max && !polled.deliveries.is_empty() {
                    break;
                }
                polled.deliveries.push(Delivery {
                    offset: self.next_offset,
                    payload: Arc::from(line.bytes),
                    payload_bytes: line.bytes_full,
                    headers: Vec::new(),
                    broker_key: None,
                    reported: None,
                });
            }
            self.lines.consume();
            self.next_offset += 1;
        }
        polled.next_offset = self.next_offset;
        self.note_checkpoint();
        match &self.fault {
            Some(fault) if polled.deliveries.is_empty() && polled.gaps.is_empty() => {
                let error = fault.error();
                // What is away may come back; the rest is the same at each further take.
                self.fault = self.fault.take().filter(|f| !matches!(f, Fault::Away(_)));
                Err(error)
            }
            _ => Ok(polled),
        }
    }

    fn step(&mut self, budget_bytes: &mut usize) -> Result<Next, Fault> {
        if self.stream_ended {
            return self.at_end();
        }
        if self.last_line_decided {
            match self.lines.pass_line_end() {
                Ok(Some(true)) => self.last_line_decided = false,
                Ok(Some(false)) => return self.at_end(),
                Ok(None) => {
                    return Err(Fault::Changed(format!(
                        "file {}: line {} was decided when it had no newline yet, and was continued since: \
                         run with --again to read the file as a new incarnation from its first line",
                        self.target.path.display(),
                        self.next_offset.saturating_sub(1)
                    )));
                }
                Err(e) => return Err(self.damage(&e)),
            }
        }
        match self.lines.advance(budget_bytes) {
            Ok(Step::Line) => Ok(Next::Line),
            Ok(Step::BudgetSpent) => Ok(Next::Nothing),
            Ok(Step::End) => {
                self.stream_ended = self.packing != Packing::Plain && self.follow;
                self.at_end()
            }
            Err(e) if self.follow && e.kind() == io::ErrorKind::UnexpectedEof => {
                self.stream_ended = true;
                self.stream_incomplete = true;
                self.at_end()
            }
            Err(e) => Err(self.damage(&e)),
        }
    }

    pub(super) fn damage(&self, e: &io::Error) -> Fault {
        let shown = self.target.path.display();
        if self.packing == Packing::Plain {
            return Fault::Away(format!("file {shown} can't be read at line {}: {e}", self.next_offset));
        }
        Fault::Broken(format!(
            "file {shown} is damaged as {} near byte {}: {e}; its lines before {} could be read: restore it \
             from a good copy",
            self.packing.word(),
            self.lines.raw_bytes_consumed(),
            self.next_offset
        ))
    }

    fn note_checkpoint(&mut self) {
        let at = self.lines.line_start();
        if self.packing != Packing::Plain || at < self.checkpoint_at + self.checkpoint_bytes {
            return;
        }
        self.checkpoint_at = at;
        let (offset, mut distance) = (self.next_offset, self.checkpoint_bytes);
        self.shared.update(&self.target.partition, &self.target.source, |current| {
            if current.checkpoints.last().is_none_or(|(line, _)| *line < offset) {
                current.checkpoints.push((offset, at));
            }
            if current.checkpoints.len() > CHECKPOINTS_MAX {
                let mut keep = false;
                current.checkpoints.retain(|_| {
                    keep = !keep;
                    keep
                });
                distance *= 2;
            }
        });
        self.checkpoint_bytes = distance;
    }

    /// Lines from `next_offset` on, counting the bytes that weren't counted before, up to the limit of one
    /// call. `None` where it wasn't enough.
    fn count_ahead(&mut self) -> io::Result<Option<u64>> {
        let file_bytes = self.file.metadata()?.len();
        if self.counted_lines < self.next_offset {
            (self.counted_lines, self.counted_bytes) = (self.next_offset, self.lines.line_start());
            self.counted_file = None;
        }
        if self.counted_file.is_none_or(|(bytes, _)| bytes != file_bytes) {
            self.counted_file = self.count_to_end(file_bytes)?;
        }
        Ok(self.counted_file.map(|(_, unfinished)| {
            self.counted_lines - self.next_offset + u64::from(unfinished && !self.last_line_decided)
        }))
    }

    fn count_to_end(&mut self, file_bytes: u64) -> io::Result<Option<(u64, bool)>> {
        let mut buffer = vec![0; 256 * 1024];
        let until = self.counted_bytes.saturating_add(BACKLOG_BYTES_MAX);
        while self.counted_bytes < until {
            let read = read_at_most(&self.file, &mut buffer, self.counted_bytes)?;
            let lines_end = memchr::memrchr(b'\n', &buffer[..read]).map_or(0, |at| at + 1);
            self.counted_lines += memchr_iter(b'\n', &buffer[..lines_end]).count() as u64;
            self.counted_bytes += lines_end as u64;
            if read < buffer.len() {
                return Ok(Some((file_bytes, read > lines_end)));
            }
            if lines_end == 0 {
                // A line longer than the buffer: its end isn't known without reading on.
                return Ok(None);
            }
        }
        Ok(None)
    }
}

impl Drop for FileReader {
    fn drop(&mut self) {
        self.shared.update(&self.target.partition, &self.target.source, |current| current.reading = false);
    }
}

#[async_trait]
impl SourceReader for FileReader {
    async fn take(&mut self, limits: TakeLimits) -> Result<Polled, SourceError> {
        let until = Instant::now() + Duration::from_millis(limits.wait_ms);
        loop {
            let unfinished_before = self.lines.unfinished_bytes();
            let polled = self.fill(limits)?;
            let left = until.saturating_duration_since(Instant::now());
            let brought = !polled.deliveries.is_empty() || !polled.gaps.is_empty() || polled.drained;
            if brought || left.is_zero() {
                return Ok(polled);
            }
            // Nothing was taken out yet, so a take that is cancelled here has lost nothing.
            if self.lines.unfinished_bytes() > unfinished_before {
                tokio::task::yield_now().await;
            } else {
                tokio::time::sleep(left.min(self.poll_interval)).await;
            }
        }
    }

    async fn settle(&mut self, settled: Vec<Settled>) -> Result<(), SourceError> {
        for one in settled {
            self.settled.add(one.offset(), one.offset() + 1);
        }
        let next_offset = self.settled.next_offset();
        self.shared.update(&self.target.partition, &self.target.source, |current| {
            current.settled_next_offset = current.settled_next_offset.max(next_offset);
        });
        Ok(())
    }

    async fn backlog(&mut self) -> Option<u64> {
        match self.packing {
            Packing::Plain => self.count_ahead().ok().flatten(),
            _ => None,
        }
    }
}

fn is_blank(bytes: &[u8], bytes_full: u64) -> bool {
    bytes.len() as u64 == bytes_full && bytes.iter().all(|b| matches!(b, b' ' | b'\t' | b'\r'))
}

fn note_blank(gaps: &mut Vec<Gap>, offset: u64) {
    match gaps.last_mut() {
        Some(gap) if gap.to == offset => gap.to += 1,
        _ => gaps.push(Gap {
            from: offset,
            to: offset + 1,
            kind: GapKind::NotAnEvent,
            cause: "blank line".to_owned(),
        }),
    }
}

/// Reads until the buffer is full or the file ends, without moving its position.
pub(super) fn read_at_most(file: &File, buffer: &mut [u8], at: u64) -> io::Result<usize> {
    let mut read = 0;
    while read < buffer.len() {
        match file.read_at(&mut buffer[read..], at + read as u64) {
            Ok(0) => break,
            Ok(n) => read += n,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(read)
}
