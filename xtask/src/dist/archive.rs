//! The archive: the same files give the same bytes.

use anyhow::Result;
use flate2::{Compression, GzBuilder};
use ring::digest::{SHA256, digest};
use std::fmt::Write as _;

/// A file of the archive.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Entry {
    /// Under the archive's one folder.
    pub path: String,
    /// Whether it is a program.
    pub executable: bool,
    /// Its content.
    pub bytes: Vec<u8>,
}

/// Packs the entries, which are sorted, into a folder `name`.
pub fn pack(name: &str, entries: &[Entry], modified_s: u64) -> Result<Vec<u8>> {
    let packer = GzBuilder::new().mtime(0).write(Vec::new(), Compression::best());
    let mut archive = tar::Builder::new(packer);
    for entry in entries {
        let mut header = tar::Header::new_ustar();
        header.set_size(entry.bytes.len() as u64);
        header.set_mode(if entry.executable { 0o755 } else { 0o644 });
        header.set_mtime(modified_s);
        header.set_uid(0);
        header.set_gid(0);
        archive.append_data(&mut header, format!("{name}/{}", entry.path), entry.bytes.as_slice())?;
    }
    Ok(archive.into_inner()?.finish()?)
}

/// In hex.
pub fn sha256(bytes: &[u8]) -> String {
    digest(&SHA256, bytes).as_ref().iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read as _;

    #[test]
    fn an_archive_gives_back_what_was_packed_and_is_the_same_each_time() {
        let entry = |path: &str, executable| Entry { path: path.into(), executable, bytes: path.into() };
        let entries = [entry("a/b.txt", false), entry("recount", true)];
        let packed = pack("recount-1", &entries, 77).unwrap();
        assert_eq!(packed, pack("recount-1", &entries, 77).unwrap());
        assert_ne!(packed, pack("recount-1", &entries, 78).unwrap());
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let found: Vec<(String, u32, String)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let mut entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                let mut text = String::new();
                entry.read_to_string(&mut text).unwrap();
                (path, entry.header().mode().unwrap(), text)
            })
            .collect();
        let expected = [("recount-1/a/b.txt", 0o644, "a/b.txt"), ("recount-1/recount", 0o755, "recount")];
        assert_eq!(found, expected.map(|(path, mode, text)| (path.to_owned(), mode, text.to_owned())));
    }

    #[test]
    fn the_checksum_is_that_of_the_standard() {
        assert_eq!(sha256(b"abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    }
}
