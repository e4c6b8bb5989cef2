//! Stories and dead letters from records in memory.
#![allow(clippy::unwrap_used, reason = "a test that can't build its world must fail")]

#[path = "../../../audit/tests/it/memory.rs"]
mod memory;
mod on_disk;
mod stories;
