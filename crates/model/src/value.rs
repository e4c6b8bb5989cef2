//! What is bound to a statement.

/// One value of a statement's parameter or a query's answer.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// SQL NULL.
    Null,
    /// A truth value; 1 or 0 where the database has none.
    Bool(bool),
    /// A whole number.
    Integer(i64),
    /// A floating-point number.
    Real(f64),
    /// Text.
    Text(Box<str>),
    /// Bytes.
    Bytes(Vec<u8>),
}
