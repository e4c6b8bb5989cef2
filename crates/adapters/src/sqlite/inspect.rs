//! What a statement does, asked of SQLite itself: its authorizer, while it compiles the statement, and the
//! program that it compiled it to.

use super::faults;
use super::schema::TABLES;
use rusqlite::hooks::{AuthAction, AuthContext, Authorization};
use rusqlite::{Connection, OptionalExtension, ffi};
use std::sync::{Arc, Mutex, PoisonError};

/// What a statement is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// A statement of an `apply`: it must write.
    Effect,
    /// A `when` or another query: it must only read.
    Query,
    /// A handler's: both.
    Handler,
}

/// A statement that may be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Inspected {
    /// Its parameters in SQLite's order, without the colon.
    pub(crate) params: Vec<String>,
    /// If it changed no row, it left nothing: no trigger fired, no sequence moved, no virtual table.
    pub(crate) plain: bool,
}

/// Why it may not.
#[derive(Debug)]
pub(crate) enum NotUsable {
    /// What is wrong and what to write instead.
    Refused(String),
    /// The database could not be asked.
    Database(rusqlite::Error),
}

impl From<rusqlite::Error> for NotUsable {
    fn from(error: rusqlite::Error) -> Self {
        match faults::code(&error) & 0xff {
            ffi::SQLITE_ERROR => Self::Refused(format!("{}: correct the statement", faults::message(&error))),
            _ => Self::Database(error),
        }
    }
}

#[derive(Default)]
struct Seen {
    denied: Option<String>,
    writes: bool,
    fires_triggers: bool,
}

const NOT_ROWS: &str = "only INSERT, UPDATE and DELETE are effects: change the schema before the flow runs";

/// `OE_Rollback` of SQLite's sqliteInt.h: as second operand of `Halt` or `HaltIfNull`, the error ends the
/// transaction. It stands there for `OR ROLLBACK`, for a table's `ON CONFLICT ROLLBACK` and for a trigger's
/// `RAISE(ROLLBACK, …)`.
const ON_ERROR_ROLLBACK: i64 = 1;

