"""``Queue``: what it adds arrives, what it refuses is not sent, and it never blocks the event loop."""

import asyncio
import logging
import re
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest

from chasquimq import BackoffSpec, Job, NotSupportedError, Queue
from chasquimq._address import locate
from chasquimq.errors import ConfigError, EncodeError, QueueFull, ShutdownError
from support.server import Server
from working import Heartbeat, collect, eventually, key, stream_len


async def test_a_job_arrives_as_it_was_added(redis_server: Server, queue_name: str) -> None:
    data = {
        "text": "grüße",
        "list": [1, 2.5, None, True],
        "bytes": b"\x00\xff",
        "deep": {"a": [{}]},
    }
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        added = await queue.add("greet", data, job_id="mine")
    (job,) = await collect(redis_server, queue_name, 1)
    assert (added.id, added.name, added.data) == ("mine", "greet", data)
    assert (job.id, job.name, job.data, job.attempt, job.lost) == ("mine", "greet", data, 0, 0)
    assert job.attempts_made == 0
    assert abs(job.created_at_ms - added.created_at_ms) < 1000
    assert job.data is job.data


async def test_ids_are_made_when_none_is_given(redis_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        jobs = await asyncio.gather(*(queue.add("n", i) for i in range(200)))
    assert len({job.id for job in jobs}) == 200
    assert {len(job.id) for job in jobs} == {26}
    assert stream_len(redis_server, queue_name) == 200


async def test_adds_of_one_turn_share_a_round_trip(own_server: Server, queue_name: str) -> None:
    def reads() -> int:
        stats = own_server.command("INFO", "stats").decode()
        return int(re.findall(r"total_reads_processed:(\d+)", stats)[0])

    async def add(i: int) -> Job:
        return await queue.add(f"n{i}", {"i": i})

    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await asyncio.gather(add(0), add(1))
        assert [job.data for job in await asyncio.gather(add(2), add(3))] == [{"i": 2}, {"i": 3}]
        before = reads()
        jobs = await asyncio.gather(*(add(i) for i in range(200)))
        took = reads() - before
    assert [(job.name, job.data) for job in jobs] == [(f"n{i}", {"i": i}) for i in range(200)]
    assert took <= 20
    seen = await collect(own_server, queue_name, 204)
    ids = {job.id: (job.name, job.data) for job in seen}
    assert all(ids[job.id] == (job.name, job.data) for job in jobs)


async def test_adds_that_travel_together_fail_apart(redis_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=redis_server.url, max_delay_secs=60) as queue:
        good = [queue.add("good", i) for i in range(20)]
        late = [queue.add("late", i, delay_ms=50_000) for i in range(20)]
        bad = [
            queue.add("n" * 257, 1),
            queue.add("n", 1, job_id=""),
            queue.add("n", 1, delay_ms=61_000),
            queue.add("n", "x" * 2**21),
            queue.add("\ud800", 1),
            queue.add("n", 1, job_id="\ud800"),
            queue.add("n", object()),
        ]
        wrong: Any = [queue.add(5, 1), queue.add("n", 1, job_id=5)]  # type: ignore[arg-type]
        outcomes = await asyncio.gather(*good, *bad, *late, *wrong, return_exceptions=True)
    assert all(isinstance(outcome, Job) for outcome in outcomes[:20] + outcomes[27:47])
    assert all(isinstance(outcome, ValueError) for outcome in outcomes[20:27]), outcomes[20:27]
    assert all(isinstance(outcome, TypeError) for outcome in outcomes[47:])
    assert stream_len(redis_server, queue_name) == 20
    assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 20


async def test_a_queue_that_becomes_full_takes_what_there_is_room_for(
    redis_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url, max_queue_len=30) as queue:
        adds = (queue.add("n", i) for i in range(50))
        outcomes = await asyncio.gather(*adds, return_exceptions=True)
    added = [outcome for outcome in outcomes if isinstance(outcome, Job)]
    assert (len(added), stream_len(redis_server, queue_name)) == (30, 30)
    refused = [outcome for outcome in outcomes if isinstance(outcome, QueueFull)]
    assert len(refused) == 20


@pytest.mark.any_server
async def test_each_caller_has_an_error_of_its_own() -> None:
    queue = Queue("q", redis_url="redis://127.0.0.1:1")
    adds = (queue.add("n", i) for i in range(10))
    errors = await asyncio.gather(*adds, return_exceptions=True)
    assert all(isinstance(error, ConnectionError) for error in errors)
    assert len({id(error) for error in errors}) == 10


async def test_what_was_added_in_the_turn_of_a_close_is_added(
    redis_server: Server, queue_name: str
) -> None:
    queue = Queue(queue_name, redis_url=redis_server.url)
    await queue.add("n", 0)
    adds = [asyncio.create_task(queue.add("n", i)) for i in range(10)]
    await asyncio.gather(*adds, asyncio.create_task(queue.close()))
    assert stream_len(redis_server, queue_name) == 11


async def test_a_bulk_with_every_option_takes_few_commands(
    own_server: Server, queue_name: str
) -> None:
    def commands() -> int:
        info = own_server.command("INFO", "stats").decode()
        return int(info.split("total_commands_processed:")[1].split("\r\n")[0])

    jobs: list[dict[str, Any]] = [{"name": "plain", "data": i} for i in range(50)]
    jobs += [{"name": "unique", "data": i, "job_id": f"id-{i}"} for i in range(50)]
    jobs += [{"name": "late", "data": i, "delay_ms": 60_000} for i in range(50)]
    jobs += [
        {"name": "patient", "data": i, "attempts": 2, "backoff": {"kind": "fixed", "delay_ms": 9}}
        for i in range(50)
    ]
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("warm", "up")
        before = commands()
        added = await queue.add_bulk(jobs)
        took = commands() - before
    assert [(job.name, job.data) for job in added] == [(job["name"], job["data"]) for job in jobs]
    assert added[50].id == "id-0"
    assert stream_len(own_server, queue_name) == 151
    assert own_server.command("ZCARD", key(queue_name, "delayed")) == 50
    # Commands inside a script are counted too; one round trip a job would be 200 calls of ours.
    scripts = own_server.command("INFO", "commandstats").decode().split("cmdstat_evalsha:calls=")
    assert took < 2000
    assert int(scripts[1].split(",")[0]) < 20


async def test_a_bulk_of_nothing_and_a_bulk_with_a_mistake(
    redis_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        assert await queue.add_bulk([]) == []
        with pytest.raises(ConfigError, match="job 1: it has the keys"):
            await queue.add_bulk([{"name": "a", "data": 1}, {"name": "a", "dat": 1}])
        with pytest.raises(EncodeError, match="job 1: the data cannot be encoded"):
            await queue.add_bulk([{"name": "a", "data": 1}, {"name": "a", "data": object()}])
        with pytest.raises(ConfigError, match="job 0: attempts is 0"):
            await queue.add_bulk([{"name": "a", "data": 1, "attempts": 0}])
        wrong: Any = [("a", 1)]
        with pytest.raises(TypeError, match=r"job 0 is \('a', 1\); it must be a mapping"):
            await queue.add_bulk(wrong)
        with pytest.raises(TypeError, match="job_id is 5; it must be a string"):
            await queue.cancel_delayed(5)  # type: ignore[arg-type]
    assert redis_server.command("EXISTS", key(queue_name, "stream")) == 0


@pytest.mark.parametrize("bound", ["max_queue_len", "max_stream_len"])
async def test_a_full_queue_refuses_and_loses_nothing(
    redis_server: Server, queue_name: str, bound: str
) -> None:
    options: dict[str, Any] = {bound: 1000}
    async with Queue(queue_name, redis_url=redis_server.url, **options) as queue:
        await queue.add_bulk({"name": "n", "data": i} for i in range(999))
        await queue.add("n", 999)
        with pytest.raises(QueueFull, match=queue_name):
            await queue.add("n", 1000)
    assert stream_len(redis_server, queue_name) == 1000
    jobs = await collect(redis_server, queue_name, 1000)
    assert sorted(job.data for job in jobs) == list(range(1000))


async def test_the_first_use_does_not_block_the_event_loop(
    own_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=own_server.url) as queue, Heartbeat() as heart:
        own_server.stop_signal()
        adding = asyncio.create_task(queue.add("n", 1))
        await eventually(lambda: heart.beats > 50, "beats")
        assert not adding.done()
        assert heart.longest < 0.2
        own_server.cont()
        await adding
    assert stream_len(own_server, queue_name) == 1


@pytest.mark.parametrize("unit", ["number", "timedelta", "datetime", "naive"])
async def test_a_delayed_job_waits_for_its_time(
    redis_server: Server, queue_name: str, unit: str
) -> None:
    due = datetime.now(timezone.utc) + timedelta(seconds=2)
    units: dict[str, dict[str, Any]] = {
        "number": {"delay_ms": 2000},
        "timedelta": {"delay": timedelta(seconds=2)},
        "datetime": {"delay_ms": due},
        "naive": {"delay_ms": due.replace(tzinfo=None)},
    }
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", 1, **units[unit])
        assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 1
        await collect(redis_server, queue_name, 1)
        assert datetime.now(timezone.utc) >= due - timedelta(milliseconds=5)


async def test_a_delayed_job_can_be_taken_back(redis_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        job = await queue.add("n", 1, delay_ms=60_000)
        assert await queue.cancel_delayed(job.id)
        assert not await queue.cancel_delayed(job.id)
    assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 0


async def test_a_unique_job_is_added_once_while_it_lives(
    redis_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_unique("n", 1, job_id="one")
        await queue.add_unique("n", 2, job_id="one", delay_ms=10)
        assert stream_len(redis_server, queue_name) == 1
        (job,) = await collect(redis_server, queue_name, 1)
        assert job.data == 1
        await queue.add_unique("n", 3, job_id="one")
        assert stream_len(redis_server, queue_name) == 1


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"delay_ms": 1, "delay": timedelta(seconds=1)}, "both given"),
        ({"delay_ms": -1}, "delay_ms is -1"),
        ({"delay_ms": float("nan")}, "delay_ms is nan"),
        ({"delay": timedelta(seconds=-1)}, "delay is -1000"),
        ({"delay": 5}, "delay is 5; it must be a timedelta"),
        ({"delay_ms": timedelta(seconds=1)}, "delay is for a timedelta"),
        ({"attempts": 0}, "attempts is 0; it must be an integer, at least 1"),
        ({"attempts": "3"}, "attempts is '3'"),
        ({"backoff": "exponential"}, "backoff is 'exponential'; it must be milliseconds"),
        ({"backoff": -5}, "delay_ms is -5"),
        ({"backoff": {"kind": "odd", "delay_ms": 1}}, "'odd' is unknown"),
        ({"backoff": {"delays": 1}}, "delays"),
    ],
)
async def test_options_that_cannot_work_are_value_errors(
    options: dict[str, Any], message: str
) -> None:
    queue = Queue("never-connected", redis_url="redis://127.0.0.1:1")
    with pytest.raises(ValueError, match=message):
        await queue.add("n", 1, **options)


