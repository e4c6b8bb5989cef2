//! `recount story`.

use crate::cli::StoryArgs;
use crate::config::Config;
use crate::exit::{Exit, Outcome};
use crate::wiring::{self, ledger_failure};
use recount_story::{Secrets, StoryOptions};

/// Tells what was decided about a key, an id or a position.
pub fn story(args: &StoryArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    let ledger = wiring::read_ledger(&config.ledger)?;
    let options = StoryOptions { all: args.all, secrets: secrets(&config), ..StoryOptions::default() };
    let story = recount_story::story(&ledger, &args.key, &options).map_err(ledger_failure)?;
    if args.json {
        println!("{}", story.json());
    } else {
        print!("{}", recount_story::render::text(&story));
    }
    Ok(if story.is_empty() { Exit::NotWell } else { Exit::Well })
}

/// What the config calls secret.
pub fn secrets(config: &Config) -> Secrets {
    let mut secrets = Secrets::default();
    for flow in &config.flows {
        let name = &flow.spec.flow;
        secrets.paths.insert(name.clone(), flow.rules.secret.clone());
        if flow.spec.id_is_secret {
            secrets.ids.insert(name.clone());
        }
        if flow.spec.key_is_secret {
            secrets.keys.insert(name.clone());
        }
    }
    secrets
}