/// Compiles the statement, without running it, and says what it would do.
pub(crate) fn inspect(conn: &mut Connection, sql: &str, purpose: Purpose) -> Result<Inspected, NotUsable> {
    let seen = Arc::new(Mutex::new(Seen::default()));
    let watching = Arc::clone(&seen);
    conn.authorizer(Some(move |context: AuthContext<'_>| {
        look(&mut watching.lock().unwrap_or_else(PoisonError::into_inner), &context)
    }))?;
    let compiled = compile(conn, sql, purpose);
    conn.authorizer(None::<fn(AuthContext<'_>) -> Authorization>)?;
    let seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(denied) = &seen.denied {
        return Err(NotUsable::Refused(denied.clone()));
    }
    let (params, readonly) = compiled?;
    if !readonly && !seen.writes {
        return Err(NotUsable::Refused(NOT_ROWS.to_owned()));
    }
    let program = read_program(conn, sql)?;
    if let Some(refusal) = program.refusal {
        return Err(NotUsable::Refused(refusal));
    }
    Ok(Inspected { params, plain: !seen.fires_triggers && program.leaves_only_rows })
}

/// The authorizer: notes triggers, denies what would end the transaction or isn't a matter of rows.
fn look(seen: &mut Seen, context: &AuthContext<'_>) -> Authorization {
    let denied = match context.action {
        AuthAction::Transaction { .. } | AuthAction::Savepoint { .. } => Some(
            "the transaction is Recount's: leave out BEGIN, COMMIT, ROLLBACK, SAVEPOINT and RELEASE; an \
             event that is not applied is undone by itself"
                .to_owned(),
        ),
        AuthAction::Attach { .. } | AuthAction::Detach { .. } => {
            Some("a flow has one database: leave out ATTACH and DETACH".to_owned())
        }
        AuthAction::Pragma { pragma_name, .. } => Some(format!(
            "PRAGMA {pragma_name} changes the connection, not rows: leave it out, or set it on the database \
             beforehand"
        )),
        AuthAction::Insert { table_name }
        | AuthAction::Delete { table_name }
        | AuthAction::Update { table_name, .. } => look_at_write(seen, context, table_name),
        AuthAction::Read { .. }
        | AuthAction::Select
        | AuthAction::Function { .. }
        | AuthAction::Recursive => None,
        _ => Some(NOT_ROWS.to_owned()),
    };
    match denied {
        None => Authorization::Allow,
        Some(text) => {
            seen.denied.get_or_insert(text);
            Authorization::Deny
        }
    }
}

fn look_at_write(seen: &mut Seen, context: &AuthContext<'_>, table: &str) -> Option<String> {
    seen.writes = true;
    seen.fires_triggers |= context.accessor.is_some();
    let ours = TABLES.iter().any(|name| name.eq_ignore_ascii_case(table));
    let through = context.accessor.map_or(String::new(), |trigger| format!(" (through trigger {trigger})"));
    ours.then(|| format!("{table} is Recount's own record{through}: write to a table of yours instead"))
}

/// The statement's parameters, and whether it only reads.
fn compile(conn: &Connection, sql: &str, purpose: Purpose) -> Result<(Vec<String>, bool), NotUsable> {
    let refused = |text: &str| Err(NotUsable::Refused(text.to_owned()));
    let statement = match conn.prepare(sql) {
        Err(rusqlite::Error::MultipleStatement) => {
            return refused("several statements in one text: write them as a list, one a text");
        }
        prepared => prepared?,
    };
    match purpose {
        Purpose::Effect if statement.is_explain() != 0 || statement.readonly() => {
            return refused(
                "this changes nothing: write an INSERT, UPDATE or DELETE (a query belongs into `when`)",
            );
        }
        Purpose::Effect if statement.column_count() > 0 => {
            return refused("leave out RETURNING: how many rows changed is known without it");
        }
        Purpose::Query if !statement.readonly() => {
            return refused("a query must only read: write a SELECT");
        }
        Purpose::Query if statement.column_count() == 0 => return refused("it is empty: write a SELECT"),
        _ => {}
    }
    let mut params = Vec::with_capacity(statement.parameter_count());
    for index in 1..=statement.parameter_count() {
        match statement.parameter_name(index).and_then(|name| name.strip_prefix(':')) {
            Some(name) => params.push(name.to_owned()),
            None => {
                let found = statement.parameter_name(index).unwrap_or("?");
                return Err(NotUsable::Refused(format!(
                    "parameter {found}: name parameters with a colon, as in :sku, and give them under `with`"
                )));
            }
        }
    }
    Ok((params, statement.readonly()))
}

struct Program {
    refusal: Option<String>,
    leaves_only_rows: bool,
}

/// Reads the compiled program (`EXPLAIN`), triggers included.
fn read_program(conn: &Connection, sql: &str) -> Result<Program, NotUsable> {
    let sequence_root: Option<i64> = conn
        .query_row("SELECT rootpage FROM sqlite_schema WHERE name = 'sqlite_sequence'", [], |row| row.get(0))
        .optional()?;
    let mut program = Program { refusal: None, leaves_only_rows: true };
    let mut explain = conn.prepare(&format!("EXPLAIN {sql}"))?;
    let mut rows = explain.raw_query();
    while let Some(row) = rows.next()? {
        let (opcode, first, second): (String, i64, i64) = (row.get(1)?, row.get(2)?, row.get(3)?);
        match opcode.as_str() {
            "Halt" | "HaltIfNull" if first != 0 && second == ON_ERROR_ROLLBACK => {
                program.refusal = Some(
                    "an error would roll back the whole batch (OR ROLLBACK, ON CONFLICT ROLLBACK or \
                     RAISE(ROLLBACK)): write ABORT instead"
                        .to_owned(),
                );
            }
            "FkCounter" if first != 0 => {
                program.refusal = Some(
                    "it touches a deferred foreign key, so that the commit could fail for one event's sake: \
                     declare the key without DEFERRABLE INITIALLY DEFERRED"
                        .to_owned(),
                );
            }
            "OpenWrite" if sequence_root == Some(second) => program.leaves_only_rows = false,
            "VUpdate" => program.leaves_only_rows = false,
            _ => {}
        }
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn database() -> Connection {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "PRAGMA foreign_keys = ON;
             CREATE TABLE stock (sku TEXT PRIMARY KEY, on_hand INTEGER NOT NULL) STRICT;
             CREATE TABLE strict_once (id INTEGER PRIMARY KEY, n INTEGER UNIQUE ON CONFLICT ROLLBACK);
             CREATE TABLE numbered (id INTEGER PRIMARY KEY AUTOINCREMENT, n INTEGER UNIQUE);
             CREATE TABLE watched (n INTEGER);
             CREATE TABLE log (n INTEGER);
             CREATE TRIGGER watch AFTER UPDATE ON watched BEGIN INSERT INTO log VALUES (new.n); END;
             CREATE TABLE angry (n INTEGER);
             CREATE TRIGGER anger BEFORE INSERT ON angry BEGIN SELECT RAISE(ROLLBACK, 'no'); END;
             CREATE TABLE sly (n INTEGER);
             CREATE TRIGGER slyness AFTER INSERT ON sly BEGIN DELETE FROM recount_effect; END;
             CREATE TABLE parent (id INTEGER PRIMARY KEY);
             CREATE TABLE child (parent INTEGER REFERENCES parent (id));
             CREATE TABLE late (parent INTEGER REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED);
             CREATE VIEW seen AS SELECT sku FROM stock;
             CREATE TRIGGER through INSTEAD OF DELETE ON seen BEGIN DELETE FROM stock WHERE sku = old.sku; END;",
        )
        .unwrap();
        conn.execute_batch(crate::sqlite::schema::tables_sql()).unwrap();
        conn
    }

    fn told(conn: &mut Connection, sql: &str, purpose: Purpose) -> String {
        match inspect(conn, sql, purpose) {
            Ok(i) => format!("{} {}", if i.plain { "plain" } else { "guarded" }, i.params.join(",")),
            Err(NotUsable::Refused(text)) => format!("refused: {text}"),
            Err(NotUsable::Database(e)) => format!("database: {e}"),
        }
    }

    #[test]
    fn statements_are_known_by_what_they_compile_to() {
        let mut conn = database();
        for (sql, expected) in [
            ("UPDATE stock SET on_hand = on_hand - :q WHERE sku = :sku AND on_hand >= :q", "plain q,sku"),
            ("UPDATE OR IGNORE stock SET sku = :sku", "plain sku"),
            ("INSERT INTO child VALUES (:p)", "plain p"),
            ("DELETE FROM parent WHERE id = :p", "refused: it touches a deferred foreign key"),
            ("INSERT INTO stock VALUES (:sku, 1) ON CONFLICT DO UPDATE SET on_hand = 2;  ", "plain sku"),
            ("UPDATE watched SET n = 1", "guarded"),
            ("DELETE FROM seen", "guarded"),
            ("INSERT OR IGNORE INTO numbered (n) VALUES (1)", "guarded"),
            ("UPDATE numbered SET n = 1", "plain"),
            ("INSERT OR ROLLBACK INTO stock VALUES ('a', 1)", "refused: an error would roll back"),
            ("INSERT INTO strict_once (n) VALUES (1)", "refused: an error would roll back"),
            ("INSERT INTO angry VALUES (1)", "refused: an error would roll back"),
            ("INSERT INTO late VALUES (1)", "refused: it touches a deferred foreign key"),
            (
                "INSERT INTO sly VALUES (1)",
                "refused: recount_effect is Recount's own record (through trigger slyness)",
            ),
            ("DELETE FROM recount_position", "refused: recount_position is Recount's own record"),
            ("UPDATE Recount_Batch SET seq = 1", "refused: recount_batch is Recount's own record"),
            ("UPDATE stock SET on_hand = 1; UPDATE stock SET on_hand = 2", "refused: several statements"),
            ("UPDATE stock SET on_hand = 1; COMMIT", "refused: the transaction is Recount's"),
            ("BEGIN", "refused: the transaction is Recount's"),
            ("COMMIT", "refused: the transaction is Recount's"),
            ("SAVEPOINT a", "refused: the transaction is Recount's"),
            ("ATTACH 'other.db' AS other", "refused: a flow has one database"),
            ("PRAGMA defer_foreign_keys = ON", "refused: PRAGMA defer_foreign_keys"),
            ("VACUUM", "refused: "),
            ("CREATE TABLE t (n)", "refused: "),
            ("DROP TABLE stock", "refused: "),
            ("SELECT 1", "refused: this changes nothing"),
            ("EXPLAIN DELETE FROM stock", "refused: this changes nothing"),
            ("", "refused: "),
            ("DELETE FROM stock RETURNING sku", "refused: leave out RETURNING"),
            ("DELETE FROM stock WHERE sku = ?", "refused: parameter ?: name parameters"),
            ("DELETE FROM stock WHERE sku = @sku", "refused: parameter @sku: name parameters"),
            ("DELETE FROM missing", "refused: no such table: missing"),
            ("DELETE stock", "refused: near \"stock\": syntax error"),
        ] {
            let found = told(&mut conn, sql, Purpose::Effect);
            assert!(found.starts_with(expected), "{sql}\n  gave     {found}\n  expected {expected}");
        }
    }

    #[test]
    fn queries_only_read() {
        let mut conn = database();
        for (sql, expected) in [
            ("SELECT NOT EXISTS (SELECT 1 FROM stock WHERE sku = :sku)", "plain sku"),
            (
                "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 3) SELECT max(i) FROM n",
                "plain",
            ),
            ("SELECT count(*) FROM recount_effect", "plain"),
            ("DELETE FROM stock", "refused: a query must only read"),
            ("DELETE FROM stock RETURNING 1", "refused: a query must only read"),
            ("COMMIT", "refused: the transaction is Recount's"),
            ("PRAGMA journal_mode = DELETE", "refused: PRAGMA journal_mode"),
            ("-- nothing", "refused: it is empty"),
        ] {
            let found = told(&mut conn, sql, Purpose::Query);
            assert!(found.starts_with(expected), "{sql}\n  gave     {found}\n  expected {expected}");
        }
    }
}
