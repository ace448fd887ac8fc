"""Each fault of the server comes as a class of its own, and as the built-in that Python users expect."""

import asyncio
import socket

import pytest

from chasquimq import Queue, errors
from conftest import StartServer
from support.server import Server
from working import key, working


@pytest.mark.any_server
def test_all_errors_have_one_base_and_stay_runtime_errors() -> None:
    names = [name for name in errors.__all__ if name != "UnrecoverableError"]
    assert all(issubclass(getattr(errors, name), errors.ChasquiError) for name in names)
    assert issubclass(errors.UnrecoverableError, RuntimeError)
    assert issubclass(errors.NotSupportedError, RuntimeError)
    for name, builtin in {
        "ConfigError": ValueError,
        "EncodeError": ValueError,
        "ConnectionFailed": ConnectionError,
        "CommandTimeout": TimeoutError,
        "OutcomeUnknown": TimeoutError,
        "AuthError": PermissionError,
        "MetricsAddressError": OSError,
    }.items():
        assert issubclass(getattr(errors, name), builtin)
        assert str(getattr(errors, name)("what happened")) == "what happened"


@pytest.mark.any_server
async def test_nobody_listens() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        queue = Queue("q", redis_url=f"redis://127.0.0.1:{free.getsockname()[1]}")
        with pytest.raises(errors.ConnectionFailed, match="127.0.0.1"):
            await queue.add("n", 1)


@pytest.mark.any_server
async def test_a_url_that_is_none() -> None:
    with pytest.raises(errors.ConfigError):
        await Queue("q", redis_url="localhost").add("n", 1)


async def test_a_wrong_password(start_server: StartServer) -> None:
    server = start_server(config={"requirepass": "right"})
    wrong = server.admin_url.replace("redis://", "redis://:wrong@")
    with pytest.raises(errors.AuthError):
        await Queue("q", redis_url=wrong).add("n", 1)
    with pytest.raises(errors.AuthError):
        await Queue("q", redis_url=server.admin_url).add("n", 1)
    async with Queue("q", redis_url=wrong.replace("wrong", "right")) as queue:
        await queue.add("n", 1)


async def test_a_key_of_another_type(redis_server: Server, queue_name: str) -> None:
    redis_server.command("SET", key(queue_name, "stream"), "text")
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        with pytest.raises(errors.WrongType, match=queue_name):
            await queue.add("n", 1)


async def test_a_server_without_memory(own_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("n", 1)
        own_server.command("CONFIG", "SET", "maxmemory", "1")
        with pytest.raises(errors.BrokerOutOfMemory):
            await queue.add("n", 2)
        own_server.command("CONFIG", "SET", "maxmemory", "0")
        await queue.add("n", 3)


async def test_data_that_cannot_be_encoded(redis_server: Server, queue_name: str) -> None:
    class Unknown:
        pass

    async with Queue(queue_name, redis_url=redis_server.url, max_payload_bytes=100) as queue:
        with pytest.raises(errors.EncodeError, match="Unknown"):
            await queue.add("n", {"a": [Unknown()]})
        with pytest.raises(errors.EncodeError, match="bytes and may be 100"):
            await queue.add("n", "x" * 200)
        await queue.add("n", "x")


async def test_a_server_that_dies_under_a_call(own_server: Server, queue_name: str) -> None:
    async with Queue(queue_name, redis_url=own_server.url) as queue:
        await queue.add("n", 1)
        own_server.stop_signal()
        calls = [asyncio.create_task(queue.add("n", i)) for i in range(10)]
        await asyncio.sleep(1)
        own_server.kill9()
        for result in await asyncio.gather(*calls, return_exceptions=True):
            assert isinstance(result, errors.OutcomeUnknown)
            assert isinstance(result, ConnectionError)
            assert len(result.job_ids) == 1


async def test_a_second_group_is_refused(redis_server: Server, queue_name: str) -> None:
    from chasquimq import Worker

    async def handler(_job: object) -> None: ...

    async with working(redis_server, queue_name, handler):
        other = Worker(queue_name, handler, redis_url=redis_server.url, group="other")
        with pytest.raises(errors.ChasquiError, match="group"):
            await other.run()
