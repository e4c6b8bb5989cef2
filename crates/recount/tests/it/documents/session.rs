//! One shell that goes through a page.

use super::compare;
use super::page::{KAFKA, Kind, POSTGRES, Page};
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// The longest that a page may take; a stranger's patience, on a busy machine.
const PAGE_MAX: Duration = Duration::from_secs(180);

/// The folder that a reader is in, in what is shown.
const SHOWN_FOLDER: &str = "/home/ada/first";

/// What became of each block.
pub struct Printed {
    outputs: Vec<String>,
    /// Exit codes of the commands that failed, in order; for each block.
    failed: Vec<Vec<i32>>,
    /// The first block that was never finished.
    unfinished: Option<usize>,
}

/// Runs a page's commands in an empty folder.
pub fn run(page: &Page) -> Printed {
    let (folder, behind) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    prepare(page, folder.path());
    fs::create_dir(behind.path().join("bin")).unwrap();
    fs::create_dir(behind.path().join("tmp")).unwrap();
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_recount"), behind.path().join("bin/recount")).unwrap();
    fs::write(behind.path().join("page.sh"), script(page, behind.path())).unwrap();
    drive(folder.path(), behind.path(), &servers(page));
    let read = |name: String| fs::read_to_string(behind.path().join(name)).unwrap_or_default();
    let indices = 0..page.blocks.len();
    let codes =
        |index: usize| read(format!("{index}.failed")).lines().map(|code| code.parse().unwrap()).collect();
    let is_finished = |index: &usize| behind.path().join(format!("{index}.done")).exists();
    Printed {
        outputs: indices
            .clone()
            .map(|index| shown(&read(format!("{index}.out")), &folder, &behind))
            .collect(),
        failed: indices.clone().map(codes).collect(),
        unfinished: indices.clone().find(|index| !is_finished(index)),
    }
}

/// An example's page starts in a copy of the example; others that name `examples/` find it where a clone has it.
fn prepare(page: &Page, folder: &Path) {
    let root = super::root();
    let names = |block: &super::page::Block| {
        matches!(block.kind, Kind::Shell { .. }) && block.text.contains("examples/")
    };
    if let Some(example) = Path::new(&page.name).parent().filter(|parent| parent.starts_with("examples")) {
        crate::harness::copy_folder(&root.join(example), folder);
    } else if page.blocks.iter().any(names) {
        crate::harness::copy_folder(&root.join("examples"), &folder.join("examples"));
    }
}

/// Each block is sourced, so that folders, variables and background jobs go on; failures are noted by a trap.
fn script(page: &Page, behind: &Path) -> String {
    let mut script = "set -E -o pipefail\ntrap 'echo $? >> \"$FAILED\"' ERR\n".to_owned();
    for (index, block) in page.blocks.iter().enumerate() {
        let at = behind.join(index.to_string());
        let at = at.display();
        match &block.kind {
            Kind::Shell { .. } => {
                // The last line makes the sourcing itself succeed: the trap has noted it already.
                fs::write(format!("{at}.sh"), format!("{}:\n", block.text)).unwrap();
                script.push_str(&format!("FAILED={at}.failed\n. {at}.sh > {at}.out 2>&1\n"));
            }
            Kind::File(name) => {
                fs::write(format!("{at}.file"), &block.text).unwrap();
                script.push_str(&format!("mkdir -p \"$(dirname {name})\" && cp {at}.file {name}\n"));
            }
            _ => {}
        }
        script.push_str(&format!("touch {at}.done\n"));
    }
    script
}

/// Where the servers are that a page needs, in variables.
fn servers(page: &Page) -> Vec<(&'static str, String)> {
    let needs = |what: &str| page.needs.iter().any(|need| need == what);
    let mut found = Vec::new();
    if needs(POSTGRES)
        && let Some(server) = recount_services::postgres()
    {
        found.push(("DATABASE_URL", server.fresh_database().unwrap()));
    }
    if needs(KAFKA)
        && let Some(server) = recount_services::kafka()
    {
        let topics = |arguments: &[&str]| server.tool("org.apache.kafka.tools.TopicCommand", arguments);
        topics(&["--delete", "--if-exists", "--topic", "orders"]).unwrap();
        crate::harness::eventually("the topic is made", || {
            topics(&["--create", "--topic", "orders", "--partitions", "6"]).is_ok()
        });
        found.push(("KAFKA", server.servers()));
    }
    found
}

