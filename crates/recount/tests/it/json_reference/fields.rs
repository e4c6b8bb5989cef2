//! What each field of each command's JSON means; `docs/json-reference.md` is written from this.

/// One command's fields.
pub struct Page {
    /// The command.
    pub command: &'static str,
    /// What it prints.
    pub intro: &'static str,
    /// Path and sentence.
    pub fields: Vec<Field>,
}

type Field = (&'static str, &'static str);

pub const HEAD: &str = "\
# JSON reference

<!-- Generated from crates/recount/tests/it/json_reference/fields.rs: change it there, then run
     RECOUNT_WRITE_DOCS=1 cargo test -p recount --test it json_reference -->

What each command prints with `--json`: one object on standard output, `ledger export` one a line. A test runs every
command and fails where a field that occurs isn't listed here, or one that is listed occurs no more.

`[]` stands for each element of a list, `.*` for whatever is below. A field that has nothing to say is `null`, an
empty list stays empty; fields are added without notice, and the version grows when one changes its meaning or goes.
Instants are RFC 3339 in UTC, positions `flow/partition/offset`. A command that can't do what was asked prints a
sentence to standard error instead, and ends with 2 or 4 (see `recount --help`).
";

const VERSION: Field = ("recount", "The version of this form: 1.");
const COMMAND: Field = ("command", "The command that printed it.");

const REPORT: &[Field] = &[
    VERSION,
    COMMAND,
    ("at", "When the books were counted."),
    (
        "exit_code",
        "The process's exit code: 0 well, 1 not well, 3 unprovable, 4 the ledger can't be reached.",
    ),
    ("ledger_error", "Why the ledger could not be read to the end."),
    ("flows", "Each flow that was asked about."),
    ("flows[].flow", "Its name."),
    ("flows[].decisions", "Where they come from: `ran`, `reported` (by the consumer) or `expected` (of an observed consumer: what ought to have happened)."),
    ("flows[].status", "The worst of its statements: `balanced`, `open`, `imbalanced` or `unprovable`."),
    ("flows[].working", "Whether it works; `null` where that can't be told."),
    ("flows[].not_working", "Sentences that say why it is not working."),
    ("flows[].not_known", "What would have to be known to say that it works."),
    ("flows[].last_decided_at", "When it last decided something."),
    (
        "flows[].published_known",
        "Whether every partition's published side was counted; else `published` is only what has a fate.",
    ),
    (
        "flows[].books",
        "The law over all partitions: `published` is the sum of the others, and `unexplained` the rest.",
    ),
    ("flows[].books.published", "Positions that the source holds or held."),
    ("flows[].books.applied", "Events whose current verdict is `applied`."),
    ("flows[].books.skipped", "Events whose current verdict is `skipped`."),
    ("flows[].books.dead-lettered", "Events whose current verdict is `dead-lettered`."),
    ("flows[].books.lost", "Positions that never reached the flow."),
    ("flows[].books.not-an-event", "Positions that carry no event."),
    ("flows[].books.unrecorded", "Positions that were consumed without a record."),
    ("flows[].books.open", "Positions without a fate that are inside of their allowed time."),
    ("flows[].books.unexplained", "What is left over. Anything but 0 is imbalanced."),
    ("flows[].books.corrections", "Decisions that replaced an earlier one."),
    ("flows[].books.share_skipped_percent", "Skipped among the decided."),
    ("flows[].books.share_dead-lettered_percent", "Dead letters among the decided."),
    ("flows[].books.reasons", "Each reason and flag that current decisions have."),
    ("flows[].books.reasons[].verdict", "`skipped`, `dead-lettered` or `flagged`."),
    ("flows[].books.reasons[].reason", "Its code."),
    ("flows[].books.reasons[].events", "How many."),
    ("flows[].partitions", "Each partition's books."),
    ("flows[].partitions[].partition", "Its name."),
    ("flows[].partitions[].source", "The incarnation of the source."),
    ("flows[].partitions[].status", "What its books come to."),
    (
        "flows[].partitions[].first",
        "The first offset that the source still has; `null` where it can't be asked.",
    ),
    ("flows[].partitions[].end", "The offset after its last."),
    ("flows[].partitions[].published", "As above, of this partition; so are the next eight."),
    ("flows[].partitions[].applied", "As above."),
    ("flows[].partitions[].skipped", "As above."),
    ("flows[].partitions[].dead-lettered", "As above."),
    ("flows[].partitions[].lost", "As above."),
    ("flows[].partitions[].not-an-event", "As above."),
    ("flows[].partitions[].unrecorded", "As above."),
    ("flows[].partitions[].open", "As above."),
    ("flows[].partitions[].unexplained", "As above."),
    ("flows[].statements", "Each equation of the books."),
    (
        "flows[].statements[].equation",
        "`E1` source = ledger, `E2` ledger = effects, `E3` effects = business.",
    ),
    ("flows[].statements[].name", "What it says; of `E3` the name of the `[[reconcile]]`."),
    ("flows[].statements[].status", "What it comes to."),
    ("flows[].statements[].strength", "How much it can see: `counted`, `identified`, `commit-attested` …"),
    ("flows[].statements[].left", "One side, where both could be counted."),
    ("flows[].statements[].left.what", "What was counted."),
    ("flows[].statements[].left.number", "The number, as text, since sums are decimal."),
    ("flows[].statements[].right", "The other side."),
    ("flows[].statements[].right.what", "What was counted."),
    ("flows[].statements[].right.number", "The number."),
    ("flows[].statements[].sentence", "The statement for people."),
    ("flows[].statements[].findings", "What is not as it should be."),
    ("flows[].statements[].look", "Commands to look further with."),
    ("flows[].budgets", "Each declared reason's budget."),
    ("flows[].budgets[].reason", "The reason."),
    ("flows[].budgets[].budget", "The budget as declared."),
    ("flows[].budgets[].status", "`within`, `any`, or how it is exceeded or was accepted."),
    (
        "flows[].budgets[].allowed",
        "How many events it allows in its window; `null` where that is no number of events.",
    ),
    ("flows[].budgets[].now", "How many the window holds now."),
    ("flows[].budgets[].among", "Among how many."),
    ("flows[].budgets[].worst", "The most that a window ever held, since it was last accepted."),
    ("flows[].budgets[].exceeded", "Whether it was exceeded and nobody accepted that."),
    ("flows[].budgets[].exceeded_at_position", "The event that exceeded it first."),
    ("flows[].budgets[].exceeded_at", "When that was decided."),
    ("flows[].budgets[].accepted_at", "When an operator resumed the flow, which accepts what was exceeded."),
];

