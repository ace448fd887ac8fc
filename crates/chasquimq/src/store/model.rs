//! A model of one queue, and a server's, through the same operations: random ones, replies that are lost,
//! calls that come twice or late, workers that die, and time that jumps. After each they agree on all keys.
//!
//! `PROPTEST_CASES` sets the number of cases, `PROPTEST_RNG_SEED` their seed. What failed is kept in
//! `proptest-regressions/store/model.txt` and comes first.

mod adding;
mod bench;
mod calls;
mod hands;
mod ops;
mod seen;
mod settling;
mod world;

use std::cell::RefCell;
use std::env;

use proptest::test_runner::{
    Config, FileFailurePersistence, RngSeed, TestCaseError, TestError, TestRunner,
};
use tokio::runtime::Handle;
use tokio::task::block_in_place;

use bench::Bench;
use ops::{Case, How, Id, Op, Reply, When, Wish};

const GROUP: &str = "workers";
const CASES: u32 = 120;
const SEED: u64 = 1;
const FAILED: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/proptest-regressions/store/model.txt");

#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn a_queue_and_its_model_agree_whatever_befalls_them() {
    let bench = RefCell::new(Bench::new().await);
    // The runner knows of no futures.
    let outcome = block_in_place(|| {
        TestRunner::new(config()).run(&ops::case(), |case| {
            let played = Handle::current().block_on(bench.borrow_mut().play(&case));
            played.map_err(|error| TestCaseError::fail(format!("{error:#}")))
        })
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, case)) => panic!("{why}\n{case}"),
        Err(TestError::Abort(why)) => panic!("{why}"),
    }
}

/// Chance comes by this one too seldom.
#[tokio::test]
async fn a_late_end_of_an_entry_that_another_has_settled_in_part_leaves_no_bitmap() {
    let new = Wish { id: Id::Fresh, when: When::Now };
    let heard = Reply::Heard;
    let retry = How::Retry { backoff_ms: 3_600_000 };
    let both = vec![(0, 0), (0, 1)];
    let ops = vec![
        Op::Add { jobs: vec![new; 2], bound: 0, pack: 2, reply: heard },
        Op::Read { worker: 0, count: 1, reply: heard },
        Op::Settle { worker: 0, how: How::Complete, picks: both, reply: Reply::NeverSent },
        Op::LeasesRunOut { picks: vec![0] },
        Op::Claim { worker: 1, count: 1, reply: heard },
        Op::Settle { worker: 1, how: retry, picks: vec![(0, 0)], reply: heard },
        Op::Again { call: 1 },
    ];
    Bench::new().await.play(&Case { verbose: false, ops }).await.unwrap();
}

fn config() -> Config {
    let mut config = Config {
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(FAILED))),
        ..Config::default()
    };
    if env::var_os("PROPTEST_CASES").is_none() {
        config.cases = CASES;
    }
    if env::var_os("PROPTEST_RNG_SEED").is_none() {
        config.rng_seed = RngSeed::Fixed(SEED);
    }
    config
}
