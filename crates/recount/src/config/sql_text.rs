//! What can be told of SQL without a database: its parameters, how many statements, and words that would
//! end the transaction.

/// SQLSTATEs and classes that no event is to blame for, whoever declares it: the connection, the transaction,
/// the statement itself, resources, the operator, the server; and Recount's own.
const NEVER_THE_EVENTS: [&str; 14] =
    ["00", "01", "02", "08", "25", "28", "40", "42", "53", "55P03", "57", "58", "XX", "RC"];

/// Why this can't be declared as the event's fault.
pub(super) fn sqlstate_fault(state: &str) -> Option<String> {
    let is_code = matches!(state.len(), 2 | 5)
        && state.bytes().all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit());
    if !is_code {
        return Some(format!(
            "{state:?} is no SQLSTATE: five digits or capitals, \"23505\", or the first two, \"23\", for its class"
        ));
    }
    NEVER_THE_EVENTS.iter().any(|never| state.starts_with(never)).then(|| {
        format!(
            "{state} is never an event's fault: at such an error the flow waits, or does the batch again, since \
             otherwise it would empty its source into dead letters"
        )
    })
}

/// What a text of SQL holds.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct SqlText {
    /// Names after a colon, each once, in the order written.
    pub params: Vec<String>,
    /// Parameters written as `?`, `?1`, `@name` or `$name`.
    pub other_params: Vec<String>,
    /// Unquoted words in capitals.
    pub words: Vec<String>,
    /// Statements that aren't empty.
    pub statements: usize,
}

impl SqlText {
    /// Reads it; strings, quoted names and comments are passed over.
    pub fn read(sql: &str) -> Self {
        let bytes = sql.as_bytes();
        let mut found = Self::default();
        let mut begun = false;
        let mut at = 0;
        while at < bytes.len() {
            let rest = &sql[at..];
            let first = bytes[at];
            let length = match first {
                b'\'' | b'"' | b'`' => quoted(rest, char::from(first)),
                b'[' => rest.find(']').map_or(rest.len(), |end| end + 1),
                b'-' if rest.starts_with("--") => rest.find('\n').unwrap_or(rest.len()),
                b'/' if rest.starts_with("/*") => rest.find("*/").map_or(rest.len(), |end| end + 2),
                b':' | b'@' | b'$' | b'?' => found.param(rest),
                b if is_word(b) => found.word(rest),
                _ => rest.chars().next().map_or(1, char::len_utf8),
            };
            let is_comment = rest.starts_with("--") || rest.starts_with("/*");
            if first == b';' {
                found.statements += usize::from(begun);
                begun = false;
            } else if !is_comment && !first.is_ascii_whitespace() {
                begun = true;
            }
            at += length;
        }
        found.statements += usize::from(begun);
        found
    }

    fn param(&mut self, rest: &str) -> usize {
        let length = rest[1..].bytes().take_while(|b| is_word(*b)).count();
        let name = &rest[1..=length];
        if rest.starts_with(':') {
            if length > 0 && !self.params.iter().any(|known| known == name) {
                self.params.push(name.to_owned());
            }
        } else {
            self.other_params.push(rest[..=length].to_owned());
        }
        length + 1
    }

    fn word(&mut self, rest: &str) -> usize {
        let length = rest.bytes().take_while(|b| is_word(*b)).count();
        self.words.push(rest[..length].to_ascii_uppercase());
        length
    }

    /// Why this can't be a statement of an effect.
    pub fn statement_fault(&self) -> Option<String> {
        const ENDS: [&str; 11] = [
            "BEGIN",
            "COMMIT",
            "END",
            "ROLLBACK",
            "SAVEPOINT",
            "RELEASE",
            "PRAGMA",
            "ATTACH",
            "DETACH",
            "VACUUM",
            "EXPLAIN",
        ];
        let first = self.words.first().map_or("", String::as_str);
        if self.statements != 1 {
            return Some(format!(
                "this text holds {} statements: write a list, one statement each",
                self.statements
            ));
        }
        if ENDS.contains(&first) {
            return Some(format!("{first} can't stand here: the transaction is Recount's"));
        }
        if self.words.windows(2).any(|pair| pair[0] == "OR" && pair[1] == "ROLLBACK") {
            return Some(
                "OR ROLLBACK would end the whole batch's transaction: leave it out, or write OR ABORT".into(),
            );
        }
        self.param_fault()
    }

    /// Why this can't be a query.
    pub fn query_fault(&self) -> Option<String> {
        let first = self.words.first().map_or("", String::as_str);
        if self.statements != 1 {
            return Some(format!("this text holds {} statements: write one query", self.statements));
        }
        if !["SELECT", "WITH", "VALUES"].contains(&first) {
            return Some(format!("a query begins with SELECT, not {first}"));
        }
        self.param_fault()
    }

    fn param_fault(&self) -> Option<String> {
        let other = self.other_params.first()?;
        Some(format!("the parameter {other} has no name of `with`: write :name"))
    }
}

fn is_word(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b == b'_'
}

/// The length of a quoted text, quotes included; a doubled quote is part of it.
fn quoted(rest: &str, quote: char) -> usize {
    let mut chars = rest.char_indices().skip(1).peekable();
    while let Some((index, c)) = chars.next() {
        if c == quote {
            match chars.peek() {
                Some((_, next)) if *next == quote => {
                    chars.next();
                }
                _ => return index + 1,
            }
        }
    }
    rest.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_outside_of_strings_and_comments() {
        for (sql, params) in [
            ("UPDATE s SET a = a - :quantity WHERE k = :sku AND a >= :quantity", "quantity sku"),
            ("SELECT ':not', \":nor\", [:neither], `:no` -- :never\n, :yes /* :no */", "yes"),
            ("SELECT 'it''s :not' || :é || :b_1", "b_1"),
            ("SELECT 'unclosed :a", ""),
        ] {
            assert_eq!(SqlText::read(sql).params.join(" "), params, "{sql}");
        }
    }

    #[test]
    fn what_would_end_the_transaction_is_refused() {
        for (sql, fault) in [
            ("UPDATE a SET b = 1;", None),
            ("UPDATE a SET b = ';' -- ; x", None),
            ("UPDATE a SET b = 1; UPDATE a SET c = 1", Some("2 statements")),
            ("-- nothing", Some("0 statements")),
            ("commit", Some("COMMIT can't stand here")),
            ("INSERT OR ROLLBACK INTO a VALUES (1)", Some("OR ROLLBACK")),
            ("UPDATE a SET b = ?1", Some("parameter ?1")),
            ("UPDATE a SET b = @x", Some("parameter @x")),
        ] {
            let found = SqlText::read(sql).statement_fault();
            match fault {
                None => assert_eq!(found, None, "{sql}"),
                Some(part) => assert!(found.as_deref().is_some_and(|f| f.contains(part)), "{sql}: {found:?}"),
            }
        }
        assert!(SqlText::read("DELETE FROM a").query_fault().is_some());
        assert_eq!(SqlText::read("with x as (select 1) select * from x").query_fault(), None);
    }
}
