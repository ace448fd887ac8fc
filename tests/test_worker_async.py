"""``Worker`` with coroutines: what counts as done, failed and nobody's fault, and who waits for whom."""

import asyncio
import contextvars
import functools
import logging
import signal
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chasquimq import (
    Handler,
    Job,
    NotSupportedError,
    Queue,
    UnrecoverableError,
    Worker,
    _coroutines,
)
from chasquimq.errors import ConfigError
from support.server import Server
from working import (
    Heartbeat,
    collect,
    eventually,
    eventually_async,
    stream_len,
    working,
)

FAST: dict[str, Any] = {"backoff": {"kind": "fixed", "delay_ms": 1, "jitter_ms": 0}}


async def _empty(server: Server, queue: str) -> bool:
    return stream_len(server, queue) == 0


async def test_a_failing_job_is_retried_until_its_attempts_run_out(
    redis_server: Server, queue_name: str
) -> None:
    attempts: list[int] = []

    async def handler(job: Job) -> None:
        attempts.append(job.attempt)
        raise ValueError("always")

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1, attempts=3, **FAST)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert attempts == [0, 1, 2]
    assert (dead["reason"], dead["attempt"]) == ("retries_exhausted", 3)
    assert dead["detail"] is not None
    assert dead["detail"].splitlines()[0] == "ValueError: always"
    assert 'raise ValueError("always")' in dead["detail"]


async def test_subclasses_of_unrecoverable_error_are_not_retried(
    redis_server: Server, queue_name: str
) -> None:
    class GoneForGood(UnrecoverableError):
        pass

    runs = 0

    async def handler(_job: Job) -> None:
        nonlocal runs
        runs += 1
        raise GoneForGood

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert (runs, dead["reason"]) == (1, "unrecoverable")


async def test_an_error_whose_text_fails_is_an_error_like_others(
    redis_server: Server, queue_name: str
) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    async def handler(_job: Job) -> None:
        raise Mute

    async with working(redis_server, queue_name, handler) as (queue, worker):
        await queue.add("n", 1, attempts=1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
        assert dead["detail"] is not None
        assert "Mute: <no text" in dead["detail"]
        assert worker.is_running


async def test_what_a_handler_returns_is_not_looked_at(
    redis_server: Server, queue_name: str
) -> None:
    async def handler(_job: Job) -> object:
        return object()

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1)
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        assert await queue.peek_dlq() == []


async def test_as_many_handlers_wait_at_once_as_allowed_and_no_more(
    redis_server: Server, queue_name: str
) -> None:
    running = most = ended = 0
    full = asyncio.Event()

    async def handler(_job: Job) -> None:
        nonlocal running, most, ended
        running += 1
        most = max(most, running)
        if running == 40:
            full.set()
        await full.wait()
        await asyncio.sleep(0)
        running -= 1
        ended += 1

    async with working(redis_server, queue_name, handler, concurrency=40) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i} for i in range(200))
        await eventually(lambda: ended == 200, "200 jobs")
    assert most == 40


async def test_a_flood_of_small_jobs_leaves_the_event_loop_alive(
    redis_server: Server, queue_name: str
) -> None:
    ended = 0

    async def handler(_job: Job) -> None:
        nonlocal ended
        ended += 1

    async with working(redis_server, queue_name, handler) as (queue, _):
        async with Heartbeat() as heart:
            for _ in range(10):
                await queue.add_bulk({"name": "n", "data": i} for i in range(1000))
            await eventually(lambda: ended == 10_000, "10,000 jobs")
    assert heart.longest < 0.25


async def test_jobs_do_not_see_each_others_context(redis_server: Server, queue_name: str) -> None:
    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    async def handler(job: Job) -> None:
        seen.append(variable.get())
        variable.set(job.id)

    variable.set("the worker's")
    async with working(redis_server, queue_name, handler, concurrency=2) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i} for i in range(100))
        await eventually(lambda: len(seen) == 100, "100 jobs")
    assert set(seen) == {"the worker's"}


