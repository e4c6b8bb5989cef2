//! Some lines of a file, a folder or standard input, to learn from: its head, and blocks of neighbouring
//! lines spread over the rest, so that what changed later shows, and so do repetitions close together.
//!
//! Bounded whatever the input is: in lines, in bytes kept, in bytes read and in time. Nothing is settled and
//! nothing is remembered; [`FileSource`](super::FileSource) is what a flow reads with.

use super::content::{Content, Packing};
use super::lines::{Lines, Step};
use super::listing::Place;
use super::reader::read_at_most;
use recount_engine::SourceError;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// At most so many files of a folder are looked into, spread over the list.
const FILES_SAMPLED_MAX: usize = 20;
/// The first bytes of the first file, unpacked.
const HEAD_BYTES: usize = 4096;
/// A line that doesn't end within so many bytes is given up where reading began inside of it.
const SEARCH_BYTES_MAX: usize = 4 << 20;

/// How much is sampled at most.
#[derive(Debug, Clone, Copy)]
pub struct SampleLimits {
    /// Lines that aren't blank.
    pub events_max: usize,
    /// Of one line; of a longer one so many bytes are kept, and one more.
    pub line_bytes_max: usize,
    /// Of all lines together.
    pub bytes_max: usize,
    /// Read and unpacked, of all files together. Plain files that are longer are sought in.
    pub read_bytes_max: u64,
    /// For all of it; standard input is waited for without limit.
    pub time_max: Duration,
}

/// One line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampledLine {
    /// Its bytes, perhaps cut.
    pub bytes: Vec<u8>,
    /// The length before it was cut.
    pub bytes_full: u64,
    /// Its file, an index of [`Sample::files`].
    pub file: usize,
    /// Its ordinal, from 0; none where reading began inside the file.
    pub line: Option<u64>,
    /// Where it begins, in unpacked bytes.
    pub byte: u64,
}

/// What was sampled.
#[derive(Debug, Default)]
pub struct Sample {
    /// In the order of files and lines.
    pub lines: Vec<SampledLine>,
    /// The files looked into; none for standard input.
    pub files: Vec<PathBuf>,
    /// How many files the path means.
    pub files_found: usize,
    /// The first bytes of the first file that has any, unpacked.
    pub head: Vec<u8>,
    /// How many of the lines are from the heads.
    pub from_heads: usize,
    /// Whether every line of every file was taken.
    pub is_whole: bool,
    /// What could not be read to its end, in sentences.
    pub damage: Vec<String>,
}

/// Samples what a `source.file` names; `-` is standard input, of which the first lines are taken.
///
/// # Errors
/// As the file source's: there is no such file, it can't be read, or it is not what its name says.
pub fn sample(path: &Path, limits: SampleLimits) -> Result<Sample, SourceError> {
    let mut sampler = Sampler {
        bytes_left: limits.bytes_max,
        read_left: limits.read_bytes_max,
        until: Instant::now() + limits.time_max,
        limits,
        sample: Sample { is_whole: true, ..Sample::default() },
    };
    if path.as_os_str() == "-" {
        sampler.standard_input()?;
        return Ok(sampler.sample);
    }
    let files: Vec<PathBuf> = Place::of_path(path)?
        .files()?
        .into_iter()
        .map(|(_, path)| path)
        .filter(|p| alone_or_filled(p, path))
        .collect();
    if files.is_empty() {
        return Err(SourceError::Broken(format!("{} holds no file with anything in it", path.display())));
    }
    sampler.sample.files_found = files.len();
    let chosen = spread(files, FILES_SAMPLED_MAX);
    sampler.sample.is_whole = chosen.len() == sampler.sample.files_found;
    let count = chosen.len();
    for (index, path) in chosen.into_iter().enumerate() {
        let lines_max = (limits.events_max - sampler.sample.lines.len()) / (count - index);
        sampler.file(path, lines_max)?;
    }
    Ok(sampler.sample)
}

