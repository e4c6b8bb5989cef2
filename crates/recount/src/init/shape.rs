//! What texts and numbers look like: instants, ids, addresses, cards.

use serde_json::Value;
use std::hash::{DefaultHasher, Hash, Hasher};

/// A double holds every integer up to here.
const EXACT_MAX: u64 = 1 << 53;

/// How many values of a field look like what.
#[derive(Debug, Default, Clone)]
pub struct Shapes {
    /// An instant with its zone that Recount reads.
    pub instants: u64,
    /// The same, written strictly as RFC 3339 has it.
    pub strict_instants: u64,
    /// Date and time without a zone.
    pub without_zone: u64,
    /// Text that is a number.
    pub numeric_texts: u64,
    /// The same with a decimal point.
    pub decimal_texts: u64,
    /// Empty text.
    pub empty: u64,
    /// Mail addresses.
    pub mails: u64,
    /// Card numbers: 13 to 19 digits with the right check digit.
    pub cards: u64,
    /// UUIDs.
    pub uuids: u64,
    /// The longest text, in bytes.
    pub longest_bytes: usize,
    /// Integers beyond 2⁵³.
    pub beyond_exact: u64,
    /// Whole numbers beyond 64 bits.
    pub beyond_64_bits: u64,
    /// Numbers that are Unix seconds, milliseconds, microseconds, nanoseconds of the years 2001 to 2100.
    pub unix: [u64; 4],
    /// How often a value is not before the one of the event before it.
    pub ascending: u64,
    last: Option<Last>,
}

#[derive(Debug, Clone, PartialEq, PartialOrd)]
enum Last {
    Number(f64),
    Text(String),
}

impl Shapes {
    /// Looks at one value.
    pub fn note(&mut self, value: &Value) {
        let now = match value {
            Value::String(text) => {
                self.note_text(text);
                Last::Text(text.chars().take(40).collect())
            }
            Value::Number(number) => {
                self.note_number(number);
                Last::Number(number.as_f64().unwrap_or_default())
            }
            _ => return,
        };
        self.ascending += u64::from(self.last.as_ref().is_some_and(|last| *last <= now));
        self.last = Some(now);
    }

    fn note_text(&mut self, text: &str) {
        self.longest_bytes = self.longest_bytes.max(text.len());
        let add = |to: &mut u64, holds: bool| *to += u64::from(holds);
        add(&mut self.empty, text.is_empty());
        if text.len() > 320 {
            return;
        }
        let is_instant = text.parse::<jiff::Timestamp>().is_ok();
        add(&mut self.instants, is_instant);
        add(&mut self.strict_instants, is_instant && is_rfc_3339(text));
        add(
            &mut self.without_zone,
            !is_instant && text.len() > 10 && text.parse::<jiff::civil::DateTime>().is_ok(),
        );
        add(&mut self.numeric_texts, is_numeric(text));
        add(&mut self.decimal_texts, is_numeric(text) && text.contains('.'));
        add(&mut self.mails, is_mail(text));
        add(&mut self.cards, is_card(text));
        add(&mut self.uuids, is_uuid(text));
    }

    fn note_number(&mut self, number: &serde_json::Number) {
        let is_whole = !number.is_f64();
        let size = number.as_i64().map(i64::unsigned_abs).or(number.as_u64());
        self.beyond_exact += u64::from(size.is_some_and(|size| size > EXACT_MAX));
        let value = number.as_f64().unwrap_or_default();
        self.beyond_64_bits +=
            u64::from(!is_whole && value.fract() == 0.0 && value.abs() >= 9_223_372_036_854_775_808.0);
        for (place, unit) in [1.0, 1e3, 1e6, 1e9].iter().enumerate() {
            self.unix[place] += u64::from((978_307_200.0 * unit..4_102_444_800.0 * unit).contains(&value));
        }
    }
}

/// The text that identifies an event by this value, as an `id` would give it.
pub fn identifying(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        Value::Bool(truth) => Some(truth.to_string()),
        _ => None,
    }
}

/// The same within and between runs.
pub fn hash_of(text: &str) -> u64 {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish()
}

fn is_rfc_3339(text: &str) -> bool {
    let bytes = text.as_bytes();
    let is_digits = |from: usize, to: usize| bytes[from..to].iter().all(u8::is_ascii_digit);
    if bytes.len() < 20 || !text.is_ascii() {
        return false;
    }
    let separators = [(4, b'-'), (7, b'-'), (10, b'T'), (13, b':'), (16, b':')];
    let numbers = [(0, 4), (5, 7), (8, 10), (11, 13), (14, 16), (17, 19)];
    if separators.iter().any(|(at, wanted)| bytes[*at] != *wanted)
        || numbers.iter().any(|(a, b)| !is_digits(*a, *b))
    {
        return false;
    }
    let mut rest = &text[19..];
    if let Some(fraction) = rest.strip_prefix('.') {
        let after = fraction.trim_start_matches(|c: char| c.is_ascii_digit());
        if after.len() == fraction.len() {
            return false;
        }
        rest = after;
    }
    let is_offset = |rest: &[u8]| {
        rest.len() == 6
            && matches!(rest[0], b'+' | b'-')
            && rest[3] == b':'
            && rest[1..3].iter().chain(&rest[4..]).all(u8::is_ascii_digit)
    };
    rest == "Z" || is_offset(rest.as_bytes())
}

