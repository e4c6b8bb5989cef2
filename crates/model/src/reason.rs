//! Why an event was not applied: stable codes, each with a sentence.

use std::borrow::Cow;
use std::fmt;

/// A stable snake_case code, at most 64 bytes. A retired code is never used again for something else.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ReasonCode(Cow<'static, str>);

/// Why a text can't be a reason code.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReasonCodeError(pub String);

impl fmt::Display for ReasonCodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{:?} is not a reason code: use 1 to 64 lower-case letters, digits and _, a letter first",
            self.0
        )
    }
}

impl std::error::Error for ReasonCodeError {}

impl ReasonCode {
    /// Checks and keeps a code.
    pub fn new(code: &str) -> Result<Self, ReasonCodeError> {
        if is_code(code.as_bytes()) {
            Ok(Self(Cow::Owned(code.to_owned())))
        } else {
            Err(ReasonCodeError(code.to_owned()))
        }
    }

    /// A code written in the program; one that is not snake_case doesn't compile in a `const`.
    ///
    /// # Panics
    /// If the text is not a code.
    pub const fn literal(code: &'static str) -> Self {
        assert!(is_code(code.as_bytes()), "a reason code is snake_case");
        Self(Cow::Borrowed(code))
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const fn is_code(bytes: &[u8]) -> bool {
    if bytes.is_empty() || bytes.len() > 64 || !bytes[0].is_ascii_lowercase() {
        return false;
    }
    let mut i = 0;
    while i < bytes.len() {
        let b = bytes[i];
        if !(b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_') {
            return false;
        }
        i += 1;
    }
    true
}

impl fmt::Display for ReasonCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A reason code and the sentence that says it of this event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reason {
    /// The stable code.
    pub code: ReasonCode,
    /// One sentence for people, without secrets.
    pub sentence: String,
}

impl Reason {
    /// A reason for this event.
    pub fn new(code: ReasonCode, sentence: impl Into<String>) -> Self {
        Self { code, sentence: sentence.into() }
    }
}

/// What a built-in code is used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BuiltinKind {
    /// An event is dead-lettered for it.
    DeadLetter,
    /// An event is skipped for it.
    Skip,
    /// An event raises it as a flag, whatever becomes of it.
    Flag,
    /// The books, the flow or the audit say it; no event's verdict.
    Finding,
}

/// A code that Recount itself gives.
#[derive(Debug, Clone, Copy)]
pub struct Builtin {
    /// The code.
    pub code: &'static str,
    /// Where it is used.
    pub kind: BuiltinKind,
    /// What it means, one sentence.
    pub meaning: &'static str,
}

macro_rules! builtins {
    ($($name:ident = $code:literal, $kind:ident, $meaning:literal;)*) => {
        $(#[doc = $meaning] pub const $name: ReasonCode = ReasonCode::literal($code);)*
        /// Every built-in code. Each has a page under `docs/reasons/`.
        pub const BUILTINS: &[Builtin] = &[
            $(Builtin { code: $code, kind: BuiltinKind::$kind, meaning: $meaning },)*
        ];
    };
}

builtins! {
    DECODE_FAILED = "decode_failed", DeadLetter, "the bytes are not what the flow decodes";
    PAYLOAD_TOO_LARGE = "payload_too_large", DeadLetter, "the payload is larger than the flow takes";
    NO_ID = "no_id", DeadLetter, "the event has no id where the flow looks for one";
    NO_KEY = "no_key", DeadLetter, "the event has no key where the flow looks for one";
    PARAMETER_MISSING = "parameter_missing", DeadLetter, "a parameter of the statement can't be had from the event";
    SCHEMA_MISMATCH = "schema_mismatch", DeadLetter, "the event does not fit the flow's JSON Schema";
    CHECK_UNEVALUABLE = "check_unevaluable", DeadLetter, "an expression could not be evaluated for this event";
    NO_ROUTE = "no_route", DeadLetter, "no apply of the flow is meant for this event";
    ID_REUSED = "id_reused", DeadLetter, "the id was seen before with another payload";
    STATEMENT_FAILED = "statement_failed", DeadLetter, "the database refused a statement for the event's sake";
    ROWS_UNEXPECTED = "rows_unexpected", DeadLetter, "a statement changed another number of rows than declared, and no otherwise matches";
    RETRIES_EXHAUSTED = "retries_exhausted", DeadLetter, "the last attempt asked for yet another retry";
    NO_VERDICT = "no_verdict", DeadLetter, "the handler answered without a verdict for this event";
    UNDECLARED_REASON = "undeclared_reason", DeadLetter, "the handler gave a reason that the flow does not declare";
    HANDLER_PANICKED = "handler_panicked", DeadLetter, "the handler panicked on this event";
    KILLED_THE_PROCESS = "killed_the_process", DeadLetter, "the event was alone under way at three unclean stops in a row";
    NOT_FOR_THIS_FLOW = "not_for_this_flow", Skip, "the flow ignores events of this type";
    DUPLICATE = "duplicate", Skip, "the same id with the same payload was decided before";
    ACCEPTED = "accepted", Skip, "an operator accepted that the event is not applied";
    CONTRADICTS_CHECK = "contradicts_check", Flag, "the consumer reported one thing, and the flow's checks say another";
    POSITION_REUSED = "position_reused", Finding, "a position that was decided holds another event now";
    SOURCE_CHANGED = "source_changed", Finding, "the source is another incarnation than the one decided so far";
    OFFSET_MOVED_OUTSIDE = "offset_moved_outside", Finding, "somebody moved the position outside of Recount";
    POSITIONS_LOST = "positions_lost", Finding, "positions never reached the flow";
    POSITIONS_UNRECORDED = "positions_unrecorded", Finding, "positions were consumed without a record";
    UNREPORTED = "unreported", Finding, "the consumer went past a position and reported no verdict for it";
    POSITIONS_MISSING = "positions_missing", Finding, "positions were published and have no fate";
    EFFECTS_MISSING = "effects_missing", Finding, "applied decisions have no effect in the database";
    EXPECTED_EFFECT_MISSING = "expected_effect_missing", Finding, "the observed consumer left no effect for events that ought to have one";
    UNEXPECTED_EFFECT = "unexpected_effect", Finding, "the consumer left effects for events that ought not to have one";
    EFFECTS_WITHOUT_DECISION = "effects_without_decision", Finding, "the database holds effects that no decision explains";
    EFFECTS_TWICE = "effects_twice", Finding, "an effect stands more than once in the database";
    RECONCILE_DIFFERS = "reconcile_differs", Finding, "the two sides of a reconcile differ";
    BUDGET_EXCEEDED = "budget_exceeded", Finding, "a reason took a larger share than its budget allows";
    BREAKER_OPEN = "breaker_open", Finding, "too many of the last events were not applied, so the flow paused";
    HOLD_FULL = "hold_full", Finding, "as many events are held behind their keys as the flow may hold";
    EFFECTS_AWAY = "effects_away", Finding, "the database or handler can't be reached or refuses to work";
    EFFECTS_ROLLED_BACK = "effects_rolled_back", Finding, "the database is older than the ledger";
    LEDGER_FULL = "ledger_full", Finding, "the ledger can't be written";
    LEDGER_CORRUPT = "ledger_corrupt", Finding, "the ledger holds a record that can't be read";
    LEDGER_FOREIGN = "ledger_foreign", Finding, "the database belongs to another ledger";
    PROGRAM_DEFECT = "program_defect", Finding, "a part of the program ended in a way that it never should";
    PARTITION_TAKEN = "partition_taken", Finding, "another process took the partition";
}

/// The built-in with this code.
pub fn builtin(code: &str) -> Option<&'static Builtin> {
    BUILTINS.iter().find(|b| b.code == code)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_snake_case() {
        for wrong in ["", "Upper", "1st", "with space", "with-dash", "_first"] {
            assert!(ReasonCode::new(wrong).is_err(), "{wrong}");
        }
        assert_eq!(ReasonCode::new("zero_quantity").unwrap().as_str(), "zero_quantity");
    }

    #[test]
    fn builtin_codes_are_unique() {
        let mut codes: Vec<_> = BUILTINS.iter().map(|b| b.code).collect();
        codes.sort_unstable();
        codes.dedup();
        assert_eq!(codes.len(), BUILTINS.len());
    }
}
