//! The sampled lines as the flow's own checks decode them, and what lines are that they can't decode.

use recount_adapters::file::sample::{Sample, SampleLimits, SampledLine, sample};
use recount_checks::{CheckResult, Decode, FlowChecks, FlowRules, RawEvent};
use recount_engine::SourceError;
use recount_model::{FlowName, Timestamp};
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

/// Kept of all lines together.
const BYTES_MAX: usize = 32 << 20;
/// Read and unpacked at most.
const READ_BYTES_MAX: u64 = 128 << 20;
const TIME_MAX: Duration = Duration::from_secs(5);
/// The id of an event while it isn't known yet.
pub const POSITION_ID: &str = "meta.partition + '/' + string(meta.offset)";

/// What was sampled, and how it decodes.
pub struct Input {
    /// The lines.
    pub sample: Sample,
    /// How they are decoded.
    pub decode: Decode,
    /// Lines that can't be decoded, by what is wrong and what they look like; the first of each.
    pub undecoded: BTreeMap<String, (u64, usize)>,
    /// How many are CloudEvents.
    pub cloud_events: u64,
}

/// Why nothing can be learned from the input: what it looks like and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unusable {
    /// A stable word.
    pub code: &'static str,
    /// For people.
    pub sentence: String,
}

/// Samples up to `events_max` lines.
pub fn read(path: &Path, events_max: usize) -> Result<Sample, SourceError> {
    let limits = SampleLimits {
        events_max,
        line_bytes_max: FlowRules::default().payload_bytes_max,
        bytes_max: BYTES_MAX,
        read_bytes_max: READ_BYTES_MAX,
        time_max: TIME_MAX,
    };
    sample(path, limits)
}

/// The line as a flow would be given it.
pub fn delivery(line: &SampledLine, index: usize) -> RawEvent {
    RawEvent {
        payload: line.bytes.as_slice().into(),
        payload_bytes: line.bytes_full,
        headers: Vec::new(),
        broker_key: None,
        partition: "0".into(),
        offset: index as u64,
        taken_at: Timestamp(0),
    }
}

/// Rules that decode and let everything pass.
pub fn bare_rules(decode: Decode) -> FlowRules {
    FlowRules { decode, id: Some(POSITION_ID.to_owned()), ..FlowRules::default() }
}

/// Compiles rules under a name that doesn't matter.
pub fn compiled(rules: &FlowRules) -> Result<FlowChecks, String> {
    let flow = FlowName::new("sampled").map_err(|error| error.to_string())?;
    FlowChecks::compile(rules, &flow).map_err(|faults| {
        faults.first().map_or_else(String::new, |fault| format!("{}: {}", fault.rule, fault.message))
    })
}

/// Whether the delivery was a CloudEvent, and its id.
pub fn cloud_event_id(result: &CheckResult) -> Option<&str> {
    let headers = &result.meta().headers;
    // `specversion` itself is no header; every other attribute is one.
    headers.iter().find(|header| header.name.starts_with("ce-"))?;
    Some(headers.iter().find(|header| &*header.name == "ce-id").map_or("", |header| &*header.value))
}

impl Input {
    /// Looks at how the sample decodes.
    pub fn of(sample: Sample, path: &Path) -> Result<Self, Unusable> {
        if sample.lines.is_empty() {
            return Err(nothing(&sample, path));
        }
        let mut input = Self { sample, decode: Decode::Json, undecoded: BTreeMap::new(), cloud_events: 0 };
        let objects = input.look();
        let lines = input.sample.lines.len() as u64;
        let decoded = lines - input.undecoded.values().map(|(count, _)| count).sum::<u64>();
        if objects * 2 < lines
            && let Some(unusable) = other_form(&input.sample, path)
        {
            return Err(unusable);
        }
        if decoded > 0 {
            return Ok(input);
        }
        if input.sample.lines.iter().all(|line| is_text(&line.bytes) && !is_json(&line.bytes)) {
            input.decode = Decode::Text;
            input.undecoded.clear();
            return Ok(input);
        }
        let seen = input.undecoded.iter().max_by_key(|(_, (count, _))| *count);
        let (looks, _) = seen.map(|(looks, n)| (looks.clone(), *n)).unwrap_or_default();
        let sentence = format!(
            "{} holds no event that can be decoded: {looks}. a file's events are lines; what is framed or packed has to be \
             unpacked by what writes the file (recount explain decode_failed)",
            path.display()
        );
        Err(Unusable { code: code_of(&looks), sentence })
    }

