//! `[broker.NAME]`: a cluster, and a source on it.

use super::fault::{Place, Sink};
use super::raw::{At, Raw, RawTable, in_order};
use super::resolve::Context;
use super::secret::{Secret, SecretError, env_name, expand_env};
use super::spec::KeySpec;
use super::value::dotted;
use super::{FlowMode, SourceConfig, watched};
use std::path::{Path, PathBuf};
use toml::Spanned;
use toml::de::DeValue;

/// `[broker.NAME]` of Apache Kafka.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BrokerConfig {
    /// `host:port`, several with commas between, as written; `${NAME}` stands in it unresolved.
    pub servers: String,
    /// Further properties of the client.
    pub properties: Vec<(String, Property)>,
}

/// What a property says, before secrets are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Property {
    /// As written; `${NAME}` stands in it unresolved.
    Text(String),
    /// What a file holds.
    File(PathBuf),
}

/// Where a flow begins in a partition of which the ledger has nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartAt {
    /// With the first that is kept.
    Earliest,
    /// With what is published from then on.
    Latest,
    /// With the first that isn't older, in Unix milliseconds.
    Time(i64),
    /// At this offset, in each partition.
    Offset(u64),
}

impl BrokerConfig {
    /// Servers and properties with secrets looked up now. They are never to be shown.
    ///
    /// # Errors
    /// Where a variable isn't set, or a file can't be read.
    pub fn resolve(&self) -> Result<(String, Vec<(String, String)>), SecretError> {
        let value = |property: &Property| match property {
            Property::Text(text) => expand_env(text),
            Property::File(path) => {
                Secret::File(path.clone()).resolve().map(|secret| secret.expose().to_owned())
            }
        };
        let properties = self.properties.iter().map(|(name, property)| Ok((name.clone(), value(property)?)));
        Ok((expand_env(&self.servers)?, properties.collect::<Result<_, _>>()?))
    }
}

/// Reads `{ servers = "…", security.protocol = "…" }`; tables within are names with dots.
pub(super) fn read_properties(
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let DeValue::Table(_) = value.get_ref() else {
        sink.mask(value.span());
        sink.fault(
            at,
            format!("`{}` takes a table of settings", key.name),
            format!("write: {} = {}", key.name, key.example),
        );
        return None;
    };
    let mut properties = Vec::new();
    flatten("", value, at, &mut properties, sink);
    Some(Raw::Properties(properties))
}

fn flatten(
    name: &str,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    properties: &mut Vec<(String, At<Property>)>,
    sink: &mut Sink<'_>,
) {
    let place = Place { span: value.span(), key: dotted(&at.key, name) };
    let property = match value.get_ref() {
        DeValue::Table(table) => {
            let mut entries = table.iter();
            if let (Some((only, file)), None) = (entries.next(), entries.next())
                && only.get_ref() == "file"
                && let DeValue::String(path) = file.get_ref()
                && !name.is_empty()
            {
                Property::File(path.to_string().into())
            } else {
                for (inner, value) in in_order(table) {
                    flatten(&dotted(name, inner.get_ref()), value, at, properties, sink);
                }
                return;
            }
        }
        DeValue::String(text) => {
            if is_secret(name) && env_name(text).is_none() {
                sink.mask(value.span());
                sink.fault(
                    &place,
                    format!("`{name}` holds a secret, and this file is kept in the ledger as it is written"),
                    format!("write: \"{name}\" = \"${{KAFKA_PASSWORD}}\", or {{ file = \"path\" }}"),
                );
            }
            Property::Text(text.to_string())
        }
        DeValue::Integer(number) => Property::Text(number.as_str().to_owned()),
        DeValue::Float(number) => Property::Text(number.as_str().to_owned()),
        DeValue::Boolean(flag) => Property::Text(flag.to_string()),
        DeValue::Datetime(_) | DeValue::Array(_) => {
            sink.mask(value.span());
            sink.fault(&place, format!("`{name}` takes a text, a number or a truth value"), None);
            return;
        }
    };
    properties.push((name.to_owned(), At { at: place, value: property }));
}

/// Properties whose value nobody may see.
fn is_secret(name: &str) -> bool {
    ["password", "secret", "key.pem", "token", "oauthbearer.config"].iter().any(|part| name.contains(part))
}

