//! `recount validate`: what a valid config promises, what happens when things fail, and who is told what.

mod capabilities;
mod databases;
mod happens;
mod ledger;
mod prepare;
mod promise;

use crate::cli::ValidateArgs;
use crate::config::{
    Config, EffectConfig, Fault, FlowConfig, ReasonInfo, ReasonVerdict, SourceConfig, count,
};
use crate::exit::{Exit, Failure, Outcome};
use crate::explain::verdict_word;
use happens::happens;
use promise::promise;
use recount_checks::RuleFault;
use recount_model::BudgetLimit;
use serde::Serialize;
use std::fmt::Write as _;

/// What `recount validate` says of a config that can be used.
#[derive(Debug, Clone, Serialize)]
pub struct ValidateReport {
    recount: u32,
    command: &'static str,
    valid: bool,
    file: String,
    hash: String,
    faults: Vec<Fault>,
    warnings: Vec<Fault>,
    /// Of a ledger in a database: where it is, and what its server says.
    ledger: Vec<String>,
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
    /// What the source declares; none where this build doesn't have it.
    capabilities: Option<capabilities::SourceCan>,
    effect: String,
    /// What the database says of the statements; none where there are none.
    statements: Option<String>,
    /// Of a PostgreSQL server that was asked: what it is and how it is set, and whether Recount's tables are there.
    server: Vec<String>,
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
    let asked_ledger = ledger::ask(config);
    warnings.extend(asked_ledger.warnings);
    let mut faults = Vec::new();
    let mut flows = Vec::new();
    for flow in &config.flows {
        let overdue = flow.reasons.iter().filter(|reason| reason.review_by.is_some_and(|date| date < today));
        warnings.extend(overdue.map(|reason| config.review_overdue(flow, reason)));
        warnings.extend(missing_source(config, flow));
        let asked = databases::ask(config, flow);
        faults.extend(asked.faults);
        warnings.extend(asked.warnings);
        flows.push(flow_report(config, flow, asked.statements, asked.server));
    }
    for list in [&mut faults, &mut warnings] {
        list.sort_by_key(|fault| (fault.line, fault.column));
    }
    ValidateReport {
        recount: 1,
        command: "validate",
        valid: faults.is_empty(),
        file: config.path.display().to_string(),
        hash: config.hash(),
        faults,
        warnings,
        ledger: asked_ledger.said,
        flows,
        reconciles: config.reconciles.iter().map(|reconcile| reconcile.name.clone()).collect(),
    }
}

/// The command.
///
/// # Errors
/// A config with faults is a usage error, and all of them are its message.
pub fn command(args: &ValidateArgs) -> Outcome {
    let config = match Config::load(&args.config.config) {
        Ok(config) => config,
        Err(faults) if args.json => {
            println!("{}", faults.json());
            return Ok(Exit::Usage);
        }
        Err(faults) => return Err(Failure::usage(faults.render())),
    };
    if args.prepare {
        return prepare::command(&config, args.yes);
    }
    let report = report(&config);
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", report.render());
    }
    Ok(if report.is_valid() { Exit::Well } else { Exit::Usage })
}

/// A file or topic that isn't there is no fault: it may come. A run without it says so.
fn missing_source(config: &Config, flow: &FlowConfig) -> Option<Fault> {
    let message = match &flow.source {
        SourceConfig::File { path, follow: false } => {
            let is_pattern = path.to_string_lossy().contains(['*', '?', '[']);
            let missing = !is_pattern && !path.exists();
            missing.then(|| {
                format!("the file {} does not exist (yet); a run would stop and say so", path.display())
            })
        }
        #[cfg(feature = "kafka")]
        SourceConfig::Kafka { .. } => {
            let asked = crate::wiring::audit::source_witness(config, flow, &[]).partitions();
            asked.err().map(|why| format!("{why}; a run would wait until it can be read"))
        }
        _ => None,
    }?;
    Some(config.fault_at(&flow.spec.flow, &RuleFault { rule: "source".to_owned(), message }))
}

fn flow_report(
    config: &Config,
    flow: &FlowConfig,
    statements: Option<String>,
    server: Vec<String>,
) -> FlowReport {
    FlowReport {
        flow: flow.spec.flow.to_string(),
        owner: flow.spec.owner.clone(),
        purpose: flow.spec.purpose.clone(),
        source: source_text(config, flow),
        capabilities: capabilities::of(&flow.source),
        effect: effect_text(&flow.effect),
        statements,
        server,
        promise: promise(flow),
        what_happens_when: happens(flow, config.ledger.database.is_some()),
        who_is_told: flow.reasons.iter().map(told).collect(),
    }
}

