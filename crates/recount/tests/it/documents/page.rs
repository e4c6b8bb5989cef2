//! A page as a list of blocks, each with what it is for.

use super::session::Printed;
use std::fs;
use std::path::{Path, PathBuf};

/// A need that is a server and no program: the page finds it in `KAFKA`, with an empty topic `orders`.
pub const KAFKA: &str = "kafka";
/// A need that is a server and no program: the page finds a database of its own in `DATABASE_URL`.
pub const POSTGRES: &str = "postgres";

/// What a block is for.
#[derive(Debug, PartialEq, Eq)]
pub enum Kind {
    /// Commands; the last one ends with this code.
    Shell { exit: i32 },
    /// What the commands above print.
    Output,
    /// A file to be saved under this name.
    File(String),
    /// Commands that another file runs.
    Elsewhere(String),
    /// Nothing runs it, for this reason.
    NotRun(String),
}

/// A fenced code block.
#[derive(Debug)]
pub struct Block {
    pub kind: Kind,
    pub text: String,
    /// The fence's line, counted from 1.
    pub line: usize,
}

/// A page.
#[derive(Debug)]
pub struct Page {
    /// Its path in the repository.
    pub name: String,
    pub blocks: Vec<Block>,
    /// What is wrong with its form.
    pub faults: Vec<String>,
    pub needs: Vec<String>,
    path: PathBuf,
}

impl Page {
    /// Reads a page.
    pub fn read(root: &Path, path: &Path) -> Self {
        let name = path.strip_prefix(root).unwrap().to_string_lossy().into_owned();
        let mut page = Self { name, blocks: vec![], faults: vec![], needs: vec![], path: path.to_owned() };
        let text = fs::read_to_string(path).unwrap();
        let lines: Vec<&str> = text.lines().collect();
        let mut at = 0;
        let (mut comment, mut prose) = (None, String::new());
        while at < lines.len() {
            let line = lines[at];
            if let Some(info) = line.strip_prefix("```") {
                let end = (at + 1..lines.len()).find(|end| lines[*end] == "```").unwrap_or(lines.len());
                let text: String = lines[at + 1..end].iter().map(|line| format!("{line}\n")).collect();
                match page.kind(info, comment.take(), &prose) {
                    Ok(kind) => page.blocks.push(Block { kind, text, line: at + 1 }),
                    Err(fault) => page.faults.push(format!("{}:{}: {fault}", page.name, at + 1)),
                }
                at = end + 1;
                continue;
            }
            if let Some(inner) = line.strip_prefix("<!--").and_then(|rest| rest.strip_suffix("-->")) {
                match inner.trim().strip_prefix("needs:") {
                    Some(tools) => page.needs.extend(tools.split(',').map(|tool| tool.trim().to_owned())),
                    None => comment = Some(inner.trim().to_owned()),
                }
            } else if !line.is_empty() {
                comment = None;
                prose.push_str(line);
            }
            if line.starts_with("    ") && at > 0 && lines[at - 1].is_empty() {
                page.faults.push(format!(
                    "{}:{}: an indented code block; fence it, with a tag",
                    page.name,
                    at + 1
                ));
            }
            at += 1;
        }
        page
    }

    fn kind(&self, info: &str, comment: Option<String>, prose: &str) -> Result<Kind, String> {
        let comment = comment.unwrap_or_default();
        if let Some(why) = comment.strip_prefix("not run:") {
            return match why.trim() {
                "" => Err("say why it is not run".to_owned()),
                why => Ok(Kind::NotRun(why.to_owned())),
            };
        }
        if let Some(file) = comment.strip_prefix("run by ") {
            return Ok(Kind::Elsewhere(file.trim().to_owned()));
        }
        let mut words = info.split_whitespace();
        let language = words.next().unwrap_or_default();
        let mark = words.next().and_then(|mark| mark.split_once('='));
        match (language, mark) {
            ("", _) => Err("a block with no tag".to_owned()),
            ("sh", None) => Ok(Kind::Shell { exit: 0 }),
            ("sh", Some(("exit", code))) => {
                code.parse().map(|exit| Kind::Shell { exit }).map_err(|error| format!("exit={code}: {error}"))
            }
            ("text" | "console", None) => match self.blocks.last() {
                Some(Block { kind: Kind::Shell { .. }, .. }) => Ok(Kind::Output),
                _ => Err("an output with no commands right above it".to_owned()),
            },
            (_, Some(("file", name))) if prose.contains(&format!("`{name}`")) => {
                Ok(Kind::File(name.to_owned()))
            }
            (_, Some(("file", name))) => Err(format!("the prose above doesn't say to save this as `{name}`")),
            _ => Err(format!(
                "`{info}`: neither sh, its output, a file, nor marked as run elsewhere or not run"
            )),
        }
    }

