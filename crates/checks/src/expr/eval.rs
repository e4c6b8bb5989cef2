//! Evaluating nodes over a borrowed event.
//!
//! The rules are CEL's (cel-spec, `doc/langdef.md`), with these deliberate differences, all towards
//! exactness or towards what JSON producers do:
//! - integers and doubles are compared exactly, not after rounding the integer;
//! - `+ - * /` take an integer and a double together (JSON writers turn 3.0 into 3), as long as the
//!   integer is exact as a double, and a signed and an unsigned integer, exactly;
//! - `double()` of an integer that a double can't hold is an error;
//! - the pattern of `matches()` is written out and compiled once;
//! - work is bounded ([`STEPS_MAX`](super::value::STEPS_MAX)).

use super::error::{EvalError, Fault};
use super::node::{Arithmetic, Convert, Field, Literal, MetaField, Node, Order, Quantifier, TextTest};
use super::path::Segment;
use super::value::{Steps, Val, compare, equal, items};
use recount_model::Meta;
use serde_json::Value as Json;
use std::cmp::Ordering;
use std::rc::Rc;

/// What an expression can see.
pub(crate) struct Scope<'a> {
    pub data: &'a Json,
    /// The payload holds whole numbers beyond 64 bits.
    pub rounded: bool,
    pub meta: &'a Meta,
    locals: Vec<Val<'a>>,
    steps: Steps,
}

type Evaluated<'a> = Result<Val<'a>, EvalError<'a>>;

impl<'a> Scope<'a> {
    pub fn new(data: &'a Json, rounded: bool, meta: &'a Meta) -> Self {
        Self { data, rounded, meta, locals: Vec::new(), steps: Steps::new() }
    }

