//! What is done to the processes and servers, in which order: from the seed.

use crate::random::Random;
use std::collections::BTreeMap;
use std::time::Duration;

/// One disturbance.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// SIGKILL of the process that works; the next one starts at once.
    Kill,
    /// SIGSTOP; another one takes the topic over; SIGCONT.
    Freeze,
    /// Kafka stops in order and starts again.
    BrokerStop,
    /// Kafka is killed and starts again.
    BrokerCrash,
    /// PostgreSQL stops without a checkpoint and starts again.
    DatabaseCrash,
}

impl Strike {
    /// In a report.
    pub fn word(self) -> &'static str {
        match self {
            Self::Kill => "kill",
            Self::Freeze => "freeze",
            Self::BrokerStop => "kafka stopped and started",
            Self::BrokerCrash => "kafka killed and started",
            Self::DatabaseCrash => "postgresql crashed and started",
        }
    }
}

/// How many of each; shuffled, with Kafka's ends in turn.
pub fn shuffled(random: &mut Random, kills: u64, freezes: u64, brokers: u64, databases: u64) -> Vec<Strike> {
    let mut strikes = vec![Strike::Kill; usize::try_from(kills).unwrap_or_default()];
    let brokers = (0..brokers).map(|n| if n % 2 == 0 { Strike::BrokerStop } else { Strike::BrokerCrash });
    strikes.extend(brokers);
    strikes.extend((0..freezes).map(|_| Strike::Freeze));
    strikes.extend((0..databases).map(|_| Strike::DatabaseCrash));
    for last in (1..strikes.len()).rev() {
        let with = random.below(last as u64 + 1) as usize;
        strikes.swap(last, with);
    }
    strikes
}

/// What happened, how often, and how long it took.
#[derive(Debug, Default)]
pub struct Happened {
    /// What, and how often.
    pub times: BTreeMap<&'static str, u64>,
    /// The step that a kill struck, and how often.
    pub kills_at: BTreeMap<String, u64>,
    /// The step that a freeze struck, and how often.
    pub freezes_at: BTreeMap<String, u64>,
    /// From each kill until the next process had settled a batch.
    pub after_kill: Vec<Duration>,
    /// From each freeze until the process that took over had settled a batch.
    pub after_freeze: Vec<Duration>,
    /// From the moment that a server was back until a batch was settled again, by server and how it ended.
    pub after_server: BTreeMap<&'static str, Vec<Duration>>,
    /// Why processes ended by themselves, that nobody had killed, and how often.
    pub ended: BTreeMap<String, u64>,
    /// What is against the rules.
    pub faults: Vec<String>,
}

/// The middle and the longest, in seconds.
pub fn p50_and_max(times: &[Duration]) -> (f64, f64) {
    let mut sorted: Vec<f64> = times.iter().map(Duration::as_secs_f64).collect();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.get(sorted.len().saturating_sub(1) / 2).copied().unwrap_or_default();
    (middle, sorted.last().copied().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_order_with_as_many_of_each_as_asked_for() {
        let plan = |seed| shuffled(&mut Random::new(seed), 8, 2, 3, 1);
        assert_eq!(plan(1), plan(1));
        assert_ne!(plan(1), plan(2));
        let count = |strike| plan(1).iter().filter(|one| **one == strike).count();
        assert_eq!((count(Strike::Kill), count(Strike::Freeze)), (8, 2));
        assert_eq!((count(Strike::BrokerStop), count(Strike::BrokerCrash)), (2, 1));
    }

    #[test]
    fn the_middle_and_the_longest_are_told() {
        let times: Vec<Duration> = [5, 1, 3].into_iter().map(Duration::from_secs).collect();
        assert_eq!(p50_and_max(&times), (3.0, 5.0));
        assert_eq!(p50_and_max(&times[..2]), (1.0, 5.0));
        assert_eq!(p50_and_max(&[]), (0.0, 0.0));
    }
}