async def test_what_the_engine_refuses_is_a_value_error(
    redis_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url, max_delay_secs=60) as queue:
        with pytest.raises(ValueError, match="max_delay_secs"):
            await queue.add("n", 1, delay_ms=61_000)
        with pytest.raises(ValueError, match="id"):
            await queue.add("n", 1, job_id="")
        with pytest.raises(ValueError, match="name"):
            await queue.add("n" * 257, 1)
    async with Queue("no spaces", redis_url=redis_server.url) as queue:
        with pytest.raises(ValueError, match="no spaces"):
            await queue.add("n", 1)


async def test_packed_jobs_keep_their_ids_and_options(
    redis_server: Server, queue_name: str
) -> None:
    jobs: list[dict[str, Any]] = [{"name": "n", "data": i} for i in range(20)]
    jobs += [{"name": "late", "data": i, "delay_ms": 60_000} for i in range(3)]
    jobs += [{"name": "unique", "data": 1, "job_id": "mine"} for _ in range(2)]
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        added = await queue.add_bulk(jobs, pack=64)
        assert redis_server.command("ZCARD", key(queue_name, "delayed")) == 3
        assert stream_len(redis_server, queue_name) < 10
        seen = await collect(redis_server, queue_name, 21)
    expected = [(job.id, job.data) for job in added if job.name != "late"]
    assert sorted((job.id, job.data) for job in seen) == sorted(set(expected))


