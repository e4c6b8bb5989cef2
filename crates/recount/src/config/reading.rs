//! Reads the file that was named, and says what to do instead where it is no config.

use super::{Fault, Faults};
use std::io::{Error, ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The name that commands look for by themselves.
const USUAL: &str = "recount.toml";
/// So many folders are gone up to find a config that was perhaps meant.
const FOLDERS_UP_MAX: usize = 5;

/// A config file may have so many bytes.
const CONFIG_BYTES_MAX: u64 = 4 << 20;

/// The text of a config.
pub(super) fn text(path: &Path) -> Result<String, Faults> {
    let refused = |(message, help): Told| {
        let file = path.display().to_string();
        Faults { faults: vec![Fault::of_file(&file, message, Some(help))], warnings: Vec::new() }
    };
    let unreadable = |error: Error| refused(unreadable(path, &error));
    let mut bytes = Vec::new();
    let file = std::fs::File::open(path).map_err(unreadable)?;
    file.take(CONFIG_BYTES_MAX + 1).read_to_end(&mut bytes).map_err(unreadable)?;
    if let Some(told) = looks_like(path, &bytes) {
        return Err(refused(told));
    }
    if bytes.len() as u64 > CONFIG_BYTES_MAX {
        let message =
            format!("the file has more than {CONFIG_BYTES_MAX} bytes, the most that a config may have");
        return Err(refused((message, "is this the right file?".to_owned())));
    }
    let not_text = |_| refused(("the config is not UTF-8".to_owned(), "save it as UTF-8".to_owned()));
    String::from_utf8(bytes).map_err(not_text)
}

/// What is wrong, and what to do instead.
type Told = (String, String);

/// The file can't be read.
fn unreadable(path: &Path, error: &Error) -> Told {
    let begin =
        "to begin: recount init --from EVENTS.ndjson writes one from your events; recount demo needs none";
    match error.kind() {
        ErrorKind::NotFound if path == Path::new(USUAL) => {
            let help = match elsewhere() {
                Some(found) => {
                    format!("there is one at {0}: name it, or cd {1}", found.display(), folder(&found))
                }
                None => begin.to_owned(),
            };
            (format!("there is no {USUAL} in this folder"), help)
        }
        ErrorKind::NotFound => (format!("there is no file {}", path.display()), begin.to_owned()),
        ErrorKind::IsADirectory => is_folder(path),
        _ => {
            (format!("the config can't be read: {error}"), format!("may this user read {}?", path.display()))
        }
    }
}

/// A folder was named.
fn is_folder(path: &Path) -> Told {
    let inside = path.join(USUAL);
    let help = if inside.is_file() {
        format!("name the file in it: {}", inside.display())
    } else {
        format!("and it holds no {USUAL}: recount init --from EVENTS.ndjson writes one")
    };
    ("this is a folder, not a config".to_owned(), help)
}

fn folder(path: &Path) -> String {
    path.parent().unwrap_or(path).display().to_string()
}

/// A config in a folder above this one.
fn elsewhere() -> Option<PathBuf> {
    let here = std::env::current_dir().ok()?;
    here.ancestors().skip(1).take(FOLDERS_UP_MAX).map(|folder| folder.join(USUAL)).find(|path| path.is_file())
}

/// What the bytes look like, where that is no config.
fn looks_like(path: &Path, bytes: &[u8]) -> Option<Told> {
    let file = path.display();
    let told = |what: &str, help: String| Some((format!("this is {what}, not a config"), help));
    let init = format!("to write a config for them: recount init --from {file}");
    if bytes.starts_with(b"SQLite format 3\0") {
        return told(
            "a SQLite database",
            format!("name it in a config: [database.shop] url = \"sqlite:{file}\""),
        );
    }
    if bytes.starts_with(b"\x1f\x8b") || bytes.starts_with(b"\x28\xb5\x2f\xfd") {
        return told("a packed file", format!("if it holds events, one a line: recount init --from {file}"));
    }
    let begin = bytes.trim_ascii_start();
    // No line of TOML begins with a brace.
    if begin.first() == Some(&b'{') {
        let head = &begin[..begin.len().min(400)];
        return if head.windows(9).any(|at| at == b"\"$schema\"") {
            told("a JSON Schema", "a config names it: schema = \"…\" in [flow.NAME]".to_owned())
        } else {
            told("JSON", init)
        };
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn a_file_that_is_no_config_is_told_for_what_it_looks_like() {
        let folder = tempfile::tempdir().unwrap();
        let check = |name: &str, bytes: &[u8], expected: &str, next: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, bytes).unwrap();
            let faults = Config::load(&path).unwrap_err();
            let told = faults.render();
            assert!(faults.faults.len() == 1 && told.contains(expected) && told.contains(next), "{told}");
        };
        check("orders.ndjson", b"{\"id\":1}\n{\"id\":2}\n", "this is JSON", "recount init --from");
        check("shop.db", b"SQLite format 3\0....", "a SQLite database", "[database.shop]");
        check("a.gz", b"\x1f\x8b\x08", "a packed file", "recount init --from");
        check("s.json", b"{\n \"$schema\": 1}", "a JSON Schema", "schema = ");
    }

    #[test]
    fn a_config_that_is_not_there_is_answered_with_how_to_begin() {
        let folder = tempfile::tempdir().unwrap();
        let told = |path: &Path| Config::load(path).unwrap_err().render();
        assert!(told(&folder.path().join("nope.toml")).contains("recount init --from"));
        assert!(told(folder.path()).contains("this is a folder"));
        std::fs::write(folder.path().join(USUAL), "").unwrap();
        assert!(told(folder.path()).contains(&folder.path().join(USUAL).display().to_string()));
    }
}
