//! What an audit comes to. The text is in [`render`](crate::render); the JSON form is made here.

use crate::beside_report::GroupReport;
use crate::books::Books;
use crate::budgets::BudgetReport;
use crate::witness::Published;
use recount_model::{BookCounts, BookStatus, FlowName, Origin, PartitionId, ReasonCode, Timestamp};
use serde_json::{Value, json};

/// The version of the JSON form.
pub const JSON_VERSION: u32 = 1;

/// `1 position`, `2 positions`.
pub(crate) fn plural(count: u64, noun: &str) -> String {
    format!("{count} {noun}{}", if count == 1 { "" } else { "s" })
}

/// Which equation of the books.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Equation {
    /// Source = ledger.
    E1,
    /// Ledger = effects.
    E2,
    /// Effects = business.
    E3,
}

impl Equation {
    /// `E1`, `E2`, `E3`.
    pub fn word(self) -> &'static str {
        match self {
            Self::E1 => "E1",
            Self::E2 => "E2",
            Self::E3 => "E3",
        }
    }
}

/// How much a statement can see. Always printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Strength {
    /// Position by position, without looking at what stands there.
    Counted,
    /// Position and id, read by the auditor itself.
    Identified,
    /// The position row says that the batches were committed; nothing was counted.
    CommitAttested,
    /// Ids of the user's own effects.
    CountedById,
    /// One total against another: what is lost and what is there twice may cancel.
    TotalOnly,
    /// Ids of effects of a consumer that Recount doesn't run: at about the same time.
    ByIdWithoutCut,
    /// The same, one total against another.
    TotalWithoutCut,
    /// Both sides at one cut, exactly.
    OneCut,
    /// Both sides at about the same time.
    NoCut,
    /// Nothing could be looked at.
    None,
}

impl Strength {
    /// As it is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Identified => "identified",
            Self::CommitAttested => "commit-attested",
            Self::CountedById => "counted by id",
            Self::TotalOnly => "counted in total only",
            Self::ByIdWithoutCut => "counted by id, without a cut",
            Self::TotalWithoutCut => "counted in total only, without a cut",
            Self::OneCut => "summed to one cut",
            Self::NoCut => "summed without a cut",
            Self::None => "not counted",
        }
    }
}

/// Something that is not as it should be, or can't be told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// A built-in code.
    pub code: ReasonCode,
    /// One sentence.
    pub sentence: String,
    /// Positions, ids or groups, at most `names_max`.
    pub names: Vec<String>,
    /// How many there are in all.
    pub count: u64,
    /// Since when, where that is known.
    pub since: Option<Timestamp>,
}

/// One side of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Side {
    /// What was counted.
    pub what: String,
    /// The number.
    pub number: String,
}

impl Side {
    /// A side of a statement.
    pub fn new(what: impl Into<String>, number: impl ToString) -> Self {
        Self { what: what.into(), number: number.to_string() }
    }
}

/// One statement of the audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Which equation.
    pub equation: Equation,
    /// `source = ledger`, `ledger = effects`, or the reconcile's name.
    pub name: String,
    /// What it comes to.
    pub status: BookStatus,
    /// How much it can see.
    pub strength: Strength,
    /// Both sides, where both could be counted.
    pub sides: Option<(Side, Side)>,
    /// One sentence.
    pub sentence: String,
    /// What is not as it should be.
    pub findings: Vec<Finding>,
    /// Commands to look further with.
    pub look: Vec<String>,
}

/// One partition's books.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartitionReport {
    /// The partition.
    pub at: PartitionId,
    /// What the source says it holds; none where it can't be asked.
    pub published: Option<Published>,
    /// The books.
    pub counts: BookCounts,
    /// What they come to.
    pub status: BookStatus,
}

/// One reason's or flag's count.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonReport {
    /// `skipped`, `dead-lettered` or `flagged`.
    pub verdict: &'static str,
    /// The code.
    pub reason: ReasonCode,
    /// Current decisions with it.
    pub events: u64,
}

/// One flow's audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FlowReport {
    /// Its name.
    pub flow: FlowName,
    /// Where its decisions come from: whether *applied* is what happened, what was reported, or what ought to be.
    pub origin: Origin,
    /// Both sides of the law, over all partitions.
    pub books: Books,
    /// Whether every partition's published side was counted; else `published` is only what has a fate.
    pub published_known: bool,
    /// Each partition.
    pub partitions: Vec<PartitionReport>,
    /// Each equation.
    pub statements: Vec<Statement>,
    /// Each declared reason.
    pub budgets: Vec<BudgetReport>,
    /// The group of an observed consumer, where one is declared and could be asked.
    pub group: Option<GroupReport>,
    /// Why the flow is not working; empty where nothing says so.
    pub not_working: Vec<String>,
    /// What would have to be known to say that it works.
    pub not_known: Vec<String>,
    /// When the flow last decided something.
    pub last_decided_at: Option<Timestamp>,
}

