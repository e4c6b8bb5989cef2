//! The adapters against real files, databases and sockets.

mod embedded_log;
mod file_follow;
mod file_source;
mod http_source;
mod support;
