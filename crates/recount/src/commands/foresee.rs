//! What a replay would meet: how many events can still be had, and what they would be decided as now.

use super::run::all_ended;
use super::runtime;
use super::select::Selection;
use crate::config::{Config, DatabasePlace, EffectConfig, FlowConfig, FlowMode, SourceConfig};
use crate::exit::Failure;
use crate::replaying::{self, POSITIONS_A_REQUEST_MAX};
use crate::wiring::source::open_log;
use crate::wiring::{self, Handlers, RunOptions, now, point_at_copies};
use recount_adapters::embedded_log::NewEvent;
use recount_checks::RawEvent;
use recount_engine::{BreakerAction, FlowHandle};
use recount_model::FlowName;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// At most so many events are decided on copies.
const TRIED_MAX: usize = 20_000;
/// Larger databases are not copied for it.
const DATABASE_BYTES_MAX: u64 = 1 << 30;
/// Nothing decided for so long: what is left waits for a retry, or for an effect that is away.
const STILL_MAX: Duration = Duration::from_secs(10);

/// How many of the selected can be had.
#[derive(Debug, Default)]
pub struct Foreseen {
    /// By verdict and reason: selected, and to be had.
    counts: BTreeMap<String, (u64, u64)>,
    /// Why the source can't be read for the others.
    why_gone: Option<String>,
}

/// Looks for the bytes of every selected event.
pub fn foresee(config: &Config, selection: &Selection) -> Result<Foreseen, Failure> {
    let mut foreseen = Foreseen::default();
    for (at, events) in &selection.partitions {
        for chunk in events.chunks(POSITIONS_A_REQUEST_MAX) {
            let offsets: Vec<u64> = chunk.iter().map(|event| event.offset).collect();
            let (bytes, why) = replaying::bytes_and_why_not(config, at, &offsets)?;
            foreseen.why_gone = foreseen.why_gone.or(why);
            for event in chunk {
                let count = foreseen.counts.entry(event.fate.clone()).or_default();
                count.0 += 1;
                count.1 += u64::from(bytes.contains_key(&event.offset));
            }
        }
    }
    Ok(foreseen)
}

impl Foreseen {
    /// How many can be had.
    pub fn to_be_had(&self) -> u64 {
        self.counts.values().map(|(_, had)| had).sum()
    }

    /// For people.
    pub fn text(&self, flow: &FlowName, selection: &Selection) -> String {
        let (events, had) = (selection.events(), self.to_be_had());
        let noun = if events == 1 { "event" } else { "events" };
        let mut out =
            format!("{events} {noun} of flow {flow} to be decided anew, {had} of them can be had\n");
        for (fate, (selected, had)) in &self.counts {
            let gone = if had < selected {
                format!("; the bytes of {} can't be had any more", selected - had)
            } else {
                String::new()
            };
            out.push_str(&format!("  {selected:>8}  {fate}{gone}\n"));
        }
        if let Some(why) = self.why_gone.as_ref().filter(|_| had < events) {
            out.push_str(&format!("  what is not kept can't be read from the source: {why}\n"));
        }
        if selection.duplicates > 0 {
            out.push_str(&format!(
                "  {:>8}  skipped duplicate: left as they are, the events that they repeat have their own fate\n",
                selection.duplicates
            ));
        }
        out
    }

    /// The answer of a dry run.
    pub fn json(&self, would: &WouldBe) -> Value {
        let counts = |(fate, (selected, had)): (&String, &(u64, u64))| {
            (fate.clone(), json!({ "events": selected, "can_be_had": had }))
        };
        let selected: serde_json::Map<_, _> = self.counts.iter().map(counts).collect();
        json!({
            "recount": 1,
            "command": "replay",
            "dry_run": true,
            "selected": selected,
            "why_gone": self.why_gone,
            "would_be": would.decided,
            "would_be_of": would.events,
            "would_be_not_known": would.why_not,
        })
    }
}

/// What the events would be decided as under the present config, tried on copies.
#[derive(Debug, Default)]
pub struct WouldBe {
    decided: BTreeMap<String, u64>,
    events: u64,
    /// In PostgreSQL, where nothing is copied.
    in_transaction: bool,
    why_not: Option<String>,
}

impl WouldBe {
    fn unknown(why: impl Into<String>) -> Self {
        Self { why_not: Some(why.into()), ..Self::default() }
    }

    /// For people.
    pub fn text(&self) -> String {
        let mut out = String::new();
        if self.events > 0 {
            let place = if self.in_transaction {
                "in a transaction that was rolled back"
            } else {
                "on a copy of the database"
            };
            out.push_str(&format!("with the config of now, tried {place}:\n"));
        }
        for (fate, count) in &self.decided {
            out.push_str(&format!("  {count:>8}  would be {fate}\n"));
        }
        if let Some(why) = &self.why_not {
            out.push_str(&format!("what they would be is not known: {why}\n"));
        }
        out
    }
}

