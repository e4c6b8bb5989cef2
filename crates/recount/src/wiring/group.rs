//! The consumer groups that observed flows look at: one task for each looks again and again, so that it is known
//! since when a group is past an event, and tells what was moved.

use super::{Running, now};
use crate::config::{Config, FlowConfig, SourceConfig};
use crate::exit::Failure;
use recount_adapters::kafka::{GroupSettings, KafkaGroup, KafkaGroupWitness};
use recount_audit::{GroupMove, GroupWitness};
use recount_engine::Book;
use recount_ledger::{JournalEntry, JournalKind};
use recount_model::{FlowName, Timestamp, reason};
use std::time::Duration;

fn settings(config: &Config, flow: &FlowConfig) -> Result<Option<GroupSettings>, Failure> {
    let SourceConfig::Kafka { broker, topic, observed: Some(observed), .. } = &flow.source else {
        return Ok(None);
    };
    Ok(Some(GroupSettings {
        flow: flow.spec.flow.clone(),
        broker: super::kafka::broker(config, broker)?,
        topic: topic.clone(),
        group: observed.group.clone(),
        window_ms: observed.window_ms,
        within_ms: flow.effect.watched().map_or(observed.window_ms, |watched| watched.within_ms),
        folder: config.ledger.path.clone(),
    }))
}

/// Who is asked about the group by the audit.
pub(super) fn witness(config: &Config, flow: &FlowConfig) -> Result<Option<Box<dyn GroupWitness>>, Failure> {
    let settings = settings(config, flow)?;
    Ok(settings.map(|settings| Box::new(KafkaGroupWitness::new(settings, now)) as Box<dyn GroupWitness>))
}

/// The task that looks at one group; dropped, it ends.
pub struct GroupWatch(tokio::task::JoinHandle<()>);

impl Drop for GroupWatch {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Looks at the groups of the flows that observe one, as long as what comes back is kept.
pub(super) fn watch(config: &Config, running: &Running) -> Result<Vec<GroupWatch>, Failure> {
    let mut watches = Vec::new();
    for flow in running.flows.iter().map(|flow| &flow.config) {
        let Some(settings) = settings(config, flow)? else { continue };
        let (flow, group) = (flow.spec.flow.clone(), settings.group.clone());
        let watching = Watching { flow, group, book: running.book.clone() };
        watches.push(GroupWatch(tokio::spawn(watching.run(KafkaGroup::new(settings)))));
    }
    Ok(watches)
}

struct Watching {
    flow: FlowName,
    group: String,
    book: Book,
}

impl Watching {
    async fn run(self, mut group: KafkaGroup) {
        let mut is_trouble_told = false;
        loop {
            let every = Duration::from_millis(group.settings().look_every_ms());
            let looked = tokio::task::spawn_blocking(move || {
                let moves = group.look(now).map_err(|error| error.to_string());
                let moves = moves.and_then(|seen| group.note(&seen).map_err(|error| error.to_string()));
                (group, moves)
            });
            let Ok((back, moves)) = looked.await else { return };
            group = back;
            match moves {
                Ok(moves) => {
                    is_trouble_told = false;
                    for moved in &moves {
                        self.tell(moved).await;
                    }
                }
                // Said once, until it works again; the audit says it each time it is asked.
                Err(why) if !is_trouble_told => {
                    is_trouble_told = true;
                    tracing::warn!(target: "recount::source", flow = %self.flow,
                        "the group {} is not looked at, so nothing of what it passes becomes due: {why}", self.group);
                }
                Err(_) => {}
            }
            tokio::time::sleep(every).await;
        }
    }

    /// Goes to the log and to the journal.
    async fn tell(&self, moved: &GroupMove) {
        let (sentence, partition) = (moved.sentence(&self.group), moved.partition.partition.as_str());
        let what = reason::OFFSET_MOVED_OUTSIDE;
        tracing::warn!(target: "recount::source", flow = %self.flow, partition, reason = what.as_str(), "{sentence}");
        let entry = JournalEntry {
            kind: JournalKind::Flow,
            flow: Some(self.flow.clone()),
            what: what.as_str().to_owned(),
            at: moved.at,
            persisted_at: Timestamp::default(),
            detail: serde_json::json!({ "sentence": sentence, "partition": partition, "group": self.group }),
        };
        if let Err(error) = self.book.with(move |store| store.journal(&entry)).await {
            tracing::error!("a finding could not be written to the journal: {error}");
        }
    }
}
