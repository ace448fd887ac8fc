//! PURE: how long to wait before the next run.
//!
//! ```text
//! wait = min(delay × multiplier^(failures − 1), max) + jitter × random
//! ```
//!
//! `failures` counts the runs that ended in an error, the last included; `random` is an argument
//! in `[0, 1)`. The shape is the usual capped exponential backoff with additive jitter.

use crate::config::RetryConfig;
use crate::job::{BackoffKind, BackoffSpec, JobRetryOverride};

/// All runs a job may have: its own limit, else the worker's; never less than one.
pub(crate) fn max_attempts(own: Option<&JobRetryOverride>, default: u32) -> u32 {
    own.and_then(|retry| retry.max_attempts).unwrap_or(default).max(1)
}

/// The wait before the next run, in milliseconds.
pub(crate) fn backoff_ms(
    own: Option<&JobRetryOverride>,
    defaults: &RetryConfig,
    failures: u32,
    random: f64,
) -> u64 {
    let spec = own.and_then(|retry| retry.backoff.as_ref());
    let base = base_ms(spec, defaults, failures);
    let jitter = spec.and_then(|s| s.jitter_ms).unwrap_or(defaults.jitter_ms);
    base.saturating_add((jitter as f64 * random.clamp(0.0, 1.0)) as u64)
}

fn base_ms(spec: Option<&BackoffSpec>, defaults: &RetryConfig, failures: u32) -> u64 {
    let max = spec.and_then(|s| s.max_delay_ms).unwrap_or(defaults.max_backoff_ms);
    let delay = spec.map_or(defaults.initial_backoff_ms, |s| s.delay_ms);
    if spec.is_some_and(|s| s.kind == BackoffKind::Fixed) {
        return spec.and_then(|s| s.max_delay_ms).map_or(delay, |max| delay.min(max));
    }
    let multiplier = spec.and_then(|s| s.multiplier).unwrap_or(defaults.multiplier).max(1.0);
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let grown = delay as f64 * multiplier.powi(exponent);
    if grown.is_finite() { (grown as u64).min(max) } else { max }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn exponential(delay_ms: u64, max_delay_ms: u64, multiplier: f64) -> JobRetryOverride {
        let spec = BackoffSpec {
            kind: BackoffKind::Exponential,
            delay_ms,
            max_delay_ms: Some(max_delay_ms),
            multiplier: Some(multiplier),
            jitter_ms: Some(0),
        };
        JobRetryOverride { max_attempts: None, backoff: Some(spec) }
    }

    #[test]
    fn doubles_until_the_cap() {
        let own = exponential(100, 1000, 2.0);
        let waits: Vec<u64> =
            (1..=6).map(|n| backoff_ms(Some(&own), &RetryConfig::default(), n, 0.9)).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1000, 1000]);
    }

    #[test]
    fn fixed_ignores_the_worker_s_cap_and_multiplier() {
        let backoff = BackoffSpec {
            jitter_ms: Some(0),
            ..BackoffSpec::fixed(std::time::Duration::from_secs(90))
        };
        let own = JobRetryOverride { max_attempts: None, backoff: Some(backoff) };
        assert_eq!(backoff_ms(Some(&own), &RetryConfig::default(), 7, 0.5), 90_000);
    }

    proptest! {
        #[test]
        fn never_shrinks_and_never_exceeds_the_cap(
            delay in 0u64..100_000, cap in 0u64..1_000_000, multiplier in 0.0f64..1e9, failures in 1u32..u32::MAX,
        ) {
            let own = exponential(delay, cap, multiplier);
            let now = backoff_ms(Some(&own), &RetryConfig::default(), failures, 0.0);
            let next = backoff_ms(Some(&own), &RetryConfig::default(), failures.saturating_add(1), 0.0);
            prop_assert!(now <= cap && next <= cap && now <= next);
        }

        #[test]
        fn jitter_stays_inside_its_bound(random in 0.0f64..1.0, failures in 1u32..100) {
            let config = RetryConfig::default();
            let wait = backoff_ms(None, &config, failures, random);
            prop_assert!(wait <= config.max_backoff_ms + config.jitter_ms);
        }
    }
}
