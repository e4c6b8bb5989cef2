//! The simulated file system under real SQLite.

#![allow(clippy::unwrap_used)]

mod filesystem;