    /// Counts what decodes; gives the number of JSON objects.
    fn look(&mut self) -> u64 {
        let (mut objects, mut cloud_events) = (0, 0);
        let mut undecoded: BTreeMap<String, (u64, usize)> = BTreeMap::new();
        self.each(|index, _, result| match &result {
            CheckResult::Passed(event) => {
                objects += u64::from(event.data.is_object() || cloud_event_id(&result).is_some());
                cloud_events += u64::from(cloud_event_id(&result).is_some());
            }
            CheckResult::Refused(refused) => {
                undecoded.entry(looks(&refused.evidence)).or_insert((0, index)).0 += 1;
            }
        });
        (self.undecoded, self.cloud_events) = (undecoded, cloud_events);
        objects
    }

    /// Each line as it decodes.
    pub fn each(&self, mut then: impl FnMut(usize, &SampledLine, CheckResult)) {
        // The rules are ours, so they compile; if they didn't, the sample would show nothing.
        let Ok(checks) = compiled(&bare_rules(self.decode)) else { return };
        for (index, line) in self.sample.lines.iter().enumerate() {
            then(index, line, checks.check(delivery(line, index)));
        }
    }

    /// Where a line stands, for people: `line 17`, with the file where there are several.
    pub fn place(&self, index: usize) -> String {
        let Some(line) = self.sample.lines.get(index) else { return "?".to_owned() };
        let place = match line.line {
            Some(number) => format!("line {}", number + 1),
            None => format!("byte {}", line.byte),
        };
        match self.sample.files.get(line.file) {
            Some(file) if self.sample.files.len() > 1 => {
                format!("{place} of {}", file.file_name().unwrap_or(file.as_os_str()).to_string_lossy())
            }
            _ => place,
        }
    }
}

/// What is wrong with a payload and what it looks like, without a byte of it and without a column.
fn looks(evidence: &str) -> String {
    let evidence: Value = serde_json::from_str(evidence).unwrap_or_default();
    let text = |name: &str| evidence[name].as_str().unwrap_or_default().to_owned();
    if evidence.get("payload_bytes_max").is_some() {
        return "larger than the 1 MiB that a flow takes unless told otherwise (payload_max)".to_owned();
    }
    let (error, looks_like) = (text("error"), text("looks_like"));
    match looks_like.is_empty() {
        false => looks_like,
        true => error
            .split(" (line")
            .next()
            .unwrap_or_default()
            .split(" from line")
            .next()
            .unwrap_or_default()
            .to_owned(),
    }
}

/// The warning's code for what a payload looks like.
pub fn code_of(looks: &str) -> &'static str {
    let has = |word: &str| looks.contains(word);
    match () {
        () if has("schema-registry") => "schema_registry",
        () if has("gzip") || has("Zstandard") => "packed_payload",
        () if has("UTF-16") => "utf_16",
        () if has("byte order mark") => "byte_order_mark",
        () if has("larger than") => "payload_too_large",
        () if has("binary") || has("Avro") || has("Parquet") || has("zip") => "binary",
        () => "not_json",
    }
}