/// Empty files of a folder have nothing to say; one that is named alone is told to be empty.
fn alone_or_filled(path: &Path, asked: &Path) -> bool {
    path == asked || path.metadata().is_ok_and(|metadata| metadata.len() > 0)
}

/// At most so many, evenly, the first and the last among them.
fn spread<T>(items: Vec<T>, most: usize) -> Vec<T> {
    let count = items.len();
    if count <= most {
        return items;
    }
    let is_chosen = |at: usize| (0..most).any(|n| n * (count - 1) / (most - 1).max(1) == at);
    items.into_iter().enumerate().filter(|(at, _)| is_chosen(*at)).map(|(_, item)| item).collect()
}

struct Sampler {
    limits: SampleLimits,
    bytes_left: usize,
    read_left: u64,
    until: Instant,
    sample: Sample,
}

/// Lines that follow each other.
type Block = Vec<SampledLine>;

/// How taking lines ended.
#[derive(PartialEq, Eq)]
enum Ended {
    AtEnd,
    AtLimit,
}

impl Sampler {
    fn standard_input(&mut self) -> Result<(), SourceError> {
        let unreadable = |e: io::Error| SourceError::Broken(format!("standard input can't be read: {e}"));
        let owned = io::stdin().as_fd().try_clone_to_owned().map_err(unreadable)?;
        let content = Content::new(File::from(owned), Packing::Plain).map_err(unreadable)?;
        // Somebody who types, or a slow producer, is waited for.
        self.until += Duration::from_secs(365 * 24 * 3600);
        let mut lines = Lines::new(content, 0);
        let mut next_line = 0;
        let (block, ended) =
            self.take(&mut lines, self.limits.events_max, Some(&mut next_line)).map_err(unreadable)?;
        self.sample.head = block
            .first()
            .map(|line| line.bytes[..line.bytes.len().min(HEAD_BYTES)].to_vec())
            .unwrap_or_default();
        self.sample.is_whole = ended == Ended::AtEnd;
        self.sample.from_heads = block.len();
        self.sample.lines = block;
        Ok(())
    }

    fn file(&mut self, path: PathBuf, lines_max: usize) -> Result<(), SourceError> {
        let broken =
            |e: io::Error| SourceError::Broken(format!("file {} can't be read: {e}", path.display()));
        if !path.metadata().map_err(broken)?.is_file() {
            return Err(SourceError::Broken(format!(
                "{} is not a plain file: give its content on standard input, with --from -",
                path.display()
            )));
        }
        let file = File::open(&path).map_err(broken)?;
        let mut head = vec![0; HEAD_BYTES];
        let head_bytes = read_at_most(&file, &mut head, 0).map_err(broken)?;
        head.truncate(head_bytes);
        let packing = Packing::of_head(&head);
        if let Some(promised) = Packing::of_name(&path).filter(|promised| *promised != packing) {
            return Err(SourceError::Broken(format!(
                "file {} is named as {} and begins as {}: it is damaged, or has the wrong name",
                path.display(),
                promised.word(),
                packing.word()
            )));
        }
        if self.sample.head.is_empty() {
            self.sample.head = if packing == Packing::Plain { head } else { unpacked_head(&file, packing) };
        }
        let taken = self.lines_of(&file, packing, lines_max);
        self.sample.files.push(path.clone());
        if let Err(error) = taken {
            self.sample.is_whole = false;
            self.sample.damage.push(format!("file {} can't be read to its end: {error}", path.display()));
        }
        Ok(())
    }

