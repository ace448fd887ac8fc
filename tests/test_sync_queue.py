"""``SyncQueue``: what ``Queue`` does, for code that blocks, from many threads."""

import asyncio
import itertools
import logging
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from chasquimq import Job, Queue, SyncQueue, UnrecoverableError, errors
from conftest import StartServer
from support.kinds import chosen_server
from support.server import Server
from working import collect, eventually, key, stream_len, working


def in_thread(work: Callable[[], Any]) -> Any:
    """Run it in a thread without an event loop; the tests here that run a worker have one."""
    return asyncio.to_thread(work)


async def test_added_jobs_run(redis_server: Server, queue_name: str) -> None:
    def add() -> list[Job]:
        with SyncQueue(queue_name, redis_url=redis_server.url) as queue:
            assert (queue.name, queue.is_closed) == (queue_name, False)
            assert repr(queue) == f"SyncQueue({queue_name!r})"
            added = [
                queue.add("one", {"to": "ada"}),
                queue.add("late", 1, delay=timedelta(milliseconds=50), attempts=2, backoff=5),
                queue.add_unique("unique", 2, job_id="mine"),
                *queue.add_bulk([{"name": "n", "data": i, "job_id": f"id-{i}"} for i in range(10)]),
                *queue.add_bulk(({"name": "packed", "data": i} for i in range(10)), pack=5),
            ]
            queue.add_unique("unique", 3, job_id="mine")
            assert queue.add_bulk([]) == []
        assert queue.is_closed
        return added

    before = time.time() * 1000
    added = await in_thread(add)
    seen = await collect(redis_server, queue_name, len(added))
    expected = sorted((job.id, job.name, repr(job.data)) for job in added)
    assert sorted((job.id, job.name, repr(job.data)) for job in seen) == expected
    assert [job.data for job in added[3:13]] == list(range(10))
    assert added[2].id == "mine"
    assert before - 1000 < added[0].created_at_ms < before + 10_000


def test_a_delayed_job_can_be_taken_back(redis_server: Server, queue_name: str) -> None:
    with SyncQueue(queue_name, redis_url=redis_server.url) as queue:
        job = queue.add("n", 1, delay_ms=60_000)
        assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 1
        assert queue.cancel_delayed(job.id) is True
        assert queue.cancel_delayed(job.id) is False
    assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 0


async def test_dead_jobs_are_shown_and_sent_back(redis_server: Server, queue_name: str) -> None:
    async def handler(_job: Job) -> None:
        raise UnrecoverableError

    def replay() -> None:
        with SyncQueue(queue_name, redis_url=redis_server.url) as queue:
            (dead,) = queue.peek_dlq()
            assert (dead["job_id"], dead["data"]) == (job.id, {"to": "ada"})
            assert queue.peek_dlq(name="sent") == []
            assert queue.purge_dlq(job_id="another") == 0
            assert queue.replay_dlq(reason="unrecoverable") == 1
            assert queue.peek_dlq(limit=5) == []
            assert queue.purge_dlq() == 0

    async with working(redis_server, queue_name, handler) as (queue, _):
        job = await queue.add("send", {"to": "ada"})
        await eventually(
            lambda: redis_server.command("EXISTS", key(queue_name, "dlq")), "a dead job"
        )
    await in_thread(replay)
    assert stream_len(redis_server, queue_name) == 1


