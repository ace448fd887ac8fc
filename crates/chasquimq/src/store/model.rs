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

const GROUP: &str = "workers";
const CASES: u32 = 200;
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
