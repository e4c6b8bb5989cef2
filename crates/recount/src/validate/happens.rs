//! The table *what happens when*, of one flow.

use super::Happens;
use crate::config::{EffectConfig, FlowConfig, FlowMode, ObservedGroup, SourceConfig, size_text};
use recount_engine::BreakerAction;
use recount_model::budget::duration_text;
use recount_model::decide::AfterLast;

/// Every kind of trouble, and what the flow does about it.
pub(super) fn happens(flow: &FlowConfig, is_shared: bool) -> Vec<Happens> {
    let mut rows = effect_happens(flow);
    let spec = &flow.spec;
    let mut add = |when: &'static str, then: String| rows.push(Happens { when, then });
    if flow.mode == FlowMode::Report {
        let then = "what the consumer reported stands; a repeated event counts once among the received";
        add("bad bytes, same id again", then.to_owned());
    } else {
        add(
            "bad bytes",
            format!(
                "dead letter decode_failed, kept up to {}; the others go on",
                size_text(spec.take.payload_bytes_max as u64)
            ),
        );
        add("same id again", duplicates(spec.dedupe_events));
    }
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
    source_happens(flow, is_shared, &mut rows);
    letters_happen(flow, &mut rows);
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
        EffectConfig::Handler { .. } => vec![
            Happens { when: "database away", then: waits },
            Happens { when: "database locked", then: "the batch again; no attempt is counted".to_owned() },
            Happens {
                when: "handler panics",
                then: "dead letter handler_panicked, nothing of it is left in the database; the others go on"
                    .to_owned(),
            },
            Happens {
                when: "a statement of the handler fails",
                then: "by the event's data: dead letter statement_failed, nothing of it is left; else as database away"
                    .to_owned(),
            },
            Happens {
                when: "handler gives a reason that isn't declared",
                then: "dead letter undeclared_reason, nothing of it is left".to_owned(),
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
        EffectConfig::Watched { within_ms, .. } => watched_happens(flow, *within_ms),
        EffectConfig::None => Vec::new(),
    }
}

/// What is said of a consumer that reports.
fn report_happens(flow: &FlowConfig, within_ms: u64) -> Vec<Happens> {
    if flow.mode != FlowMode::Report {
        return Vec::new();
    }
    let within = duration_text(within_ms);
    let row = |when: &'static str, then: String| Happens { when, then };
    vec![
        row(
            "the consumer goes past an event without a report",
            format!(
                "unrecorded, found as unreported and named by id: at once where it is below `committed`, else {within} \
                 after a later event was reported; not working until somebody accepts it"
            ),
        ),
        row(
            "the consumer stops reporting",
            "everything it did not report is open, and shown as such".to_owned(),
        ),
        row(
            "the consumer reports two verdicts for one event",
            "the first stands, the second is refused in the answer".to_owned(),
        ),
        row(
            "the consumer's verdict contradicts a check",
            "the verdict stands, and the flag contradicts_check is raised".to_owned(),
        ),
    ]
}

/// What is said of a consumer that Recount doesn't run.
fn watched_happens(flow: &FlowConfig, within_ms: u64) -> Vec<Happens> {
    let reported = report_happens(flow, within_ms);
    let Some(watched) = flow.effect.watched() else { return reported };
    let within = duration_text(within_ms);
    let names =
        if watched.id.is_some() { "named by id" } else { "counted: without an id nobody can say which" };
    let row = |when: &'static str, then: String| Happens { when, then };
    let mut rows = vec![
        row(
            "the consumer leaves nothing",
            format!("open for {within}, then not working (expected_effect_missing), {names}"),
        ),
        row(
            "the consumer is slow",
            format!("its effects are open for {within}; afterwards missing, until they are there"),
        ),
    ];
    if watched.id.is_some() {
        rows.push(row(
            "an effect that a check says ought not to be",
            format!("not working (unexpected_effect), {names}"),
        ));
        rows.push(row("an effect stands twice", format!("not working (effects_twice), {names}")));
    }
    rows.push(row(
        "its database is away",
        "unprovable until it is back; Recount reads on, and changes nothing there".to_owned(),
    ));
    if let SourceConfig::Kafka { observed: Some(observed), .. } = &flow.source {
        rows.extend(group_happens(observed));
    }
    rows.extend(reported);
    rows
}

/// What is said of the consumer's group.
fn group_happens(observed: &ObservedGroup) -> Vec<Happens> {
    let (group, window) = (&observed.group, duration_text(observed.window_ms));
    let row = |when: &'static str, then: String| Happens { when, then };
    vec![
        row("the group has not committed an event", "open, however long ago Recount decided it".to_owned()),
        row(
            "the group commits nothing further",
            format!(
                "after {window} with events waiting: not working ({group} is STALL, without members STOP)"
            ),
        ),
        row(
            "the group's offsets are moved",
            "told (offset_moved_outside); what was passed over is missing once its time is over".to_owned(),
        ),
    ]
}

fn source_happens(flow: &FlowConfig, is_shared: bool, rows: &mut Vec<Happens>) {
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
        SourceConfig::Kafka { start, .. } => topic_happens(start.is_some(), is_shared, rows),
    }
}

fn letters_happen(flow: &FlowConfig, rows: &mut Vec<Happens>) {
    let Some(letters) = &flow.letters else { return };
    let mut add = |when: &'static str, then: String| rows.push(Happens { when, then });
    add(
        "an event is dead-lettered",
        format!(
            "the ledger keeps it; then it is sent to the topic {} on {} with {}, at least once",
            letters.topic,
            letters.broker,
            letters.headers.words()
        ),
    );
    add(
        "the dead letters' topic can't be written",
        "events go on, dead letters wait in the ledger and are sent later; beyond a minute the flow is not working"
            .to_owned(),
    );
    add(
        "the dead letters' topic refuses one (too large)",
        "it is told (dead_letter_refused) and counted; the ledger keeps it, and the others go on".to_owned(),
    );
}

fn topic_happens(begins: bool, is_shared: bool, rows: &mut Vec<Happens>) {
    let mut add = |when: &'static str, then: &str| rows.push(Happens { when, then: then.to_owned() });
    add("broker away", "waits until it is back, and goes on; nothing is counted against an event");
    add(
        "topic deleted and made again",
        "the flow stops and asks (source_changed); `--again` reads it as a new one",
    );
    add(
        "retention overtakes the flow",
        "the range is recorded as lost, with its cause, and reading goes on behind it (positions_lost)",
    );
    add(
        "the topic ends before what was decided",
        "the flow stops and asks (source_changed): the cluster lost records, or was restored",
    );
    add(
        "somebody moves the group's offset",
        "it is told (offset_moved_outside), and moves nothing: the flow's own record says where to go on",
    );
    add(
        "an aborted transaction, a marker, a compacted record",
        "not-an-event; which of the three its raw batches say, over TLS or SASL it stays an unexplained gap",
    );
    add("a tombstone (a record without a value)", "an empty payload: with JSON a dead letter, decode_failed");
    if is_shared {
        add(
            "a process joins, leaves, dies or hangs",
            "the group deals its partitions to the others, at once or after the session timeout; what was under way is \
             refused to whoever lost it, and done once",
        );
        add("two processes with one member id", "the earlier stops (partition_taken)");
    } else {
        add("a second process of this flow", "one of the two is fenced by the partition's epoch, and stops");
    }
    if !begins {
        add(
            "first start on a topic that lost its beginning, or with a group that was used",
            "the flow stops and asks where to begin: `start`",
        );
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
