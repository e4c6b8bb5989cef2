//! Connections, and what they are told at their start.

use super::faults::message;
use super::settings::{PostgresEffectSettings, PostgresOpenError};
use super::tls::{self, Trust};
use std::time::Duration;
use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::{Client, Config, NoTls};

/// Reads the URL; it may hold a password, so no error shows it.
pub(crate) fn read_url(url: &str) -> Result<(Config, Trust), PostgresOpenError> {
    let (url, trust) = tls::split(url)?;
    let config: Config = url.parse().map_err(|error: tokio_postgres::Error| {
        // The parser names the part that it does not understand, not its value.
        PostgresOpenError::Url(format!(
            "the database's url can't be read ({}): write postgres://user@host:5432/name",
            message(&error)
        ))
    })?;
    if config.get_hosts().is_empty() {
        let why = "the database's url names no host: write postgres://user@host:5432/name";
        return Err(PostgresOpenError::Url(why.to_owned()));
    }
    // Split at the first @, the rest of a password would count as the host, and be told as such.
    if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
        let why = "the database's url has an @ too many: write the one inside the password as %40";
        return Err(PostgresOpenError::Url(why.to_owned()));
    }
    Ok((config, trust))
}

/// Connects, and sets what every transaction of ours relies on.
pub(crate) async fn connect(settings: &PostgresEffectSettings) -> Result<Client, PostgresOpenError> {
    let (mut config, trust) = read_url(&settings.url)?;
    config.application_name(format!("recount {}", settings.flow));
    config.connect_timeout(Duration::from_millis(settings.connect_time_ms_max));
    notice_silence(&mut config);
    let client = open(&config, &trust).await?;
    let told = format!(
        "SET statement_timeout = {}; SET lock_timeout = {}; SET idle_in_transaction_session_timeout = {}; \
         SET client_min_messages = warning; SET standard_conforming_strings = on",
        settings.statement_time_ms_max, settings.lock_time_ms_max, settings.idle_in_transaction_ms_max
    );
    client.batch_execute(&told).await.map_err(|error| {
        PostgresOpenError::Unusable(format!("the session can't be set up: {}", message(&error)))
    })?;
    Ok(client)
}

/// A host that is gone without a word must not be waited for: by default the system asks after two hours.
/// What the URL says stands.
fn notice_silence(config: &mut Config) {
    let usual = Config::new();
    if config.get_keepalives_idle() == usual.get_keepalives_idle() {
        config.keepalives_idle(Duration::from_secs(20));
    }
    if config.get_keepalives_interval().is_none() {
        config.keepalives_interval(Duration::from_secs(5));
    }
    if config.get_keepalives_retries().is_none() {
        config.keepalives_retries(4);
    }
    if config.get_tcp_user_timeout().is_none() {
        config.tcp_user_timeout(Duration::from_secs(40));
    }
}

async fn open(config: &Config, trust: &Trust) -> Result<Client, PostgresOpenError> {
    let unreachable = |error: tokio_postgres::Error| {
        PostgresOpenError::Unreachable(format!("{}: {}", place(config), message(&error)))
    };
    if config.get_ssl_mode() == SslMode::Disable || is_local(config) {
        let (client, connection) = config.connect(NoTls).await.map_err(unreachable)?;
        watch(connection);
        return Ok(client);
    }
    let (client, connection) = config.connect(tls::connector(trust)?).await.map_err(unreachable)?;
    watch(connection);
    Ok(client)
}

/// Over a socket or the loopback interface nobody listens in; `sslmode=require` insists all the same.
fn is_local(config: &Config) -> bool {
    let here = |host: &Host| match host {
        Host::Unix(_) => true,
        Host::Tcp(name) => matches!(name.as_str(), "localhost" | "127.0.0.1" | "::1"),
    };
    config.get_ssl_mode() != SslMode::Require && config.get_hosts().iter().all(here)
}

/// The connection's own task ends with the connection; what it ended with, the next request says.
fn watch<S, T>(connection: tokio_postgres::Connection<S, T>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
    T: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!("a connection to PostgreSQL ended: {error}");
        }
    });
}

/// Host, port and database, for messages.
pub(crate) fn place(config: &Config) -> String {
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        Some(Host::Unix(path)) => path.display().to_string(),
        None => "no host".to_owned(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432);
    format!("{host}:{port}/{}", config.get_dbname().unwrap_or(""))
}

/// What of the server's settings lowers what can be promised, in sentences.
pub(crate) async fn weaknesses(client: &Client) -> Result<Vec<String>, tokio_postgres::Error> {
    let sql = "SELECT current_setting('synchronous_commit'), current_setting('fsync'), \
               current_setting('full_page_writes'), pg_is_in_recovery(), \
               current_setting('default_transaction_read_only')";
    let row = client.query_one(sql, &[]).await?;
    let (commit, fsync, pages): (String, String, String) = (row.get(0), row.get(1), row.get(2));
    let mut weak = Vec::new();
    if commit == "off" {
        weak.push(
            "synchronous_commit is off for this role or database: Recount sets it on for its own sessions"
                .to_owned(),
        );
    }
    if fsync == "off" {
        weak.push("fsync is off: a loss of power can lose or damage what was committed, and nothing is promised across one".to_owned());
    }
    if pages == "off" {
        weak.push("full_page_writes is off: a loss of power can damage pages".to_owned());
    }
    if row.get::<_, bool>(3) || row.get::<_, String>(4) == "on" {
        weak.push(
            "the server takes no writes (a standby, or read-only by default): name the primary".to_owned(),
        );
    }
    Ok(weak)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_that_is_gone_is_noticed_within_a_minute_unless_the_url_says_otherwise() {
        let told = |url: &str| {
            let (mut config, _) = read_url(url).unwrap();
            notice_silence(&mut config);
            (config.get_keepalives_idle(), config.get_tcp_user_timeout().copied())
        };
        let seconds = Duration::from_secs;
        assert_eq!(told("postgres://shop@db/shop"), (seconds(20), Some(seconds(40))));
        let own = "postgres://shop@db/shop?keepalives_idle=7&tcp_user_timeout=9";
        assert_eq!(told(own), (seconds(7), Some(seconds(9))));
    }
}
