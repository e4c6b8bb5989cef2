//! From parsed CEL to [`Node`]s.

use super::node::{Arithmetic, Convert, Field, Literal, MetaField, Node, Order, Quantifier, TextTest};
use super::path::{Root, Segment};
use cel::common::ast::{CallExpr, ComprehensionExpr, Expr as Ast, IdedExpr, LiteralValue, operators};

/// Why there are no nodes.
#[derive(Debug)]
pub(crate) enum Refusal {
    /// The expression is wrong: what to write instead.
    Wrong(String),
    /// Only the CEL library can evaluate this construct.
    Library(&'static str),
}

fn wrong(message: impl Into<String>) -> Refusal {
    Refusal::Wrong(message.into())
}

/// Functions that only the CEL library has; everything else it has is compiled here.
const LIBRARY_FUNCTIONS: &[&str] =
    &["type", "bytes", "hasValue", "value", "orValue", "or", "of", "none", "ofNonZeroValue"];
const LIBRARY_NAMES: &[&str] =
    &["int", "uint", "double", "string", "bool", "bytes", "list", "map", "null_type", "type", "optional"];

/// The largest compiled form of a `matches()` pattern.
const PATTERN_BYTES_MAX: usize = 1 << 20;

#[derive(Debug, Default)]
pub(crate) struct Compiler {
    locals: Vec<String>,
}

impl Compiler {
    pub fn node(&mut self, expr: &IdedExpr) -> Result<Node, Refusal> {
        if let Some(steps) = self.event_path(&expr.expr) {
            return Ok(Node::Field(Field { steps: steps.into() }));
        }
        match &expr.expr {
            Ast::Literal(literal) => literal_node(literal),
            Ast::Ident(name) => self.ident(name),
            Ast::Select(select) if select.test => {
                if let Some(mut steps) = self.event_path(&select.operand.expr) {
                    steps.push(Segment::Name(select.field.as_str().into()));
                    return Ok(Node::HasField(Field { steps: steps.into() }));
                }
                if self.is_meta(&select.operand.expr) {
                    let field = meta_field(&select.field)?;
                    let null = Node::Literal(Literal::Null);
                    return Ok(Node::Equal(Box::new((Node::Meta(field), null)), false));
                }
                Ok(Node::Has(Box::new(self.node(&select.operand)?), select.field.as_str().into()))
            }
            Ast::Select(select) => {
                if self.is_meta(&select.operand.expr) {
                    return Ok(Node::Meta(meta_field(&select.field)?));
                }
                Ok(Node::Select(Box::new(self.node(&select.operand)?), select.field.as_str().into()))
            }
            Ast::Call(call) => self.call(call),
            Ast::List(list) if list.optional_indices.is_empty() => {
                Ok(Node::List(list.elements.iter().map(|item| self.node(item)).collect::<Result<_, _>>()?))
            }
            Ast::List(_) => Err(Refusal::Library("an optional item")),
            Ast::Map(map) => {
                for entry in &map.entries {
                    if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                        self.library_too(&entry.key)?;
                        self.library_too(&entry.value)?;
                    }
                }
                Err(Refusal::Library("a map"))
            }
            Ast::Comprehension(comprehension) => self.comprehension(comprehension),
            Ast::Struct(made) => Err(wrong(format!("there is no type {}", made.type_name))),
            Ast::Unspecified => Err(wrong("it is empty; write an expression")),
        }
    }

    /// Names are looked up in parts that the library evaluates too.
    fn library_too(&mut self, expr: &IdedExpr) -> Result<(), Refusal> {
        match self.node(expr) {
            Err(Refusal::Wrong(message)) => Err(Refusal::Wrong(message)),
            _ => Ok(()),
        }
    }

    fn local(&self, name: &str) -> Option<usize> {
        self.locals.iter().rposition(|local| local == name)
    }

    fn is_meta(&self, expr: &Ast) -> bool {
        matches!(expr, Ast::Ident(name) if name == "meta" && self.local(name).is_none())
    }

    /// The steps of `event.a["b"][0]`.
    fn event_path(&self, expr: &Ast) -> Option<Vec<Segment>> {
        match expr {
            Ast::Ident(name) if name == "event" && self.local(name).is_none() => Some(Vec::new()),
            Ast::Select(select) if !select.test => {
                let mut steps = self.event_path(&select.operand.expr)?;
                steps.push(Segment::Name(select.field.as_str().into()));
                Some(steps)
            }
            Ast::Call(call) if call.func_name == operators::INDEX && call.args.len() == 2 => {
                let mut steps = self.event_path(&call.args[0].expr)?;
                steps.push(match &call.args[1].expr {
                    Ast::Literal(LiteralValue::String(name)) => Segment::Name(name.inner().into()),
                    Ast::Literal(LiteralValue::Int(place)) => {
                        Segment::Index((*place.inner()).try_into().ok()?)
                    }
                    _ => return None,
                });
                Some(steps)
            }
            _ => None,
        }
    }

