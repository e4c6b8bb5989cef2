//! Why positions of a partition carry no event, asked of the broker that leads it: a small client of Kafka's
//! protocol, over plain TCP, since librdkafka gives out records and not the batches that they came in.
//!
//! It is bounded: a gap is asked about once, so many questions a second, so many bytes and so long a question; a
//! broker that can't be asked is left alone for a while. What was not asked stays an unexplained gap. TLS and SASL it
//! does not speak.

use super::client::Consumer;
use super::raw_batches::{Absence, RawLog, read_fetched};
use super::settings::KafkaBroker;
use rdkafka::consumer::Consumer as _;
use recount_model::{Gap, GapKind};
use std::io::{Read, Write};
use std::net::{TcpStream, ToSocketAddrs};
use std::time::{Duration, Instant};

/// A gap that nothing is known of but that it carries no event.
pub(super) const UNEXPLAINED: &str = "unexplained gap: a transaction's marker, an aborted or a compacted record; its raw batches were not read";

const ANSWER_WAIT: Duration = Duration::from_millis(500);
/// A question with all its fetches may take so long.
const QUESTION_WAIT: Duration = Duration::from_secs(1);
/// After a question that failed, none is asked for so long.
const SILENT: Duration = Duration::from_secs(30);
const QUESTIONS_A_SECOND: u32 = 10;
/// A burst of questions may be so long.
const QUESTIONS_MAX: u32 = 20;
const FETCHES_MAX: usize = 4;
const FETCH_BYTES: i32 = 1 << 20;
/// A batch may be larger than what was asked for; an answer larger than this is not taken.
const ANSWER_BYTES_MAX: usize = 16 << 20;
const FETCH: i16 = 1;
const FETCH_VERSION: i16 = 4;
const READ_COMMITTED: u8 = 1;

/// Asks for the gaps of one partition.
pub(super) struct GapCauses {
    topic: String,
    partition: i32,
    /// Where the cluster speaks TLS or SASL nothing is asked.
    is_plain: bool,
    silent_until: Option<Instant>,
    questions: u32,
    since: Instant,
}

impl GapCauses {
    pub fn new(broker: &KafkaBroker, topic: &str, partition: i32) -> Self {
        let protocol = broker.property("security.protocol");
        Self {
            topic: topic.to_owned(),
            partition,
            is_plain: protocol.is_none_or(|protocol| protocol.eq_ignore_ascii_case("plaintext")),
            silent_until: None,
            questions: QUESTIONS_MAX,
            since: Instant::now(),
        }
    }

    /// Whether these gaps may be asked about now; if so, that is counted.
    pub fn may_ask(&mut self, gaps: &[Gap]) -> bool {
        let is_needed = gaps.iter().any(|gap| gap.cause == UNEXPLAINED);
        if !self.is_plain || !is_needed || self.silent_until.is_some_and(|until| Instant::now() < until) {
            return false;
        }
        let earned = self.since.elapsed().as_secs_f64() * f64::from(QUESTIONS_A_SECOND);
        if earned >= 1.0 {
            // Cut to whole questions; a burst is bounded in any case.
            self.questions = self.questions.saturating_add(earned as u32).min(QUESTIONS_MAX);
            self.since = Instant::now();
        }
        let may = self.questions > 0;
        self.questions = self.questions.saturating_sub(1);
        may
    }

    /// A question failed, or had no answer in time.
    pub fn leave_alone(&mut self) {
        self.silent_until = Some(Instant::now() + SILENT);
    }

    /// How to ask; it may wait for an answer, and is asked where waiting disturbs nobody.
    pub fn question(&self) -> Question {
        Question { topic: self.topic.clone(), partition: self.partition }
    }
}

/// One question.
pub(super) struct Question {
    topic: String,
    partition: i32,
}

impl Question {
    /// The same gaps, those that nothing was known of parted by what their raw batches say. None where the
    /// broker can't be asked.
    pub fn ask(&self, consumer: &Consumer, gaps: &[Gap]) -> Option<Vec<Gap>> {
        let unexplained = || gaps.iter().filter(|gap| gap.cause == UNEXPLAINED);
        let from = unexplained().map(|gap| gap.from).min()?;
        let to = unexplained().map(|gap| gap.to).max()?;
        let until = Instant::now() + QUESTION_WAIT;
        let mut connection = self.connect(consumer)?;
        let (mut parts, mut next) = (Vec::new(), from);
        for _ in 0..FETCHES_MAX {
            if next >= to || Instant::now() >= until {
                break;
            }
            let log = self.fetch(&mut connection, next)?;
            let Some(end) = log.end_offset().filter(|end| *end > next) else { break };
            parts.extend(log.absences(next));
            next = end;
        }
        Some(gaps.iter().flat_map(|gap| parted(gap, &parts)).collect())
    }