    /// The head of the file, then blocks spread over the rest.
    fn lines_of(&mut self, file: &File, packing: Packing, lines_max: usize) -> io::Result<()> {
        let file_bytes = file.metadata()?.len();
        let mut stream = file.try_clone()?;
        stream.seek(SeekFrom::Start(0))?;
        let mut lines = Lines::new(Content::new(stream, packing)?, 0);
        let mut next_line = 0;
        let index = self.sample.files.len();
        let numbered = |mut block: Block| {
            block.iter_mut().for_each(|line| line.file = index);
            block
        };
        // Long lines in the head must leave room for what comes later.
        let reserved_bytes = self.bytes_left / 2;
        self.bytes_left -= reserved_bytes;
        let taken = self.take(&mut lines, lines_max.div_ceil(2), Some(&mut next_line));
        self.bytes_left += reserved_bytes;
        let (head, mut ended) = taken?;
        self.sample.from_heads += head.len();
        let rest_max = lines_max - head.len();
        self.sample.lines.extend(numbered(head));
        if ended == Ended::AtLimit && rest_max > 0 {
            let (blocks, how) = if packing == Packing::Plain && file_bytes > self.read_left {
                (self.sought(file, lines.line_start(), file_bytes, rest_max)?, Ended::AtLimit)
            } else {
                self.streamed(&mut lines, rest_max, &mut next_line)
            };
            ended = how;
            let taken = blocks.into_iter().flatten().collect();
            self.sample.lines.extend(numbered(taken));
        }
        self.sample.is_whole &= ended == Ended::AtEnd;
        Ok(())
    }

    /// Reads on, keeping every k-th block; k doubles when there are too many.
    fn streamed(&mut self, lines: &mut Lines, rest_max: usize, next_line: &mut u64) -> (Vec<Block>, Ended) {
        let block_lines = rest_max.div_ceil(20);
        let mut kept: Vec<(u64, Block)> = Vec::new();
        let (mut step, mut left_out) = (1_u64, false);
        for number in 0_u64.. {
            let bytes_before = self.bytes_left;
            let (block, ended) = match self.take(lines, block_lines, Some(next_line)) {
                Ok(taken) => taken,
                Err(error) => {
                    self.sample.damage.push(format!("reading stopped: {error}"));
                    (Vec::new(), Ended::AtLimit)
                }
            };
            let is_over = block.len() < block_lines;
            if number % step == 0 && !block.is_empty() {
                kept.push((number, block));
            } else {
                left_out |= !block.is_empty();
                self.bytes_left = bytes_before;
            }
            if kept.len() > 40 || self.bytes_left < self.limits.bytes_max / 4 {
                step *= 2;
                left_out = true;
                kept.retain(|(number, _)| number % step == 0);
                let held: usize = kept.iter().flat_map(|(_, block)| block).map(|line| line.bytes.len()).sum();
                let heads: usize = self.sample.lines.iter().map(|line| line.bytes.len()).sum();
                self.bytes_left = self.limits.bytes_max.saturating_sub(held + heads);
            }
            if is_over {
                let whole = ended == Ended::AtEnd && !left_out && kept.len() <= 20;
                let blocks = spread(kept.into_iter().map(|(_, block)| block).collect(), 20);
                let ended = if whole { Ended::AtEnd } else { Ended::AtLimit };
                return (cut_to(blocks, rest_max), ended);
            }
        }
        unreachable!("a file has fewer blocks than there are numbers")
    }

    /// Blocks at even distances, each from the first line that begins there; the last ends with the file.
    fn sought(&mut self, file: &File, from: u64, file_bytes: u64, rest_max: usize) -> io::Result<Vec<Block>> {
        let places = 20.min(rest_max) as u64;
        let block_lines = rest_max.div_ceil(20);
        let mut blocks: Vec<Block> = Vec::new();
        let mut line_bytes = 512;
        let mut from = from;
        // Few bytes are read at each place, however many the head took.
        self.read_left = self.read_left.max(self.limits.read_bytes_max / 2);
        for place in 1..=places {
            if self.is_spent() {
                break;
            }
            let back = if place == places { line_bytes * (block_lines as u64 + 1) } else { 0 };
            let at =
                from.max((from + (file_bytes - from) / (places - place + 1).max(1)).saturating_sub(back));
            let mut stream = file.try_clone()?;
            stream.seek(SeekFrom::Start(at))?;
            let mut lines = Lines::new(Content::new(stream, Packing::Plain)?, at);
            lines.keep_at_most(0);
            let mut budget_bytes = SEARCH_BYTES_MAX;
            if lines.advance(&mut budget_bytes)? != Step::Line {
                from = at;
                continue;
            }
            lines.consume();
            let (block, _) = self.take(&mut lines, block_lines, None)?;
            from = lines.line_start().max(at);
            if let (Some(first), Some(last)) = (block.first(), block.last()) {
                line_bytes = (last.byte - first.byte) / block.len() as u64 + 1;
                blocks.push(block);
            }
        }
        Ok(cut_to(blocks, rest_max))
    }