@pytest.mark.any_server
@pytest.mark.parametrize("pack", [0, 257, 1.5])
async def test_a_pack_that_cannot_be_is_refused(pack: Any) -> None:
    queue = Queue("never-connected", redis_url="redis://127.0.0.1:1")
    with pytest.raises(ConfigError, match="pack is"):
        await queue.add_bulk([{"name": "n", "data": 1}], pack=pack)


@pytest.mark.any_server
async def test_features_to_come_are_refused_by_name() -> None:
    queue = Queue("never-connected", redis_url="redis://127.0.0.1:1")
    with pytest.raises(NotSupportedError, match="repeat"):
        await queue.add("n", 1, repeat={"every": 5})
    with pytest.raises(NotSupportedError, match="missed_fires"):
        await queue.add_bulk([{"name": "n", "data": 1, "missed_fires": "skip"}])
    with pytest.raises(ConfigError, match="mean the same"):
        Queue("q", max_queue_len=1, max_stream_len=1)


@pytest.mark.any_server
def test_backoff_rules() -> None:
    assert BackoffSpec.fixed(5) == BackoffSpec("fixed", 5)
    rule = BackoffSpec.exponential(5, max_ms=50, jitter_ms=1)
    assert rule == BackoffSpec("exponential", 5, 50, 2.0, 1)


