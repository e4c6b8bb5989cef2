//! `recount validate`: what a valid config promises, what happens when things fail, and who is told what.

use crate::config::{
    Config, EffectConfig, Fault, FlowConfig, ReasonInfo, ReasonVerdict, SourceConfig, count, size_text,
};
use crate::explain::verdict_word;
use recount_engine::{BreakerAction, EffectRows};
use recount_model::BudgetLimit;
use recount_model::budget::duration_text;
use recount_model::decide::AfterLast;
use serde::Serialize;
use std::fmt::Write as _;

/// What `recount validate` says of a config that can be used.
#[derive(Debug, Clone, Serialize)]
pub struct ValidateReport {
    version: u32,
    valid: bool,
    file: String,
    hash: String,
    warnings: Vec<Fault>,
    flows: Vec<FlowReport>,
    reconciles: Vec<String>,
}

/// One flow.
#[derive(Debug, Clone, Serialize)]
struct FlowReport {
    flow: String,
    owner: String,
    purpose: String,
    source: String,
    effect: String,
    promise: Promise,
    what_happens_when: Vec<Happens>,
    who_is_told: Vec<Told>,
}

/// What is promised of delivery.
#[derive(Debug, Clone, Serialize)]
struct Promise {
    delivery: &'static str,
    because: String,
    effects_are: &'static str,
}

/// One row of *what happens when*.
#[derive(Debug, Clone, Serialize)]
struct Happens {
    when: &'static str,
    then: String,
}

/// One row of *who is told*.
#[derive(Debug, Clone, Serialize)]
struct Told {
    reason: String,
    verdict: &'static str,
    budget: String,
    because: String,
    shows_in: &'static str,
    beyond_budget: &'static str,
    line: usize,
}

/// Says what a config comes to. Reviews that are overdue are warnings.
pub fn report(config: &Config) -> ValidateReport {
    let today = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).date();
    report_on(config, today)
}

fn report_on(config: &Config, today: jiff::civil::Date) -> ValidateReport {
    let mut warnings = config.warnings.clone();
    for flow in &config.flows {
        let overdue = flow.reasons.iter().filter(|reason| reason.review_by.is_some_and(|date| date < today));
        warnings.extend(overdue.map(|reason| config.review_overdue(flow, reason)));
    }
    warnings.sort_by_key(|warning| (warning.line, warning.column));
    ValidateReport {
        version: 1,
        valid: true,
        file: config.path.display().to_string(),
        hash: config.hash(),
        warnings,
        flows: config.flows.iter().map(flow_report).collect(),
        reconciles: config.reconciles.iter().map(|reconcile| reconcile.name.clone()).collect(),
    }
}

fn flow_report(flow: &FlowConfig) -> FlowReport {
    FlowReport {
        flow: flow.spec.flow.to_string(),
        owner: flow.spec.owner.clone(),
        purpose: flow.spec.purpose.clone(),
        source: source_text(&flow.source),
        effect: effect_text(&flow.effect),
        promise: promise(flow),
        what_happens_when: happens(flow),
        who_is_told: flow.reasons.iter().map(told).collect(),
    }
}

fn source_text(source: &SourceConfig) -> String {
    match source {
        SourceConfig::File { path, follow: true } => format!("the file {}, followed", path.display()),
        SourceConfig::File { path, follow: false } => format!("the file {}", path.display()),
        SourceConfig::Stdin => "standard input".to_owned(),
        SourceConfig::Http { path } => format!("requests to {path}"),
    }
}

fn effect_text(effect: &EffectConfig) -> String {
    match effect {
        EffectConfig::Sql { database, routes, .. } => {
            let statements: usize = routes.iter().map(|route| route.statements.len()).sum();
            format!("SQL in {database}, {}", count(statements, "statement"))
        }
        EffectConfig::Http { routes, .. } => {
            let urls: Vec<&str> = routes.iter().map(|route| route.url.as_str()).collect();
            format!("the handler {}", urls.join(", "))
        }
        EffectConfig::None => "none".to_owned(),
    }
}

