//! Effects on SQLite, on real files in temporary folders.

mod arbiter;
mod equivalence;
mod faults;
mod fencing;
mod handlers;
mod opening;
mod outcomes;
mod speed;
mod witness;