fn nothing(sample: &Sample, path: &Path) -> Unusable {
    let damage = sample.damage.first().map(|damage| format!(" ({damage})")).unwrap_or_default();
    let from = if path.as_os_str() == "-" { "standard input".to_owned() } else { path.display().to_string() };
    let sentence = format!(
        "{from} holds no event{damage}: there is nothing to learn from. give a file with one event a line"
    );
    Unusable { code: "empty", sentence }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

fn is_text(bytes: &[u8]) -> bool {
    let text = std::str::from_utf8(bytes);
    text.is_ok_and(|text| !text.chars().any(|c| c.is_control() && !c.is_whitespace() && c != '\u{1b}'))
}

/// Forms that hold events, but not one a line, with the command that makes lines of them.
fn other_form(sample: &Sample, path: &Path) -> Option<Unusable> {
    let head = sample.head.as_slice();
    let named = if path.as_os_str() == "-" { "FILE".to_owned() } else { path.display().to_string() };
    let unusable = |code, what: &str, instead: String| {
        Some(Unusable {
            code,
            sentence: format!("{named} holds {what}, and events are taken one a line. write: {instead}"),
        })
    };
    if matches!(head, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) {
        return unusable("utf_16", "UTF-16", format!("iconv -f UTF-16 -t UTF-8 '{named}' > events.ndjson"));
    }
    let trimmed = head.strip_prefix(b"\xef\xbb\xbf").unwrap_or(head).trim_ascii_start();
    let starts_whole = sample.lines.first().is_some_and(|line| is_json(&line.bytes));
    match trimmed.first() {
        // Lines that are arrays are events.
        Some(b'[') if !starts_whole || sample.lines.len() == 1 => {
            unusable("json_array", "one JSON array", format!("jq -c '.[]' '{named}' > events.ndjson"))
        }
        Some(b'{') if !starts_whole && sample.lines.len() > 1 => unusable(
            "pretty_printed",
            "JSON over several lines",
            format!("jq -c . '{named}' > events.ndjson"),
        ),
        _ if !starts_whole && is_csv(sample) => {
            let script =
                "import csv, json, sys; [print(json.dumps(row)) for row in csv.DictReader(sys.stdin)]";
            unusable("csv", "CSV", format!("python3 -c '{script}' < '{named}' > events.ndjson"))
        }
        _ => None,
    }
}

/// Whether the first lines have the same number of commas, and there are some.
fn is_csv(sample: &Sample) -> bool {
    let commas = |line: &SampledLine| {
        let mut quoted = false;
        let separates = |byte: &&u8| {
            quoted ^= **byte == b'"';
            matches!(byte, b',' | b';' | b'\t') && !quoted
        };
        line.bytes.iter().filter(separates).count()
    };
    let mut lines = sample.lines.iter().take(20);
    let Some(first) = lines.next().map(commas).filter(|commas| *commas > 0) else { return false };
    sample.lines.len() > 1
        && lines.all(|line| commas(line) == first)
        && sample.lines.iter().all(|l| is_text(&l.bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn input_of(bytes: &[u8]) -> Result<Input, Unusable> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("events");
        std::fs::write(&path, bytes).unwrap();
        Input::of(read(&path, 100).unwrap(), &path)
    }

    #[test]
    fn what_holds_no_events_one_a_line_is_named_with_a_way_out() {
        let utf_16: Vec<u8> =
            "\u{feff}{\"id\":1}\n{\"id\":2}\n".encode_utf16().flat_map(u16::to_le_bytes).collect();
        for (bytes, code, way_out) in [
            (&b""[..], "empty", "one event a line"),
            (b"\n\n", "empty", "one event a line"),
            (b"[{\"id\":1},{\"id\":2}]", "json_array", "jq -c '.[]'"),
            (b"[\n{\"id\":1},\n{\"id\":2}\n]\n", "json_array", "jq -c '.[]'"),
            (b"{\n  \"id\": 1,\n  \"a\": {\n  \"b\": 1 }\n}\n", "pretty_printed", "jq -c ."),
            (b"timestamp,value\n2014-01-01 00:00:00,1.5\n2014-01-01 00:05:00,2\n", "csv", "csv.DictReader"),
            (&utf_16, "utf_16", "iconv"),
            (b"\0\0\0\0\x07\x02\xff\n\0\0\0\0\x07\x02\xfe\n", "schema_registry", "decode_failed"),
            (b"\x08\x96\x01\xff\xfe\x01", "binary", "decode_failed"),
        ] {
            let unusable = input_of(bytes).map(|_| ()).unwrap_err();
            assert_eq!(unusable.code, code, "{}", unusable.sentence);
            assert!(unusable.sentence.contains(way_out), "{}", unusable.sentence);
        }
    }

    #[test]
    fn some_lines_that_are_no_json_are_counted_and_text_stays_text() {
        let input = input_of(b"{\"id\":1}\nnot this\n{\"id\":2}\n{\"id\":\n").unwrap();
        let told: Vec<_> = input.undecoded.iter().map(|(looks, n)| format!("{looks} {n:?}")).collect();
        assert_eq!(told, ["it looks cut off (1, 3)", "it looks like plain text, not JSON (1, 1)"]);
        assert_eq!(input.place(1), "line 2");
        let text = input_of(b"GET / 200\nGET /a 404\n").unwrap();
        assert_eq!(text.decode, Decode::Text);
        let cloud = input_of(
            b"{\"specversion\":\"1.0\",\"id\":\"1\",\"type\":\"t\",\"source\":\"s\",\"data\":{\"a\":1}}\n",
        )
        .unwrap();
        assert_eq!(cloud.cloud_events, 1);
    }
}
