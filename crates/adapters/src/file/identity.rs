//! Which incarnation a file is.
//!
//! The id is `file:<n>:<hash>:g<generation>`: `hash` is the first half of the BLAKE3 hash, in hex, of the
//! file's first `n` raw bytes (as stored, compressed or not), at most 1,024 and as many as it had when it was
//! first seen. A file that grows keeps its id, since only those `n` bytes are compared. Device and inode are
//! not part of it: a copy on another disk is the same incarnation.

use recount_model::SourceId;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

/// At most so many first bytes make the identity.
pub const IDENTITY_BYTES_MAX: usize = 1024;

/// A file's id, taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileId {
    /// How many first bytes were hashed; at least 1.
    pub bytes: usize,
    /// 32 hex digits.
    pub hash: String,
    /// 1 for the first reading; `--again` makes the next.
    pub generation: u32,
}

impl FileId {
    /// The id of a file that begins with `head`; only its first [`IDENTITY_BYTES_MAX`] bytes count. `None`
    /// for an empty one: it has no identity yet.
    pub fn of_head(head: &[u8], generation: u32) -> Option<Self> {
        let head = &head[..head.len().min(IDENTITY_BYTES_MAX)];
        (!head.is_empty()).then(|| Self { bytes: head.len(), hash: hash_of(head), generation })
    }

    /// Reads an id. `None` where it is not a file's.
    pub fn parse(id: &SourceId) -> Option<Self> {
        let mut parts = id.as_str().strip_prefix("file:")?.split(':');
        let bytes: usize = parts.next()?.parse().ok()?;
        let hash = parts.next()?;
        let generation = parts.next()?.strip_prefix('g')?.parse().ok()?;
        let well_formed = (1..=IDENTITY_BYTES_MAX).contains(&bytes)
            && hash.len() == 32
            && hash.bytes().all(|b| b.is_ascii_hexdigit())
            && parts.next().is_none();
        well_formed.then(|| Self { bytes, hash: hash.to_owned(), generation })
    }

    /// As it is recorded.
    pub fn source_id(&self) -> SourceId {
        SourceId::new(format!("file:{}:{}:g{}", self.bytes, self.hash, self.generation))
    }

    /// Compares with a file's first bytes.
    pub fn compare(&self, head: &[u8]) -> Sameness {
        match head.get(..self.bytes) {
            None => Sameness::Shorter { recorded_bytes: self.bytes, now_bytes: head.len() },
            Some(head) if hash_of(head) == self.hash => Sameness::Same,
            Some(_) => Sameness::Other,
        }
    }

    /// Whether the other id was made from the same first bytes, whatever the generation.
    pub fn same_content(&self, other: &Self) -> bool {
        self.bytes == other.bytes && self.hash == other.hash
    }
}

/// What a file is to a recorded id.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sameness {
    /// It begins with the recorded bytes.
    Same,
    /// It begins with others.
    Other,
    /// It has fewer bytes than were recorded: cut short, or made anew.
    Shorter {
        /// How many make the recorded identity.
        recorded_bytes: usize,
        /// How many there are.
        now_bytes: usize,
    },
    /// There is no such file.
    Gone,
    /// The recorded id is not a file's.
    NotAFile,
}

/// Whether the file at `path` is the recorded incarnation. Reads at most [`IDENTITY_BYTES_MAX`] bytes.
pub fn same_incarnation(recorded: &SourceId, path: &Path) -> io::Result<Sameness> {
    let Some(id) = FileId::parse(recorded) else {
        return Ok(Sameness::NotAFile);
    };
    match head_of(path) {
        Ok(head) => Ok(id.compare(&head)),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Sameness::Gone),
        Err(e) => Err(e),
    }
}

/// The first bytes of a file, at most [`IDENTITY_BYTES_MAX`].
pub(crate) fn head_of(path: &Path) -> io::Result<Vec<u8>> {
    read_head(File::open(path)?)
}

/// The first bytes of a stream, at most [`IDENTITY_BYTES_MAX`].
pub(super) fn read_head(stream: impl Read) -> io::Result<Vec<u8>> {
    let mut head = Vec::with_capacity(IDENTITY_BYTES_MAX);
    stream.take(IDENTITY_BYTES_MAX as u64).read_to_end(&mut head)?;
    Ok(head)
}

fn hash_of(bytes: &[u8]) -> String {
    blake3::hash(bytes).to_hex()[..32].to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_reads_back_and_others_do_not() {
        let id = FileId::of_head(b"{\"id\":1}\n", 3).unwrap();
        assert_eq!(FileId::parse(&id.source_id()), Some(id.clone()));
        assert_eq!(id.bytes, 9);
        assert_eq!(FileId::of_head(b"", 1), None);
        assert_eq!(FileId::of_head(&[b'x'; 5000], 1).unwrap().bytes, 1024);
        for wrong in ["log:abc", "file:9:zz:g1", "file:0:00000000000000000000000000000000:g1", "file:9"] {
            assert_eq!(FileId::parse(&SourceId::new(wrong)), None, "{wrong}");
        }
    }

    #[test]
    fn a_small_file_is_the_same_while_it_grows() {
        let id = FileId::of_head(b"first\n", 1).unwrap();
        for (head, expected) in [
            (&b"first\n"[..], Sameness::Same),
            (b"first\nsecond\n", Sameness::Same),
            (b"other\nsecond\n", Sameness::Other),
            (b"firs", Sameness::Shorter { recorded_bytes: 6, now_bytes: 4 }),
            (b"", Sameness::Shorter { recorded_bytes: 6, now_bytes: 0 }),
        ] {
            assert_eq!(id.compare(head), expected, "{head:?}");
        }
    }
}
