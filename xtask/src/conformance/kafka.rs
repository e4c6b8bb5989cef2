//! A topic of a real broker.

use super::bench::Bench;
use super::event::Event;
use super::properties::Property;
use super::scene::Scene;
use super::wire::Wire;
use anyhow::{Context, Result, bail};
use recount_services::Kafka;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::process::{ChildStdin, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Between two lines of the producer's input while the broker restarts.
const BETWEEN_LINES: Duration = Duration::from_millis(3);

/// A topic of its own for one property, and a group of the same name.
pub struct KafkaBench<'a> {
    kafka: &'a Kafka,
    topic: String,
    partitions: i32,
}

impl<'a> KafkaBench<'a> {
    /// Makes the topic.
    pub fn new(kafka: &'a Kafka, property: Property) -> Result<Self> {
        // Where positions are named beforehand there is one partition.
        let has_one = matches!(property, Property::Unread | Property::Moved);
        static MADE: AtomicU32 = AtomicU32::new(0);
        let topic = format!("{}-{}", property.name().replace(' ', "-"), MADE.fetch_add(1, Ordering::Relaxed));
        let bench = Self { kafka, topic, partitions: if has_one { 1 } else { 3 } };
        bench.wire()?.create_topic(&bench.topic, bench.partitions)?;
        Ok(bench)
    }

    fn wire(&self) -> Result<Wire> {
        Wire::connect(&self.kafka.servers())
    }

    fn send_through_restart(
        &self,
        scene: &mut Scene<'_>,
        events: &[Event],
        mut input: ChildStdin,
    ) -> Result<()> {
        let (first, second) = events.split_at(events.len() / 2);
        let line = |event: &Event| format!("{}\t{}\n", event.key(), event.line());
        input.write_all(first.iter().map(line).collect::<String>().as_bytes())?;
        input.flush()?;
        scene.settles(2)?;
        std::thread::scope(|scope| {
            let sender = scope.spawn(move || -> Result<()> {
                for event in second {
                    input.write_all(line(event).as_bytes())?;
                    input.flush()?;
                    std::thread::sleep(BETWEEN_LINES);
                }
                Ok(())
            });
            let restarted = self.kafka.restart(true);
            let sent = sender.join().map_err(|_| anyhow::anyhow!("the sender panicked"))?;
            restarted?;
            sent
        })
    }
}

impl Bench for KafkaBench<'_> {
    fn config(&self, _: &Path) -> (String, String) {
        let (topic, servers) = (&self.topic, self.kafka.servers());
        (
            format!("{{ broker = \"main\", topic = \"{topic}\", group = \"{topic}\" }}"),
            format!("[broker.main]\nkafka = {{ servers = \"{servers}\" }}\n"),
        )
    }

    fn publish(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        let before = self.wire()?.end(&self.topic, self.partitions)?;
        fs::write(scene.of_process().join("more.ndjson"), Event::lines(events))?;
        scene.recount(&["publish", "ship", "--file", "more.ndjson"])?.expect_success("recount publish")?;
        let there = self.wire()?.end(&self.topic, self.partitions)? - before;
        if there != events.len() as i64 {
            bail!("{there} records came into the topic, {} were published", events.len());
        }
        Ok(())
    }

    /// With Kafka's own producer, which has the patience: the second half comes while the broker is away.
    fn publish_through_restart(&self, scene: &mut Scene<'_>, events: &[Event]) -> Result<()> {
        let mut command = self.kafka.tool_command("org.apache.kafka.tools.ConsoleProducer");
        command.args(["--topic", &self.topic, "--timeout", "20", "--request-required-acks", "all"]);
        command.args(["--max-block-ms", "120000", "--message-send-max-retries", "2147483647"]);
        command.args(["--reader-property", "parse.key=true"]);
        let mut producer =
            command.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
        let input = producer.stdin.take().context("the producer has no standard input")?;
        let sent = self.send_through_restart(scene, events, input);
        if sent.is_err() {
            producer.kill()?;
        }
        let status = producer.wait()?;
        sent?;
        if !status.success() {
            bail!("Kafka's producer ended with {status}");
        }
        let there = self.wire()?.end(&self.topic, self.partitions)?;
        if there < events.len() as i64 {
            bail!("{there} records came into the topic, {} were acknowledged", events.len());
        }
        Ok(())
    }

    fn overtake(&self, scene: &Scene<'_>, events: u64) -> Result<()> {
        let below = scene.decided()? as u64 + events;
        self.wire()?.delete_records(&self.topic, 0, i64::try_from(below)?)
    }

    fn make_anew(&self, scene: &Scene<'_>, events: &[Event]) -> Result<()> {
        let mut wire = self.wire()?;
        wire.delete_topic(&self.topic)?;
        wire.create_topic(&self.topic, self.partitions)?;
        self.publish(scene, events)
    }

    /// With Kafka's own tool for groups.
    fn move_offset(&self, _: &Scene<'_>, offset: u64) -> Result<()> {
        let (topic, offset) = (self.topic.as_str(), offset.to_string());
        let reset =
            ["--group", topic, "--topic", topic, "--reset-offsets", "--to-offset", &offset, "--execute"];
        self.kafka.tool("org.apache.kafka.tools.consumer.group.ConsumerGroupCommand", &reset)?;
        Ok(())
    }
}