fn promise(flow: &FlowConfig) -> Promise {
    let from = match flow.source {
        SourceConfig::File { .. } => "a line that is read again is known by its position",
        SourceConfig::Stdin => {
            "standard input is spooled to the embedded log first, and a line has its position from then on"
        }
        SourceConfig::Http { .. } => {
            "an event has its position in the embedded log from the 202 on; a sender that gets no answer sends \
             again, which the duplicate window sees"
        }
    };
    let (delivery, because, effects_are) = match &flow.effect {
        EffectConfig::Sql { database, effects, .. } => (
            "exactly once",
            format!("effects, position and decisions are committed in one transaction of {database}; {from}"),
            match effects {
                EffectRows::Table | EffectRows::Custom { .. } => "counted",
                EffectRows::None => "commit-attested",
            },
        ),
        EffectConfig::Http { .. } => (
            "at least once",
            format!(
                "a handler's effect and our record can't be one transaction, so a batch may be sent again, with the \
                 same Idempotency-Key (flow/source/partition/offset) for ever; order within a key is not promised \
                 past a deadline; {from}"
            ),
            "a claim of the handler",
        ),
        EffectConfig::None => (
            "decided exactly once",
            format!("there is no effect: an event that passes is recorded as applied; {from}"),
            "not declared",
        ),
    };
    Promise { delivery, because, effects_are }
}

fn happens(flow: &FlowConfig) -> Vec<Happens> {
    let mut rows = effect_happens(flow);
    let spec = &flow.spec;
    let mut add = |when: &'static str, then: String| rows.push(Happens { when, then });
    add(
        "bad bytes",
        format!(
            "dead letter decode_failed, kept up to {}; the others go on",
            size_text(spec.take.payload_bytes_max as u64)
        ),
    );
    add("same id again", duplicates(spec.dedupe_events));
    if flow.reasons.iter().any(|reason| reason.code.as_str() == "retries_exhausted") {
        let after = match spec.retry.after_last {
            AfterLast::GoOn => "the key goes on",
            AfterLast::StayHeld => "the key stays held until `recount resume`",
        };
        add(
            "an event asks for a retry",
            format!(
                "its key waits, others go on; {} attempts, {} to {} apart; then dead letter retries_exhausted, and {after}",
                spec.retry.attempts_max,
                duration_text(spec.retry.backoff_first_ms),
                duration_text(spec.retry.backoff_max_ms)
            ),
        );
        add(
            "too many wait",
            format!(
                "at {} events or {} behind held keys the partition takes no more, and says so (hold_full)",
                spec.hold.events_max,
                size_text(spec.hold.bytes_max as u64)
            ),
        );
    }
    add("too many not applied", breaker(flow));
    add(
        "ledger can't be written",
        "the flow takes no more (ledger_full); nothing is settled that isn't recorded".into(),
    );
    source_happens(flow, &mut rows);
    let mut add = |when: &'static str, then: &str| rows.push(Happens { when, then: then.to_owned() });
    add("SIGTERM", "takes no more, finishes what is under way, records and settles it, ends");
    add(
        "the process is killed",
        "what was committed is recorded from the effect's own record; the rest is done again",
    );
    add(
        "an event kills the process",
        "after an unclean stop the last batch runs one by one; at the third stop in a row alone: dead letter killed_the_process",
    );
    rows
}

fn duplicates(window_events: usize) -> String {
    if window_events == 0 {
        return "applied again: dedupe is off".to_owned();
    }
    format!(
        "same payload: skipped, duplicate; another payload: dead letter id_reused; within {window_events} events"
    )
}

fn effect_happens(flow: &FlowConfig) -> Vec<Happens> {
    let spec = &flow.spec;
    let waits = format!(
        "waits {}, doubling up to {}, and tries again; no event is blamed (effects_away)",
        duration_text(spec.away_backoff_first_ms),
        duration_text(spec.away_backoff_max_ms)
    );
    match &flow.effect {
        EffectConfig::Sql { .. } => vec![
            Happens { when: "database away", then: waits },
            Happens { when: "database locked", then: "the batch again; no attempt is counted".to_owned() },
            Happens {
                when: "a statement fails",
                then: "by the event's data: dead letter statement_failed, nothing of it is left; else as database away"
                    .to_owned(),
            },
            Happens {
                when: "database restored",
                then: "the flow refuses to start, and names the range (effects_rolled_back)".to_owned(),
            },
        ],
        EffectConfig::Http { routes, .. } => {
            let deadline = routes.iter().map(|route| route.deadline_ms).max().unwrap_or_default();
            let slow = format!("after {} the batch is sent again, with the same keys", duration_text(deadline));
            vec![
                Happens { when: "handler away", then: waits },
                Happens { when: "handler slow", then: slow },
                Happens { when: "handler leaves an event out", then: "dead letter no_verdict, with its whole answer".to_owned() },
            ]
        }
        EffectConfig::None => Vec::new(),
    }
}

fn source_happens(flow: &FlowConfig, rows: &mut Vec<Happens>) {
    let mut add = |when: &'static str, then: &str| rows.push(Happens { when, then: then.to_owned() });
    match &flow.source {
        SourceConfig::File { follow, .. } => {
            add(
                "file cut short or replaced",
                "the flow stops and asks (source_changed); `--again` reads it as a new one",
            );
            if *follow {
                add("file rotated by renaming", "the old one is read to its end, then the new one");
            } else {
                add("the same file again", "what is decided is known; only new lines are taken");
            }
        }
        SourceConfig::Stdin => {
            add("input ends early", "what was spooled is decided; the rest was never here")
        }
        SourceConfig::Http { .. } => {
            add("the log can't be written", "no 202: the sender knows that it must send again");
        }
    }
}