async def test_a_cancelled_handler_has_failed_and_the_worker_goes_on(
    redis_server: Server, queue_name: str
) -> None:
    attempts: list[int] = []

    async def handler(job: Job) -> None:
        attempts.append(job.attempt)
        if job.attempt == 0:
            raise asyncio.CancelledError
        if job.attempt == 1:
            task = asyncio.current_task()
            assert task is not None
            task.cancel()
            await asyncio.sleep(10)

    async with working(redis_server, queue_name, handler, concurrency=1) as (queue, _):
        await queue.add("n", 1, **FAST)
        await eventually(lambda: attempts == [0, 1, 2], "three runs")
        await queue.add("n", 2, **FAST)
        await eventually(lambda: len(attempts) == 6, "three more")


async def test_timeouts_and_groups_work_inside_a_handler(
    redis_server: Server, queue_name: str
) -> None:
    outcomes: list[str] = []

    async def handler(_job: Job) -> None:
        try:
            await asyncio.wait_for(asyncio.sleep(10), 0.01)
        except asyncio.TimeoutError:
            outcomes.append("timeout")
        await asyncio.gather(*(asyncio.sleep(0.001) for _ in range(3)))

    async with working(redis_server, queue_name, handler, concurrency=1) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i} for i in range(5))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        assert await queue.peek_dlq() == []
    assert outcomes == ["timeout"] * 5


async def test_a_job_over_its_timeout_fails_and_frees_its_slot(
    redis_server: Server, queue_name: str
) -> None:
    cleaned: list[str] = []
    others = 0

    async def handler(job: Job) -> None:
        nonlocal others
        if job.name == "other":
            others += 1
            return
        try:
            await asyncio.sleep(60)
        finally:
            cleaned.append(job.id)

    options = {"concurrency": 1, "job_timeout": 0.2}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        hung = await queue.add("hung", 1, attempts=1)
        await queue.add("other", 2)
        await eventually_async(queue.peek_dlq, "the dead job")
        await eventually(lambda: others == 1, "the other job")
        (dead,) = await queue.peek_dlq()
    assert (dead["job_id"], dead["detail"]) == (hung.id, "timed out after 0.2 s")
    assert cleaned == [hung.id]


