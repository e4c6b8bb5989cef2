//! Single values of the config: text and numbers to what they mean, or what to write instead.

use recount_engine::RowRange;
use recount_model::budget::parse_duration_ms;
use std::str::FromStr;

/// `1 per 15m`: at least so many events in so long.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Expect {
    /// Events.
    pub events: u64,
    /// Milliseconds.
    pub per_ms: u64,
}

/// Reads `512B`, `64KiB`, `1MiB`, `2GiB`; at most 1 TiB.
pub(super) fn parse_size(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit: u64 = match text[digits..].trim_start() {
        "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return None,
    };
    number.checked_mul(unit).filter(|bytes| *bytes <= 1 << 40)
}

/// Writes bytes with the largest unit that divides them.
pub fn size_text(bytes: u64) -> String {
    for (unit, name) in [(1 << 40, "TiB"), (1 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")] {
        if bytes > 0 && bytes.is_multiple_of(unit) {
            return format!("{}{name}", bytes / unit);
        }
    }
    format!("{bytes}B")
}

impl FromStr for Expect {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<&str> = text.split_whitespace().collect();
        let [events, "per", window] = words.as_slice() else { return Err(()) };
        let events = events.replace('_', "").parse().ok().filter(|n| *n > 0).ok_or(())?;
        Ok(Self { events, per_ms: parse_duration_ms(window).ok_or(())? })
    }
}

/// Reads `1..3`, `1..`, `..3`, `any` or a number.
pub(super) fn parse_rows(text: &str) -> Option<RowRange> {
    let text = text.trim();
    if text == "any" {
        return Some(RowRange { min: 0, max: u64::MAX });
    }
    let bound = |text: &str, unwritten: u64| {
        if text.is_empty() { Some(unwritten) } else { text.parse().ok() }
    };
    let (min, max) = match text.split_once("..") {
        Some(("", "")) => return None,
        Some((min, max)) => (bound(min.trim(), 0)?, bound(max.trim(), u64::MAX)?),
        None => {
            let exact = text.parse().ok()?;
            (exact, exact)
        }
    };
    (min <= max).then_some(RowRange { min, max })
}

/// Writes a range as the config does.
pub fn rows_text(rows: RowRange) -> String {
    match (rows.min, rows.max) {
        (0, u64::MAX) => "any".to_owned(),
        (min, u64::MAX) => format!("{min}.."),
        (min, max) if min == max => min.to_string(),
        (min, max) => format!("{min}..{max}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_rates_and_rows_read_and_write() {
        for (text, bytes) in
            [("0B", Some(0)), ("64KiB", Some(65_536)), ("1 MiB", Some(1 << 20)), ("2TiB", None)]
        {
            assert_eq!(parse_size(text), bytes, "{text}");
        }
        for wrong in ["", "64", "64kb", "-1B", "99999999999999999999B"] {
            assert_eq!(parse_size(wrong), None, "{wrong}");
        }
        assert_eq!(size_text(65_536), "64KiB");
        assert_eq!("1 per 15m".parse(), Ok(Expect { events: 1, per_ms: 900_000 }));
        for wrong in ["1", "0 per 1h", "1 per hour", "one per 1h"] {
            assert_eq!(wrong.parse::<Expect>(), Err(()), "{wrong}");
        }
        for text in ["1", "0", "1..3", "1..", "any"] {
            assert_eq!(rows_text(parse_rows(text).unwrap()), text);
        }
        for wrong in ["", "..", "3..1", "-1", "1-3", "x"] {
            assert_eq!(parse_rows(wrong), None, "{wrong}");
        }
    }
}
