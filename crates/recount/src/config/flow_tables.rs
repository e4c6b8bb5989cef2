//! The tables of a flow: described once.

use super::spec::{Kind, TableSpec, default, optional, required, table};

/// One flow.
pub const FLOW: TableSpec = TableSpec {
    header: "[flow.NAME]",
    doc: "One consumer: one source, checks, an effect. The name has lower-case letters, digits, `-` and `_`. In expressions `event` is the decoded payload (a CloudEvent's `data`) and `meta` the delivery: id, key, type, time, headers, partition, offset, taken_at.",
    keys: &[
        required("owner", Kind::Text, "\"inventory team\"", "Who answers for it."),
        required(
            "purpose",
            Kind::Text,
            "\"takes ordered units out of stock\"",
            "What it is for, in one line.",
        ),
        required(
            "source",
            Kind::Table(&SOURCE),
            "{ file = \"orders.ndjson\" }",
            "Where its events come from.",
        ),
        default(
            "mode",
            Kind::Word(&["run", "observe", "report"]),
            "\"run\"",
            "Who owns the loop. `run`: Recount. `observe`: a consumer of yours, as it is; Recount reads the same events, changes nothing, and compares what ought to have happened with the consumer's effects. `report`: a consumer of yours that posts what it decided to `/v1/decisions`.",
        ),
        default(
            "decode",
            Kind::Word(&["json", "text", "bytes", "avro", "protobuf"]),
            "\"json\"",
            "How bytes become an event. `text`: `event` is the string. `bytes`: `event.bytes` is the length. `avro` and `protobuf` come later.",
        ),
        optional(
            "id",
            Kind::Cel,
            "\"event.id\"",
            "The event's id. Without it: the CloudEvent's; where `decode` is not `json`, the position.",
        ),
        optional(
            "type",
            Kind::Cel,
            "\"event.type\"",
            "The event's type (`meta.type`), for plain JSON; a CloudEvent brings its own.",
        ),
        optional(
            "time",
            Kind::Cel,
            "\"event.placed_at\"",
            "When it happened: RFC 3339 text or Unix milliseconds. A CloudEvent brings its own.",
        ),
        optional(
            "key",
            Kind::Cel,
            "\"event.sku\"",
            "Events of one key are applied in order, and wait behind one that is retried. Without it: the delivery's own key, or none.",
        ),
        optional(
            "traceparent",
            Kind::Cel,
            "\"event.trace.traceparent\"",
            "Where the event carries its trace context (W3C `traceparent`), if not in the delivery's header of that name: it is sent on to an `http` handler, and the batch's span links to it (`[tracing]`). Without it: the header, or a CloudEvent's extension of that name.",
        ),
        optional(
            "schema",
            Kind::Path,
            "\"order-placed.schema.json\"",
            "A JSON Schema; what fails it is dead-lettered, `schema_mismatch`. Fields named in expressions are looked up in it.",
        ),
        optional(
            "ignore",
            Kind::Texts("types"),
            "[\"order.viewed\"]",
            "Types (`meta.type`) that are skipped, `not_for_this_flow`.",
        ),
        optional(
            "secret",
            Kind::Texts("paths"),
            "[\"event.customer_id\"]",
            "Fields whose values never reach logs, metrics, pages, evidence or alerts.",
        ),
        optional(
            "expect",
            Kind::Rate,
            "\"1 per 15m\"",
            "At least so many events in that time; a longer silence is not working. Without it nothing is claimed about silence.",
        ),
        default(
            "open_max",
            Kind::Duration,
            "\"5m\"",
            "How long an event may stay undecided before the flow is not working.",
        ),
        optional(
            "at_most",
            Kind::Budgets,
            "{ duplicate = \"5% of 1000\" }",
            "Budgets of built-in reasons, where `1% of 1000` isn't right (`not_for_this_flow` and `accepted` have `any`).",
        ),
        table("check", Kind::Tables(&CHECK), "What must hold, in order."),
        table("apply", Kind::OneOrMore(&APPLY), "The effect; several with `when`."),
        table("retry", Kind::Table(&RETRY), "Trying one event again."),
        table(
            "hold",
            Kind::Table(&HOLD),
            "What may wait behind held keys, in a partition. At the bound the partition stops and says so.",
        ),
        table("batch", Kind::Table(&BATCH), "What one transaction takes; whichever comes first."),
        default(
            "dedupe",
            Kind::WordOrTable(&["exact"], &DEDUPE),
            "{ events = 100000 }",
            "Within what duplicates are found, in the partition. `\"exact\"` (in the flow, for ever) comes later.",
        ),
        default(
            "breaker",
            Kind::WordOrTable(&["pause", "alert"], &BREAKER),
            "\"pause\"",
            "What happens when too many are not applied: the flow pauses until `recount resume`, or it only says so. A table also sets the share.",
        ),
        table(
            "dead_letters",
            Kind::Table(&super::letters::DEAD_LETTERS),
            "A topic that dead letters are sent to, besides the ledger.",
        ),
        table("away", Kind::Table(&AWAY), "Waiting while the database or handler is away."),
        default(
            "payload_max",
            Kind::Size,
            "\"1MiB\"",
            "Larger payloads are dead-lettered, `payload_too_large`, with the bytes up to this limit.",
        ),
        default(
            "depth_max",
            Kind::Integer(1, 127),
            "64",
            "JSON nested deeper is dead-lettered, `decode_failed`.",
        ),
        default(
            "keep_skipped",
            Kind::Size,
            "\"64KiB\"",
            "Payloads of skipped events are kept up to this size, so that they can be replayed; 0 keeps none.",
        ),
        default(
            "ledger_waiting",
            Kind::Integer(1, 1000),
            "8",
            "At most so many committed batches may wait for the ledger; then the flow waits.",
        ),
    ],
};

