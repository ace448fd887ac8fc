"""The engine's warnings reach ``logging`` without anybody doing anything."""

import asyncio
import logging

import pytest

from chasquimq import Job, Queue
from support.server import Server
from working import eventually, eventually_async, working


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
