//! Keeps the engine's tasks alive: a task that fails or panics is logged, counted and started
//! again after a pause; it never just ends.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures::FutureExt;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::error::{Error, ErrorKind, Result};
use crate::metrics::{Guarded, TaskRestarted};

const FIRST_PAUSE: Duration = Duration::from_millis(50);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// A task that ran so long before it failed starts again with the first pause.
const HEALTHY: Duration = Duration::from_secs(10);

/// Runs `task` again and again until it returns `Ok` or `stop` is cancelled.
pub(crate) async fn supervise<F: Future<Output = Result<()>>>(
    name: &'static str,
    metrics: &Guarded,
    stop: &CancellationToken,
    task: impl Fn() -> F,
) {
    let mut pause = FIRST_PAUSE;
    loop {
        let started = Instant::now();
        let error = match AssertUnwindSafe(task()).catch_unwind().await {
            Ok(Ok(())) => return,
            Ok(Err(error)) => error,
            Err(_) => Error::new(ErrorKind::Server, "it panicked"),
        };
        if stop.is_cancelled() {
            return;
        }
        if started.elapsed() > HEALTHY {
            pause = FIRST_PAUSE;
        }
        tracing::warn!(task = name, %error, "a task of the engine failed; it starts again in {pause:?}");
        metrics.tell(|sink| sink.task_restarted(TaskRestarted { task: name }));
        tokio::select! {
            () = sleep(pause) => {}
            () = stop.cancelled() => return,
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
