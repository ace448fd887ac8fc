"""What the tests of queues and workers share: waiting for conditions, looking into a queue's keys."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

from chasquimq import BatchHandler, Handler, Handlers, Job, Queue, Worker
from support.server import Server

PATIENCE = 60.0
"""Seconds after which a condition that has not come true never will."""


async def eventually(condition: Callable[[], object], what: str) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        await asyncio.sleep(0.005)


async def eventually_async(condition: Callable[[], Awaitable[object]], what: str) -> None:
    """Wait until a condition holds that has to be asked for."""
    deadline = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < deadline, f"{what}: not within {PATIENCE} s"
        await asyncio.sleep(0.005)


def key(queue: str, suffix: str) -> str:
    """Return the name of a queue's key."""
    return f"{{chasqui:{queue}}}:{suffix}"


def stream_len(server: Server, queue: str) -> int:
    """Return how many entries are there: ready, running, or ended behind a running one."""
    return int(server.command("XLEN", key(queue, "stream")))


def pending(server: Server, queue: str) -> int:
    """Return how many entries some consumer holds."""
    return int(server.command("XPENDING", key(queue, "stream"), "default")[0])


async def collect(server: Server, queue: str, count: int, **options: Any) -> list[Job]:
    """Run a worker until it has seen so many jobs; return them."""
    jobs: list[Job] = []

    async def handler(job: Job) -> None:
        jobs.append(job)

    async with Worker(queue, handler, redis_url=server.url, **options):
        await eventually(lambda: len(jobs) >= count, f"{count} jobs")
    return jobs


@asynccontextmanager
async def working(
    server: Server, queue: str, handler: Handler | BatchHandler | Handlers, **options: Any
) -> AsyncIterator[tuple[Queue, Worker]]:
    """Give a queue and a worker on it; both are closed in the end."""
    async with Queue(queue, redis_url=server.url) as producer:
        async with Worker(queue, handler, redis_url=server.url, **options) as worker:
            yield producer, worker


class Heartbeat:
    """Measures how long the event loop was blocked: ``async with Heartbeat() as heart: …``."""

    def __init__(self) -> None:
        self.longest = 0.0
        self.beats = 0

    async def __aenter__(self) -> "Heartbeat":
        self._task = asyncio.create_task(self._beat())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._task.cancel()

    async def _beat(self) -> None:
        while True:
            before = time.monotonic()
            await asyncio.sleep(0.002)
            self.longest = max(self.longest, time.monotonic() - before)
            self.beats += 1