const SOURCE: TableSpec = TableSpec {
    header: "[flow.NAME.source]",
    doc: "Exactly one of `file`, `http` and `broker`.",
    keys: &[
        optional(
            "file",
            Kind::Path,
            "\"orders.ndjson\"",
            "A file of one event a line; plain, `.gz` or `.zst`. A folder: each file in it is a partition. `-`: standard input, spooled to the embedded log first.",
        ),
        default(
            "follow",
            Kind::Bool,
            "false",
            "Wait for more at the end of the file; a rotated file is read to its end first. Only for plain files.",
        ),
        optional(
            "http",
            Kind::Text,
            "\"/orders\"",
            "A path under which `[server]` takes CloudEvents (structured, binary, batch) and plain JSON. Durable before 202 is answered.",
        ),
        optional(
            "broker",
            Kind::Text,
            "\"main\"",
            "A `[broker.NAME]`; with it a `topic`, in `run` a `group`, and in `observe` the consumer's.",
        ),
        optional(
            "topic",
            Kind::Text,
            "\"orders\"",
            "The broker's topic. One process reads all of its partitions, unless several share a ledger (`[ledger] database`); a topic that is deleted and made again is another source and stops the flow.",
        ),
        optional(
            "group",
            Kind::Text,
            "\"inventory\"",
            "The consumer group in which the position is written, for those who look at its lag. It never decides where the flow reads: the flow's own record does. With `mode = \"observe\"`: the observed consumer's own group, which is only looked at; nothing joins it or commits in its name, and an effect is due `within` after the group was seen past its event.",
        ),
        default(
            "group_window",
            Kind::Duration,
            "\"10m\"",
            "With `mode = \"observe\"` and a `group`: how far back its status looks (`OK`, `WARN`, `ERR`, by Burrow's rules). Longer than the consumer may take from one commit to the next.",
        ),
        optional(
            "member",
            Kind::Text,
            "\"shop-${HOSTNAME}\"",
            "Where processes share a ledger (`[ledger] database`), the topic's partitions are dealt out among them by the consumer group: who this one is there, as a static member. Each process needs another one. `${NAME}` is replaced from the environment. Without it, an id that is made once and kept in the ledger's folder.",
        ),
        optional(
            "start",
            Kind::Start,
            "\"earliest\"",
            "Where the flow begins in a partition of which its record has nothing: `earliest`, `latest`, a time, or an offset (in each partition). What lies before is recorded as not-an-event, with that cause. Without it the flow begins at offset 0, and stops and asks where that is gone already, or where the group has committed something. Of no matter afterwards.",
        ),
    ],
};

