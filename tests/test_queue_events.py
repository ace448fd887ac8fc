"""``QueueEvents``: all that happens to jobs, to every subscriber, in order, over faults and restarts."""

import asyncio
import gc
import logging
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from chasquimq import (
    BackoffSpec,
    Job,
    Queue,
    QueueEvent,
    QueueEvents,
    UnrecoverableError,
    Worker,
)
from chasquimq.errors import AuthError, ChasquiError, ConfigError, ShutdownError, WrongType
from conftest import StartServer
from support.server import Server
from working import eventually, key, working


async def _nothing(_job: Job) -> None: ...


async def take(events: QueueEvents, count: int) -> list[QueueEvent]:
    """Return the next events."""

    async def some() -> list[QueueEvent]:
        return [await anext(events) for _ in range(count)]

    return await asyncio.wait_for(some(), 20)


def tell(server: Server, queue: str, *numbers: int) -> list[str]:
    """Write events by hand; return their ids."""
    add = ("XADD", key(queue, "events"), "*", "e", "completed", "n", "send", "id")
    return [server.command(*add, number).decode() for number in numbers]


async def test_a_life_is_told_in_order_with_its_fields(
    redis_server: Server, queue_name: str
) -> None:
    ended = asyncio.Event()

    async def handler(job: Job) -> None:
        if job.data == "hopeless":
            raise UnrecoverableError("no such user")
        if job.attempt == 0:
            raise ValueError("no route")
        ended.set()

    async with QueueEvents(queue_name, redis_url=redis_server.url) as events:
        async with working(redis_server, queue_name, handler) as (queue, _):
            backoff = BackoffSpec.fixed(20, jitter_ms=0)
            job = await queue.add("send", "Ada", delay_ms=20, attempts=2, backoff=backoff)
            await asyncio.wait_for(ended.wait(), 15)
            told = await take(events, 4)
            dead = await queue.add("send", "hopeless")
            told += await take(events, 2)
    assert [event.name for event in told] == [
        "delayed",
        "failed",
        "retry-scheduled",
        "completed",
        "failed",
        "dlq",
    ]
    assert [event.job_id for event in told] == [job.id] * 4 + [dead.id] * 2
    assert {event.job_name for event in told} == {"send"}
    assert [event.id for event in told] == sorted({event.id for event in told}, key=_place)
    delayed, failed, retry, completed, refused, dlq = (event.fields for event in told)
    assert delayed == {"delay_ms": "20"}
    assert list(failed) == ["attempt", "duration_us", "reason"]
    assert failed["attempt"] == "1"
    assert int(failed["duration_us"]) >= 0
    assert failed["reason"].startswith("ValueError: no route\n")
    assert retry == {"attempt": "2", "backoff_ms": "20"}
    assert list(completed) == ["attempt", "duration_us"]
    assert completed["attempt"] == "2"
    assert refused["reason"].startswith("UnrecoverableError: no such user\n")
    assert dlq == {"attempt": "1", "reason": "unrecoverable"}


async def test_the_steps_between_are_told_on_request(redis_server: Server, queue_name: str) -> None:
    url = redis_server.url
    async with QueueEvents(queue_name, redis_url=url) as events:
        async with Queue(queue_name, redis_url=url, events_verbose=True) as queue:
            options: dict[str, Any] = {"events_verbose": True, "concurrency": 1}
            async with Worker(queue_name, _nothing, redis_url=url, **options):
                now = await queue.add("now", 1)
                told = await take(events, 3)
                late = await queue.add("late", 2, delay_ms=20)
                told += await take(events, 4)
    names = ["waiting", "active", "completed", "delayed", "promoted", "active", "completed"]
    assert [event.name for event in told] == names
    assert [event.job_id for event in told] == [now.id] * 3 + [late.id] * 4
    assert told[1].fields == {"attempt": "1"}


def _place(event_id: str) -> tuple[int, ...]:
    return tuple(map(int, event_id.replace(":", "-").split("-")))


PAGE = """
from chasquimq import QueueEvents

events = QueueEvents("emails")
async for ev in events: print(ev.name, ev.job_id, ev.fields)
"""


