//! Whose fault an error of SQLite is: the event's, or the database's.

use crate::sql::without_values;
use recount_engine::EffectFault;
use recount_model::Value;
use rusqlite::ffi;

/// Who is to blame for a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The event's data: constraint, mismatch, too big, overflow.
    Event,
    /// A lock: the batch again.
    Again,
    /// The database can't be reached or refuses to work.
    Away,
}

/// Messages of the generic `SQLITE_ERROR` that speak of the data; everything else under that code (no such
/// table, no such function) speaks of the statement or the schema.
const DATA_MESSAGES: [&str; 7] = [
    "integer overflow",
    "malformed JSON",
    "bad JSON path",
    "JSON path error",
    "LIKE or GLOB pattern too complex",
    "ESCAPE expression must be a single character",
    "JSON cannot hold BLOB values",
];

/// The extended result code; 0 where the error is not SQLite's.
pub(crate) fn code(error: &rusqlite::Error) -> i32 {
    match error {
        rusqlite::Error::SqliteFailure(e, _) => e.extended_code,
        rusqlite::Error::SqlInputError { error, .. } => error.extended_code,
        _ => 0,
    }
}

/// SQLite's own words, without the text of the statement. They hold no values, except what a trigger's
/// `RAISE` puts there: see [`message_without_values`].
pub(crate) fn message(error: &rusqlite::Error) -> String {
    match error {
        rusqlite::Error::SqliteFailure(_, Some(message)) => message.clone(),
        rusqlite::Error::SqlInputError { msg, .. } => msg.clone(),
        other => other.to_string(),
    }
}

/// The message; where a trigger's `RAISE` wrote it, values of parameters are replaced by their names.
pub(crate) fn message_without_values(error: &rusqlite::Error, names: &[String], values: &[Value]) -> String {
    let text = message(error);
    if code(error) == ffi::SQLITE_CONSTRAINT_TRIGGER { without_values(&text, names, values) } else { text }
}

/// Who is to blame for an error of a user's statement.
pub(crate) fn blame(error: &rusqlite::Error) -> Blame {
    match code(error) & 0xff {
        ffi::SQLITE_CONSTRAINT | ffi::SQLITE_MISMATCH | ffi::SQLITE_TOOBIG => Blame::Event,
        ffi::SQLITE_BUSY | ffi::SQLITE_LOCKED | ffi::SQLITE_PROTOCOL | ffi::SQLITE_SCHEMA => Blame::Again,
        ffi::SQLITE_ERROR if matches!(error, rusqlite::Error::SqliteFailure(..)) => {
            let message = message(error);
            if DATA_MESSAGES.iter().any(|known| message.contains(known)) { Blame::Event } else { Blame::Away }
        }
        _ => Blame::Away,
    }
}

/// An error that is not the event's: what was being done, and what SQLite said.
pub(crate) fn fault(doing: &str, error: &rusqlite::Error) -> EffectFault {
    let text = format!("{doing}: {} (SQLite code {})", message(error), code(error));
    match blame(error) {
        Blame::Again => EffectFault::Again(text),
        Blame::Event | Blame::Away => EffectFault::Away(text),
    }
}

/// An offset, seq or epoch as SQLite holds it.
///
/// # Errors
/// `Away` beyond 2⁶³, which no source gives.
pub(crate) fn as_integer(number: u64) -> Result<i64, EffectFault> {
    i64::try_from(number)
        .map_err(|_| EffectFault::Away(format!("{number} is beyond what SQLite holds as an integer")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::Connection;

    #[test]
    fn faults_are_told_apart() {
        let conn = Connection::open_in_memory().unwrap();
        conn.execute_batch(
            "CREATE TABLE t (id INTEGER PRIMARY KEY, n INTEGER NOT NULL CHECK (n >= 0), u TEXT UNIQUE) STRICT;
             INSERT INTO t VALUES (1, 1, 'a');
             CREATE TABLE v (n INTEGER);
             CREATE TRIGGER refuse BEFORE INSERT ON v BEGIN SELECT RAISE(ABORT, 'not today'); END;",
        )
        .unwrap();
        for (sql, expected) in [
            ("INSERT INTO t VALUES (1, 1, 'b')", Blame::Event),
            ("INSERT INTO t VALUES (2, NULL, 'b')", Blame::Event),
            ("INSERT INTO t VALUES (2, -1, 'b')", Blame::Event),
            ("INSERT INTO t VALUES (2, 'x', 'b')", Blame::Event),
            ("INSERT INTO t VALUES (2, 1, 'a')", Blame::Event),
            ("INSERT INTO t VALUES ('x', 1, 'b')", Blame::Event),
            ("INSERT INTO v VALUES (1)", Blame::Event),
            ("UPDATE t SET n = abs(-9223372036854775807 - 1)", Blame::Event),
            ("UPDATE t SET n = json_extract('{', '$.a')", Blame::Event),
            ("UPDATE t SET u = zeroblob(2000000000)", Blame::Event),
            ("UPDATE missing SET n = 1", Blame::Away),
            ("UPDATE t SET missing = 1", Blame::Away),
            ("UPDATE t SET n = missing()", Blame::Away),
            ("UPDATE t SET", Blame::Away),
        ] {
            let error = conn.execute(sql, []).unwrap_err();
            assert_eq!(blame(&error), expected, "{sql}: {error}");
        }
    }

    #[test]
    fn a_message_does_not_carry_the_events_values() {
        let error = rusqlite::Error::SqliteFailure(
            ffi::Error::new(ffi::SQLITE_CONSTRAINT_TRIGGER),
            Some("customer 4711 of anna@example.org is blocked".to_owned()),
        );
        let names = ["mail".to_owned(), "customer".to_owned()];
        let values = [Value::Text("anna@example.org".into()), Value::Integer(4711)];
        assert_eq!(message_without_values(&error, &names, &values), "customer :customer of :mail is blocked");
    }
}
