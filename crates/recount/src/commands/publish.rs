//! `recount publish`: events into a flow's embedded log, the same that its HTTP source writes; or into a topic.

use crate::cli::PublishArgs;
use crate::config::SourceConfig;
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring::source::open_log;
use crate::wiring::{self, now};
use recount_adapters::embedded_log::NewEvent;
use serde_json::json;
use std::io::{BufRead, BufReader, Read};

/// Lines that share a commit.
const LINES_A_COMMIT: usize = 1000;

/// Appends each line as one event and prints where they stand.
pub fn publish(args: &PublishArgs) -> Outcome {
    if let Some(to) = &args.to {
        return to_topic(args, to);
    }
    let config = wiring::load(&args.config.config)?;
    let name = args.flow.as_deref().unwrap_or_default();
    let flow = wiring::flow(&config, name)?;
    #[cfg(feature = "kafka")]
    if let SourceConfig::Kafka { broker, topic, .. } = &flow.source {
        return super::publish_topic::to_flow(args, &config, flow, broker, topic);
    }
    if !matches!(flow.source, SourceConfig::Http { .. }) {
        return Err(Failure::usage(format!(
            "flow {name} reads neither an embedded log nor a topic: flows with source = {{ http = … }} or a broker's \
             topic can be published to"
        )));
    }
    if args.key.is_some() {
        return Err(Failure::usage("--key is for topics: an embedded log has one partition"));
    }
    std::fs::create_dir_all(&config.ledger.path).map_err(Failure::unreachable)?;
    let log = open_log(&config, flow)?;
    let bytes_max = flow.spec.take.payload_bytes_max;
    let mut lines = input(args)?;
    let mut published = 0_u64;
    let mut first = None;
    loop {
        let events = take_lines(&mut lines, bytes_max).map_err(|error| {
            Failure::usage(format!(
                "{} can't be read: {error}; {published} events were published",
                args.file.display()
            ))
        })?;
        if events.is_empty() {
            break;
        }
        let offsets = log.append_blocking(events).map_err(|error| {
            Failure::unreachable(format!("{error}; {published} events were published before"))
        })?;
        first.get_or_insert(offsets.start);
        published += offsets.end - offsets.start;
    }
    let from = first.unwrap_or(0);
    let name = &flow.spec.flow;
    if args.json {
        let receipt = json!({ "from": from, "to": from + published, "events": published });
        println!(
            "{}",
            json!({ "recount": 1, "command": "publish", "flow": name.as_str(), "receipt": receipt })
        );
    } else if published == 0 {
        println!("nothing to publish: the input holds no line");
    } else {
        println!("{published} events published: {name}/0/{from} to {name}/0/{}", from + published - 1);
    }
    Ok(Exit::Well)
}

#[cfg(feature = "kafka")]
fn to_topic(args: &PublishArgs, to: &[String]) -> Outcome {
    super::publish_topic::to_topic(args, to)
}

#[cfg(not(feature = "kafka"))]
fn to_topic(_: &PublishArgs, _: &[String]) -> Outcome {
    Err(Failure::usage("this program was built without Kafka: --to needs it"))
}

pub(super) fn input(args: &PublishArgs) -> Result<Box<dyn BufRead>, Failure> {
    if args.file.as_os_str() == "-" {
        return Ok(Box::new(BufReader::new(std::io::stdin())));
    }
    let file = std::fs::File::open(&args.file)
        .map_err(|error| Failure::usage(format!("{} can't be opened: {error}", args.file.display())))?;
    Ok(Box::new(BufReader::new(file)))
}

/// Up to a commit's worth of lines; blank ones carry no event. A longer line than the flow takes is kept up
/// to its limit, and its length told, so that the flow can say that it was too large.
fn take_lines(mut lines: &mut dyn BufRead, bytes_max: usize) -> std::io::Result<Vec<NewEvent>> {
    let mut events = Vec::new();
    while events.len() < LINES_A_COMMIT {
        let mut line = Vec::new();
        let kept_max = bytes_max as u64 + 1;
        let read = Read::take(&mut lines, kept_max).read_until(b'\n', &mut line)?;
        if read == 0 {
            break;
        }
        let mut bytes = read as u64;
        let is_whole = line.last() == Some(&b'\n') || bytes < kept_max;
        if !is_whole {
            bytes += skip_line(lines)?;
        }
        while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
            line.pop();
            bytes -= 1;
        }
        if line.iter().all(u8::is_ascii_whitespace) {
            continue;
        }
        events.push(NewEvent { payload_bytes: bytes, ..NewEvent::new(line, now()) });
    }
    Ok(events)
}

/// Passes over the rest of a line; returns how many bytes that were, without the newline.
fn skip_line(lines: &mut dyn BufRead) -> std::io::Result<u64> {
    let mut skipped = 0;
    loop {
        let buffer = lines.fill_buf()?;
        if buffer.is_empty() {
            return Ok(skipped);
        }
        match buffer.iter().position(|byte| *byte == b'\n') {
            Some(end) => {
                lines.consume(end + 1);
                return Ok(skipped + end as u64);
            }
            None => {
                let all = buffer.len();
                lines.consume(all);
                skipped += all as u64;
            }
        }
    }
}
