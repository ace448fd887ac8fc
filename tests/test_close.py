"""``close``: it ends by its deadline, nothing runs afterwards, and what did not end is ready again."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from chasquimq import Job, Queue, QueueEvents, Worker
from chasquimq.errors import ChasquiError, ConnectionFailed, ShutdownError
from support.server import Server
from working import PATIENCE, collect, eventually, eventually_async, pending, stream_len, working


async def _hang(_job: Job) -> None:
    await asyncio.sleep(600)


async def _stubborn(_job: Job) -> None:
    for _ in range(20):
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            continue


def _hang_in_a_thread(_job: Job) -> None:
    time.sleep(20)


@pytest.mark.parametrize("handler", [_hang, _stubborn, _hang_in_a_thread])
async def test_hung_handlers_and_a_backlog_do_not_delay_the_end(
    redis_server: Server, queue_name: str, handler: Callable[[Job], Any]
) -> None:
    started = asyncio.Event()
    loop = asyncio.get_running_loop()

    async def coroutine(job: Job) -> None:
        started.set()
        await handler(job)

    def function(job: Job) -> None:
        loop.call_soon_threadsafe(started.set)
        handler(job)

    in_thread = not asyncio.iscoroutinefunction(handler)
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk({"name": "n", "data": i} for i in range(1001))
        worker = Worker(
            queue_name,
            function if in_thread else coroutine,
            redis_url=redis_server.url,
            concurrency=1,
        )
        running = asyncio.create_task(worker.run())
        await asyncio.wait_for(started.wait(), 10)
        begun = time.monotonic()
        await worker.close(timeout=1 if handler is _stubborn else 2)
        assert time.monotonic() - begun < 3
        await running
    assert worker.is_closed
    assert pending(redis_server, queue_name) == 0
    jobs = await collect(redis_server, queue_name, 1001)
    assert sorted(job.data for job in jobs) == list(range(1001))
    assert {(job.attempt, job.lost) for job in jobs} == {(0, 0)}


async def test_running_jobs_may_finish_and_nothing_runs_afterwards(
    redis_server: Server, queue_name: str
) -> None:
    events: list[str] = []

    async def handler(_job: Job) -> None:
        events.append("start")
        await asyncio.sleep(0.3)
        events.append("end")

    before = asyncio.all_tasks()
    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1)
        await eventually(lambda: events, "the start")
    assert events == ["start", "end"]
    assert stream_len(redis_server, queue_name) == 0
    assert asyncio.all_tasks() == before


async def test_threads_may_finish_and_are_gone_afterwards(
    redis_server: Server, queue_name: str
) -> None:
    events: list[str] = []

    def handler(_job: Job) -> None:
        events.append("start")
        time.sleep(0.3)
        events.append("end")

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1)
        await eventually(lambda: events, "the start")
    assert events == ["start", "end"]
    assert stream_len(redis_server, queue_name) == 0
    await eventually(
        lambda: not any(t.name.startswith("chasquimq-worker-") for t in threading.enumerate()),
        "the end",
    )


async def test_all_who_close_wait_for_the_same_end_and_the_shortest_time_counts(
    redis_server: Server, queue_name: str
) -> None:
    running = asyncio.Event()

    async def handler(_job: Job) -> None:
        running.set()
        await asyncio.sleep(600)

    async with working(redis_server, queue_name, handler) as (queue, worker):
        await queue.add("n", 1)
        await asyncio.wait_for(running.wait(), 10)
        begun = time.monotonic()
        patient = [asyncio.create_task(worker.close()) for _ in range(3)]
        await asyncio.sleep(0.1)
        assert not any(task.done() for task in patient)
        assert not worker.is_running
        assert not worker.is_closed
        await worker.close(timeout=0)
        await asyncio.gather(*patient)
        await worker.close()
        assert time.monotonic() - begun < 1.5
    assert stream_len(redis_server, queue_name) == 1


async def test_a_handler_may_close_its_own_worker(redis_server: Server, queue_name: str) -> None:
    async def handler(_job: Job) -> None:
        await worker.close()

    worker = Worker(queue_name, handler, redis_url=redis_server.url)
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", 1)
        await asyncio.wait_for(worker.run(), 5)
    assert stream_len(redis_server, queue_name) == 0


async def test_cancelling_run_hands_the_jobs_back(redis_server: Server, queue_name: str) -> None:
    running = asyncio.Event()

    async def handler(_job: Job) -> None:
        running.set()
        await asyncio.sleep(600)

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", 1)
        worker = Worker(queue_name, handler, redis_url=redis_server.url)
        task = asyncio.create_task(worker.run())
        await asyncio.wait_for(running.wait(), 10)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert worker.is_closed
    (job,) = await collect(redis_server, queue_name, 1)
    assert (job.attempt, job.lost) == (0, 0)


def test_the_end_of_the_event_loop_hands_the_jobs_back(
    redis_server: Server, queue_name: str
) -> None:
    async def forgetful() -> None:
        running = asyncio.Event()

        async def handler(_job: Job) -> None:
            running.set()
            await asyncio.sleep(600)

        queue = Queue(queue_name, redis_url=redis_server.url)
        await queue.add("n", 1)
        worker = Worker(queue_name, handler, redis_url=redis_server.url)
        background.append(asyncio.create_task(worker.run()))
        await asyncio.wait_for(running.wait(), 10)

    background: list[asyncio.Task[None]] = []
    begun = time.monotonic()
    asyncio.run(forgetful())
    assert time.monotonic() - begun < 3
    assert pending(redis_server, queue_name) == 0
    (job,) = asyncio.run(collect(redis_server, queue_name, 1))
    assert (job.attempt, job.lost) == (0, 0)


async def test_a_closed_worker_stays_closed(redis_server: Server, queue_name: str) -> None:
    never_run = Worker(queue_name, _hang, redis_url=redis_server.url)
    await never_run.close()
    assert never_run.is_closed
    with pytest.raises(ShutdownError, match="make a new one"):
        await never_run.run()
    async with Worker(queue_name, _hang, redis_url=redis_server.url) as worker:
        assert worker.is_running
        assert worker.name == queue_name
    with pytest.raises(ShutdownError):
        await worker.run()


async def test_run_inside_async_with_waits_for_the_end(
    redis_server: Server, queue_name: str
) -> None:
    async with Worker(queue_name, _hang, redis_url=redis_server.url) as worker:
        runs = [asyncio.create_task(worker.run()) for _ in range(3)]
        await asyncio.sleep(0.05)
        assert not any(run.done() for run in runs)
        await worker.close(timeout=0)
        await asyncio.wait_for(asyncio.gather(*runs), 5)


async def test_closing_while_it_connects(own_server: Server, queue_name: str) -> None:
    own_server.stop_signal()
    worker = Worker(queue_name, _hang, redis_url=own_server.url)
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0.1)
    begun = time.monotonic()
    await worker.close(timeout=0)
    assert time.monotonic() - begun < 1
    await running
    own_server.cont()


async def test_a_dead_server_does_not_delay_the_end(
    own_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    done = 0

    async def handler(_job: Job) -> None:
        nonlocal done
        done += 1
        await asyncio.sleep(0.2)

    queue = Queue(queue_name, redis_url=own_server.url)
    worker = Worker(queue_name, handler, redis_url=own_server.url)
    running = asyncio.create_task(worker.run())
    await queue.add("n", 1)
    await eventually(lambda: done == 1, "the start")
    own_server.kill9()
    begun = time.monotonic()
    await worker.close(timeout=1)
    assert time.monotonic() - begun < 2
    await running
    assert "did not take the last endings" in caplog.text


async def test_jobs_added_meanwhile_are_left_alone(redis_server: Server, queue_name: str) -> None:
    seen: list[int] = []

    async def handler(job: Job) -> None:
        seen.append(job.data)
        await asyncio.sleep(0.2)

    async with working(redis_server, queue_name, handler, concurrency=1) as (queue, worker):
        await queue.add("n", 1)
        await eventually(lambda: seen, "the start")
        closing = asyncio.create_task(worker.close())
        await asyncio.sleep(0.05)
        await queue.add("n", 2)
        await closing
        assert seen == [1]
        await eventually_async(_is(stream_len, redis_server, queue_name, 1), "the second job")


def _is(count: Callable[[Server, str], int], server: Server, queue: str, wanted: int) -> Any:
    async def check() -> bool:
        return count(server, queue) == wanted

    return check


async def test_closing_does_not_wait_for_a_read(own_server: Server, queue_name: str) -> None:
    def connections() -> int:
        info = own_server.command("INFO", "clients").decode()
        return int(info.split("connected_clients:")[1].split()[0])

    before = connections()
    async with QueueEvents(queue_name, redis_url=own_server.url) as events:
        reading = asyncio.create_task(anext(events, None))
        await eventually(lambda: _blocked(own_server), "a read that waits")
        began = time.monotonic()
        await events.close()
        assert time.monotonic() - began < 0.5
        assert await reading is None
    await eventually(lambda: connections() == before, "the end of the connection")


def _blocked(server: Server) -> bool:
    return b"blocked_clients:1" in server.command("INFO", "clients")


async def test_another_event_loop_is_refused_and_the_worker_goes_on(
    redis_server: Server, queue_name: str
) -> None:
    ran: list[Job] = []

    async def handler(job: Job) -> None:
        ran.append(job)

    async with working(redis_server, queue_name, handler) as (queue, worker):
        for call in (worker.close, worker.run):
            with pytest.raises(ChasquiError, match="runs in another event loop"):
                await asyncio.to_thread(lambda call=call: asyncio.run(call()))  # type: ignore[misc]
        assert worker.is_running
        await queue.add("n", 1)
        await eventually(lambda: ran, "the job")


@pytest.mark.any_server
async def test_workers_that_cannot_start_may_be_closed_meanwhile() -> None:
    workers = [Worker(f"q-{n}", _hang, redis_url="redis://127.0.0.1:1") for n in range(20)]

    async def run(worker: Worker) -> None:
        with contextlib.suppress(ConnectionFailed):
            await worker.run()
        await asyncio.gather(*(other.close(0) for other in workers))

    await asyncio.wait_for(asyncio.gather(*map(run, workers)), PATIENCE)
