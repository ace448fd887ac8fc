"""``Worker`` and its leases: while it lives, its jobs are nobody else's; when it does not, they are."""

import asyncio
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

from chasquimq import Job, Queue, Worker
from support.server import Server
from working import eventually, eventually_async, key, pending, stream_len, working


async def test_a_handler_longer_than_the_lease_runs_once(
    redis_server: Server, queue_name: str
) -> None:
    starts: list[str] = []

    async def handler(job: Job) -> None:
        starts.append(job.id)
        await asyncio.sleep(7)

    lease = 2500
    url = redis_server.url
    async with working(redis_server, queue_name, handler, claim_min_idle_ms=lease) as (queue, _):
        async with Worker(queue_name, handler, redis_url=url, claim_min_idle_ms=lease):
            await queue.add("long", 1)
            await eventually(lambda: starts, "the start")
            await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
            assert await queue.peek_dlq() == []
    assert len(starts) == 1


STOPPED = """
import asyncio
import os
import sys
import time

from chasquimq import Worker

_, url, queue, runs = sys.argv

async def handler(job):
    with open(runs, "a") as log:
        print(job.data, file=log)
    if job.data == "first":
        await asyncio.sleep(0.1)  # the other slot asks for a job
        print("blocked", flush=True)
        while not os.path.exists(runs + ".go"):
            time.sleep(0.01)

async def main():
    async with Worker(queue, handler, redis_url=url, concurrency=2, claim_min_idle_ms=1000):
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_what_waited_for_a_loop_in_a_stopped_process_runs_elsewhere_only(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    url, log = redis_server.url, tmp_path / "runs"
    elsewhere: list[str] = []
    command = [sys.executable, "-c", STOPPED, url, queue_name, str(log)]

    async def handler(job: Job) -> None:
        elsewhere.append(job.data)

    async with Queue(queue_name, redis_url=url) as queue:
        stopped = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        try:
            assert stopped.stdout is not None
            await queue.add("n", "first")
            assert await asyncio.to_thread(stopped.stdout.readline) == "blocked\n"
            await queue.add("n", "second")
            await eventually(lambda: pending(redis_server, queue_name) == 2, "its delivery")
            await asyncio.sleep(0.1)  # from the engine to the blocked loop: nobody sees it there
            stopped.send_signal(signal.SIGSTOP)
            Path(f"{log}.go").touch()
            async with Worker(queue_name, handler, redis_url=url, claim_min_idle_ms=1000):
                await eventually(lambda: len(elsewhere) == 2, "both elsewhere")
            stopped.send_signal(signal.SIGCONT)
            await queue.add("n", "third")
            await eventually(lambda: "third" in log.read_text(), "it goes on")
        finally:
            stopped.kill()
            stopped.communicate()
    assert sorted(elsewhere) == ["first", "second"]
    assert log.read_text().split() == ["first", "third"]


async def test_the_name_of_a_worker_that_died_is_forgotten_as_soon_as_is_said(
    redis_server: Server, queue_name: str
) -> None:
    stream = key(queue_name, "stream")

    def dead_ones() -> int:
        consumers = redis_server.command("XINFO", "CONSUMERS", stream, "default")
        return sum(b"dead" in consumer for consumer in consumers)

    async def handler(_: Job) -> None: ...

    redis_server.command("XGROUP", "CREATE", stream, "default", "0", "MKSTREAM")
    redis_server.command("XGROUP", "CREATECONSUMER", stream, "default", "dead")
    quick: dict[str, Any] = {"claim_min_idle_ms": 500, "consumer_max_idle_secs": 1}
    async with working(redis_server, queue_name, handler, **quick):
        await eventually(lambda: dead_ones() == 0, "it is forgotten")


async def _empty(server: Server, queue: str) -> bool:
    return stream_len(server, queue) == 0
