//! Consumes events and says what it did with every one of them.

pub mod cli;
mod client;
pub mod commands;
pub mod config;
pub mod exit;
mod logging;
mod metrics;
mod replaying;
mod server;
mod steps;
mod wiring;