    /// Each expression has the whole of its steps.
    pub fn evaluate(&mut self, node: &'a Node) -> Evaluated<'a> {
        self.steps = Steps::new();
        self.locals.clear();
        self.node(node)
    }

    fn node(&mut self, node: &'a Node) -> Evaluated<'a> {
        match node {
            Node::Literal(literal) => Ok(literal_value(literal)),
            Node::Field(field) => self.field(field),
            Node::HasField(field) => self.has_field(field),
            Node::Meta(field) => Ok(self.meta_value(*field)),
            Node::Local(place) => Ok(self.locals[*place].clone()),
            Node::Select(of, name) => {
                let of = self.node(of)?;
                self.select(&of, name)
            }
            Node::Has(of, name) => {
                let of = self.node(of)?;
                match self.select(&of, name) {
                    Err(error) if error.is_missing() => Ok(Val::Bool(false)),
                    Err(error) if error.fault != Fault::Rounded => Err(error),
                    _ => Ok(Val::Bool(true)),
                }
            }
            Node::Index(pair) => {
                let (of, by) = (self.node(&pair.0)?, self.node(&pair.1)?);
                self.index(&of, &by)
            }
            Node::Not(of) => match self.node(of)? {
                Val::Bool(truth) => Ok(Val::Bool(!truth)),
                other => Err(Fault::Operand("!", other.kind()).into()),
            },
            Node::Negate(of) => match self.node(of)? {
                Val::Int(int) => int.checked_neg().map(Val::Int).ok_or(Fault::Overflow.into()),
                Val::Double(double) => Ok(Val::Double(-double)),
                other => Err(Fault::Operand("-", other.kind()).into()),
            },
            Node::And(pair) => self.logical(pair, false),
            Node::Or(pair) => self.logical(pair, true),
            Node::If(parts) => match self.node(&parts.0)? {
                Val::Bool(true) => self.node(&parts.1),
                Val::Bool(false) => self.node(&parts.2),
                other => Err(Fault::Operand("?:", other.kind()).into()),
            },
            Node::Equal(pair, wanted) => {
                let (left, right) = (self.node(&pair.0)?, self.node(&pair.1)?);
                let same = equal(&left, &right, self.rounded, &mut self.steps)?;
                Ok(Val::Bool(same == *wanted))
            }
            Node::Order(order, pair) => {
                let (left, right) = (self.node(&pair.0)?, self.node(&pair.1)?);
                ordered(*order, &left, &right)
            }
            Node::Arithmetic(operation, pair) => {
                let (left, right) = (self.node(&pair.0)?, self.node(&pair.1)?);
                self.arithmetic(*operation, left, right)
            }
            Node::In(pair) => {
                let (item, of) = (self.node(&pair.0)?, self.node(&pair.1)?);
                self.contains(&item, &of)
            }
            Node::Size(of) => {
                let of = self.node(of)?;
                self.size(&of)
            }
            Node::TextTest(test, pair) => {
                let (text, other) = (self.node(&pair.0)?, self.node(&pair.1)?);
                self.text_test(*test, &text, &other)
            }
            Node::Matches(text, regex) => {
                let text = self.node(text)?;
                let Some(text) = text.text() else {
                    return Err(Fault::Operand("matches()", text.kind()).into());
                };
                self.steps.take_text(text.len())?;
                Ok(Val::Bool(regex.is_match(text)))
            }
            Node::Convert(to, of) => {
                let of = self.node(of)?;
                convert(*to, of)
            }
            Node::List(nodes) => {
                let items: Result<Vec<_>, _> = nodes.iter().map(|node| self.node(node)).collect();
                Ok(Val::List(Rc::new(items?)))
            }
            Node::Quantified(quantifier, parts) => self.quantified(*quantifier, &parts.0, &parts.1),
            Node::Collected(parts) => self.collected(&parts.0, parts.1.as_ref(), parts.2.as_ref()),
        }
    }

    fn field(&self, field: &'a Field) -> Evaluated<'a> {
        let json = walk(self.data, field, field.steps.len())?;
        Val::from_json(json, self.rounded).map_err(|fault| EvalError {
            fault,
            at: Some((field, field.steps.len())),
            name: None,
        })
    }

    /// CEL: the parent must be an object; only its last field may be missing.
    fn has_field(&self, field: &'a Field) -> Evaluated<'a> {
        let before = field.steps.len() - 1;
        match (walk(self.data, field, before)?, &field.steps[before]) {
            (Json::Object(fields), Segment::Name(name)) => Ok(Val::Bool(fields.contains_key(&**name))),
            (other, _) => Err(EvalError {
                fault: Fault::NoFields(json_kind(other)),
                at: Some((field, before)),
                name: None,
            }),
        }
    }

    fn meta_value(&self, field: MetaField) -> Val<'a> {
        let meta = self.meta;
        let text = |text: &'a Option<Box<str>>| text.as_deref().map_or(Val::Null, Val::Str);
        match field {
            MetaField::Id => text(&meta.id),
            MetaField::Key => text(&meta.key),
            MetaField::Type => text(&meta.event_type),
            MetaField::Time => meta.time.map_or(Val::Null, |time| Val::Int(time.0)),
            MetaField::Headers => Val::Headers(&meta.headers),
            MetaField::Partition => Val::Str(&meta.partition),
            MetaField::Offset => i64::try_from(meta.offset).map_or(Val::UInt(meta.offset), Val::Int),
            MetaField::TakenAt => Val::Int(meta.taken_at.0),
        }
    }

    fn select(&self, of: &Val<'a>, name: &'a str) -> Evaluated<'a> {
        let error = |fault| EvalError { fault, at: None, name: Some(name) };
        match of {
            Val::Object(fields) => {
                let value = fields.get(name).ok_or_else(|| error(Fault::Missing))?;
                Val::from_json(value, self.rounded).map_err(error)
            }
            // A header may be repeated; the last one counts, as with Kafka's `lastHeader`.
            Val::Headers(headers) => {
                let header = headers.iter().rev().find(|header| &*header.name == name);
                header.map(|header| Val::Str(&header.value)).ok_or_else(|| error(Fault::Missing))
            }
            other => Err(Fault::Operand("a field's name", other.kind()).into()),
        }
    }

    fn index(&self, of: &Val<'a>, by: &Val<'a>) -> Evaluated<'a> {
        if let Some(items) = items(of) {
            let place = by.as_place().ok_or(Fault::Operand("a place in a list", by.kind()))?;
            let item = place.and_then(|place| items.get(place, self.rounded));
            return Ok(item.ok_or(Fault::OutOfBounds)??);
        }
        let key = by.as_key().ok_or(Fault::Operand("a field's name", by.kind()))?;
        match (of, key) {
            (Val::Object(fields), key) => {
                let value = key.and_then(|key| fields.get(key)).ok_or(Fault::Missing)?;
                Ok(Val::from_json(value, self.rounded)?)
            }
            (Val::Headers(headers), key) => {
                let header = headers.iter().rev().find(|header| Some(&*header.name) == key);
                Ok(header.map(|header| Val::Str(&header.value)).ok_or(Fault::Missing)?)
            }
            (other, _) => Err(Fault::Operand("[]", other.kind()).into()),
        }
    }

    /// `&&` and `||`: an error on one side doesn't count if the other side decides alone.
    fn logical(&mut self, pair: &'a (Node, Node), deciding: bool) -> Evaluated<'a> {
        let operation = if deciding { "||" } else { "&&" };
        let truth = |value: Val<'a>| match value {
            Val::Bool(truth) => Ok(truth),
            other => Err(Fault::Operand(operation, other.kind()).into()),
        };
        let left = self.node(&pair.0).and_then(truth);
        if matches!(left, Ok(left) if left == deciding) {
            return Ok(Val::Bool(deciding));
        }
        match self.node(&pair.1).and_then(truth) {
            Ok(right) if right == deciding => Ok(Val::Bool(deciding)),
            right => left.and(right).map(Val::Bool),
        }
    }

    fn arithmetic(&mut self, operation: Arithmetic, left: Val<'a>, right: Val<'a>) -> Evaluated<'a> {
        if operation == Arithmetic::Add {
            if let (Some(left), Some(right)) = (left.text(), right.text()) {
                self.steps.take_text(left.len() + right.len())?;
                return Ok(Val::Text([left, right].concat().into()));
            }
            if let (Some(first), Some(second)) = (items(&left), items(&right)) {
                self.steps.take(first.len() + second.len())?;
                let all = (0..first.len()).filter_map(|place| first.get(place, self.rounded));
                let all = all.chain((0..second.len()).filter_map(|place| second.get(place, self.rounded)));
                return Ok(Val::List(Rc::new(all.collect::<Result<_, _>>()?)));
            }
        }
        Ok(super::number::arithmetic(operation, &left, &right)?)
    }

