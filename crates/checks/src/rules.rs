//! A flow's rules as its config gives them: text, not yet compiled.

use recount_model::ReasonCode;

/// How bytes become an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Decode {
    /// One JSON value; a CloudEvent (it has `specversion`) is opened.
    #[default]
    Json,
    /// UTF-8 text; `event` is the string.
    Text,
    /// Anything; `event` is an object `{ "bytes": length }`.
    Bytes,
}

/// What becomes of an event that a check does not hold for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Otherwise {
    /// Skipped.
    Skip,
    /// Dead-lettered.
    DeadLetter,
    /// Passes, and is counted: an assumption.
    Flag,
}

/// One `[[flow.x.check]]`.
#[derive(Debug, Clone)]
pub struct CheckRule {
    /// The reason given where it does not hold.
    pub reason: ReasonCode,
    /// CEL, must give a truth value.
    pub that: String,
    /// What then.
    pub otherwise: Otherwise,
    /// The sentence.
    pub because: String,
}

/// One `[flow.x.apply]`, as far as checking is concerned.
#[derive(Debug, Clone)]
pub struct RouteRule {
    /// CEL; none takes every event.
    pub when: Option<String>,
    /// Parameter name and CEL.
    pub with: Vec<(String, String)>,
}

/// The left side of a `[[reconcile]]` that counts this flow.
#[derive(Debug, Clone)]
pub struct MeasureRule {
    /// CEL, must give a number.
    pub sum: String,
    /// CEL; the event's key where it is the flow's `key` expression.
    pub by: Option<String>,
}

/// Everything that decides about an event before its effect.
#[derive(Debug, Clone)]
pub struct FlowRules {
    /// How bytes become an event.
    pub decode: Decode,
    /// Larger payloads are dead-lettered, `payload_too_large`.
    pub payload_bytes_max: usize,
    /// JSON nested deeper is dead-lettered, `decode_failed`.
    pub depth_max: usize,
    /// CEL for the id. None: the CloudEvent's, or `flow/partition/offset` where `decode` is not JSON.
    pub id: Option<String>,
    /// CEL for the type.
    pub event_type: Option<String>,
    /// CEL for the time the event happened: RFC 3339 text or Unix milliseconds.
    pub time: Option<String>,
    /// CEL for the key. None: the broker's key, or none.
    pub key: Option<String>,
    /// CEL for the trace context; what it gives stands as the header `traceparent`. None: the delivery's own.
    pub traceparent: Option<String>,
    /// JSON Schema of the event.
    pub schema: Option<serde_json::Value>,
    /// Types that are skipped, `not_for_this_flow`.
    pub ignore: Vec<String>,
    /// In the order of the config; the first that doesn't hold and isn't a flag decides.
    pub checks: Vec<CheckRule>,
    /// In the order of the config; the first whose `when` holds. Empty: the flow has no effect.
    pub routes: Vec<RouteRule>,
    /// In the order of the config's reconciles.
    pub measures: Vec<MeasureRule>,
    /// Paths such as `event.customer_id`; their values never reach evidence or sentences.
    pub secret: Vec<String>,
}

impl Default for FlowRules {
    /// JSON up to a mebibyte and 64 levels deep; no rules.
    fn default() -> Self {
        Self {
            decode: Decode::default(),
            payload_bytes_max: 1 << 20,
            depth_max: 64,
            id: None,
            event_type: None,
            time: None,
            key: None,
            traceparent: None,
            schema: None,
            ignore: Vec::new(),
            checks: Vec::new(),
            routes: Vec::new(),
            measures: Vec::new(),
            secret: Vec::new(),
        }
    }
}

/// A rule that can't be used, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleFault {
    /// Which rule: a path into the flow's config such as `check[0].that`, `id`, `apply[1].with.sku`.
    pub rule: String,
    /// What is wrong and what to write instead.
    pub message: String,
}