/// Resolves one `[broker.NAME]`.
pub(super) fn resolve(table: &RawTable, folder: &Path, sink: &mut Sink<'_>) -> Option<BrokerConfig> {
    let properties = table.properties("kafka");
    if !table.has("kafka") {
        let help = "write: kafka = { servers = \"localhost:9092\" }".to_owned();
        sink.fault(&table.at, "the broker does not say what it is", help);
        return None;
    }
    refuse_without_kafka(table, sink);
    let mut broker = BrokerConfig { servers: String::new(), properties: Vec::new() };
    for (name, property) in properties {
        if name == "servers" {
            match &property.value {
                Property::Text(servers) if !servers.trim().is_empty() => broker.servers.clone_from(servers),
                _ => sink.fault(
                    &property.at,
                    "`servers` takes addresses as text",
                    "write: servers = \"localhost:9092\"".to_owned(),
                ),
            }
            continue;
        }
        if let Some((_, why)) = broken_promises().iter().find(|(refused, _)| refused == name) {
            sink.fault(&property.at, format!("`{name}` can't be set: {why}"), "leave it out".to_owned());
            continue;
        }
        let value = match &property.value {
            Property::File(path) => Property::File(folder.join(path)),
            Property::Text(text) => Property::Text(text.clone()),
        };
        broker.properties.push((name.clone(), value));
    }
    if broker.servers.is_empty() && !properties.iter().any(|(name, _)| name == "servers") {
        let help = "write: kafka = { servers = \"localhost:9092\" }".to_owned();
        sink.fault(&table.place("kafka"), "the broker's settings have no `servers`", help);
    }
    Some(broker)
}

#[cfg(feature = "kafka")]
fn broken_promises() -> &'static [(&'static str, &'static str)] {
    recount_adapters::kafka::BROKEN_PROMISES
}

#[cfg(not(feature = "kafka"))]
fn broken_promises() -> &'static [(&'static str, &'static str)] {
    &[]
}

#[cfg(feature = "kafka")]
fn refuse_without_kafka(_: &RawTable, _: &mut Sink<'_>) {}

#[cfg(not(feature = "kafka"))]
fn refuse_without_kafka(table: &RawTable, sink: &mut Sink<'_>) {
    let help = "build it with Kafka: cargo build --release (without --no-default-features)".to_owned();
    sink.fault(&table.place("kafka"), "this build of recount has no Kafka", help);
}

/// A source on a broker; `None` where it has a fault.
pub(super) fn source(
    source: &RawTable,
    mode: FlowMode,
    context: &mut Context<'_, '_>,
) -> Option<SourceConfig> {
    let at = source.place("broker");
    let broker = source.text("broker")?;
    if !context.brokers.contains(&broker) {
        let known = context.brokers.clone();
        context.unknown_name(&at, "broker", &broker, &known, "[broker.NAME]");
        return None;
    }
    for other in ["file", "http"] {
        if source.has(other) {
            let help = "leave one out; two sources are two flows".to_owned();
            context.sink.fault(&source.place(other), "a flow has one source, and this names two", help);
        }
    }
    if source.flag("follow") {
        let message = "`follow` is for files: a topic is always followed";
        context.sink.fault(&source.place("follow"), message, "leave `follow` out".to_owned());
    }
    let observed = watched::observed_group(source, mode, context);
    let topic = source.text("topic");
    if !source.has("topic") {
        let help =
            "write: source = { broker = \"main\", topic = \"orders\", group = \"inventory\" }".to_owned();
        context.sink.fault(&source.at, "the source names a broker, and no `topic`", help);
    }
    let group = match (mode, source.text("group")) {
        (FlowMode::Run, Some(group)) => Some(group),
        (FlowMode::Run, None) => {
            if !source.has("group") {
                let help = "write: group = \"inventory\"".to_owned();
                context.sink.fault(&source.at, "the source names a topic, and no `group`", help);
            }
            None
        }
        _ => None,
    };
    let (start, member) = (source.start("start"), source.text("member"));
    Some(SourceConfig::Kafka { broker, topic: topic?, group, observed, start, member })
}

/// Keys that say something only of a topic.
pub(super) fn refuse_keys_of_a_topic(source: &RawTable, context: &mut Context<'_, '_>) {
    for key in ["topic", "group", "group_window", "start", "member"] {
        if source.has(key) {
            let message = format!("`{key}` is for a source on a broker, and this names none");
            let help =
                "write: source = { broker = \"main\", topic = \"orders\", group = \"inventory\" }".to_owned();
            context.sink.fault(&source.place(key), message, help);
        }
    }
}

/// Reads where a flow begins.
pub(super) fn read_start(
    key: &KeySpec,
    value: &Spanned<DeValue<'_>>,
    at: &Place,
    sink: &mut Sink<'_>,
) -> Option<Raw> {
    let time =
        |text: &str| text.parse::<jiff::Timestamp>().ok().map(|time| StartAt::Time(time.as_millisecond()));
    let start = match value.get_ref() {
        DeValue::String(text) => match text.as_ref() {
            "earliest" => Some(StartAt::Earliest),
            "latest" => Some(StartAt::Latest),
            text => time(text),
        },
        DeValue::Integer(number) => {
            let number = i64::from_str_radix(number.as_str(), number.radix()).ok();
            number.and_then(|number| u64::try_from(number).ok()).map(StartAt::Offset)
        }
        DeValue::Datetime(datetime) => time(&datetime.to_string()),
        _ => None,
    };
    if start.is_none() {
        let message = format!("`{}` takes {}", key.name, key.kind.described());
        sink.fault(at, message, format!("write: {} = {}", key.name, key.example));
    }
    start.map(Raw::Start)
}
