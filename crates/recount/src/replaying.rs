//! Deciding anew: the same code in a running instance and in a command that found none.

use crate::config::Config;
use crate::exit::Failure;
use crate::server::{Control, refusal};
use crate::wiring::audit::source_witness;
use crate::wiring::{flow, ledger_failure, now, read_ledger};
use axum::Json;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use recount_checks::RawEvent;
use recount_engine::{FlowHandle, ReplayEvent, ReplayFrom};
use recount_ledger::{DecisionFilter, LedgerRead, LedgerReader};
use recount_model::{FlowName, KeptBody, Partition, PartitionId, PayloadHash, SourceId};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// At most so many positions in one request.
pub const POSITIONS_A_REQUEST_MAX: usize = 2000;

/// Up to so many ids are looked up one by one.
const LOOK_UPS_MAX: usize = 20;

/// A frozen selection of one partition.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Request {
    /// The replay; each position is replayed at most once under it.
    pub replay_id: u64,
    /// The incarnation.
    pub source: String,
    /// The partition.
    pub partition: String,
    /// Offset and the seq of the batch whose decision is replaced.
    pub events: Vec<(u64, u64)>,
    /// Whether decisions `applied` may be replaced, since their effects are gone.
    #[serde(default)]
    pub of_applied: bool,
    /// Hash of the config that whoever asks has read: the instance must run the same.
    #[serde(default)]
    pub config_hash: Option<String>,
}

/// What a replay came to.
#[derive(Debug, Clone, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Receipt {
    /// New decisions by verdict and reason.
    pub decided: BTreeMap<String, u64>,
    /// Positions that this replay had decided before.
    pub already: u64,
    /// Positions whose bytes can't be had any more.
    pub gone: u64,
    /// Positions left as they are: an event with the same id was applied, waits, or comes first.
    #[serde(default)]
    pub left: u64,
}

impl Receipt {
    /// Adds another part of the same replay.
    pub fn add(&mut self, other: Self) {
        for (what, count) in other.decided {
            *self.decided.entry(what).or_default() += count;
        }
        self.already += other.already;
        self.gone += other.gone;
        self.left += other.left;
    }
}

/// The bytes of events, by offset: from kept bodies, else from the source.
pub fn bytes_of(
    config: &Config,
    at: &PartitionId,
    offsets: &[u64],
) -> Result<BTreeMap<u64, RawEvent>, Failure> {
    let (found, why) = bytes_and_why_not(config, at, offsets)?;
    if let Some(why) = why {
        tracing::warn!("what is not kept can't be read from the source either: {why}");
    }
    Ok(found)
}

/// The same, and why the source could not be read for those that aren't kept.
pub fn bytes_and_why_not(
    config: &Config,
    at: &PartitionId,
    offsets: &[u64],
) -> Result<(BTreeMap<u64, RawEvent>, Option<String>), Failure> {
    let ledger = read_ledger(&config.ledger)?;
    let bodies = ledger.bodies(at, offsets).map_err(ledger_failure)?;
    let mut found: BTreeMap<u64, RawEvent> =
        bodies.into_iter().map(|(offset, body)| (offset, raw_of_body(at, body))).collect();
    let missing: BTreeSet<u64> =
        offsets.iter().copied().filter(|offset| !found.contains_key(offset)).collect();
    let (Some(&first), Some(&last)) = (missing.first(), missing.last()) else { return Ok((found, None)) };
    let known = ledger.partitions().map_err(ledger_failure)?;
    let witness = source_witness(config, flow(config, at.flow.as_str())?, &known);
    let read = witness.read(at, first, last + 1, &mut |raw| {
        if missing.contains(&raw.offset) {
            found.insert(raw.offset, RawEvent { taken_at: now(), ..raw.clone() });
        }
        ControlFlow::Continue(())
    });
    Ok((found, read.err().map(|error| error.to_string())))
}

fn raw_of_body(at: &PartitionId, body: KeptBody) -> RawEvent {
    RawEvent {
        payload: body.payload.into(),
        payload_bytes: body.payload_bytes,
        headers: body.headers,
        broker_key: None,
        partition: at.partition.as_str().into(),
        offset: body.offset,
        taken_at: now(),
    }
}

