//! How the config's tables and keys are described: once. The description drives reading, faults and
//! `docs/config-reference.md`.

/// What a key takes.
#[derive(Debug, Clone, Copy)]
pub enum Kind {
    /// Any text that isn't empty.
    Text,
    /// One of these words.
    Word(&'static [&'static str]),
    /// A CEL expression.
    Cel,
    /// One text or a list of texts, in which `{0}` stands: SQL, names.
    Texts(&'static str),
    /// A path, relative to the folder of the config file.
    Path,
    /// A whole number within bounds, both included.
    Integer(i64, i64),
    /// `true` or `false`.
    Bool,
    /// A number from 0 to 1.
    Share,
    /// `250ms`, `30s`, `15m`, `1h`, `7d`.
    Duration,
    /// `512B`, `64KiB`, `1MiB`, `1GiB`, or a number of bytes.
    Size,
    /// `2% of 1000`, `5% per 1h`, `any`.
    Budget,
    /// `1 per 15m`.
    Rate,
    /// A decimal amount.
    Amount,
    /// A TOML date.
    Date,
    /// `"${NAME}"` or `{ file = "path" }`.
    Secret,
    /// A reason's code.
    Reason,
    /// A number of rows, a range, or a list of them.
    Rows,
    /// Free names, each with a CEL expression.
    Expressions,
    /// Free names (reasons), each with a budget.
    Budgets,
    /// `servers`, and free names of a client's settings.
    Properties,
    /// Where a flow begins to read.
    Start,
    /// A table.
    Table(&'static TableSpec),
    /// One of these words, or a table.
    WordOrTable(&'static [&'static str], &'static TableSpec),
    /// A table of tables with free names.
    Named(&'static TableSpec),
    /// An array of tables.
    Tables(&'static TableSpec),
    /// One table, or an array of them.
    OneOrMore(&'static TableSpec),
    /// Anything; known, but not in this build. The sentence says what is.
    Later(&'static str),
}

/// Whether a key must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Need {
    /// Without it the config is refused.
    Required,
    /// Without it, what the doc sentence says.
    Optional,
    /// Without it, as if this were written.
    Default(&'static str),
}

/// One key.
#[derive(Debug, Clone, Copy)]
pub struct KeySpec {
    /// As it is written.
    pub name: &'static str,
    /// What it takes.
    pub kind: Kind,
    /// Whether it must be there.
    pub need: Need,
    /// What it is for.
    pub doc: &'static str,
    /// A value as it would be written; empty for tables.
    pub example: &'static str,
}

/// One table.
#[derive(Debug)]
pub struct TableSpec {
    /// As its header is written, with capitals for free names.
    pub header: &'static str,
    /// What it is for.
    pub doc: &'static str,
    /// Its keys, in the order in which the reference lists them.
    pub keys: &'static [KeySpec],
}

impl TableSpec {
    /// The key of this name.
    pub fn key(&self, name: &str) -> Option<&'static KeySpec> {
        self.keys.iter().find(|key| key.name == name)
    }
}

/// A key that must be there.
pub(super) const fn required(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { name, kind, need: Need::Required, doc, example }
}

/// A key that may be left out.
pub(super) const fn optional(
    name: &'static str,
    kind: Kind,
    example: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { name, kind, need: Need::Optional, doc, example }
}

/// A key with a default.
pub(super) const fn default(
    name: &'static str,
    kind: Kind,
    value: &'static str,
    doc: &'static str,
) -> KeySpec {
    KeySpec { name, kind, need: Need::Default(value), doc, example: value }
}

/// A table within a table.
pub(super) const fn table(name: &'static str, kind: Kind, doc: &'static str) -> KeySpec {
    KeySpec { name, kind, need: Need::Optional, doc, example: "" }
}

/// What this build has for sources, for messages.
pub(super) const SOURCES_NOW: &str =
    "this build has the sources `file`, `http` and Kafka; NATS, Redis, RabbitMQ and PostgreSQL come later";
/// What this build has for effects, for messages.
pub(super) const DATABASES_NOW: &str =
    "this build has effects in SQLite, in PostgreSQL and through HTTP handlers";