    fn contains(&mut self, item: &Val<'a>, of: &Val<'a>) -> Evaluated<'a> {
        if let Some(items) = items(of) {
            for place in 0..items.len() {
                self.steps.take(1)?;
                let Some(other) = items.get(place, self.rounded) else { break };
                if equal(item, &other?, self.rounded, &mut self.steps)? {
                    return Ok(Val::Bool(true));
                }
            }
            return Ok(Val::Bool(false));
        }
        let key = item.as_key().ok_or(Fault::Operand("in", item.kind()))?;
        match of {
            Val::Object(fields) => Ok(Val::Bool(key.is_some_and(|key| fields.contains_key(key)))),
            Val::Headers(headers) => Ok(Val::Bool(headers.iter().any(|header| Some(&*header.name) == key))),
            other => Err(Fault::Operands("in", item.kind(), other.kind()).into()),
        }
    }

    fn size(&mut self, of: &Val<'a>) -> Evaluated<'a> {
        let size = match of {
            Val::Object(fields) => fields.len(),
            Val::Headers(headers) => {
                let repeated = |(at, header): &(usize, &recount_model::Header)| {
                    headers[..*at].iter().any(|earlier| earlier.name == header.name)
                };
                self.steps.take(headers.len() * headers.len() / 2)?;
                headers.iter().enumerate().filter(|header| !repeated(header)).count()
            }
            other => match (items(other), other.text()) {
                (Some(items), _) => items.len(),
                (_, Some(text)) => {
                    self.steps.take_text(text.len())?;
                    text.chars().count()
                }
                _ => return Err(Fault::Operand("size()", other.kind()).into()),
            },
        };
        Ok(Val::Int(size as i64))
    }

    fn text_test(&mut self, test: TextTest, text: &Val<'a>, other: &Val<'a>) -> Evaluated<'a> {
        let (Some(text), Some(other)) = (text.text(), other.text()) else {
            return Err(Fault::Operands("a test of text", text.kind(), other.kind()).into());
        };
        self.steps.take_text(text.len())?;
        Ok(Val::Bool(match test {
            TextTest::StartsWith => text.starts_with(other),
            TextTest::EndsWith => text.ends_with(other),
            TextTest::Contains => text.contains(other),
        }))
    }

    /// The items that a macro goes through: those of a list, or the names of an object.
    fn range(&mut self, range: &'a Node) -> Result<Vec<Val<'a>>, EvalError<'a>> {
        let range = self.node(range)?;
        if let Some(items) = items(&range) {
            self.steps.take(items.len())?;
            let all = (0..items.len()).filter_map(|place| items.get(place, self.rounded));
            return Ok(all.collect::<Result<_, _>>()?);
        }
        match range {
            Val::Object(fields) => Ok(fields.keys().map(|name| Val::Str(name)).collect()),
            Val::Headers(headers) => Ok(headers.iter().map(|header| Val::Str(&header.name)).collect()),
            other => Err(Fault::Operand("a macro over items", other.kind()).into()),
        }
    }

    fn with_local(&mut self, item: Val<'a>, node: &'a Node) -> Evaluated<'a> {
        self.steps.take(1)?;
        self.locals.push(item);
        let value = self.node(node);
        self.locals.pop();
        value
    }

    /// `all` and `exists` absorb errors as `&&` and `||` do; `exists_one` doesn't.
    fn quantified(&mut self, quantifier: Quantifier, range: &'a Node, test: &'a Node) -> Evaluated<'a> {
        let deciding = quantifier == Quantifier::Exists;
        let (mut holds, mut pending) = (0_usize, None);
        for item in self.range(range)? {
            let truth = match self.with_local(item, test) {
                Ok(Val::Bool(truth)) => Ok(truth),
                Ok(other) => Err(Fault::Operand("a test of items", other.kind()).into()),
                Err(error) => Err(error),
            };
            match truth {
                Err(error) if quantifier == Quantifier::ExistsOne || error.fault == Fault::TooMuchWork => {
                    return Err(error);
                }
                Err(error) => pending = Some(error),
                Ok(truth) if quantifier == Quantifier::ExistsOne => holds += usize::from(truth),
                Ok(truth) if truth == deciding => return Ok(Val::Bool(deciding)),
                Ok(_) => {}
            }
        }
        match (pending, quantifier) {
            (Some(error), _) => Err(error),
            (None, Quantifier::ExistsOne) => Ok(Val::Bool(holds == 1)),
            (None, _) => Ok(Val::Bool(!deciding)),
        }
    }

    fn collected(
        &mut self,
        range: &'a Node,
        test: Option<&'a Node>,
        made: Option<&'a Node>,
    ) -> Evaluated<'a> {
        let mut all = Vec::new();
        for item in self.range(range)? {
            if let Some(test) = test {
                match self.with_local(item.clone(), test)? {
                    Val::Bool(true) => {}
                    Val::Bool(false) => continue,
                    other => return Err(Fault::Operand("a test of items", other.kind()).into()),
                }
            }
            all.push(match made {
                Some(made) => self.with_local(item, made)?,
                None => item,
            });
        }
        Ok(Val::List(Rc::new(all)))
    }
}