/// Offsets whose event came again and was applied, however long ago: replaying them would apply it twice.
pub fn applied_twins(config: &Config, at: &PartitionId, offsets: &[u64]) -> Result<BTreeSet<u64>, Failure> {
    let ledger = read_ledger(&config.ledger)?;
    let asked = asked_about(&ledger, at, offsets)?;
    let mut twins = BTreeSet::new();
    // Each question opens the ledger's books anew, so for many ids one pass over all decisions is cheaper.
    let one_by_one = asked.len() <= LOOK_UPS_MAX;
    let ids: Vec<Option<Box<str>>> =
        if one_by_one { asked.keys().cloned().map(Some).collect() } else { vec![None] };
    for id in ids {
        let filter = DecisionFilter {
            flow: Some(at.flow.clone()),
            event_id: id.map(Into::into),
            verdict: Some("applied".to_owned()),
            ..DecisionFilter::default()
        };
        let visited = ledger.decisions(&filter, &mut |stored| {
            let decision = &stored.decision;
            let same_id = decision.event_id.as_ref().and_then(|id| asked.get(id));
            for (offset, payload_hash) in same_id.into_iter().flatten() {
                let is_itself = stored.header.at == *at && decision.offset == *offset;
                if !is_itself && decision.payload_hash == *payload_hash {
                    twins.insert(*offset);
                }
            }
            ControlFlow::Continue(())
        });
        visited.map_err(ledger_failure)?;
    }
    Ok(twins)
}

/// Offset and hash of the payload, by the event's id.
type Asked = BTreeMap<Box<str>, Vec<(u64, PayloadHash)>>;

fn asked_about(ledger: &LedgerReader, at: &PartitionId, offsets: &[u64]) -> Result<Asked, Failure> {
    let wanted: BTreeSet<u64> = offsets.iter().copied().collect();
    let filter = DecisionFilter {
        flow: Some(at.flow.clone()),
        partition: Some(at.partition.to_string()),
        offset_from: wanted.first().copied(),
        offset_to: wanted.last().map(|last| last + 1),
        ..DecisionFilter::default()
    };
    let mut asked = Asked::new();
    let visited = ledger.decisions(&filter, &mut |stored| {
        let decision = &stored.decision;
        if stored.header.at == *at
            && wanted.contains(&decision.offset)
            && let Some(id) = &decision.event_id
        {
            asked.entry(id.clone()).or_default().push((decision.offset, decision.payload_hash));
        }
        ControlFlow::Continue(())
    });
    visited.map_err(ledger_failure)?;
    Ok(asked)
}

/// Replays a selection through a flow.
pub async fn replay(config: &Arc<Config>, handle: &FlowHandle, request: Request) -> Result<Receipt, Failure> {
    let at = partition_of(&handle.spec().flow, &request);
    let offsets: Vec<u64> = request.events.iter().map(|(offset, _)| *offset).collect();
    let (read_config, read_at) = (Arc::clone(config), at.clone());
    let of_applied = request.of_applied;
    let read = tokio::task::spawn_blocking(move || {
        let twins =
            if of_applied { BTreeSet::new() } else { applied_twins(&read_config, &read_at, &offsets)? };
        Ok::<_, Failure>((bytes_of(&read_config, &read_at, &offsets)?, twins))
    });
    let (mut bytes, twins) = read.await.map_err(Failure::not_well)??;
    let mut receipt = Receipt::default();
    let mut events = Vec::with_capacity(request.events.len());
    for (offset, corrects_seq) in request.events {
        if twins.contains(&offset) {
            receipt.left += 1;
            continue;
        }
        match bytes.remove(&offset) {
            Some(raw) => {
                events.push(ReplayEvent { corrects_seq, of_applied, from: ReplayFrom::Delivered(raw) });
            }
            None => receipt.gone += 1,
        }
    }
    if !events.is_empty() {
        let done = handle.replay(&at, request.replay_id, events).await.map_err(Failure::not_well)?;
        receipt.add(Receipt { decided: done.decided, already: done.already, left: done.left, gone: 0 });
    }
    Ok(receipt)
}

/// The partition that a request names.
pub fn partition_of(flow: &FlowName, request: &Request) -> PartitionId {
    PartitionId {
        flow: flow.clone(),
        source: SourceId::new(&request.source),
        partition: Partition::new(&request.partition),
    }
}

/// `POST /v1/flows/{flow}/replay`.
pub async fn serve(
    State(control): State<Control>,
    Path(flow): Path<String>,
    headers: HeaderMap,
    Json(request): Json<Request>,
) -> Response {
    let handle = match control.flow(&flow, &headers) {
        Err(refusal) => return refusal,
        Ok(handle) => handle,
    };
    if request.events.len() > POSITIONS_A_REQUEST_MAX {
        let sentence = format!("at most {POSITIONS_A_REQUEST_MAX} positions a request");
        return refusal(StatusCode::PAYLOAD_TOO_LARGE, &sentence);
    }
    if request.config_hash.as_ref().is_some_and(|hash| *hash != control.config().hash()) {
        let sentence = "the config was changed since this instance was started, and it would decide as before: \
                        restart it, then replay";
        return refusal(StatusCode::CONFLICT, sentence);
    }
    match replay(control.config(), &handle, request).await {
        Ok(receipt) => Json(serde_json::json!({ "recount": 1, "receipt": receipt })).into_response(),
        Err(failure) => refusal(StatusCode::CONFLICT, &failure.message),
    }
}
