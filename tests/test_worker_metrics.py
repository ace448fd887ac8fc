"""``Worker(metrics_addr=…)``: what a process shows over HTTP is exact, shared by its workers, and ends with them."""

import asyncio
import json
import logging
import re
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from contextlib import AsyncExitStack
from typing import Any

import pytest

from chasquimq import Job, Queue, UnrecoverableError, Worker
from chasquimq.errors import ConfigError, ConnectionFailed, MetricsAddressError
from support.server import Server
from working import eventually, eventually_async, key

LOOPBACK = "127.0.0.1:0"


async def get(worker: Worker, path: str) -> tuple[int, str]:
    """Ask the exporter of a worker; return status and text."""

    def ask() -> tuple[int, str]:
        try:
            with urllib.request.urlopen(f"http://{worker.metrics_addr}{path}", timeout=5) as reply:
                return reply.status, reply.read().decode()
        except urllib.error.HTTPError as refusal:
            with refusal:
                return refusal.code, refusal.read().decode()

    return await asyncio.to_thread(ask)


async def scrape(worker: Worker) -> dict[str, float]:
    """Return the samples of a worker's exporter, with their labels in alphabetical order."""
    status, text = await get(worker, "/metrics")
    assert status == 200
    samples = {}
    for name, labels, value in re.findall(r"^(\w+)(?:\{(.*)\})? (\S+)$", text, re.MULTILINE):
        assert (sample := f"{name}{{{','.join(sorted(labels.split(',')))}}}") not in samples
        samples[sample] = float(value)
    return samples


def listens(address: str) -> bool:
    """Tell whether somebody listens there."""
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host, int(port)), 5).close()
    except ConnectionRefusedError:
        return False
    except ConnectionResetError:  # on its way out
        return True
    return True


async def _nothing(_job: Job) -> None: ...


async def test_counters_are_exact(redis_server: Server, queue_name: str) -> None:
    async def handler(job: Job) -> None:
        match job.data:
            case "fails once" if job.attempt == 0:
                raise ValueError
            case "fails":
                raise ValueError
            case "hopeless":
                raise UnrecoverableError

    entry = ("XADD", key(queue_name, "stream"), "*")
    redis_server.command(*entry, "j", "garbage")
    redis_server.command(*entry, "unknown", "field")
    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        await queue.add_bulk(
            {"name": "n", "data": data, "attempts": 2, "backoff": 1}
            for data, count in {"ok": 40, "fails once": 7, "fails": 5, "hopeless": 3}.items()
            for _ in range(count)
        )
        dead = 5 + 3 + 2

        async def settled() -> bool:
            return await counted("chasquimq_jobs_completed_total") == 47 and dead == sum(
                value
                for name, value in (await scrape(worker)).items()
                if name.startswith("chasquimq_dlq_routed_total")
            )

        async def counted(name: str, *labels: str) -> float:
            labels = (*labels, f'queue="{queue_name}"')
            return (await scrape(worker)).get(f"{name}{{{','.join(sorted(labels))}}}", 0)

        async with Worker(
            queue_name, handler, redis_url=redis_server.url, metrics_addr=LOOPBACK
        ) as worker:
            await eventually_async(settled, "everything counted")
            assert await counted("chasquimq_jobs_completed_total") == 40 + 7
            assert await counted("chasquimq_jobs_failed_total", 'kind="error"') == 7 + 2 * 5 + 3
            assert await counted("chasquimq_jobs_failed_total", 'kind="panic"') == 0
            assert await counted("chasquimq_retries_scheduled_total") == 7 + 5
            assert await counted("chasquimq_handler_duration_seconds_count") == 47 + 20
            reasons = await asyncio.gather(
                *(
                    counted("chasquimq_dlq_routed_total", f'reason="{reason}"')
                    for reason in (
                        "retries_exhausted",
                        "unrecoverable",
                        "malformed",
                        "decode_failed",
                    )
                )
            )
            assert reasons[:2] == [5, 3]
            assert sum(reasons[2:]) == 2
            assert await counted("chasquimq_workers_ready") == 1