    /// Whether there is anything to run.
    pub fn runs(&self) -> bool {
        self.blocks.iter().any(|block| matches!(block.kind, Kind::Shell { .. }))
    }

    /// The first tool that the page needs and the machine doesn't have.
    pub fn missing_tool(&self) -> Option<&str> {
        let folders: Vec<PathBuf> =
            std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default()).collect();
        let is_there = |tool: &str| folders.iter().any(|folder| folder.join(tool).is_file());
        let is_missing = |need: &&str| match *need {
            KAFKA => cfg!(not(feature = "kafka")) || recount_services::is_left_out(KAFKA),
            POSTGRES => recount_services::is_left_out(POSTGRES),
            tool => !is_there(tool),
        };
        self.needs.iter().map(String::as_str).find(is_missing)
    }

    /// Puts what the commands printed into the page, where it reads otherwise now and nothing was left out.
    pub fn write_outputs(&self, printed: &Printed) {
        let before = fs::read_to_string(&self.path).unwrap();
        let lines: Vec<&str> = before.lines().collect();
        let (mut after, mut copied) = (String::new(), 0);
        for (index, block) in self.blocks.iter().enumerate() {
            if block.kind != Kind::Output
                || !printed.differs(self, index)
                || block.text.lines().any(|l| l == "…")
            {
                continue;
            }
            after.extend(lines[copied..block.line].iter().map(|line| format!("{line}\n")));
            after.extend(printed.output(index - 1).lines().map(|line| format!("{line}\n")));
            copied = block.line + block.text.lines().count();
        }
        after.extend(lines[copied..].iter().map(|line| format!("{line}\n")));
        if after != before {
            fs::write(&self.path, after).unwrap();
        }
    }
}

/// The commands of a block, as far as another file must have them: up to the first option.
pub fn commands(text: &str) -> Vec<String> {
    let of_line = |line: &str| {
        let command = line.split(" #").next().unwrap_or_default();
        let words: Vec<&str> =
            command.split_whitespace().take_while(|word| !word.starts_with("--")).collect();
        // `cargo test --workspace`: the option is what makes it the whole.
        if words == ["cargo", "test"] { command.trim().to_owned() } else { words.join(" ") }
    };
    text.lines()
        .filter(|line| !line.trim_start().starts_with('#'))
        .map(of_line)
        .filter(|c| !c.is_empty())
        .collect()
}

#[test]
fn a_block_that_does_not_say_what_it_is_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let faults = |text: &str| {
        fs::write(folder.path().join("page.md"), text).unwrap();
        Page::read(folder.path(), &folder.path().join("page.md")).faults
    };
    for (text, fault) in [
        ("```\nrecount run\n```\n", "a block with no tag"),
        ("```toml\n[ledger]\n```\n", "neither sh"),
        ("```text\nworking\n```\n", "no commands right above"),
        ("```toml file=recount.toml\n[ledger]\n```\n", "doesn't say to save this as `recount.toml`"),
        ("<!-- not run: -->\n```sh\nrecount run\n```\n", "say why it is not run"),
        ("```sh exit=well\nrecount run\n```\n", "exit=well"),
        ("Run\n\n    recount run\n", "an indented code block"),
    ] {
        let found = faults(text);
        assert!(found.len() == 1 && found[0].contains(fault), "{text:?}: {found:?}");
    }
    let page =
        "Save as `a.toml`:\n```toml file=a.toml\n```\n```sh exit=1\nrecount run\n```\n\n```text\nno\n```\n";
    assert_eq!(faults(page), Vec::<String>::new());
}
