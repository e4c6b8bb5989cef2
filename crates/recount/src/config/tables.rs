//! The config's tables, but for the flow's: described once.

use super::flow_tables::FLOW;
use super::spec::{Kind, SOURCES_NOW, TableSpec, default, optional, required, table};

/// The whole file.
pub const ROOT: TableSpec = TableSpec {
    header: "",
    doc: "Tables may stand in any order. Paths are relative to the folder of this file. An unknown key is refused.",
    keys: &[
        table("ledger", Kind::Table(&LEDGER), "Where decisions are kept."),
        table(
            "server",
            Kind::Table(&SERVER),
            "The HTTP side: `/v1`, `/metrics`, `/health`, and sources of kind `http`.",
        ),
        table("log", Kind::Table(&LOG), "How log lines look."),
        table("tracing", Kind::Table(&TRACING), "Where spans go. Without it none are made."),
        table("database", Kind::Named(&DATABASE), "Databases that flows and reconciles name."),
        table("broker", Kind::Named(&BROKER), "Brokers that sources name."),
        table("flow", Kind::Named(&FLOW), "The flows."),
        table("reconcile", Kind::Tables(&RECONCILE), "Your own equations between two counts."),
        table("alert", Kind::Named(&ALERT), "Where alerts go. Comes later."),
    ],
};

const LEDGER: TableSpec = TableSpec {
    header: "[ledger]",
    doc: "The durable book of decisions, a folder on a local disk. `run` holds its lock.",
    keys: &[
        default("path", Kind::Path, "\"recount-data\"", "The folder; made with mode 0700 if it isn't there."),
        table("segment", Kind::Table(&SEGMENT), "When a new segment file is begun."),
        table(
            "retention",
            Kind::Table(&RETENTION),
            "When whole segments are dropped. Their books stay for ever, and so do unresolved dead letters.",
        ),
        optional(
            "database",
            Kind::Text,
            "\"ops\"",
            "A `[database.NAME]` with a `postgres://` url that holds the ledger, for several processes: all of them keep one book, and the folder is this process's replica of it. Each process on a host needs a folder of its own: `--ledger-folder DIR`, or `RECOUNT_LEDGER_FOLDER`. Without it, the ledger is the folder.",
        ),
    ],
};

const SEGMENT: TableSpec = TableSpec {
    header: "[ledger.segment]",
    doc: "A segment is closed at whichever comes first.",
    keys: &[
        default("time", Kind::Duration, "\"1h\"", "At this age."),
        default("bytes", Kind::Size, "\"1GiB\"", "At this size."),
    ],
};

const RETENTION: TableSpec = TableSpec {
    header: "[ledger.retention]",
    doc: "A segment is dropped at whichever comes first. Without either, segments are kept for ever.",
    keys: &[
        optional("age", Kind::Duration, "\"90d\"", "Older segments are dropped."),
        optional("bytes", Kind::Size, "\"50GiB\"", "The oldest segments are dropped above this total."),
    ],
};

const SERVER: TableSpec = TableSpec {
    header: "[server]",
    doc: "What `recount run` opens while it runs: `/metrics`, `/health`, `/v1/status`, and the paths of HTTP sources.",
    keys: &[
        default(
            "listen",
            Kind::Text,
            "\"127.0.0.1:7601\"",
            "Address and port. Anything but loopback needs `token` or `hmac`. Where another process has the usual port and no flow takes events or reports by HTTP, a free one is taken instead, with a warning; one that is written here must be free.",
        ),
        optional(
            "token",
            Kind::Secret,
            "\"${RECOUNT_TOKEN}\"",
            "Bearer token that senders of events must show (`authorization: Bearer …`). `/metrics` and `/health` ask for none, and commands that write have a token of their own in the ledger's folder.",
        ),
        optional(
            "hmac",
            Kind::Secret,
            "\"${RECOUNT_HMAC}\"",
            "Key of an HMAC-SHA256 over the body, sent as `X-Recount-Signature: sha256=…`; for senders that can't show a token. Either `token` or `hmac`.",
        ),
        default("body_max", Kind::Size, "\"4MiB\"", "Larger request bodies are answered 413."),
    ],
};

const LOG: TableSpec = TableSpec {
    header: "[log]",
    doc: "Log lines go to standard error and carry flow, event_id, key, partition, offset, reason.",
    keys: &[
        default(
            "format",
            Kind::Word(&["auto", "human", "json"]),
            "\"auto\"",
            "`auto`: human on a terminal, else JSON.",
        ),
        default(
            "level",
            Kind::Word(&["error", "warn", "info", "debug", "trace"]),
            "\"info\"",
            "Not-applied verdicts are `info`, applied ones `debug`.",
        ),
    ],
};

const TRACING: TableSpec = TableSpec {
    header: "[tracing]",
    doc: "One span a batch, with links to the events' `traceparent` (at most 128), sent by OTLP over HTTP as JSON. A collector that is away never holds a flow up: up to 1024 spans wait for it, what is beyond is left out, and counted.",
    keys: &[
        required(
            "otlp",
            Kind::Text,
            "\"http://localhost:4318\"",
            "The collector. Without a path, `/v1/traces` is meant.",
        ),
        optional("token", Kind::Secret, "\"${OTLP_TOKEN}\"", "Bearer token that is shown to it."),
        default("service", Kind::Text, "\"recount\"", "The `service.name` of the spans."),
    ],
};

