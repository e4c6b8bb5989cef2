//! Counting a file's lines again, for the audit.
//!
//! Independent of the reader in this folder on purpose: its own opening, its own splitting, its own look at
//! the identity. An error in one can't hide in the other.

use recount_model::SourceId;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Read};
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

/// Why a file can't tell.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FileWitnessError {
    /// There is no such file, and none beside it that begins as recorded.
    #[error("{0}")]
    Gone(String),
    /// It begins with other bytes than were recorded.
    #[error("{0}")]
    Changed(String),
    /// It has fewer bytes, or fewer lines, than were recorded.
    #[error("{0}")]
    Shorter(String),
    /// It can't be read, or is damaged.
    #[error("{0}")]
    Unreadable(String),
}

/// One line as the witness sees it.
#[derive(Debug, Clone, Copy)]
pub struct WitnessedLine<'a> {
    /// Its ordinal from 0.
    pub offset: u64,
    /// Without its end, at most as many bytes as were asked for and one more.
    pub bytes: &'a [u8],
    /// The length before it was cut.
    pub bytes_full: u64,
    /// It holds nothing but blanks: a position without an event.
    pub blank: bool,
}

/// The file of one recorded incarnation. Each question opens it anew.
#[derive(Debug, Clone)]
pub struct FileWitness {
    path: PathBuf,
    recorded: SourceId,
    unfinished_line_counts: bool,
}

impl FileWitness {
    /// `unfinished_line_counts`: whether bytes after the last newline are a line; not for a followed file,
    /// where they wait for their newline.
    pub fn new(path: impl Into<PathBuf>, recorded: SourceId, unfinished_line_counts: bool) -> Self {
        Self { path: path.into(), recorded, unfinished_line_counts }
    }

    /// Where the incarnation is now: at its path, or renamed beside it.
    pub fn place(&self) -> Result<PathBuf, FileWitnessError> {
        let shown = self.path.display();
        let (count, hash) = recorded_parts(self.recorded.as_str()).ok_or_else(|| {
            FileWitnessError::Changed(format!(
                "{} is not a file's id: file {shown} can't tell",
                self.recorded
            ))
        })?;
        let here = first_bytes(&self.path, count);
        if here.as_ref().is_ok_and(|bytes| fits(bytes, count, hash)) {
            return Ok(self.path.clone());
        }
        let folder = match self.path.parent() {
            Some(folder) if !folder.as_os_str().is_empty() => folder.to_owned(),
            _ => PathBuf::from("."),
        };
        let mut beside: Vec<PathBuf> = std::fs::read_dir(folder)
            .map(|entries| entries.take(10_000).filter_map(|e| Some(e.ok()?.path())).collect())
            .unwrap_or_default();
        beside.sort();
        let renamed = beside.into_iter().find(|other| {
            other.is_file() && first_bytes(other, count).is_ok_and(|bytes| fits(&bytes, count, hash))
        });
        match (renamed, here) {
            (Some(renamed), _) => Ok(renamed),
            (None, Ok(bytes)) if bytes.len() < count => Err(FileWitnessError::Shorter(format!(
                "file {shown} has {} bytes, and {count} were recorded: it was cut short",
                bytes.len()
            ))),
            (None, Ok(_)) => Err(FileWitnessError::Changed(format!(
                "file {shown} begins with other bytes than the recorded {}",
                self.recorded
            ))),
            (None, Err(e)) if e.kind() == io::ErrorKind::NotFound => Err(FileWitnessError::Gone(format!(
                "file {shown} is gone, and none beside it begins like it"
            ))),
            (None, Err(e)) => Err(FileWitnessError::Unreadable(format!("file {shown} can't be read: {e}"))),
        }
    }

    /// How many positions it holds now.
    pub fn positions(&self) -> Result<u64, FileWitnessError> {
        let place = self.place()?;
        let mut count = 0;
        self.each_line(&place, 0, |_| {
            count += 1;
            ControlFlow::Continue(())
        })?;
        Ok(count)
    }