fn drive(folder: &Path, behind: &Path, servers: &[(&str, String)]) {
    let path = format!("{}:{}", behind.join("bin").display(), std::env::var("PATH").unwrap_or_default());
    let mut command = Command::new("bash");
    command.envs(servers.iter().map(|(name, value)| (name, value)));
    command.arg(behind.join("page.sh")).current_dir(folder).stdin(Stdio::null()).process_group(0);
    command.env("PATH", path).env("TMPDIR", behind.join("tmp")).env("RECOUNT_AUTHOR", "ada");
    for name in ["RECOUNT_LOG", "RECOUNT_CONFIG", "RECOUNT_STEP_FILE", "RECOUNT_REVISION"] {
        command.env_remove(name);
    }
    let mut shell = command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
    let began = Instant::now();
    while shell.try_wait().unwrap().is_none() && began.elapsed() < PAGE_MAX {
        std::thread::sleep(Duration::from_millis(10));
    }
    // What the page left running, and the shell itself where it took too long.
    let group = rustix::process::Pid::from_child(&shell);
    let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
    let _ = shell.wait();
}

fn shown(printed: &str, folder: &TempDir, behind: &TempDir) -> String {
    let temporary = behind.path().join("tmp");
    printed
        .replace(temporary.to_str().unwrap(), "/tmp")
        .replace(folder.path().to_str().unwrap(), SHOWN_FOLDER)
}

impl Printed {
    /// What a block printed.
    pub fn output(&self, index: usize) -> &str {
        &self.outputs[index]
    }

    /// Whether an output in the page is not what was printed.
    pub fn differs(&self, page: &Page, index: usize) -> bool {
        compare::difference(&page.blocks[index].text, self.output(index - 1)).is_some()
    }

    /// What is not as the page has it.
    pub fn faults(&mut self, page: &Page) -> Vec<String> {
        let mut faults = Vec::new();
        for (index, block) in page.blocks.iter().enumerate() {
            let at = format!("{}:{}", page.name, block.line);
            if self.unfinished == Some(index) {
                faults.push(format!("{at}: never came to its end; the page has {} s", PAGE_MAX.as_secs()));
                break;
            }
            match block.kind {
                Kind::Shell { exit } => {
                    let expected: Vec<i32> = Some(exit).into_iter().filter(|code| *code != 0).collect();
                    if self.failed[index] != expected {
                        let (failed, output) = (&self.failed[index], self.output(index));
                        faults
                            .push(format!("{at}: failed with {failed:?}, expected {expected:?}:\n{output}"));
                    }
                }
                Kind::Output => {
                    if let Some(difference) = compare::difference(&block.text, self.output(index - 1)) {
                        faults.push(format!("{at}: {difference}\nprinted was:\n{}", self.output(index - 1)));
                    }
                }
                _ => {}
            }
        }
        faults
    }
}

#[test]
fn what_fails_or_prints_otherwise_is_a_fault() {
    let folder = tempfile::tempdir().unwrap();
    let faults = |text: &str| {
        let path = folder.path().join("page.md");
        fs::write(&path, text).unwrap();
        let page = Page::read(folder.path(), &path);
        run(&page).faults(&page).len()
    };
    for (text, expected) in [
        ("```sh\ntrue\n```\n", 0),
        ("```sh\nfalse\n```\n", 1),
        ("```sh\nfalse\ntrue\n```\n", 1),
        ("```sh\nfalse | true\n```\n", 1),
        ("```sh exit=1\nfalse\n```\n", 0),
        ("```sh exit=1\ntrue\n```\n", 1),
        ("```sh\na=3\nmkdir b && cd b\n```\n```sh\necho $a $(basename $PWD)\n```\n```text\n3 b\n```\n", 0),
        ("```sh\necho 3\n```\n```text\n4\n```\n", 1),
        ("```sh\nrecount explain no_such_reason\n```\n", 1),
    ] {
        assert_eq!(faults(text), expected, "{text}");
    }
}
