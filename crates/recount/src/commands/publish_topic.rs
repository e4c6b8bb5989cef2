//! `recount publish` to a topic: with an idempotent producer, and a receipt for each partition.

use crate::cli::PublishArgs;
use crate::config::{Config, FlowConfig};
use crate::exit::{Exit, Failure, Outcome};
use crate::wiring;
use indicatif::ProgressBar;
use recount_adapters::kafka::{PublishError, Receipt, TopicPublisher};
use serde_json::{Value, json};
use std::io::{BufRead, IsTerminal, Read};

/// A longer line is no event that a broker would take.
const LINE_BYTES_MAX: u64 = 64 << 20;
/// So often the number of lines is shown, on a terminal.
const SHOWN_EVERY_LINES: u64 = 1000;

/// Where to, and by which field of an event its record gets its key.
struct Target<'c> {
    broker: &'c str,
    topic: &'c str,
    key: Option<String>,
    flow: Option<&'c FlowConfig>,
}

/// The topic that a flow reads.
pub(super) fn to_flow(
    args: &PublishArgs,
    config: &Config,
    flow: &FlowConfig,
    broker: &str,
    topic: &str,
) -> Outcome {
    // Events that belong together must be in one partition, or the flow can't keep their order.
    let key = args.key.clone().or_else(|| flow.rules.key.clone().filter(|key| is_field(key)));
    publish(args, config, &Target { broker, topic, key, flow: Some(flow) })
}

/// A broker of the config, or `host:port`, and a topic.
pub(super) fn to_topic(args: &PublishArgs, to: &[String]) -> Outcome {
    let [broker, topic] = to else {
        return Err(Failure::usage("--to takes a broker and a topic: --to main orders"));
    };
    let target = Target { broker, topic, key: args.key.clone(), flow: None };
    if broker.contains(':') {
        let broker = recount_adapters::kafka::KafkaBroker::new(broker);
        return through(args, TopicPublisher::open(&broker, topic), &target);
    }
    publish(args, &wiring::load(&args.config.config)?, &target)
}

fn publish(args: &PublishArgs, config: &Config, target: &Target<'_>) -> Outcome {
    let broker = wiring::broker(config, target.broker)?;
    through(args, TopicPublisher::open(&broker, target.topic), target)
}

fn through(args: &PublishArgs, opened: Result<TopicPublisher, PublishError>, target: &Target<'_>) -> Outcome {
    let publisher = opened.map_err(|error| match error {
        PublishError::Settings(_) => Failure::usage(format!("broker {}: {error}", target.broker)),
        PublishError::Unreachable(_) | PublishError::NoSuchTopic { .. } => Failure::unreachable(error),
    })?;
    let mut lines = super::publish::input(args)?;
    let bar = match std::io::stderr().is_terminal() {
        true => ProgressBar::new_spinner(),
        false => ProgressBar::hidden(),
    };
    let (mut number, mut sent, mut stopped) = (0, 0, None);
    while stopped.is_none() && !publisher.has_refused() {
        number += 1;
        match next(&mut lines, target.key.as_deref()) {
            Ok(None) => break,
            Ok(Some(line)) if line.payload.iter().all(u8::is_ascii_whitespace) => {}
            Ok(Some(Line { key, payload })) => {
                sent += u64::from(publisher.send(number, key.as_deref(), &payload));
            }
            Err(why) => stopped = Some(format!("line {number}: {why}")),
        }
        if number % SHOWN_EVERY_LINES == 0 {
            bar.set_message(format!("{number} lines sent"));
            bar.tick();
        }
    }
    let receipt = publisher.finish();
    bar.finish_and_clear();
    tell(args, target, &receipt, sent);
    let unheard = sent.saturating_sub(receipt.acknowledged() + receipt.refused);
    if unheard > 0 {
        return Err(Failure::not_well(format!(
            "of {unheard} lines the client said neither that they stand in the topic nor that they don't: look there \
             before anything is published again"
        )));
    }
    if let Some(why) = stopped {
        return Err(Failure::usage(format!(
            "{why}; the {} lines before it that are acknowledged stand in the topic, and nothing from it on was sent",
            receipt.acknowledged()
        )));
    }
    match receipt.refused {
        0 => Ok(Exit::Well),
        _ => Ok(Exit::NotWell),
    }
}

/// A line without its end, and the key of its record.
struct Line {
    key: Option<String>,
    payload: Vec<u8>,
}

