//! Values of expressions: borrowed from the event where they can be.

use super::error::{EvalError, Fault};
use recount_model::Header;
use serde_json::{Map, Value as Json};
use std::cmp::Ordering;
use std::rc::Rc;

/// A value while an expression is evaluated. Cloning costs no more than a reference count.
#[derive(Debug, Clone)]
pub(crate) enum Val<'a> {
    Null,
    Bool(bool),
    Int(i64),
    /// A whole number written `3u`, or one of JSON beyond `i64`.
    UInt(u64),
    Double(f64),
    Str(&'a str),
    Text(Rc<str>),
    Array(&'a [Json]),
    Object(&'a Map<String, Json>),
    List(Rc<Vec<Val<'a>>>),
    Headers(&'a [Header]),
}

/// Whether a JSON number may be a whole number that 64 bits couldn't hold and that was rounded.
fn may_be_rounded(double: f64) -> bool {
    double.abs() >= 9_223_372_036_854_775_808.0
}

impl<'a> Val<'a> {
    /// `rounded`: the payload holds whole numbers beyond 64 bits, so a double of that size can't be
    /// trusted.
    pub fn from_json(json: &'a Json, rounded: bool) -> Result<Self, Fault> {
        Ok(match json {
            Json::Null => Self::Null,
            Json::Bool(truth) => Self::Bool(*truth),
            Json::String(text) => Self::Str(text),
            Json::Array(items) => Self::Array(items),
            Json::Object(fields) => Self::Object(fields),
            Json::Number(number) => {
                if let Some(int) = number.as_i64() {
                    Self::Int(int)
                } else if let Some(uint) = number.as_u64() {
                    Self::UInt(uint)
                } else {
                    match number.as_f64() {
                        Some(double) if rounded && may_be_rounded(double) => return Err(Fault::Rounded),
                        Some(double) => Self::Double(double),
                        None => return Err(Fault::Rounded),
                    }
                }
            }
        })
    }

    pub fn text(&self) -> Option<&str> {
        match self {
            Self::Str(text) => Some(text),
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// What it is, for people.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "a truth value",
            Self::Int(_) => "an integer",
            Self::UInt(_) => "an unsigned integer",
            Self::Double(_) => "a floating-point number",
            Self::Str(_) | Self::Text(_) => "text",
            Self::Array(_) | Self::List(_) => "a list",
            Self::Object(_) | Self::Headers(_) => "an object",
        }
    }

    fn number(&self) -> Option<Number> {
        match self {
            Self::Int(int) => Some(Number::Whole(i128::from(*int))),
            Self::UInt(uint) => Some(Number::Whole(i128::from(*uint))),
            Self::Double(double) => Some(Number::Double(*double)),
            _ => None,
        }
    }

    /// As the key of an object: text only; numbers and truth values are keys that no JSON object has.
    pub fn as_key(&self) -> Option<Option<&str>> {
        match self {
            Self::Bool(_) | Self::Int(_) | Self::UInt(_) | Self::Double(_) => Some(None),
            other => other.text().map(Some),
        }
    }

    /// As a place in a list; a whole double counts.
    pub fn as_place(&self) -> Option<Option<usize>> {
        match self {
            Self::Int(int) => Some(usize::try_from(*int).ok()),
            Self::UInt(uint) => Some(usize::try_from(*uint).ok()),
            Self::Double(double) if double.fract() == 0.0 && !may_be_rounded(*double) => {
                Some(usize::try_from(*double as i64).ok())
            }
            _ => None,
        }
    }
}

enum Number {
    Whole(i128),
    Double(f64),
}

/// Compares a whole number with a double exactly; `None` for NaN. (CEL implementations that round the
/// whole number first call 2⁵³ + 1 equal to 2⁵³.)
fn compare_whole(whole: i128, double: f64) -> Option<Ordering> {
    if double.is_nan() {
        return None;
    }
    if double >= 1e30 {
        return Some(Ordering::Less);
    }
    if double <= -1e30 {
        return Some(Ordering::Greater);
    }
    let floor = double.floor();
    Some(whole.cmp(&(floor as i128)).then(if double > floor { Ordering::Less } else { Ordering::Equal }))
}

/// Exact across integers and doubles. `None` where the two have no order.
pub(crate) fn compare(left: &Val<'_>, right: &Val<'_>) -> Option<Ordering> {
    if let (Some(left), Some(right)) = (left.number(), right.number()) {
        return match (left, right) {
            (Number::Whole(a), Number::Whole(b)) => Some(a.cmp(&b)),
            (Number::Whole(a), Number::Double(b)) => compare_whole(a, b),
            (Number::Double(a), Number::Whole(b)) => compare_whole(b, a).map(Ordering::reverse),
            (Number::Double(a), Number::Double(b)) => a.partial_cmp(&b),
        };
    }
    if let (Some(left), Some(right)) = (left.text(), right.text()) {
        return Some(left.cmp(right));
    }
    match (left, right) {
        (Val::Bool(a), Val::Bool(b)) => Some(a.cmp(b)),
        _ => None,
    }
}

/// Items of a list, whichever kind it is.
pub(crate) fn items<'v, 'a>(list: &'v Val<'a>) -> Option<Items<'v, 'a>> {
    match list {
        Val::Array(items) => Some(Items::Json(items)),
        Val::List(items) => Some(Items::Computed(items)),
        _ => None,
    }
}

pub(crate) enum Items<'v, 'a> {
    Json(&'a [Json]),
    Computed(&'v [Val<'a>]),
}

impl<'a> Items<'_, 'a> {
    pub fn len(&self) -> usize {
        match self {
            Self::Json(items) => items.len(),
            Self::Computed(items) => items.len(),
        }
    }

    pub fn get(&self, place: usize, rounded: bool) -> Option<Result<Val<'a>, Fault>> {
        match self {
            Self::Json(items) => items.get(place).map(|item| Val::from_json(item, rounded)),
            Self::Computed(items) => items.get(place).cloned().map(Ok),
        }
    }
}

/// What bounds the work of one expression on one event.
#[derive(Debug)]
pub(crate) struct Steps {
    left: u64,
}

/// Steps that one expression may take on one event; a step is an item looked at or 64 bytes of text.
pub(crate) const STEPS_MAX: u64 = 1_000_000;

impl Steps {
    pub fn new() -> Self {
        Self { left: STEPS_MAX }
    }

    pub fn take(&mut self, steps: usize) -> Result<(), Fault> {
        self.left = self.left.checked_sub(steps as u64).ok_or(Fault::TooMuchWork)?;
        Ok(())
    }

    pub fn take_text(&mut self, bytes: usize) -> Result<(), Fault> {
        self.take(bytes / 64)
    }
}

/// Equality as CEL has it: values of different kinds are unequal, numbers are compared by value.
pub(crate) fn equal(
    left: &Val<'_>,
    right: &Val<'_>,
    rounded: bool,
    steps: &mut Steps,
) -> Result<bool, Fault> {
    if let (Some(left), Some(right)) = (items(left), items(right)) {
        if left.len() != right.len() {
            return Ok(false);
        }
        for place in 0..left.len() {
            steps.take(1)?;
            let (Some(left), Some(right)) = (left.get(place, rounded), right.get(place, rounded)) else {
                return Ok(false);
            };
            if !equal(&left?, &right?, rounded, steps)? {
                return Ok(false);
            }
        }
        return Ok(true);
    }
    match (left, right) {
        (Val::Null, Val::Null) => Ok(true),
        (Val::Object(left), Val::Object(right)) => {
            if left.len() != right.len() {
                return Ok(false);
            }
            for (name, value) in *left {
                steps.take(1)?;
                let Some(other) = right.get(name) else { return Ok(false) };
                let (value, other) = (Val::from_json(value, rounded)?, Val::from_json(other, rounded)?);
                if !equal(&value, &other, rounded, steps)? {
                    return Ok(false);
                }
            }
            Ok(true)
        }
        (Val::Headers(left), Val::Headers(right)) => Ok(left == right),
        _ => Ok(compare(left, right) == Some(Ordering::Equal)),
    }
}

/// A whole double as an integer, if it holds it exactly and no neighbour rounds to it.
pub(crate) fn whole_double(double: f64) -> Option<i64> {
    (double.fract() == 0.0 && double.abs() <= 9_007_199_254_740_992.0).then_some(double as i64)
}

/// Text that identifies something: text as it is, whole numbers in decimal; 3.0 is 3, as in JSON Schema
/// and CEL. Everything else can't be told apart reliably.
pub(crate) fn identifying_text<'a>(value: &Val<'a>) -> Result<std::borrow::Cow<'a, str>, EvalError<'a>> {
    Ok(match value {
        Val::Str(text) => (*text).into(),
        Val::Text(text) => text.to_string().into(),
        Val::Int(int) => int.to_string().into(),
        Val::UInt(uint) => uint.to_string().into(),
        Val::Double(double) => match whole_double(*double) {
            Some(int) => int.to_string().into(),
            None => return Err(Fault::NotIdentifying(value.kind()).into()),
        },
        _ => return Err(Fault::NotIdentifying(value.kind()).into()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn whole_numbers_and_doubles_compare_exactly() {
        use Ordering::{Equal, Greater, Less};
        let two_53 = 9_007_199_254_740_992_i64;
        for (left, right, expected) in [
            (Val::Int(3), Val::Double(3.0), Some(Equal)),
            (Val::Int(two_53 + 1), Val::Double(two_53 as f64), Some(Greater)),
            (Val::Int(i64::MAX), Val::Double(9_223_372_036_854_775_808.0), Some(Less)),
            (Val::UInt(u64::MAX), Val::Double(18_446_744_073_709_551_616.0), Some(Less)),
            (Val::UInt(u64::MAX), Val::Int(-1), Some(Greater)),
            (Val::Int(-1), Val::Double(-0.5), Some(Less)),
            (Val::Int(0), Val::Double(-0.0), Some(Equal)),
            (Val::Double(f64::INFINITY), Val::UInt(u64::MAX), Some(Greater)),
            (Val::Double(f64::NAN), Val::Int(0), None),
            (Val::Str("3"), Val::Int(3), None),
            (Val::Null, Val::Int(0), None),
        ] {
            assert_eq!(compare(&left, &right), expected, "{left:?} {right:?}");
            assert_eq!(compare(&right, &left), expected.map(Ordering::reverse), "{right:?} {left:?}");
        }
    }
}