const CHECK: TableSpec = TableSpec {
    header: "[[flow.NAME.check]]",
    doc: "Something that must hold. The first that doesn't, and isn't a `flag`, decides.",
    keys: &[
        required(
            "reason",
            Kind::Reason,
            "\"zero_quantity\"",
            "The code given where it doesn't hold: snake_case, once in a flow, not one of the built-in ones.",
        ),
        required(
            "that",
            Kind::Cel,
            "\"event.quantity > 0\"",
            "What must hold. Where it can't be evaluated the event is dead-lettered, `check_unevaluable`.",
        ),
        required(
            "otherwise",
            Kind::Word(&["skip", "dead-letter", "flag"]),
            "\"dead-letter\"",
            "What then. `flag`: it passes and is counted, an assumption.",
        ),
        required(
            "because",
            Kind::Text,
            "\"an order line for nothing takes nothing out of stock\"",
            "Why, in one sentence.",
        ),
        optional(
            "at_most",
            Kind::Budget,
            "\"2% of 1000\"",
            "The budget. Required for `skip` and `flag`; `1% of 1000` for `dead-letter`.",
        ),
        optional("review_by", Kind::Date, "2027-06-01", "When somebody should look at it again."),
    ],
};

const APPLY: TableSpec = TableSpec {
    header: "[flow.NAME.apply]",
    doc: "What is done with an event that passed: SQL in a database, or a handler, over HTTP or in Rust. With `mode = \"observe\"` or `\"report\"` nothing is done: it says where the consumer's effects are seen (`database`, `effects`, `within`). Given several times as `[[flow.NAME.apply]]`, each but the last needs `when`; the first whose `when` holds is taken, and none is `no_route`.",
    keys: &[
        optional("when", Kind::Cel, "\"meta.type == 'order.placed'\"", "Which events it is for."),
        optional(
            "database",
            Kind::Text,
            "\"shop\"",
            "A `[database.NAME]`. All `apply` of a flow have the same.",
        ),
        optional(
            "sql",
            Kind::Texts("SQL statements"),
            "\"UPDATE stock SET on_hand = on_hand - :quantity WHERE sku = :sku\"",
            "One statement or a list, run in order, all or nothing. The transaction is Recount's: no BEGIN, COMMIT, ROLLBACK, `OR ROLLBACK`.",
        ),
        optional(
            "with",
            Kind::Expressions,
            "{ quantity = \"event.quantity\", sku = \"event.sku\" }",
            "The statement's parameters (for a `handler`: `event.params`, in this order). Nothing is bound by magic. One that can't be had is `parameter_missing`.",
        ),
        optional(
            "rows",
            Kind::Rows,
            "1",
            "How many rows each statement must change: a number, `\"1..3\"`, `\"1..\"`, `\"any\"`, or a list, one for each statement. Required with `sql`. Anything else is not applied and leaves nothing behind.",
        ),
        default(
            "effects",
            Kind::WordOrTable(&["recount_effect", "none"], &EFFECTS),
            "\"recount_effect\"",
            "How effects are counted: a row an effect in the same transaction, a query of your own, or not at all (then the books are attested by the commit, not counted). With `mode = \"observe\"` (required) or `\"report\"`: a query of your own.",
        ),
        optional(
            "sqlstates",
            Kind::Texts("SQLSTATEs"),
            "[\"P0002\"]",
            "In PostgreSQL: SQLSTATEs (`\"P0002\"`), or classes by their first two characters, that are the event's fault beside classes 22, 23 and P0001: `statement_failed`. At any other error the flow waits or does the batch again; the classes that only the database can be to blame for are refused here. One with a reason of its own is an `otherwise` with `sqlstates`. SQLite has none: its constraint, mismatch, too-big, overflow and JSON errors are the event's fault as they are.",
        ),
        optional(
            "http",
            Kind::Text,
            "\"http://localhost:8000/reserve\"",
            "A handler. It must answer with a verdict for each event it was sent; one it leaves out is `no_verdict`. One handler a flow.",
        ),
        optional(
            "handler",
            Kind::Text,
            "\"reserve\"",
            "A handler written in Rust, given under this name by the program that runs the flow (the crate `recount`), in a transaction of `database`. The `recount` command itself has none and refuses to run such a flow. One handler a flow.",
        ),
        default(
            "within",
            Kind::Duration,
            "\"30s\"",
            "With `mode = \"observe\"` or `\"report\"`: for so long after Recount has seen an event its effect, or its report, may be missing; until then it is open. Where an observed `group` is named: for so long after the group was seen past it.",
        ),
        default(
            "deadline",
            Kind::Duration,
            "\"10s\"",
            "With `http`: how long the handler has for a batch. Past it the batch is sent again with the same `Idempotency-Key`.",
        ),
        optional(
            "token",
            Kind::Secret,
            "\"${HANDLER_TOKEN}\"",
            "With `http`: bearer token sent to the handler. Beside a consumer of yours: with `effects.http`.",
        ),
        table("reason", Kind::Tables(&HANDLER_REASON), "Reasons that the handler may give."),
        table(
            "otherwise",
            Kind::Tables(&OTHERWISE),
            "What it means when a statement changed another number of rows.",
        ),
    ],
};

