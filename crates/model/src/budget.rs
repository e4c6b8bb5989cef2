//! Budgets: the share at which an exception stops being one.

use crate::time::Timestamp;
use std::collections::VecDeque;
use std::fmt;

/// Over what a budget's share is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BudgetLimit {
    /// No bound: written out as `any`.
    Any,
    /// `2% of 1000`: exceeded by more than 20 among the flow's last 1,000 received, in the order decided,
    /// however few there were yet.
    OfLast {
        /// Parts per million.
        share_ppm: u32,
        /// How many events back.
        events: u32,
    },
    /// `5% per 1h`: exceeded by more than that share of what was decided within the time.
    PerTime {
        /// Parts per million.
        share_ppm: u32,
        /// The window.
        window_ms: u64,
    },
}

/// A declared budget.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Budget {
    /// The bound.
    pub limit: BudgetLimit,
}

impl Budget {
    /// What a reason has that declares none: `1% of 1000`.
    pub const DEFAULT: Self = Self { limit: BudgetLimit::OfLast { share_ppm: 10_000, events: 1000 } };
    /// No bound.
    pub const ANY: Self = Self { limit: BudgetLimit::Any };

    /// Reads `any`, `2% of 1000` or `5% per 1h` (units s, m, h, d). The share may have a fraction:
    /// `0.5% of 1000`. The error says what to write instead.
    pub fn parse(text: &str) -> Result<Self, String> {
        let help = || format!("{text:?} is not a budget: write \"2% of 1000\", \"5% per 1h\" or \"any\"");
        if text.trim() == "any" {
            return Ok(Self::ANY);
        }
        let words: Vec<&str> = text.split_whitespace().collect();
        let [share, of, window] = words.as_slice() else { return Err(help()) };
        let percent: f64 = share.strip_suffix('%').and_then(|p| p.parse().ok()).ok_or_else(help)?;
        if !(0.0..=100.0).contains(&percent) {
            return Err(format!("{text:?}: the share must lie between 0% and 100%"));
        }
        let share_ppm = (percent * 10_000.0).round() as u32;
        let limit = match *of {
            "of" => {
                let events = window.replace(['_', ','], "").parse().map_err(|_| help())?;
                if !(1..=1_000_000).contains(&events) {
                    return Err(format!("{text:?}: the window must be 1 to 1000000 events"));
                }
                BudgetLimit::OfLast { share_ppm, events }
            }
            "per" => {
                BudgetLimit::PerTime { share_ppm, window_ms: parse_duration_ms(window).ok_or_else(help)? }
            }
            _ => return Err(help()),
        };
        Ok(Self { limit })
    }

    /// How many the window may hold; `None` where that depends on how many there are, or is unbounded.
    pub fn events_allowed(&self) -> Option<u64> {
        match self.limit {
            BudgetLimit::OfLast { share_ppm, events } => {
                Some(u64::from(share_ppm) * u64::from(events) / 1_000_000)
            }
            _ => None,
        }
    }
}

impl fmt::Display for Budget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.limit {
            BudgetLimit::Any => f.write_str("any"),
            BudgetLimit::OfLast { share_ppm, events } => {
                write!(f, "{}% of {events}", f64::from(share_ppm) / 10_000.0)
            }
            BudgetLimit::PerTime { share_ppm, window_ms } => {
                write!(f, "{}% per {}", f64::from(share_ppm) / 10_000.0, duration_text(window_ms))
            }
        }
    }
}

/// Reads `250ms`, `30s`, `15m`, `1h`, `7d`, as milliseconds, 1 ms to 10 years.
pub fn parse_duration_ms(text: &str) -> Option<u64> {
    let digits = text.find(|c: char| !c.is_ascii_digit())?;
    let number: u64 = text[..digits].parse().ok()?;
    let unit = match &text[digits..] {
        "ms" => 1,
        "s" => 1000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.checked_mul(unit).filter(|ms| (1..=315_360_000_000).contains(ms))
}

/// Writes milliseconds with the largest unit that divides them.
pub fn duration_text(ms: u64) -> String {
    for (unit, name) in [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s")] {
        if ms > 0 && ms.is_multiple_of(unit) {
            return format!("{}{name}", ms / unit);
        }
    }
    format!("{ms}ms")
}

/// How a budget stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct BudgetStand {
    /// How many the window holds now.
    pub now: u64,
    /// Among how many.
    pub among: u64,
    /// The most that any window held since the fold began.
    pub worst: u64,
    /// Which event of the fold (from 0) made the budget exceeded first; `None` if it never was.
    pub exceeded_at: Option<u64>,
    /// Whether it is exceeded now.
    pub exceeded_now: bool,
}

/// One reason's budget as a fold over events in the order decided. Memory: at most one entry an event of
/// the window that had the reason, or one a batch for a window of time.
#[derive(Debug, Clone)]
pub struct BudgetWindow {
    budget: Budget,
    seen: u64,
    hits: VecDeque<u64>,
    buckets: VecDeque<(Timestamp, u64, u64)>,
    in_buckets: (u64, u64),
    stand: BudgetStand,
}

impl BudgetWindow {
    /// An empty window.
    pub fn new(budget: Budget) -> Self {
        Self {
            budget,
            seen: 0,
            hits: VecDeque::new(),
            buckets: VecDeque::new(),
            in_buckets: (0, 0),
            stand: BudgetStand::default(),
        }
    }

    /// The budget.
    pub fn budget(&self) -> Budget {
        self.budget
    }

    /// How it stands after everything seen.
    pub fn stand(&self) -> BudgetStand {
        self.stand
    }

