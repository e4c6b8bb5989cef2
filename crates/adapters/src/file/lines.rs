//! Lines out of a stream, with bounded memory however long one is.

use super::content::Content;
use memchr::{memchr, memchr_iter};
use std::io::{self, Read};

const BUFFER_BYTES: usize = 256 * 1024;
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// How one step ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A line is ready: [`Lines::line`], then [`Lines::consume`].
    Line,
    /// As many bytes were read as one step may; call again.
    BudgetSpent,
    /// The stream has nothing more now; bytes after the last newline, if any, are kept.
    End,
}

/// One line without its end.
pub(super) struct Line<'a> {
    /// At most as many bytes as are kept, and one more where it was cut.
    pub(super) bytes: &'a [u8],
    /// The length before it was cut.
    pub(super) bytes_full: u64,
}

enum Found {
    /// The line lies in the buffer, so long without its newline.
    InBuffer(usize),
    /// It is in `carry`; `true` if a newline ended it.
    InCarry(bool),
}

/// The lines of one stream. A newline ends a line, a carriage return before it and a byte order mark at the
/// start of the stream are left out.
pub(super) struct Lines {
    content: Content,
    buffer: Box<[u8]>,
    start: usize,
    end: usize,
    /// The beginning of a line that reaches over the buffer's end, as much of it as is kept.
    carry: Vec<u8>,
    carry_bytes_full: u64,
    carry_last: u8,
    found: Option<Found>,
    /// Where the line that comes next begins, in unpacked bytes.
    line_start: u64,
    kept_bytes_max: usize,
}

impl Lines {
    /// `line_start` is where `content` stands.
    pub(super) fn new(content: Content, line_start: u64) -> Self {
        Self {
            content,
            buffer: Box::default(),
            start: 0,
            end: 0,
            carry: Vec::new(),
            carry_bytes_full: 0,
            carry_last: 0,
            found: None,
            line_start,
            kept_bytes_max: 0,
        }
    }

    /// Of a longer line so many bytes are kept, and one more.
    pub(super) fn keep_at_most(&mut self, bytes_max: usize) {
        self.kept_bytes_max = bytes_max;
    }

    /// Where the next line begins, in unpacked bytes.
    pub(super) fn line_start(&self) -> u64 {
        self.line_start
    }

    /// Raw bytes that the decoder took.
    pub(super) fn raw_bytes_consumed(&self) -> u64 {
        self.content.raw_bytes_consumed()
    }

    /// Bytes after the last newline that are kept until it comes.
    pub(super) fn unfinished_bytes(&self) -> u64 {
        self.carry_bytes_full
    }

    /// Goes on to the next line, reading at most about `budget_bytes`, which it lowers.
    pub(super) fn advance(&mut self, budget_bytes: &mut usize) -> io::Result<Step> {
        if self.found.is_some() {
            return Ok(Step::Line);
        }
        loop {
            if let Some(length) = memchr(b'\n', &self.buffer[self.start..self.end]) {
                self.found = Some(if self.carry_bytes_full == 0 {
                    Found::InBuffer(length)
                } else {
                    self.carry_over(length);
                    self.start += 1;
                    Found::InCarry(true)
                });
                return Ok(Step::Line);
            }
            self.carry_over(self.end - self.start);
            if *budget_bytes == 0 {
                return Ok(Step::BudgetSpent);
            }
            if self.refill()? == 0 {
                return Ok(Step::End);
            }
            *budget_bytes = budget_bytes.saturating_sub(self.end);
        }
    }

    /// Takes the bytes after the last newline for a line; false where there are none.
    pub(super) fn finish_unfinished(&mut self) -> bool {
        if self.found.is_none() && self.carry_bytes_full > 0 {
            self.found = Some(Found::InCarry(false));
        }
        self.found.is_some()
    }

