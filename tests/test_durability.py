"""Who must have a job before ``add`` returns."""

import pytest

from chasquimq import Queue, errors
from conftest import StartServer
from support.resp import ReplyError
from support.server import Server
from working import eventually, stream_len


async def _pair(start_server: StartServer) -> tuple[Server, Server]:
    primary = start_server(config={"repl-diskless-sync-delay": "0"})
    replica = start_server(config={"replicaof": f"127.0.0.1 {primary.port}"})
    await eventually(lambda: primary.command("ROLE")[2], "the replica is online")
    # Online, it may not acknowledge for a second yet; and a write from before would count as acknowledged.
    _followed(primary)
    return primary, replica


def _followed(primary: Server) -> None:
    primary.command("SET", "followed", "1")
    assert primary.command("WAIT", "1", "8000") == 1


async def test_a_replica_has_a_job_when_add_returns(
    start_server: StartServer, queue_name: str
) -> None:
    primary, replica = await _pair(start_server)
    options = {"redis_url": primary.url, "durability": "replica"}
    async with (
        Queue(queue_name, durability_timeout_ms=8000, **options) as queue,  # type: ignore[arg-type]
        Queue(queue_name, **options) as hasty,  # type: ignore[arg-type]
    ):
        for i in range(10):
            await queue.add("n", i)
            assert stream_len(replica, queue_name) == i + 1
        await queue.add_bulk({"name": "n", "data": i} for i in range(100))
        assert stream_len(replica, queue_name) == 110
        replica.stop_signal()
        with pytest.raises(errors.OutcomeUnknown, match="0 replicas acknowledged it of 1") as short:
            await hasty.add("n", "x")
        await queue.add("n", "y", durability="none")
        replica.cont()
        _followed(primary)
        (job_id,) = short.value.job_ids
        assert (await hasty.add("n", "x", job_id=job_id)).id == job_id
        assert stream_len(replica, queue_name) == 112


async def test_the_append_only_file_where_the_server_can_tell(
    start_server: StartServer, queue_name: str
) -> None:
    server = start_server(aof=True)
    async with Queue(queue_name, redis_url=server.url) as queue:
        try:
            server.command("WAITAOF", "0", "0", "1")
        except ReplyError:
            with pytest.raises(errors.UnsupportedServer, match="WAITAOF"):
                await queue.add("n", 1, durability="aof")
            assert stream_len(server, queue_name) == 0
        else:
            await queue.add("n", 1, durability="aof")
            server.kill9()
            server.restart()
            assert stream_len(server, queue_name) == 1


@pytest.mark.any_server
async def test_a_durability_that_is_none() -> None:
    with pytest.raises(errors.ConfigError, match="durability is 'disk'"):
        Queue("q", durability="disk")  # type: ignore[arg-type]
    with pytest.raises(errors.ConfigError, match="durability is 'disk'"):
        await Queue("q").add("n", 1, durability="disk")  # type: ignore[arg-type]
