//! PURE: how many jobs to hold ready beside the running ones.

use std::time::Duration;

/// Work held ready, as time: a few round trips to the server, and short enough that nobody waits
/// long behind it.
const AHEAD_MS: f64 = 20.0;
/// How long a change of pace takes to count, about.
const MEMORY_MS: f64 = 50.0;
/// Looks closer together than this are one.
const SHORTEST_MS: f64 = 5.0;

/// The rate at which jobs end, of late.
#[derive(Debug)]
pub(super) struct Pace {
    most: usize,
    jobs_a_ms: f64,
    ended: u64,
    at: Duration,
}

impl Pace {
    /// Nothing has ended yet; never more than `most` are to be held ready.
    pub fn new(most: usize) -> Self {
        Self { most, jobs_a_ms: 0.0, ended: 0, at: Duration::ZERO }
    }

    /// By `now`, so many jobs have ended in all: how many to hold ready.
    pub fn saw(&mut self, now: Duration, ended: u64) -> usize {
        let ms = now.saturating_sub(self.at).as_secs_f64() * 1e3;
        if ms >= SHORTEST_MS {
            let seen = ended.saturating_sub(self.ended) as f64 / ms;
            let weight = 1.0 - (-ms / MEMORY_MS).exp();
            self.jobs_a_ms += (seen - self.jobs_a_ms) * weight;
            (self.ended, self.at) = (ended, now);
        }
        ((self.jobs_a_ms * AHEAD_MS) as usize).min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The depth after jobs have ended at this rate for a while.
    fn settled(pace: &mut Pace, from_ms: u64, jobs_a_s: u64, ended: &mut u64) -> usize {
        let mut depth = 0;
        for step in 1..=50 {
            *ended += jobs_a_s / 100;
            depth = pace.saw(Duration::from_millis(from_ms + step * 10), *ended);
        }
        depth
    }

    #[test]
    fn holds_twenty_milliseconds_of_work_ready_and_none_of_long_jobs() {
        let (mut pace, mut ended) = (Pace::new(512), 0);
        assert_eq!(pace.saw(Duration::from_millis(1), 0), 0);
        assert!((199..=200).contains(&settled(&mut pace, 10, 10_000, &mut ended)));
        assert_eq!(settled(&mut pace, 1_000, 100_000, &mut ended), 512, "the bound");
        assert_eq!(settled(&mut pace, 2_000, 0, &mut ended), 0, "nothing ends any more");
    }

    proptest! {
        #[test]
        fn never_more_than_the_bound_or_than_the_fastest_pace(
            most in 0usize..1000,
            looks in prop::collection::vec((0u64..100, 0u64..1000), 1..50),
        ) {
            let (mut pace, mut now, mut ended, mut fastest) = (Pace::new(most), 0, 0, 0.0f64);
            for (ms, jobs) in looks {
                now += ms;
                ended += jobs;
                let depth = pace.saw(Duration::from_millis(now), ended);
                fastest = fastest.max(ended as f64);
                prop_assert!(depth <= most);
                prop_assert!(depth as f64 <= fastest * AHEAD_MS);
            }
        }
    }
}