async def _printed(
    server: Server, queue: str, command: list[str | Path], count: int, expect: str
) -> list[str]:
    """Complete jobs until a subscriber has printed so many lines of one kind."""
    process = await asyncio.create_subprocess_exec(
        *command,
        env={**os.environ, "CHASQUIMQ_URL": server.url, "PYTHONUNBUFFERED": "1"},
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    lines: list[str] = []
    feeding: asyncio.Task[None]
    async with working(server, queue, _nothing) as (producer, _):

        async def feed() -> None:
            # It tells from the moment at which it connects, which nobody here can see.
            while True:
                await producer.add("send", 1, job_id=f"job-{len(lines)}")
                await asyncio.sleep(0.02)

        feeding = asyncio.create_task(feed())
        while len(lines) < count:
            line = (await asyncio.wait_for(process.stdout.readline(), 20)).decode()
            assert expect in line, line
            lines.append(line.rstrip())
        feeding.cancel()
    process.kill()
    await process.wait()
    return lines


async def test_the_page_s_python_runs_as_printed(own_server: Server) -> None:
    # `async for` outside of a function is for a prompt such as that of `python -m asyncio`.
    program = (
        "import ast, asyncio, inspect\n"
        f"code = compile({PAGE!r}, 'page', 'exec', flags=ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)\n"
        "asyncio.run(eval(code, {}))"
    )
    lines = await _printed(own_server, "emails", [sys.executable, "-c", program], 3, "completed ")
    name, job_id, fields = lines[0].split(" ", 2)
    assert (name, job_id[:4]) == ("completed", "job-")
    assert fields.startswith("{'attempt': '1', 'duration_us': '")


async def test_the_page_s_shell_command_runs(own_server: Server) -> None:
    chasqui = Path(sys.executable).parent / "chasqui"
    lines = await _printed(own_server, "emails", [chasqui, "events", "emails"], 3, "completed ")
    assert " job-" in lines[0]
    assert "attempt=1 duration_us=" in lines[0]


SUBSCRIBER = """
import asyncio, os, sys
from chasquimq import QueueEvents

url, queue, log, start = sys.argv[1:]

async def main():
    seen = open(log, "a", buffering=1)
    async with QueueEvents(queue, redis_url=url, last_event_id=start) as events:
        print("connected", flush=True)
        async for ev in events:
            seen.write(f"{ev.id} {ev.name} {ev.job_id}\\n")

asyncio.run(main())
"""


class Subscriber:
    """A process that writes down every event and where it was."""

    def __init__(self, server: Server, queue: str, log: Path) -> None:
        self._command = [sys.executable, "-c", SUBSCRIBER, server.url, queue, str(log)]
        self._log = log
        self._process: subprocess.Popen[str] | None = None

    async def start(self) -> None:
        """Start it where it was, or now; wait until it listens."""
        seen = self.seen()
        command = [*self._command, seen[-1].split()[0] if seen else "$"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        assert await asyncio.to_thread(self._process.stdout.readline) == "connected\n"

    def kill(self) -> None:
        """Kill it with SIGKILL."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()

    def seen(self) -> list[str]:
        """Return what it has written down."""
        return self._log.read_text().splitlines() if self._log.exists() else []


@pytest.mark.timeout(120)
async def test_two_subscribers_see_the_same_over_a_kill_and_a_restart_of_the_server(
    start_server: StartServer, queue_name: str, tmp_path: Path
) -> None:
    server = start_server(aof=True)
    steady = Subscriber(server, queue_name, tmp_path / "steady")
    killed = Subscriber(server, queue_name, tmp_path / "killed")
    await steady.start()
    await killed.start()
    ids = [f"job-{i}" for i in range(10_000)]

    def completed(subscriber: Subscriber) -> list[str]:
        # A worker that stood still with jobs in hand has released some of them, too.
        return [line for line in subscriber.seen() if " completed " in line]

    async def until(subscriber: Subscriber, count: int) -> None:
        await eventually(lambda: len(completed(subscriber)) >= count, f"{count} events")

    # Jobs whose delivery was lost with a connection come again after a lease.
    async with working(server, queue_name, _nothing, claim_min_idle_ms=2000) as (queue, _):

        async def add(first: int, last: int) -> None:
            for start in range(first, last, 500):
                batch = ids[start : start + 500]
                await queue.add_bulk({"name": "n", "data": 0, "job_id": i} for i in batch)

        await add(0, 4000)
        await until(killed, 1000)
        killed.kill()
        await add(4000, 6000)
        await until(steady, 4000)
        await killed.start()
        server.restart()
        for _ in range(200):
            try:
                await queue.add("n", 0, job_id=ids[6000])
                break
            except ChasquiError:
                await asyncio.sleep(0.05)
        await add(6001, 10_000)
        await until(steady, 10_000)
        await until(killed, 10_000)
    first, second = completed(steady), completed(killed)
    steady.kill()
    killed.kill()
    assert first == second
    assert Counter(line.split(" ", 1)[1] for line in first) == Counter(
        f"completed {job_id}" for job_id in ids
    )


async def test_the_own_place_is_kept_and_resumed(redis_server: Server, queue_name: str) -> None:
    tell(redis_server, queue_name, 0)
    async with QueueEvents(queue_name, redis_url=redis_server.url) as events:
        began = events.last_event_id
        ids = tell(redis_server, queue_name, 1, 2, 3)
        assert [event.job_id for event in await take(events, 2)] == ["1", "2"]
        assert events.last_event_id == ids[1]
    assert events.last_event_id == ids[1]
    for start, expected in {
        began: ["1", "2", "3"],
        ids[1]: ["3"],
        "0": ["0", "1", "2"],
        "0-0": ["0", "1", "2"],
    }.items():
        async with QueueEvents(
            queue_name, redis_url=redis_server.url, last_event_id=start, count=1
        ) as again:
            assert [e.job_id for e in await take(again, len(expected))] == expected


async def test_a_gap_is_told_and_does_not_end_the_loop(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    ids = tell(redis_server, queue_name, 1, 2, 3, 4)
    redis_server.command("XTRIM", key(queue_name, "events"), "MAXLEN", "=", 2)
    async with QueueEvents(
        queue_name, redis_url=redis_server.url, last_event_id=ids[0], block_ms=0
    ) as events:
        gap, *rest = await take(events, 3)
        assert gap == QueueEvent("gap", "", "", {"after": ids[0]}, ids[0])
        assert [event.job_id for event in rest] == ["3", "4"]
        told = [line.getMessage() for line in caplog.records if line.levelno == logging.WARNING]
        assert len(told) == 1
        assert f"events after {ids[0]} may be missing" in told[0]
        tell(redis_server, queue_name, 5, 6)
        assert [event.job_id for event in await take(events, 2)] == ["5", "6"]


async def test_callbacks_run_in_order_and_their_errors_stop_nothing(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    calls: list[tuple[str, str]] = []

    async def slow(event: QueueEvent) -> None:
        await asyncio.sleep(0.01)
        calls.append(("completed", event.job_id))

    def broken(event: QueueEvent) -> None:
        raise RuntimeError(f"not {event.job_id}")

    async def last(event: QueueEvent) -> None:
        calls.append(("*", event.job_id))
        if event.job_id == "3":
            await events.close()

    events = QueueEvents(queue_name, redis_url=redis_server.url, last_event_id="0")
    events.on("completed", broken)
    events.on("completed", slow)
    events.on("failed", lambda event: calls.append(("failed", event.job_id)))
    events.on("*", last)
    ids = tell(redis_server, queue_name, 1, 2, 3)
    await asyncio.wait_for(events.run(), 15)
    assert calls == [(name, number) for number in "123" for name in ("completed", "*")]
    assert events.last_event_id == ids[-1]
    failed = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(failed) == 3
    assert failed[0].exc_info is not None
    assert str(failed[0].exc_info[1]) == "not 1"
    with pytest.raises(TypeError, match="callback"):
        events.on("completed", "print")  # type: ignore[arg-type]


async def test_close_ends_a_waiting_loop(redis_server: Server, queue_name: str) -> None:
    events = QueueEvents(queue_name, redis_url=redis_server.url)

    async def loop() -> list[str]:
        return [event.job_id async for event in events]

    looping = asyncio.create_task(loop())
    await eventually(lambda: events.last_event_id != "$", "the connection")
    (last,) = tell(redis_server, queue_name, 1)
    await eventually(lambda: events.last_event_id == last, "the event")
    with pytest.raises(ChasquiError, match="read already"):
        await anext(events)
    assert not events.is_closed
    await asyncio.wait_for(events.close(), 5)
    assert await asyncio.wait_for(looping, 5) == ["1"]
    assert events.is_closed
    await events.close()
    with pytest.raises(ShutdownError, match="closed"):
        async for _ in events:
            pass
    with pytest.raises(ShutdownError, match="closed"):
        await events.__aenter__()
    await QueueEvents(queue_name, redis_url=redis_server.url).close()


async def test_a_cancelled_wait_loses_nothing(redis_server: Server, queue_name: str) -> None:
    async with QueueEvents(queue_name, redis_url=redis_server.url) as events:
        for number in range(5):
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(events), 0.05)
            tell(redis_server, queue_name, number)
            (event,) = await take(events, 1)
            assert event.job_id == str(number)


@pytest.mark.any_server
def test_another_event_loop_goes_on_where_the_last_one_was(
    redis_server: Server, queue_name: str
) -> None:
    events = QueueEvents(queue_name, redis_url=redis_server.url, last_event_id="0")

    async def one() -> str:
        return (await take(events, 1))[0].job_id

    async def none() -> None:
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(anext(events), 0.05)

    tell(redis_server, queue_name, 1, 2)
    assert [asyncio.run(one()) for _ in range(2)] == ["1", "2"]
    asyncio.run(none())  # its loop ends with a read under way
    tell(redis_server, queue_name, 3, 4)
    assert [asyncio.run(one()) for _ in range(2)] == ["3", "4"]
    asyncio.run(events.close())


@pytest.mark.any_server
async def test_a_forgotten_one_disconnects(own_server: Server, queue_name: str) -> None:
    def connections() -> int:
        return len(own_server.command("CLIENT", "LIST").splitlines())

    before = connections()
    events = QueueEvents(queue_name, redis_url=own_server.url)
    tell(own_server, queue_name, 1)
    reading = asyncio.ensure_future(anext(events))
    await eventually(lambda: connections() > before, "its connection")
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    del events, reading
    gc.collect()
    await eventually(lambda: connections() == before, "the connection's end")


@pytest.mark.any_server
@pytest.mark.parametrize("bad", ["", "now", "1", "1-", "1-2-3", "-1-1", f"{2**64}-0", "1-1:", 5])
def test_a_bad_place_is_refused_at_once(bad: Any) -> None:
    with pytest.raises(ValueError, match=r'last_event_id is .*it must be "\$"'):
        QueueEvents("q", last_event_id=bad)


@pytest.mark.any_server
@pytest.mark.parametrize("bad", [{"count": 0}, {"count": -1}, {"block_ms": -1}, {"block_ms": 0.5}])
def test_bad_numbers_are_refused_at_once(bad: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=next(iter(bad))):
        QueueEvents("q", **bad)


async def test_what_waiting_does_not_mend_is_raised(
    start_server: StartServer, queue_name: str
) -> None:
    server = start_server(config={"requirepass": "secret"})
    with pytest.raises(AuthError):
        await anext(QueueEvents(queue_name, redis_url=server.admin_url))
    open_server = start_server()
    events = QueueEvents(queue_name, redis_url=open_server.url, last_event_id="0", block_ms=200)
    tell(open_server, queue_name, 1)
    assert [event.job_id for event in await take(events, 1)] == ["1"]
    waiting = asyncio.create_task(anext(events))
    open_server.command("DEL", key(queue_name, "events"))
    open_server.command("SET", key(queue_name, "events"), "text")
    with pytest.raises(WrongType):
        await asyncio.wait_for(waiting, 15)
    open_server.command("DEL", key(queue_name, "events"))
    tell(open_server, queue_name, 2)
    # Mended, it goes on; what the deleted stream held is missing.
    assert [event.name for event in await take(events, 2)] == ["gap", "completed"]
    await events.close()


FORKED = """
import asyncio, os, sys
from chasquimq import QueueEvents

url, queue = sys.argv[1:]
events = QueueEvents(queue, redis_url=url, last_event_id="0")

async def next_id():
    return (await anext(events)).job_id

async def in_child():
    for use in (anext(events), events.close()):
        try:
            await use
        except RuntimeError as error:
            assert "was used before fork(); create it in the child" in str(error), error
        else:
            raise AssertionError("the inherited object was not refused")
    async with QueueEvents(queue, redis_url=url, last_event_id="0") as fresh:
        print("child", (await anext(fresh)).job_id, flush=True)

print("parent", asyncio.run(next_id()), flush=True)
pid = os.fork()
if pid == 0:
    code = 1
    try:
        asyncio.run(in_child())
        code = 0
    finally:
        os._exit(code)
assert os.waitpid(pid, 0)[1] == 0
print("parent", asyncio.run(next_id()), flush=True)
"""


def test_a_forked_child_makes_its_own(redis_server: Server, queue_name: str) -> None:
    tell(redis_server, queue_name, 1, 2)
    done = subprocess.run(
        [sys.executable, "-c", FORKED, redis_server.url, queue_name],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "parent 1\nchild 1\nparent 2\n"
