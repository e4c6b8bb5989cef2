//! From what the checks found and the effect reported, to what is to be done.

use crate::reason::{self, Reason};
use crate::verdict::{Fate, Verdict};

/// What happens to a key after the last attempt at one of its events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterLast {
    /// The event is a dead letter and the key goes on.
    GoOn,
    /// The event is a dead letter and the key stays held until an operator resumes it.
    StayHeld,
}

/// What came back for one event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reported {
    /// The checks refused it; no effect was tried.
    Checks(Verdict),
    /// The effect, its `otherwise` or the handler says.
    Effect(Verdict),
    /// Not tried, since an earlier event of its key is to be retried.
    Behind,
}

/// Which attempt this was, and how many the flow allows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attempts {
    /// 1 for the first.
    pub number: u32,
    /// At least 1.
    pub max: u32,
    /// What happens to the key after the last.
    pub after_last: AfterLast,
}

/// One thing to do. They are done in the order given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Keep the event's bytes with its attempts, before the record.
    KeepBody,
    /// Record this fate; it is then settled.
    Record(Fate),
    /// Hold the key, with this event first, and try again after the backoff for this attempt.
    HoldKey {
        /// The attempt that just failed.
        attempt: u32,
        /// Why.
        reason: Reason,
    },
    /// Put the event at the end of what waits behind its key.
    WaitBehind,
    /// Hold the key although its event has a fate, until an operator resumes it.
    KeepKeyHeld,
    /// Let what waits behind the key go on.
    ReleaseKey,
}

/// Decides one event. Pure: the same input gives the same actions.
///
/// A `Retry` that the checks give is an error of the configuration, which refuses it; here it counts as a
/// dead letter, so that nothing can wait for ever without an effect.
pub fn decide(reported: Reported, attempts: Attempts) -> Vec<Action> {
    match reported {
        Reported::Behind => vec![Action::WaitBehind],
        Reported::Checks(verdict) | Reported::Effect(verdict) if !matches!(verdict, Verdict::Retry(_)) => {
            conclude(verdict)
        }
        Reported::Effect(Verdict::Retry(reason)) if attempts.number < attempts.max => {
            vec![Action::HoldKey { attempt: attempts.number, reason }]
        }
        Reported::Checks(verdict) | Reported::Effect(verdict) => {
            let last = verdict.reason().map_or("no reason", |r| r.sentence.as_str());
            let code = verdict.reason().map_or("", |r| r.code.as_str());
            let sentence = format!("attempt {} of {} ended in {code}: {last}", attempts.number, attempts.max);
            let mut actions = conclude(Verdict::DeadLetter(Reason::new(reason::RETRIES_EXHAUSTED, sentence)));
            if attempts.after_last == AfterLast::StayHeld {
                actions.pop();
                actions.push(Action::KeepKeyHeld);
            }
            actions
        }
    }
}

fn conclude(verdict: Verdict) -> Vec<Action> {
    match verdict {
        Verdict::Applied => vec![Action::Record(Fate::Applied), Action::ReleaseKey],
        Verdict::Skip(reason) => {
            vec![Action::KeepBody, Action::Record(Fate::Skipped(reason)), Action::ReleaseKey]
        }
        Verdict::DeadLetter(reason) | Verdict::Retry(reason) => {
            vec![Action::KeepBody, Action::Record(Fate::DeadLettered(reason)), Action::ReleaseKey]
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reason::ReasonCode;

    const TIMEOUT: ReasonCode = ReasonCode::literal("timeout");

    fn told(actions: &[Action]) -> String {
        let word = |a: &Action| match a {
            Action::KeepBody => "keep body".to_owned(),
            Action::Record(fate) => format!("record {fate}"),
            Action::HoldKey { attempt, reason } => format!("hold key after {attempt} {}", reason.code),
            Action::WaitBehind => "wait behind".to_owned(),
            Action::KeepKeyHeld => "keep key held".to_owned(),
            Action::ReleaseKey => "release key".to_owned(),
        };
        actions.iter().map(word).collect::<Vec<_>>().join(", ")
    }

    fn check(reported: Reported, number: u32, after_last: AfterLast, expected: &str) {
        assert_eq!(told(&decide(reported, Attempts { number, max: 3, after_last })), expected);
    }

    #[test]
    fn one_line_a_case() {
        use AfterLast::{GoOn, StayHeld};
        let skip = || Verdict::skip(ReasonCode::literal("zero_quantity"), "nothing ordered");
        let dead = || Verdict::dead_letter(ReasonCode::literal("unknown_sku"), "no such article");
        let retry = || Verdict::retry(TIMEOUT, "no answer in 2 s");
        check(Reported::Effect(Verdict::Applied), 1, GoOn, "record applied, release key");
        check(Reported::Effect(Verdict::Applied), 3, StayHeld, "record applied, release key");
        check(Reported::Checks(skip()), 1, GoOn, "keep body, record skipped zero_quantity, release key");
        check(Reported::Effect(dead()), 2, GoOn, "keep body, record dead-lettered unknown_sku, release key");
        check(Reported::Behind, 1, GoOn, "wait behind");
        check(Reported::Effect(retry()), 1, GoOn, "hold key after 1 timeout");
        check(Reported::Effect(retry()), 2, StayHeld, "hold key after 2 timeout");
        check(
            Reported::Effect(retry()),
            3,
            GoOn,
            "keep body, record dead-lettered retries_exhausted, release key",
        );
        check(
            Reported::Effect(retry()),
            3,
            StayHeld,
            "keep body, record dead-lettered retries_exhausted, keep key held",
        );
        check(
            Reported::Checks(retry()),
            1,
            GoOn,
            "keep body, record dead-lettered retries_exhausted, release key",
        );
    }
}
