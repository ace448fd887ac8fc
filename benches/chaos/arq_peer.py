"""arq under faults: a job whose worker died is run again when `job_timeout` and 10 s are over."""

import asyncio
import contextlib
from typing import Any

from arq import Retry, create_pool, func
from arq.connections import RedisSettings
from arq.worker import Worker

import peer


def _settings(url: str) -> RedisSettings:
    settings = RedisSettings.from_dsn(url)
    settings.conn_retries, settings.retry_on_timeout = 50, True
    return settings


async def connect(url: str) -> peer.Add:
    """Return how to add a job."""
    pool = await create_pool(_settings(url))

    async def add(data: peer.Data, delay: float) -> None:
        await pool.enqueue_job("run", data, _defer_by=delay or None)

    return add


async def work(url: str, handler: peer.Handler) -> None:
    """Run jobs until told to stop."""

    async def run(ctx: dict[str, Any], data: peer.Data) -> None:
        attempt = ctx["job_try"] - 1
        try:
            await handler.run(data, ctx["job_id"], attempt)
        except peer.Fails as error:
            if attempt + 1 < peer.MAX_ATTEMPTS:
                raise Retry(defer=0.05 * 2**attempt) from error
            raise

    worker = Worker(
        [func(run, name="run", timeout=5, max_tries=peer.MAX_ATTEMPTS)],
        redis_settings=_settings(url),
        max_jobs=peer.CONCURRENCY,
        poll_delay=0.1,
        handle_signals=True,
    )
    # So it ends when told to.
    with contextlib.suppress(asyncio.CancelledError):
        await worker.async_run()
    await worker.close()


if __name__ == "__main__":
    peer.main(connect, work)
