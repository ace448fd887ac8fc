"""``Worker(batch=…)``: how many jobs a call gets, how long it waits for them, and how each of them ends."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from chasquimq import Job, Queue, UnrecoverableError, Worker
from chasquimq.errors import ConfigError
from support.server import Server
from working import eventually, eventually_async, stream_len, working

FAST: dict[str, Any] = {"backoff": {"kind": "fixed", "delay_ms": 1, "jitter_ms": 0}}

Act = Callable[[list[Job]], Any]


def as_async(act: Act) -> Callable[[list[Job]], Awaitable[Any]]:
    async def handler(jobs: list[Job]) -> Any:
        return act(jobs)

    return handler


def as_plain(act: Act) -> Act:
    def handler(jobs: list[Job]) -> Any:
        return act(jobs)

    return handler


both = pytest.mark.parametrize("kind", [as_async, as_plain])


async def _empty(server: Server, queue: str) -> bool:
    return stream_len(server, queue) == 0


def numbered(count: int, **options: Any) -> list[dict[str, Any]]:
    return [{"name": "n", "data": i, **options} for i in range(count)]


@both
async def test_a_call_gets_what_waits_and_no_more_than_a_batch(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    sizes: list[int] = []
    seen: list[int] = []

    def act(jobs: list[Job]) -> None:
        assert type(jobs) is list
        sizes.append(len(jobs))
        seen.extend(job.data for job in jobs)

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk(numbered(250))
    options: dict[str, Any] = {"batch": 100, "concurrency": 1, "batch_wait": 0.2}
    async with working(redis_server, queue_name, kind(act), **options) as (queue, _):
        await eventually(lambda: len(seen) == 250, "250 jobs")
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
    assert sorted(seen) == list(range(250))
    assert max(sizes) == 100
    assert len(sizes) <= 5


@both
async def test_a_batch_waits_for_more_but_not_forever(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    calls: list[list[int]] = []
    handler = kind(lambda jobs: calls.append([job.data for job in jobs]))
    async with working(redis_server, queue_name, handler, batch=3, batch_wait=3) as (queue, _):
        begun = time.monotonic()
        for i in range(3):
            await queue.add("n", i)
            await asyncio.sleep(0.05)
        await eventually(lambda: calls, "a full batch")
        assert time.monotonic() - begun < 2.8, "a full batch does not wait"
        begun = time.monotonic()
        await queue.add("n", 3)
        await eventually(lambda: len(calls) == 2, "the rest")
        assert 2.9 < time.monotonic() - begun < 4.5
    assert calls == [[0, 1, 2], [3]]


@both
async def test_without_a_wait_a_call_takes_what_is_there(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    seen: list[int] = []
    handler = kind(lambda jobs: seen.extend(job.data for job in jobs))
    async with working(redis_server, queue_name, handler, batch=100, batch_wait=0) as (queue, _):
        await queue.add("n", 0)
        await eventually(lambda: seen == [0], "one job")
        await queue.add_bulk(numbered(500))
        await eventually(lambda: len(seen) == 501, "all jobs")


@both
async def test_an_error_fails_all_jobs_of_the_call_each_by_its_own_rule(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    runs: dict[int, int] = {}

    def act(jobs: list[Job]) -> None:
        for job in jobs:
            runs[job.data] = runs.get(job.data, 0) + 1
        raise ValueError("the whole batch")

    async with working(redis_server, queue_name, kind(act), batch=10) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i, "attempts": i, **FAST} for i in (1, 2, 3))

        async def all_dead() -> bool:
            return len(await queue.peek_dlq()) == 3

        await eventually_async(all_dead, "three dead jobs")
        dead = {job["data"]: job for job in await queue.peek_dlq()}
    assert runs == {1: 1, 2: 2, 3: 3}
    for attempts, job in dead.items():
        assert (job["reason"], job["attempt"]) == ("retries_exhausted", attempts)
        assert str(job["detail"]).startswith("ValueError: the whole batch\n")


@both
async def test_an_exception_in_the_place_of_a_job_fails_that_job_alone(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    runs: list[int] = []

    def outcome(job: Job) -> object:
        runs.append(job.data)
        if job.data == 3:
            return UnrecoverableError("never")
        if job.data == 5 and job.attempt == 0:
            return LookupError("not yet")
        return job.data

    def act(jobs: list[Job]) -> list[object]:
        return [outcome(job) for job in jobs]

    async with working(redis_server, queue_name, kind(act), batch=10) as (queue, _):
        await queue.add_bulk(numbered(10, **FAST))
        await eventually(lambda: len(runs) == 11, "the retry")
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        (dead,) = await queue.peek_dlq()
    assert sorted(runs) == sorted([*range(10), 5])
    assert (dead["data"], dead["reason"]) == (3, "unrecoverable")
    assert dead["detail"] == "UnrecoverableError: never"


async def test_what_gather_returns_are_outcomes(redis_server: Server, queue_name: str) -> None:
    async def one(job: Job) -> None:
        await asyncio.sleep(0.001)
        if job.data % 2:
            raise KeyError(job.data)

    async def handler(jobs: list[Job]) -> list[BaseException | None]:
        return await asyncio.gather(*map(one, jobs), return_exceptions=True)

    async with working(redis_server, queue_name, handler, batch=10) as (queue, _):
        await queue.add_bulk(numbered(10, attempts=1))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        dead = await queue.peek_dlq()
    assert sorted(job["data"] for job in dead) == [1, 3, 5, 7, 9]
    assert all("raise KeyError(job.data)" in str(job["detail"]) for job in dead)


@both
async def test_outcomes_of_other_jobs_than_there_were_fail_all(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    handler = kind(lambda jobs: [None, ValueError("which?")])
    async with working(redis_server, queue_name, handler, batch=3, batch_wait=5) as (queue, _):
        await queue.add_bulk(numbered(3, attempts=1))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        dead = await queue.peek_dlq()
    assert len(dead) == 3
    assert all("returned 2 outcomes" in str(job["detail"]) for job in dead)


@both
@pytest.mark.parametrize("returned", [[], [1, 2], "text", {"a": ValueError()}])
async def test_anything_else_that_is_returned_means_done(
    redis_server: Server, queue_name: str, kind: Any, returned: object
) -> None:
    async with working(redis_server, queue_name, kind(lambda _: returned), batch=9) as (queue, _):
        await queue.add_bulk(numbered(4))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        assert await queue.peek_dlq() == []


async def test_the_timeout_bounds_a_call(redis_server: Server, queue_name: str) -> None:
    cancelled = 0

    async def handler(jobs: list[Job]) -> None:
        nonlocal cancelled
        try:
            await asyncio.sleep(30)
        except asyncio.CancelledError:
            cancelled += 1
            raise

    options: dict[str, Any] = {"batch": 4, "job_timeout": 0.3, "batch_wait": 5}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        await queue.add_bulk(numbered(4, attempts=1))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        dead = await queue.peek_dlq()
    assert cancelled == 1
    assert [job["detail"] for job in dead] == ["timed out after 0.3 s"] * 4


async def test_the_timeout_bounds_a_call_in_a_thread(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()

    def handler(jobs: list[Job]) -> None:
        release.wait(20)

    options: dict[str, Any] = {"batch": 4, "job_timeout": 0.3, "batch_wait": 5, "concurrency": 1}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        await queue.add_bulk(numbered(4, attempts=1))
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        release.set()
        await eventually(lambda: "its end does not count" in caplog.text, "the late end")
        dead = await queue.peek_dlq()
    assert [job["detail"] for job in dead] == ["timed out after 0.3 s"] * 4


@both
async def test_concurrency_counts_calls(redis_server: Server, queue_name: str, kind: Any) -> None:
    running = most = ended = 0
    lock = threading.Lock()

    def enter(by: int) -> None:
        nonlocal running, most
        with lock:
            running += by
            most = max(most, running)

    async def handler(jobs: list[Job]) -> None:
        nonlocal ended
        enter(1)
        await asyncio.sleep(0.05)
        enter(-1)
        ended += len(jobs)

    def plain(jobs: list[Job]) -> None:
        nonlocal ended
        enter(1)
        time.sleep(0.05)
        enter(-1)
        with lock:
            ended += len(jobs)

    chosen: Any = handler if kind is as_async else plain
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk(numbered(200))
    async with working(redis_server, queue_name, chosen, batch=10, concurrency=3) as _:
        await eventually(lambda: ended == 200, "200 jobs")
    assert most == 3


async def test_closing_hands_back_a_batch_that_gathers_and_one_that_runs_on(
    redis_server: Server, queue_name: str
) -> None:
    begun = asyncio.Event()

    async def handler(jobs: list[Job]) -> None:
        begun.set()
        await asyncio.sleep(60)

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        options: dict[str, Any] = {"batch": 2, "batch_wait": 60}
        worker = Worker(queue_name, handler, redis_url=redis_server.url, **options)
        async with worker:
            await queue.add_bulk(numbered(3))
            await asyncio.wait_for(begun.wait(), 10)
            closing = time.monotonic()
            await worker.close(timeout=0.2)
            assert time.monotonic() - closing < 2
        attempts: list[tuple[int, int, int]] = []
        again = as_async(lambda jobs: attempts.extend((j.data, j.attempt, j.lost) for j in jobs))
        async with Worker(queue_name, again, redis_url=redis_server.url, batch=5):
            await eventually(lambda: len(attempts) == 3, "all jobs again")
    assert sorted(attempts) == [(0, 0, 0), (1, 0, 0), (2, 0, 0)]


@pytest.mark.any_server
def test_options_of_batches_are_checked_when_the_worker_is_made() -> None:
    handler = as_async(lambda _: None)
    mistakes: list[dict[str, Any]] = [
        {"batch": 0},
        {"batch": -1},
        {"batch": 1.5},
        {"batch": 2, "batch_wait": -1},
        {"batch": 2, "batch_wait": float("nan")},
    ]
    for options in mistakes:
        with pytest.raises(ConfigError, match="batch"):
            Worker("q", handler, **options)


@both
async def test_packed_jobs_run_once_and_the_retry_of_one_touches_no_other(
    redis_server: Server, queue_name: str, kind: Any
) -> None:
    runs: dict[int, list[int]] = {}

    def act(jobs: list[Job]) -> list[object]:
        for job in jobs:
            runs.setdefault(job.data, []).append(job.attempt)
        return [
            ValueError("once") if job.data % 10 == 7 and job.attempt == 0 else None for job in jobs
        ]

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk(numbered(100, **FAST), pack=8)
    assert stream_len(redis_server, queue_name) == 13
    async with working(redis_server, queue_name, kind(act), batch=6) as (queue, _):
        await eventually(lambda: sum(map(len, runs.values())) == 110, "100 jobs and 10 retries")
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        assert await queue.peek_dlq() == []
    assert runs == {i: [0, 1] if i % 10 == 7 else [0] for i in range(100)}