    /// The next lines that aren't blank.
    fn take(
        &mut self,
        lines: &mut Lines,
        lines_max: usize,
        mut next_line: Option<&mut u64>,
    ) -> io::Result<(Block, Ended)> {
        lines.keep_at_most(self.limits.line_bytes_max);
        let mut block = Vec::new();
        while block.len() < lines_max {
            let mut budget_bytes = 1 << 20;
            let before = lines.line_start();
            match lines.advance(&mut budget_bytes)? {
                Step::Line => {}
                Step::BudgetSpent => {
                    // A long line is read on, at the cost of what may be read.
                    self.read_left = self.read_left.saturating_sub(1 << 20);
                    if self.is_spent() {
                        return Ok((block, Ended::AtLimit));
                    }
                    continue;
                }
                Step::End if lines.finish_unfinished() => {}
                Step::End => return Ok((block, Ended::AtEnd)),
            }
            let line = lines.line();
            let is_blank =
                line.bytes.iter().all(u8::is_ascii_whitespace) && line.bytes.len() as u64 == line.bytes_full;
            if !is_blank {
                self.bytes_left = self.bytes_left.saturating_sub(line.bytes.len());
                let number = next_line.as_deref().copied();
                let (bytes, bytes_full) = (line.bytes.to_vec(), line.bytes_full);
                block.push(SampledLine { bytes, bytes_full, file: 0, line: number, byte: before });
            }
            lines.consume();
            if let Some(next_line) = next_line.as_deref_mut() {
                *next_line += 1;
            }
            self.read_left = self.read_left.saturating_sub(lines.line_start() - before);
            if self.is_spent() {
                return Ok((block, Ended::AtLimit));
            }
        }
        Ok((block, Ended::AtLimit))
    }

    fn is_spent(&self) -> bool {
        self.bytes_left == 0 || self.read_left == 0 || Instant::now() > self.until
    }
}

/// The same blocks with so many lines in all, shortened where they are too many.
fn cut_to(mut blocks: Vec<Block>, lines_max: usize) -> Vec<Block> {
    let mut left = lines_max;
    let count = blocks.len();
    for (index, block) in blocks.iter_mut().enumerate() {
        block.truncate(left.div_ceil(count - index));
        left -= block.len();
    }
    blocks
}

