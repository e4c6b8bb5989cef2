//! Asking a running instance.

use crate::config::Config;
use crate::exit::Failure;
use crate::wiring::{OpenLedger, control_token_path, open_ledger};
use serde_json::Value;
use std::time::Duration;

/// A replay may take a while; nothing else does.
const ANSWER_MAX: Duration = Duration::from_secs(600);
/// How long a question without consequences may take.
const QUESTION_MAX: Duration = Duration::from_secs(60);
/// The file in the ledger's folder that says where the instance listens.
const ADDRESS_FILE: &str = "address";

/// Who does a command that writes.
pub enum Writer {
    /// No instance runs: this process, which now holds the ledger.
    Us(Box<OpenLedger>),
    /// The instance that holds the ledger.
    Instance(Instance),
}

/// A running instance.
pub struct Instance {
    address: String,
    token: String,
}

/// Takes the ledger's lock, or finds the instance that has it.
pub fn writer(config: &Config) -> Result<Writer, Failure> {
    if !config.ledger.path.is_dir() {
        let message =
            format!("there is no ledger at {} yet: recount run makes it", config.ledger.path.display());
        return Err(Failure::unreachable(message));
    }
    match open_ledger(&config.ledger) {
        Ok(ledger) => Ok(Writer::Us(Box::new(ledger))),
        Err(locked) => {
            let read = |path: std::path::PathBuf| std::fs::read_to_string(path).ok();
            let address = read(config.ledger.path.join(ADDRESS_FILE));
            match (address, read(control_token_path(config))) {
                (Some(address), Some(token)) => {
                    let (address, token) = (address.trim().to_owned(), token.trim().to_owned());
                    Ok(Writer::Instance(Instance { address, token }))
                }
                _ => Err(locked),
            }
        }
    }
}

/// Asks an instance something that needs no token; gives the JSON of its answer.
pub fn get_json(url: &str, path: &str) -> Result<Value, Failure> {
    if !url.starts_with("http://") {
        return Err(Failure::usage(format!(
            "{url:?} is no address of an instance: write http://127.0.0.1:7601"
        )));
    }
    let unreachable = |error: &dyn std::fmt::Display| {
        Failure::unreachable(format!("the instance at {url} can't be asked: {error}"))
    };
    let agent: ureq::Agent = ureq::Agent::config_builder()
        .timeout_global(Some(QUESTION_MAX))
        .http_status_as_error(false)
        .build()
        .into();
    let mut answer = agent.get(format!("{url}{path}")).call().map_err(|error| unreachable(&error))?;
    let text = answer.body_mut().read_to_string().map_err(|error| unreachable(&error))?;
    if !answer.status().is_success() {
        let json: Value = serde_json::from_str(&text).unwrap_or_default();
        let sentence = json["error"].as_str().map_or_else(|| answer.status().to_string(), ToOwned::to_owned);
        return Err(Failure::unreachable(format!("the instance at {url} can't say: {sentence}")));
    }
    serde_json::from_str(&text).map_err(|error| unreachable(&error))
}

impl Instance {
    /// Posts JSON to a path, and gives the JSON of the answer.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Failure> {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .timeout_global(Some(ANSWER_MAX))
            .http_status_as_error(false)
            .build()
            .into();
        let sent = agent
            .post(format!("{}{path}", self.address))
            .header("authorization", format!("Bearer {}", self.token))
            .header("content-type", "application/json")
            .send(body.to_string());
        let unreachable = |error: &dyn std::fmt::Display| {
            Failure::unreachable(format!("the instance at {} can't be asked: {error}", self.address))
        };
        let mut answer = sent.map_err(|error| unreachable(&error))?;
        let text = answer.body_mut().read_to_string().map_err(|error| unreachable(&error))?;
        let json: Value = serde_json::from_str(&text).map_err(|error| unreachable(&error))?;
        if answer.status().is_success() {
            return Ok(json);
        }
        let sentence = json["error"].as_str().unwrap_or("no reason was given");
        Err(Failure::not_well(format!("the instance at {} refused: {sentence}", self.address)))
    }
}