    /// Visits the lines `from..to` in order, until `visit` breaks. `Shorter` if the file ends before `to`.
    pub fn visit(
        &self,
        from: u64,
        to: u64,
        kept_bytes_max: usize,
        visit: &mut dyn FnMut(WitnessedLine<'_>) -> ControlFlow<()>,
    ) -> Result<(), FileWitnessError> {
        if from >= to {
            return Ok(());
        }
        let place = self.place()?;
        let (mut seen, mut stopped) = (0, false);
        self.each_line(&place, kept_bytes_max, |line| {
            seen = line.offset + 1;
            if line.offset >= from && visit(line).is_break() {
                stopped = true;
            }
            if stopped || seen == to { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
        })?;
        if stopped || seen == to {
            return Ok(());
        }
        Err(FileWitnessError::Shorter(format!(
            "file {} has {seen} lines, and was asked for {from} to below {to}",
            place.display()
        )))
    }

    fn each_line(
        &self,
        place: &Path,
        kept_bytes_max: usize,
        mut visit: impl FnMut(WitnessedLine<'_>) -> ControlFlow<()>,
    ) -> Result<(), FileWitnessError> {
        let mut offset = 0;
        let mut read = || -> io::Result<()> {
            let mut input = unpacked(place)?;
            let mut line = Vec::new();
            while let Some(seen) = next_line(&mut input, &mut line, kept_bytes_max.saturating_add(6))? {
                if !seen.ended && !self.unfinished_line_counts {
                    break;
                }
                let mut bytes_full = seen.bytes_full - u64::from(seen.last == b'\r');
                let mut bytes = &line[..line.len().min(usize::try_from(bytes_full).unwrap_or(usize::MAX))];
                if offset == 0 && bytes.starts_with("\u{feff}".as_bytes()) {
                    bytes = &bytes[3..];
                    bytes_full -= 3;
                }
                let blank = !seen.inked;
                bytes = &bytes[..bytes.len().min(kept_bytes_max.saturating_add(1))];
                if visit(WitnessedLine { offset, bytes, bytes_full, blank }).is_break() {
                    break;
                }
                offset += 1;
            }
            Ok(())
        };
        read().map_err(|e| {
            FileWitnessError::Unreadable(format!(
                "file {} can't be read after {offset} lines: {e}",
                place.display()
            ))
        })
    }
}

/// What one line was.
struct Seen {
    bytes_full: u64,
    last: u8,
    ended: bool,
    /// Some byte of it is neither space, tab, carriage return nor byte order mark.
    inked: bool,
}

/// Reads one line into `line`, at most `room` bytes of it. `None` at the end.
fn next_line(input: &mut impl BufRead, line: &mut Vec<u8>, room: usize) -> io::Result<Option<Seen>> {
    line.clear();
    let mut seen = Seen { bytes_full: 0, last: 0, ended: false, inked: false };
    while !seen.ended {
        let there = input.fill_buf()?;
        if there.is_empty() {
            break;
        }
        let length = there.iter().position(|b| *b == b'\n');
        let bytes = &there[..length.unwrap_or(there.len())];
        seen.ended = length.is_some();
        seen.inked |= bytes.iter().any(|b| !matches!(b, b' ' | b'\t' | b'\r' | 0xef | 0xbb | 0xbf));
        seen.bytes_full += bytes.len() as u64;
        seen.last = bytes.last().copied().unwrap_or(seen.last);
        line.extend_from_slice(&bytes[..bytes.len().min(room.saturating_sub(line.len()))]);
        let used = bytes.len() + usize::from(seen.ended);
        input.consume(used);
    }
    Ok((seen.ended || seen.bytes_full > 0).then_some(seen))
}

fn unpacked(place: &Path) -> io::Result<BufReader<Box<dyn Read>>> {
    let magic = first_bytes(place, 4)?;
    let file = File::open(place)?;
    let skippable = magic.len() == 4 && magic[0] & 0xf0 == 0x50 && magic[1..] == [0x2a, 0x4d, 0x18];
    let input: Box<dyn Read> = if magic.starts_with(&[0x1f, 0x8b]) {
        Box::new(flate2::read::MultiGzDecoder::new(file))
    } else if magic == [0x28, 0xb5, 0x2f, 0xfd] || skippable {
        Box::new(zstd::stream::read::Decoder::new(file)?)
    } else {
        Box::new(file)
    };
    Ok(BufReader::with_capacity(128 * 1024, input))
}

fn first_bytes(path: &Path, count: usize) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(count as u64).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// `file:<n>:<hash>:g<generation>` as n and hash.
fn recorded_parts(id: &str) -> Option<(usize, &str)> {
    let (count, rest) = id.strip_prefix("file:")?.split_once(':')?;
    let (hash, _generation) = rest.split_once(":g")?;
    Some((count.parse().ok()?, hash))
}

fn fits(bytes: &[u8], count: usize, hash: &str) -> bool {
    bytes.len() == count && blake3::hash(bytes).to_hex().as_str().starts_with(hash)
}