fn breaker(flow: &FlowConfig) -> String {
    let spec = &flow.spec.breaker;
    let share = f64::from(spec.share_ppm) / 10_000.0;
    let then = match spec.action {
        BreakerAction::Pause => "the flow pauses until `recount resume`",
        BreakerAction::Alert => "it says so, and the flow goes on",
    };
    format!("above {share}% of the last {}, budgets of `any` left out: {then} (breaker_open)", spec.of_last)
}

fn told(reason: &ReasonInfo) -> Told {
    Told {
        reason: reason.code.to_string(),
        verdict: verdict_word(reason.verdict),
        budget: reason.budget.to_string(),
        because: reason.because.clone(),
        shows_in: match reason.verdict {
            ReasonVerdict::DeadLetter => "ledger (kept whole), metric, log, dead-letters",
            ReasonVerdict::Skip => "ledger, metric, log",
            ReasonVerdict::Flag => "ledger, metric",
            ReasonVerdict::Retry => "log, attempts; in the ledger once it is decided",
        },
        beyond_budget: match reason.budget.limit {
            BudgetLimit::Any => "nobody",
            _ => "exit code 1, /health/working, metric, log",
        },
        line: reason.line,
    }
}

impl ValidateReport {
    /// Whether the config can be used: a report is only made of one that can.
    pub fn is_valid(&self) -> bool {
        self.valid
    }

    /// One JSON object.
    pub fn json(&self) -> serde_json::Value {
        serde_json::json!(self)
    }

    /// For people.
    pub fn render(&self) -> String {
        let mut out = String::new();
        for warning in &self.warnings {
            let _ = writeln!(out, "{}", warning.render("warning"));
        }
        for flow in &self.flows {
            flow.render(&mut out);
        }
        let found = match self.warnings.len() {
            0 => "no fault".to_owned(),
            warnings => format!("no fault, {}", count(warnings, "warning")),
        };
        let reconciles = match self.reconciles.len() {
            0 => String::new(),
            reconciles => format!(", {}", count(reconciles, "reconcile")),
        };
        let _ = writeln!(out, "{}: {}{reconciles}; {found}", self.file, count(self.flows.len(), "flow"));
        out
    }
}

impl FlowReport {
    fn render(&self, out: &mut String) {
        let _ = writeln!(out, "flow {}: {}", self.flow, self.purpose);
        let _ = writeln!(
            out,
            "  owner    {}\n  source   {}\n  effect   {}",
            self.owner, self.source, self.effect
        );
        let _ = writeln!(out, "  promise  {}: {}", self.promise.delivery, self.promise.because);
        let _ = writeln!(out, "  effects  {}", self.promise.effects_are);
        let rows = self.what_happens_when.iter().map(|row| [row.when.to_owned(), row.then.clone()]);
        table(out, ["what happens when", "then"], rows.collect());
        let rows = self.who_is_told.iter().map(|row| {
            let told = row.shows_in.to_owned();
            [row.reason.clone(), row.verdict.to_owned(), row.budget.clone(), told, row.because.clone()]
        });
        table(out, ["who is told", "then", "budget", "shows in", "because"], rows.collect());
        let _ = writeln!(
            out,
            "  beyond its budget, a reason shows in the exit code (1), /health/working, metrics and log; \
             alerts come later\n"
        );
    }
}

/// Columns as wide as their widest cell; the last is not filled up.
fn table<const N: usize>(out: &mut String, head: [&str; N], rows: Vec<[String; N]>) {
    let mut widths = head.map(|cell| cell.chars().count());
    for row in &rows {
        for (width, cell) in widths.iter_mut().zip(row) {
            *width = (*width).max(cell.chars().count());
        }
    }
    let mut line = |cells: [&str; N]| {
        let mut text = String::from(" ");
        for (cell, width) in cells.iter().zip(widths) {
            let _ = write!(text, " {cell:width$} ");
        }
        let _ = writeln!(out, "{}", text.trim_end());
    };
    line(head);
    for row in &rows {
        line(std::array::from_fn(|index| row[index].as_str()));
    }
    out.push('\n');
}

#[cfg(test)]
mod tests {
    use super::*;
    use expect_test::expect;
    use std::path::Path;