fn unpacked_head(file: &File, packing: Packing) -> Vec<u8> {
    let mut head = Vec::new();
    let opened = file.try_clone().and_then(|mut stream| {
        stream.seek(SeekFrom::Start(0))?;
        Content::new(stream, packing)
    });
    // What is damaged is told when its lines are read.
    if let Ok(content) = opened {
        let _ = content.take(HEAD_BYTES as u64).read_to_end(&mut head);
    }
    head
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    const LIMITS: SampleLimits = SampleLimits {
        events_max: 100,
        line_bytes_max: 1000,
        bytes_max: 1 << 20,
        read_bytes_max: 1 << 20,
        time_max: Duration::from_secs(600),
    };

    fn written(name: &str, bytes: &[u8]) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join(name);
        std::fs::write(&path, bytes).unwrap();
        (folder, path)
    }

    fn numbers(count: u64) -> Vec<u8> {
        (0..count).flat_map(|n| format!("{n}\n").into_bytes()).collect()
    }

    fn sampled(path: &Path, limits: SampleLimits) -> Vec<u64> {
        let sample = sample(path, limits).unwrap();
        let number = |line: &SampledLine| String::from_utf8(line.bytes.clone()).unwrap().parse().unwrap();
        let numbers: Vec<u64> = sample.lines.iter().map(number).collect();
        for (line, number) in sample.lines.iter().zip(&numbers) {
            assert!(line.line.is_none_or(|line| line == *number));
        }
        assert!(numbers.is_sorted_by(|a, b| a < b), "{numbers:?}");
        numbers
    }

    #[test]
    fn a_short_file_is_taken_whole() {
        for count in [1, 49, 50, 51, 99, 100] {
            let (_folder, path) = written("a.ndjson", &numbers(count));
            assert_eq!(sampled(&path, LIMITS), (0..count).collect::<Vec<_>>());
            assert!(sample(&path, LIMITS).unwrap().is_whole, "{count}");
        }
        let (_folder, path) = written("a.ndjson", b"1\n\n  \n2");
        assert_eq!(sample(&path, LIMITS).unwrap().lines[1].line, Some(3), "blank lines count as lines");
    }

    #[test]
    fn a_longer_one_is_sampled_at_its_head_and_to_its_end_read_through_or_sought() {
        let (_folder, path) = written("a.ndjson", &numbers(50_000));
        for read_bytes_max in [1 << 20, 10_000] {
            let taken = sampled(&path, SampleLimits { read_bytes_max, ..LIMITS });
            assert_eq!(taken[..50], (0..50).collect::<Vec<_>>());
            assert!((90..=100).contains(&taken.len()), "{}", taken.len());
            for tenth in 0..10 {
                let within = (tenth * 5000)..(tenth * 5000 + 6000);
                assert!(taken.iter().any(|n| within.contains(n)), "{tenth}: {taken:?}");
            }
        }
        let packed = zstd::encode_all(&numbers(50_000)[..], 1).unwrap();
        let (_folder, path) = written("a.ndjson.zst", &packed);
        assert!(sampled(&path, LIMITS).last().unwrap() > &40_000);
    }

    #[test]
    fn memory_and_reading_are_bounded() {
        let line = [vec![b'x'; 100_000], b"\n".to_vec()].concat();
        let (_folder, path) = written("a.ndjson", &line.repeat(300));
        let taken = sample(&path, LIMITS).unwrap();
        assert!(taken.lines.iter().all(|line| line.bytes.len() == 1001 && line.bytes_full == 100_000));
        let held = |sample: &Sample| sample.lines.iter().map(|line| line.bytes.len()).sum::<usize>();
        let kept =
            sample(&path, SampleLimits { line_bytes_max: 1 << 20, bytes_max: 1 << 21, ..LIMITS }).unwrap();
        assert!(held(&kept) <= (1 << 21) + 100_000, "{}", held(&kept));
        let endless = File::create(&path).unwrap();
        endless.set_len(1 << 33).unwrap();
        let began = Instant::now();
        let taken = sample(&path, LIMITS).unwrap();
        assert!(!taken.is_whole && taken.lines.is_empty());
        assert!(began.elapsed() < Duration::from_secs(30));
    }

    #[test]
    fn a_folder_is_sampled_file_by_file_and_damage_is_told() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["a", "b", "c"] {
            std::fs::write(folder.path().join(name), numbers(1000)).unwrap();
        }
        std::fs::write(folder.path().join("d"), b"").unwrap();
        let taken = sample(folder.path(), LIMITS).unwrap();
        assert_eq!((taken.lines.len(), taken.files.len(), taken.files_found), (100, 3, 3));
        assert_eq!(taken.lines.last().unwrap().file, 2);
        let mut packed = zstd::encode_all(&numbers(100_000)[..], 1).unwrap();
        packed.truncate(packed.len() / 2);
        let path = folder.path().join("a.zst");
        File::create(&path).unwrap().write_all(&packed).unwrap();
        let taken = sample(&path, LIMITS).unwrap();
        assert!(!taken.damage.is_empty() && taken.lines.len() >= 50, "{taken:?}");
        std::fs::write(&path, numbers(10)).unwrap();
        assert!(sample(&path, LIMITS).unwrap_err().to_string().contains("named as zstd"));
        assert!(sample(&folder.path().join("none"), LIMITS).is_err());
    }
}
