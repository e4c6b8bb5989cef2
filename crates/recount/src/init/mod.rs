//! A config and a schema from sampled events: `recount init`.
//!
//! The sample is read as a file source reads ([`input`]), folded into what is known of each field
//! ([`profile`], [`shape`]); from that come proposals ([`identity`], [`compose`], [`suggest`]), warnings
//! ([`warn`]) and a schema ([`schema`]). What is proposed is tried on the sample ([`trial`]) before it is
//! written ([`write`]). No database is opened, and no file is overwritten unless that is asked for.

mod compose;
mod identity;
mod input;
mod learn;
mod profile;
#[cfg(test)]
mod property_tests;
mod report;
mod schema;
mod shape;
mod suggest;
mod trial;
mod warn;
mod write;

use crate::exit::{Exit, Failure, Outcome};
use clap::Args;
use input::Input;
use recount_model::FlowName;
use report::Written;
use std::io::Write as _;
use std::path::{Component, Path, PathBuf};

/// The name of the config.
const CONFIG_FILE: &str = "recount.toml";

/// `recount init`.
#[derive(Debug, Args)]
#[command(after_help = "Examples:\n  recount init --from orders.ndjson\n  \
recount init --from 'orders-*.ndjson.gz' --flow reserve-stock --folder shop\n  \
head -5000 big.log | recount init --from - --json")]
pub struct InitArgs {
    /// Sample events from this file, folder or pattern, one event a line; .gz and .zst are unpacked, - is standard input
    #[arg(long, value_name = "FILE")]
    pub from: PathBuf,
    /// Sample at most so many events
    #[arg(long, value_name = "N", default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub events: u32,
    /// The flow's name; without it, the file's without dates and endings
    #[arg(long, value_name = "NAME", value_parser = flow_name)]
    pub flow: Option<FlowName>,
    /// Write recount.toml and NAME.schema.json here
    #[arg(long, value_name = "DIR", default_value = ".")]
    pub folder: PathBuf,
    /// Overwrite files that are there
    #[arg(long)]
    pub force: bool,
    /// Print one JSON object
    #[arg(long)]
    pub json: bool,
}

fn flow_name(text: &str) -> Result<FlowName, String> {
    FlowName::new(text).map_err(|error| error.to_string())
}

/// Runs the command.
pub fn command(args: &InitArgs) -> Outcome {
    let config_path = in_folder(&args.folder, CONFIG_FILE);
    // Before anything is read, so that nobody waits for a refusal.
    refuse_existing(args, &[&config_path])?;
    let sample = input::read(&args.from, args.events as usize).map_err(Failure::usage)?;
    let from = source_path(&args.from, &args.folder)?;
    let input = match Input::of(sample, &args.from) {
        Ok(input) => input,
        Err(unusable) => {
            if args.json {
                println!("{}", report::unusable_json(&from, &unusable));
            }
            return Err(Failure::usage(unusable.sentence));
        }
    };
    let learned = learn::learn(input, &from, args.flow.as_ref())
        .map_err(|fault| Failure::usage(format!("the sample leads to a rule that can't be used: {fault}")))?;
    let schema_name = learned.schema.is_some().then(|| format!("{}.schema.json", learned.flow));
    let schema_path = schema_name.as_ref().map(|name| in_folder(&args.folder, name));
    let paths: Vec<&PathBuf> = [Some(&config_path), schema_path.as_ref()].into_iter().flatten().collect();
    refuse_existing(args, &paths)?;
    let config = write::config(&learned, schema_name.as_deref());
    std::fs::create_dir_all(&args.folder).map_err(|error| {
        Failure::usage(format!("the folder {} can't be made: {error}", args.folder.display()))
    })?;
    if let (Some(path), Some(schema)) = (&schema_path, &learned.schema) {
        save(path, &format!("{schema:#}\n"), args.force)?;
    }
    save(&config_path, &config, args.force)?;
    let written = Written { config: config_path, schema: schema_path };
    if args.json {
        println!("{}", report::json(&learned, &written));
    } else {
        print!("{}", report::text(&learned, &written));
    }
    Ok(Exit::Well)
}

fn in_folder(folder: &Path, name: &str) -> PathBuf {
    if folder == Path::new(".") { PathBuf::from(name) } else { folder.join(name) }
}

fn refuse_existing(args: &InitArgs, paths: &[&PathBuf]) -> Result<(), Failure> {
    if args.force {
        return Ok(());
    }
    // A link that leads nowhere is there too.
    let there = paths.iter().find(|path| path.symlink_metadata().is_ok());
    there.map_or(Ok(()), |path| {
        Err(Failure::usage(format!(
            "{} is there already, and nothing was written: --folder DIR writes elsewhere, --flow NAME names the flow and \
             its schema otherwise, --force overwrites",
            path.display()
        )))
    })
}

/// Writes a file whole or not at all.
fn save(path: &Path, text: &str, force: bool) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt;
    let failed =
        |error: std::io::Error| Failure::usage(format!("{} can't be written: {error}", path.display()));
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let readable = std::fs::Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().permissions(readable).tempfile_in(folder).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    let kept = if force { file.persist(path) } else { file.persist_noclobber(path) };
    kept.map(drop).map_err(|error| failed(error.error))
}

/// The sampled path as the config names it: relative to the config's folder, unless it is absolute.
fn source_path(from: &Path, folder: &Path) -> Result<String, Failure> {
    let text = |path: &Path| {
        path.to_str().map(str::to_owned).ok_or_else(|| {
            Failure::usage(format!(
                "the path {} is not UTF-8, and so can't stand in a config: rename it",
                path.display()
            ))
        })
    };
    if from.is_absolute() || from == Path::new("-") || folder == Path::new(".") {
        return text(from);
    }
    let here = std::env::current_dir()
        .map_err(|error| Failure::usage(format!("this folder can't be told: {error}")))?;
    let (from, folder) = (plain(&here.join(from)), plain(&here.join(folder)));
    let shared = from.components().zip(folder.components()).take_while(|(a, b)| a == b).count();
    let up = folder.components().skip(shared).map(|_| Component::ParentDir);
    let relative: PathBuf = up.chain(from.components().skip(shared)).collect();
    text(if relative.as_os_str().is_empty() { Path::new(".") } else { &relative })
}

/// Without `.` and, where that can be told from the text, `..`.
fn plain(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for component in path.components() {
        match component {
            Component::CurDir => {}
            Component::ParentDir => drop(plain.pop()),
            other => plain.push(other),
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_source_is_named_from_where_the_config_stands() {
        for (from, folder, expected) in [
            ("orders.ndjson", ".", "orders.ndjson"),
            ("orders.ndjson", "shop", "../orders.ndjson"),
            ("shop/orders.ndjson", "shop", "orders.ndjson"),
            ("data/a-*.ndjson", "./shop/flow", "../../data/a-*.ndjson"),
            ("shop", "shop", "."),
            ("/data/orders.ndjson", "shop", "/data/orders.ndjson"),
            ("-", "shop", "-"),
        ] {
            assert_eq!(source_path(Path::new(from), Path::new(folder)).unwrap(), expected, "{from} {folder}");
        }
    }
}