def test_errors_are_those_of_queue(redis_server: Server, queue_name: str) -> None:
    wrong: Any = 5
    with SyncQueue(queue_name, redis_url=redis_server.url, max_queue_len=2) as queue:
        with pytest.raises(TypeError, match="name is 5"):
            queue.add(wrong, 1)
        with pytest.raises(errors.ConfigError, match="add_unique needs a string"):
            queue.add_unique("n", 1, job_id=wrong)
        with pytest.raises(errors.EncodeError):
            queue.add("n", object())
        with pytest.raises(errors.ConfigError, match="delay_ms is -1"):
            queue.add("n", 1, delay_ms=-1)
        with pytest.raises(errors.ConfigError, match="id"):
            queue.add("n", 1, job_id="")
        with pytest.raises(errors.NotSupportedError, match="repeat"):
            queue.add("n", 1, repeat={"every": 5})
        with pytest.raises(errors.ConfigError, match="job 0: it has the keys"):
            queue.add_bulk([{"name": "n", "dat": 1}])
        with pytest.raises(errors.ConfigError, match="pack is 0"):
            queue.add_bulk([], pack=0)
        with pytest.raises(errors.ConfigError, match="limit"):
            queue.peek_dlq(limit=-1)
        queue.add_bulk([{"name": "n", "data": i} for i in range(2)])
        with pytest.raises(errors.QueueFull, match=queue_name):
            queue.add("n", 3)
    queue.close()
    with pytest.raises(errors.ShutdownError, match="make a new SyncQueue"):
        queue.add("n", 1)
    with pytest.raises(errors.ShutdownError, match="make a new SyncQueue"):
        queue.add_bulk([])
    assert stream_len(redis_server, queue_name) == 2


@pytest.mark.any_server
def test_without_a_server_a_call_fails_in_time() -> None:
    queue, begun = SyncQueue("q", redis_url="redis://127.0.0.1:1"), time.monotonic()
    with pytest.raises(errors.ConnectionFailed):
        queue.add("n", 1)
    with pytest.raises(ConnectionError):
        queue.peek_dlq()
    assert time.monotonic() - begun < 15
    queue.close()


async def test_an_unknown_outcome_carries_ids_under_which_adding_again_is_safe(
    own_server: Server, queue_name: str
) -> None:
    bulk = [{"name": "n", "data": i} for i in range(1, 4)]
    with ThreadPoolExecutor(2) as pool:
        queue = SyncQueue(queue_name, redis_url=own_server.url)
        await in_thread(lambda: queue.add("n", "before"))
        own_server.stop_signal()
        calls = pool.submit(queue.add, "n", 0), pool.submit(queue.add_bulk, bulk)
        outcomes = [await in_thread(call.exception) for call in calls]
        own_server.cont()
    unknown = [error for error in outcomes if isinstance(error, errors.OutcomeUnknown)]
    assert [len(error.job_ids) for error in unknown] == [1, 3]

    def again() -> None:
        ids = [job_id for error in unknown for job_id in error.job_ids]
        assert queue.add("n", 0, job_id=ids[0]).id == ids[0]
        queue.add_bulk([{**job, "job_id": n} for job, n in zip(bulk, ids[1:], strict=True)])
        queue.close()

    await in_thread(again)
    jobs = await collect(own_server, queue_name, 5)
    assert sorted(str(job.data) for job in jobs) == ["0", "1", "2", "3", "before"]
    assert stream_len(own_server, queue_name) == 0


async def test_many_threads_add_at_a_time(redis_server: Server, queue_name: str) -> None:
    threads, each = 40, 50

    def add_all(queue: SyncQueue, lane: int) -> list[tuple[str, Any]]:
        added = []
        for i in range(each):
            data = [lane, i]
            if i % 10 == 0:
                with pytest.raises(errors.ConfigError):
                    queue.add("n" * 257, data)
                jobs = queue.add_bulk([{"name": "n", "data": data}])
            else:
                jobs = [queue.add("n", data)]
            assert [job.data for job in jobs] == [data]
            added += [(job.id, job.data) for job in jobs]
        return added

    with SyncQueue(queue_name, redis_url=redis_server.url) as queue:

        def run() -> list[tuple[str, Any]]:
            with ThreadPoolExecutor(threads) as pool:
                lanes = pool.map(add_all, itertools.repeat(queue), range(threads))
                return list(itertools.chain.from_iterable(lanes))

        added = await in_thread(run)
        jobs = await collect(redis_server, queue_name, threads * each)
        await in_thread(queue.close)
    assert sorted((job.id, job.data) for job in jobs) == sorted(added)
    assert len({job_id for job_id, _ in added}) == threads * each


