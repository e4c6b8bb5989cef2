//! Whether an output is the one that a page shows, but for what differs from run to run.

use regex::Regex;
use std::sync::LazyLock;

/// What may differ: instants, durations, rates, hashes, folders made for the occasion. Counts may not.
static VARYING: LazyLock<Vec<(Regex, &str)>> = LazyLock::new(|| {
    [
        (r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d(\.\d+)?)?(Z| UTC|[+-]\d\d:\d\d)?", "TIME"),
        (r"\d{4}-\d\d-\d\d", "DATE"),
        (r"\b\d\d:\d\d(:\d\d(\.\d+)?)?Z?\b", "TIME"),
        (r"\b[\d,.]+ ?(events|lines|decisions)/s\b", "RATE"),
        (r"\b[\d,]+(\.\d+)? ?(ns|µs|us|ms|s|min|h|seconds?|minutes?|hours?)\b( ago)?", "DURATION"),
        (r"\bDURATION( DURATION)+", "DURATION"),
        (r"\b[\d,]+(\.\d+)? ?(B|KB|KiB|MiB|GiB|bytes)\b", "SIZE"),
        (r"\b[0-9a-f]*([0-9][a-f]|[a-f][0-9])[0-9a-f]{6,}\b", "HASH"),
        (r"/tmp/[^\s'\x22`,;)]+", "FOLDER"),
        (r"\([\d,]+ a second\)", "(RATE)"),
        (r"\bprocess \d+\b", "PROCESS"),
        (r"\breplay \d{10,}\b", "replay N"),
        (r"\brecount \d+\.\d+\.\d+\b", "VERSION"),
    ]
    .map(|(pattern, name)| (Regex::new(pattern).unwrap(), name))
    .into()
});

fn settled(line: &str) -> String {
    let words: Vec<&str> = line.split_whitespace().collect();
    let mut line = words.join(" ");
    for (pattern, name) in VARYING.iter() {
        line = pattern.replace_all(&line, *name).into_owned();
    }
    line
}

fn lines(text: &str) -> Vec<String> {
    let lines: Vec<String> = text.lines().map(settled).collect();
    let end = lines.iter().rposition(|line| !line.is_empty()).map_or(0, |last| last + 1);
    lines[..end].to_vec()
}

/// The first thing that differs, as a sentence; none where the page tells the truth.
pub fn difference(shown: &str, printed: &str) -> Option<String> {
    let (shown, printed) = (lines(shown), lines(printed));
    let mut at = 0;
    let mut parts = shown.split(|line| line == "…").enumerate().peekable();
    while let Some((index, part)) = parts.next() {
        let is_last = parts.peek().is_none();
        let first = if index > 0 && is_last { printed.len().saturating_sub(part.len()).max(at) } else { at };
        let last = if index == 0 { at } else { printed.len() };
        let found = (first..=last).find(|from| printed[*from..].starts_with(part));
        let Some(from) = found else {
            let rest = &printed[at.min(printed.len())..];
            let differs = part.iter().zip(rest).position(|(left, right)| left != right).unwrap_or(rest.len());
            let line = part.get(differs).or(part.first()).cloned().unwrap_or_default();
            return Some(match index {
                0 => format!(
                    "not printed: {line}\nbut:         {}",
                    rest.get(differs).cloned().unwrap_or_default()
                ),
                _ => format!("not printed after the `…`: {}", part.join("\n")),
            });
        };
        at = from + part.len();
        if is_last && at != printed.len() {
            return Some(format!("printed, and not shown: {}", printed[at]));
        }
    }
    None
}

#[test]
fn only_what_varies_may_differ() {
    for (shown, printed, is_same) in [
        ("3 applied in 12 ms\n", "3 applied in 1.5 s\n", true),
        ("3 applied\n", "4 applied\n", false),
        ("3 applied\n", "3 applied\n2 skipped\n", false),
        ("3 applied\n…\n", "3 applied\n2 skipped\n", true),
        ("3 applied\n…\nend\n", "3 applied\n2 skipped\nend\n", true),
        ("3 applied\n…\nend\n", "3 applied\nend\nmore\n", false),
        ("…\n2 skipped\n", "3 applied\n2 skipped\n", true),
        ("3 applied\n…\n5 lost\n…\nend\n", "3 applied\n4 lost\nend\n", false),
        ("at 2026-11-22T23:56:02Z\n", "at 2027-01-01T00:00:00.123Z\n", true),
        ("2% of 1000\n", "3% of 1000\n", false),
        ("order 77 of shop/0/4711\n", "order 78 of shop/0/4711\n", false),
        ("", "something\n", false),
    ] {
        assert_eq!(difference(shown, printed).is_none(), is_same, "{shown:?} {printed:?}");
    }
}