async def test_health_and_load(redis_server: Server, queue_name: str) -> None:
    release = asyncio.Event()

    async def handler(_job: Job) -> None:
        await release.wait()

    async def load(queue: str) -> tuple[int, Any]:
        status, text = await get(worker, f"/scale?queue={queue}")
        return status, json.loads(text) if status == 200 else text

    async def backlog() -> bool:
        _, told = await load(queue_name)
        return bool(told["backlog"] == 4 and told["inflight"] == 1)

    async with Queue(queue_name, redis_url=redis_server.url) as queue:
        worker = Worker(
            queue_name,
            handler,
            redis_url=redis_server.url,
            metrics_addr=LOOPBACK,
            concurrency=1,
            prefetch=0,
        )
        async with worker:
            assert await get(worker, "/livez") == (200, "ok\n")
            assert await get(worker, "/readyz") == (200, "ok\n")
            await queue.add_bulk({"name": "n", "data": i} for i in range(5))
            await eventually_async(backlog, "one running, four waiting")
            _, told = await load(queue_name)
            assert set(told) == {"backlog", "oldest_age_s", "inflight"}
            assert 0 < told["oldest_age_s"] < 60
            assert (await load("another"))[0] == 404
            assert (await get(worker, "/nothing"))[0] == 404
            closing = asyncio.create_task(worker.close())
            await asyncio.sleep(0)
            # Draining: it lives and claims nothing.
            status, text = await get(worker, "/readyz")
            assert (status, text) == (503, f"worker of queue {queue_name}: it claims no jobs\n")
            assert await get(worker, "/livez") == (200, "ok\n")
            release.set()
            await closing


async def test_workers_of_a_process_share_an_exporter(
    redis_server: Server, queue_name: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "chasquimq.engine")
    queues = [f"{queue_name}-{i}" for i in range(2)]
    first, second = (
        Worker(name, _nothing, redis_url=redis_server.url, metrics_addr=LOOPBACK) for name in queues
    )
    assert first.metrics_addr == LOOPBACK
    async with first:
        address = first.metrics_addr
        assert address != LOOPBACK
        assert address in caplog.text
        async with second:
            assert second.metrics_addr == address
            samples = await scrape(first)
            for name in queues:
                assert samples[f'chasquimq_workers{{queue="{name}"}}'] == 1
                assert (await get(first, f"/scale?queue={name}"))[0] == 200
        assert listens(address)
        assert (await get(first, f"/scale?queue={queues[1]}"))[0] == 404
        elsewhere = f"127.0.0.1:{_free_port()}"
        async with Worker(
            queues[1], _nothing, redis_url=redis_server.url, metrics_addr=elsewhere
        ) as third:
            assert third.metrics_addr == elsewhere
            assert f'chasquimq_workers{{queue="{queues[0]}"}}' not in await scrape(third)
        await eventually(lambda: not listens(elsewhere), "the port is free")
        assert listens(address)
    await eventually(lambda: not listens(address), "the port is free")
    # The same address again: a new exporter.
    async with Worker(
        queues[0], _nothing, redis_url=redis_server.url, metrics_addr=address
    ) as again:
        assert again.metrics_addr == address
        assert (await get(again, "/readyz"))[0] == 200


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


OTHER = """
import asyncio, sys
from chasquimq import Worker
from chasquimq.errors import MetricsAddressError

url, queue, *addresses = sys.argv[1:]

async def handler(job): ...

async def main():
    for address in addresses:
        worker = Worker(queue, handler, redis_url=url, metrics_addr=address)
        try:
            async with worker:
                print("runs")
        except MetricsAddressError as error:
            assert isinstance(error, OSError)
            print(error)

asyncio.run(main())
"""


