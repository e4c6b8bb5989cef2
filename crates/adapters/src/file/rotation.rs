//! Finding the renamed predecessor of a rotated file.

use super::content::{Content, Packing};
use super::identity::{FileId, Sameness, head_of, read_head};
use super::lines::Lines;
use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// At most so many entries of a folder are looked at.
const ENTRIES_MAX: usize = 10_000;

/// Looks beside `path` for the file that was there before: one that begins with the recorded bytes.
///
/// A copy begins with them too (`copytruncate`), and lines written between the copy and the cut are in
/// neither file. A renamed file was made before the one that took its place, a copy after it, so only an
/// older one is taken; where the file system can't tell which is older, none is.
pub(super) fn renamed_predecessor(path: &Path, recorded: &FileId) -> io::Result<Option<PathBuf>> {
    let Ok(made) = path.metadata().and_then(|m| m.created()) else {
        return Ok(None);
    };
    first_beside(path, |candidate| {
        let older = candidate.metadata().and_then(|m| m.created()).is_ok_and(|c| c < made);
        older && head_of(candidate).is_ok_and(|head| recorded.compare(&head) == Sameness::Same)
    })
}

/// Looks beside `path` for a compressed file whose unpacked bytes begin as recorded. Only for a reader that
/// holds the file open and has read it to its end, since a compressed copy doesn't tell when it was taken.
pub(super) fn compressed_predecessor(path: &Path, recorded: &FileId) -> io::Result<Option<PathBuf>> {
    first_beside(path, |candidate| {
        let unpacked = || {
            let packing = Packing::of_head(&head_of(candidate)?);
            if packing == Packing::Plain {
                return Ok(Vec::new());
            }
            read_head(Content::new(File::open(candidate)?, packing)?)
        };
        unpacked().is_ok_and(|head: Vec<u8>| recorded.compare(&head) == Sameness::Same)
    })
}

fn first_beside(path: &Path, mut fits: impl FnMut(&Path) -> bool) -> io::Result<Option<PathBuf>> {
    let folder = match path.parent() {
        Some(folder) if !folder.as_os_str().is_empty() => folder,
        _ => Path::new("."),
    };
    let own = path.metadata().ok().map(|m| (m.dev(), m.ino()));
    let mut candidates = Vec::new();
    for entry in std::fs::read_dir(folder)?.take(ENTRIES_MAX) {
        let candidate = entry?.path();
        let Ok(meta) = candidate.metadata() else { continue };
        if meta.is_file() && meta.len() > 0 && Some((meta.dev(), meta.ino())) != own {
            candidates.push(candidate);
        }
    }
    candidates.sort();
    Ok(candidates.into_iter().find(|candidate| fits(candidate)))
}

/// How many lines a file has, an unfinished last one counted.
pub(super) fn count_lines(path: &Path) -> io::Result<u64> {
    let packing = Packing::of_head(&head_of(path)?);
    let mut lines = Lines::new(Content::new(File::open(path)?, packing)?, 0);
    let ended = lines.skip(u64::MAX)?;
    Ok(ended + u64::from(lines.unfinished_bytes() > 0))
}
