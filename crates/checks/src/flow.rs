//! One flow's checks: from a delivery to an event that may have an effect, or to its verdict.

use crate::compile::{Check, MeasureExprs, Route};
use crate::decode::{Attributes, DecodeError, Decoder};
use crate::event::{CheckResult, Checked, Event, RawEvent, Refused};
use crate::evidence::{Seen, object, spoken};
use crate::expr::{EvalError, Expr, FieldPath, Scope, Val, identifying_text};
use crate::rules::{Decode, Otherwise};
use crate::schema::Schema;
use crate::secret::Secrets;
use crate::values::{instant, measure, parameter, payload_hash};
use recount_model::decision::Measure;
use recount_model::{FlowName, Header, Meta, Reason, ReasonCode, Value, Verdict, reason};
use serde_json::Value as Json;

/// The longest id or key, in bytes.
pub const ID_BYTES_MAX: usize = 1024;

/// The header of W3C Trace Context.
const TRACEPARENT: &str = "traceparent";

/// What a flow's rules say of an event before its effect. Compiled once, used by any number of threads;
/// the same delivery always gives the same result.
#[derive(Debug)]
pub struct FlowChecks {
    pub(crate) flow: FlowName,
    pub(crate) decoder: Decoder,
    pub(crate) payload_bytes_max: u64,
    pub(crate) id: Option<Expr>,
    pub(crate) event_type: Option<Expr>,
    pub(crate) time: Option<Expr>,
    pub(crate) key: Option<Expr>,
    pub(crate) traceparent: Option<Expr>,
    pub(crate) schema: Option<Schema>,
    pub(crate) ignore: Vec<Box<str>>,
    pub(crate) checks: Vec<Check>,
    pub(crate) routes: Vec<Route>,
    pub(crate) measures: Vec<MeasureExprs>,
    pub(crate) secrets: Secrets,
}

/// Why an event goes no further.
struct Refusal {
    verdict: Verdict,
    evidence: Box<str>,
}

impl Refusal {
    fn dead_letter(code: ReasonCode, sentence: String, evidence: Box<str>) -> Self {
        Self { verdict: Verdict::dead_letter(code, sentence), evidence }
    }
}

/// What the rules make of an event that passes.
struct Passing {
    route: usize,
    params: Vec<Value>,
}

/// A decoded payload while it is checked.
struct Opened {
    data: Json,
    rounded: bool,
    attributes: Option<Attributes>,
}

impl FlowChecks {
    /// Decodes and checks one delivery. Never panics, whatever the bytes; takes time bounded by the size
    /// of the payload and of the rules.
    pub fn check(&self, raw: RawEvent) -> CheckResult {
        let RawEvent { payload, payload_bytes, headers, broker_key, partition, offset, taken_at } = raw;
        let mut meta = Meta {
            id: None,
            key: broker_key,
            event_type: None,
            time: None,
            headers,
            partition,
            offset,
            taken_at,
        };
        let size = payload_bytes.max(payload.len() as u64);
        let decoded = if size > self.payload_bytes_max {
            Err(self.too_large(size))
        } else {
            self.decoder.decode(&payload, &mut meta.headers).map_err(|error| self.undecoded(&error, size))
        };
        let mut opened = match decoded {
            Ok(decoded) => {
                Opened { data: decoded.data, rounded: decoded.rounded, attributes: decoded.attributes }
            }
            Err(refusal) => {
                let payload_hash = payload_hash(None, &payload);
                return CheckResult::Refused(Box::new(Refused {
                    verdict: refusal.verdict,
                    evidence: refusal.evidence,
                    meta,
                    payload_hash,
                    flags: Vec::new(),
                    decoded: false,
                    measures: vec![None; self.measures.len()],
                }));
            }
        };
        self.carry_traceparent(&mut meta, &opened);
        let mut flags = Vec::new();
        let judged =
            self.identify(&mut meta, &mut opened).and_then(|()| self.judge(&meta, &opened, &mut flags));
        let measures = self.measure(&meta, &opened);
        let payload_hash = payload_hash(meta.id.as_deref(), &payload);
        match judged {
            Ok(Passing { route, params }) => CheckResult::Passed(Checked::new(Event {
                meta,
                payload,
                data: opened.data,
                payload_hash,
                flags,
                route,
                params,
                measures,
            })),
            Err(Refusal { verdict, evidence }) => CheckResult::Refused(Box::new(Refused {
                verdict,
                evidence,
                meta,
                payload_hash,
                flags,
                decoded: true,
                measures,
            })),
        }
    }