const FINDINGS: &[Field] = &[
    ("flows[].statements[].findings[].code", "A built-in code; `recount explain` has its page."),
    ("flows[].statements[].findings[].sentence", "One sentence."),
    ("flows[].statements[].findings[].names", "Positions, ids or groups, at most as many as `--names` says."),
    ("flows[].statements[].findings[].count", "How many there are in all."),
    ("flows[].statements[].findings[].since", "Since when, where that is known."),
];

const RUN: &[Field] = &[
    ("took_ms", "How long the run took, in milliseconds."),
    ("flows[].end", "`drained`, `shut down` or `stopped`."),
    ("flows[].stops", "Why it stopped."),
    ("flows[].stops[].reason", "A built-in code."),
    ("flows[].stops[].sentence", "What was seen and what to do next."),
    ("flows[].decided_now", "Decisions of this run."),
    ("flows[].decided_before", "Positions that had been decided before."),
    ("flows[].attempts", "Attempts at effects in this run."),
    ("flows[].batches", "Batches committed in this run."),
];

const VALIDATE: &[Field] = &[
    VERSION,
    COMMAND,
    ("valid", "Whether the config can be run."),
    (
        "file",
        "The file; this and what follows, but for faults and warnings, only where the text could be read.",
    ),
    ("hash", "The hash of the config and the files it names, as the ledger keeps it."),
    ("faults", "What keeps it from being used, sorted by line."),
    ("faults[].file", "The file."),
    ("faults[].line", "The line, from 1; 0 where it is the file as a whole."),
    ("faults[].column", "The column in characters, from 1."),
    ("faults[].key", "The dotted key that it is about."),
    ("faults[].message", "What is wrong."),
    ("faults[].write_instead", "What to write instead, where that can be said."),
    ("warnings", "What doesn't keep it from being used."),
    ("warnings[].file", "As with faults."),
    ("warnings[].line", "As with faults."),
    ("warnings[].column", "As with faults."),
    ("warnings[].key", "As with faults."),
    ("warnings[].message", "As with faults."),
    ("warnings[].write_instead", "As with faults."),
    ("flows", "Each flow."),
    ("flows[].flow", "Its name."),
    ("flows[].owner", "Who answers for it."),
    ("flows[].purpose", "What it is for."),
    ("flows[].source", "Where its events come from."),
    ("flows[].effect", "Where they go."),
    ("flows[].statements", "What the database says of the statements."),
    ("flows[].promise", "What is promised of delivery."),
    ("flows[].promise.delivery", "`exactly once`, `at least once` …"),
    ("flows[].promise.because", "Why so."),
    ("flows[].promise.effects_are", "Whether effects are counted or only attested."),
    ("flows[].what_happens_when", "The table of that name."),
    ("flows[].what_happens_when[].when", "What may happen."),
    ("flows[].what_happens_when[].then", "What the flow does then."),
    ("flows[].who_is_told", "Each reason that the flow can give."),
    ("flows[].who_is_told[].reason", "Its code."),
    ("flows[].who_is_told[].verdict", "The verdict that it comes with."),
    ("flows[].who_is_told[].budget", "Its budget."),
    ("flows[].who_is_told[].because", "Why, in one sentence."),
    ("flows[].who_is_told[].shows_in", "Where it shows."),
    ("flows[].who_is_told[].beyond_budget", "What happens beyond its budget."),
    ("flows[].who_is_told[].line", "The line that declares it; 0 for a built-in one."),
    ("reconciles", "The names of the reconciles."),
];

