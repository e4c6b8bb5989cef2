//! `cargo xtask tidy`: what the workspace promises of its own shape, checked.

mod edges;
mod reasons;
mod source;
mod words;

use crate::program;
use anyhow::{Context, Result, bail};
use std::fmt;
use std::process::ExitCode;

/// More packages than this in a default build want a reason in the changelog, and this number raised.
const PACKAGES_MAX: usize = 255;

/// One thing that is not as promised.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Relative to the workspace.
    pub path: String,
    /// From 1; 0 where it concerns the whole file.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

impl Fault {
    fn new(path: &str, line: usize, message: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, message: message.into() }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line.max(1), self.message)
    }
}

/// A text file of the workspace.
pub struct File {
    /// Relative to the workspace, with forward slashes.
    pub path: String,
    /// Its text.
    pub text: String,
}

/// What was found.
#[derive(Default)]
pub struct Findings {
    /// These fail.
    pub faults: Vec<Fault>,
    /// These are only told.
    pub warnings: Vec<Fault>,
}

/// Checks everything; 1 where something is not as promised.
pub fn run(json: bool) -> Result<ExitCode> {
    let files = files()?;
    let mut findings = Findings::default();
    edges::check(&files, &mut findings);
    reasons::check(&files, &mut findings);
    words::check(&files, &mut findings);
    for file in files.iter().filter(|file| file.path.ends_with(".rs")) {
        source::check(file, &mut findings);
    }
    generated(&mut findings)?;
    let packages = packages()?;
    if packages > PACKAGES_MAX {
        let message = format!("a default build takes {packages} packages, at most {PACKAGES_MAX} are agreed");
        findings.faults.push(Fault::new("Cargo.lock", 0, message));
    }
    report(&findings, files.len(), packages, json);
    Ok(ExitCode::from(u8::from(!findings.faults.is_empty())))
}

fn report(findings: &Findings, files: usize, packages: usize, json: bool) {
    for warning in &findings.warnings {
        println!("{warning} (a warning)");
    }
    for fault in &findings.faults {
        println!("{fault}");
    }
    println!(
        "{} faults and {} warnings in {files} files; a default build takes {packages} packages (at most {PACKAGES_MAX})",
        findings.faults.len(),
        findings.warnings.len(),
    );
    if json {
        let list = |faults: &[Fault]| -> Vec<serde_json::Value> {
            let one = |f: &Fault| serde_json::json!({ "path": f.path, "line": f.line, "message": f.message });
            faults.iter().map(one).collect()
        };
        println!(
            "{}",
            serde_json::json!({
                "ok": findings.faults.is_empty(),
                "files": files,
                "packages": packages,
                "packages_max": PACKAGES_MAX,
                "faults": list(&findings.faults),
                "warnings": list(&findings.warnings),
            })
        );
    }
}

/// Every text file that git tracks or would track.
fn files() -> Result<Vec<File>> {
    let output = std::process::Command::new("git")
        .args(["ls-files", "-z", "--cached", "--others", "--exclude-standard"])
        .current_dir(program::root())
        .output()
        .context("tidy asks git for the list of files, and git can't be run")?;
    if !output.status.success() {
        bail!("git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    }
    let mut files = Vec::new();
    for path in String::from_utf8_lossy(&output.stdout).split('\0').filter(|path| !path.is_empty()) {
        // A file that was deleted but not yet committed is not there, and packed data is not text.
        let Ok(bytes) = std::fs::read(program::root().join(path)) else { continue };
        if let Ok(text) = String::from_utf8(bytes) {
            files.push(File { path: path.to_owned(), text });
        }
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    files.dedup_by(|a, b| a.path == b.path);
    Ok(files)
}

/// The references that are made from the program must be there and say what it says; tests of `recount`
/// whose names hold `reference` compare them.
fn generated(findings: &mut Findings) -> Result<()> {
    for path in ["docs/config-reference.md", "docs/json-reference.md"] {
        if !program::root().join(path).exists() {
            findings.faults.push(Fault::new(path, 0, "is missing"));
        }
    }
    let output = program::cargo()
        .args(["test", "--quiet", "--package", "recount", "--lib", "--test", "it", "reference"])
        .output()?;
    let said = String::from_utf8_lossy(&output.stdout);
    if !output.status.success() {
        let why = said.lines().chain(std::str::from_utf8(&output.stderr).unwrap_or_default().lines());
        let why: Vec<&str> =
            why.filter(|line| line.contains("reference") || line.starts_with("error")).collect();
        findings.faults.push(Fault::new("docs/config-reference.md", 0, why.join("; ")));
    } else if said.matches(" 0 passed").count() > 0 {
        findings.faults.push(Fault::new(
            "docs/config-reference.md",
            0,
            "no test of recount compares the references",
        ));
    }
    Ok(())
}

/// How many packages `cargo build --package recount` compiles, build scripts' own included.
fn packages() -> Result<usize> {
    let output = program::cargo()
        .args(["tree", "--locked", "--package", "recount", "--edges", "normal,build", "--prefix", "none"])
        .args(["--format", "{p}"])
        .output()?;
    if !output.status.success() {
        bail!("cargo tree: {}", String::from_utf8_lossy(&output.stderr));
    }
    let text = String::from_utf8_lossy(&output.stdout);
    let mut names: Vec<&str> = text
        .lines()
        .map(|line| line.trim_end_matches(" (*)").trim_end_matches(" (proc-macro)"))
        .filter(|line| !line.is_empty())
        .collect();
    names.sort_unstable();
    names.dedup();
    Ok(names.len())
}
