//! Every code block of the README, the guide and the examples' pages runs as it is written, and every link leads somewhere.
//!
//! A page is read from its top to its end, as a reader would, in one shell and one empty folder. What a block is, is said where a
//! reader doesn't see it, after the fence or in a comment above it:
//!
//! - `sh` runs; `sh exit=1` is to end with 1. Any other command that fails is a fault of the page.
//! - `text` or `console` after it is what it prints. Times, durations, rates and folders may differ, a line `…` stands for any lines.
//! - `toml file=recount.toml` (or any other language) is saved under that name; the prose above has to name it.
//! - `<!-- run by .ci/run -->` above a block: it takes too long for here, and that file runs each of its commands.
//! - `<!-- not run: why -->` above a block: nothing runs it. They are counted, and there may be few.
//! - `<!-- needs: sqlite3, curl -->` in a page: where one is missing the page is not run, and the test says so.
//!
//! `RECOUNT_WRITE_DOCS=1 cargo test -p recount --test it documents` writes what the commands printed into the pages, except where a
//! block has a `…`.

mod compare;
mod links;
mod page;
mod session;

use page::{Kind, Page};
use std::fs;
use std::path::{Path, PathBuf};

/// So many blocks may be left unrun, in all pages together.
const NOT_RUN_MAX: usize = 14;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").canonicalize().unwrap()
}

fn markdown_under(folder: &Path, into: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || ["target", "node_modules", "corpus", "artifacts"].contains(&name.as_str())
        {
            continue;
        }
        if path.is_dir() {
            markdown_under(&path, into);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            into.push(path);
        }
    }
}

/// The pages whose blocks run.
fn pages() -> Vec<Page> {
    let root = root();
    let mut files = vec![root.join("README.md"), root.join("CONTRIBUTING.md")];
    for folder in ["docs/guide", "examples"] {
        let mut found = Vec::new();
        markdown_under(&root.join(folder), &mut found);
        found.sort();
        files.extend(found);
    }
    files.iter().map(|file| Page::read(&root, file)).collect()
}

#[test]
fn every_code_block_runs_as_written_or_says_why_not() {
    let only = std::env::var("RECOUNT_PAGE").ok();
    // The pages name ports, and several checkouts may be tested at a time.
    let alone = fs::File::create(std::env::temp_dir().join("recount-documents.lock")).unwrap();
    alone.lock().unwrap();
    let mut faults = Vec::new();
    for mut page in pages() {
        faults.append(&mut page.faults);
        if only.as_ref().is_some_and(|only| !page.name.contains(only.as_str())) || !page.runs() {
            continue;
        }
        if let Some(tool) = page.missing_tool() {
            eprintln!("{}: NOT RUN, there is no `{tool}` on this machine", page.name);
            continue;
        }
        let mut printed = session::run(&page);
        if std::env::var_os("RECOUNT_WRITE_DOCS").is_some() {
            page.write_outputs(&printed);
            page = Page::read(&root(), &root().join(&page.name));
        }
        faults.append(&mut printed.faults(&page));
    }
    assert!(faults.is_empty(), "{}", faults.join("\n\n"));
}

#[test]
fn few_blocks_are_not_run_and_each_says_why() {
    let pages = pages();
    let not_run: Vec<String> = pages
        .iter()
        .flat_map(|page| page.blocks.iter().map(move |block| (page, block)))
        .filter_map(|(page, block)| match &block.kind {
            Kind::NotRun(why) => Some(format!("{}:{}: {why}", page.name, block.line)),
            _ => None,
        })
        .collect();
    eprintln!("not run:\n{}", not_run.join("\n"));
    assert!(not_run.len() <= NOT_RUN_MAX, "{} blocks are not run:\n{}", not_run.len(), not_run.join("\n"));
}

#[test]
fn what_runs_elsewhere_does_run_there() {
    let mut faults = Vec::new();
    for page in pages() {
        for block in &page.blocks {
            let Kind::Elsewhere(file) = &block.kind else { continue };
            let there = fs::read_to_string(root().join(file)).unwrap_or_default();
            for command in page::commands(&block.text) {
                if !names(file, &there, &command) {
                    faults.push(format!("{}:{}: {file} doesn't run `{command}`", page.name, block.line));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

/// Whether a file runs a command: a script has it as it stands, a test in Rust has its words.
fn names(file: &str, there: &str, command: &str) -> bool {
    let is_argument = |word: &&str| !word.contains("://") && !word.starts_with("..");
    if file.ends_with(".rs") {
        command.split_whitespace().filter(is_argument).all(|word| there.contains(word))
    } else {
        there.contains(command)
    }
}

#[test]
fn every_link_leads_somewhere() {
    let root = root();
    let mut files = Vec::new();
    markdown_under(&root, &mut files);
    assert!(files.len() > 40, "the pages were not found under {}", root.display());
    let faults: Vec<String> = files.iter().flat_map(|file| links::broken(&root, file)).collect();
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}
