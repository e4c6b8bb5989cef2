//! Why an expression has no value for an event. Never holds a value of the event, so that it can't tell
//! a secret.

use super::node::Field;
use std::fmt;

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A field is not there.
    Missing,
    /// What should hold the field is something else.
    NoFields(&'static str),
    /// No such item of a list.
    OutOfBounds,
    /// An operation can't take what it was given.
    Operands(&'static str, &'static str, &'static str),
    /// An operation can't take what it was given.
    Operand(&'static str, &'static str),
    /// The result is beyond 64 bits.
    Overflow,
    /// Division by zero.
    DivisionByZero,
    /// The payload holds a whole number beyond 64 bits here.
    Rounded,
    /// A whole number that a double can't hold exactly.
    Inexact,
    /// A text is not the number that it should be.
    NotANumber,
    /// It has neither text nor a whole number.
    NotIdentifying(&'static str),
    /// Beyond the steps that an expression may take.
    TooMuchWork,
    /// The CEL library could not evaluate it.
    Library,
}

/// Why an expression has no value for this event.
#[derive(Debug, Clone)]
pub(crate) struct EvalError<'a> {
    pub fault: Fault,
    /// The field at which it went wrong, and how many of its steps were taken before.
    pub at: Option<(&'a Field, usize)>,
    /// A field's name that isn't part of a path.
    pub name: Option<&'a str>,
}

impl From<Fault> for EvalError<'_> {
    fn from(fault: Fault) -> Self {
        Self { fault, at: None, name: None }
    }
}

impl EvalError<'_> {
    /// Whether it is only that a field isn't there.
    pub fn is_missing(&self) -> bool {
        self.fault == Fault::Missing
    }
}

impl fmt::Display for EvalError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let place = match (self.at, self.name) {
            (Some((field, steps)), _) => field.path_up_to(steps).to_string(),
            (None, Some(name)) => format!("the field {name}"),
            (None, None) => "a value".to_owned(),
        };
        match self.fault {
            Fault::Missing => write!(f, "{place} is missing"),
            Fault::NoFields(kind) => write!(f, "{place} is {kind} and holds nothing"),
            Fault::OutOfBounds => write!(f, "{place} is beyond the end of its list"),
            Fault::Operands(operation, left, right) => {
                write!(f, "{operation} can't take {left} and {right}")
            }
            Fault::Operand(operation, kind) => write!(f, "{operation} can't take {kind}"),
            Fault::Overflow => f.write_str("the result is beyond 64-bit integers"),
            Fault::DivisionByZero => f.write_str("it divides by zero"),
            Fault::Rounded => {
                write!(
                    f,
                    "{place} may be an integer beyond 64 bits, which can't be held exactly; send it as text"
                )
            }
            Fault::Inexact => {
                f.write_str("an integer beyond 2^53 can't be made a floating-point number exactly")
            }
            Fault::NotANumber => f.write_str("a text is not the number it should be"),
            Fault::NotIdentifying(kind) => {
                write!(f, "it gives {kind}; text or an integer is needed")
            }
            Fault::TooMuchWork => {
                write!(f, "it takes more than {} steps on this event", super::value::STEPS_MAX)
            }
            Fault::Library => f.write_str("the CEL library can't evaluate it for this event"),
        }
    }
}
