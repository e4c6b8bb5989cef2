//! Metrics as OpenMetrics text. Labels are declared names only, so their number is bounded.

use crate::config::{FlowConfig, ReasonVerdict};
use crate::spans::SpanCounts;
use crate::wiring::letters::LetterStanding;
use recount_engine::FlowCounts;
use recount_model::BookCounts;
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// What the last count of a flow's books came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BookMetric {
    /// The equation: `E1`, `E2` …
    pub book: String,
    /// The law's word.
    pub status: &'static str,
}

/// How the group of an observed consumer stood at the last audit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GroupMetric {
    /// Its name, as the config has it.
    pub group: String,
    /// `OK`, `WARN`, `ERR` or `learning`.
    pub status: &'static str,
    /// Positions between what it has committed and the end.
    pub lag: u64,
    /// Members, where that can be told.
    pub members: Option<u32>,
}

/// The group of a flow's audit as a metric.
pub fn group_metric(flow: &recount_audit::FlowReport) -> Option<GroupMetric> {
    let group = flow.group.as_ref()?;
    Some(GroupMetric {
        group: group.group.clone(),
        status: group.status.of_group(),
        lag: group.lag,
        members: group.members,
    })
}

/// One flow's numbers.
pub struct FlowMetrics<'a> {
    /// Its declaration: every declared reason exists at 0 from the start.
    pub config: &'a FlowConfig,
    /// Counters since the start.
    pub counts: FlowCounts,
    /// Books of the last audit, where there was one.
    pub books: Vec<BookMetric>,
    /// The group of an observed consumer at the last audit.
    pub group: Option<GroupMetric>,
    /// The ledger's counts at the last audit.
    pub book_counts: Option<BookCounts>,
    /// When the last audit was completed, Unix seconds.
    pub audit_completed_s: Option<i64>,
    /// How its dead letters stand that go to a topic.
    pub letters: Option<LetterStanding>,
}

/// The statements of a flow's audit as metrics.
pub fn book_metrics(flow: &recount_audit::FlowReport) -> Vec<BookMetric> {
    let metric = |statement: &recount_audit::Statement| BookMetric {
        book: format!("{} {}", statement.equation.word(), statement.name),
        status: statement.status.word(),
    };
    flow.statements.iter().map(metric).collect()
}

