//! What a consumer says of one position.

use recount_engine::{OtherwiseVerdict, ReportedVerdict};
use recount_model::{Fate, Reason, ReasonCode, Verdict, reason};
use serde_json::json;
use std::collections::BTreeMap;

/// A reason that the consumer gives is kept up to this many bytes: as long as a code may be.
pub(super) const REASON_BYTES_MAX: usize = 64;
/// Its sentence likewise.
pub(super) const BECAUSE_BYTES_MAX: usize = 512;

/// A verdict on the wire, without its reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Applied,
    Skipped,
    DeadLettered,
}

impl Word {
    /// What stands in the table and on the wire.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Skipped => "skipped",
            Self::DeadLettered => "dead-lettered",
        }
    }

    /// The imperative is understood as well, as configs and handlers write it.
    pub(super) fn parse(word: &str) -> Option<Self> {
        match word {
            "applied" => Some(Self::Applied),
            "skipped" | "skip" => Some(Self::Skipped),
            "dead-lettered" | "dead-letter" => Some(Self::DeadLettered),
            _ => None,
        }
    }
}

/// What a consumer says of one position, as it is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) word: Word,
    /// As given; empty only for `applied`.
    pub(super) reason: Box<str>,
    pub(super) because: Option<Box<str>>,
}

impl Said {
    /// The sentence is not part of the verdict: a repeated post may word it anew.
    pub(super) fn is_same_as(&self, other: &Self) -> bool {
        self.word == other.word && self.reason == other.reason
    }

    pub(super) fn bytes(&self) -> usize {
        size_of::<Self>() + self.reason.len() + self.because.as_ref().map_or(0, |because| because.len())
    }

    /// `applied`, `skipped zero_quantity`.
    pub(super) fn told(&self) -> String {
        match self.word {
            Word::Applied => self.word.as_str().to_owned(),
            word => format!("{} {}", word.as_str(), self.reason),
        }
    }

    /// Whether a decision that stands in the ledger came of the same report.
    pub(super) fn is_recorded_as(&self, fate: &Fate, evidence: Option<&str>) -> bool {
        if fate.word() != self.word.as_str() {
            return false;
        }
        match fate.reason() {
            None => true,
            Some(recorded) if recorded.code == reason::UNDECLARED_REASON => {
                let evidence = evidence.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
                let given = |json: &serde_json::Value| json["reason"].as_str() == Some(&*self.reason);
                evidence.is_some_and(|json| given(&json) || given(&json["reported"]))
            }
            Some(recorded) => recorded.code.as_str() == &*self.reason,
        }
    }
}

/// A reason that the flow declares.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeclaredReason {
    /// The verdict that it comes with.
    pub verdict: OtherwiseVerdict,
    /// The sentence that stands where the consumer gives none.
    pub because: String,
    /// Whether a check of the flow gives it, so that the check must have found it too.
    pub is_of_check: bool,
}

/// Every reason that a consumer may give.
pub type DeclaredReasons = BTreeMap<ReasonCode, DeclaredReason>;

/// What is recorded of a report. The verdict stands in any case: it has happened. A reason that the flow does
/// not declare, or declares with another verdict, becomes `undeclared_reason` with the given one as evidence.
pub(super) fn recorded(said: &Said, declared: &DeclaredReasons) -> ReportedVerdict {
    let (with, kind): (fn(Reason) -> Verdict, _) = match said.word {
        Word::Applied => {
            return ReportedVerdict { verdict: Verdict::Applied, is_of_check: false, evidence: None };
        }
        Word::Skipped => (Verdict::Skip, OtherwiseVerdict::Skip),
        Word::DeadLettered => (Verdict::DeadLetter, OtherwiseVerdict::DeadLetter),
    };
    let found = ReasonCode::new(&said.reason).ok().and_then(|code| declared.get_key_value(&code));
    if let Some((code, declared)) = found.filter(|(_, declared)| declared.verdict == kind) {
        let because = said.because.as_deref().unwrap_or(&declared.because);
        return ReportedVerdict {
            verdict: with(Reason::new(code.clone(), because)),
            is_of_check: declared.is_of_check,
            evidence: None,
        };
    }
    let given = &said.reason;
    let sentence = match found {
        Some(_) => format!("the consumer gave the reason {given} with another verdict than declared"),
        None => format!("the consumer gave the reason {given:?}, which the flow does not declare"),
    };
    let mut evidence = json!({ "reason": given });
    if let Some(because) = &said.because {
        evidence["because"] = (**because).into();
    }
    ReportedVerdict {
        verdict: with(Reason::new(reason::UNDECLARED_REASON, sentence)),
        is_of_check: false,
        evidence: Some(evidence.to_string().into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(word: &str, reason: &str) -> Said {
        Said { word: Word::parse(word).unwrap(), reason: reason.into(), because: None }
    }

    fn declared() -> DeclaredReasons {
        let of_check = |is_of_check| DeclaredReason {
            verdict: OtherwiseVerdict::Skip,
            because: "nothing ordered".to_owned(),
            is_of_check,
        };
        let code = |code| ReasonCode::new(code).unwrap();
        [(code("zero_quantity"), of_check(true)), (code("viewed"), of_check(false))].into()
    }

    #[test]
    fn a_reported_verdict_stands_whatever_its_reason() {
        for (word, reason, expected) in [
            ("applied", "", "applied"),
            ("skip", "viewed", "skipped viewed"),
            ("skipped", "zero_quantity", "skipped zero_quantity"),
            ("skipped", "Not A Code", "skipped undeclared_reason"),
            ("dead-letter", "viewed", "dead-lettered undeclared_reason"),
        ] {
            let said = said(word, reason);
            let recorded = recorded(&said, &declared());
            let fate = match recorded.verdict {
                Verdict::Applied => Fate::Applied,
                Verdict::Skip(reason) => Fate::Skipped(reason),
                Verdict::DeadLetter(reason) | Verdict::Retry(reason) => Fate::DeadLettered(reason),
            };
            assert_eq!(fate.to_string(), expected, "{word} {reason}");
            assert!(said.is_recorded_as(&fate, recorded.evidence.as_deref()), "{word} {reason}");
            assert!(!other().is_recorded_as(&fate, recorded.evidence.as_deref()));
        }
        assert!(recorded(&said("skip", "zero_quantity"), &declared()).is_of_check);
        assert!(!recorded(&said("skip", "viewed"), &declared()).is_of_check);
    }

    fn other() -> Said {
        said("skipped", "something_else")
    }
}
