"""The engine's warnings reach ``logging`` without anybody doing anything."""

import asyncio
import logging
import re

import pytest

from chasquimq import BackoffSpec, Job, Queue
from support.server import Server
from working import eventually, eventually_async, key, working


async def _nothing(_job: Job) -> None: ...


async def test_a_fault_of_the_server_is_told(
    own_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with working(own_server, queue_name, _nothing):
        own_server.command("FLUSHALL")
        await eventually(lambda: _lines(caplog, logging.WARNING), "a warning")
    line = _lines(caplog, logging.WARNING)[0]
    assert line.name == "chasquimq.engine"
    assert line.target.startswith("chasquimq")  # type: ignore[attr-defined]
    assert queue_name in line.getMessage()


async def test_recovery_needs_no_help(
    own_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ended = 0

    async def handler(_job: Job) -> None:
        nonlocal ended
        ended += 1

    async def added() -> bool:
        try:
            await queue.add("n", 1)
        except ConnectionError:
            return False
        return True

    async with working(own_server, queue_name, handler) as (queue, _):
        own_server.kill9()
        await eventually(lambda: _lines(caplog, logging.WARNING), "a warning")
        own_server.restart()
        await eventually_async(added, "the server is back")
        await eventually(lambda: ended, "the job")


async def test_details_come_when_they_are_wanted(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chasquimq.engine")
    async with Queue(queue_name, redis_url=redis_server.admin_url) as queue:
        await queue.add("n", 1)
        await eventually(lambda: _lines(caplog, logging.INFO), "the server's name")
    (line,) = _lines(caplog, logging.INFO)
    assert line.getMessage() == (
        f'queue "{queue_name}": using {redis_server.admin_url} (from the argument redis_url)'
    )


async def test_failed_runs_and_dead_jobs_are_told_with_their_traceback(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    async def handler(_job: Job) -> None:
        raise ValueError("boom")

    def told() -> list[logging.LogRecord]:
        return [record for record in caplog.records if record.name == "chasquimq.jobs"]

    async with working(redis_server, queue_name, handler) as (queue, _):
        job = await queue.add("greet", 1, attempts=2, backoff=BackoffSpec.fixed(10))
        await eventually(lambda: len(told()) == 2, "both runs")
        redis_server.command("XADD", key(queue_name, "stream"), "*", "colour", "red")
        await eventually(lambda: len(told()) == 3, "what is no job")
    failed, dead, foreign = told()
    named = f'job {job.id} "greet" of queue "{queue_name}"'
    trace = r'ValueError: boom\n  File ".*", line \d+, in handler\n    raise ValueError\("boom"\)'
    again = rf"{named} failed, run 1 of 2; it runs again in \d+ ms: {trace}"
    assert failed.levelno == logging.WARNING
    assert re.fullmatch(again, failed.getMessage())
    assert dead.levelno == logging.ERROR
    ended = rf"{named} went to the dead-letter queue \(retries_exhausted\): {trace}"
    assert re.fullmatch(ended, dead.getMessage())
    assert foreign.levelno == logging.ERROR
    broken = (
        f'an undecodable job of queue "{queue_name}" went to the dead-letter queue (malformed): '
    )
    assert foreign.getMessage().startswith(broken)


@pytest.mark.any_server
async def test_a_flood_of_lines_is_bounded_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO, "chasquimq.engine")
    queues = [Queue(f"q-{i}", redis_url="redis://127.0.0.1:1") for i in range(1100)]
    calls = [asyncio.create_task(queue.add("n", 1)) for queue in queues]
    await asyncio.sleep(0)
    await asyncio.to_thread(lambda: None)
    await asyncio.gather(*calls, return_exceptions=True)
    lines = _lines(caplog, logging.INFO)
    dropped = [
        int(line.getMessage().split()[0]) for line in lines if "more lines" in line.getMessage()
    ]
    told = [line for line in lines if "using redis" in line.getMessage()]
    assert len(told) + sum(dropped) == 1100


def _lines(caplog: pytest.LogCaptureFixture, level: int) -> list[logging.LogRecord]:
    return [
        record
        for record in caplog.records
        if record.name == "chasquimq.engine" and record.levelno >= level
    ]
