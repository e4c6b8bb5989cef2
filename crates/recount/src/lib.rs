//! Consumes events and says what it did with every one of them.
//!
//! This crate is the `recount` command and the one public library. A program of one's own writes a
//! [`Handler`] (an event that went through the checks and a transaction in hand, a [`Verdict`] out) and runs
//! a [`Flow`] with it. Everything else is as with the command: the config says where events come from, how
//! they are checked and which reasons may be given; each decision is in the ledger; and the books are
//! counted again at the end. `recount audit`, `story`, `dead-letters` and the others work on the ledger of
//! such a program too, and those that write ask it while it runs.
//!
#![doc = include_str!("library_example.md")]
//!
//! A verdict other than `applied` can't be written without a reason:
//!
//! ```compile_fail,E0061
//! let verdict: recount::Verdict = recount::Verdict::skip();
//! ```
//!
//! ```compile_fail,E0308
//! let verdict: recount::Verdict = recount::Verdict::DeadLetter;
//! ```
//!
//! a delivery can't be settled twice:
//!
//! ```compile_fail,E0382
//! fn twice(delivery: recount::Delivery) -> (recount::Settled, recount::Settled) {
//!     (delivery.settle(), delivery.settle())
//! }
//! ```
//!
//! and a handler can't end without a verdict:
//!
//! ```compile_fail,E0308
//! use recount::{Checked, Event, Handler, HandlerError, Transaction, Verdict, async_trait};
//! struct Forgetful;
//! #[async_trait]
//! impl Handler for Forgetful {
//!     async fn handle(&self, event: &Checked<Event>, _: &mut dyn Transaction) -> Result<Verdict, HandlerError> {
//!         if event.data["quantity"] == 0 {
//!             return Ok(()); // the line that this project exists to abolish
//!         }
//!         Ok(Verdict::applied())
//!     }
//! }
//! ```

pub mod cli;
mod client;
pub mod commands;
pub mod config;
mod demo;
pub mod exit;
pub mod explain;
mod init;
mod library;
mod logging;
mod metrics;
mod replaying;
mod reproduce;
mod server;
mod spans;
mod status;
mod steps;
pub mod validate;
mod wiring;

pub use async_trait::async_trait;
pub use library::{Flow, FlowError, FlowRun, RunReport};
pub use recount_audit::AuditReport;
pub use recount_checks::{Checked, Event};
#[doc = include_str!("handler_example.md")]
pub use recount_engine::Handler;
pub use recount_engine::{Delivery, FlowCounts, FlowEnd, HandlerError, Settled, Stop, Transaction};
pub use recount_model::{Reason, ReasonCode, Value, Verdict};
