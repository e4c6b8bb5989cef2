//! One event, decided again from a folder: `recount reproduce`.

mod config;
mod found;
mod readme;

use crate::cli::ConfigOption;
use crate::commands::{new_event, quoted, runtime};
use crate::config::{Config, DatabasePlace, EffectConfig, FlowConfig, FlowMode};
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring::{self, copy_database};
use clap::Args;
use config::{Changes, changed};
use found::{Found, find};
use recount_adapters::embedded_log::{EmbeddedLog, LogSettings};
use recount_checks::RawEvent;
use serde_json::json;
use std::fs::DirBuilder;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

/// The event's file, where lines can hold it.
const LINES: &str = "event.ndjson";

/// `recount reproduce`.
#[derive(Debug, Args)]
pub struct ReproduceArgs {
    /// The event: flow/partition/offset, or its id
    #[arg(value_name = "POSITION")]
    pub position: String,
    /// The folder to write; it must not be there yet [default: reproduce-FLOW-PARTITION-OFFSET]
    #[arg(long, value_name = "FOLDER")]
    pub to: Option<PathBuf>,
    /// Which config
    #[command(flatten)]
    pub config: ConfigOption,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

/// Runs the command.
pub fn command(args: &ReproduceArgs) -> Outcome {
    let config = wiring::load(&args.config.config)?;
    let ledger = wiring::read_ledger(&config.ledger)?;
    let found = find(&config, &ledger, &args.position)?;
    let name = found.decided().header.at.flow.clone();
    let folder = args.to.clone().unwrap_or_else(|| default_folder(&found));
    if folder.exists() {
        return Err(Failure::usage(format!("{} is there already: name another with --to", folder.display())));
    }
    let then = config_of_then(&config, &found);
    let flow = then
        .flow(name.as_str())
        .ok_or_else(|| Failure::not_well(format!("config {} has no flow {name}", found.config.version.0)))?;
    refuse_reported(flow)?;
    DirBuilder::new().mode(0o700).create(&folder).map_err(|error| cannot_write(&folder, &error))?;
    match write(&folder, &config, &then, flow, &found) {
        Ok(written) => tell(args, &folder, &found, &written),
        Err(failure) => {
            // Nothing that is half written stays to be taken for a whole.
            drop(std::fs::remove_dir_all(&folder));
            Err(failure)
        }
    }
}

/// Writes a file of the folder.
type Put<'a> = &'a dyn Fn(&str, &[u8]) -> Result<(), Failure>;

/// What was written, for the README and the answer.
struct Written {
    command: String,
    /// The command is a dry run.
    is_dry: bool,
    changes: Vec<String>,
    notes: Vec<String>,
}

fn default_folder(found: &Found) -> PathBuf {
    let stored = found.decided();
    let at = &stored.header.at;
    let fits = |c: char| if c.is_ascii_alphanumeric() || "._-".contains(c) { c } else { '_' };
    let partition: String = at.partition.to_string().chars().map(fits).collect();
    PathBuf::from(format!("reproduce-{}-{partition}-{}", at.flow, stored.decision.offset))
}

fn cannot_write(path: &Path, error: &dyn std::fmt::Display) -> Failure {
    Failure::unreachable(format!("{} can't be written: {error}", path.display()))
}

/// The config of the version that decided; where a schema of then is gone from the disk, that of now stands
/// in for what is asked of it here: which effect there is. What is written comes from the text of then.
fn config_of_then(config: &Config, found: &Found) -> Config {
    Config::from_text(&found.config.text, &config.path).unwrap_or_else(|_| config.clone())
}

fn refuse_reported(flow: &FlowConfig) -> Result<(), Failure> {
    match flow.mode {
        FlowMode::Report => Err(Failure::usage(format!(
            "flow {}: its own consumer decides and reports, so that only the consumer can decide it again",
            flow.spec.flow
        ))),
        FlowMode::Run | FlowMode::Observe => Ok(()),
    }
}

fn write(
    folder: &Path,
    config: &Config,
    then: &Config,
    flow: &FlowConfig,
    found: &Found,
) -> Result<Written, Failure> {
    let put = |name: &str, bytes: &[u8]| {
        std::fs::write(folder.join(name), bytes).map_err(|error| cannot_write(&folder.join(name), &error))
    };
    let mut notes = found.notes.clone();
    let database = effects_database(folder, config, then, flow)?;
    let is_dry = matches!(database, Some(Effects::Tried { .. }));
    if is_dry {
        notes.push(as_a_line(found)?);
    }
    let in_lines = is_dry || found.events.iter().all(fits_a_line);
    if in_lines {
        let lines: Vec<u8> =
            found.events.iter().flat_map(|raw| [&raw.payload, &b"\n"[..]].concat()).collect();
        put(LINES, &lines)?;
    } else {
        notes.push(beside_a_line(folder, flow, found, &put)?);
    }
    let schema = written_schema(flow, found, &put)?;
    let original = std::path::absolute(&config.path).map_err(|error| cannot_write(folder, &error))?;
    let original_folder = original.parent().unwrap_or(Path::new("/"));
    let changes = Changes {
        flow: flow.spec.flow.as_str(),
        mode: flow.mode,
        source: if in_lines { LINES } else { "-" },
        schema: schema.as_deref(),
        database: database.as_ref(),
        original_folder,
    };
    let (text, changes) = changed(&found.config.text, changes)
        .ok_or_else(|| Failure::not_well("the config of then can't be changed so that it runs alone"))?;
    let path = folder.join("recount.toml");
    put("recount.toml", format!("{}{text}", head(found, &changes)).as_bytes())?;
    Config::load(&path).map_err(|faults| {
        Failure::not_well(format!("the config of then does not run alone:\n{}", faults.render()))
    })?;
    let how = match (is_dry, in_lines) {
        (true, _) => " --dry-run",
        (false, true) => "",
        (false, false) => " < /dev/null",
    };
    let command = format!("recount run {}{how}", quoted(&path.display().to_string()));
    notes.extend(warnings(flow, found));
    let written = Written { command, is_dry, changes, notes };
    put("README.md", readme::text(found, flow, &written).as_bytes())?;
    Ok(written)
}

/// Where the run finds the effects.
#[derive(Debug)]
enum Effects {
    /// In a copy of a SQLite file, in the folder.
    Copied { name: String, file: String },
    /// In PostgreSQL as it is now, in a transaction that a dry run rolls back.
    Tried { name: String, url: String },
}

/// A dry run reads lines: what is said of an event that is more than one. One that can't be a line is refused.
fn as_a_line(found: &Found) -> Result<String, Failure> {
    if !found.events.iter().all(payload_fits_a_line) {
        return Err(Failure::usage(
            "the event's bytes can't stand in a line of a file, which is what a dry run on PostgreSQL reads; they \
             are shown by: recount dead-letters show POSITION",
        ));
    }
    let is_more = found.events.iter().any(|raw| !raw.headers.is_empty() || raw.broker_key.is_some());
    let left_out = if is_more {
        "; its headers and its key on the broker are LEFT OUT, so what looks at them may come out otherwise"
    } else {
        ""
    };
    Ok(format!(
        "its effects are in PostgreSQL, which is not copied: the run is a dry run against the rows AS OF NOW, in a \
         transaction that is rolled back{left_out}"
    ))
}

/// Whether a file of lines gives back exactly these bytes, and nothing else was delivered.
fn fits_a_line(raw: &RawEvent) -> bool {
    raw.headers.is_empty() && raw.broker_key.is_none() && payload_fits_a_line(raw)
}

fn payload_fits_a_line(raw: &RawEvent) -> bool {
    let payload = &raw.payload;
    let is_blank = payload.iter().all(|byte| matches!(byte, b' ' | b'\t' | b'\r'));
    raw.payload_bytes == payload.len() as u64
        && !is_blank
        && !payload.contains(&b'\n')
        && !payload.ends_with(b"\r")
        && !payload.starts_with(b"\xef\xbb\xbf")
        && !payload.starts_with(b"\x1f\x8b")
        && !payload.starts_with(b"\x28\xb5\x2f\xfd")
}

/// Writes what no line can hold: to the log that the run reads, and beside it for people.
fn beside_a_line(folder: &Path, flow: &FlowConfig, found: &Found, put: Put<'_>) -> Result<String, Failure> {
    put("event.bin", &found.event().payload)?;
    let headers: Vec<_> = found.event().headers.iter().map(|h| json!([h.name, h.value])).collect();
    put("headers.json", json!(headers).to_string().as_bytes())?;
    append_to_log(folder, flow, found)?;
    Ok("it has headers, or bytes that no line can hold: the run reads it from ledger/, whose embedded log holds \
        it exactly; event.bin and headers.json are for you to read"
        .to_owned())
}

/// As standard input would have been spooled, with what a line can't hold.
fn append_to_log(folder: &Path, flow: &FlowConfig, found: &Found) -> Result<(), Failure> {
    let ledger = folder.join("ledger");
    DirBuilder::new().mode(0o700).create(&ledger).map_err(|error| cannot_write(&ledger, &error))?;
    let path = EmbeddedLog::path_in(&ledger, flow.spec.flow.as_str());
    let log = EmbeddedLog::open(&path, LogSettings::default()).map_err(Failure::unreachable)?;
    let events = found.events.iter().cloned().map(new_event).collect();
    runtime()?.block_on(log.append(events)).map_err(Failure::unreachable)?;
    Ok(())
}

/// The schema that was in force, under its own name.
fn written_schema(flow: &FlowConfig, found: &Found, put: Put<'_>) -> Result<Option<String>, Failure> {
    let Some(named) = readme::schema_of(&found.config.text, flow.spec.flow.as_str()) else { return Ok(None) };
    let text = found.config.files.iter().find(|(name, _)| *name == named).map(|(_, text)| text);
    let text = text.ok_or_else(|| {
        Failure::not_well(format!("the text of {named}, the schema of then, is not in the ledger"))
    })?;
    let base = Path::new(&named).file_name().map(|name| name.to_string_lossy().into_owned());
    let name = base.unwrap_or_else(|| "schema.json".to_owned());
    put(&name, text.as_bytes())?;
    Ok(Some(name))
}

/// The effect's database as it is now.
fn effects_database(
    folder: &Path,
    config: &Config,
    then: &Config,
    flow: &FlowConfig,
) -> Result<Option<Effects>, Failure> {
    let applied = match &flow.effect {
        EffectConfig::Watched { .. } => None,
        effect => effect.in_database().map(|(name, _)| name.to_owned()),
    };
    let Some(name) = applied else { return Ok(None) };
    // Where it lies today is what the config of today says.
    let database = config.databases.get(&name).or_else(|| then.databases.get(&name));
    let database = database.ok_or_else(|| Failure::not_well(format!("no config has [database.{name}]")))?;
    let DatabasePlace::Sqlite(from) = database.place().map_err(Failure::usage)? else {
        return Ok(Some(Effects::Tried { name, url: database.url.clone() }));
    };
    let file = format!("{name}.db");
    copy_database(&from, &folder.join(&file)).map_err(|error| {
        Failure::unreachable(format!("database {name} at {} can't be copied: {error}", from.display()))
    })?;
    Ok(Some(Effects::Copied { name, file }))
}

/// What stands above the config.
fn head(found: &Found, changes: &[String]) -> String {
    let stored = found.decided();
    let position = stored.header.at.position(stored.decision.offset);
    let mut head = format!(
        "# Config {} as it was when it decided {position}, written by `recount reproduce`.\n\
         # Changed so that it runs alone; secrets stay unresolved:\n",
        found.config.version.0
    );
    for change in changes {
        head.push_str(&format!("#   {change}\n"));
    }
    head.push('\n');
    head
}

fn warnings(flow: &FlowConfig, found: &Found) -> Vec<String> {
    let mut warnings = Vec::new();
    match &flow.effect {
        EffectConfig::Http { routes, .. } => {
            let urls: Vec<&str> = routes.iter().map(|route| route.url.as_str()).collect();
            warnings.push(format!(
                "RUNNING IT CALLS THE HANDLER at {}, for real: start a handler of your own there, or change `http`",
                urls.join(", ")
            ));
        }
        EffectConfig::Handler { name, .. } => warnings.push(format!(
            "its handler {name} is in your own program: run that with this config; the command recount has no handler"
        )),
        _ => {}
    }
    let code = found.decided().decision.fate.reason().map(|reason| reason.code.to_string());
    if let Some(code @ ("retries_exhausted" | "killed_the_process" | "no_verdict" | "accepted")) =
        code.as_deref()
    {
        warnings.push(format!("{code} came of more than the event and the config, and may not come again"));
    }
    warnings
}

fn tell(args: &ReproduceArgs, folder: &Path, found: &Found, written: &Written) -> Outcome {
    let stored = found.decided();
    let position = stored.header.at.position(stored.decision.offset).to_string();
    let fate = stored.decision.fate.to_string();
    if args.json {
        let reason = stored.decision.fate.reason().map(|reason| reason.code.as_str());
        let answer = json!({
            "recount": 1,
            "command": "reproduce",
            "position": position,
            "folder": folder.display().to_string(),
            "run": written.command,
            "verdict": stored.decision.fate.word(),
            "reason": reason,
            "config": found.config.version.0,
            "notes": written.notes,
        });
        println!("{answer}");
        return Ok(Exit::Well);
    }
    println!(
        "{position} was {fate}, by config {}: {} are in {}",
        found.config.version.0,
        if written.is_dry { "event and config" } else { "event, config and database" },
        folder.display()
    );
    for note in &written.notes {
        println!("note: {note}");
    }
    println!("next: {}", written.command);
    Ok(Exit::Well)
}
