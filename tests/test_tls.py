"""TLS: ``rediss://`` and what its parameters say, from Python."""

import asyncio
from pathlib import Path

import pytest

from chasquimq import Queue, QueueEvents, Worker
from chasquimq.errors import ConfigError, ConnectionFailed
from conftest import StartServer
from support.certificates import Authority, tls_config
from support.kinds import chosen_server
from support.server import Server
from working import eventually

pytestmark = pytest.mark.skipif(
    not chosen_server().has_tls(), reason=f"{chosen_server().name} is built without TLS"
)


@pytest.fixture
def authority(tmp_path: Path) -> Authority:
    """The authority of the server's certificate."""
    return Authority(tmp_path)


def url(server: Server, authority: Authority, more: str = "") -> str:
    return f"rediss://127.0.0.1:{server.port}?ca={authority.file}{more}"


async def add(url: str, queue: str, *, tls: bool = False) -> None:
    async with Queue(queue, redis_url=url, tls=tls) as there:
        await there.add("n", 1)


async def test_jobs_and_events_go_over_tls(
    start_server: StartServer, authority: Authority, queue_name: str
) -> None:
    config = {**tls_config(authority.issue("server")), "requirepass": "admin"}
    server = start_server(config=config)
    done = []

    async def credentials() -> tuple[None, str]:
        return None, "admin"

    async def handler(job: object) -> None:
        done.append(job)

    there = url(server, authority)
    async with (
        Queue(queue_name, redis_url=there, credentials=credentials) as queue,
        QueueEvents(queue_name, redis_url=there, credentials=credentials) as events,
        Worker(queue_name, handler, redis_url=there, credentials=credentials),
    ):
        await queue.add("n", 1)
        assert (await asyncio.wait_for(anext(events), 15)).name == "completed"
    await eventually(lambda: len(done) == 1, "the job runs")


async def test_tls_true_makes_a_plain_url_one_of_tls(
    start_server: StartServer, authority: Authority, queue_name: str
) -> None:
    server = start_server(config=tls_config(authority.issue("server")))
    plain = url(server, authority).replace("rediss", "redis")
    await add(plain, queue_name, tls=True)
    with pytest.raises(ConfigError, match="need TLS"):
        await add(plain, queue_name)


async def test_a_server_that_cannot_be_trusted_is_refused(
    start_server: StartServer, authority: Authority, tmp_path: Path, queue_name: str
) -> None:
    server = start_server(config=tls_config(authority.issue("other", "DNS:elsewhere.test")))
    stranger = Authority(tmp_path)
    with pytest.raises(ConnectionFailed, match="certificate is refused: UnknownIssuer"):
        await add(url(server, stranger), queue_name)
    with pytest.raises(ConnectionFailed, match="NotValidForName"):
        await add(url(server, authority), queue_name)
    await add(url(server, stranger, "&insecure=true"), queue_name)


async def test_a_server_that_asks_gets_the_clients_certificate(
    start_server: StartServer, authority: Authority, tmp_path: Path, queue_name: str
) -> None:
    clients = Authority(tmp_path)
    server = start_server(config=tls_config(authority.issue("server"), clients))
    with pytest.raises(ConnectionFailed):
        await add(url(server, authority), queue_name)
    for issuer, is_known in ((authority, False), (clients, True)):
        cert, key = issuer.issue("client", "DNS:client")
        known = url(server, authority, f"&cert={cert}&key={key}")
        if is_known:
            await add(known, queue_name)
        else:
            with pytest.raises(ConnectionFailed):
                await add(known, queue_name)


async def test_files_that_cannot_be_read_are_named(queue_name: str) -> None:
    with pytest.raises(ConfigError, match="/nowhere/ca.pem"):
        await add("rediss://127.0.0.1:1?ca=/nowhere/ca.pem", queue_name)
