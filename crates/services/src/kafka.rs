//! An Apache Kafka broker of one's own: a single node that is its own controller (KRaft).

use crate::certificates::{Certificates, certificates};
use crate::folder::{
    Lease, detached, end, folder, free_port, guard, one_at_a_time, remember, running, until,
};
use crate::install::{debian, on_path, run};
use crate::{ServiceError, at};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const SERVICE: &str = "kafka";
/// The broker's and the controller's heap.
const HEAP: &str = "-Xmx512m";
/// A cold start takes 4 to 14 seconds; a busy machine more.
const START_MAX: Duration = Duration::from_secs(120);

/// A running broker, without authentication; a second listener has TLS and SASL.
#[derive(Debug)]
pub struct Kafka {
    port: u16,
    jars: PathBuf,
    _lease: Lease,
}

impl Kafka {
    /// Finds the broker of this checkout, or starts one.
    ///
    /// # Errors
    /// Where Java or the jars are missing and can't be had, or it does not answer.
    pub fn start() -> Result<Self, ServiceError> {
        let lease = Lease::take()?;
        let jars = jars()?;
        let port = one_at_a_time(|| match running(SERVICE)? {
            Some((port, _)) => Ok(port),
            None => launch(&jars, free_port()?, true),
        })?;
        Ok(Self { port, jars, _lease: lease })
    }

