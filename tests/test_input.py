"""What comes from outside does no harm: data, error texts, and URLs with passwords in them."""

import logging
import traceback
from typing import Any

import pytest

from chasquimq import Job, Queue, QueueEvents, Worker, errors
from support.server import Server
from working import eventually_async, key, working

SECRET = "hush"
DEEPEST = 64


def nested(depth: int) -> list[Any]:
    """Return a list that nests so deep."""
    data: list[Any] = []
    for _ in range(depth):
        data = [data]
    return data


async def _nothing(_job: Job) -> None: ...


async def test_data_nested_too_deep_is_refused_when_it_is_added(
    redis_server: Server, queue_name: str
) -> None:
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add("n", nested(DEEPEST))
        with pytest.raises(errors.EncodeError, match="nested too deep"):
            await queue.add("n", nested(DEEPEST + 1))
    assert redis_server.command("XLEN", key(queue_name, "stream")) == 1


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"\x91" * 50_000 + b"\xc0", "nested too deep"),
        (b"\xdd\xff\xff\xff\xff", "cut short"),
        (b"\xc1", "a byte that msgpack does not use"),
    ],
)
async def test_a_payload_that_no_decoder_should_see_never_reaches_a_handler(
    redis_server: Server, queue_name: str, payload: bytes, why: str
) -> None:
    ran: list[Job] = []

    async def handler(job: Job) -> None:
        ran.append(job)

    head = b"\x98\x01\x00\x00\xa1x\xa0\xc6" + len(payload).to_bytes(4, "big")
    record = head + payload + b"\x01\xc0"
    async with working(redis_server, queue_name, handler) as (queue, _):
        redis_server.command("XADD", key(queue_name, "stream"), "*", "j", record)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    assert (dead["reason"], dead["attempt"], dead["data"]) == ("decode_failed", 0, None)
    assert dead["detail"] == f"the payload of {len(payload)} bytes cannot be decoded: {why}"
    assert dead["payload"] == payload
    assert not ran


@pytest.mark.parametrize("batches", [False, True])
async def test_an_error_text_may_hold_anything(
    redis_server: Server, queue_name: str, batches: bool
) -> None:
    async def handler(work: object) -> Any:
        error = errors.UnrecoverableError("a\ud800\x1b[2J\r\0\u202e\nb" + "x" * 100_000)
        if batches:
            return [error]
        raise error

    options: dict[str, Any] = {"batch": 1} if batches else {}
    async with working(redis_server, queue_name, handler, **options) as (queue, _):
        await queue.add("n", 1)
        await eventually_async(queue.peek_dlq, "the dead job")
        (dead,) = await queue.peek_dlq()
    text = dead["detail"]
    assert text is not None
    first, second = text.split("\n")[:2]
    assert first.startswith("UnrecoverableError: a")
    assert first.endswith(" [2J   ")
    assert second.startswith("bxxx")
    assert 8000 < len(text.encode()) <= 8 * 1024


@pytest.mark.any_server
@pytest.mark.parametrize(
    "url",
    [
        f"redis://user:{SECRET}@127.0.0.1:1/0",
        f"redis://:{SECRET}@127.0.0.1:1",
        f"redis://user@host:a?{SECRET}@127.0.0.1:1",
        f"redis://user:a/{SECRET}#@127.0.0.1:1",
        f"redis://user:{SECRET}@127.0.0.1:none",
        f"redis-sentinel://127.0.0.1:1?sentinelServiceName=m&sentinelPassword={SECRET}",
        f"redis-cluster://u:{SECRET}@127.0.0.1:1?node=127.0.0.1:2",
        f"http://user:{SECRET}@127.0.0.1:1",
        f"user:{SECRET}@127.0.0.1:1",
    ],
)
@pytest.mark.parametrize("tls", [False, True])
async def test_a_password_never_shows(
    url: str, tls: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    shown = []
    try:
        queue = Queue("q", redis_url=url, tls=tls)
        worker = Worker("q", _nothing, redis_url=url, tls=tls)
        events = QueueEvents("q", redis_url=url, tls=tls)
        shown += [repr(queue), repr(worker), repr(events), repr(events._address)]
        await queue.add("n", 1)
    except errors.ChasquiError as error:
        shown += ["".join(traceback.format_exception(error)), repr(error)]
    else:
        pytest.fail("nothing listens there")
    shown += [record.getMessage() for record in caplog.records]
    assert not [text for text in shown if SECRET in text]
