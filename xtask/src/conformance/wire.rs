//! The few questions to a Kafka broker that the suite asks by itself, in Kafka's protocol: its own tools each
//! take a second to start.

use anyhow::{Context, Result, bail};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

const CLIENT: &str = "conformance";
const TIMEOUT_MS: i32 = 30_000;
/// A topic that is being deleted can't be made again for a moment.
const TOPIC_ALREADY_EXISTS: i16 = 36;
const PATIENCE: Duration = Duration::from_secs(20);
const TICK: Duration = Duration::from_millis(30);
/// An answer is never longer than this.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// A connection to a broker that leads all partitions and is the controller's way in.
pub struct Wire {
    stream: TcpStream,
}

impl Wire {
    /// To `127.0.0.1:PORT`.
    pub fn connect(servers: &str) -> Result<Self> {
        let stream = TcpStream::connect(servers).with_context(|| format!("{servers} can't be reached"))?;
        stream.set_read_timeout(Some(Duration::from_secs(40)))?;
        Ok(Self { stream })
    }

    /// Makes a topic, with one replica, and waits until its partitions have leaders.
    pub fn create_topic(&mut self, topic: &str, partitions: i32) -> Result<()> {
        let begun = Instant::now();
        loop {
            let mut body = Body::default();
            body.i32(1).text(topic).i32(partitions).i16(1).i32(0).i32(0).i32(TIMEOUT_MS).u8(0);
            let mut answer = self.ask(19, 2, &body)?;
            answer.i32()?;
            answer.expect_one()?;
            answer.text()?;
            match answer.i16()? {
                0 => break,
                TOPIC_ALREADY_EXISTS if begun.elapsed() < PATIENCE => std::thread::sleep(TICK),
                code => bail!("topic {topic} can't be made: error {code} of Kafka"),
            }
        }
        while let Err(error) = self.end(topic, partitions) {
            if begun.elapsed() > PATIENCE {
                return Err(error);
            }
            std::thread::sleep(TICK);
        }
        Ok(())
    }

    /// Deletes a topic.
    pub fn delete_topic(&mut self, topic: &str) -> Result<()> {
        let mut body = Body::default();
        body.i32(1).text(topic).i32(TIMEOUT_MS);
        let mut answer = self.ask(20, 1, &body)?;
        answer.i32()?;
        answer.expect_one()?;
        answer.text()?;
        none(answer.i16()?, "the topic can't be deleted")
    }

    /// Removes what lies below an offset.
    pub fn delete_records(&mut self, topic: &str, partition: i32, below: i64) -> Result<()> {
        let mut body = Body::default();
        body.i32(1).text(topic).i32(1).i32(partition).i64(below).i32(TIMEOUT_MS);
        let mut answer = self.ask(21, 0, &body)?;
        answer.i32()?;
        answer.expect_one()?;
        answer.text()?;
        answer.expect_one()?;
        answer.i32()?;
        answer.i64()?;
        none(answer.i16()?, "the records can't be deleted")
    }

    /// The sum of the partitions' ends: as many records as were ever acknowledged, in a topic without
    /// transactions.
    pub fn end(&mut self, topic: &str, partitions: i32) -> Result<i64> {
        let mut body = Body::default();
        body.i32(-1).i32(1).text(topic).i32(partitions);
        for partition in 0..partitions {
            // -1 asks for the end.
            body.i32(partition).i64(-1);
        }
        let mut answer = self.ask(2, 1, &body)?;
        answer.expect_one()?;
        answer.text()?;
        let mut sum = 0;
        for _ in 0..answer.i32()? {
            answer.i32()?;
            none(answer.i16()?, "a partition's end is not told")?;
            answer.i64()?;
            sum += answer.i64()?;
        }
        Ok(sum)
    }

    fn ask(&mut self, api: i16, version: i16, body: &Body) -> Result<Answer> {
        let mut request = Body::default();
        request.i16(api).i16(version).i32(0).text(CLIENT);
        request.0.extend(&body.0);
        let length = i32::try_from(request.0.len())?;
        self.stream.write_all(&[&length.to_be_bytes()[..], &request.0].concat())?;
        let mut length = [0; 4];
        self.stream.read_exact(&mut length)?;
        let length = usize::try_from(i32::from_be_bytes(length))?;
        if length > ANSWER_BYTES_MAX {
            bail!("Kafka announces an answer of {length} bytes");
        }
        let mut bytes = vec![0; length];
        self.stream.read_exact(&mut bytes)?;
        let mut answer = Answer { bytes, at: 0 };
        // The number that the request had.
        answer.i32()?;
        Ok(answer)
    }
}

fn none(code: i16, what: &str) -> Result<()> {
    if code == 0 { Ok(()) } else { bail!("{what}: error {code} of Kafka") }
}

/// A request, written field by field.
#[derive(Default)]
struct Body(Vec<u8>);

impl Body {
    fn u8(&mut self, value: u8) -> &mut Self {
        self.0.push(value);
        self
    }

    fn i16(&mut self, value: i16) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i32(&mut self, value: i32) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn i64(&mut self, value: i64) -> &mut Self {
        self.0.extend(value.to_be_bytes());
        self
    }

    fn text(&mut self, text: &str) -> &mut Self {
        // Names of topics are at most 249 characters.
        self.i16(text.len() as i16).0.extend(text.as_bytes());
        self
    }
}

/// An answer, read field by field.
struct Answer {
    bytes: Vec<u8>,
    at: usize,
}

impl Answer {
    fn take<const N: usize>(&mut self) -> Result<[u8; N]> {
        let bytes = self.bytes.get(self.at..self.at + N).context("Kafka's answer is too short")?;
        self.at += N;
        Ok(bytes.try_into()?)
    }

    fn i16(&mut self) -> Result<i16> {
        Ok(i16::from_be_bytes(self.take()?))
    }

    fn i32(&mut self) -> Result<i32> {
        Ok(i32::from_be_bytes(self.take()?))
    }

    fn i64(&mut self) -> Result<i64> {
        Ok(i64::from_be_bytes(self.take()?))
    }

    /// Passes over a text.
    fn text(&mut self) -> Result<()> {
        self.at += usize::try_from(self.i16()?.max(0))?;
        Ok(())
    }

    fn expect_one(&mut self) -> Result<()> {
        match self.i32()? {
            1 => Ok(()),
            other => bail!("Kafka answered about {other} topics, not one"),
        }
    }
}
