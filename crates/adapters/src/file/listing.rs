//! Which files a path means.

use recount_engine::SourceError;
use recount_model::Partition;
use std::path::{Path, PathBuf};

/// At most so many files may be partitions of one source.
pub const FILES_MAX: usize = 1000;

/// What a `source.file` names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Place {
    /// One file: partition `0`.
    One(PathBuf),
    /// The files of a folder whose names match, each a partition of its name.
    Many {
        /// The folder.
        folder: PathBuf,
        /// `*` and `?` as in a shell.
        pattern: String,
    },
}

impl Place {
    /// A path that exists is meant as it is written; else wildcards in its last part make it a pattern.
    pub(crate) fn of_path(path: &Path) -> Result<Self, SourceError> {
        if path.is_dir() {
            return Ok(Self::Many { folder: path.to_owned(), pattern: "*".to_owned() });
        }
        let wild = |text: &str| text.contains(['*', '?']);
        let name = path.file_name().map(|n| n.to_string_lossy().into_owned()).unwrap_or_default();
        if path.exists() || !wild(&path.to_string_lossy()) {
            return Ok(Self::One(path.to_owned()));
        }
        let folder = path.parent().unwrap_or(Path::new("")).to_owned();
        if wild(&folder.to_string_lossy()) {
            return Err(SourceError::Broken(format!(
                "source file {}: * and ? are understood in the last part only: name one folder",
                path.display()
            )));
        }
        let folder = if folder.as_os_str().is_empty() { PathBuf::from(".") } else { folder };
        Ok(Self::Many { folder, pattern: name })
    }

    /// The files there are now, sorted by name. One file is listed whether it exists or not.
    pub(crate) fn files(&self) -> Result<Vec<(Partition, PathBuf)>, SourceError> {
        let (folder, pattern) = match self {
            Self::One(path) => return Ok(vec![(Partition::new("0"), path.clone())]),
            Self::Many { folder, pattern } => (folder, pattern),
        };
        let failed = |e: std::io::Error| {
            SourceError::Away(format!("folder {} can't be listed: {e}", folder.display()))
        };
        let mut files = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let Some(name) = path.file_name() else { continue };
            let Some(name) = name.to_str() else {
                return Err(SourceError::Broken(format!(
                    "file {} has a name that is not UTF-8, and so can't name a partition: rename it",
                    path.display()
                )));
            };
            if name.starts_with('.') || !matches_pattern(pattern, name) || !path.is_file() {
                continue;
            }
            files.push((Partition::new(name), path));
            if files.len() > FILES_MAX {
                return Err(SourceError::Broken(format!(
                    "folder {} holds more than {FILES_MAX} files that match {pattern}: narrow the pattern",
                    folder.display()
                )));
            }
        }
        files.sort();
        Ok(files)
    }
}

/// `*` stands for any number of characters, `?` for one. Linear in time for each star.
fn matches_pattern(pattern: &str, name: &str) -> bool {
    let (pattern, name): (Vec<char>, Vec<char>) = (pattern.chars().collect(), name.chars().collect());
    let (mut p, mut n, mut star) = (0, 0, None);
    while n < name.len() {
        match pattern.get(p) {
            Some('*') => {
                star = Some((p, n));
                p += 1;
            }
            Some(c) if *c == '?' || *c == name[n] => {
                p += 1;
                n += 1;
            }
            _ => match star {
                Some((star_at, from)) => {
                    star = Some((star_at, from + 1));
                    p = star_at + 1;
                    n = from + 1;
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == '*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_in_a_shell() {
        for (pattern, name, expected) in [
            ("*", "a.ndjson", true),
            ("*.ndjson", "a.ndjson", true),
            ("*.ndjson", "a.ndjson.gz", false),
            ("orders-??.*", "orders-01.ndjson", true),
            ("orders-??.*", "orders-1.ndjson", false),
            ("a*b*c", "axxbyybc", true),
            ("a*b*c", "axxbyyb", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