    /// A connection to the broker that leads the partition.
    fn connect(&self, consumer: &Consumer) -> Option<TcpStream> {
        let metadata = consumer.client().fetch_metadata(Some(&self.topic), ANSWER_WAIT).ok()?;
        let topic = metadata.topics().iter().find(|topic| topic.name() == self.topic)?;
        let leader = topic.partitions().iter().find(|one| one.id() == self.partition)?.leader();
        let broker = metadata.brokers().iter().find(|broker| broker.id() == leader)?;
        let port = u16::try_from(broker.port()).ok()?;
        let address = (broker.host(), port).to_socket_addrs().ok()?.next()?;
        let connection = TcpStream::connect_timeout(&address, ANSWER_WAIT).ok()?;
        connection.set_read_timeout(Some(ANSWER_WAIT)).ok()?;
        connection.set_write_timeout(Some(ANSWER_WAIT)).ok()?;
        Some(connection)
    }

    fn fetch(&self, connection: &mut TcpStream, offset: u64) -> Option<RawLog> {
        connection.write_all(&self.request(offset)?).ok()?;
        let mut length = [0; 4];
        connection.read_exact(&mut length).ok()?;
        let length = usize::try_from(i32::from_be_bytes(length)).ok()?;
        if !(4..=ANSWER_BYTES_MAX).contains(&length) {
            return None;
        }
        let mut answer = vec![0; length];
        connection.read_exact(&mut answer).ok()?;
        read_fetched(&answer[4..])
    }

    /// A Fetch of one partition, behind its length.
    fn request(&self, offset: u64) -> Option<Vec<u8>> {
        let client = "recount";
        let mut body = Vec::new();
        let mut put = |bytes: &[u8]| body.extend_from_slice(bytes);
        put(&FETCH.to_be_bytes());
        put(&FETCH_VERSION.to_be_bytes());
        let correlation_id = 1_i32;
        put(&correlation_id.to_be_bytes());
        put(&i16::try_from(client.len()).ok()?.to_be_bytes());
        put(client.as_bytes());
        let (no_replica, wait_ms, bytes_min) = (-1_i32, 0_i32, 0_i32);
        [no_replica, wait_ms, bytes_min, FETCH_BYTES].iter().for_each(|number| put(&number.to_be_bytes()));
        put(&[READ_COMMITTED]);
        put(&1_i32.to_be_bytes());
        put(&i16::try_from(self.topic.len()).ok()?.to_be_bytes());
        put(self.topic.as_bytes());
        put(&1_i32.to_be_bytes());
        put(&self.partition.to_be_bytes());
        put(&i64::try_from(offset).ok()?.to_be_bytes());
        put(&FETCH_BYTES.to_be_bytes());
        let mut request = i32::try_from(body.len()).ok()?.to_be_bytes().to_vec();
        request.extend(body);
        Some(request)
    }
}

/// A gap, parted by causes; neighbours with the same one stay together.
fn parted(gap: &Gap, parts: &[(u64, u64, Absence)]) -> Vec<Gap> {
    if gap.cause != UNEXPLAINED {
        return vec![gap.clone()];
    }
    let mut found: Vec<Gap> = Vec::new();
    let mut add = |from: u64, to: u64, cause: &str| match found.last_mut() {
        _ if from >= to => {}
        Some(last) if last.cause == cause => last.to = to,
        _ => found.push(Gap { from, to, kind: GapKind::NotAnEvent, cause: cause.to_owned() }),
    };
    let mut next = gap.from;
    for (from, to, absence) in parts.iter().filter(|(from, to, _)| *from < gap.to && *to > gap.from) {
        add(next, *from, UNEXPLAINED);
        let cause = match absence {
            Absence::Control => "control record",
            Absence::Aborted => "aborted transaction",
            Absence::Compacted => "compacted away",
            Absence::Unexplained => UNEXPLAINED,
        };
        add((*from).max(next), (*to).min(gap.to), cause);
        next = (*to).min(gap.to);
    }
    add(next, gap.to, UNEXPLAINED);
    found
}
