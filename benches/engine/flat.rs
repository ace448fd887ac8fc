//! PURE: whether a series of samples stays flat.

use crate::stats::median;

/// By how many percent a series grows in its second half: from the median of that half's first tenth to
/// the median of its last. What warms up in the first half counts for nothing, nor does a single spike.
/// 0 of fewer than four samples.
pub fn growth(samples: &[f64]) -> f64 {
    let half = &samples[samples.len() / 2..];
    if half.len() < 2 {
        return 0.0;
    }
    let (first, last) = ends(half);
    (median(last) / median(first) - 1.0) * 100.0
}

/// The first and the last tenth.
fn ends(samples: &[f64]) -> (&[f64], &[f64]) {
    let tenth = samples.len().div_ceil(10);
    (&samples[..tenth], &samples[samples.len() - tenth..])
}

/// How much more the second half reaches than the first; at least 0.
pub fn excess(samples: &[f64]) -> f64 {
    let (first, second) = samples.split_at(samples.len() / 2);
    let most = |samples: &[f64]| samples.iter().copied().fold(0.0, f64::max);
    (most(second) - most(first)).max(0.0)
}

#[cfg(test)]
#[expect(clippy::float_cmp, reason = "the values are taken out as they were put in")]
mod tests {
    use super::*;

    /// Five minutes of a value that trembles by 2%, times what `trend` makes of the time, 0 to 1.
    fn series(trend: impl Fn(f64) -> f64) -> Vec<f64> {
        let trembling = |n: u32| 100.0 + f64::from(n * 7 % 5) - 2.0;
        (0..300).map(|n| trembling(n) * trend(f64::from(n) / 300.0)).collect()
    }

    #[test]
    fn what_trembles_is_flat() {
        assert!(growth(&series(|_| 1.0)).abs() < 1.0);
    }

    #[test]
    fn a_leak_is_not() {
        let leak = growth(&series(|at| 1.0 + 0.15 * at));
        assert!((5.0..8.0).contains(&leak), "{leak}");
        let late = growth(&series(|at| if at > 0.9 { 1.2 } else { 1.0 }));
        assert!(late > 15.0, "{late}");
    }

    #[test]
    fn warming_up_and_a_spike_are_no_leak() {
        assert!(growth(&series(|at| (0.5 + at).min(0.9))).abs() < 1.0);
        let mut spike = series(|_| 1.0);
        spike[298] *= 3.0;
        assert!(growth(&spike).abs() < 1.0);
    }

    #[test]
    fn one_more_file_than_before_is_seen() {
        assert_eq!(excess(&[9.0, 10.0, 10.0, 10.0]), 0.0);
        assert_eq!(excess(&[9.0, 10.0, 10.0, 11.0]), 1.0);
        assert_eq!(excess(&[10.0, 10.0, 9.0, 9.0]), 0.0);
    }

    #[test]
    fn too_few_samples_tell_nothing() {
        for few in [&[][..], &[1.0], &[1.0, 2.0]] {
            assert_eq!(growth(few), 0.0);
        }
    }
}
