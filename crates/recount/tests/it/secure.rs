//! TLS and passwords: a flow from a broker that wants both into a database that is checked against an
//! authority of one's own, and what is said where something of it is wrong.

use crate::harness::{TAKE_FROM_STOCK, World, config, eventually, orders};
use crate::kafka::topic::Topic;
use recount_services::{PASSWORD, USER};

/// A flow in a world of its own, and the topic that it reads.
struct Shop {
    world: World,
    topic: Topic,
    database: String,
}

impl Shop {
    /// None where a server was left out on purpose.
    fn open(mechanism: &str, host: &str, kafka_authority: Option<&str>) -> Option<Self> {
        let (kafka, postgres) = (recount_services::kafka()?, recount_services::postgres()?);
        let topic = Topic::make(&kafka.servers(), "secure", 1);
        let url = postgres.fresh_database().unwrap();
        let database = url.rsplit('/').next().unwrap().to_owned();
        let sql = "CREATE TABLE stock (sku text PRIMARY KEY, on_hand integer NOT NULL);
                   INSERT INTO stock VALUES ('a', 100)";
        postgres.sql(&database, sql).unwrap();
        let authority = postgres.authority().unwrap();
        let url = url.replace("127.0.0.1", host)
            + &format!("?sslmode=verify-full&sslrootcert={}", authority.display());
        let authority = kafka.authority().unwrap().display().to_string();
        let broker = format!(
            "[broker.main]\nkafka = {{ servers = \"{}\", \"security.protocol\" = \"sasl_ssl\", \
             \"ssl.ca.location\" = \"{}\", \"sasl.mechanism\" = \"{mechanism}\", \"sasl.username\" = \"{USER}\", \
             \"sasl.password\" = \"${{KAFKA_PASSWORD}}\" }}\n",
            kafka.secure_servers().unwrap(),
            kafka_authority.unwrap_or(&authority),
        );
        let source = format!(
            "source = {{ broker = \"main\", topic = \"{}\", group = \"{}\" }}\n",
            topic.name, topic.name
        );
        let text = config(&source, &format!("{TAKE_FROM_STOCK}{broker}")).replace("sqlite:shop.db", &url);
        Some(Self { world: World::new(&text), topic, database })
    }

    fn on_hand(&self) -> String {
        let postgres = recount_services::postgres().unwrap();
        postgres.sql(&self.database, "SELECT on_hand FROM stock").unwrap().trim().to_owned()
    }

    /// What a command says and how it ends.
    fn told(&self, arguments: &[&str], password: &str) -> (Option<i32>, String) {
        let output = self.world.command(arguments).env("KAFKA_PASSWORD", password).output().unwrap();
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        (output.status.code(), text(&output.stdout) + &text(&output.stderr))
    }
}

#[test]
fn a_flow_runs_over_tls_with_a_password_into_a_database_that_is_checked() {
    for mechanism in ["PLAIN", "SCRAM-SHA-512"] {
        let Some(shop) = Shop::open(mechanism, "localhost", None) else { return };
        let lines = orders(0..10, "a");
        shop.topic.publish(0, &lines.iter().map(String::as_str).collect::<Vec<_>>());
        let (code, said) = shop.told(&["validate"], PASSWORD);
        assert!(code == Some(0) && !said.contains(PASSWORD), "{said}");
        let running = shop.world.start_with(&["run"], &[("KAFKA_PASSWORD", PASSWORD)]);
        eventually("all are decided", || shop.world.decided() == 10);
        running.terminate().expect(0);
        assert_eq!(shop.on_hand(), "90", "{mechanism}");
        let (code, said) = shop.told(&["audit"], PASSWORD);
        assert!(code == Some(0) && said.contains("balanced"), "{said}");
    }
}

#[test]
fn a_wrong_password_and_an_unknown_authority_are_told_as_what_they_are() {
    let Some(shop) = Shop::open("PLAIN", "localhost", None) else { return };
    let (code, said) = shop.told(&["validate"], "a-wrong-one");
    assert!(
        code == Some(0) && said.contains("uthentication failed") && said.contains("would wait"),
        "{said}"
    );
    assert!(!said.contains("a-wrong-one"), "{said}");
    let running = shop.world.start_with(&["run"], &[("KAFKA_PASSWORD", "a-wrong-one")]);
    eventually("it says why it can't read", || running.log().contains("uthentication failed"));
    assert!(!running.log().contains("a-wrong-one"), "{}", running.log());
    running.kill();
    let system = "/etc/ssl/certs/ca-certificates.crt";
    if std::path::Path::new(system).exists() {
        let shop = Shop::open("PLAIN", "localhost", Some(system)).unwrap();
        let running = shop.world.start_with(&["run"], &[("KAFKA_PASSWORD", PASSWORD)]);
        eventually("it says why it can't read", || running.log().contains("certificate"));
        assert!(!running.log().contains(PASSWORD), "{}", running.log());
        running.kill();
    }
}

#[test]
fn a_database_whose_certificate_names_another_host_is_not_spoken_to() {
    let Some(shop) = Shop::open("PLAIN", "127.0.0.1", None) else { return };
    let (code, said) = shop.told(&["validate"], PASSWORD);
    assert!(said.contains("certificate") && said.contains("127.0.0.1"), "{code:?} {said}");
}
