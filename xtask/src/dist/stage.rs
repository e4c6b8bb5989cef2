//! What goes into the archive.

use super::archive::Entry;
use super::said;
use crate::program;
use anyhow::{Context, Result};
use std::fs;
use std::path::Path;
use std::process::Command;

/// A shell and the file name under which it looks for completions.
pub const SHELLS: [(&str, &str); 5] = [
    ("bash", "recount.bash"),
    ("zsh", "_recount"),
    ("fish", "recount.fish"),
    ("powershell", "_recount.ps1"),
    ("elvish", "recount.elv"),
];

/// Files that are packed as they lie in the tree, by where they lie in the archive.
const AS_THEY_ARE: [(&str, &str); 6] = [
    ("README.md", "README.md"),
    ("CHANGELOG.md", "CHANGELOG.md"),
    ("LICENSE-MIT", "LICENSE-MIT"),
    ("LICENSE-APACHE", "LICENSE-APACHE"),
    ("packaging/recount.service", "recount.service"),
    ("packaging/Dockerfile.binary", "Dockerfile"),
];

/// The example that is packed.
const EXAMPLE: &str = "examples/inventory";

/// Every file, sorted by its path.
pub fn entries(binary: &Path) -> Result<Vec<Entry>> {
    let file = |path: String, bytes: Vec<u8>| Entry { path, executable: false, bytes };
    let read = |path: &Path| fs::read(path).with_context(|| format!("can't read {}", path.display()));
    let mut entries = vec![Entry { path: "recount".to_owned(), executable: true, bytes: read(binary)? }];
    for (from, to) in AS_THEY_ARE {
        entries.push(file(to.to_owned(), read(&program::root().join(from))?));
    }
    for (shell, name) in SHELLS {
        let script = said(Command::new(binary).args(["completions", shell]))?;
        entries.push(file(format!("completions/{name}"), script.into_bytes()));
    }
    let folder = tempfile::tempdir()?;
    said(Command::new(binary).args(["man", "--folder"]).arg(folder.path()))?;
    for name in names(folder.path())? {
        entries.push(file(format!("man/man1/{name}"), read(&folder.path().join(&name))?));
    }
    for name in ["README.md", "order-placed.schema.json", "orders.ndjson", "recount.toml", "stock.csv"] {
        entries.push(file(format!("{EXAMPLE}/{name}"), read(&program::root().join(EXAMPLE).join(name))?));
    }
    entries.sort();
    Ok(entries)
}

fn names(folder: &Path) -> Result<Vec<String>> {
    let entries = fs::read_dir(folder)?;
    entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
}