const EXPLAIN_ALL: &[Field] = &[
    VERSION,
    COMMAND,
    ("built_in", "Every built-in reason and finding."),
    ("built_in[].reason", "Its code."),
    ("built_in[].used_for", "What it is given for: a verdict, a finding …"),
    ("built_in[].meaning", "What it means."),
    ("declared", "Every reason that the config of `-c` declares."),
    ("declared[].reason", "Its code."),
    ("declared[].flow", "The flow."),
    ("declared[].verdict", "The verdict that it comes with."),
    ("declared[].because", "Why, in one sentence."),
];

const EXPLAIN: &[Field] = &[
    VERSION,
    COMMAND,
    ("reason", "The code that was asked about."),
    ("built_in", "Whether it is a built-in one."),
    ("used_for", "What a built-in one is given for."),
    ("meaning", "What a built-in one means."),
    ("page", "The page: what happened, likely causes, the next step; Markdown."),
    ("declared", "Where the config of `-c` declares it, or what it says of a built-in one."),
    ("declared[].flow", "The flow."),
    ("declared[].owner", "Who answers for the flow."),
    ("declared[].verdict", "The verdict that it comes with."),
    ("declared[].budget", "Its budget."),
    ("declared[].because", "Why, in one sentence."),
    ("declared[].given_by", "What gives it: a check, a statement, a handler …"),
    ("declared[].rule", "The rule as written, where there is one."),
    ("declared[].review_by", "When somebody should look at it again."),
    ("declared[].file", "The config."),
    ("declared[].line", "The line."),
];

const PUBLISH: &[Field] = &[
    VERSION,
    COMMAND,
    ("flow", "The flow."),
    ("receipt", "Where the events stand in the flow's log."),
    ("receipt.from", "The first offset."),
    ("receipt.to", "The offset after the last."),
    ("receipt.events", "How many events."),
];

const OPERATE: &[Field] = &[VERSION, COMMAND, ("flow", "The flow."), ("what", "`paused` or `resumed`.")];

