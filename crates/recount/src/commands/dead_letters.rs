//! `recount dead-letters`.

use super::names::{flow_name, reason_code};
use super::story::secrets;
use crate::cli::DeadLettersCommand;
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring::{self, ledger_failure};
use recount_story::{LetterFilter, dead_letters as list, show};

/// Lists dead letters, or shows one whole.
pub fn dead_letters(command: &DeadLettersCommand) -> Outcome {
    match command {
        DeadLettersCommand::List { flow, reason, limit, config, json } => {
            let config = wiring::load(&config.config)?;
            let ledger = wiring::read_ledger(&config.ledger)?;
            let flow = flow.as_deref().map(|name| flow_name(&config, &ledger, name)).transpose()?;
            let code = |code: &str| reason_code(&config, &ledger, flow.as_ref(), code);
            let reason = reason.as_deref().map(code).transpose()?;
            let filter = LetterFilter { flow, reason, letters_max: *limit, ..LetterFilter::default() };
            let letters = list(&ledger, &filter, &secrets(&config)).map_err(ledger_failure)?;
            if *json {
                println!("{}", letters.json());
            } else {
                print!("{}", letters.text());
            }
            Ok(Exit::Well)
        }
        DeadLettersCommand::Show { id, config, json } => {
            let config = wiring::load(&config.config)?;
            let ledger = wiring::read_ledger(&config.ledger)?;
            let letter = show(&ledger, id, &secrets(&config)).map_err(ledger_failure)?;
            let Some(letter) = letter else {
                return Err(Failure::not_well(format!(
                    "{id} is no dead letter: recount dead-letters list shows them, recount story {id} tells what it is"
                )));
            };
            if *json {
                println!("{}", letter.json());
            } else {
                print!("{}", letter.text());
            }
            Ok(Exit::Well)
        }
    }
}