fn source_text(config: &Config, flow: &FlowConfig) -> String {
    match &flow.source {
        SourceConfig::File { path, follow: true } => format!("the file {}, followed", path.display()),
        SourceConfig::File { path, follow: false } => format!("the file {}", path.display()),
        SourceConfig::Stdin => "standard input".to_owned(),
        SourceConfig::Http { path } => format!("requests to {path}"),
        SourceConfig::Kafka { broker, topic, observed, .. } => {
            let group = observed.as_ref().map(|observed| observed.group.as_str());
            let beside = group.map(|group| format!(", beside the group {group}")).unwrap_or_default();
            #[cfg(feature = "kafka")]
            let shared = crate::wiring::sharing(config, flow);
            #[cfg(not(feature = "kafka"))]
            let shared: Option<String> = None.filter(|_: &String| config.brokers.is_empty());
            let shared = shared.map(|shared| format!(", {shared}")).unwrap_or_default();
            format!("the topic {topic} on {broker}{beside}{shared}")
        }
    }
}

fn effect_text(effect: &EffectConfig) -> String {
    match effect {
        EffectConfig::Sql { database, routes, .. } => {
            let statements: usize = routes.iter().map(|route| route.statements.len()).sum();
            format!("SQL in {database}, {}", count(statements, "statement"))
        }
        EffectConfig::Handler { database, name, .. } => format!("the Rust handler {name} in {database}"),
        EffectConfig::Http { routes, .. } => {
            let urls: Vec<&str> = routes.iter().map(|route| route.url.as_str()).collect();
            format!("the handler {}", urls.join(", "))
        }
        EffectConfig::Watched { database: Some(database), .. } => {
            format!("another consumer's, seen in {database}; Recount changes nothing there")
        }
        EffectConfig::Watched { http: Some(http), .. } => {
            format!("another consumer's, counted by {}", http.url)
        }
        EffectConfig::Watched { database: None, .. } => {
            "another consumer's; where it is seen isn't declared".to_owned()
        }
        EffectConfig::None => "none".to_owned(),
    }
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
    /// Whether the config can be used, as far as its databases could be asked.
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
        for fault in &self.faults {
            let _ = writeln!(out, "{}", fault.render("error"));
        }
        for (nth, said) in self.ledger.iter().enumerate() {
            let _ = writeln!(out, "{} {said}", if nth == 0 { "ledger:" } else { "  server  " });
        }
        if !self.ledger.is_empty() {
            out.push('\n');
        }
        for flow in &self.flows {
            flow.render(&mut out);
        }
        let mut found = match self.faults.len() {
            0 => "no fault".to_owned(),
            faults => count(faults, "fault"),
        };
        if !self.warnings.is_empty() {
            let _ = write!(found, ", {}", count(self.warnings.len(), "warning"));
        }
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
        if let Some(statements) = &self.statements {
            let _ = writeln!(out, "  asked    {statements}");
        }
        for told in &self.server {
            let _ = writeln!(out, "  server   {told}");
        }
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
            warning: the file orders.ndjson does not exist (yet); a run would stop and say so
             --> recount.toml:7:10
              |
            7 | source = { file = "orders.ndjson" }
              |          ^^^^^^^^^^^^^^^^^^^^^^^^^^

            warning: the statements could not be looked at: there is no database at shop.db: create it with its tables first, or correct the path
              --> recount.toml:17:12
               |
            17 | database = "shop"
               |            ^^^^^^

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

            recount.toml: 1 flow; no fault, 2 warnings
        "#]].assert_eq(&reported(TEXT, jiff::civil::date(2027, 6, 1)).render());
    }

    #[test]
    fn statements_that_the_database_refuses_are_faults_with_their_lines() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("recount.toml");
        std::fs::write(folder.path().join("orders.ndjson"), "").unwrap();
        let database = rusqlite::Connection::open(folder.path().join("shop.db")).unwrap();
        database.execute_batch("CREATE TABLE stock (sku TEXT PRIMARY KEY)").unwrap();
        let asked =
            |text: &str| report_on(&Config::from_text(text, &path).unwrap(), jiff::civil::date(2026, 1, 1));
        let right = asked(TEXT);
        assert!(right.is_valid() && right.warnings.is_empty(), "{}", right.render());
        assert!(
            right.render().contains("  asked    shop.db has what the statements name"),
            "{}",
            right.render()
        );
        let wrong = asked(&TEXT.replace("FROM stock", "FROM stok"));
        assert!(!wrong.is_valid());
        assert_eq!((wrong.faults.len(), wrong.faults[0].line), (1, 18));
        assert!(wrong.faults[0].message.contains("stok"), "{}", wrong.faults[0].message);
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
        .assert_eq(&report.warnings.iter().find(|w| w.line == 10).unwrap().render("warning"));
    }

    #[test]
    fn the_promise_follows_from_effect_and_source() {
        let http = "[flow.reserve-stock.apply]\nhttp = \"http://localhost:8000/reserve\"";
        let (head, _) = TEXT.split_once("[flow.reserve-stock.apply]").unwrap();
        for (text, expected) in [
            (TEXT.to_owned(), "exactly once, counted"),
            (format!("{TEXT}effects = \"none\""), "exactly once, commit-attested"),
            (format!("{head}{http}"), "at least once, a claim of the handler"),
            (
                format!("{head}[flow.reserve-stock.apply]\nhandler = \"reserve\"\ndatabase = \"shop\""),
                "exactly once, counted",
            ),
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
