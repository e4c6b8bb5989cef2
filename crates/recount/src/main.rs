//! The recount command.

use std::panic::PanicHookInfo;
use std::process::ExitCode;

/// What a shell says of a command that was ended by a closed pipe: 128 and the number of SIGPIPE.
const PIPE_CLOSED: i32 = 141;

fn main() -> ExitCode {
    end_quietly_where_nobody_reads();
    match recount::commands::run(recount::cli::parse()) {
        Ok(exit) => exit.into(),
        Err(failure) => {
            eprintln!("{}", failure.message.trim_end());
            failure.exit.into()
        }
    }
}

/// `recount audit | head -1` closes the pipe, and `println!` panics on it. That is no defect, so it is not
/// told as one. A panic of anything else is told as always.
fn end_quietly_where_nobody_reads() {
    let told = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic: &PanicHookInfo<'_>| {
        let message = panic.payload().downcast_ref::<String>().map_or("", String::as_str);
        if message.starts_with("failed printing to std") && message.contains("Broken pipe") {
            std::process::exit(PIPE_CLOSED);
        }
        told(panic);
    }));
}
