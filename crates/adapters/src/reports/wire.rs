//! The body of a post to `/v1/decisions`, and its answer.

use super::said::{BECAUSE_BYTES_MAX, REASON_BYTES_MAX, Said, Word};
use crate::sql::cut;
use recount_model::position::Address;
use serde::{Deserialize, Serialize};

/// Decisions in one post.
pub(super) const DECISIONS_MAX: usize = 10_000;
/// Offsets beyond can't be stored.
const OFFSET_MAX: u64 = i64::MAX as u64 - 1;

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Body {
    pub(super) flow: String,
    pub(super) partition: Option<Name>,
    pub(super) committed: Option<u64>,
    /// Some languages write an empty list as null.
    #[serde(default, deserialize_with = "none_if_null")]
    pub(super) decisions: Vec<One>,
}

fn none_if_null<'de, D: serde::Deserializer<'de>>(from: D) -> Result<Vec<One>, D::Error> {
    Ok(Option::<Vec<One>>::deserialize(from)?.unwrap_or_default())
}

/// A partition is named by a text; brokers number theirs.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(super) enum Name {
    Text(String),
    Number(u64),
}

impl Name {
    pub(super) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Number(number) => number.to_string(),
        }
    }
}

#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct One {
    pub(super) offset: Option<u64>,
    pub(super) position: Option<String>,
    verdict: String,
    reason: Option<String>,
    because: Option<String>,
}

/// One decision that was not kept, and why.
#[derive(Debug, Serialize, PartialEq, Eq)]
pub(super) struct Refused {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) offset: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) position: Option<String>,
    pub(super) why: String,
}

/// Versioned: the field `recount` is the version.
#[derive(Debug, Serialize)]
pub(super) struct Answer {
    pub(super) recount: u32,
    pub(super) accepted: usize,
    pub(super) already: usize,
    pub(super) refused: Vec<Refused>,
}

impl One {
    /// The offset and what is said of it, if it can be taken.
    pub(super) fn read(&self, flow: &str, partition: &str) -> Result<(u64, Said), Refused> {
        let refused = |why: String| Refused {
            offset: self.offset,
            position: if self.offset.is_none() { self.position.clone() } else { None },
            why,
        };
        let offset = self.place(flow, partition).map_err(refused)?;
        self.said(offset).map(|said| (offset, said)).map_err(refused)
    }

    fn place(&self, flow: &str, partition: &str) -> Result<u64, String> {
        let offset = match (&self.position, self.offset) {
            (None, None) => {
                return Err("it names neither offset nor position: write \"offset\": 17".to_owned());
            }
            (None, Some(offset)) => offset,
            (Some(position), given) => {
                let address: Address = position.parse().map_err(|error| format!("{error}"))?;
                if address.flow.as_str() != flow || address.partition.as_str() != partition {
                    return Err(format!(
                        "{} is not of {flow}/{partition}, which this post is for: post it on its own",
                        cut(position, 200)
                    ));
                }
                if given.is_some_and(|given| given != address.offset) {
                    return Err("offset and position name two places: leave one out".to_owned());
                }
                address.offset
            }
        };
        if offset > OFFSET_MAX {
            return Err(format!("no source has an offset of {offset}"));
        }
        Ok(offset)
    }

    fn said(&self, offset: u64) -> Result<Said, String> {
        let Some(word) = Word::parse(&self.verdict) else {
            return Err(format!(
                "{:?} is not a verdict: write applied, skipped or dead-lettered",
                cut(&self.verdict, 64)
            ));
        };
        let reason = self.reason.as_deref().map_or("", str::trim);
        if word != Word::Applied && reason.is_empty() {
            let verdict = word.as_str();
            return Err(format!(
                "{offset} was {verdict} without a reason: write \"reason\": with a code that the flow declares"
            ));
        }
        let reason = if word == Word::Applied { "" } else { cut(reason, REASON_BYTES_MAX) };
        let because = self.because.as_deref().map(str::trim).filter(|text| !text.is_empty());
        let because =
            because.filter(|_| word != Word::Applied).map(|text| cut(text, BECAUSE_BYTES_MAX).into());
        Ok(Said { word, reason: reason.into(), because })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(json: &str) -> Result<(u64, Said), String> {
        let one: One = serde_json::from_str(json).map_err(|error| error.to_string())?;
        one.read("stock", "0").map_err(|refused| refused.why)
    }

    #[test]
    fn one_decision_a_line() {
        for (json, expected) in [
            (r#"{"offset":7,"verdict":"applied"}"#, "7 applied"),
            (r#"{"position":"stock/0/7","verdict":"applied","reason":"ignored"}"#, "7 applied"),
            (r#"{"offset":7,"verdict":"skipped","reason":"viewed"}"#, "7 skipped viewed"),
            (
                r#"{"offset":7,"verdict":"skip","reason":"viewed","because":"only looked at"}"#,
                "7 skipped viewed",
            ),
            (r#"{"offset":7,"verdict":"dead-letter","reason":"no_stock"}"#, "7 dead-lettered no_stock"),
            (r#"{"offset":7,"verdict":"dead-lettered","reason":"no_stock"}"#, "7 dead-lettered no_stock"),
        ] {
            let (offset, said) = read(json).unwrap();
            assert_eq!(format!("{offset} {}", said.told()), expected, "{json}");
        }
        for (json, why) in [
            (r#"{"verdict":"applied"}"#, "neither offset nor position"),
            (r#"{"offset":7,"verdict":"skipped"}"#, "without a reason"),
            (r#"{"offset":7,"verdict":"skipped","reason":" "}"#, "without a reason"),
            (r#"{"offset":7,"verdict":"retry","reason":"x"}"#, "not a verdict"),
            (r#"{"offset":7,"position":"stock/0/8","verdict":"applied"}"#, "two places"),
            (r#"{"position":"stock/1/8","verdict":"applied"}"#, "is not of stock/0"),
            (r#"{"position":"8","verdict":"applied"}"#, "not a position"),
            (r#"{"offset":9223372036854775807,"verdict":"applied"}"#, "no source has"),
            (r#"{"offset":7,"verdict":"applied","reson":"x"}"#, "unknown field"),
        ] {
            let refused = read(json).unwrap_err();
            assert!(refused.contains(why), "{json}: {refused}");
        }
    }
}
