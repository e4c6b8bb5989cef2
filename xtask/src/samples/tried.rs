//! The samples' flow, as it is written, on servers that are real: only where it listens and where its ledger lies are
//! changed, and the environment says where the servers are, as it does in a container.

use crate::dist::Outcome;
use crate::program;
use anyhow::{Context, Result, bail};
use recount_services::{Kafka, Postgres};
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const ORDERS: &str = r#"{"id": "1", "sku": "mug", "quantity": 2}
{"id": "2", "sku": "tray", "quantity": 1}
{"id": "3", "sku": "spoon", "quantity": 1}
{"id": "4", "sku": "mug", "quantity": 3}
"#;
/// What must be in the table then: two orders of mugs, one of trays, and nobody sells spoons.
const STOCK: &str = "bowl|100\nmug|95\ntray|99";
/// Cold servers on a busy machine.
const WAIT_MAX: Duration = Duration::from_secs(60);

/// Validates it, runs it, publishes into its topic beside it, and looks at the table.
pub fn on_real_servers(config: &str, sql: &str) -> Result<Outcome> {
    if ["kafka", "postgres"].iter().any(|service| recount_services::is_left_out(service)) {
        return Ok(Outcome::NotPossible("left out, as RECOUNT_WITHOUT says".to_owned()));
    }
    recount_services::apart("samples");
    let (kafka, postgres) = (Kafka::start()?, Postgres::start()?);
    let create = ["--create", "--topic", "orders", "--partitions", "6", "--replication-factor", "1"];
    kafka.tool("org.apache.kafka.tools.TopicCommand", &create)?;
    let url = postgres.fresh_database()?;
    let database = url.rsplit('/').next().unwrap_or_default();
    postgres.sql(database, sql)?;

    let folder = tempfile::tempdir()?;
    let place = Place {
        binary: program::recount()?,
        config: folder.path().join("recount.toml"),
        variables: [
            ("KAFKA_SERVERS", kafka.servers()),
            ("DATABASE_URL", url.clone()),
            ("RECOUNT_TOKEN", "t".to_owned()),
        ],
    };
    fs::write(&place.config, local(config, folder.path())?)?;
    let validated = program::run(&mut place.command("validate"))?.expect_success("recount validate")?;
    if validated.stdout.contains("warning") {
        return Ok(Outcome::Fails(format!("validate warns: {}", validated.tail())));
    }
    let stock = || postgres.sql(database, "SELECT sku, on_hand FROM stock ORDER BY sku");
    let mut published = Ok(());
    let finished = program::run_until(&mut place.command("run"), || {
        published = publish(&place);
        let begun = Instant::now();
        while begun.elapsed() < WAIT_MAX {
            let decided =
                postgres.sql(database, "SELECT coalesce(sum(next_offset), 0) FROM recount_position");
            if published.is_err() || decided.is_ok_and(|sum| sum.trim() == "4") {
                return true;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        false
    })?;
    published?;
    let (found, code) = (stock()?, finished.status.code());
    if found.trim() != STOCK || code != Some(0) {
        return Ok(Outcome::Fails(format!(
            "it ended with {code:?}, the stock is {found:?}: {}",
            finished.tail()
        )));
    }
    Ok(Outcome::Holds(
        "validated, no warning; four orders published beside it, stock and exit code right".to_owned(),
    ))
}

/// The config for here: what is `/data` in the container is a folder, and it listens at any free port.
fn local(config: &str, folder: &Path) -> Result<String> {
    let folder = folder.display();
    let mut local = config.to_owned();
    for (of_container, here) in
        [("\"0.0.0.0:7601\"", "\"127.0.0.1:0\"".to_owned()), ("\"/data/", format!("\"{folder}/"))]
    {
        if local.matches(of_container).count() != 1 {
            bail!("the config must hold {of_container} once");
        }
        local = local.replace(of_container, &here);
    }
    Ok(local)
}

struct Place {
    binary: PathBuf,
    config: PathBuf,
    variables: [(&'static str, String); 3],
}

impl Place {
    fn command(&self, what: &str) -> Command {
        let mut command = self.bare(what);
        command.arg(&self.config);
        command
    }

    fn bare(&self, what: &str) -> Command {
        let mut command = Command::new(&self.binary);
        command.arg(what).envs(self.variables.iter().map(|(name, value)| (*name, value)));
        command.env_remove("RECOUNT_CONFIG").env_remove("RECOUNT_LOG");
        command
    }
}

/// As the comment in the Compose file does it: from standard input, while the flow runs.
fn publish(place: &Place) -> Result<()> {
    let mut command = place.bare("publish");
    command.arg("reserve-stock").arg("--config").arg(&place.config);
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::piped()).spawn()?;
    child.stdin.take().context("it has a standard input")?.write_all(ORDERS.as_bytes())?;
    let output = child.wait_with_output()?;
    if !output.status.success() {
        bail!("recount publish: {}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::local;
    use std::path::Path;

    #[test]
    fn a_config_is_only_moved() {
        let moved = local("listen = \"0.0.0.0:7601\"\npath = \"/data/ledger\"\n", Path::new("/x")).unwrap();
        assert_eq!(moved, "listen = \"127.0.0.1:0\"\npath = \"/x/ledger\"\n");
        assert!(local("path = \"/data/ledger\"", Path::new("/x")).is_err());
    }
}
