//! Everything that the demo found out, as data: the story is told from it, `--json` prints it.

use serde::Serialize;
use std::collections::BTreeMap;

/// One demo.
#[derive(Debug, Serialize)]
pub struct Figures {
    /// The version of this form.
    pub recount: u32,
    /// `demo`.
    pub command: &'static str,
    /// The command's exit code.
    pub exit_code: u8,
    /// Whether everything was as the demo tells it.
    pub held: bool,
    /// What was not.
    pub not_held: Vec<String>,
    /// How long all of it took.
    pub took_ms: u64,
    /// The folder left behind.
    pub folder: String,
    /// This program, where `recount` would not start it.
    pub program: Option<String>,
    /// The orders.
    pub orders: OrdersFigures,
    /// What must become of them, worked out without Recount.
    pub expected: Expected,
    /// What the rule of both configs allows.
    pub budget: String,
    /// The ordinary consumer.
    pub ordinary: Ordinary,
    /// Recount, the rule as a dead letter.
    pub dead_letter: Act,
    /// Recount, the rule as a skip.
    pub skip: Act,
    /// Recount, the rule as a skip, one order in twenty renamed.
    pub one_in_20: Act,
}

/// The orders of a demo.
#[derive(Debug, Serialize)]
pub struct OrdersFigures {
    /// `built in`, or the folder they are from.
    pub from: String,
    /// How many.
    pub published: usize,
    /// How many articles the stock has.
    pub articles: usize,
    /// The offset of the first that is renamed.
    pub rename_offset: usize,
}

/// What must become of the orders.
#[derive(Debug, Serialize)]
pub struct Expected {
    /// Orders by fate: `applied`, or the reason.
    pub fates: BTreeMap<&'static str, usize>,
    /// Units that leave the stock.
    pub units: i64,
    /// Those of them for orders from the rename on.
    pub units_after_rename: i64,
}

/// The ordinary consumer.
#[derive(Debug, Serialize)]
pub struct Ordinary {
    /// What it tells its dashboard.
    pub metrics: super::ordinary::Metrics,
    /// How long it took.
    pub took_ms: u64,
    /// Units that left its stock.
    pub units: i64,
    /// Those of them since the rename.
    pub units_after_rename: i64,
}

/// One Recount: what came of its run, and of its correction.
#[derive(Debug, Serialize)]
pub struct Act {
    /// Orders whose field is renamed.
    pub renamed: usize,
    /// The offset of the first of them.
    pub first_renamed_offset: usize,
    /// How the orders stood when the run had ended or paused.
    pub run: Stand,
    /// `recount run`'s exit code.
    pub exit_code: i32,
    /// The first line of `recount status` then.
    pub status: String,
    /// What is on record about the first order whose fate the rename changed.
    pub first_sign: Option<Sign>,
    /// How many orders have another reason than they would have had.
    pub wrong: usize,
    /// The first budget that was exceeded.
    pub exceeded: Option<Exceeded>,
    /// When the flow paused itself.
    pub paused: Option<Paused>,
    /// What came of the correction, where it was corrected.
    pub corrected: Option<Corrected>,
}

/// How the orders of a flow stand, as the audit says.
#[derive(Debug, Serialize)]
pub struct Stand {
    /// Orders in the source.
    pub published: u64,
    /// Orders with a fate.
    pub decided: u64,
    /// Orders without a fate.
    pub unexplained: i64,
    /// `balanced`, `open`, `imbalanced` or `unprovable`.
    pub status: String,
    /// Whether the flow works.
    pub working: Option<bool>,
    /// Why not.
    pub not_working: Vec<String>,
    /// Orders by verdict and reason.
    pub decisions: BTreeMap<String, u64>,
    /// Units that left its stock.
    pub units: i64,
}

/// A decision that the rename brought.
#[derive(Debug, Serialize)]
pub struct Sign {
    /// Where.
    pub position: String,
    /// Which order.
    pub event_id: String,
    /// The verdict.
    pub verdict: String,
    /// The reason's code.
    pub reason: String,
    /// The reason in words.
    pub sentence: String,
    /// The how manieth event it is, counted from the first that was renamed.
    pub events: u64,
    /// Time into the run.
    pub after_ms: i64,
}

/// A budget that was exceeded.
#[derive(Debug, Serialize)]
pub struct Exceeded {
    /// The reason.
    pub reason: String,
    /// Its budget.
    pub budget: String,
    /// Where.
    pub position: String,
    /// The how manieth event it is, counted from the first that was renamed.
    pub events: u64,
    /// Time into the run.
    pub after_ms: i64,
}

/// A flow that paused itself.
#[derive(Debug, Serialize)]
pub struct Paused {
    /// Events decided by then, counted from the first that was renamed.
    pub events: u64,
    /// Events that were left where they are.
    pub left: u64,
    /// Time into the run.
    pub after_ms: i64,
}

/// What came of a correction.
#[derive(Debug, Serialize)]
pub struct Corrected {
    /// The reason that was replayed.
    pub reason: String,
    /// New decisions of the replay, by verdict and reason.
    pub replayed: BTreeMap<String, u64>,
    /// What was not working right after the replay.
    pub not_working_before_resume: Vec<String>,
    /// How the orders stand in the end.
    pub end: Stand,
    /// Articles with other units on hand than they must have.
    pub articles_wrong: usize,
    /// Whether there is none, and the units that left are those that had to.
    pub stock_is_right: bool,
}
