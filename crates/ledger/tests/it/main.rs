//! The ledger as its users meet it: over real files in temporary folders.

mod codec;
mod corruption;
mod crash;
mod data;
mod exported;
mod fixture;
mod forgetting;
mod independent;
mod sealing;
mod writing;
