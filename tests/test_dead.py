"""Dead jobs: shown, sent back and deleted, all of them or those that are asked for."""

from typing import Any

import pytest

from chasquimq import Job, Queue, UnrecoverableError
from chasquimq.errors import ConfigError
from support.server import Server
from working import eventually_async, stream_len, working


async def test_a_dead_job_tells_why_and_can_be_replayed(
    redis_server: Server, queue_name: str
) -> None:
    healthy = False

    async def handler(job: Job) -> None:
        if not healthy:
            raise UnrecoverableError(f"no such address: {job.data['to']}")

    async with working(redis_server, queue_name, handler) as (queue, worker):
        job = await queue.add("send", {"to": "ada"})
        await eventually_async(queue.peek_dlq, "a dead job")
        (dead,) = await queue.peek_dlq()
        assert (dead["job_id"], dead["name"], dead["data"]) == (job.id, "send", {"to": "ada"})
        assert (dead["reason"], dead["attempt"], dead["lost"]) == ("unrecoverable", 1, 0)
        assert dead["detail"] is not None
        assert dead["detail"].startswith("UnrecoverableError: no such address: ada\n")
        assert "raise UnrecoverableError(" in dead["detail"]
        assert abs(dead["failed_at_ms"] - job.created_at_ms) < 10_000
        healthy = True
        assert await queue.replay_dlq() == 1
        assert await queue.peek_dlq() == []
        await eventually_async(lambda: _empty(redis_server, queue_name), "the replayed job")
        assert worker.is_running


async def test_dead_jobs_can_be_deleted(redis_server: Server, queue_name: str) -> None:
    async def handler(_job: Job) -> None:
        raise UnrecoverableError

    async def dead() -> list[Any]:
        return [job["data"] for job in await queue.peek_dlq()]

    async def all_dead() -> bool:
        return len(await dead()) == 3

    async with working(redis_server, queue_name, handler) as (queue, _):
        for i in range(3):
            await queue.add("n", i)
        await eventually_async(all_dead, "dead jobs")
        oldest, *others = await dead()
        assert await queue.purge_dlq(limit=1) == 1
        assert await dead() == others
        assert oldest not in others
        assert await queue.purge_dlq() == 2
        assert await queue.purge_dlq() == 0
        assert await dead() == []
        assert stream_len(redis_server, queue_name) == 0


async def test_dead_jobs_are_chosen_by_id_name_and_reason(
    redis_server: Server, queue_name: str
) -> None:
    async def handler(job: Job) -> None:
        if job.name == "pay":
            raise UnrecoverableError
        raise ValueError

    async def all_dead() -> bool:
        return len(await queue.peek_dlq()) == 4

    async def ids(**which: Any) -> list[str]:
        return sorted(job["job_id"] for job in await queue.peek_dlq(**which))

    async with working(redis_server, queue_name, handler) as (queue, _):
        for job_id, name in [("a", "send"), ("b", "send"), ("c", "pay"), ("d", "post")]:
            await queue.add(name, None, job_id=job_id, attempts=1)
        await eventually_async(all_dead, "dead jobs")
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        assert await ids(job_id="b") == ["b"]
        assert await ids(name="send") == ["a", "b"]
        assert await ids(reason="unrecoverable") == ["c"]
        assert await ids(name=["send", "pay"], reason="retries_exhausted") == ["a", "b"]
        assert await ids(job_id={"a", "c", "none"}) == ["a", "c"]
        assert await ids(job_id="none") == []
        assert await queue.replay_dlq(job_id="b") == 1
        assert stream_len(redis_server, queue_name) == 1
        assert await queue.purge_dlq(name=iter(["pay", "post"])) == 2
        assert await ids() == ["a"]


async def test_a_choice_that_is_none_is_refused_and_changes_nothing(
    redis_server: Server, queue_name: str
) -> None:
    async def handler(_job: Job) -> None:
        raise UnrecoverableError

    wrong: Any = 5
    blob: Any = b"ab"
    async with working(redis_server, queue_name, handler) as (queue, _):
        await queue.add("n", None, job_id="a")
        await eventually_async(queue.peek_dlq, "the dead job")
        dead = await queue.peek_dlq()
        for call in (queue.peek_dlq, queue.replay_dlq, queue.purge_dlq):
            with pytest.raises(ConfigError, match="job_id is empty; leave it out to mean any"):
                await call(job_id=[])
            with pytest.raises(ConfigError, match="job_id is empty"):
                await call(job_id="")
            with pytest.raises(TypeError, match="name is 5; it must be a string"):
                await call(name=[wrong])
            with pytest.raises(TypeError, match="reason is 5; it must be a string, or several"):
                await call(reason=wrong)
            with pytest.raises(TypeError, match="job_id is b'ab'; it must be a string, or several"):
                await call(job_id=blob)
            with pytest.raises(
                ConfigError, match='reason is "boredom"; it must be one of: retries'
            ):
                await call(reason="boredom")
        assert await queue.peek_dlq() == dead
        assert await queue.purge_dlq(limit=0, job_id="a") == 0
        assert await queue.purge_dlq(limit=1, job_id=["b", "a"]) == 1


async def _empty(server: Server, queue: str) -> bool:
    return stream_len(server, queue) == 0