impl FlowReport {
    /// The worst of the statements.
    pub fn status(&self) -> BookStatus {
        self.statements.iter().map(|s| s.status).fold(BookStatus::Balanced, BookStatus::worst)
    }

    /// Whether it works; `None` where something that it hangs on can't be told.
    pub fn working(&self) -> Option<bool> {
        match (self.not_working.is_empty(), self.not_known.is_empty()) {
            (false, _) => Some(false),
            (true, false) => None,
            (true, true) => Some(true),
        }
    }

    /// 1 not well, 3 unprovable, 0 well.
    pub fn exit_code(&self) -> u8 {
        if self.status() == BookStatus::Imbalanced || !self.not_working.is_empty() {
            1
        } else if self.statements.iter().any(|s| s.status == BookStatus::Unprovable) {
            3
        } else {
            0
        }
    }
}

/// An audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditReport {
    /// When it was made.
    pub at: Timestamp,
    /// One a flow.
    pub flows: Vec<FlowReport>,
    /// Why the ledger could not be read to the end.
    pub ledger_error: Option<String>,
    /// Whether it could not be reached at all (exit code 4), not merely read to the end.
    pub ledger_away: bool,
}

impl AuditReport {
    /// The exit code of the command: 4, 1, 3 or 0, the first that applies.
    pub fn exit_code(&self) -> u8 {
        let codes: Vec<u8> = self.flows.iter().map(FlowReport::exit_code).collect();
        if self.ledger_away {
            4
        } else if self.ledger_error.is_some() || codes.contains(&1) {
            1
        } else if codes.contains(&3) {
            3
        } else {
            0
        }
    }

    /// The JSON form, with the law's terms as keys.
    pub fn json(&self) -> Value {
        json!({
            "recount": JSON_VERSION,
            "command": "audit",
            "at": self.at.to_string(),
            "exit_code": self.exit_code(),
            "ledger_error": self.ledger_error,
            "flows": self.flows.iter().map(FlowReport::json).collect::<Vec<_>>(),
        })
    }
}

impl FlowReport {
    /// The flow's part of the JSON form.
    pub fn json(&self) -> Value {
        json!({
            "flow": self.flow.as_str(),
            "decisions": origin_word(self.origin),
            "status": self.status().word(),
            "working": self.working(),
            "not_working": self.not_working,
            "not_known": self.not_known,
            "last_decided_at": self.last_decided_at.map(|at| at.to_string()),
            "published_known": self.published_known,
            "books": self.books.json(),
            "partitions": self.partitions.iter().map(partition_json).collect::<Vec<_>>(),
            "statements": self.statements.iter().map(statement_json).collect::<Vec<_>>(),
            "budgets": self.budgets.iter().map(BudgetReport::json).collect::<Vec<_>>(),
            "group": self.group.as_ref().map(GroupReport::json),
        })
    }
}

/// `ran`, `reported` or `expected`.
pub fn origin_word(origin: Origin) -> &'static str {
    match origin {
        Origin::Ran => "ran",
        Origin::Reported => "reported",
        Origin::Expected => "expected",
    }
}

/// The law's terms as keys.
pub fn counts_json(counts: &BookCounts) -> Value {
    json!({
        "published": counts.published,
        "applied": counts.applied,
        "skipped": counts.skipped,
        "dead-lettered": counts.dead_lettered,
        "lost": counts.lost,
        "not-an-event": counts.not_an_event,
        "unrecorded": counts.unrecorded,
        "open": counts.open,
        "unexplained": i64::try_from(counts.unexplained()).unwrap_or(i64::MAX),
    })
}

fn partition_json(partition: &PartitionReport) -> Value {
    let mut json = counts_json(&partition.counts);
    json["partition"] = partition.at.partition.as_str().into();
    json["source"] = partition.at.source.as_str().into();
    json["status"] = partition.status.word().into();
    json["first"] = partition.published.map(|p| p.first).into();
    json["end"] = partition.published.map(|p| p.end).into();
    json
}

fn statement_json(statement: &Statement) -> Value {
    let side = |side: &Side| json!({ "what": side.what, "number": side.number });
    json!({
        "equation": statement.equation.word(),
        "name": statement.name,
        "status": statement.status.word(),
        "strength": statement.strength.word(),
        "left": statement.sides.as_ref().map(|s| side(&s.0)),
        "right": statement.sides.as_ref().map(|s| side(&s.1)),
        "sentence": statement.sentence,
        "findings": statement.findings.iter().map(finding_json).collect::<Vec<_>>(),
        "look": statement.look,
    })
}

fn finding_json(finding: &Finding) -> Value {
    json!({
        "code": finding.code.as_str(),
        "sentence": finding.sentence,
        "names": finding.names,
        "count": finding.count,
        "since": finding.since.map(|at| at.to_string()),
    })
}
