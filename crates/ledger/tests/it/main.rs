//! The ledger as its users meet it: over real files in temporary folders.

// Helpers of tests unwrap too, and the lint only knows test functions.
#![allow(clippy::unwrap_used)]

mod codec;
mod corruption;
mod crash;
mod data;
mod exported;
mod fixture;
mod forgetting;
mod independent;
mod measured;
mod sealing;
mod writing;
