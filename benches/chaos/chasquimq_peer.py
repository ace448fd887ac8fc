"""chasquimq 1.3 under faults: a silent worker keeps its jobs for 1.5 s, as with ours."""

import asyncio
import signal

import peer
from chasquimq import BackoffSpec, Job, Queue, Worker

LEASE_MS = 1500


async def connect(url: str) -> peer.Add:
    """Return how to add a job."""
    queue = Queue("chaos", redis_url=url)
    backoff = BackoffSpec.exponential(50, max_ms=500, jitter_ms=50)

    async def add(data: peer.Data, delay: float) -> None:
        wait = int(delay * 1000) or None
        await queue.add("run", data, delay_ms=wait, attempts=peer.MAX_ATTEMPTS, backoff=backoff)

    return add


async def work(url: str, handler: peer.Handler) -> None:
    """Run jobs until told to stop."""

    async def run(job: Job) -> None:
        await handler.run(job.data, job.id, job.attempt)

    worker = Worker(
        "chaos",
        run,
        redis_url=url,
        concurrency=peer.CONCURRENCY,
        max_attempts=peer.MAX_ATTEMPTS,
        claim_min_idle_ms=LEASE_MS,
        read_block_ms=500,
    )
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    running = asyncio.ensure_future(worker.run())
    await asyncio.wait(
        {running, asyncio.ensure_future(stop.wait())}, return_when=asyncio.FIRST_COMPLETED
    )
    await worker.close()
    # It only signals its end.
    await asyncio.wait_for(running, timeout=5)


if __name__ == "__main__":
    peer.main(connect, work)
