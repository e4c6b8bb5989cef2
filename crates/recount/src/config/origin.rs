//! Who wrote a config and which revision it is: for the ledger's config versions.

use super::Config;
use recount_ledger::StoredConfig;
use recount_model::{ConfigVersion, Timestamp};
use std::path::Path;
use std::process::{Command, Stdio};

impl Config {
    /// The config as the ledger's journal keeps it: text, schemas, hash, author, revision. Asks git, so it
    /// belongs to a start, not to a loop.
    pub fn stored(&self, since: Timestamp) -> StoredConfig {
        StoredConfig {
            version: ConfigVersion(0),
            hash: self.hash(),
            text: self.text.clone(),
            files: self.files.clone(),
            author: from_env("RECOUNT_AUTHOR").or_else(|| author(&self.path)).unwrap_or_else(unknown),
            revision: from_env("RECOUNT_REVISION").or_else(|| revision(&self.path)).unwrap_or_else(unknown),
            since,
        }
    }

    /// BLAKE3, hex, over the text and the names and texts of the schemas, each with its length before it.
    pub fn hash(&self) -> String {
        let mut hasher = blake3::Hasher::new();
        let mut add = |part: &str| {
            hasher.update(&(part.len() as u64).to_le_bytes());
            hasher.update(part.as_bytes());
        };
        add(&self.text);
        for (name, text) in &self.files {
            add(name);
            add(text);
        }
        hasher.finalize().to_hex().to_string()
    }
}

fn unknown() -> String {
    "unknown".to_owned()
}

fn from_env(name: &str) -> Option<String> {
    std::env::var(name).ok().map(|value| value.trim().to_owned()).filter(|value| !value.is_empty())
}

/// Git's last author of the file; none where it isn't committed.
fn author(path: &Path) -> Option<String> {
    git(path, &["log", "-1", "--format=%an <%ae>", "--", file_name(path)?])
}

/// Git's HEAD, with `+dirty` where a tracked file differs from it.
fn revision(path: &Path) -> Option<String> {
    let head = git(path, &["rev-parse", "HEAD"])?;
    let changed = git(path, &["status", "--porcelain", "--untracked-files=no"]).is_some();
    Some(if changed { format!("{head}+dirty") } else { head })
}

fn file_name(path: &Path) -> Option<&str> {
    path.file_name()?.to_str()
}

/// What git prints, if it succeeds and prints anything.
fn git(path: &Path, args: &[&str]) -> Option<String> {
    let folder = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let output = Command::new("git")
        .arg("-C")
        .arg(folder)
        .args(args)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .output()
        .ok()
        .filter(|output| output.status.success())?;
    let text = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (!text.is_empty()).then_some(text)
}
