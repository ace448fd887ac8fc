//! PURE: which harm is done when, from a seed.

use std::time::Duration;

use clap::ValueEnum;
use rand::rngs::StdRng;
use rand::{RngExt, SeedableRng};

use crate::log::Harm;

/// What a run does to its victims.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Faults {
    /// Nothing.
    None,
    /// To the network, the workers, the scripts and the connections.
    All,
}

/// How a server that crashes keeps its data.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Durability {
    /// Each write is on disk before its reply.
    Always,
    /// Within a second or two.
    Everysec,
}

/// One act.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Step {
    /// After the begin.
    pub at: Duration,
    pub harm: Harm,
    /// The victim, to be taken modulo how many there are.
    pub victim: usize,
}

const NETWORK: [Harm; 5] =
    [Harm::Cut, Harm::Stall, Harm::HalfClose, Harm::Dribble, Harm::LostReply];

/// The acts of a run in order: at least 12 faults of the network and 4 killed workers a minute.
pub fn network_and_workers(seed: u64, length: Duration) -> Vec<Step> {
    let mut rng = StdRng::seed_from_u64(seed);
    let mut steps = Vec::new();
    // All five in turn, in an order that the seed decides, or a short run might miss one.
    let mut turn = rng.random_range(0..NETWORK.len());
    for at in times(&mut rng, length, 2_500..4_500) {
        steps.push(Step {
            at,
            harm: NETWORK[turn % NETWORK.len()],
            victim: rng.random_range(0..60),
        });
        turn += if rng.random_bool(0.8) { 1 } else { 2 };
    }
    for (harm, pauses) in [
        (Harm::Kill, 8_000..14_000),
        (Harm::Stop, 20_000..40_000),
        (Harm::FlushScripts, 15_000..15_001),
        (Harm::KillClients, 20_000..20_001),
    ] {
        for at in times(&mut rng, length, pauses) {
            steps.push(Step { at, harm, victim: rng.random_range(0..60) });
        }
    }
    steps.sort_by_key(|step| step.at);
    steps
}

/// The server is killed every 20 s, first after half of that.
pub fn crashes(length: Duration) -> Vec<Step> {
    let times = (0..).map(|n| Duration::from_secs(10 + 20 * n));
    let times = times.take_while(|at| *at < length);
    times.map(|at| Step { at, harm: Harm::Crash, victim: 0 }).collect()
}

fn times(rng: &mut StdRng, length: Duration, pauses: std::ops::Range<u64>) -> Vec<Duration> {
    let mut times = Vec::new();
    let mut at = Duration::ZERO;
    loop {
        at += Duration::from_millis(rng.random_range(pauses.clone()));
        if at >= length {
            return times;
        }
        times.push(at);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_is_a_plan_with_enough_of_everything() {
        let length = Duration::from_mins(10);
        for seed in 0..50 {
            let plan = network_and_workers(seed, length);
            assert_eq!(plan, network_and_workers(seed, length));
            let count = |harm: Harm| plan.iter().filter(|step| step.harm == harm).count();
            let network: usize = NETWORK.iter().map(|harm| count(*harm)).sum();
            assert!(network >= 120 && count(Harm::Kill) >= 40, "{network} {}", count(Harm::Kill));
            assert!(NETWORK.iter().all(|harm| count(*harm) >= 10));
            assert_eq!((count(Harm::FlushScripts), count(Harm::KillClients)), (39, 29));
            assert!(plan.is_sorted_by_key(|step| step.at));
        }
        assert_ne!(network_and_workers(1, length), network_and_workers(2, length));
    }
}
