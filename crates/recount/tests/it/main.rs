//! The real binary, on real files and databases: what it prints, records and leaves behind.
#![allow(clippy::unwrap_used)]

mod bad_input;
mod behaviour;
mod budgets;
mod config_faults;
mod demo;
mod documents;
mod duplicates;
mod faces;
mod files;
#[cfg(feature = "kafka")]
mod group;
mod handler;
mod handlers;
mod harness;
mod http_server;
mod init;
mod json_reference;
#[cfg(feature = "kafka")]
mod kafka;
#[cfg(feature = "kafka")]
mod kafka_gaps;
#[cfg(feature = "kafka")]
mod kafka_letters;
mod languages;
mod ledger_trouble;
mod observe;
#[cfg(feature = "kafka")]
mod observe_kafka;
mod operating;
mod postgres;
mod postgres_ledger;
mod postgres_tools;
#[cfg(feature = "kafka")]
mod publish_topic;
mod replays;
mod report;
mod reproduce;
#[cfg(feature = "kafka")]
mod secure;
mod sources;
mod spans;
mod status;
mod wrong_worlds;
