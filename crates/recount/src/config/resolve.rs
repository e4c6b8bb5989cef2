//! The second stage: what is written, made whole with defaults and held against itself.

use super::fault::{Place, Sink, nearest};
use super::raw::RawTable;
use super::{
    BrokerConfig, Config, LogConfig, LogFormat, ServerConfig, broker, database, flow, ledger, letters,
    reconcile,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};

/// What resolving needs at every place.
pub(super) struct Context<'s, 't> {
    pub sink: &'s mut Sink<'t>,
    /// Relative paths start here.
    pub folder: PathBuf,
    /// Names of the databases that are declared, with whatever faults.
    pub databases: Vec<String>,
    /// Those of them that are SQLite files, as far as their urls say so without a variable.
    pub sqlite: Vec<String>,
    /// Names of the brokers that are declared.
    pub brokers: Vec<String>,
    /// Names of the flows that are declared.
    pub flows: Vec<String>,
    /// Schemas that were read: path as written, and text.
    pub files: Vec<(String, String)>,
}

fn sqlite(raw: &RawTable) -> Vec<String> {
    let is_sqlite = |table: &RawTable| table.text("url").is_some_and(|url| url.starts_with("sqlite:"));
    raw.named("database").iter().filter(|(_, table)| is_sqlite(table)).map(|(name, _)| name.clone()).collect()
}

/// Resolves everything. The result is worth nothing if the sink holds faults.
pub(super) fn resolve(raw: &RawTable, text: &str, path: &Path, sink: &mut Sink<'_>) -> Config {
    let names = |table| raw.named(table).iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
    let folder = path.parent().map(Path::to_owned).unwrap_or_default();
    let syntax_is_whole = sink.is_clean();
    let mut context = Context {
        sink,
        folder,
        databases: names("database"),
        sqlite: sqlite(raw),
        brokers: names("broker"),
        flows: names("flow"),
        files: Vec::new(),
    };
    let databases = database::resolve(raw, &mut context);
    let brokers = brokers(raw, &mut context);
    let mut flows: Vec<_> =
        raw.named("flow").iter().map(|(name, table)| flow::resolve(name, table, &mut context)).collect();
    if flows.is_empty() && syntax_is_whole && !raw.has("flow") {
        let at = Place { span: 0..0, key: "flow".into() };
        let help = "write: [flow.reserve-stock], with owner, purpose, source and apply".to_owned();
        context.sink.fault(&at, "there is no flow", help);
    }
    flow::check_http_paths(raw, &flows, &mut context);
    letters::refuse_shared_ledger(raw, &mut context);
    let reconciles = reconcile::resolve(raw, &mut flows, &mut context);
    for ((_, table), flow) in raw.named("flow").iter().zip(&flows) {
        flow::check_rules(table, flow, &mut context);
    }
    for (name, table) in raw.named("alert") {
        let message = format!("alert {name} is read, but this build sends no alerts yet");
        context.sink.warn(&table.at, message, "watch the exit code, /health/working or /metrics".to_owned());
    }
    let ledger = ledger::resolve(raw, &databases, &flows, &mut context);
    Config {
        path: path.to_owned(),
        ledger,
        server: server(raw, &mut context),
        log: log(raw),
        tracing: super::tracing::resolve(raw, &mut context),
        databases,
        brokers,
        flows,
        reconciles,
        warnings: Vec::new(),
        text: text.to_owned(),
        files: context.files,
    }
}

fn log(raw: &RawTable) -> LogConfig {
    let table = raw.table_or_defaults("log");
    let format = match table.text("format").as_deref() {
        Some("human") => LogFormat::Human,
        Some("json") => LogFormat::Json,
        _ => LogFormat::Auto,
    };
    LogConfig { format, level: table.text("level").unwrap_or_default() }
}

fn server(raw: &RawTable, context: &mut Context<'_, '_>) -> ServerConfig {
    let table = raw.table_or_defaults("server");
    let listen = table.text("listen").unwrap_or_default();
    let token = table.secret("token", &context.folder);
    let hmac = table.secret("hmac", &context.folder);
    if token.is_some() && hmac.is_some() {
        let message = "senders show either a token or a signature, and this names both";
        context.sink.fault(&table.place("hmac"), message, "leave one out".to_owned());
    }
    match is_loopback(&listen) {
        None => {
            let help = "write: listen = \"127.0.0.1:7601\"".to_owned();
            context.sink.fault(
                &table.place("listen"),
                format!("`listen` takes an address and a port, and {listen:?} isn't that"),
                help,
            );
        }
        Some(false) if !table.has("token") && !table.has("hmac") => context.sink.fault(
            &table.place("listen"),
            format!("{listen} can be reached from other machines, and nothing asks who is calling"),
            "add: token = \"${RECOUNT_TOKEN}\" (or hmac), or listen on 127.0.0.1".to_owned(),
        ),
        Some(_) => {}
    }
    ServerConfig { listen, token, hmac, body_bytes_max: table.count("body_max") }
}

/// Whether only this machine can reach it; `None` where it isn't an address with a port.
fn is_loopback(listen: &str) -> Option<bool> {
    if let Ok(address) = listen.parse::<SocketAddr>() {
        return Some(match address.ip() {
            IpAddr::V4(ip) => ip.is_loopback(),
            IpAddr::V6(ip) => ip.is_loopback(),
        });
    }
    let (host, port) = listen.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    (host == "localhost").then_some(true)
}

fn brokers(raw: &RawTable, context: &mut Context<'_, '_>) -> BTreeMap<String, BrokerConfig> {
    let (folder, sink) = (&context.folder, &mut *context.sink);
    let resolve =
        |(name, table): &(String, RawTable)| Some((name.clone(), broker::resolve(table, folder, sink)?));
    raw.named("broker").iter().filter_map(resolve).collect()
}

impl Context<'_, '_> {
    /// Says that a name isn't declared, and which could be meant.
    pub fn unknown_name(&mut self, at: &Place, kind: &str, name: &str, known: &[String], header: &str) {
        let help = match nearest(name, known.iter().map(String::as_str)) {
            Some(meant) => format!("did you mean {meant:?}?"),
            None if known.is_empty() => format!("declare it: {header}"),
            None => format!("declare it: {header}; declared are {}", known.join(", ")),
        };
        self.sink.fault(at, format!("there is no {kind} named {name:?}"), help);
    }
}