def test_a_call_blocks_its_own_thread_alone(own_server: Server, queue_name: str) -> None:
    with SyncQueue(queue_name, redis_url=own_server.url) as queue:
        queue.add("n", 0)
        own_server.stop_signal()
        with ThreadPoolExecutor(1) as pool:
            adding = pool.submit(queue.add, "n", 1)
            longest, until = 0.0, time.monotonic() + 0.5
            while (before := time.monotonic()) < until:
                time.sleep(0.001)
                longest = max(longest, time.monotonic() - before)
            assert not adding.done()
            assert longest < 0.2
            own_server.cont()
            assert adding.result().data == 1


async def test_in_an_event_loop_it_says_to_use_queue(redis_server: Server, queue_name: str) -> None:
    queue = SyncQueue(queue_name, redis_url=redis_server.url)
    calls: list[Callable[[], object]] = [
        lambda: queue.add("n", 1),
        lambda: queue.add_bulk([{"name": "n", "data": 1}]),
        lambda: queue.cancel_delayed("1"),
        queue.peek_dlq,
        queue.close,
    ]
    for call in calls:
        with pytest.raises(errors.ChasquiError, match="would block the event loop .* use Queue"):
            call()
    await in_thread(lambda: queue.add("n", 1))
    await in_thread(queue.close)
    assert stream_len(redis_server, queue_name) == 1


def test_an_interrupt_ends_the_wait_and_nothing_else(own_server: Server, queue_name: str) -> None:
    with SyncQueue(queue_name, redis_url=own_server.url) as queue:
        queue.add("n", "before")
        own_server.stop_signal()
        interrupt = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
        interrupt.start()
        begun = time.monotonic()
        with pytest.raises(KeyboardInterrupt):
            queue.add("n", "interrupted")
        assert time.monotonic() - begun < 2
        interrupt.join()
        own_server.cont()
        assert queue.cancel_delayed("none") is False
        assert [queue.add("n", i).data for i in range(3)] == [0, 1, 2]
    assert stream_len(own_server, queue_name) == 5


def test_a_signal_handler_may_add_while_an_add_waits(own_server: Server, queue_name: str) -> None:
    added: list[Job] = []
    with SyncQueue(queue_name, redis_url=own_server.url) as queue:

        def on_signal(*_: object) -> None:
            own_server.cont()
            added.append(queue.add("n", "inner"))

        before = signal.signal(signal.SIGUSR1, on_signal)
        try:
            queue.add("n", "first")
            own_server.stop_signal()
            ring = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGUSR1))
            ring.start()
            added.append(queue.add("n", "outer"))
        finally:
            signal.signal(signal.SIGUSR1, before)
    assert [job.data for job in added] == ["inner", "outer"]
    assert stream_len(own_server, queue_name) == 3


def test_close_ends_what_waits_in_another_thread(own_server: Server, queue_name: str) -> None:
    queue = SyncQueue(queue_name, redis_url=own_server.url)
    queue.add("n", 0)
    own_server.stop_signal()
    with ThreadPoolExecutor(1) as pool:
        adding = pool.submit(queue.add, "n", 1)
        time.sleep(0.2)  # so that it is under way: there is nothing to see
        begun = time.monotonic()
        queue.close()
        assert isinstance(adding.exception(timeout=5), errors.ChasquiError)
        assert time.monotonic() - begun < 9
    own_server.cont()


