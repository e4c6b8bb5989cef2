//! The audit against worlds that are right, and worlds that are wrong.

mod memory;
mod on_disk;
mod world;
mod wrong_worlds;
