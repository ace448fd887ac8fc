"""Connections that break and servers that fall silent: what is added is added once."""

import asyncio
import time

import pytest

from chasquimq import Job, Queue, errors
from support.server import Server
from working import collect, key, stream_len


async def test_connections_killed_again_and_again_add_each_job_once(
    own_server: Server, queue_name: str
) -> None:
    async def add(queue: Queue, n: int) -> None:
        for i in range(50):
            if i % 5 == 0:
                await queue.add_bulk([{"name": "n", "data": [n, i, part]} for part in range(3)])
            else:
                await queue.add("n", [n, i, 0])

    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.cancel_delayed("none")  # connected: what cannot connect at all is told at once
        adding = asyncio.gather(*(add(queue, n) for n in range(8)))
        until = time.monotonic() + 2  # longer, and a slow machine would never be done
        while not adding.done() and time.monotonic() < until:
            await asyncio.sleep(0.01)
            own_server.command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        await adding
    jobs = [job.data for job in await collect(own_server, queue_name, 8 * (40 + 10 * 3))]
    expected = [[n, i, p] for n in range(8) for i in range(50) for p in range(1 if i % 5 else 3)]
    assert sorted(jobs) == expected


async def test_adds_of_one_turn_share_entries_where_the_queue_says_so(
    own_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=own_server.url, batch=4) as queue:
        await asyncio.gather(*(queue.add("n", i) for i in range(10)))
        assert stream_len(own_server, queue_name) <= 4  # the first may have left at once
        await queue.add_bulk({"name": "n", "data": i} for i in range(10, 18))
        assert stream_len(own_server, queue_name) <= 6
        await queue.add_bulk([{"name": "n", "data": i} for i in range(18, 20)], pack=1)
        assert stream_len(own_server, queue_name) <= 8
        await queue.add("n", 20, job_id="chosen")
    jobs = await collect(own_server, queue_name, 21)
    assert sorted(job.data for job in jobs) == list(range(21))
    assert len({job.id for job in jobs}) == 21


@pytest.mark.parametrize("batch", [0, 257, 1.5, "8"])
def test_a_batch_that_cannot_be_is_refused(batch: int) -> None:
    with pytest.raises(errors.ConfigError, match="batch is .*; it must be 1 to 256 jobs an entry"):
        Queue("q", batch=batch)


async def test_an_unknown_outcome_carries_ids_under_which_adding_again_is_safe(
    own_server: Server, queue_name: str
) -> None:
    bulk = [{"name": "n", "data": i} for i in range(2, 5)]
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("n", "before")
        own_server.stop_signal()
        outcomes = await asyncio.gather(
            queue.add("n", 0),
            queue.add("n", 1, delay_ms=60_000),
            queue.add_bulk(bulk),
            return_exceptions=True,
        )
        unknown = [error for error in outcomes if isinstance(error, errors.OutcomeUnknown)]
        assert [len(error.job_ids) for error in unknown] == [1, 1, 3]
        assert all(isinstance(error, ConnectionError | TimeoutError) for error in unknown)
        # What the server had not read yet reaches it only now.
        own_server.cont()
        ids = [job_id for error in unknown for job_id in error.job_ids]
        for _ in range(2):
            job = await queue.add("n", 0, job_id=ids[0])
            await queue.add("n", 1, delay_ms=60_000, job_id=ids[1])
            again = zip(bulk, ids[2:], strict=True)
            await queue.add_bulk([{**job, "job_id": job_id} for job, job_id in again])
        assert isinstance(job, Job)
        assert job.id == ids[0]
        assert stream_len(own_server, queue_name) == 5
        assert own_server.command("ZCARD", key(queue_name, "delayed")) == 1


@pytest.mark.any_server
def test_an_unknown_outcome_can_be_copied() -> None:
    import copy
    import pickle

    error = errors.OutcomeUnknown("why", ["1", "2"])
    for other in (copy.copy(error), pickle.loads(pickle.dumps(error))):
        assert (str(other), other.job_ids) == ("why", ("1", "2"))
