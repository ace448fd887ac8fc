"""The frozen bytes of jobs, as Python writes and reads them."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest

from chasquimq import BackoffSpec, Job, Queue, QueueEvents
from chasquimq._codec import decode
from chasquimq.errors import DecodeError
from support.server import Server
from working import collect, eventually, key, stream_len, working

VECTORS: list[dict[str, Any]] = json.loads(
    (Path(__file__).parent / "vectors" / "records.json").read_text()
)
READABLE = [vector for vector in VECTORS if "records" in vector]
REFUSED = [vector for vector in VECTORS if "error" in vector]

BEGUN = {
    "junk behind a job",
    "second job cut short",
    "negative due time",
    "due time that is no integer",
    "two due times behind a job",
}
"""Of the refused ones, those in which a job that can be read stands before the fault."""

MOST = 2**32 - 1
"""The largest limit: counters below it do not bury a job."""


@pytest.mark.parametrize("vector", READABLE, ids=[vector["name"] for vector in READABLE])
async def test_every_readable_entry_reaches_a_handler(
    redis_server: Server, queue_name: str, vector: dict[str, Any]
) -> None:
    queue = f"vector-{READABLE.index(vector)}-{id(redis_server)}"
    redis_server.command("XADD", key(queue, "stream"), "*", "j", bytes.fromhex(vector["hex"]))
    expected = [
        (record["id"], record["name"], record["attempt"], record["lost"], record["created_at_ms"])
        for record in vector["records"]
        if (record["retry"] or {}).get("max_attempts", 0) in (0, None)
        or record["attempt"] < record["retry"]["max_attempts"]
    ]
    expected = [job for job in expected if job[2] < MOST and job[3] < MOST]
    expected = [job for job in expected if job[0] in _decodable(vector)]
    payloads = {record["id"]: bytes.fromhex(record["payload_hex"]) for record in vector["records"]}
    jobs = await collect(
        redis_server, queue, len(expected), max_attempts=MOST, max_lost=MOST, concurrency=64
    )
    seen = [(job.id, job.name, job.attempt, job.lost, job.created_at_ms) for job in jobs]
    assert sorted(seen) == sorted(expected)
    assert all(job._payload() == payloads[job.id] for job in jobs)


def _decodable(vector: dict[str, Any]) -> set[str]:
    """Return the ids of jobs whose payload is msgpack: the others die without a run."""
    ids = set()
    for record in vector["records"]:
        with suppress(DecodeError):
            decode(bytes.fromhex(record["payload_hex"]))
            ids.add(record["id"])
    return ids


async def test_entries_that_are_no_jobs_never_reach_a_handler(
    redis_server: Server, queue_name: str
) -> None:
    seen: list[Job] = []

    async def handler(job: Job) -> None:
        seen.append(job)

    async with working(redis_server, queue_name, handler) as (queue, _):
        for vector in REFUSED:
            value = bytes.fromhex(vector["hex"])
            redis_server.command("XADD", key(queue_name, "stream"), "*", "j", value)

        await eventually(lambda: not stream_len(redis_server, queue_name), "all settled")
        dead = await queue.peek_dlq(100)
    buried = {job["payload"] for job in dead}
    for vector in REFUSED:
        value = bytes.fromhex(vector["hex"])
        cut = vector["name"] in BEGUN or vector["name"] == "array of seven"
        assert value in buried or (cut and any(part and value.endswith(part) for part in buried))
    assert len(seen) == len(BEGUN)


async def test_what_python_adds_has_the_frozen_layout(
    redis_server: Server, queue_name: str
) -> None:
    rule = BackoffSpec.exponential(100, max_ms=60_000, multiplier=1.5, jitter_ms=250)
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        plain = await queue.add("send", {"to": "ada", "n": 3})
        await queue.add("", None, job_id="order-42", attempts=300, backoff=rule)
    entries = redis_server.command("XRANGE", key(queue_name, "stream"), "-", "+")
    first, second = (msgspec.msgpack.decode(fields[1]) for _, fields in entries)
    assert first[:3] == [1, 0, 0]
    assert len(first[3]) == 16
    assert first[4:6] == ["send", msgspec.msgpack.encode({"to": "ada", "n": 3})]
    assert abs(first[6] - plain.created_at_ms) < 1000
    assert first[7] is None
    assert second[3:6] == ["order-42", "", b"\xc0"]
    assert second[7] == {"r": [300, [1, 100, 60_000, 1.5, 250]], "u": True}


@pytest.mark.any_server
def test_callbacks_for_events_that_do_not_exist_are_warned_of(
    caplog: pytest.LogCaptureFixture,
) -> None:
    vectors = json.loads((Path(__file__).parent / "vectors" / "events.json").read_text())
    events = QueueEvents("q", redis_url="redis://127.0.0.1:1")
    for name in ["*", "gap", *(vector["event"] for vector in vectors)]:
        events.on(name, print)
    assert caplog.text == ""
    events.on("fail", print)
    assert "no event of this version is named 'fail': completed, failed, " in caplog.text
