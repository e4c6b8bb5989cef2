//! The audit against worlds that are right, and worlds that are wrong.
#![allow(clippy::unwrap_used, reason = "a test that can't build its world must fail")]

mod memory;
mod on_disk;
mod world;
mod wrong_worlds;