async def test_another_process_is_told_what_to_do(redis_server: Server, queue_name: str) -> None:
    async with Worker(
        queue_name, _nothing, redis_url=redis_server.url, metrics_addr=LOOPBACK
    ) as worker:
        address = worker.metrics_addr
        assert address is not None
        command = [sys.executable, "-c", OTHER, redis_server.url, queue_name, address, LOOPBACK]
        done = await asyncio.to_thread(
            subprocess.run, command, capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        refusal, other = done.stdout.splitlines()
        assert refusal == (
            f"metrics address {address} is in use by another process: give each process of this "
            "host a port of its own, or use port 0 for any free one"
        )
        assert other == "runs"


FORKED = """
import asyncio, os, sys, threading, urllib.request
from chasquimq import Worker
from chasquimq.errors import MetricsAddressError

url, queue = sys.argv[1:]
addresses, started, ended = [], threading.Event(), threading.Event()

async def handler(job): ...

def worker(address):
    return Worker(queue, handler, redis_url=url, metrics_addr=address)

async def parent():
    async with worker("127.0.0.1:0") as running:
        addresses.append(running.metrics_addr)
        started.set()
        while not ended.is_set():  # no other thread: a child would inherit the locks it holds
            await asyncio.sleep(0.01)

async def child():
    try:
        await worker(addresses[0]).run()
    except MetricsAddressError:
        pass
    else:
        raise AssertionError("two processes on one port")
    async with worker("127.0.0.1:0") as own:
        assert own.metrics_addr not in addresses
        ask = urllib.request.urlopen, f"http://{own.metrics_addr}/readyz"
        print((await asyncio.to_thread(*ask)).read(), flush=True)

thread = threading.Thread(target=lambda: asyncio.run(parent()))
thread.start()
started.wait()
pid = os.fork()
if pid == 0:
    code = 1
    try:
        asyncio.run(child())
        code = 0
    finally:
        os._exit(code)
code = os.waitpid(pid, 0)[1]
ended.set()
thread.join()
sys.exit(code != 0)
"""


async def test_a_forked_child_has_an_exporter_of_its_own(
    redis_server: Server, queue_name: str
) -> None:
    command = [sys.executable, "-c", FORKED, redis_server.url, queue_name]
    done = await asyncio.to_thread(
        subprocess.run, command, capture_output=True, text=True, timeout=30
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == "b'ok\\n'\n"


async def test_a_failed_start_leaves_no_exporter(queue_name: str) -> None:
    address = f"127.0.0.1:{_free_port()}"
    nobody = f"redis://127.0.0.1:{_free_port()}"
    worker = Worker(queue_name, _nothing, redis_url=nobody, metrics_addr=address)
    with pytest.raises(ConnectionFailed):
        await worker.run()
    assert worker.metrics_addr == address
    await eventually(lambda: not listens(address), "the port is free")


async def test_it_is_seen_from_outside_only_when_told(
    redis_server: Server, queue_name: str
) -> None:
    port = _free_port()
    async with AsyncExitStack() as stack:
        for given, real in {
            str(port): f"127.0.0.1:{port}",
            ":0": "127.0.0.1:",
            "0.0.0.0:0": "0.0.0.0:",
        }.items():
            worker = Worker(queue_name, _nothing, redis_url=redis_server.url, metrics_addr=given)
            await stack.enter_async_context(worker)
            assert worker.metrics_addr is not None
            assert worker.metrics_addr.startswith(real)
        assert (await get(worker, "/livez"))[0] == 200
    without = Worker(queue_name, _nothing, redis_url=redis_server.url)
    async with without:
        assert without.metrics_addr is None


@pytest.mark.any_server
@pytest.mark.parametrize(
    "bad", ["", "127.0.0.1", "127.0.0.1:x", "99999", "http://127.0.0.1:1", "1 :2", "::1:5", 9090]
)
def test_a_bad_address_is_refused_at_once(bad: Any) -> None:
    with pytest.raises(ValueError, match="metrics_addr is .*HOST:PORT"):
        Worker("q", _nothing, metrics_addr=bad)


@pytest.mark.any_server
async def test_addresses_that_only_the_start_can_judge(
    redis_server: Server, queue_name: str
) -> None:
    worker = Worker(
        queue_name, _nothing, redis_url=redis_server.url, metrics_addr="no-such-host.invalid:1"
    )
    with pytest.raises(ConfigError, match="no-such-host.invalid"):
        await worker.run()
    # 192.0.2.1 is nobody's address.
    worker = Worker(queue_name, _nothing, redis_url=redis_server.url, metrics_addr="192.0.2.1:9090")
    with pytest.raises(MetricsAddressError, match="cannot listen on metrics address 192.0.2.1"):
        await worker.run()