async def test_a_handler_that_ignores_its_timeout_is_given_up(
    redis_server: Server,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(_coroutines, "STUBBORN", 0.1)
    release = asyncio.Event()
    others = 0

    async def handler(job: Job) -> None:
        nonlocal others
        if job.name == "other":
            others += 1
            return
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        raise ValueError("late")

    options = {"concurrency": 1, "job_timeout": 0.1}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        await queue.add("stubborn", 1, attempts=1)
        await queue.add("other", 2)
        await eventually(lambda: others == 1, "the other job")
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
        assert dead["detail"] == "timed out after 0.1 s and ignored its cancellation"
        release.set()
        await asyncio.sleep(0.05)
        assert len(await queue.peek_dlq()) == 1
    assert "ignores its cancellation" in caplog.text


INTERRUPT = KeyboardInterrupt()


def _leave(_job: Job) -> None:
    sys.exit(3)


async def _leave_in_the_loop(job: Job) -> None:
    _leave(job)


def _interrupt(_job: Job) -> None:
    raise INTERRUPT


async def _interrupt_in_the_loop(job: Job) -> None:
    _interrupt(job)


@pytest.mark.parametrize("handler", [_leave, _leave_in_the_loop])
async def test_exit_in_a_handler_is_a_failed_run(
    redis_server: Server, queue_name: str, handler: Handler
) -> None:
    async with working(redis_server, queue_name, handler) as (queue, worker):
        await queue.add("n", 1, attempts=1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
        assert worker.is_running
    assert dead["detail"] is not None
    assert dead["detail"].startswith("SystemExit: 3\n")


@pytest.mark.parametrize("handler", [_interrupt, _interrupt_in_the_loop])
async def test_an_interrupt_in_a_handler_stops_the_worker_and_hands_the_job_back(
    redis_server: Server, queue_name: str, handler: Handler
) -> None:
    async def caught(worker: Worker) -> BaseException | None:
        # asyncio would carry it out of the event loop, and pytest with it.
        try:
            await worker.run()
        except BaseException as stopped:
            return stopped
        return None

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        added = await queue.add("n", 1)
        worker = Worker(queue_name, handler, redis_url=redis_server.url)
        assert await caught(worker) is INTERRUPT
        assert worker.is_closed
    (job,) = await collect(redis_server, queue_name, 1)
    assert (job.id, job.attempt, job.lost) == (added.id, 0, 0)


async def test_data_that_cannot_be_decoded_kills_the_job_at_its_first_look(
    redis_server: Server, queue_name: str
) -> None:
    async def handler(job: Job) -> None:
        assert job.data

    async with working(redis_server, queue_name, handler) as (queue, _):
        no_text = b"\xa1\xff"
        await queue._adding.add_all([("n", no_text, None, None)], 1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert (dead["reason"], dead["data"], dead["payload"]) == ("unrecoverable", None, no_text)
    assert dead["detail"] is not None
    assert dead["detail"].startswith("DecodeError: the data of 2 bytes is no msgpack")


async def _coroutine(_job: Job) -> None: ...


def _function(_job: Job) -> None: ...


class _AsyncCallable:
    async def __call__(self, _job: Job) -> None: ...

    async def method(self, _job: Job, _more: int = 0) -> None: ...


class _Callable:
    def __call__(self, _job: Job) -> None: ...


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("handler", "in_threads"),
    [
        (_coroutine, False),
        (_AsyncCallable(), False),
        (_AsyncCallable().method, False),
        (functools.partial(_AsyncCallable().method, _more=1), False),
        (functools.partial(functools.partial(_AsyncCallable())), False),
        (_function, True),
        (_Callable(), True),
        (functools.partial(_Callable()), True),
        (lambda _job: None, True),
        (print, True),
    ],
)
def test_functions_methods_partials_and_callable_objects_are_handlers(
    handler: Callable[..., Any], in_threads: bool
) -> None:
    assert Worker("q", handler)._in_threads is in_threads


def _generator(_job: Job) -> Iterator[int]:
    yield 1


async def _async_generator(_job: Job) -> Any:
    yield 1


def _no_argument() -> None: ...


def _two_arguments(_job: Job, _other: int) -> None: ...


@pytest.mark.any_server
@pytest.mark.parametrize(
    "handler",
    [None, 5, "name", _Callable, _generator, _async_generator, _no_argument, _two_arguments],
)
def test_anything_else_is_refused_when_the_worker_is_made(handler: Any) -> None:
    with pytest.raises(TypeError, match="cannot be a handler"):
        Worker("q", handler)


@pytest.mark.any_server
def test_options_that_cannot_work_are_refused_when_the_worker_is_made() -> None:
    mistakes: list[dict[str, Any]] = [
        {"concurrency": -1},
        {"max_attempts": 2.5},
        {"job_timeout": 0},
        {"job_timeout": "5"},
        {"job_timeout": float("inf")},
        {"read_count": 0},
        {"read_block_ms": 0},
    ]
    for options in mistakes:
        with pytest.raises(ConfigError, match=next(iter(options))):
            Worker("q", _coroutine, **options)
    no_text: Any = 5
    with pytest.raises(TypeError, match="queue_name is 5; it must be a string"):
        Worker(no_text, _coroutine)
    with pytest.raises(TypeError, match="redis_url is 5; it must be a string"):
        Worker("q", _coroutine, redis_url=no_text)
    for name in ("run_scheduler", "store_results", "result_ttl_ms", "scheduler_tick_ms"):
        feature: dict[str, Any] = {name: True}
        with pytest.raises(NotSupportedError, match=name):
            Worker("q", _coroutine, **feature)


async def test_what_the_engine_refuses_comes_out_of_run(
    redis_server: Server, queue_name: str
) -> None:
    worker = Worker(queue_name, _coroutine, redis_url=redis_server.url, concurrency=0)
    with pytest.raises(ConfigError, match="concurrency is 0"):
        await worker.run()


async def test_signals_stay_the_programs(redis_server: Server, queue_name: str) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Worker(queue_name, _coroutine, redis_url=redis_server.url):
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == before


@pytest.mark.any_server
def test_a_job_can_be_made_for_a_test_of_a_handler() -> None:
    job = Job("1", "greet", {"name": "Ada"}, attempt=2, created_at_ms=5)
    assert (job.id, job.name, job.data, job.attempt) == ("1", "greet", {"name": "Ada"}, 2)
    assert repr(job) == 'Job(id="1", name="greet", attempt=2)'


async def test_a_worker_that_cannot_start_may_be_started_later(
    own_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    own_server.kill9()
    worker = Worker(queue_name, _coroutine, redis_url=own_server.url)
    with pytest.raises(ConnectionError):
        await worker.run()
    assert not worker.is_running
    own_server.restart()
    async with worker:
        assert worker.is_running
    assert worker.is_closed
