"""``Worker`` with plain functions: in threads, never in the way of the event loop."""

import asyncio
import contextvars
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest

from chasquimq import Job, Queue
from support.server import Server
from working import Heartbeat, eventually, eventually_async, stream_len, working


async def test_a_plain_function_runs_in_a_thread_and_the_event_loop_goes_on(
    redis_server: Server, queue_name: str
) -> None:
    threads: list[str] = []
    let_go = threading.Event()

    def handler(_job: Job) -> None:
        assert let_go.wait(30)
        threads.append(threading.current_thread().name)

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i} for i in range(3))
        async with Heartbeat() as heart:
            await eventually(lambda: heart.beats > 50, "beats")
        assert not threads
        let_go.set()
        await eventually(lambda: len(threads) == 3, "three jobs")
        await eventually_async(lambda: _empty(redis_server, queue_name), "the end")
        assert await queue.peek_dlq() == []
    assert all(name.startswith("chasquimq-worker-") for name in threads)


async def _empty(server: Server, queue: str) -> bool:
    return stream_len(server, queue) == 0


class _Large:
    """What a handler may return, and nobody shall keep."""


@pytest.mark.parametrize("is_async", [False, True])
async def test_what_a_handler_returned_is_not_kept_while_there_is_no_work(
    redis_server: Server, queue_name: str, is_async: bool
) -> None:
    returned: list[weakref.ref[_Large]] = []

    def in_thread(_job: Job) -> _Large:
        large = _Large()
        returned.append(weakref.ref(large))
        return large

    async def in_loop(job: Job) -> _Large:
        return in_thread(job)

    handler = in_loop if is_async else in_thread
    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1)
        await eventually(lambda: len(returned) == 1, "the job")
        await eventually(lambda: returned[0]() is None, "what it returned being dropped")


async def test_threads_that_have_nothing_to_do_are_not_looked_at_all_the_time(
    redis_server: Server, queue_name: str
) -> None:
    done: list[int] = []
    options = {"job_timeout": 0.1}
    async with working(redis_server, queue_name, lambda job: done.append(job.data), **options) as (
        queue,
        _,
    ):
        await queue.add("n", 1)
        await eventually(lambda: done == [1], "the job")
        await asyncio.sleep(0.2)  # its deadline is over
        before = time.process_time()
        await asyncio.sleep(0.5)
        assert time.process_time() - before < 0.25


async def test_work_in_a_thread_lets_other_jobs_progress(
    redis_server: Server, queue_name: str
) -> None:
    stop = threading.Event()
    small = 0

    def handler(job: Job) -> None:
        nonlocal small
        if job.name == "heavy":
            while not stop.is_set():
                sum(range(1000))
        else:
            small += 1

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("heavy", 1)
        await queue.add_bulk({"name": "small", "data": i} for i in range(50))
        try:
            await eventually(lambda: small == 50, "50 small jobs")
        finally:
            stop.set()


async def test_no_more_threads_than_work_and_concurrency_ask_for(
    redis_server: Server, queue_name: str
) -> None:
    names: set[str] = set()
    running = most = ended = 0
    lock = threading.Lock()

    def handler(_job: Job) -> None:
        nonlocal running, most, ended
        with lock:
            running += 1
            most = max(most, running)
            names.add(threading.current_thread().name)
        time.sleep(0.02)
        with lock:
            running -= 1
            ended += 1

    async with working(redis_server, queue_name, handler, concurrency=4) as (queue, _):
        await queue.add("n", 0)
        await eventually(lambda: ended == 1, "one job")
        assert len(names) == 1
        await queue.add_bulk({"name": "n", "data": i} for i in range(100))
        await eventually(lambda: ended == 101, "100 jobs")
    assert most == 4
    assert len(names) == 4
    await eventually(lambda: not _our_threads(), "the end of the threads")


def _our_threads() -> list[threading.Thread]:
    return [
        thread for thread in threading.enumerate() if thread.name.startswith("chasquimq-worker-")
    ]


async def test_jobs_that_wait_have_their_threads_at_once(
    redis_server: Server, queue_name: str
) -> None:
    everybody = threading.Barrier(60)
    ended = 0
    lock = threading.Lock()

    def handler(job: Job) -> None:
        nonlocal ended
        if job.name == "waits":
            everybody.wait(10)
        with lock:
            ended += 1

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk({"name": "swift", "data": i} for i in range(2000))
        await queue.add_bulk({"name": "waits", "data": i} for i in range(60))
    async with working(redis_server, queue_name, handler, concurrency=60) as (queue, _):
        await eventually(lambda: ended == 2060, "all jobs")
        assert await queue.peek_dlq() == []