/// The next line; `None` at the end.
fn next(lines: &mut dyn BufRead, key: Option<&str>) -> Result<Option<Line>, String> {
    let mut line = Vec::new();
    let read = Read::take(&mut *lines, LINE_BYTES_MAX + 1).read_until(b'\n', &mut line);
    let read = read.map_err(|error| format!("it can't be read: {error}"))?;
    if read == 0 {
        return Ok(None);
    }
    if read as u64 > LINE_BYTES_MAX {
        return Err(format!("it is longer than {LINE_BYTES_MAX} bytes"));
    }
    while line.last().is_some_and(|byte| matches!(byte, b'\n' | b'\r')) {
        line.pop();
    }
    let is_blank = line.iter().all(u8::is_ascii_whitespace);
    let key = key.filter(|_| !is_blank).map(|field| key_of(&line, field)).transpose()?;
    Ok(Some(Line { key, payload: line }))
}

/// A field of the event, as the key of its record: a text as it is, a number as it is written.
fn key_of(line: &[u8], field: &str) -> Result<String, String> {
    let event: Value = serde_json::from_slice(line)
        .map_err(|error| format!("it is no JSON to take {field} from: {error}"))?;
    let mut names = field.strip_prefix("event.").unwrap_or(field).split('.');
    match names.try_fold(&event, |at, name| at.get(name)) {
        Some(Value::String(text)) => Ok(text.clone()),
        Some(number @ Value::Number(_)) => Ok(number.to_string()),
        _ => Err(format!("it has no text or number at {field} to be the key")),
    }
}

/// Whether a flow's rule for the key is just a field: an expression is not evaluated here.
fn is_field(key: &str) -> bool {
    let is_name = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '.';
    key.strip_prefix("event.").is_some_and(|path| !path.is_empty() && path.chars().all(is_name))
}

fn tell(args: &PublishArgs, target: &Target<'_>, receipt: &Receipt, sent: u64) {
    let acknowledged = receipt.acknowledged();
    if args.json {
        let partitions: Vec<Value> = receipt
            .partitions
            .iter()
            .map(|(partition, offsets)| {
                let name = partition.to_string();
                json!({ "partition": name, "events": offsets.count(), "ranges": offsets.ranges() })
            })
            .collect();
        let refused: Vec<Value> =
            receipt.refused_first.iter().map(|(line, why)| json!({ "line": line, "why": why })).collect();
        let receipt = json!({ "events": acknowledged, "unplaced": receipt.unplaced, "refused": receipt.refused, "refused_first": refused,
            "partitions": partitions });
        let mut told =
            json!({ "recount": 1, "command": "publish", "topic": target.topic, "receipt": receipt });
        if let Some(flow) = target.flow {
            told["flow"] = json!(flow.spec.flow.as_str());
        }
        println!("{told}");
        return;
    }
    if sent == 0 && receipt.refused == 0 {
        println!("nothing to publish: the input holds no line");
        return;
    }
    let events = if acknowledged == 1 { "1 event".to_owned() } else { format!("{acknowledged} events") };
    println!(
        "{events} published to {} on {}, acknowledged by every replica in step",
        target.topic, target.broker
    );
    for (partition, offsets) in &receipt.partitions {
        let ranges = offsets.ranges().iter().map(|(from, to)| match to - from {
            1 => from.to_string(),
            _ => format!("{from} to {}", to - 1),
        });
        let ranges: Vec<String> = ranges.take(5).collect();
        let more = offsets.ranges().len().saturating_sub(ranges.len());
        let more = if more == 0 { String::new() } else { format!(" and {more} more ranges") };
        let (events, at) = match offsets.count() {
            1 => ("event", "offset"),
            _ => ("events", "offsets"),
        };
        println!("  partition {partition}: {} {events}, {at} {}{more}", offsets.count(), ranges.join(", "));
    }
    if receipt.unplaced > 0 {
        println!(
            "  {} events, offsets not told: they were sent twice, and stood there already",
            receipt.unplaced
        );
    }
    for (line, why) in &receipt.refused_first {
        eprintln!("line {line} was not acknowledged: {why}");
    }
    if receipt.refused > 0 {
        eprintln!(
            "{} lines were not acknowledged; later ones that were under way by then may stand in the topic, and so may \
             one whose time was over: look there before anything is published again",
            receipt.refused
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_text_or_a_number_of_the_event_and_nothing_else() {
        let line = br#"{"sku": "mug", "n": {"id": 7}, "list": [1]}"#;
        assert_eq!(key_of(line, "sku").unwrap(), "mug");
        assert_eq!(key_of(line, "event.n.id").unwrap(), "7");
        for field in ["list", "n", "nothing"] {
            assert!(key_of(line, field).unwrap_err().contains(field));
        }
        assert!(key_of(b"mug", "sku").unwrap_err().contains("no JSON"));
        assert!(is_field("event.order.sku") && !is_field("lower(event.sku)") && !is_field("event."));
    }
}
