//! Secrets: named in the config, read when they are needed, never kept in its text.

use std::fmt;
use std::path::{Path, PathBuf};

/// Where a secret is to be had. Holds no secret itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Secret {
    /// `${NAME}`.
    Env(String),
    /// `{ file = "path" }`; the path is resolved against the config's folder.
    File(PathBuf),
}

/// A secret in hand. It has no `Display`, and its `Debug` says nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct SecretText(String);

/// Why a secret can't be had; names the place, never the value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SecretError {
    /// The variable isn't set, or is empty.
    #[error("the environment variable {0} is not set (or is empty): set it, or name a file instead")]
    EnvMissing(String),
    /// The file can't be read.
    #[error("the secret's file {path} can't be read: {cause}")]
    FileUnreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// The file is empty or too large.
    #[error("the secret's file {0} must hold 1 to 65536 bytes of UTF-8 text")]
    FileContent(PathBuf),
}

const SECRET_BYTES_MAX: u64 = 65_536;

impl Secret {
    /// Reads it now. A file's trailing line break is not part of it.
    pub fn resolve(&self) -> Result<SecretText, SecretError> {
        match self {
            Self::Env(name) => std::env::var(name)
                .ok()
                .filter(|value| !value.is_empty())
                .map(SecretText)
                .ok_or_else(|| SecretError::EnvMissing(name.clone())),
            Self::File(path) => read_file(path),
        }
    }
}

fn read_file(path: &Path) -> Result<SecretText, SecretError> {
    let unreadable =
        |error: std::io::Error| SecretError::FileUnreadable { path: path.into(), cause: error.to_string() };
    let content = || SecretError::FileContent(path.into());
    if std::fs::metadata(path).map_err(unreadable)?.len() > SECRET_BYTES_MAX {
        return Err(content());
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    let text = String::from_utf8(bytes).map_err(|_| content())?;
    let text = text.trim_end_matches(['\n', '\r']);
    if text.is_empty() { Err(content()) } else { Ok(SecretText(text.to_owned())) }
}

impl SecretText {
    /// The secret itself, for the one place that needs it.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

/// Replaces each `${NAME}` of a text from the environment.
pub fn expand_env(text: &str) -> Result<String, SecretError> {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(start) = rest.find("${") {
        let Some(length) = rest[start..].find('}') else { break };
        out.push_str(&rest[..start]);
        let name = &rest[start + 2..start + length];
        out.push_str(Secret::Env(name.to_owned()).resolve()?.expose());
        rest = &rest[start + length + 1..];
    }
    out.push_str(rest);
    Ok(out)
}

/// The name in `${NAME}`, where the text is exactly that.
pub(super) fn env_name(text: &str) -> Option<&str> {
    let name = text.strip_prefix("${")?.strip_suffix('}')?;
    let fits = |c: char| c.is_ascii_alphanumeric() || c == '_';
    (!name.is_empty() && name.chars().all(fits)).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_is_read_late_and_never_printed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("token");
        let secret = Secret::File(path.clone());
        assert!(matches!(secret.resolve(), Err(SecretError::FileUnreadable { .. })));
        std::fs::write(&path, "hunter2\n").unwrap();
        let text = secret.resolve().unwrap();
        assert_eq!(text.expose(), "hunter2");
        assert_eq!(format!("{text:?}"), "(secret)");
        std::fs::write(&path, "\n").unwrap();
        assert_eq!(secret.resolve(), Err(SecretError::FileContent(path)));
    }

    #[test]
    fn only_a_whole_reference_is_one() {
        assert_eq!(env_name("${TOKEN_2}"), Some("TOKEN_2"));
        for not in ["TOKEN", "${}", "x${A}", "${A}x", "${A B}"] {
            assert_eq!(env_name(not), None, "{not}");
        }
        assert_eq!(
            expand_env("sqlite:${RECOUNT_NEVER_SET_9}/x.db"),
            Err(SecretError::EnvMissing("RECOUNT_NEVER_SET_9".into()))
        );
        assert_eq!(expand_env("plain").unwrap(), "plain");
    }
}