const STORY: &[Field] = &[
    VERSION,
    COMMAND,
    ("asked", "The key, id or position that was asked about."),
    ("summary", "The story in one sentence."),
    ("events", "How many events it is about."),
    ("more", "How many decisions were left out."),
    ("entries", "What happened, in order. `kind` says which fields an entry has."),
    ("entries[].kind", "`decision`, `applied` (several in a row), `config` or `journal`."),
    ("entries[].at", "When it was decided or began."),
    ("entries[].sentence", "The entry for people."),
    ("entries[].until", "`applied`: when the last of them was decided."),
    ("entries[].count", "`applied`: how many."),
    ("entries[].first", "`applied`: the position of the first."),
    ("entries[].last", "`applied`: the position of the last."),
    ("entries[].config", "`decision`, `config`: the version of the config."),
    ("entries[].ordinal", "`journal`: its number."),
    ("entries[].detail", "`journal`: who, why, and what else was recorded."),
    ("entries[].detail.*", "`journal`: differs by entry; an operator's has `by` and `because`."),
    ("entries[].position", "`decision`: the position."),
    ("entries[].source", "`decision`: the incarnation of the source."),
    ("entries[].event_id", "`decision`: the event's id."),
    ("entries[].key", "`decision`: the event's key."),
    ("entries[].verdict", "`decision`: `applied`, `skipped` or `dead-lettered`."),
    ("entries[].reason", "`decision`: the reason's code; `null` for applied."),
    ("entries[].flags", "`decision`: assumptions that it broke."),
    ("entries[].attempt", "`decision`: which attempt came to it."),
    ("entries[].attempts", "`decision`: the attempts before, where a dead letter keeps them."),
    ("entries[].attempts[].attempt", "Its number."),
    ("entries[].attempts[].at", "When."),
    ("entries[].attempts[].found", "What was found."),
    ("entries[].evidence", "`decision`: what checks and effects found."),
    ("entries[].evidence.*", "Differs by reason."),
    ("entries[].origin", "`decision`: `ran`, `reported` or `expected`."),
    ("entries[].event_time", "`decision`: when the event happened."),
    ("entries[].taken_at", "`decision`: when it was taken from the source."),
    ("entries[].persisted_at", "`decision`: when its record was durable."),
    ("entries[].current", "`decision`: false where a later one replaced it."),
    ("entries[].replay", "`decision`: the replay that made it."),
    ("entries[].replaced", "`decision`: what the decision that it replaced was."),
    ("entries[].replaced_by", "`decision`: what replaced it."),
];

const LETTERS: &[Field] = &[
    VERSION,
    COMMAND,
    ("dead-lettered", "How many there are, whatever `--limit` says."),
    ("by_reason", "How many by flow and reason."),
    ("by_reason[].flow", "The flow."),
    ("by_reason[].reason", "The reason's code."),
    ("by_reason[].dead-lettered", "How many."),
    ("dead_letters", "The newest, as many as `--limit` allows, newest last."),
    ("dead_letters[].position", "The position."),
    ("dead_letters[].source", "The incarnation of the source."),
    ("dead_letters[].flow", "The flow."),
    ("dead_letters[].event_id", "The event's id."),
    ("dead_letters[].key", "The event's key."),
    ("dead_letters[].reason", "The reason's code."),
    ("dead_letters[].sentence", "The reason in words."),
    ("dead_letters[].decided_at", "When it was decided."),
    ("dead_letters[].event_time", "When the event happened."),
    ("dead_letters[].attempt", "Which attempt came to it."),
    ("dead_letters[].config", "The version of the config."),
    ("dead_letters[].flags", "Assumptions that it broke."),
    ("dead_letters[].current", "False where a later decision replaced it."),
];

const LETTER: &[Field] = &[
    VERSION,
    COMMAND,
    ("position", "The position."),
    ("source", "The incarnation of the source."),
    ("flow", "The flow."),
    ("event_id", "The event's id."),
    ("key", "The event's key."),
    ("reason", "The reason's code."),
    ("sentence", "The reason in words."),
    ("decided_at", "When it was decided."),
    ("event_time", "When the event happened."),
    ("attempt", "Which attempt came to it."),
    ("config", "The version of the config."),
    ("flags", "Assumptions that it broke."),
    ("current", "False where a later decision replaced it."),
    ("evidence", "What checks and effects found."),
    ("evidence.*", "Differs by reason."),
    ("attempts", "Every attempt."),
    ("attempts[].attempt", "Its number."),
    ("attempts[].at", "When."),
    ("attempts[].found", "What was found."),
    ("headers", "The delivery's headers; credentials are masked."),
    ("headers[].name", "The name."),
    ("headers[].value", "The value."),
    ("payload", "The payload with what is secret masked: JSON as it is, else text."),
    ("payload.*", "The event's own fields."),
    ("payload_bytes", "How long the payload was; more than is kept where it was too large."),
    ("next", "Commands that lead further."),
];

const REPLAY_DRY: &[Field] = &[
    VERSION,
    COMMAND,
    ("dry_run", "True."),
    ("selected", "What would be decided anew, by verdict and reason as they stand."),
    ("selected.*", "`events`: how many; `can_be_had`: of how many the bytes are still there."),
];