const EFFECTS: TableSpec = TableSpec {
    header: "[flow.NAME.apply.effects]",
    doc: "Your own count of effects.",
    keys: &[
        optional(
            "sql",
            Kind::Text,
            "\"SELECT order_id FROM movement\"",
            "Required, unless `http` is given. A query with one row an effect. Beside a consumer of yours: where it records refusals elsewhere, UNION ALL them; where rows are older than the events, leave them out.",
        ),
        optional(
            "id",
            Kind::Text,
            "\"order_id\"",
            "Its column with the event's id; without it effects are only counted.",
        ),
        optional(
            "http",
            Kind::Text,
            "\"http://localhost:8000/movements/count\"",
            "Beside a consumer of yours, instead of `database` and `sql`: an address that answers a GET with JSON that holds the number of effects. `token` of the `apply` is sent along.",
        ),
        optional(
            "count",
            Kind::Text,
            "\"/total\"",
            "With `http`: where the number stands in the answer, as a JSON Pointer. Without it the answer is the number.",
        ),
    ],
};

const OTHERWISE: TableSpec = TableSpec {
    header: "[[flow.NAME.apply.otherwise]]",
    doc: "Where a statement changed another number of rows than declared: the first whose `when` holds gives the verdict; none: `rows_unexpected`. Where a statement erred, in PostgreSQL: the first whose `sqlstates` names the error; none: `statement_failed`, or the database's fault.",
    keys: &[
        optional(
            "when",
            Kind::Text,
            "\"SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)\"",
            "A query with the parameters of `with`; holds if the first column of its first row is true. Without it: always. All but the last need one.",
        ),
        optional(
            "sqlstates",
            Kind::Texts("SQLSTATEs"),
            "[\"23505\"]",
            "In PostgreSQL, instead of `when`: the errors, by SQLSTATE or class, for which this is the verdict. What the event did is undone first.",
        ),
        required(
            "verdict",
            Kind::Word(&["skip", "dead-letter", "retry"]),
            "\"dead-letter\"",
            "What becomes of the event.",
        ),
        required("reason", Kind::Reason, "\"unknown_sku\"", "Its code."),
        required("because", Kind::Text, "\"no such article\"", "Why, in one sentence."),
        optional(
            "at_most",
            Kind::Budget,
            "\"3% of 1000\"",
            "The budget. Required for `skip`; else `1% of 1000`.",
        ),
        optional("review_by", Kind::Date, "2027-06-01", "When somebody should look at it again."),
    ],
};

