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
        let parsed = parse(text)?;
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

fn goes_through_lists(expr: &cel::IdedExpr) -> bool {
    use cel::common::ast::{EntryExpr, Expr as Ast};
    match &expr.expr {
        Ast::Comprehension(_) => true,
        Ast::Call(call) => {
            call.target.iter().any(|target| goes_through_lists(target))
                || call.args.iter().any(goes_through_lists)
        }
        Ast::Select(select) => goes_through_lists(&select.operand),
        Ast::List(list) => list.elements.iter().any(goes_through_lists),
        Ast::Map(map) => map.entries.iter().any(|entry| match &entry.expr {
            EntryExpr::MapEntry(entry) => goes_through_lists(&entry.key) || goes_through_lists(&entry.value),
            EntryExpr::StructField(field) => goes_through_lists(&field.value),
        }),
        _ => false,
    }
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

#[cfg(test)]
mod tests;