    fn ident(&self, name: &str) -> Result<Node, Refusal> {
        if let Some(local) = self.local(name) {
            return Ok(Node::Local(local));
        }
        if name == "meta" {
            return Err(wrong(format!("name a field of meta: {META_FIELDS}")));
        }
        if LIBRARY_NAMES.contains(&name) {
            return Err(Refusal::Library("a type's name"));
        }
        Err(wrong(format!("{name} is not known; expressions know event.… and meta.…")))
    }

    fn pair(&mut self, call: &CallExpr) -> Result<Box<(Node, Node)>, Refusal> {
        match (&call.target, call.args.as_slice()) {
            (None, [left, right]) => Ok(Box::new((self.node(left)?, self.node(right)?))),
            (Some(target), [argument]) => Ok(Box::new((self.node(target)?, self.node(argument)?))),
            _ => Err(wrong(format!("{}() takes one text and another", call.func_name))),
        }
    }

    fn one(&mut self, call: &CallExpr) -> Result<Box<Node>, Refusal> {
        match (&call.target, call.args.as_slice()) {
            (Some(only), []) => Ok(Box::new(self.node(only)?)),
            (None, [only]) => Ok(Box::new(self.node(only)?)),
            _ => Err(wrong(format!("{}() takes one value", call.func_name))),
        }
    }

    fn call(&mut self, call: &CallExpr) -> Result<Node, Refusal> {
        let order = |order| move |pair| Node::Order(order, pair);
        let arithmetic = |operation| move |pair| Node::Arithmetic(operation, pair);
        Ok(match call.func_name.as_str() {
            operators::LOGICAL_AND => Node::And(self.pair(call)?),
            operators::LOGICAL_OR => Node::Or(self.pair(call)?),
            operators::LOGICAL_NOT => Node::Not(self.one(call)?),
            operators::NEGATE => Node::Negate(self.one(call)?),
            operators::EQUALS => Node::Equal(self.pair(call)?, true),
            operators::NOT_EQUALS => Node::Equal(self.pair(call)?, false),
            operators::LESS => order(Order::Less)(self.pair(call)?),
            operators::LESS_EQUALS => order(Order::LessOrEqual)(self.pair(call)?),
            operators::GREATER => order(Order::Greater)(self.pair(call)?),
            operators::GREATER_EQUALS => order(Order::GreaterOrEqual)(self.pair(call)?),
            operators::ADD => arithmetic(Arithmetic::Add)(self.pair(call)?),
            operators::SUBSTRACT => arithmetic(Arithmetic::Subtract)(self.pair(call)?),
            operators::MULTIPLY => arithmetic(Arithmetic::Multiply)(self.pair(call)?),
            operators::DIVIDE => arithmetic(Arithmetic::Divide)(self.pair(call)?),
            operators::MODULO => arithmetic(Arithmetic::Remainder)(self.pair(call)?),
            operators::IN => Node::In(self.pair(call)?),
            operators::INDEX => Node::Index(self.pair(call)?),
            operators::CONDITIONAL => match call.args.as_slice() {
                [test, yes, no] => Node::If(Box::new((self.node(test)?, self.node(yes)?, self.node(no)?))),
                _ => return Err(wrong("?: takes three parts")),
            },
            operators::OPT_SELECT | operators::OPT_INDEX => {
                for part in &call.args {
                    self.library_too(part)?;
                }
                return Err(Refusal::Library("an optional field"));
            }
            "size" => Node::Size(self.one(call)?),
            "startsWith" => Node::TextTest(TextTest::StartsWith, self.method(call)?),
            "endsWith" => Node::TextTest(TextTest::EndsWith, self.method(call)?),
            "contains" => Node::TextTest(TextTest::Contains, self.method(call)?),
            "matches" => self.matches(call)?,
            "int" => Node::Convert(Convert::Int, self.one(call)?),
            "uint" => Node::Convert(Convert::UInt, self.one(call)?),
            "double" => Node::Convert(Convert::Double, self.one(call)?),
            "string" => Node::Convert(Convert::Text, self.one(call)?),
            "dyn" => *self.one(call)?,
            name => return Err(self.unknown_function(name, call)),
        })
    }

