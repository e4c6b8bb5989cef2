//! A compiled expression: the parsed CEL turned into what can be evaluated over borrowed JSON.

use super::path::{FieldPath, Root, Segment};
use regex::Regex;

/// A literal.
#[derive(Debug, Clone)]
pub(crate) enum Literal {
    Null,
    Bool(bool),
    Int(i64),
    UInt(u64),
    Double(f64),
    Text(Box<str>),
}

/// A path into the event that is known when compiling.
#[derive(Debug, Clone)]
pub(crate) struct Field {
    pub steps: Box<[Segment]>,
}

impl Field {
    /// The path, as far as `steps` of its steps.
    pub fn path_up_to(&self, steps: usize) -> FieldPath {
        let end = steps.min(self.steps.len());
        FieldPath { root: Root::Event, segments: self.steps[..end].to_vec() }
    }
}

/// A field of `meta`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MetaField {
    Id,
    Key,
    Type,
    Time,
    Headers,
    Partition,
    Offset,
    TakenAt,
}

impl MetaField {
    pub fn named(name: &str) -> Option<Self> {
        Some(match name {
            "id" => Self::Id,
            "key" => Self::Key,
            "type" => Self::Type,
            "time" => Self::Time,
            "headers" => Self::Headers,
            "partition" => Self::Partition,
            "offset" => Self::Offset,
            "taken_at" => Self::TakenAt,
            _ => return None,
        })
    }
}

/// `+ - * / %`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    Remainder,
}

/// `< <= > >=`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Order {
    Less,
    LessOrEqual,
    Greater,
    GreaterOrEqual,
}

/// Tests of one text with another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TextTest {
    StartsWith,
    EndsWith,
    Contains,
}

/// `int() uint() double() string()`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Convert {
    Int,
    UInt,
    Double,
    Text,
}

/// `all() exists() exists_one()`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Quantifier {
    All,
    Exists,
    ExistsOne,
}

/// One node. A local variable is its place on the stack of those in scope.
#[derive(Debug)]
pub(crate) enum Node {
    Literal(Literal),
    Field(Field),
    HasField(Field),
    Meta(MetaField),
    Local(usize),
    Select(Box<Node>, Box<str>),
    Has(Box<Node>, Box<str>),
    Index(Box<(Node, Node)>),
    Not(Box<Node>),
    Negate(Box<Node>),
    And(Box<(Node, Node)>),
    Or(Box<(Node, Node)>),
    If(Box<(Node, Node, Node)>),
    Equal(Box<(Node, Node)>, bool),
    Order(Order, Box<(Node, Node)>),
    Arithmetic(Arithmetic, Box<(Node, Node)>),
    In(Box<(Node, Node)>),
    Size(Box<Node>),
    TextTest(TextTest, Box<(Node, Node)>),
    Matches(Box<Node>, Box<Regex>),
    Convert(Convert, Box<Node>),
    List(Vec<Node>),
    Quantified(Quantifier, Box<(Node, Node)>),
    /// Range, optional filter, what each becomes (none: itself).
    Collected(Box<(Node, Option<Node>, Option<Node>)>),
}
