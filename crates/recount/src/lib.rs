//! Consumes events and says what it did with every one of them.

pub mod cli;
mod client;
pub mod commands;
pub mod config;
pub mod exit;
pub mod explain;
mod logging;
mod metrics;
mod replaying;
mod server;
mod steps;
pub mod validate;
mod wiring;
