//! What happens in one life of the program: which faults, and when.

use crate::rng::Rng;
use crate::scene::ARTICLES;
use crate::vfs::{Failure, Fault, Operation};
use crate::watched::{CommitDoubt, PlannedDoubt};
use crate::world::{DISKS, Process, StepCrash};
use recount_engine::Step;

/// Something that happens from outside at a moment of the life.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// The process dies.
    Crash,
    /// It is asked to stop.
    ShutDown,
    /// Somebody closes an article's shelf: its orders must be retried.
    CloseShelf(u64),
    /// All shelves are open again.
    OpenShelves,
    /// The table that the statements need is away …
    HideTable,
    /// … and back.
    ShowTable,
    /// The owner hangs, and another takes its partitions …
    Freeze,
    /// … and then it wakes.
    Thaw,
}

/// What was done to the world between two lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// Nothing.
    Nothing,
    /// The database is put back to how it was.
    RestoreEffects,
    /// The ledger is.
    RestoreLedger,
    /// Both are, to the same moment.
    RestoreBoth,
    /// The log is.
    RestoreLog,
    /// The log is gone and made anew.
    NewLog,
}

/// One life.
#[derive(Debug, Clone)]
pub struct LifePlan {
    /// What it is called in the report.
    pub name: &'static str,
    /// What happens before it.
    pub before: Before,
    /// When what happens, in milliseconds of the life; ascending.
    pub acts: Vec<(u64, Act)>,
    /// A crash at a step.
    pub step_crash: Option<StepCrash>,
    /// Faults of the disks.
    pub faults: Vec<Fault>,
    /// A commit of unknown outcome.
    pub doubt: Option<PlannedDoubt>,
    /// A position that was decided holds another event.
    pub reuses_positions: bool,
    /// Whether `--adopt` is given.
    pub adopt: bool,
}

impl LifePlan {
    /// A life in which nothing goes wrong.
    pub fn quiet() -> Self {
        Self {
            name: "quiet",
            before: Before::Nothing,
            acts: Vec::new(),
            step_crash: None,
            faults: Vec::new(),
            doubt: None,
            reuses_positions: false,
            adopt: false,
        }
    }

    fn named(name: &'static str) -> Self {
        Self { name, ..Self::quiet() }
    }

    /// A life that only ends early.
    pub fn crash_somewhere(rng: &mut Rng, process: Process) -> Self {
        if rng.percent(50) {
            return Self { step_crash: Some(step_crash(rng)), ..Self::named("crash at a step") };
        }
        let faults = vec![disk_fault(rng, process, Failure::Crash, false)];
        Self { faults, ..Self::named("crash in a file operation") }
    }

    /// Draws a life. `process` is the number of its first process.
    pub fn draw(rng: &mut Rng, process: Process, has_log: bool) -> Self {
        let mut plan = match rng.below(100) {
            0..=24 => Self { step_crash: Some(step_crash(rng)), ..Self::named("crash at a step") },
            25..=44 => Self {
                faults: vec![disk_fault(rng, process, Failure::Crash, has_log)],
                ..Self::named("crash in a file operation")
            },
            45..=49 => Self { acts: vec![(rng.below(300), Act::Crash)], ..Self::named("crash at a moment") },
            50..=61 => Self { faults: errors(rng, process, has_log), ..Self::named("disk errors") },
            62..=68 => Self { doubt: Some(doubt(rng)), ..Self::named("commit of unknown outcome") },
            69..=76 => {
                let at = rng.below(120);
                let acts = vec![(at, Act::Freeze), (at + rng.between(5, 400), Act::Thaw)];
                Self { acts, ..Self::named("frozen owner") }
            }
            77..=81 => {
                let at = rng.below(100);
                let acts = vec![(at, Act::HideTable), (at + rng.between(20, 2000), Act::ShowTable)];
                Self { acts, ..Self::named("table missing for a while") }
            }
            82..=85 => Self { before: Before::RestoreEffects, ..Self::named("database restored") },
            86..=88 => Self { before: Before::RestoreLedger, ..Self::named("ledger restored") },
            89..=90 => Self { before: Before::RestoreBoth, ..Self::named("database and ledger restored") },
            91..=92 if has_log => Self {
                before: Before::RestoreLog,
                acts: vec![(500, Act::ShutDown)],
                ..Self::named("log restored")
            },
            93..=94 if has_log => Self {
                before: Before::NewLog,
                acts: vec![(500, Act::ShutDown)],
                ..Self::named("source made anew")
            },
            91..=96 => Self { reuses_positions: true, ..Self::named("position used again") },
            _ => Self { acts: vec![(rng.below(300), Act::ShutDown)], ..Self::named("shut down") },
        };
        if plan.before == Before::Nothing && rng.percent(40) {
            plan.close_shelves(rng);
        }
        plan.acts.sort_by_key(|(at, _)| *at);
        plan
    }

    fn close_shelves(&mut self, rng: &mut Rng) {
        for _ in 0..rng.between(1, 3) {
            self.acts.push((rng.below(200), Act::CloseShelf(rng.below(ARTICLES))));
        }
        self.acts.push((rng.between(200, 1500), Act::OpenShelves));
    }

    /// Whether a process may die in it.
    pub fn crashes(&self) -> bool {
        self.step_crash.is_some()
            || self.faults.iter().any(|fault| fault.failure == Failure::Crash)
            || self.acts.iter().any(|(_, act)| *act == Act::Crash)
    }
}

fn step_crash(rng: &mut Rng) -> StepCrash {
    let step = *rng.pick(&Step::ALL);
    StepCrash { step, after: rng.below(14) }
}

fn doubt(rng: &mut Rng) -> PlannedDoubt {
    let doubt = *rng.pick(&[CommitDoubt::Committed, CommitDoubt::NotCommitted]);
    PlannedDoubt { after: rng.below(12) as u32, doubt }
}

fn disk(rng: &mut Rng, has_log: bool) -> &'static str {
    DISKS[rng.below(if has_log { 3 } else { 2 }) as usize]
}

fn disk_fault(rng: &mut Rng, process: Process, failure: Failure, has_log: bool) -> Fault {
    let (operation, passes) = match rng.below(5) {
        0 | 1 => (None, 400),
        2 | 3 => (Some(Operation::Write), 120),
        _ => (Some(Operation::Sync), 40),
    };
    let disk = Some(disk(rng, has_log));
    Fault { process: Some(process), disk, operation, after: rng.below(passes), times: 1, failure }
}

fn errors(rng: &mut Rng, process: Process, has_log: bool) -> Vec<Fault> {
    let mut faults = Vec::new();
    for _ in 0..rng.between(1, 4) {
        let (failure, operation, times) = match rng.below(5) {
            0 => (Failure::IoError, Operation::Write, 1),
            1 => (Failure::IoError, Operation::Sync, 1),
            2 => (Failure::Full, Operation::Write, rng.between(1, 3)),
            3 => (Failure::Busy, Operation::Lock, rng.between(1, 200)),
            _ => (Failure::IoError, Operation::Read, 1),
        };
        let disk = Some(disk(rng, has_log));
        let after = rng.below(60);
        faults.push(Fault {
            process: Some(process),
            disk,
            operation: Some(operation),
            after,
            times,
            failure,
        });
        if failure == Failure::IoError && rng.percent(40) {
            let (failure, operation) = (Failure::CantOpen, Some(Operation::Open));
            faults.push(Fault { process: Some(process), disk, operation, after: 8, times: 2, failure });
        }
    }
    faults
}