/// Decides the selected events on copies of the databases, with a ledger that is thrown away.
pub fn would_be(config: &Config, flow: &FlowName, selection: &Selection) -> Result<WouldBe, Failure> {
    let declared = wiring::flow(config, flow.as_str())?;
    if let Some(why) = cannot_try(config, declared)? {
        return Ok(WouldBe::unknown(why));
    }
    let (events, left) = events(config, selection)?;
    let mut would = WouldBe { events: events.len() as u64, ..WouldBe::default() };
    if left > 0 {
        would.decided.insert("left as it is: the same event was applied elsewhere".to_owned(), left);
        would.events += left;
    }
    if selection.events() > TRIED_MAX as u64 {
        would.why_not = Some(format!("only the first {TRIED_MAX} were tried"));
    }
    if events.is_empty() {
        return Ok(would);
    }
    let folder = tempfile::tempdir().map_err(Failure::unreachable)?;
    let mut copy = config.clone();
    point_at_copies(&mut copy, folder.path())?;
    would.in_transaction = copy.databases.values().any(|database| database.rehearsal.is_some());
    (copy.server.token, copy.server.hmac) = (None, None);
    for copied in copy.flows.iter_mut().filter(|copied| copied.spec.flow == *flow) {
        copied.source = SourceConfig::Http { path: "/replay".to_owned() };
        copied.spec.breaker.action = BreakerAction::Alert;
    }
    decide_on(&copy, flow, events, &mut would)?;
    Ok(would)
}

fn cannot_try(config: &Config, flow: &FlowConfig) -> Result<Option<String>, Failure> {
    let why = match &flow.effect {
        EffectConfig::Http { .. } => "it calls a handler, which has no copy",
        EffectConfig::Handler { .. } => "its handler is in your own program",
        _ if flow.mode != FlowMode::Run => "another consumer applies its events",
        EffectConfig::Sql { .. } | EffectConfig::Watched { .. } | EffectConfig::None => "",
    };
    if !why.is_empty() {
        return Ok(Some(why.to_owned()));
    }
    for (name, database) in &config.databases {
        let DatabasePlace::Sqlite(path) = database.place().map_err(Failure::usage)? else { continue };
        let bytes = std::fs::metadata(&path).map_or(0, |file| file.len());
        if bytes > DATABASE_BYTES_MAX {
            return Ok(Some(format!("database {name} has {bytes} bytes, too many to copy for it")));
        }
    }
    Ok(None)
}

/// What a replay would take, in its order, and how many it would leave.
fn events(config: &Config, selection: &Selection) -> Result<(Vec<NewEvent>, u64), Failure> {
    let (mut events, mut left) = (Vec::new(), 0);
    for (at, selected) in &selection.partitions {
        for chunk in selected.chunks(POSITIONS_A_REQUEST_MAX) {
            if events.len() >= TRIED_MAX {
                break;
            }
            let offsets: Vec<u64> = chunk.iter().map(|event| event.offset).collect();
            let twins = replaying::applied_twins(config, at, &offsets)?;
            left += twins.len() as u64;
            let (bytes, _) = replaying::bytes_and_why_not(config, at, &offsets)?;
            let had = bytes.into_values().filter(|raw| !twins.contains(&raw.offset));
            events.extend(had.map(new_event));
        }
    }
    events.truncate(TRIED_MAX);
    Ok((events, left))
}

/// As it would be appended.
pub fn new_event(raw: RawEvent) -> NewEvent {
    NewEvent {
        payload: raw.payload.to_vec(),
        payload_bytes: raw.payload_bytes,
        headers: raw.headers,
        key: raw.broker_key,
        received_at: now(),
    }
}

fn decide_on(
    copy: &Config,
    flow: &FlowName,
    events: Vec<NewEvent>,
    would: &mut WouldBe,
) -> Result<(), Failure> {
    let count = events.len() as u64;
    let runtime = runtime()?;
    let done = runtime.block_on(async {
        std::fs::create_dir_all(&copy.ledger.path).map_err(Failure::unreachable)?;
        let log = open_log(copy, wiring::flow(copy, flow.as_str())?)?;
        log.append(events).await.map_err(Failure::unreachable)?;
        drop(log);
        let options = RunOptions { read_sources: true, ..RunOptions::default() };
        let wanted = [flow.to_string()];
        let probe = std::sync::Arc::new(recount_engine::NoProbe);
        let running = wiring::start(copy, &wanted, options, &Handlers::new(), probe, None).await?;
        for running in &running.flows {
            wait_until_decided(&running.handle, count).await;
            let counts = running.handle.stats();
            for ((verdict, reason), count) in counts.decisions.iter().filter(|(_, count)| **count > 0) {
                *would.decided.entry(format!("{verdict} {reason}").trim_end().to_owned()).or_default() +=
                    count;
            }
            let decided = counts.decisions.values().sum::<u64>();
            if decided < count {
                let why = counts.away.unwrap_or_else(|| "they wait for another attempt".to_owned());
                would.why_not = Some(format!("{} were not decided: {why}", count - decided));
            }
            running.handle.shut_down();
        }
        all_ended(&running).await;
        Ok(())
    });
    runtime.shutdown_timeout(Duration::from_secs(5));
    done
}

async fn wait_until_decided(handle: &FlowHandle, count: u64) {
    let (mut last, mut since) = (0, Instant::now());
    loop {
        let decided: u64 = handle.stats().decisions.values().sum();
        if decided > last {
            (last, since) = (decided, Instant::now());
        }
        if decided >= count || since.elapsed() > STILL_MAX || handle.ended().is_some() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