    fn method(&mut self, call: &CallExpr) -> Result<Box<(Node, Node)>, Refusal> {
        if call.target.is_none() {
            return Err(wrong(format!("write text.{0}(other) instead of {0}(…)", call.func_name)));
        }
        self.pair(call)
    }

    fn unknown_function(&mut self, name: &str, call: &CallExpr) -> Refusal {
        for part in call.target.iter().map(|target| &**target).chain(&call.args) {
            if let Err(refusal) = self.library_too(part) {
                return refusal;
            }
        }
        match name {
            "timestamp" | "duration" => {
                wrong(format!("{name}() is not available: meta.time and meta.taken_at are Unix milliseconds"))
            }
            name if LIBRARY_FUNCTIONS.contains(&name) => {
                Refusal::Library("an optional value, a type or bytes")
            }
            name => wrong(format!("there is no function {name}()")),
        }
    }

    fn matches(&mut self, call: &CallExpr) -> Result<Node, Refusal> {
        let (target, pattern) = match (&call.target, call.args.as_slice()) {
            (Some(target), [pattern]) => (&**target, pattern),
            (None, [target, pattern]) => (target, pattern),
            _ => return Err(wrong("write text.matches('pattern')")),
        };
        let Ast::Literal(LiteralValue::String(pattern)) = &pattern.expr else {
            return Err(wrong("the pattern of matches() must be written out"));
        };
        let regex = regex::RegexBuilder::new(pattern.inner()).size_limit(PATTERN_BYTES_MAX).build();
        let regex =
            regex.map_err(|_| wrong("the pattern of matches() is not an RE2 pattern, or too large"))?;
        Ok(Node::Matches(Box::new(self.node(target)?), Box::new(regex)))
    }

    fn within<T>(
        &mut self,
        local: &str,
        compile: impl FnOnce(&mut Self) -> Result<T, Refusal>,
    ) -> Result<T, Refusal> {
        self.locals.push(local.to_owned());
        let compiled = compile(self);
        self.locals.pop();
        compiled
    }

    /// Recognises what the macros `all`, `exists`, `exists_one`, `map` and `filter` become.
    fn comprehension(&mut self, made: &ComprehensionExpr) -> Result<Node, Refusal> {
        let range = self.node(&made.iter_range)?;
        let Ast::Call(step) = &made.loop_step.expr else {
            return Err(wrong("this macro is not known"));
        };
        let variable = made.iter_var.as_str();
        let mut each = |expr: &IdedExpr| self.within(variable, |compiler| compiler.node(expr));
        match (step.func_name.as_str(), step.args.as_slice()) {
            (operators::LOGICAL_AND, [_, test]) => {
                Ok(Node::Quantified(Quantifier::All, Box::new((range, each(test)?))))
            }
            (operators::LOGICAL_OR, [_, test]) => {
                Ok(Node::Quantified(Quantifier::Exists, Box::new((range, each(test)?))))
            }
            (operators::ADD, [_, made]) => {
                Ok(Node::Collected(Box::new((range, None, Some(each(collected_item(made)?)?)))))
            }
            (operators::CONDITIONAL, [test, step, _]) => {
                let test = each(test)?;
                let Ast::Call(step) = &step.expr else { return Err(wrong("this macro is not known")) };
                match step.args.as_slice() {
                    [_, one] if matches!(one.expr, Ast::Literal(_)) => {
                        Ok(Node::Quantified(Quantifier::ExistsOne, Box::new((range, test))))
                    }
                    [_, made] => {
                        let item = each(collected_item(made)?)?;
                        Ok(Node::Collected(Box::new((range, Some(test), Some(item)))))
                    }
                    _ => Err(wrong("this macro is not known")),
                }
            }
            _ => Err(wrong("this macro is not known")),
        }
    }
}

const META_FIELDS: &str = "id, key, type, time, headers, partition, offset, taken_at";

fn meta_field(name: &str) -> Result<MetaField, Refusal> {
    MetaField::named(name).ok_or_else(|| wrong(format!("meta has no field {name}; it has {META_FIELDS}")))
}

fn collected_item(made: &IdedExpr) -> Result<&IdedExpr, Refusal> {
    match &made.expr {
        Ast::List(list) if list.elements.len() == 1 => Ok(&list.elements[0]),
        _ => Err(wrong("this macro is not known")),
    }
}