    /// Whether the trace context that a delivery brings may be told to others: not where the flow calls it secret.
    pub fn may_tell_trace(&self) -> bool {
        let is_hidden = |path: &str| FieldPath::parse(path).is_some_and(|path| self.secrets.hides(&path));
        !["traceparent", "ce-traceparent", "ce_traceparent"]
            .iter()
            .any(|header| is_hidden(&format!("meta.headers[\"{header}\"]")))
    }

    /// The names of a route's parameters, in the order of [`Event::params`].
    pub fn parameter_names(&self, route: usize) -> impl Iterator<Item = &str> {
        self.routes.get(route).into_iter().flat_map(|route| route.with.iter().map(|(name, _)| &**name))
    }

    fn too_large(&self, size: u64) -> Refusal {
        let max = self.payload_bytes_max;
        Refusal::dead_letter(
            reason::PAYLOAD_TOO_LARGE,
            format!("the payload has {size} bytes; this flow takes up to {max}"),
            object([("payload_bytes", size.into()), ("payload_bytes_max", max.into())]),
        )
    }

    fn undecoded(&self, error: &DecodeError, size: u64) -> Refusal {
        let wanted = match self.decoder.decode {
            Decode::Json => "json",
            Decode::Text => "text",
            Decode::Bytes => "bytes",
        };
        let mut sentence = format!("the payload can't be decoded: {}", error.error);
        if !error.looks_like.is_empty() {
            sentence = format!("{sentence}; {}", error.looks_like);
        }
        let evidence = object([
            ("decode", wanted.into()),
            ("error", error.error.as_str().into()),
            ("looks_like", error.looks_like.into()),
            ("payload_bytes", size.into()),
        ]);
        Refusal::dead_letter(reason::DECODE_FAILED, sentence, evidence)
    }

    /// Id, type, time, whether the type is ignored, and the key, in this order.
    fn identify(&self, meta: &mut Meta, opened: &mut Opened) -> Result<(), Refusal> {
        let own = opened.attributes.take();
        let broker_key = meta.key.clone();
        let is_cloud_event = own.is_some();
        let own = own.unwrap_or_default();
        meta.event_type = own.event_type;
        meta.id = own.id;
        meta.time = own
            .time
            .as_ref()
            .and_then(|time| Val::from_json(time, opened.rounded).ok().and_then(|time| instant(&time)));
        let (own_type, own_time) = (meta.event_type.is_some(), meta.time.is_some());
        let id = self.find_id(meta, opened, is_cloud_event);
        meta.id = None;
        meta.id = Some(id?);
        let found = |expr: &Option<Expr>, meta: &Meta| {
            let expr = expr.as_ref()?;
            let value = expr.evaluate(&mut Scope::new(&opened.data, opened.rounded, meta)).ok()?;
            identifying_text(&value).ok().map(|text| Box::<str>::from(&*text))
        };
        if !own_type {
            meta.event_type = found(&self.event_type, meta);
        }
        if let (false, Some(expr)) = (own_time, &self.time) {
            let mut scope = Scope::new(&opened.data, opened.rounded, meta);
            meta.time = expr.evaluate(&mut scope).ok().and_then(|time| instant(&time));
        }
        if let Some(ignored) = meta.event_type.as_ref().filter(|of_event| self.ignore.contains(of_event)) {
            let evidence = object([("ignore", (**ignored).into())]);
            let sentence = format!("events of type {ignored} are not for this flow");
            meta.key = self.key_of(meta, opened).ok().or(broker_key.filter(|_| self.key.is_none()));
            return Err(Refusal { verdict: Verdict::skip(reason::NOT_FOR_THIS_FLOW, sentence), evidence });
        }
        if self.key.is_some() {
            let key = self.key_of(meta, opened);
            meta.key = None;
            meta.key = Some(key?);
        }
        Ok(())
    }

