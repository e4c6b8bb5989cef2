//! Exact decimal amounts, for sums that must come out equal.

use std::fmt;

const UNITS: i128 = 1_000_000_000;

/// A decimal amount with nine places after the point, held exactly: 0.1 + 0.2 is 0.3.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Amount(i128);

impl Amount {
    /// Nothing.
    pub const ZERO: Self = Self(0);

    /// In units of 10⁻⁹, as records store it.
    pub fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// In units of 10⁻⁹.
    pub fn nanos(self) -> i128 {
        self.0
    }

    /// A whole number.
    pub fn from_integer(whole: i64) -> Self {
        Self(i128::from(whole) * UNITS)
    }

    /// The decimal that the float is written as (shortest form that reads back), rounded half away from
    /// zero at nine places. `None` for what is not finite or beyond ±10²⁷.
    pub fn from_float(value: f64) -> Option<Self> {
        if !value.is_finite() || value.abs() >= 1e27 {
            return None;
        }
        Self::parse(&format!("{value}"))
    }

    /// Reads `-12.5`. `None` where it isn't a plain decimal.
    pub fn parse(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
        let all_digits = |s: &str| s.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || whole.len() > 28 || !all_digits(whole) || !all_digits(fraction) {
            return None;
        }
        let mut nanos = whole.parse::<i128>().ok()? * UNITS;
        let mut unit = UNITS / 10;
        for b in fraction.bytes().take(9) {
            nanos += i128::from(b - b'0') * unit;
            unit /= 10;
        }
        nanos += i128::from(fraction.as_bytes().get(9).is_some_and(|b| *b >= b'5'));
        Some(Self(if negative { -nanos } else { nanos }))
    }

    /// The sum; saturates, which no sum of 2⁶³ events of ±10¹⁸ reaches.
    pub fn plus(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }

    /// The difference.
    pub fn minus(self, other: Self) -> Self {
        Self(self.0.saturating_sub(other.0))
    }

    /// Without its sign.
    pub fn abs(self) -> Self {
        Self(self.0.saturating_abs())
    }
}

impl fmt::Display for Amount {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (whole, rest) = (self.0.unsigned_abs() / UNITS as u128, self.0.unsigned_abs() % UNITS as u128);
        let sign = if self.0 < 0 { "-" } else { "" };
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let fraction = format!("{rest:09}");
        write!(f, "{sign}{whole}.{}", fraction.trim_end_matches('0'))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_exact() {
        let sum = Amount::from_float(0.1).unwrap().plus(Amount::from_float(0.2).unwrap());
        assert_eq!(sum, Amount::parse("0.3").unwrap());
        assert_eq!(sum.to_string(), "0.3");
        assert_eq!(Amount::from_integer(-390_838).to_string(), "-390838");
        assert_eq!(Amount::parse("-0.000000001").unwrap().to_string(), "-0.000000001");
        assert_eq!(Amount::parse("1.0000000005").unwrap().to_string(), "1.000000001");
        for wrong in ["", "-", ".5", "1e3", "1.2.3", "NaN"] {
            assert_eq!(Amount::parse(wrong), None, "{wrong}");
        }
        assert_eq!(Amount::from_float(f64::NAN), None);
    }
}
