//! Effects behind HTTP, against a small server on a socket.

mod handler;
mod trouble;
mod verdicts;
