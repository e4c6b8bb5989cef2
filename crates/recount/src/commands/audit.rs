//! `recount audit`.

use crate::cli::AuditArgs;
use crate::exit::{Exit, Outcome};
use crate::wiring;
use crate::wiring::audit::{AuditOptions, count_again, tell_paused};

/// Counts again, once, and reads every event that the source still has.
pub fn audit(args: &AuditArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    let options = AuditOptions { identified: true, names_max: args.names };
    let mut report = count_again(&config, &[], options)?;
    tell_paused(&config, &mut report)?;
    if args.json {
        println!("{}", report.json());
    } else {
        print!("{}", recount_audit::render::text(&report));
    }
    Ok(Exit::from_code(i32::from(report.exit_code())))
}