async def test_a_closed_queue_says_so(redis_server: Server, queue_name: str) -> None:
    queue = Queue(queue_name, redis_url=redis_server.url)
    await queue.add("n", 1)
    await queue.close()
    await queue.close()
    assert queue.is_closed
    with pytest.raises(ShutdownError, match="make a new Queue"):
        await queue.add("n", 2)


async def test_a_cancelled_call_disturbs_nobody(redis_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", 0)
        calls = [asyncio.create_task(queue.add("n", i)) for i in range(100)]
        await asyncio.sleep(0)
        for call in calls[::2]:
            call.cancel()
        results = await asyncio.gather(*calls, return_exceptions=True)
        assert sum(isinstance(result, Job) for result in results) == 50
        await queue.add("n", 101)


async def test_a_queue_works_in_one_event_loop_after_another(
    redis_server: Server, queue_name: str
) -> None:
    queue = Queue(queue_name, redis_url=redis_server.url)

    async def add() -> None:
        await queue.add("n", 1)

    await asyncio.to_thread(asyncio.run, add())
    await asyncio.to_thread(asyncio.run, add())
    await add()
    await queue.close()
    assert stream_len(redis_server, queue_name) == 3


async def test_the_environment_names_the_server_and_the_log_says_so(
    redis_server: Server,
    queue_name: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO, "chasquimq")
    secret = redis_server.admin_url.replace("redis://", "redis://default:secret@")
    monkeypatch.setenv("CHASQUIMQ_URL", secret)
    async with Queue(queue_name) as queue:
        await queue.add("n", 1)
    assert "from CHASQUIMQ_URL" in caplog.text
    assert "redis://***@127.0.0.1" in caplog.text
    assert "secret" not in caplog.text
    assert stream_len(redis_server, queue_name) == 1


@pytest.mark.any_server
def test_the_argument_beats_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASQUIMQ_URL", "redis://environment")
    assert locate("redis://argument", False).url == "redis://argument"
    assert locate(None, False).url == "redis://environment"
    assert locate(None, True).url == "rediss://environment"
    monkeypatch.delenv("CHASQUIMQ_URL")
    assert locate(None, False).url is None
    with pytest.raises(ConfigError, match="tls"):
        locate(None, True)
    with pytest.raises(ConfigError, match="tls"):
        locate("embedded://", True)