const HANDLER_REASON: TableSpec = TableSpec {
    header: "[[flow.NAME.apply.reason]]",
    doc: "A reason that the handler may give. One that isn't declared, or comes with another verdict, is `undeclared_reason`.",
    keys: &[
        required("reason", Kind::Reason, "\"card_declined\"", "Its code."),
        required(
            "verdict",
            Kind::Word(&["skip", "dead-letter", "retry"]),
            "\"dead-letter\"",
            "The verdict that it comes with.",
        ),
        required("because", Kind::Text, "\"the bank refused the card\"", "Why, in one sentence."),
        optional(
            "at_most",
            Kind::Budget,
            "\"3% of 1000\"",
            "The budget. Required for `skip`; else `1% of 1000`.",
        ),
        optional("review_by", Kind::Date, "2027-06-01", "When somebody should look at it again."),
    ],
};

const RETRY: TableSpec = TableSpec {
    header: "[flow.NAME.retry]",
    doc: "An event that asks for a retry holds its key; later events of the key wait behind it, others go on.",
    keys: &[
        default(
            "attempts",
            Kind::Integer(1, 1000),
            "5",
            "Attempts in all; then it is dead-lettered, `retries_exhausted`.",
        ),
        default("backoff", Kind::Duration, "\"200ms\"", "Before the second attempt; doubles each time."),
        default("backoff_max", Kind::Duration, "\"30s\"", "The longest."),
        default("jitter", Kind::Share, "0.2", "The share of the backoff that is taken off at random."),
        default(
            "after_last",
            Kind::Word(&["go-on", "stay-held"]),
            "\"go-on\"",
            "What becomes of the key after the last attempt.",
        ),
    ],
};

const HOLD: TableSpec = TableSpec {
    header: "[flow.NAME.hold]",
    doc: "Memory for events that wait behind a held key.",
    keys: &[
        default("events", Kind::Integer(1, 10_000_000), "10000", "So many events."),
        default("bytes", Kind::Size, "\"64MiB\"", "So many payload bytes."),
    ],
};

const BATCH: TableSpec = TableSpec {
    header: "[flow.NAME.batch]",
    doc: "How much is taken from the source at a time.",
    keys: &[
        default("events", Kind::Integer(1, 100_000), "500", "So many events."),
        default("bytes", Kind::Size, "\"4MiB\"", "So many payload bytes, but always one event."),
        default("wait", Kind::Duration, "\"50ms\"", "So long for the first event."),
    ],
};

const DEDUPE: TableSpec = TableSpec {
    header: "[flow.NAME.dedupe]",
    doc: "Full ids are compared, never only hashes.",
    keys: &[default(
        "events",
        Kind::Integer(0, 10_000_000),
        "100000",
        "Among the last so many events with an id; 0 looks for none.",
    )],
};

const BREAKER: TableSpec = TableSpec {
    header: "[flow.NAME.breaker]",
    doc: "Reasons whose budget is `any` don't count.",
    keys: &[
        default("share", Kind::Budget, "\"50% of 1000\"", "So many not applied among the last so many."),
        default("then", Kind::Word(&["pause", "alert"]), "\"pause\"", "What then."),
    ],
};

const AWAY: TableSpec = TableSpec {
    header: "[flow.NAME.away]",
    doc: "The flow waits; no event is blamed and no attempt is counted.",
    keys: &[
        default("backoff", Kind::Duration, "\"500ms\"", "The first wait; doubles each time."),
        default("backoff_max", Kind::Duration, "\"30s\"", "The longest."),
    ],
};