/// Writes the metrics of all flows.
pub fn render(flows: &[FlowMetrics<'_>]) -> String {
    render_with_spans(flows, None)
}

/// The same, with what became of the process's spans, where it makes any.
pub fn render_with_spans(flows: &[FlowMetrics<'_>], spans: Option<SpanCounts>) -> String {
    let mut out = Text::default();
    decisions(&mut out, flows);
    flags_and_attempts(&mut out, flows);
    gauges(&mut out, flows);
    books(&mut out, flows);
    groups(&mut out, flows);
    letters(&mut out, flows);
    modes(&mut out, flows);
    if let Some(SpanCounts { sent, left_out }) = spans {
        out.family("recount_spans_sent", "counter", "Spans that the collector took.");
        out.sample("recount_spans_sent_total", &[], sent);
        out.family(
            "recount_spans_left_out",
            "counter",
            "Spans that were not sent: no room, refused, or nobody there.",
        );
        out.sample("recount_spans_left_out_total", &[], left_out);
    }
    out.0.push_str("# EOF\n");
    out.0
}

#[derive(Default)]
struct Text(String);

impl Text {
    fn family(&mut self, name: &str, kind: &str, help: &str) {
        // Writing to a String can't fail.
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: impl std::fmt::Display) {
        self.0.push_str(name);
        let mut open = '{';
        for (label, text) in labels {
            let escaped = text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{open}{label}=\"{escaped}\"");
            open = ',';
        }
        if open == ',' {
            self.0.push('}');
        }
        let _ = writeln!(self.0, " {value}");
    }
}

fn decisions(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    out.family("recount_decisions", "counter", "Decisions by verdict and reason.");
    for flow in flows {
        let mut all: BTreeMap<(&str, String), u64> = BTreeMap::new();
        all.insert(("applied", String::new()), 0);
        for reason in &flow.config.reasons {
            let verdict = match reason.verdict {
                ReasonVerdict::Skip => "skipped",
                ReasonVerdict::DeadLetter => "dead-lettered",
                ReasonVerdict::Flag | ReasonVerdict::Retry => continue,
            };
            all.insert((verdict, reason.code.to_string()), 0);
        }
        all.extend(
            flow.counts.decisions.iter().map(|((verdict, reason), n)| ((*verdict, reason.clone()), *n)),
        );
        for ((verdict, reason), count) in all {
            let labels = [("flow", flow.name()), ("verdict", verdict), ("reason", reason.as_str())];
            out.sample("recount_decisions_total", &labels, count);
        }
    }
}

fn flags_and_attempts(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    out.family("recount_flags", "counter", "Events that broke an assumption.");
    for flow in flows {
        for reason in flow.config.reasons.iter().filter(|r| r.verdict == ReasonVerdict::Flag) {
            let count = flow.counts.flags.get(reason.code.as_str()).copied().unwrap_or(0);
            out.sample(
                "recount_flags_total",
                &[("flow", flow.name()), ("reason", reason.code.as_str())],
                count,
            );
        }
    }
    out.family("recount_attempts", "counter", "Attempts at effects.");
    for flow in flows {
        out.sample("recount_attempts_total", &[("flow", flow.name())], flow.counts.attempts);
    }
    out.family("recount_retries", "counter", "Attempts that ended in a retry.");
    for flow in flows {
        for (reason, count) in &flow.counts.retries {
            out.sample("recount_retries_total", &[("flow", flow.name()), ("reason", reason)], count);
        }
    }
    out.family("recount_lost_positions", "counter", "Positions that never reached the flow.");
    for flow in flows {
        out.sample("recount_lost_positions_total", &[("flow", flow.name())], flow.counts.lost_positions);
    }
}

fn gauges(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    type Gauge = fn(&FlowCounts) -> u64;
    let sum = |by_partition: &BTreeMap<String, u64>| by_partition.values().sum::<u64>();
    let gauges: [(&str, &str, Gauge); 4] = [
        ("recount_open_events", "Taken from the source and not decided yet.", |c| c.open.values().sum()),
        ("recount_held_events", "Waiting behind a held key.", |c| c.held.values().sum()),
        ("recount_flow_paused", "1 while the flow is paused.", |c| u64::from(c.paused.is_some())),
        ("recount_effects_away", "1 while the database or handler does not work.", |c| {
            u64::from(c.away.is_some())
        }),
    ];
    for (name, help, value) in gauges {
        out.family(name, "gauge", help);
        for flow in flows {
            out.sample(name, &[("flow", flow.name())], value(&flow.counts));
        }
    }
    let now_ms = crate::wiring::now().0;
    out.family("recount_oldest_open_age_seconds", "gauge", "How long ago the oldest open event was taken.");
    for flow in flows {
        let oldest = flow.counts.oldest_open.values().min();
        let age_s = oldest.map_or(0, |taken_at| (now_ms - taken_at.0).max(0) / 1000);
        out.sample("recount_oldest_open_age_seconds", &[("flow", flow.name())], age_s);
    }
    out.family("recount_backlog_events", "gauge", "Known to exist beyond what was taken.");
    for flow in flows {
        out.sample("recount_backlog_events", &[("flow", flow.name())], sum(&flow.counts.backlog));
    }
}

fn modes(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    let help = "1 for who owns the loop; of an observed flow, decisions are what ought to have happened.";
    out.family("recount_flow_mode", "gauge", help);
    for flow in flows {
        let labels = [("flow", flow.name()), ("mode", flow.config.mode.word())];
        out.sample("recount_flow_mode", &labels, 1);
    }
}

/// Nothing is written where no flow observes a group.
fn groups(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    let observed = || flows.iter().filter_map(|flow| Some((flow.name(), flow.group.as_ref()?)));
    if observed().next().is_none() {
        return;
    }
    let help = "1 for how the observed consumer's group stood at the last audit, by Burrow's rules.";
    out.family("recount_group_status", "gauge", help);
    for (flow, group) in observed() {
        for status in ["OK", "WARN", "ERR", "learning"] {
            let labels = [("flow", flow), ("group", group.group.as_str()), ("status", status)];
            out.sample("recount_group_status", &labels, u8::from(status == group.status));
        }
    }
    let help = "Between what the observed consumer's group has committed and the end of the topic.";
    out.family("recount_group_lag_positions", "gauge", help);
    for (flow, group) in observed() {
        out.sample(
            "recount_group_lag_positions",
            &[("flow", flow), ("group", group.group.as_str())],
            group.lag,
        );
    }
    out.family("recount_group_members", "gauge", "Members of the observed consumer's group.");
    for (flow, group) in observed() {
        if let Some(members) = group.members {
            out.sample("recount_group_members", &[("flow", flow), ("group", group.group.as_str())], members);
        }
    }
}

/// Nothing is written where no flow sends its dead letters to a topic. The counters go on over restarts.
fn letters(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    let sent = || flows.iter().filter_map(|flow| Some((flow.name(), flow.letters.as_ref()?)));
    if sent().next().is_none() {
        return;
    }
    type Count = fn(&LetterStanding) -> u64;
    let families: [(&str, &str, &str, Count); 3] = [
        ("recount_dead_letters_waiting", "gauge", "Dead letters that wait for their topic.", |l| l.waiting),
        ("recount_dead_letters_sent", "counter", "Dead letters that their topic took.", |l| l.notes.sent),
        ("recount_dead_letters_refused", "counter", "Dead letters that their topic refused for good.", |l| {
            l.notes.refused
        }),
    ];
    for (name, kind, help, count) in families {
        out.family(name, kind, help);
        let name = if kind == "counter" { format!("{name}_total") } else { name.to_owned() };
        for (flow, letters) in sent() {
            out.sample(&name, &[("flow", flow)], count(letters));
        }
    }
}

fn books(out: &mut Text, flows: &[FlowMetrics<'_>]) {
    out.family("recount_book_status", "gauge", "1 for the status that the last audit found.");
    for flow in flows {
        for book in &flow.books {
            for status in ["balanced", "open", "imbalanced", "unprovable"] {
                let labels = [("flow", flow.name()), ("book", book.book.as_str()), ("status", status)];
                out.sample("recount_book_status", &labels, u8::from(status == book.status));
            }
        }
    }
    out.family("recount_unexplained_positions", "gauge", "Published, and without a fate, at the last audit.");
    for (flow, counts) in flows.iter().filter_map(|f| Some((f, f.book_counts.as_ref()?))) {
        out.sample("recount_unexplained_positions", &[("flow", flow.name())], counts.unexplained());
    }
    out.family("recount_dead_letters", "gauge", "Dead letters at the last audit.");
    for (flow, counts) in flows.iter().filter_map(|f| Some((f, f.book_counts.as_ref()?))) {
        out.sample("recount_dead_letters", &[("flow", flow.name())], counts.dead_lettered);
    }
    out.family("recount_audit_completed_timestamp_seconds", "gauge", "When the last audit was completed.");
    for flow in flows {
        if let Some(seconds) = flow.audit_completed_s {
            out.sample("recount_audit_completed_timestamp_seconds", &[("flow", flow.name())], seconds);
        }
    }
}

impl FlowMetrics<'_> {
    fn name(&self) -> &str {
        self.config.spec.flow.as_str()
    }
}