@pytest.mark.parametrize("kind", ["def", "async def"])
async def test_a_long_job_does_not_keep_the_end_of_the_last_one(
    own_server: Server, queue_name: str, kind: str
) -> None:
    code = LONG_JOB.replace("async def handler", f"{kind} handler")
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add_bulk({"name": name, "data": 1} for name in ("short", "long"))
        process = subprocess.Popen([sys.executable, "-c", code, own_server.url, queue_name])
        try:
            await eventually(lambda: stream_len(own_server, queue_name) == 1, "the end of one")
            assert process.poll() is None
        finally:
            process.kill()
            process.wait()


async def test_failures_are_told_with_their_traceback(
    redis_server: Server, queue_name: str
) -> None:
    def handler(_job: Job) -> None:
        raise LookupError("nothing there")

    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", 1, attempts=1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert dead["detail"] is not None
    assert dead["detail"].startswith("LookupError: nothing there\n")
    assert 'raise LookupError("nothing there")' in dead["detail"]


async def test_jobs_do_not_see_each_others_context(redis_server: Server, queue_name: str) -> None:
    variable = contextvars.ContextVar("variable", default="clean")
    seen: list[str] = []

    def handler(job: Job) -> None:
        seen.append(variable.get())
        variable.set(job.id)

    variable.set("the worker's")
    async with working(redis_server, queue_name, handler, concurrency=1) as (queue, _):
        await queue.add_bulk({"name": "n", "data": i} for i in range(20))
        await eventually(lambda: len(seen) == 20, "20 jobs")
    assert set(seen) == {"the worker's"}


async def test_a_function_that_returns_a_coroutine_is_told_apart(
    redis_server: Server, queue_name: str
) -> None:
    async def work() -> None: ...

    async with working(redis_server, queue_name, lambda _job: work()) as (queue, _):
        await queue.add("n", 1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert dead["reason"] == "unrecoverable"
    assert dead["detail"] is not None
    assert "declare it with async def" in dead["detail"]


async def test_a_thread_over_its_timeout_is_given_up_and_replaced(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    release = threading.Event()
    others = 0

    def handler(job: Job) -> None:
        nonlocal others
        if job.name == "other":
            others += 1
        else:
            release.wait(600)
            raise ValueError("late")

    options = {"concurrency": 1, "job_timeout": 0.3}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        hung = await queue.add("hung", 1, attempts=1)
        await queue.add("other", 2)
        await eventually(lambda: others == 1, "the other job, before the first one is let go")
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
        assert (dead["job_id"], dead["detail"]) == (hung.id, "timed out after 0.3 s")
        release.set()
        await eventually(lambda: "its end does not count" in caplog.text, "the late end")
        assert len(await queue.peek_dlq()) == 1


LONG_JOB = """
import asyncio, sys, time
from chasquimq import Worker

async def handler(job):
    if job.name == "long":
        time.sleep(60)

async def main():
    await Worker(sys.argv[2], handler, redis_url=sys.argv[1], concurrency=1).run()

asyncio.run(main())
"""


HOLD_THE_GIL = """
import asyncio, os, sys, time
from chasquimq import Worker

url, queue, log = sys.argv[1:]
sys.setswitchinterval(1000)  # seconds before a thread must let another have the interpreter

def handler(job):
    os.write(runs, b"start\\n")
    until = time.monotonic() + 7.5
    while time.monotonic() < until:
        pass
    os.write(runs, b"end\\n")

runs = os.open(log, os.O_WRONLY | os.O_APPEND)

async def beat():
    last = time.monotonic()
    while True:
        await asyncio.sleep(0.01)
        last, pause = time.monotonic(), time.monotonic() - last
        if pause > 6.5:
            os.write(runs, b"the interpreter was held\\n")

async def main():
    beating = asyncio.create_task(beat())
    async with Worker(queue, handler, redis_url=url, claim_min_idle_ms=2500):
        print("up", flush=True)
        await asyncio.sleep(60)

asyncio.run(main())
"""


async def test_a_handler_that_holds_the_interpreter_for_three_leases_runs_once(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    log = tmp_path / "runs"
    log.touch()
    command = [sys.executable, "-c", HOLD_THE_GIL, redis_server.url, queue_name, str(log)]
    workers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert await asyncio.to_thread(worker.stdout.readline) == "up\n"
        async with Queue(queue_name, redis_url=redis_server.url) as queue:
            await queue.add("n", 1)
            await eventually(lambda: len(log.read_text().splitlines()) > 2, "the end")
            await eventually_async(lambda: _empty(redis_server, queue_name), "the settlement")
            assert await queue.peek_dlq() == []
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert sorted(log.read_text().splitlines()) == ["end", "start", "the interpreter was held"]