fn literal_node(literal: &LiteralValue) -> Result<Node, Refusal> {
    Ok(Node::Literal(match literal {
        LiteralValue::Null => Literal::Null,
        LiteralValue::Boolean(truth) => Literal::Bool(*truth.inner()),
        LiteralValue::Int(int) => Literal::Int(*int.inner()),
        LiteralValue::UInt(uint) => Literal::UInt(*uint.inner()),
        LiteralValue::Double(double) => Literal::Double(*double.inner()),
        LiteralValue::String(text) => Literal::Text(text.inner().into()),
        LiteralValue::Bytes(_) => return Err(Refusal::Library("bytes")),
    }))
}

/// Whether the node may give a truth value; false only where it can't.
pub(crate) fn may_be_bool(node: &Node) -> bool {
    match node {
        Node::Literal(literal) => matches!(literal, Literal::Bool(_)),
        Node::Negate(_) | Node::Arithmetic(..) | Node::Size(_) | Node::Convert(..) => false,
        Node::List(_) | Node::Collected(_) | Node::Meta(_) => false,
        Node::If(parts) => may_be_bool(&parts.1) || may_be_bool(&parts.2),
        _ => true,
    }
}

/// The paths that an expression names, in the order in which they stand.
pub(crate) mod paths {
    use super::super::path::FieldPath;
    use super::{Ast, IdedExpr, LiteralValue, Root, Segment, operators};

    #[derive(Default)]
    pub(crate) struct Collector {
        locals: Vec<(String, Option<FieldPath>)>,
        pub found: Vec<FieldPath>,
    }

    impl Collector {
        /// Adds the path that the expression is, or those of its parts.
        pub fn record(&mut self, expr: &IdedExpr) {
            if let Some(path) = self.path(expr) {
                self.add(path);
            }
        }

        fn add(&mut self, path: FieldPath) {
            if !self.found.contains(&path) {
                self.found.push(path);
            }
        }

        /// The path that the expression is; where it is none, its parts are recorded.
        fn path(&mut self, expr: &IdedExpr) -> Option<FieldPath> {
            match &expr.expr {
                Ast::Ident(name) => {
                    if let Some((_, path)) = self.locals.iter().rev().find(|(local, _)| local == name) {
                        return path.clone();
                    }
                    match name.as_str() {
                        "event" => Some(FieldPath::root(Root::Event)),
                        "meta" => Some(FieldPath::root(Root::Meta)),
                        _ => None,
                    }
                }
                Ast::Select(select) => {
                    Some(self.path(&select.operand)?.then(Segment::Name(select.field.as_str().into())))
                }
                Ast::Call(call) if call.args.len() == 2 && is_index(&call.func_name) => {
                    let base = self.path(&call.args[0]);
                    match &call.args[1].expr {
                        Ast::Literal(LiteralValue::String(name)) => {
                            Some(base?.then(Segment::Name(name.inner().into())))
                        }
                        Ast::Literal(LiteralValue::Int(place)) => {
                            let place =
                                u64::try_from(*place.inner()).ok().map_or(Segment::Each, Segment::Index);
                            Some(base?.then(place))
                        }
                        _ => {
                            self.record(&call.args[1]);
                            self.add(base?);
                            None
                        }
                    }
                }
                Ast::Call(call) => {
                    call.target.iter().for_each(|target| self.record(target));
                    call.args.iter().for_each(|argument| self.record(argument));
                    None
                }
                Ast::List(list) => {
                    list.elements.iter().for_each(|item| self.record(item));
                    None
                }
                Ast::Map(map) => {
                    for entry in &map.entries {
                        if let cel::common::ast::EntryExpr::MapEntry(entry) = &entry.expr {
                            self.record(&entry.key);
                            self.record(&entry.value);
                        }
                    }
                    None
                }
                Ast::Comprehension(made) => {
                    let range = self.path(&made.iter_range);
                    range.clone().into_iter().for_each(|range| self.add(range));
                    self.locals.push((made.accu_var.clone(), None));
                    self.locals.push((made.iter_var.clone(), range.map(|range| range.then(Segment::Each))));
                    self.record(&made.loop_step);
                    self.locals.truncate(self.locals.len() - 2);
                    None
                }
                Ast::Literal(_) | Ast::Struct(_) | Ast::Unspecified => None,
            }
        }
    }

    fn is_index(function: &str) -> bool {
        [operators::INDEX, operators::OPT_INDEX, operators::OPT_SELECT].contains(&function)
    }
}
