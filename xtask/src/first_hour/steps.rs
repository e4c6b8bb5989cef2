//! The steps of the hour, what was checked in each, and the table of them.

use super::STEP_SECONDS_MAX;
use crate::program::{self, Finished};
use anyhow::{Result, bail};
use serde_json::{Value, json};
use std::path::Path;
use std::process::Command;

/// The steps so far.
#[derive(Default)]
pub struct Hour {
    /// In order.
    pub steps: Vec<Step>,
    /// What is not as it should be.
    pub faults: Vec<String>,
    /// What built the binary.
    pub built_from: String,
    /// How long that took.
    pub build_seconds: f64,
    /// What the wrong rule came to.
    pub wrong_rule: Value,
}

/// Something that a newcomer does.
pub struct Step {
    /// What is typed, or done.
    pub what: String,
    /// How long the commands took, without what was checked afterwards.
    pub seconds: f64,
    /// What held.
    pub checked: Vec<String>,
    /// What did not.
    pub faults: Vec<String>,
}

impl Hour {
    /// None yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Takes a step; one that can't be taken to its end ends the hour.
    pub fn step(
        &mut self,
        what: impl Into<String>,
        take: impl FnOnce(&mut Step) -> Result<()>,
    ) -> Result<()> {
        let mut step = Step { what: what.into(), seconds: 0.0, checked: Vec::new(), faults: Vec::new() };
        eprintln!("{} …", step.what);
        let taken = take(&mut step);
        let within = step.seconds < STEP_SECONDS_MAX;
        step.check(within, format!("it took {:.1} s, under a minute is promised", step.seconds));
        if within {
            step.checked.pop();
        }
        self.faults.extend(step.faults.iter().map(|fault| format!("{}: {fault}", step.what)));
        self.steps.push(step);
        taken
    }

    /// As a table.
    pub fn print(&self) {
        println!("{:>8}  step", "seconds");
        for step in &self.steps {
            println!("{:>8.1}  {}", step.seconds, step.what);
            for checked in &step.checked {
                println!("{:>8}    holds: {checked}", "");
            }
            for fault in &step.faults {
                println!("{:>8}    WRONG: {fault}", "");
            }
        }
        let total: f64 = self.steps.iter().map(|step| step.seconds).sum();
        println!(
            "{total:>8.1}  all of it; {} in {:.0} s, which is not counted",
            self.built_from, self.build_seconds
        );
        for fault in &self.faults {
            println!("wrong: {fault}");
        }
    }
}

impl Step {
    /// Notes whether something holds.
    pub fn check(&mut self, holds: bool, what: impl Into<String>) {
        if holds { &mut self.checked } else { &mut self.faults }.push(what.into());
    }

    /// Notes whether an exit code is the right one; what was printed is told where not.
    pub fn check_exit(&mut self, finished: &Finished, expected: i32) {
        let code = finished.status.code();
        if code == Some(expected) {
            self.checked.push(format!("exit code {expected}"));
        } else {
            self.faults.push(format!("it ended with {code:?}, must be {expected}: {}", finished.tail()));
        }
    }

    /// Notes whether the output holds these words; line breaks and runs of blanks count as one blank.
    pub fn check_says(&mut self, finished: &Finished, expected: &[&str]) {
        let said = finished.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
        for words in expected {
            let holds = said.contains(words);
            let not = if holds { String::new() } else { format!(", but: {}", finished.tail()) };
            self.check(holds, format!("it says {words:?}{not}"));
        }
    }

    /// Notes whether two numbers are the same.
    pub fn check_count(&mut self, what: &str, found: &Value, expected: u64) {
        let not = if found == expected { String::new() } else { format!(", but it says {found}") };
        self.check(not.is_empty(), format!("{expected} {what}{not}"));
    }

    /// Notes that nothing differs.
    pub fn check_none(&mut self, differences: &[String], what: &str) {
        match differences {
            [] => self.checked.push(what.to_owned()),
            all => self.faults.extend(all.iter().take(5).cloned()),
        }
    }

    /// Runs a command in a folder, as somebody would who has no settings yet; its time counts.
    pub fn run(&mut self, program: &Path, arguments: &[&str], folder: &Path) -> Result<Finished> {
        let mut command = Command::new(program);
        command.args(arguments).current_dir(folder).env_remove("RECOUNT_CONFIG").env_remove("RECOUNT_LOG");
        self.time(&mut command)
    }

    /// Runs a command; its time counts.
    pub fn time(&mut self, command: &mut Command) -> Result<Finished> {
        let finished = program::run(command)?;
        self.seconds += finished.wall.as_secs_f64();
        if finished.status.code().is_none() {
            bail!("a signal ended {command:?}: {}", finished.tail());
        }
        Ok(finished)
    }

    /// For `--json`.
    pub fn json(&self) -> Value {
        json!({ "step": self.what, "seconds": self.seconds, "checked": self.checked, "faults": self.faults })
    }
}