const DATABASE: TableSpec = TableSpec {
    header: "[database.NAME]",
    doc: "A database that effects are written to, or that a reconcile asks.",
    keys: &[
        required(
            "url",
            Kind::Text,
            "\"sqlite:shop.db\"",
            "`sqlite:PATH`, or `postgres://user:${PASSWORD}@host:5432/name`, as libpq takes it (`?sslmode=verify-full&sslrootcert=ca.pem`; with TLS the certificate and the server's name are always checked, by default against the system's authorities). `${NAME}` is replaced from the environment, when the database is opened and not before.",
        ),
        default(
            "busy_timeout",
            Kind::Duration,
            "\"5s\"",
            "How long a statement waits for another writer's lock before the batch is done again.",
        ),
        default(
            "statement_max",
            Kind::Duration,
            "\"30s\"",
            "A statement that runs longer is interrupted, and the flow pauses.",
        ),
    ],
};

const BROKER: TableSpec = TableSpec {
    header: "[broker.NAME]",
    doc: "A cluster of Apache Kafka (2.8 or later, which gives topics an id). Beside `servers`, whatever librdkafka knows can be set: `security.protocol`, `sasl.mechanism`, `sasl.username`, `sasl.password`, `ssl.ca.location` and others, quoted or as TOML's own dotted keys. Passwords are written as `\"${NAME}\"` or `{ file = \"path\" }`. What would break a promise (`enable.auto.commit`, `auto.offset.reset`, `isolation.level`, `group.id` …) is refused.",
    keys: &[
        optional(
            "kafka",
            Kind::Properties,
            "{ servers = \"localhost:9092\" }",
            "Addresses (`host:port`, several with commas between) and how to reach them.",
        ),
        optional("nats", Kind::Later(SOURCES_NOW), "{ servers = \"localhost:4222\" }", "Comes later."),
        optional("redis", Kind::Later(SOURCES_NOW), "{ url = \"redis://localhost\" }", "Comes later."),
        optional("rabbitmq", Kind::Later(SOURCES_NOW), "{ url = \"amqp://localhost\" }", "Comes later."),
        optional("postgres", Kind::Later(SOURCES_NOW), "{ database = \"shop\" }", "Comes later."),
    ],
};

const RECONCILE: TableSpec = TableSpec {
    header: "[[reconcile]]",
    doc: "Left must equal right, by group where `by` is given. Sums are decimal and exact to nine places.",
    keys: &[
        required("name", Kind::Text, "\"units ordered leave the stock\"", "What the equation says."),
        required(
            "left",
            Kind::Table(&LEFT),
            "{ flow = \"reserve-stock\", sum = \"event.quantity\", of = \"received\", less = [\"unknown_sku\"] }",
            "What the events say: summed when they are decided.",
        ),
        required(
            "right",
            Kind::Table(&RIGHT),
            "{ database = \"shop\", sql = \"SELECT sum(10000 - on_hand) FROM stock\" }",
            "What the database says.",
        ),
        default("tolerance", Kind::Amount, "0", "The two sides may differ by so much (in each group)."),
        optional(
            "within",
            Kind::Duration,
            "\"60s\"",
            "A difference is open for so long before it is imbalanced. Without it: at once.",
        ),
    ],
};

const LEFT: TableSpec = TableSpec {
    header: "[reconcile.left]",
    doc: "A sum over the events of a flow.",
    keys: &[
        required("flow", Kind::Text, "\"reserve-stock\"", "The flow."),
        required("sum", Kind::Cel, "\"event.quantity\"", "A number for each event; `\"1\"` counts."),
        default(
            "of",
            Kind::Word(&["received", "applied"]),
            "\"received\"",
            "`received`: decoded, duplicates left out. `applied`: with that verdict.",
        ),
        optional(
            "less",
            Kind::Texts("reasons"),
            "[\"insufficient_stock\", \"unknown_sku\"]",
            "Reasons whose sums are taken off, and printed by reason.",
        ),
        optional("by", Kind::Cel, "\"event.sku\"", "The group."),
    ],
};

const RIGHT: TableSpec = TableSpec {
    header: "[reconcile.right]",
    doc: "A query whose answer must equal the left side.",
    keys: &[
        required(
            "database",
            Kind::Text,
            "\"shop\"",
            "A `[database.NAME]`. Where it is the database that the left flow applies to, both sides are read at one cut; else `tolerance` and `within` bridge the time between.",
        ),
        required(
            "sql",
            Kind::Text,
            "\"SELECT sum(10000 - on_hand) FROM stock\"",
            "A query: one number; with `by`, rows of group and number.",
        ),
        optional(
            "flow",
            Kind::Later("this build compares a flow with a query"),
            "\"ship-orders\"",
            "Another flow in place of a query. Comes later.",
        ),
    ],
};

const ALERT: TableSpec = TableSpec {
    header: "[alert.NAME]",
    doc: "Read and checked by shape; nothing is sent yet.",
    keys: &[
        optional("alertmanager", Kind::Text, "\"http://localhost:9093\"", "Comes later."),
        optional("webhook", Kind::Text, "\"https://example.org/hook\"", "Comes later."),
        optional("slack", Kind::Secret, "\"${SLACK_URL}\"", "Comes later."),
    ],
};
