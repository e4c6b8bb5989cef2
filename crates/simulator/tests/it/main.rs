//! The simulated file system under real SQLite, and seeds of the whole.

#![allow(clippy::unwrap_used)]

mod filesystem;
mod seeds;
