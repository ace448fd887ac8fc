"""An event loop that has nothing to do but to wait for an add waits in the engine."""

import asyncio
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Callable, Coroutine
from itertools import pairwise

import pytest

import chasquimq._hub
from chasquimq import Job, Queue, SyncQueue
from support.server import Server
from working import collect, eventually


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have loops wait for as long as they have nothing else to do."""
    monkeypatch.setattr(chasquimq._hub, "LONGEST_WAIT", 60.0)


async def test_a_lone_add_is_over_without_a_turn_of_the_loop(
    redis_server: Server, queue_name: str, patient: None
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", 0)  # connected
        assert any([await _is_over_at_once(queue.add("n", i)) for i in range(1, 20)])
    jobs = await collect(redis_server, queue_name, 20)
    assert [job.data for job in jobs] == list(range(20))


async def _is_over_at_once(adding: Coroutine[None, None, Job]) -> bool:
    await asyncio.sleep(0)
    try:
        adding.send(None)
    except StopIteration:
        return True
    adding.close()
    return False


@pytest.mark.usefixtures("patient")
async def test_who_adds_on_and_on_does_not_keep_others_from_their_replies(
    own_server: Server, queue_name: str
) -> None:
    done, ahead = [False, False], [0, 0]

    async def add(queue: Queue, this: int) -> None:
        await queue.add("n", this)
        done[this] = True
        while not done[1 - this] and ahead[this] < 3000:
            await queue.add("n", this)
            ahead[this] += 1

    async with (
        Queue(queue_name, redis_url=own_server.url) as first,
        Queue(queue_name + "-other", redis_url=own_server.url) as second,
    ):
        for queue in (first, second):
            await queue.add("n", 0)
        own_server.stop_signal()
        adding = [
            asyncio.create_task(add(queue, this)) for this, queue in enumerate((first, second))
        ]
        callers = chasquimq._hub.hub()._callers
        await eventually(lambda: len(callers) == 2, "both being on their way")
        own_server.cont()
        time.sleep(0.3)  # so that both replies have come before the loop looks
        await asyncio.gather(*adding)
    assert max(ahead) < 100


class _Interrupted(Exception):
    """What the handler of a signal raises."""


async def test_a_signal_that_ends_a_wait_keeps_nobody_from_a_reply(
    own_server: Server, queue_name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise _Interrupted

    monkeypatch.setattr(chasquimq._hub, "LONGEST_WAIT", 2.0)
    before = signal.signal(signal.SIGUSR1, interrupt)
    try:
        async with Queue(queue_name, redis_url=own_server.url) as queue:
            await queue.add("n", 0)
            own_server.stop_signal()
            _soon(lambda: os.kill(os.getpid(), signal.SIGUSR1))
            with pytest.raises(_Interrupted):
                await queue.add("n", 1)
            adding = asyncio.create_task(queue.add("n", 2))
            callers = chasquimq._hub.hub()._callers
            await eventually(lambda: callers, "the other being on its way")
            own_server.cont()
            time.sleep(0.3)  # so that both replies have come before the loop looks
            assert (await asyncio.wait_for(adding, 5)).data == 2
    finally:
        signal.signal(signal.SIGUSR1, before)


@pytest.mark.usefixtures("patient")
@pytest.mark.parametrize("what", ["a timer", "another thread", "a socket"])
async def test_what_a_loop_has_to_do_is_done_while_it_waits_for_an_add(
    own_server: Server, queue_name: str, what: str
) -> None:
    loop, done = asyncio.get_running_loop(), asyncio.Event()
    ours, other = socket.socketpair()
    loop.add_reader(ours, done.set)
    do: dict[str, Callable[[], object]] = {
        "a timer": lambda: loop.call_later(0.2, done.set),
        "another thread": lambda: _soon(lambda: loop.call_soon_threadsafe(done.set)),
        "a socket": lambda: _soon(lambda: other.sendall(b"x")),
    }
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("n", 0)
        own_server.stop_signal()
        do[what]()
        adding: list[asyncio.Task[Job]] = []
        # When nobody has anything else to do.
        loop.call_later(0.1, lambda: adding.append(loop.create_task(queue.add("n", 1))))
        began = time.monotonic()
        await done.wait()
        assert not adding[0].done()
        assert time.monotonic() - began < 3, "an add is given up after ten seconds"
        own_server.cont()
        assert (await adding[0]).data == 1
    loop.remove_reader(ours)
    ours.close()
    other.close()
    assert len(await collect(own_server, queue_name, 2)) == 2


def _soon(act: Callable[[], object]) -> None:
    threading.Timer(0.2, act).start()


async def test_a_loop_whose_epolls_are_nested_as_deep_as_may_be_adds_all_the_same(
    redis_server: Server, queue_name: str
) -> None:
    epolls = [select.epoll() for _ in range(3)]
    for inner, outer in pairwise(epolls):
        outer.register(inner, select.EPOLLIN)
    loop = asyncio.get_running_loop()
    loop.add_reader(epolls[-1].fileno(), lambda: None)
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        for i in range(3):
            await queue.add("n", i)
    loop.remove_reader(epolls[-1].fileno())
    assert len(await collect(redis_server, queue_name, 3)) == 3


async def test_loops_and_threads_add_at_a_time(redis_server: Server, queue_name: str) -> None:
    url, each = redis_server.url, 100

    async def one_after_another(first: int) -> None:
        async with Queue(queue_name, redis_url=url) as queue:
            for i in range(first, first + each):
                await queue.add("n", i)

    async def at_a_time(first: int) -> None:
        async with Queue(queue_name, redis_url=url) as queue:
            for at in range(first, first + each, 10):
                await asyncio.gather(*(queue.add("n", i) for i in range(at, at + 10)))

    def blocking(first: int) -> None:
        with SyncQueue(queue_name, redis_url=url) as queue:
            for i in range(first, first + each):
                queue.add("n", i)

    ways: list[Callable[[int], None]] = [
        blocking,
        blocking,
        lambda first: asyncio.run(one_after_another(first)),
        lambda first: asyncio.run(at_a_time(first)),
    ]
    threads = [asyncio.to_thread(way, n * each) for n, way in enumerate(ways)]
    here = (one_after_another(4 * each), at_a_time(5 * each))
    await asyncio.wait_for(asyncio.gather(*threads, *here), 30)
    jobs = await collect(redis_server, queue_name, 6 * each)
    assert sorted(job.data for job in jobs) == list(range(6 * each))


async def test_connections_killed_while_a_loop_waits_add_each_job_once(
    own_server: Server, queue_name: str
) -> None:
    stopped = threading.Event()

    def kill() -> None:
        until = time.monotonic() + 2  # longer, and a slow machine would never be done
        while not stopped.wait(0.02) and time.monotonic() < until:
            own_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("n", 0)
        killing = asyncio.create_task(asyncio.to_thread(kill))
        began = time.monotonic()
        count = 1
        while time.monotonic() - began < 1:
            await queue.add("n", count)
            count += 1
        stopped.set()
        await killing
    jobs = await collect(own_server, queue_name, count)
    assert [job.data for job in jobs] == list(range(count))