/// Follows the first `steps` of a field's steps.
fn walk<'a>(data: &'a Json, field: &'a Field, steps: usize) -> Result<&'a Json, EvalError<'a>> {
    let mut json = data;
    for (taken, segment) in field.steps[..steps].iter().enumerate() {
        json = match (json, segment) {
            (Json::Object(fields), Segment::Name(name)) => fields.get(&**name).ok_or(EvalError {
                fault: Fault::Missing,
                at: Some((field, taken + 1)),
                name: None,
            })?,
            (Json::Array(items), Segment::Index(place)) => {
                let item = usize::try_from(*place).ok().and_then(|place| items.get(place));
                item.ok_or(EvalError { fault: Fault::OutOfBounds, at: Some((field, taken + 1)), name: None })?
            }
            (other, _) => {
                return Err(EvalError {
                    fault: Fault::NoFields(json_kind(other)),
                    at: Some((field, taken)),
                    name: None,
                });
            }
        };
    }
    Ok(json)
}

fn json_kind(json: &Json) -> &'static str {
    match json {
        Json::Null => "null",
        Json::Bool(_) => "a truth value",
        Json::Number(_) => "a number",
        Json::String(_) => "text",
        Json::Array(_) => "a list",
        Json::Object(_) => "an object",
    }
}

fn literal_value(literal: &Literal) -> Val<'_> {
    match literal {
        Literal::Null => Val::Null,
        Literal::Bool(truth) => Val::Bool(*truth),
        Literal::Int(int) => Val::Int(*int),
        Literal::UInt(uint) => Val::UInt(*uint),
        Literal::Double(double) => Val::Double(*double),
        Literal::Text(text) => Val::Str(text),
    }
}

fn ordered<'a>(order: Order, left: &Val<'a>, right: &Val<'a>) -> Evaluated<'a> {
    let ordering = compare(left, right).ok_or(Fault::Operands("a comparison", left.kind(), right.kind()))?;
    Ok(Val::Bool(match order {
        Order::Less => ordering == Ordering::Less,
        Order::LessOrEqual => ordering != Ordering::Greater,
        Order::Greater => ordering == Ordering::Greater,
        Order::GreaterOrEqual => ordering != Ordering::Less,
    }))
}

fn convert(to: Convert, of: Val<'_>) -> Evaluated<'_> {
    let fault = Fault::Operand("a conversion", of.kind());
    Ok(match to {
        Convert::Int => Val::Int(super::number::to_int(&of)?.ok_or(fault)?),
        Convert::UInt => Val::UInt(super::number::to_uint(&of)?.ok_or(fault)?),
        Convert::Double => Val::Double(super::number::to_double(&of)?.ok_or(fault)?),
        Convert::Text => match of {
            Val::Str(_) | Val::Text(_) => of,
            Val::Bool(truth) => Val::Str(if truth { "true" } else { "false" }),
            Val::Int(int) => Val::Text(int.to_string().into()),
            Val::UInt(uint) => Val::Text(uint.to_string().into()),
            Val::Double(double) => Val::Text(double.to_string().into()),
            _ => return Err(fault.into()),
        },
    })
}