    /// The line that is ready; empty where none is.
    pub(super) fn line(&self) -> Line<'_> {
        let (bytes, mut bytes_full, last) = match self.found {
            Some(Found::InBuffer(length)) => {
                let bytes = &self.buffer[self.start..self.start + length];
                (bytes, length as u64, bytes.last().copied())
            }
            Some(Found::InCarry(_)) => (&self.carry[..], self.carry_bytes_full, Some(self.carry_last)),
            None => (&[][..], 0, None),
        };
        if last == Some(b'\r') {
            bytes_full -= 1;
        }
        let mut bytes = &bytes[..bytes.len().min(usize::try_from(bytes_full).unwrap_or(usize::MAX))];
        if self.line_start == 0
            && let Some(rest) = bytes.strip_prefix(BYTE_ORDER_MARK)
        {
            bytes = rest;
            bytes_full -= BYTE_ORDER_MARK.len() as u64;
        }
        Line { bytes: &bytes[..bytes.len().min(self.kept_bytes_max.saturating_add(1))], bytes_full }
    }

    /// Passes the line that is ready.
    pub(super) fn consume(&mut self) {
        match self.found.take() {
            Some(Found::InBuffer(length)) => {
                self.start += length + 1;
                self.line_start += length as u64 + 1;
            }
            Some(Found::InCarry(ended)) => {
                self.line_start += self.carry_bytes_full + u64::from(ended);
                self.carry.clear();
                self.carry_bytes_full = 0;
            }
            None => {}
        }
    }

    /// Passes up to `count` lines without looking at them and returns how many there were. Bytes after the
    /// last newline stay unfinished, of them only the number is kept.
    pub(super) fn skip(&mut self, count: u64) -> io::Result<u64> {
        let mut skipped = 0;
        while skipped < count {
            if self.start == self.end && self.refill()? == 0 {
                break;
            }
            let there = &self.buffer[self.start..self.end];
            let (newlines, length) = newlines_up_to(there, count - skipped);
            if newlines > 0 {
                self.line_start += self.carry_bytes_full;
                self.carry_bytes_full = 0;
                let ended = memchr::memrchr(b'\n', &there[..length]).map_or(0, |at| at + 1);
                self.line_start += ended as u64;
                self.carry_bytes_full = (length - ended) as u64;
            } else {
                self.carry_bytes_full += length as u64;
            }
            self.carry_last = there[length - 1];
            self.start += length;
            skipped += newlines;
        }
        Ok(skipped)
    }

    /// Passes bytes that are there up to and including the next newline, which end a line that was counted
    /// before. `None` where other bytes than the line's end come first.
    pub(super) fn pass_line_end(&mut self) -> io::Result<Option<bool>> {
        if self.start == self.end && self.refill()? == 0 {
            return Ok(Some(false));
        }
        match self.buffer[self.start] {
            b'\n' => {
                self.start += 1;
                self.line_start += self.carry_bytes_full + 1;
                self.carry_bytes_full = 0;
                Ok(Some(true))
            }
            b'\r' => {
                self.start += 1;
                self.carry_bytes_full += 1;
                self.pass_line_end()
            }
            _ => Ok(None),
        }
    }

    fn refill(&mut self) -> io::Result<usize> {
        self.start = 0;
        self.end = 0;
        if self.buffer.is_empty() {
            self.buffer = vec![0; BUFFER_BYTES].into_boxed_slice();
        }
        self.end = self.content.read(&mut self.buffer)?;
        if self.end == 0 {
            // A folder may have many files that are read to their ends: these keep no buffer.
            self.buffer = Box::default();
        }
        Ok(self.end)
    }

    fn carry_over(&mut self, length: usize) {
        let bytes = &self.buffer[self.start..self.start + length];
        if let Some(last) = bytes.last() {
            self.carry_last = *last;
        }
        // Room for the one byte that shows the cut, a carriage return, and a byte order mark.
        let room = (self.kept_bytes_max.saturating_add(5)).saturating_sub(self.carry.len());
        self.carry.extend_from_slice(&bytes[..length.min(room)]);
        self.carry_bytes_full += length as u64;
        self.start += length;
    }
}

/// How many newlines there are, at most `count`, and the length up to the last of these if they are `count`,
/// else of all.
fn newlines_up_to(bytes: &[u8], count: u64) -> (u64, usize) {
    let all = memchr_iter(b'\n', bytes).count() as u64;
    if all < count {
        return (all, bytes.len());
    }
    let last = memchr_iter(b'\n', bytes).nth(usize::try_from(count - 1).unwrap_or(usize::MAX));
    (count, last.map_or(bytes.len(), |at| at + 1))
}