    const TEXT: &str = r#"
[database.shop]
url = "sqlite:shop.db"
[flow.reserve-stock]
owner = "inventory team"
purpose = "takes ordered units out of stock"
source = { file = "orders.ndjson" }
decode = "bytes"
[[flow.reserve-stock.check]]
reason = "bulk_order"
that = "event.bytes < 100"
otherwise = "flag"
at_most = "3% of 1000"
review_by = 2027-06-01
because = "few are larger"
[flow.reserve-stock.apply]
database = "shop"
sql = "DELETE FROM stock"
rows = "any"
"#;

    fn reported(text: &str, today: jiff::civil::Date) -> ValidateReport {
        report_on(&Config::from_text(text, Path::new("recount.toml")).unwrap(), today)
    }

    #[test]
    fn promise_failures_and_reasons_are_told() {
        expect![[r#"
            flow reserve-stock: takes ordered units out of stock
              owner    inventory team
              source   the file orders.ndjson
              effect   SQL in shop, 1 statement
              promise  exactly once: effects, position and decisions are committed in one transaction of shop; a line that is read again is known by its position
              effects  counted
              what happens when           then
              database away               waits 500ms, doubling up to 30s, and tries again; no event is blamed (effects_away)
              database locked             the batch again; no attempt is counted
              a statement fails           by the event's data: dead letter statement_failed, nothing of it is left; else as database away
              database restored           the flow refuses to start, and names the range (effects_rolled_back)
              bad bytes                   dead letter decode_failed, kept up to 1MiB; the others go on
              same id again               same payload: skipped, duplicate; another payload: dead letter id_reused; within 100000 events
              too many not applied        above 50% of the last 1000, budgets of `any` left out: the flow pauses until `recount resume` (breaker_open)
              ledger can't be written     the flow takes no more (ledger_full); nothing is settled that isn't recorded
              file cut short or replaced  the flow stops and asks (source_changed); `--again` reads it as a new one
              the same file again         what is decided is known; only new lines are taken
              SIGTERM                     takes no more, finishes what is under way, records and settles it, ends
              the process is killed       what was committed is recorded from the effect's own record; the rest is done again
              an event kills the process  after an unclean stop the last batch runs one by one; at the third stop in a row alone: dead letter killed_the_process

              who is told         then         budget      shows in                                        because
              bulk_order          flag         3% of 1000  ledger, metric                                  few are larger
              decode_failed       dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  the bytes are not what the flow decodes
              payload_too_large   dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  the payload is larger than the flow takes
              check_unevaluable   dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  an expression could not be evaluated for this event
              id_reused           dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  the id was seen before with another payload
              statement_failed    dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  the database refused a statement for the event's sake
              rows_unexpected     dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  a statement changed another number of rows than declared, and no otherwise matches
              killed_the_process  dead-letter  1% of 1000  ledger (kept whole), metric, log, dead-letters  the event was alone under way at three unclean stops in a row
              duplicate           skip         1% of 1000  ledger, metric, log                             the same id with the same payload was decided before
              accepted            skip         any         ledger, metric, log                             an operator accepted that the event is not applied

              beyond its budget, a reason shows in the exit code (1), /health/working, metrics and log; alerts come later

            recount.toml: 1 flow; no fault
        "#]].assert_eq(&reported(TEXT, jiff::civil::date(2027, 6, 1)).render());
    }

    #[test]
    fn an_overdue_review_is_a_warning_with_its_line() {
        let report = reported(TEXT, jiff::civil::date(2027, 6, 2));
        expect![[r#"
            warning: bulk_order was to be reviewed by 2027-06-01
              --> recount.toml:10:1
               |
            10 | reason = "bulk_order"
               | ^^^^^^^^^^^^^^^^^^^^^
               = help: ask the inventory team: does it still hold? then set a new date
        "#]]
        .assert_eq(&report.warnings[0].render("warning"));
    }

    #[test]
    fn the_promise_follows_from_effect_and_source() {
        let http = "[flow.reserve-stock.apply]\nhttp = \"http://localhost:8000/reserve\"";
        let (head, _) = TEXT.split_once("[flow.reserve-stock.apply]").unwrap();
        for (text, expected) in [
            (TEXT.to_owned(), "exactly once, counted"),
            (format!("{TEXT}effects = \"none\""), "exactly once, commit-attested"),
            (format!("{head}{http}"), "at least once, a claim of the handler"),
            (head.to_owned(), "decided exactly once, not declared"),
        ] {
            let report = reported(&text, jiff::civil::date(2026, 1, 1));
            let promise = &report.flows[0].promise;
            assert_eq!(format!("{}, {}", promise.delivery, promise.effects_are), expected);
            assert!(report.is_valid());
            assert_eq!(report.json()["flows"][0]["promise"]["delivery"], promise.delivery);
        }
    }
}
