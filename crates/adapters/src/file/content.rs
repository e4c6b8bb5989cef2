//! A file's bytes, unpacked where they are compressed.

use flate2::bufread::MultiGzDecoder;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// How a file is packed, told by its first bytes and not by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Packing {
    /// As it is.
    Plain,
    /// One or more gzip members.
    Gzip,
    /// One or more zstd frames.
    Zstd,
}

impl Packing {
    /// From a file's first bytes: RFC 1952 §2.3.1, RFC 8878 §3.1.1 (and §3.1.2, skippable frames).
    pub(super) fn of_head(head: &[u8]) -> Self {
        match head {
            [0x1f, 0x8b, ..] => Self::Gzip,
            [0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..] => Self::Zstd,
            _ => Self::Plain,
        }
    }

    /// What the name promises, where it promises something.
    pub(super) fn of_name(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()? {
            "gz" => Some(Self::Gzip),
            "zst" => Some(Self::Zstd),
            _ => None,
        }
    }

    pub(super) fn word(self) -> &'static str {
        match self {
            Self::Plain => "plain text",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }
}

/// Counts the raw bytes that a decoder consumed, so that damage can be placed.
struct Counted {
    inner: BufReader<File>,
    consumed: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buf)?;
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        Ok(n)
    }
}

impl BufRead for Counted {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, n: usize) {
        self.consumed.fetch_add(n as u64, Ordering::Relaxed);
        self.inner.consume(n);
    }
}

/// A file's unpacked bytes, in order.
pub(super) struct Content {
    stream: Box<dyn Read + Send>,
    consumed: Arc<AtomicU64>,
}

impl Content {
    /// Reads `file` from where it stands, which is its start unless it is plain.
    pub(super) fn new(file: File, packing: Packing) -> io::Result<Self> {
        let consumed = Arc::new(AtomicU64::new(0));
        let counted = |file| Counted {
            inner: BufReader::with_capacity(64 * 1024, file),
            consumed: Arc::clone(&consumed),
        };
        let stream: Box<dyn Read + Send> = match packing {
            Packing::Plain => Box::new(file),
            Packing::Gzip => Box::new(MultiGzDecoder::new(counted(file))),
            Packing::Zstd => Box::new(zstd::stream::read::Decoder::with_buffer(counted(file))?),
        };
        Ok(Self { stream, consumed })
    }

    /// Raw bytes that the decoder took; 0 for a plain file.
    pub(super) fn raw_bytes_consumed(&self) -> u64 {
        self.consumed.load(Ordering::Relaxed)
    }
}

impl Read for Content {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.stream.read(buf) {
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                other => return other,
            }
        }
    }
}