const REPLAY: &[Field] = &[
    VERSION,
    COMMAND,
    ("replay_id", "The replay; the new decisions name it."),
    ("receipt", "What it came to."),
    ("receipt.decided", "New decisions by verdict and reason."),
    ("receipt.decided.*", "How many."),
    ("receipt.already", "Events that this replay had decided before."),
    ("receipt.gone", "Events whose bytes can't be had any more: left as they are."),
    (
        "receipt.left",
        "Events left as they are: one with the same id was applied, waits, or was replayed first.",
    ),
];

const EXPORT: &[Field] = &[
    ("version", "The version of a record: 1."),
    ("position", "The position."),
    ("flow", "The flow."),
    ("source", "The incarnation of the source."),
    ("partition", "The partition."),
    ("offset", "The offset."),
    ("event_id", "The event's id."),
    ("key", "The event's key."),
    ("verdict", "`applied`, `skipped` or `dead-lettered`."),
    ("reason", "The reason's code; `null` for applied."),
    ("sentence", "The reason in words."),
    ("flags", "Assumptions that it broke."),
    ("attempt", "Which attempt came to it."),
    ("event_time", "When the event happened."),
    ("decided_at", "When it was decided."),
    ("persisted_at", "When its record was durable."),
    ("config", "The version of the config."),
    ("origin", "`ran`, `reported` or `expected`."),
    ("epoch", "Which owner of the partition decided it."),
    ("seq", "The batch of the partition."),
    ("corrects_seq", "The batch of the decision that it replaced."),
    ("current", "False where a later decision replaced it; such ones come with `--superseded`."),
    ("received", "Whether it counts as received in a reconcile: decoded, and no duplicate."),
    ("payload_hash", "The hash of id and payload, hexadecimal."),
    ("evidence", "What checks and effects found."),
    ("evidence.*", "Differs by reason."),
    (
        "measures",
        "What each reconcile of the flow sums, in the order of the config; `null` where it has nothing.",
    ),
    ("measures[].amount", "The amount, as text, since it is decimal."),
    ("measures[].group", "The group, where the reconcile has `by` and that is not the flow's `key`."),
];

const RECOVER: &[Field] = &[
    VERSION,
    COMMAND,
    ("flows", "Each flow of the config."),
    ("flows[].flow", "Its name."),
    ("flows[].mended", "0 where there was nothing to mend."),
    ("flows[].receipt", "What mending came to."),
    ("flows[].receipt.decided", "New decisions by verdict and reason."),
    ("flows[].receipt.decided.*", "How many."),
    ("flows[].receipt.already", "Events that this recovery had decided before."),
    ("flows[].receipt.gone", "Events whose bytes can't be had any more; then nothing was done."),
    ("flows[].unmended", "Decisions whose effect is still gone; 0 ends the recovery."),
    ("flows[].receipt.left", "Always 0: recovery leaves none for another's sake."),
];

const FORGET: &[Field] = &[
    VERSION,
    COMMAND,
    ("forgotten", "What was destroyed."),
    ("forgotten.decisions", "Decisions that no longer tell their key and id."),
    ("forgotten.bodies", "Payloads that are gone."),
];

/// All commands, in the order of `recount --help`.
pub fn pages() -> Vec<Page> {
    let page = |command, intro, fields: &[&[Field]]| Page { command, intro, fields: fields.concat() };
    vec![
        page("recount validate", "What a config comes to, or its faults.", &[VALIDATE]),
        page("recount explain", "All reasons.", &[EXPLAIN_ALL]),
        page("recount explain REASON", "One reason.", &[EXPLAIN]),
        page("recount run", "The summary and the books at the end.", &[REPORT, FINDINGS, RUN]),
        page("recount publish", "The receipt.", &[PUBLISH]),
        page("recount pause, recount resume", "What was recorded.", &[OPERATE]),
        page("recount story", "What was decided about a key, an id or a position.", &[STORY]),
        page("recount audit", "The books, counted again.", &[REPORT, FINDINGS]),
        page("recount dead-letters list", "Dead letters.", &[LETTERS]),
        page("recount dead-letters show", "One dead letter whole.", &[LETTER]),
        page("recount replay --dry-run", "What a replay would decide anew.", &[REPLAY_DRY]),
        page("recount replay", "The receipt of a replay.", &[REPLAY]),
        page("recount ledger export", "One decision a line; always JSON, unless `--form csv`.", &[EXPORT]),
        page("recount ledger recover", "What mending came to.", &[RECOVER]),
        page("recount ledger forget", "What was destroyed.", &[FORGET]),
    ]
}