    /// Forgets that it was exceeded (an operator accepted it); the window itself stays.
    pub fn accept(&mut self) {
        self.stand.exceeded_at = None;
        self.stand.worst = self.stand.now;
    }

    /// Adds `count` events in a row that all had the reason, or all had not, decided at one instant.
    pub fn observe(&mut self, has_reason: bool, count: u64, decided_at: Timestamp) {
        match self.budget.limit {
            BudgetLimit::Any => self.observe_unbounded(has_reason, count),
            BudgetLimit::OfLast { events, .. } => self.observe_of_last(has_reason, count, u64::from(events)),
            BudgetLimit::PerTime { share_ppm, window_ms } => {
                self.observe_per_time(has_reason, count, decided_at, share_ppm, window_ms);
            }
        }
    }

    fn observe_unbounded(&mut self, has_reason: bool, count: u64) {
        self.seen += count;
        self.stand.among = self.seen;
        self.stand.now += if has_reason { count } else { 0 };
        self.stand.worst = self.stand.now;
    }

    fn observe_of_last(&mut self, has_reason: bool, count: u64, events: u64) {
        let allowed = self.budget.events_allowed().unwrap_or(u64::MAX);
        if has_reason {
            for _ in 0..count {
                self.hits.push_back(self.seen);
                self.seen += 1;
                self.forget_hits_before(self.seen.saturating_sub(events));
                self.note(self.hits.len() as u64, self.hits.len() as u64 > allowed, self.seen - 1);
            }
        } else {
            self.seen += count;
            self.forget_hits_before(self.seen.saturating_sub(events));
            self.note(self.hits.len() as u64, self.hits.len() as u64 > allowed, self.seen.saturating_sub(1));
        }
        self.stand.among = self.seen.min(events);
    }

    fn forget_hits_before(&mut self, ordinal: u64) {
        while self.hits.front().is_some_and(|hit| *hit < ordinal) {
            self.hits.pop_front();
        }
    }

    fn observe_per_time(
        &mut self,
        has_reason: bool,
        count: u64,
        at: Timestamp,
        share_ppm: u32,
        window_ms: u64,
    ) {
        let hits = if has_reason { count } else { 0 };
        match self.buckets.back_mut() {
            Some(last) if last.0 >= at => {
                last.1 += count;
                last.2 += hits;
            }
            _ => self.buckets.push_back((at, count, hits)),
        }
        let oldest = at.0 - window_ms as i64;
        self.in_buckets.0 += count;
        self.in_buckets.1 += hits;
        while let Some(&(_, gone, gone_hits)) = self.buckets.front().filter(|b| b.0.0 <= oldest) {
            self.in_buckets.0 -= gone;
            self.in_buckets.1 -= gone_hits;
            self.buckets.pop_front();
        }
        self.seen += count;
        let (total, hits) = self.in_buckets;
        self.stand.among = total;
        let exceeded = u128::from(hits) * 1_000_000 > u128::from(share_ppm) * u128::from(total);
        self.note(hits, exceeded, self.seen.saturating_sub(1));
    }

    fn note(&mut self, now: u64, exceeded: bool, ordinal: u64) {
        self.stand.now = now;
        self.stand.worst = self.stand.worst.max(now);
        self.stand.exceeded_now = exceeded;
        if exceeded && self.stand.exceeded_at.is_none() {
            self.stand.exceeded_at = Some(ordinal);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn budgets_read_and_write() {
        for text in ["any", "2% of 1000", "0.5% of 200", "5% per 1h", "1% per 90s"] {
            assert_eq!(Budget::parse(text).unwrap().to_string(), text);
        }
        for wrong in ["", "2%", "2 of 1000", "2% of", "101% of 10", "-1% of 10", "2% of 0", "5% per hour"] {
            assert!(Budget::parse(wrong).is_err(), "{wrong}");
        }
        assert_eq!(Budget::DEFAULT.to_string(), "1% of 1000");
    }

    /// Runs of (has the reason, how many), and how the budget `2% of 100` stands after them.
    fn check(runs: &[(bool, u64)], now: u64, worst: u64, exceeded_at: Option<u64>) {
        let mut window = BudgetWindow::new(Budget::parse("2% of 100").unwrap());
        for &(hit, count) in runs {
            window.observe(hit, count, Timestamp(0));
        }
        let stand = window.stand();
        assert_eq!((stand.now, stand.worst, stand.exceeded_at), (now, worst, exceeded_at), "{runs:?}");
    }

    #[test]
    fn a_budget_is_exceeded_by_one_more_than_its_share_however_few_there_were_yet() {
        check(&[(true, 2)], 2, 2, None);
        check(&[(true, 3)], 3, 3, Some(2));
        check(&[(false, 50), (true, 2), (false, 98)], 2, 2, None);
        check(&[(false, 50), (true, 2), (false, 98), (true, 1)], 2, 2, None);
        check(&[(false, 50), (true, 2), (false, 97), (true, 1)], 3, 3, Some(149));
        check(&[(true, 3), (false, 500)], 0, 3, Some(2));
    }

    #[test]
    fn a_window_of_time_forgets() {
        let mut window = BudgetWindow::new(Budget::parse("50% per 10s").unwrap());
        window.observe(true, 1, Timestamp(0));
        assert!(window.stand().exceeded_now);
        window.observe(false, 1, Timestamp(5_000));
        assert!(!window.stand().exceeded_now);
        window.observe(true, 1, Timestamp(10_000));
        assert_eq!((window.stand().now, window.stand().among), (1, 2));
    }
}