    fn find_id(&self, meta: &Meta, opened: &Opened, is_cloud_event: bool) -> Result<Box<str>, Refusal> {
        let Some(expr) = &self.id else {
            return match &meta.id {
                Some(id) => {
                    usable(id).map_err(|error| self.not_found(reason::NO_ID, "id", "meta.id", &error))
                }
                None if self.decoder.decode != Decode::Json => {
                    Ok(format!("{}/{}/{}", self.flow, meta.partition, meta.offset).into())
                }
                None if is_cloud_event => {
                    Err(self.not_found(reason::NO_ID, "id", "meta.id", "the CloudEvent has no id"))
                }
                None => Err(self.not_found(
                    reason::NO_ID,
                    "id",
                    "meta.id",
                    "it is not a CloudEvent, and the flow does not say where its id is",
                )),
            };
        };
        match self.text_of(expr, meta, opened) {
            Ok(id) => Ok(id),
            // A CloudEvent brings an id of its own, which stands in where the payload has none.
            Err((true, _)) if meta.id.is_some() => {
                let own = meta.id.as_deref().unwrap_or_default();
                usable(own).map_err(|error| self.not_found(reason::NO_ID, "id", &expr.text, &error))
            }
            Err((_, error)) => Err(self.not_found(reason::NO_ID, "id", &expr.text, &error)),
        }
    }

    fn key_of(&self, meta: &Meta, opened: &Opened) -> Result<Box<str>, Refusal> {
        let missing = |text: &str, error: &str| self.not_found(reason::NO_KEY, "key", text, error);
        match &self.key {
            Some(expr) => self.text_of(expr, meta, opened).map_err(|(_, error)| missing(&expr.text, &error)),
            None => Err(missing("", "the flow has no key")),
        }
    }

    /// Where the flow says that the trace context stands elsewhere, it takes the place of the delivery's own. An event
    /// without one keeps what it came with: nothing is decided by it.
    fn carry_traceparent(&self, meta: &mut Meta, opened: &Opened) {
        let Some(expr) = &self.traceparent else { return };
        let Ok(value) = self.text_of(expr, meta, opened) else { return };
        meta.headers.retain(|header| !header.name.eq_ignore_ascii_case(TRACEPARENT));
        meta.headers.push(Header { name: TRACEPARENT.into(), value });
    }

    /// The text of an id or key; or whether there is none at all, and a sentence.
    fn text_of(&self, expr: &Expr, meta: &Meta, opened: &Opened) -> Result<Box<str>, (bool, String)> {
        let mut scope = Scope::new(&opened.data, opened.rounded, meta);
        match expr.evaluate(&mut scope) {
            Ok(Val::Null) => Err((true, format!("{} is null", expr.text))),
            Ok(value) => match identifying_text(&value) {
                Ok(text) => usable(&text).map_err(|error| (text.is_empty(), error)),
                Err(error) => Err((false, error.to_string())),
            },
            Err(error) => Err((error.is_missing(), error.to_string())),
        }
    }

    fn not_found(&self, code: ReasonCode, rule: &str, that: &str, error: &str) -> Refusal {
        let evidence = object([("rule", rule.into()), ("that", that.into()), ("error", error.into())]);
        Refusal::dead_letter(code, format!("the event has no {rule}: {error}"), evidence)
    }

    /// Schema, checks, route and parameters, in this order.
    fn judge(&self, meta: &Meta, opened: &Opened, flags: &mut Vec<ReasonCode>) -> Result<Passing, Refusal> {
        let (data, rounded) = (&opened.data, opened.rounded);
        if let Some(schema) = &self.schema {
            schema.check(data, rounded, &self.secrets).map_err(|mismatch| {
                let evidence = object([("schema", mismatch.errors.into())]);
                Refusal::dead_letter(reason::SCHEMA_MISMATCH, mismatch.sentence, evidence)
            })?;
        }
        let seen = Seen { data, rounded, meta, secrets: &self.secrets };
        let mut scope = Scope::new(data, rounded, meta);
        for check in &self.checks {
            if holds(&check.that, &mut scope, &seen, check.reason.as_str())? {
                continue;
            }
            match check.otherwise {
                Otherwise::Flag => flags.push(check.reason.clone()),
                Otherwise::Skip | Otherwise::DeadLetter => return Err(broken(check, &seen)),
            }
        }
        self.route(&mut scope, &seen)
    }

