//! Expressions: CEL, parsed by the `cel` crate, evaluated over borrowed JSON by ourselves.

mod compile;
mod error;
mod eval;
mod library;
mod node;
mod number;
mod path;
mod value;

pub(crate) use error::EvalError;
pub(crate) use eval::Scope;
pub use path::{FieldPath, Root, Segment};
pub(crate) use value::{Val, identifying_text};

use cel::parser::Parser;
use compile::{Compiler, Refusal, paths};
use library::Library;
use node::Node;

/// The longest expression, in bytes.
pub const EXPRESSION_BYTES_MAX: usize = 4096;

/// How deep the parts of an expression may lie within each other: evaluating goes as deep.
pub const DEPTH_MAX: usize = 100;

/// The most operators, dots and opening brackets: parsing goes as deep.
pub const OPERATORS_MAX: usize = 300;

/// An expression, ready to be evaluated.
#[derive(Debug)]
pub(crate) struct Expr {
    /// As it was written.
    pub text: Box<str>,
    /// The fields that it names.
    pub paths: Vec<FieldPath>,
    plan: Plan,
}

#[derive(Debug)]
enum Plan {
    Own(Node),
    Library(Library),
}

impl Expr {
    /// Parses and compiles. The error says what to write instead.
    pub fn compile(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty; write an expression such as event.id".to_owned());
        }
        if text.len() > EXPRESSION_BYTES_MAX {
            return Err(format!("it is {} bytes long; the longest is {EXPRESSION_BYTES_MAX}", text.len()));
        }
        let operators = operators(text);
        if operators > OPERATORS_MAX {
            return Err(format!(
                "it has {operators} operators, dots and brackets; the most is {OPERATORS_MAX}"
            ));
        }
        let parsed = parse(text)?;
        if depth(&parsed) > DEPTH_MAX {
            return Err(format!("it is nested deeper than {DEPTH_MAX} levels; write it as several checks"));
        }
        let mut collector = paths::Collector::default();
        collector.record(&parsed);
        let mut compiler = Compiler::default();
        let plan = match compiler.node(&parsed) {
            Ok(node) => Plan::Own(node),
            Err(Refusal::Wrong(message)) => return Err(message),
            Err(Refusal::Library(what)) if goes_through_lists(&parsed) => {
                return Err(format!("{what} can't be used together with all, exists, map or filter"));
            }
            Err(Refusal::Library(_)) => Plan::Library(Library::new(parsed, &collector.found)),
        };
        Ok(Self { text: text.into(), paths: collector.found, plan })
    }

    /// As [`compile`](Self::compile); an expression that can't give a truth value is an error too.
    pub fn compile_test(text: &str) -> Result<Self, String> {
        let expr = Self::compile(text)?;
        match &expr.plan {
            Plan::Own(node) if !compile::may_be_bool(node) => {
                Err("it never gives true or false; compare it with something".to_owned())
            }
            _ => Ok(expr),
        }
    }

    /// The value for what the scope shows.
    pub fn evaluate<'a>(&'a self, scope: &mut Scope<'a>) -> Result<Val<'a>, EvalError<'a>> {
        match &self.plan {
            Plan::Own(node) => scope.evaluate(node),
            Plan::Library(library) => library.evaluate(scope),
        }
    }

    /// Whether the CEL library has to evaluate it.
    #[cfg(test)]
    pub fn needs_library(&self) -> bool {
        matches!(self.plan, Plan::Library(_))
    }
}

/// How many operators, dots and opening brackets there are outside of quotes; what is more than one
/// character long may count twice.
fn operators(text: &str) -> usize {
    let counts = |c: char| usize::from("+-*/%.([{?!<>=&|".contains(c));
    // Raw and triple quotes end differently; what stands in them is then counted too.
    if ["'''", "\"\"\"", "r'", "r\"", "R'", "R\""].iter().any(|mark| text.contains(mark)) {
        return text.chars().map(counts).sum();
    }
    let (mut count, mut quote, mut escaped) = (0, None, false);
    for c in text.chars() {
        match quote {
            Some(_) if escaped => escaped = false,
            Some(_) if c == '\\' => escaped = true,
            Some(opened) if c == opened => quote = None,
            Some(_) => {}
            None if c == '"' || c == '\'' => quote = Some(c),
            None => count += counts(c),
        }
    }
    count
}

fn parse(text: &str) -> Result<cel::IdedExpr, String> {
    // The parser is not ours: a panic in it is a fault of the expression, not of the process.
    let parsed = std::panic::catch_unwind(|| Parser::new().enable_optional_syntax(true).parse(text));
    match parsed {
        Ok(Ok(parsed)) => Ok(parsed),
        Ok(Err(errors)) => Err(match errors.errors.first() {
            Some(error) => format!("it is not CEL: {} (column {})", one_line(&error.msg), error.pos.1),
            None => "it is not CEL".to_owned(),
        }),
        Err(_) => Err("it is not CEL".to_owned()),
    }
}

fn one_line(message: &str) -> String {
    message.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The parts that an expression is made of.
fn parts(expr: &cel::IdedExpr) -> Vec<&cel::IdedExpr> {
    use cel::common::ast::Expr as Ast;
    match &expr.expr {
        Ast::Comprehension(made) => vec![&made.iter_range, &made.loop_step, &made.result],
        Ast::Call(call) => call.target.as_deref().into_iter().chain(&call.args).collect(),
        Ast::Select(select) => vec![&select.operand],
        Ast::List(list) => list.elements.iter().collect(),
        Ast::Map(map) => map.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Ast::Struct(made) => made.entries.iter().flat_map(|entry| entry_parts(&entry.expr)).collect(),
        Ast::Ident(_) | Ast::Literal(_) | Ast::Unspecified => Vec::new(),
    }
}

fn entry_parts(entry: &cel::common::ast::EntryExpr) -> Vec<&cel::IdedExpr> {
    use cel::common::ast::EntryExpr;
    match entry {
        EntryExpr::MapEntry(entry) => vec![&entry.key, &entry.value],
        EntryExpr::StructField(field) => vec![&field.value],
    }
}

fn depth(expr: &cel::IdedExpr) -> usize {
    1 + parts(expr).into_iter().map(depth).max().unwrap_or(0)
}

fn goes_through_lists(expr: &cel::IdedExpr) -> bool {
    matches!(expr.expr, cel::common::ast::Expr::Comprehension(_))
        || parts(expr).into_iter().any(goes_through_lists)
}

/// The `event.…` paths that an expression names, so that they can be looked up in a schema; items of a
/// list are written `[]`.
///
/// # Errors
/// What is wrong with the expression, and what to write instead.
pub fn fields_named(expr: &str) -> Result<Vec<String>, String> {
    let expr = Expr::compile(expr)?;
    Ok(expr.paths.iter().filter(|path| path.root == Root::Event).map(FieldPath::to_string).collect())
}

/// Whether an expression reads one of the paths of `secret` (`event.customer_id`, `meta.headers.token`),
/// something that holds it, or something in it; places in lists apart.
pub fn reads_any_of(expr: &str, secret: &[String]) -> bool {
    let Ok(expr) = Expr::compile(expr) else { return false };
    let hidden: Vec<FieldPath> = secret.iter().filter_map(|path| FieldPath::parse(path)).collect();
    expr.paths.iter().any(|path| hidden.iter().any(|hidden| path.overlaps(hidden)))
}

#[cfg(test)]
mod tests;
