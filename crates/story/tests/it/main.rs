//! Stories and dead letters from records in memory.

#[path = "../../../audit/tests/it/memory.rs"]
mod memory;
mod stories;
