//! Arithmetic and conversions, exact or an error.

use super::error::Fault;
use super::node::Arithmetic;
use super::value::Val;

/// `+ - * / %` on numbers.
pub(crate) fn arithmetic<'a>(
    operation: Arithmetic,
    left: &Val<'a>,
    right: &Val<'a>,
) -> Result<Val<'a>, Fault> {
    match (left, right) {
        (Val::Int(a), Val::Int(b)) => Ok(Val::Int(signed(operation, *a, *b)?)),
        (Val::UInt(a), Val::UInt(b)) => Ok(Val::UInt(unsigned(operation, *a, *b)?)),
        (Val::Double(a), Val::Double(b)) => {
            doubles(operation, *a, *b).ok_or_else(|| operands(operation, left, right))
        }
        (Val::Int(a), Val::UInt(b)) => mixed(operation, i128::from(*a), i128::from(*b)),
        (Val::UInt(a), Val::Int(b)) => mixed(operation, i128::from(*a), i128::from(*b)),
        (Val::Double(_), Val::Int(_) | Val::UInt(_)) | (Val::Int(_) | Val::UInt(_), Val::Double(_)) => {
            let fault = || operands(operation, left, right);
            let a = to_double(left)?.ok_or_else(fault)?;
            let b = to_double(right)?.ok_or_else(fault)?;
            doubles(operation, a, b).ok_or_else(fault)
        }
        _ => Err(operands(operation, left, right)),
    }
}

fn operands(operation: Arithmetic, left: &Val<'_>, right: &Val<'_>) -> Fault {
    let operation = match operation {
        Arithmetic::Add => "+",
        Arithmetic::Subtract => "-",
        Arithmetic::Multiply => "*",
        Arithmetic::Divide => "/",
        Arithmetic::Remainder => "%",
    };
    Fault::Operands(operation, left.kind(), right.kind())
}

fn signed(operation: Arithmetic, a: i64, b: i64) -> Result<i64, Fault> {
    if b == 0 && matches!(operation, Arithmetic::Divide | Arithmetic::Remainder) {
        return Err(Fault::DivisionByZero);
    }
    match operation {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Remainder => a.checked_rem(b),
    }
    .ok_or(Fault::Overflow)
}

fn unsigned(operation: Arithmetic, a: u64, b: u64) -> Result<u64, Fault> {
    if b == 0 && matches!(operation, Arithmetic::Divide | Arithmetic::Remainder) {
        return Err(Fault::DivisionByZero);
    }
    match operation {
        Arithmetic::Add => a.checked_add(b),
        Arithmetic::Subtract => a.checked_sub(b),
        Arithmetic::Multiply => a.checked_mul(b),
        Arithmetic::Divide => a.checked_div(b),
        Arithmetic::Remainder => a.checked_rem(b),
    }
    .ok_or(Fault::Overflow)
}

/// A signed and an unsigned integer: no product of the two overflows 128 bits.
fn mixed<'a>(operation: Arithmetic, a: i128, b: i128) -> Result<Val<'a>, Fault> {
    if b == 0 && matches!(operation, Arithmetic::Divide | Arithmetic::Remainder) {
        return Err(Fault::DivisionByZero);
    }
    let result = match operation {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => a % b,
    };
    match (i64::try_from(result), u64::try_from(result)) {
        (Ok(int), _) => Ok(Val::Int(int)),
        (_, Ok(uint)) => Ok(Val::UInt(uint)),
        _ => Err(Fault::Overflow),
    }
}

/// IEEE 754; CEL has no remainder of doubles.
fn doubles<'a>(operation: Arithmetic, a: f64, b: f64) -> Option<Val<'a>> {
    Some(Val::Double(match operation {
        Arithmetic::Add => a + b,
        Arithmetic::Subtract => a - b,
        Arithmetic::Multiply => a * b,
        Arithmetic::Divide => a / b,
        Arithmetic::Remainder => return None,
    }))
}

/// `int()`: a double is cut off towards zero. `None` where there is no conversion.
pub(crate) fn to_int(of: &Val<'_>) -> Result<Option<i64>, Fault> {
    // The bounds are CEL's: the doubles -2^63 and 2^63 are both out.
    const LIMIT: f64 = 9_223_372_036_854_775_808.0;
    Ok(Some(match of {
        Val::Int(int) => *int,
        Val::UInt(uint) => i64::try_from(*uint).map_err(|_| Fault::Overflow)?,
        Val::Double(double) if *double > -LIMIT && *double < LIMIT => *double as i64,
        Val::Double(_) => return Err(Fault::Overflow),
        other => match other.text() {
            Some(text) => text.parse().map_err(|_| Fault::NotANumber)?,
            None => return Ok(None),
        },
    }))
}

/// `uint()`.
pub(crate) fn to_uint(of: &Val<'_>) -> Result<Option<u64>, Fault> {
    const LIMIT: f64 = 18_446_744_073_709_551_616.0;
    Ok(Some(match of {
        Val::UInt(uint) => *uint,
        Val::Int(int) => u64::try_from(*int).map_err(|_| Fault::Overflow)?,
        Val::Double(double) if *double >= 0.0 && *double < LIMIT => *double as u64,
        Val::Double(_) => return Err(Fault::Overflow),
        other => match other.text() {
            Some(text) => text.parse().map_err(|_| Fault::NotANumber)?,
            None => return Ok(None),
        },
    }))
}

/// `double()`; an integer must be exact as a double.
pub(crate) fn to_double(of: &Val<'_>) -> Result<Option<f64>, Fault> {
    Ok(Some(match of {
        Val::Double(double) => *double,
        Val::Int(int) => exact(i128::from(*int))?,
        Val::UInt(uint) => exact(i128::from(*uint))?,
        other => match other.text() {
            Some(text) => text.parse().map_err(|_| Fault::NotANumber)?,
            None => return Ok(None),
        },
    }))
}

fn exact(whole: i128) -> Result<f64, Fault> {
    let double = whole as f64;
    if double as i128 == whole { Ok(double) } else { Err(Fault::Inexact) }
}