fn is_numeric(text: &str) -> bool {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let one_point = digits.bytes().filter(|b| *b == b'.').count() <= 1;
    one_point
        && digits.bytes().all(|b| b.is_ascii_digit() || b == b'.')
        && digits.starts_with(|c: char| c.is_ascii_digit())
        && digits.ends_with(|c: char| c.is_ascii_digit())
}

fn is_mail(text: &str) -> bool {
    let Some((local, domain)) = text.split_once('@') else { return false };
    let is_plain = !text.contains(char::is_whitespace) && !domain.contains('@');
    !local.is_empty()
        && is_plain
        && domain.contains('.')
        && !domain.starts_with('.')
        && !domain.ends_with('.')
}

/// ISO/IEC 7812-1, annex B: the Luhn formula.
fn is_card(text: &str) -> bool {
    let digits: Vec<u32> =
        text.chars().filter(|c| !matches!(c, ' ' | '-')).map_while(|c| c.to_digit(10)).collect();
    let written = text.chars().filter(|c| !matches!(c, ' ' | '-')).count();
    if digits.len() != written || !(13..=19).contains(&digits.len()) {
        return false;
    }
    let doubled = |(place, digit): (usize, &u32)| match place % 2 {
        0 => *digit,
        _ if *digit > 4 => digit * 2 - 9,
        _ => digit * 2,
    };
    digits.iter().rev().enumerate().map(doubled).sum::<u32>().is_multiple_of(10)
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A name's words in lower case: `customerId`, `customer_id` and `Customer-ID` are `customer`, `id`.
pub fn words(name: &str) -> Vec<String> {
    let mut words: Vec<String> = vec![String::new()];
    let mut was_lower = false;
    for c in name.chars() {
        if !c.is_alphanumeric() || (c.is_uppercase() && was_lower) {
            words.push(String::new());
        }
        if c.is_alphanumeric() {
            words.last_mut().into_iter().for_each(|word| word.extend(c.to_lowercase()));
        }
        was_lower = c.is_lowercase() || c.is_numeric();
    }
    words.retain(|word| !word.is_empty());
    words
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_are_told_by_their_shape() {
        let shaped = |value: Value| {
            let mut shapes = Shapes::default();
            shapes.note(&value);
            shapes
        };
        for (text, instant, strict, without_zone) in [
            ("2017-01-01T11:53:26Z", 1, 1, 0),
            ("2017-01-01T11:53:26.25+01:00", 1, 1, 0),
            ("2017-01-01 11:53:26Z", 1, 0, 0),
            ("2017-01-01T11:53:26", 0, 0, 1),
            ("2017-01-01 11:53:26", 0, 0, 1),
            ("2017-01-01", 0, 0, 0),
            ("yesterday", 0, 0, 0),
        ] {
            let found = shaped(json!(text));
            let counts = (found.instants, found.strict_instants, found.without_zone);
            assert_eq!(counts, (instant, strict, without_zone), "{text}");
        }
        assert_eq!(shaped(json!("ada@example.com")).mails, 1);
        assert_eq!(shaped(json!("ada at example.com")).mails, 0);
        assert_eq!(shaped(json!("4111 1111 1111 1111")).cards, 1);
        assert_eq!(shaped(json!("4111 1111 1111 1112")).cards, 0);
        assert_eq!(shaped(json!("12.50")).decimal_texts, 1);
        assert_eq!(shaped(json!("1.2.3")).numeric_texts, 0);
        assert_eq!(shaped(json!(1_483_271_606)).unix, [1, 0, 0, 0]);
        assert_eq!(shaped(json!(1_483_271_606_000_u64)).unix, [0, 1, 0, 0]);
        assert_eq!(shaped(json!(9_007_199_254_740_993_u64)).beyond_exact, 1);
        assert_eq!(shaped(json!(1e20)).beyond_64_bits, 1);
    }

    #[test]
    fn names_are_split_however_they_are_written() {
        for name in ["customer_id", "customerId", "Customer-ID", "customer.id", "customerID"] {
            assert_eq!(words(name), ["customer", "id"], "{name}");
        }
        assert_eq!(words("größe"), ["größe"]);
        assert!(words("--").is_empty());
    }
}
