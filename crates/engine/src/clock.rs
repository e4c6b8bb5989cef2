//! The only place where the loop asks the time, so that a simulator can give it.

use recount_model::Timestamp;

/// Tells the time of day. Waiting is tokio's, which a simulator pauses.
pub trait Clock: Send + Sync {
    /// Now.
    fn now(&self) -> Timestamp;
}

/// The machine's clock.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn now(&self) -> Timestamp {
        let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        Timestamp(since.map_or(0, |d| d.as_millis() as i64))
    }
}

/// SplitMix64 (Steele, Lea, Flood 2014): jitter needs no better randomness, and a seed repeats it.
#[derive(Debug, Clone)]
pub struct Jitter(u64);

impl Jitter {
    /// Begins at a seed.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// Takes a random share between 0 and `jitter` off a backoff.
    pub fn shorten(&mut self, backoff_ms: u64, jitter: f64) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        let unit = ((z ^ (z >> 31)) >> 11) as f64 / (1u64 << 53) as f64;
        (backoff_ms as f64 * (1.0 - jitter.clamp(0.0, 1.0) * unit)) as u64
    }
}

/// `first`, doubled for each attempt after the first, at most `max`.
pub fn backoff_ms(first_ms: u64, max_ms: u64, attempt: u32) -> u64 {
    let doubled = first_ms.saturating_mul(1u64 << attempt.saturating_sub(1).min(40));
    doubled.min(max_ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_backoff_doubles_up_to_its_bound_and_jitter_only_shortens_it() {
        let waits: Vec<_> = (1..=6).map(|attempt| backoff_ms(200, 3000, attempt)).collect();
        assert_eq!(waits, [200, 400, 800, 1600, 3000, 3000]);
        let mut jitter = Jitter::new(7);
        for _ in 0..1000 {
            let wait = jitter.shorten(1000, 0.2);
            assert!((800..=1000).contains(&wait), "{wait}");
        }
    }
}
