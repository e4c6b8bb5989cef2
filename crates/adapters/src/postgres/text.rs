//! A user's SQL: where its named parameters stand, in PostgreSQL's syntax.
//!
//! `:name` is a parameter; not inside strings, quoted names, dollar quotes or comments, nor in `a::type`
//! and `:=`. See PostgreSQL's manual, "Lexical Structure".

/// A part of a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece<'s> {
    /// As written.
    Text(&'s str),
    /// `:name`, without the colon.
    Param(&'s str),
}

/// Takes a statement apart; a semicolon at its end is left out.
///
/// # Errors
/// A sentence for more than one statement, and for a quote or comment without end.
pub(crate) fn pieces(sql: &str) -> Result<Vec<Piece<'_>>, String> {
    let sql = sql.trim_end().trim_end_matches(';').trim_end();
    let bytes = sql.as_bytes();
    let mut pieces = Vec::new();
    let (mut from, mut at) = (0, 0);
    while at < bytes.len() {
        let rest = &bytes[at..];
        at = match rest[0] {
            b'\'' => {
                let escapes =
                    at > 0 && matches!(bytes[at - 1], b'e' | b'E') && (at < 2 || !is_name(bytes[at - 2]));
                end_of_quote(bytes, at, b'\'', escapes)?
            }
            b'"' => end_of_quote(bytes, at, b'"', false)?,
            b'-' if rest.starts_with(b"--") => {
                rest.iter().position(|&b| b == b'\n').map_or(bytes.len(), |n| at + n + 1)
            }
            b'/' if rest.starts_with(b"/*") => end_of_comment(bytes, at)?,
            b'$' if at == 0 || !is_name(bytes[at - 1]) => match dollar_tag(rest) {
                Some(tag) => {
                    let body = at + tag;
                    let found = sql[body..].find(&sql[at..body]);
                    body + found.ok_or("a dollar quote has no end")? + tag
                }
                None if rest.get(1).is_some_and(u8::is_ascii_digit) => {
                    return Err("write named parameters, :name, in place of $1".to_owned());
                }
                None => at + 1,
            },
            b';' => return Err("this is more than one statement: write them as a list".to_owned()),
            b':' if rest.starts_with(b"::") || rest.starts_with(b":=") => at + 2,
            b':' if rest.get(1).is_some_and(|&b| b.is_ascii_alphabetic() || b == b'_') => {
                let name = rest[1..].iter().take_while(|&&b| is_name(b)).count();
                pieces.push(Piece::Text(&sql[from..at]));
                pieces.push(Piece::Param(&sql[at + 1..at + 1 + name]));
                from = at + 1 + name;
                from
            }
            _ => at + 1,
        };
    }
    pieces.push(Piece::Text(&sql[from..]));
    pieces.retain(|piece| *piece != Piece::Text(""));
    Ok(pieces)
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

fn end_of_quote(bytes: &[u8], from: usize, quote: u8, escapes: bool) -> Result<usize, String> {
    let mut at = from + 1;
    while at < bytes.len() {
        match bytes[at] {
            b'\\' if escapes => at += 2,
            b if b == quote && bytes.get(at + 1) == Some(&quote) => at += 2,
            b if b == quote => return Ok(at + 1),
            _ => at += 1,
        }
    }
    Err("a quote has no end".to_owned())
}

fn end_of_comment(bytes: &[u8], from: usize) -> Result<usize, String> {
    let (mut at, mut depth) = (from, 0);
    while at + 1 < bytes.len() {
        match &bytes[at..at + 2] {
            b"/*" => (at, depth) = (at + 2, depth + 1),
            b"*/" => (at, depth) = (at + 2, depth - 1),
            _ => at += 1,
        }
        if depth == 0 {
            return Ok(at);
        }
    }
    Err("a comment has no end".to_owned())
}

/// The length of `$tag$` at the start, where there is one.
fn dollar_tag(rest: &[u8]) -> Option<usize> {
    let name = rest[1..].iter().take_while(|&&b| is_name(b)).count();
    let starts_well = name == 0 || !rest[1].is_ascii_digit();
    (starts_well && rest.get(1 + name) == Some(&b'$')).then_some(name + 2)
}

/// A statement with `$1`, `$2` … and which of the given parameters each is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Numbered {
    /// The text.
    pub(crate) sql: String,
    /// For each number, its place among the given names.
    pub(crate) binds: Vec<usize>,
}

/// Numbers the parameters of a statement.
///
/// # Errors
/// As [`pieces`]; and the parameters that are not among `given`.
pub(crate) fn numbered(sql: &str, given: &[String]) -> Result<Numbered, String> {
    let mut out = Numbered { sql: String::with_capacity(sql.len()), binds: Vec::new() };
    let mut missing = Vec::new();
    for piece in pieces(sql)? {
        match piece {
            Piece::Text(text) => out.sql.push_str(text),
            Piece::Param(name) => match given.iter().position(|g| g == name) {
                None => missing.push(format!(":{name}")),
                Some(place) => {
                    // Each place by itself: the server may want another type at another place.
                    out.binds.push(place);
                    out.sql.push_str(&format!("${}", out.binds.len()));
                }
            },
        }
    }
    if missing.is_empty() {
        return Ok(out);
    }
    let have = given.iter().map(|name| format!(":{name}")).collect::<Vec<_>>().join(", ");
    let have = if have.is_empty() { "nothing".to_owned() } else { have };
    Err(format!("{} is not given: add it to `with` (which gives {have}), or correct it", missing.join(", ")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_found_where_they_are_and_nowhere_else() {
        let given = ["sku".to_owned(), "n".to_owned()];
        for (sql, expected, binds) in [
            (
                "UPDATE t SET n = n - :n WHERE sku = :sku",
                "UPDATE t SET n = n - $1 WHERE sku = $2",
                vec![1, 0],
            ),
            ("SELECT :n + :n;", "SELECT $1 + $2", vec![1, 1]),
            ("SELECT ':n', \":n\", :n", "SELECT ':n', \":n\", $1", vec![1]),
            ("SELECT 'it''s :n' || :sku", "SELECT 'it''s :n' || $1", vec![0]),
            (r"SELECT E'\':n' || :sku", r"SELECT E'\':n' || $1", vec![0]),
            ("SELECT 1::int, :n::int", "SELECT 1::int, $1::int", vec![1]),
            ("SELECT $$ :n $$, $a$ :n $$ $a$, :n", "SELECT $$ :n $$, $a$ :n $$ $a$, $1", vec![1]),
            (
                "SELECT :n -- :sku\n, 1 /* :sku /* :sku */ */",
                "SELECT $1 -- :sku\n, 1 /* :sku /* :sku */ */",
                vec![1],
            ),
            ("SELECT a[1:2], f(x := 3), :sku", "SELECT a[1:2], f(x := 3), $1", vec![0]),
        ] {
            let expected = Numbered { sql: expected.to_owned(), binds };
            assert_eq!(numbered(sql, &given).unwrap(), expected, "{sql}");
        }
    }

    #[test]
    fn what_can_not_be_used_is_said() {
        for (sql, said) in [
            ("SELECT 1; SELECT 2", "more than one statement"),
            ("SELECT 'a", "quote has no end"),
            ("SELECT /* a", "comment has no end"),
            ("SELECT $a$ b", "dollar quote has no end"),
            ("SELECT $1", "named parameters"),
            ("SELECT :other", ":other is not given"),
        ] {
            let told = numbered(sql, &["sku".to_owned()]).unwrap_err();
            assert!(told.contains(said), "{sql}: {told}");
        }
    }
}
