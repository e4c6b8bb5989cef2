//! Whose fault an error of PostgreSQL is: the event's, or the database's.

use crate::sql::without_values;
use recount_engine::{EffectEvent, EffectFault};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

/// Who is to blame for a failed statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blame {
    /// The event's data.
    Event,
    /// A lock, a deadlock, a serialisation failure: the batch again.
    Again,
    /// The database can't be reached or refuses to work.
    Away,
}

/// Who is to blame, by the SQLSTATE. Classes 22 (data exception) and 23 (integrity constraint violation) and
/// P0001 (raise_exception) are the event's; see PostgreSQL's manual, appendix A.
pub(crate) fn blame(state: &str, declared: &[String]) -> Blame {
    let is_declared = declared.iter().any(|known| state.starts_with(known.as_str()));
    match state {
        "40001" | "40P01" | "55P03" => Blame::Again,
        _ if is_declared || state.starts_with("22") || state.starts_with("23") || state == "P0001" => {
            Blame::Event
        }
        _ => Blame::Away,
    }
}

/// The SQLSTATE of an error; none where the server did not say one.
pub(crate) fn state(error: &Error) -> Option<&str> {
    error.code().map(SqlState::code)
}

/// What is said of an error, without details: they may hold values.
pub(crate) fn message(error: &Error) -> String {
    match error.as_db_error() {
        Some(told) => format!("{} (SQLSTATE {})", told.message(), told.code().code()),
        None => sources(error),
    }
}

/// An error with what caused it: the client's own say little alone.
fn sources(error: &Error) -> String {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
}

/// A fault without the values of the events that were under way: it goes to the log, and whoever raises an
/// error of their own may well quote them.
pub(crate) fn without_values_of(
    fault: EffectFault,
    names: &dyn Fn(&EffectEvent) -> Option<Vec<String>>,
    events: &[EffectEvent],
) -> EffectFault {
    let hide = |text: String| {
        events.iter().fold(text, |text, event| match names(event) {
            Some(names) => without_values(&text, &names, &event.event.params),
            None => text,
        })
    };
    match fault {
        EffectFault::Away(text) => EffectFault::Away(hide(text)),
        EffectFault::Again(text) => EffectFault::Again(hide(text)),
        other => other,
    }
}

/// An error before COMMIT was sent that is not the event's: what was being done, and what was said.
pub(crate) fn fault(doing: &str, error: &Error) -> EffectFault {
    let text = format!("{doing}: {}", message(error));
    match state(error).map(|state| blame(state, &[])) {
        Some(Blame::Again) => EffectFault::Again(text),
        _ => EffectFault::Away(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_told_apart_by_their_state() {
        let declared = ["P0002".to_owned(), "XX".to_owned()];
        for (state, expected) in [
            ("22003", Blame::Event),
            ("22P02", Blame::Event),
            ("23505", Blame::Event),
            ("23514", Blame::Event),
            ("P0001", Blame::Event),
            ("P0002", Blame::Event),
            ("XX001", Blame::Event),
            ("P0003", Blame::Away),
            ("40001", Blame::Again),
            ("40P01", Blame::Again),
            ("55P03", Blame::Again),
            ("42P01", Blame::Away),
            ("42703", Blame::Away),
            ("25006", Blame::Away),
            ("53100", Blame::Away),
            ("57014", Blame::Away),
            ("57P01", Blame::Away),
            ("08006", Blame::Away),
        ] {
            assert_eq!(blame(state, &declared), expected, "{state}");
        }
    }
}
