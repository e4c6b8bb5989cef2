//! JSON text to a value: bounded in depth, strict about what has no one meaning.

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::cell::Cell;
use std::fmt;

/// The deepest nesting that can be asked for: serde_json's own bound.
pub const DEPTH_LIMIT: usize = 127;

/// A decoded JSON value.
#[derive(Debug)]
pub(crate) struct Json {
    pub value: Value,
    /// It holds whole numbers beyond 64 bits, of which `value` has only a rounded form.
    pub rounded: bool,
}

/// Why bytes are not the JSON that a flow takes.
#[derive(Debug)]
pub(crate) enum JsonError {
    /// Nested deeper than allowed.
    TooDeep,
    /// An object has one key twice, so it has no one meaning.
    RepeatedKey { line: usize, column: usize },
    /// It ends too early.
    Truncated,
    /// Not JSON, from here on.
    Syntax { line: usize, column: usize },
}

struct Seen {
    too_deep: Cell<bool>,
    repeated: Cell<bool>,
    huge: Cell<bool>,
}

/// Parses one JSON value and nothing after it.
pub(crate) fn parse(bytes: &[u8], depth_max: usize) -> Result<Json, JsonError> {
    let seen = Seen { too_deep: Cell::new(false), repeated: Cell::new(false), huge: Cell::new(false) };
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let seed = Seed { seen: &seen, depth_left: depth_max.min(DEPTH_LIMIT) };
    let parsed = seed.deserialize(&mut deserializer).and_then(|value| deserializer.end().map(|()| value));
    match parsed {
        Ok(value) => Ok(Json { value, rounded: seen.huge.get() && has_long_integer(bytes) }),
        Err(_) if seen.too_deep.get() => Err(JsonError::TooDeep),
        // At `DEPTH_LIMIT` serde_json's own bound is met first; it has no other sign than its message.
        Err(error) if error.to_string().starts_with("recursion limit exceeded") => Err(JsonError::TooDeep),
        Err(error) if seen.repeated.get() => {
            Err(JsonError::RepeatedKey { line: error.line(), column: error.column() })
        }
        Err(error) if error.is_eof() => Err(JsonError::Truncated),
        Err(error) => Err(JsonError::Syntax { line: error.line(), column: error.column() }),
    }
}

/// Whether there is a whole number of 19 digits or more, written without point or exponent. Only asked
/// where a number of that size was met; text and numbers are told apart as JSON has them.
fn has_long_integer(bytes: &[u8]) -> bool {
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'"' => {
                at += 1;
                while at < bytes.len() && bytes[at] != b'"' {
                    at += if bytes[at] == b'\\' { 2 } else { 1 };
                }
                at += 1;
            }
            b'0'..=b'9' => {
                let digits = bytes[at..].iter().take_while(|b| b.is_ascii_digit()).count();
                at += digits;
                let whole = !matches!(bytes.get(at), Some(b'.' | b'e' | b'E'));
                if whole && digits >= 19 {
                    return true;
                }
                let rest = |b: &&u8| matches!(b, b'0'..=b'9' | b'.' | b'e' | b'E' | b'+' | b'-');
                at += bytes[at..].iter().take_while(rest).count();
            }
            _ => at += 1,
        }
    }
    false
}

#[derive(Clone, Copy)]
struct Seed<'s> {
    seen: &'s Seen,
    depth_left: usize,
}

impl<'s> Seed<'s> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        match self.depth_left.checked_sub(1) {
            Some(depth_left) => Ok(Self { seen: self.seen, depth_left }),
            None => {
                self.seen.too_deep.set(true);
                Err(E::custom("nested too deeply"))
            }
        }
    }
}

impl<'de> DeserializeSeed<'de> for Seed<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Seed<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, truth: bool) -> Result<Value, E> {
        Ok(Value::Bool(truth))
    }

    fn visit_i64<E>(self, int: i64) -> Result<Value, E> {
        Ok(Value::Number(int.into()))
    }

    fn visit_u64<E>(self, uint: u64) -> Result<Value, E> {
        Ok(Value::Number(uint.into()))
    }

    fn visit_f64<E: de::Error>(self, double: f64) -> Result<Value, E> {
        if double.abs() >= 9_223_372_036_854_775_808.0 {
            self.seen.huge.set(true);
        }
        Number::from_f64(double).map(Value::Number).ok_or_else(|| E::custom("not a finite number"))
    }

    fn visit_str<E>(self, text: &str) -> Result<Value, E> {
        Ok(Value::String(text.to_owned()))
    }

    fn visit_string<E>(self, text: String) -> Result<Value, E> {
        Ok(Value::String(text))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut items = Vec::new();
        while let Some(item) = access.next_element_seed(seed)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut access: A) -> Result<Value, A::Error> {
        let seed = self.deeper()?;
        let mut fields = Map::new();
        while let Some(name) = access.next_key::<String>()? {
            let value = access.next_value_seed(seed)?;
            if fields.insert(name, value).is_some() {
                self.seen.repeated.set(true);
                return Err(de::Error::custom("a key is repeated"));
            }
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_integers_are_found_where_they_are_numbers() {
        for (text, expected) in [
            (r#"{"a":18446744073709551615}"#, false),
            (r#"{"a":18446744073709551616}"#, true),
            (r#"{"a":-9223372036854775808}"#, false),
            (r#"{"a":-9223372036854775809}"#, true),
            (r#"{"a":1e30}"#, false),
            (r#"{"a":1e30,"b":"18446744073709551616"}"#, false),
            (r#"{"a":1e30,"b":"\"18446744073709551616"}"#, false),
            (r#"{"a":18446744073709551616.0}"#, false),
            (r#"{"a":0.12345678901234567890123456789}"#, false),
        ] {
            assert_eq!(parse(text.as_bytes(), 64).unwrap().rounded, expected, "{text}");
        }
    }

    #[test]
    fn depth_is_bounded_and_exact() {
        let nested = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        for depth_max in [1, 64, DEPTH_LIMIT] {
            assert!(parse(nested(depth_max).as_bytes(), depth_max).is_ok(), "{depth_max}");
            let deeper = parse(nested(depth_max + 1).as_bytes(), depth_max);
            assert!(matches!(deeper, Err(JsonError::TooDeep)), "{depth_max}: {deeper:?}");
        }
        assert!(matches!(parse("[".repeat(1_000_000).as_bytes(), DEPTH_LIMIT), Err(JsonError::TooDeep)));
    }
}
