//! Effects written in Rust.

use async_trait::async_trait;
use recount_checks::{Checked, Event};
use recount_model::{Value, Verdict};

/// Why a statement of a handler failed.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct HandlerError {
    /// What the database said.
    pub message: String,
    /// Whether it is the event's fault (constraint, range, type) and not the database's state.
    pub data_fault: bool,
}

/// A transaction in hand, of whatever database the flow has. The handler neither commits nor rolls back:
/// the verdict does.
#[async_trait]
pub trait Transaction: Send {
    /// Runs a statement with named parameters (`:sku`); returns the rows it changed.
    async fn execute(&mut self, sql: &str, params: &[(&str, Value)]) -> Result<u64, HandlerError>;

    /// The first row of a query, or `None`.
    async fn query_row(
        &mut self,
        sql: &str,
        params: &[(&str, Value)],
    ) -> Result<Option<Vec<Value>>, HandlerError>;
}

/// An effect in Rust: an event that went through the checks, a transaction in hand, a verdict out.
///
/// * On `Ok(verdict)` other than `Applied`, everything the handler did for this event is undone.
/// * On `Err` with `data_fault`, the event is dead-lettered `statement_failed`; otherwise the batch is
///   undone and tried again, and the flow pauses if that goes on.
/// * A panic dead-letters the event, `handler_panicked`.
/// * It may be called again for an event whose transaction did not commit: effects outside the transaction
///   must bear that.
///
/// A verdict that isn't `Applied` can't be written without a reason:
///
/// ```compile_fail
/// use recount_model::Verdict;
/// let verdict = Verdict::Skip;              // expected a Reason
/// let verdict: Verdict = Verdict::skip();   // takes a code and a sentence
/// ```
#[async_trait]
pub trait Handler: Send + Sync {
    /// Handles one event.
    async fn handle(
        &self,
        event: &Checked<Event>,
        transaction: &mut dyn Transaction,
    ) -> Result<Verdict, HandlerError>;
}