    fn route<'a>(&'a self, scope: &mut Scope<'a>, seen: &Seen<'_>) -> Result<Passing, Refusal> {
        if self.routes.is_empty() {
            return Ok(Passing { route: 0, params: Vec::new() });
        }
        for (at, route) in self.routes.iter().enumerate() {
            let taken = match &route.when {
                None => true,
                Some(when) => holds(when, scope, seen, &format!("apply[{at}].when"))?,
            };
            if taken {
                let params = route.with.iter().map(|(name, expr)| bind(name, expr, scope, seen));
                return Ok(Passing { route: at, params: params.collect::<Result<_, _>>()? });
            }
        }
        let whens: Vec<&Expr> = self.routes.iter().filter_map(|route| route.when.as_ref()).collect();
        let fields = seen.fields(&whens);
        let sentence = format!("no apply is meant for it: {}", spoken(&fields));
        let whens: Vec<Json> = whens.iter().map(|when| (*when.text).into()).collect();
        let evidence = object([("when", whens.into()), ("fields", fields.into())]);
        Err(Refusal::dead_letter(reason::NO_ROUTE, sentence, evidence))
    }

    fn measure(&self, meta: &Meta, opened: &Opened) -> Vec<Option<Measure>> {
        if self.measures.is_empty() {
            return Vec::new();
        }
        let mut scope = Scope::new(&opened.data, opened.rounded, meta);
        self.measures.iter().map(|exprs| measure(exprs, &mut scope)).collect()
    }
}

/// An id or key as it can be kept.
fn usable(text: &str) -> Result<Box<str>, String> {
    if text.is_empty() {
        return Err("it is empty".to_owned());
    }
    if text.len() > ID_BYTES_MAX {
        return Err(format!("it has {} bytes; the longest is {ID_BYTES_MAX}", text.len()));
    }
    if text.contains('\0') {
        return Err("it holds a zero byte".to_owned());
    }
    Ok(text.into())
}

/// Whether a test holds; what can't be evaluated, or isn't a truth value, is never a pass.
fn holds<'a>(that: &'a Expr, scope: &mut Scope<'a>, seen: &Seen<'_>, rule: &str) -> Result<bool, Refusal> {
    let error = match that.evaluate(scope) {
        Ok(Val::Bool(truth)) => return Ok(truth),
        Ok(other) => format!("it gives {}, not true or false", other.kind()),
        Err(error) => error.to_string(),
    };
    let evidence = object([
        ("check", rule.into()),
        ("that", (*that.text).into()),
        ("fields", seen.fields(&[that]).into()),
        ("error", error.as_str().into()),
    ]);
    let sentence = format!("{rule} can't be evaluated: {error}");
    Err(Refusal::dead_letter(reason::CHECK_UNEVALUABLE, sentence, evidence))
}

fn broken(check: &Check, seen: &Seen<'_>) -> Refusal {
    let fields = seen.fields(&[&check.that]);
    let found = if fields.is_empty() { format!("not {}", check.that.text) } else { spoken(&fields) };
    let sentence = if check.because.is_empty() { found } else { format!("{found}; {}", check.because) };
    let reason = Reason::new(check.reason.clone(), sentence);
    let evidence = object([
        ("check", check.reason.as_str().into()),
        ("that", (*check.that.text).into()),
        ("fields", fields.into()),
    ]);
    let verdict = match check.otherwise {
        Otherwise::Skip => Verdict::Skip(reason),
        Otherwise::DeadLetter | Otherwise::Flag => Verdict::DeadLetter(reason),
    };
    Refusal { verdict, evidence }
}

fn bind<'a>(name: &str, expr: &'a Expr, scope: &mut Scope<'a>, seen: &Seen<'_>) -> Result<Value, Refusal> {
    let value = expr.evaluate(scope).map_err(|error: EvalError<'_>| error.to_string());
    value.and_then(|value| parameter(&value)).map_err(|error| {
        let evidence = object([
            ("parameter", name.into()),
            ("that", (*expr.text).into()),
            ("fields", seen.fields(&[expr]).into()),
            ("error", error.as_str().into()),
        ]);
        Refusal::dead_letter(
            reason::PARAMETER_MISSING,
            format!("parameter {name} can't be had: {error}"),
            evidence,
        )
    })
}