    /// `127.0.0.1:PORT`.
    pub fn servers(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    /// `localhost:PORT` with TLS, where [`USER`] and [`PASSWORD`] are let in by `PLAIN` and `SCRAM-SHA-512`.
    ///
    /// # Errors
    /// Where its settings can't be read.
    pub fn secure_servers(&self) -> Result<String, ServiceError> {
        let path = folder()?.join("kafka.properties");
        let text = std::fs::read_to_string(&path).map_err(at(path.display().to_string()))?;
        let after = text.split_once("SASL_SSL://localhost:").map_or("", |(_, after)| after);
        let port: String = after.chars().take_while(char::is_ascii_digit).collect();
        Ok(format!("localhost:{port}"))
    }

    /// The certificate of the authority that the broker has its own from.
    ///
    /// # Errors
    /// Where the folder can't be written.
    pub fn authority(&self) -> Result<PathBuf, ServiceError> {
        Ok(certificates(&folder()?, SERVICE)?.authority)
    }

    /// Runs one of Kafka's own tools, such as `org.apache.kafka.tools.TopicCommand`; returns what it prints.
    ///
    /// # Errors
    /// Where it fails.
    pub fn tool(&self, class: &str, arguments: &[&str]) -> Result<String, ServiceError> {
        let mut command = self.tool_command(class);
        let output = command.args(arguments).stdin(Stdio::null()).output().map_err(at("java"))?;
        if !output.status.success() {
            let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
            let why = format!("{class}: {}{}", text(&output.stdout), text(&output.stderr));
            return Err(ServiceError::Silent { service: SERVICE, why });
        }
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// One of Kafka's own tools on this broker, to be given its arguments and started.
    pub fn tool_command(&self, class: &str) -> Command {
        let mut command = java(&self.jars);
        command.arg(class).args(["--bootstrap-server", &self.servers()]);
        command
    }

    /// Stops the broker (in order, or as a crash would) and starts it again on the same port and data.
    ///
    /// # Errors
    /// Where it does not come back.
    pub fn restart(&self, crash: bool) -> Result<(), ServiceError> {
        one_at_a_time(|| {
            if let Some((_, process)) = running(SERVICE)? {
                end(process, if crash { "-KILL" } else { "-TERM" })?;
            }
            launch(&self.jars, self.port, false).map(drop)
        })
    }
}

fn java(jars: &Path) -> Command {
    let mut command = Command::new("java");
    command.args([
        "-XX:+UseSerialGC",
        "-XX:TieredStopAtLevel=1",
        "-Dorg.slf4j.simpleLogger.defaultLogLevel=warn",
    ]);
    command.arg("-cp").arg(jars.join("*"));
    command
}

/// Kafka's jars, fetched once into the checkout's target folder.
fn jars() -> Result<PathBuf, ServiceError> {
    if on_path("java").is_none() {
        debian(&["openjdk-17-jre-headless"], SERVICE)?;
    }
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    let jars = here.join("../../target/kafka-4.3.1");
    one_at_a_time(|| {
        let complete = jars.join("complete");
        if complete.exists() {
            return Ok(jars.clone());
        }
        if on_path("mvn").is_none() {
            debian(&["maven"], SERVICE)?;
        }
        eprintln!("fetches Kafka's jars (54 MB) for the tests");
        std::fs::create_dir_all(&jars).map_err(at(jars.display().to_string()))?;
        let mut maven = Command::new("mvn");
        maven.args(["-q", "-B", "-f"]).arg(here.join("kafka-pom.xml")).arg("dependency:copy-dependencies");
        maven.arg(format!("-DoutputDirectory={}", jars.display())).arg("-DincludeScope=runtime");
        if !run(&mut maven)? {
            return Err(ServiceError::Missing {
                what: "Kafka's jars".to_owned(),
                next: "see that Maven Central can be reached".to_owned(),
                service: SERVICE,
            });
        }
        std::fs::write(&complete, "").map_err(at(complete.display().to_string()))?;
        Ok(jars.clone())
    })
}

fn launch(jars: &Path, port: u16, fresh: bool) -> Result<u16, ServiceError> {
    let folder = folder()?;
    let data = folder.join("kafka-data");
    let properties = folder.join("kafka.properties");
    if fresh {
        drop(std::fs::remove_dir_all(&data));
        let tls = certificates(&folder, SERVICE)?;
        std::fs::write(&properties, server_properties([port, free_port()?, free_port()?], &data, &tls))
            .map_err(at(properties.display().to_string()))?;
        let mut format = java(jars);
        format.args(["kafka.tools.StorageTool", "format", "-t", CLUSTER_ID, "-c"]).arg(&properties);
        format.arg("--add-scram").arg(format!("SCRAM-SHA-512=[name={USER},password={PASSWORD}]"));
        if !run(&mut format)? {
            return Err(ServiceError::Silent {
                service: SERVICE,
                why: "its storage can't be formatted".to_owned(),
            });
        }
    }
    let log = folder.join("kafka.log");
    let process = detached(java(jars).arg(HEAP).arg("kafka.Kafka").arg(&properties), &log)?;
    remember(SERVICE, port, process)?;
    guard()?;
    // The broker opens its port only when it can serve.
    until(SERVICE, &log, START_MAX, || std::net::TcpStream::connect(("127.0.0.1", port)).is_ok())?;
    Ok(port)
}

/// Any 16 bytes in base64: the cluster lives as long as its temporary folder.
const CLUSTER_ID: &str = "cmVjb3VudC1mb3ItdGVzdA";

/// Who is let in on the listener with TLS. No secret: the broker lives as long as a test.
pub const USER: &str = "shop";
/// Its password.
pub const PASSWORD: &str = "for-tests";

fn server_properties(ports: [u16; 3], data: &Path, tls: &Certificates) -> String {
    let [port, controller_port, secure_port] = ports;
    let security = "org.apache.kafka.common.security";
    format!(
        "process.roles=broker,controller\nnode.id=1\ncontroller.quorum.voters=1@127.0.0.1:{controller_port}\n\
         listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://127.0.0.1:{secure_port},CONTROLLER://127.0.0.1:{controller_port}\n\
         advertised.listeners=PLAINTEXT://127.0.0.1:{port},SASL_SSL://localhost:{secure_port}\n\
         controller.listener.names=CONTROLLER\n\
         listener.security.protocol.map=CONTROLLER:PLAINTEXT,PLAINTEXT:PLAINTEXT,SASL_SSL:SASL_SSL\n\
         ssl.keystore.type=PEM\nssl.keystore.location={}\nsasl.enabled.mechanisms=PLAIN,SCRAM-SHA-512\n\
         listener.name.sasl_ssl.plain.sasl.jaas.config={security}.plain.PlainLoginModule required user_{USER}=\"{PASSWORD}\";\n\
         listener.name.sasl_ssl.scram-sha-512.sasl.jaas.config={security}.scram.ScramLoginModule required;\nlog.dirs={}\n\
         offsets.topic.replication.factor=1\noffsets.topic.num.partitions=4\n\
         transaction.state.log.replication.factor=1\ntransaction.state.log.min.isr=1\n\
         transaction.state.log.num.partitions=2\nshare.coordinator.state.topic.replication.factor=1\n\
         share.coordinator.state.topic.min.isr=1\ngroup.initial.rebalance.delay.ms=0\nlog.cleaner.backoff.ms=500\n\
         group.min.session.timeout.ms=1000\nbroker.session.timeout.ms=2000\nbroker.heartbeat.interval.ms=500\n\
         auto.create.topics.enable=false\n",
        tls.both.display(),
        data.display()
    )
}