async def test_what_the_engine_says_is_logged(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chasquimq.engine")

    def add() -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("CHASQUIMQ_URL", redis_server.url)
            with SyncQueue(queue_name) as queue:
                queue.add("n", 1)

    await in_thread(add)
    assert "from CHASQUIMQ_URL" in caplog.text
    assert {record.name for record in caplog.records} >= {"chasquimq.engine"}


@pytest.mark.parametrize("kind", ["plain", "coroutine"])
def test_credentials_are_asked_also_between_calls(
    start_server: StartServer, queue_name: str, kind: str
) -> None:
    server = start_server(config={"requirepass": "admin"})
    asked: list[threading.Thread] = []

    def plain() -> tuple[None, str]:
        asked.append(threading.current_thread())
        return None, "admin"

    async def coroutine() -> tuple[None, str]:
        await asyncio.sleep(0.01)
        return plain()

    credentials: Any = {"plain": plain, "coroutine": coroutine}[kind]
    url = f"redis://127.0.0.1:{server.port}"
    with SyncQueue(queue_name, redis_url=url, credentials=credentials) as queue:
        queue.add("n", 1)
        before = len(asked)
        server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        until = time.monotonic() + 10
        while len(asked) == before:  # no call is under way
            assert time.monotonic() < until
            time.sleep(0.005)
        queue.add("n", 2)
    assert threading.main_thread() not in asked
    assert stream_len(server, queue_name) == 2

    def refuse() -> Any:
        raise LookupError("the token service is away")

    with SyncQueue(queue_name, redis_url=url, credentials=refuse) as queue:
        with pytest.raises(errors.AuthError, match="the token service is away"):
            queue.add("n", 3)


FORKING = """
import os, sys, traceback
from chasquimq import SyncQueue
from chasquimq.errors import ChasquiError

url, name = sys.argv[1:]

async def credentials():
    return None, "admin"

def make():
    return SyncQueue(name, redis_url=url, credentials=credentials)

def child(inherited):
    for call in (lambda: inherited.add("n", 1), inherited.close):
        try:
            call()
        except ChasquiError as error:
            assert "was used before fork(); create it in the child" in str(error), error
        else:
            raise AssertionError("the inherited queue was not refused")
    with make() as queue:
        queue.add("n", "from the child")

queue, unused = make(), make()
queue.add("n", "from the parent")
for inherited in (queue, unused):
    pid = os.fork()
    if pid == 0:
        try:
            child(inherited)
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
    queue.add("n", "again from the parent")
queue.close()
"""


def test_a_child_is_refused_what_its_parent_made(
    start_server: StartServer, queue_name: str
) -> None:
    server = start_server(config={"requirepass": "admin"})
    _run(FORKING, f"redis://127.0.0.1:{server.port}", queue_name)
    assert stream_len(server, queue_name) == 5


LEAVING = """
import os, sys, threading, time
from chasquimq import SyncQueue

url, name, moment = sys.argv[1], sys.argv[2], float(sys.argv[3])
queue = SyncQueue(name, redis_url=url, credentials=lambda: (None, "admin"))
queue.add("n", 0)

def add():
    while True:
        queue.add("n", {"i": 1})

for _ in range(4):
    threading.Thread(target=add, daemon=True).start()
time.sleep(moment)
"""


@pytest.mark.any_server
def test_daemon_threads_that_wait_in_add_do_not_hold_the_end_up(
    start_server: StartServer, queue_name: str
) -> None:
    server = start_server(config={"requirepass": "admin"})
    url = f"redis://127.0.0.1:{server.port}"

    def leave(number: int) -> None:
        _run(LEAVING, url, queue_name, str(number / 500))

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, range(20)))
    server.stop_signal()
    stuck = LEAVING.replace('queue.add("n", 0)\n', "")
    _run(stuck, url, queue_name, "0.2")
    server.cont()


def _run(program: str, *arguments: str) -> None:
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=20)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.any_server
def test_an_embedded_server_is_started_and_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CHASQUIMQ_EMBEDDED_HOME", str(tmp_path))
    monkeypatch.setenv("CHASQUIMQ_EMBEDDED_SERVER", str(chosen_server().path))
    with SyncQueue("q", redis_url="embedded://") as queue:
        queue.add("n", "kept")
        assert "running" in _status()
    assert "stopped" in _status()


def _status() -> str:
    chasqui = Path(sys.executable).parent / "chasqui"
    return subprocess.check_output([chasqui, "embedded", "status"], text=True, timeout=20)


@pytest.mark.any_server
def test_every_method_of_queue_is_there_with_the_same_parameters() -> None:
    from inspect import signature

    names = [name for name in vars(Queue) if not name.startswith("_")]
    assert len(names) > 6
    for name in ["__init__", *names]:
        theirs, ours = signature(getattr(Queue, name)), signature(getattr(SyncQueue, name))
        assert theirs == ours
