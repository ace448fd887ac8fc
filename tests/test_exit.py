"""The interpreter may end at any moment, with work in flight and nothing closed: no crash, no hang."""

import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from support.server import Server

EXITS = 20
"""Of each kind; there are twelve kinds."""

SECONDS = 1.0
"""An exit may take so long."""

PROGRAM = """
import asyncio, os, signal, sys, threading, time
from chasquimq import Queue, Worker

url, name, kind, moment = sys.argv[1:4] + [float(sys.argv[4])]
queue = Queue(name, redis_url=url)
jobs = [{"name": "n", "data": {"i": i}} for i in range(200)]
started = threading.Event()

def leaving():
    os.write(1, f"{time.monotonic()}\\n".encode())

async def coroutine(job):
    started.set()
    assert job.data["i"] >= 0
    await asyncio.sleep(0 if job.data["i"] % 2 else 0.005)

def function(job):
    started.set()
    until = time.monotonic() + 0.01
    while time.monotonic() < until:
        assert job.id and job.name == "n" and job._payload()

def leave_by(exit):
    def handler(job):
        leaving()
        exit(7)
    return handler

def interrupt(number):
    raise KeyboardInterrupt

async def interrupted(job):
    leaving()
    interrupt(7)

HANDLERS = {
    "threads": function,
    "loop in a daemon thread, functions": function,
    "an interrupt in a coroutine": interrupted,
    "an interrupt in a thread": leave_by(interrupt),
    "os._exit in a thread": leave_by(os._exit),
}
worker = Worker(name, HANDLERS.get(kind, coroutine), redis_url=url, concurrency=20)

async def feed():
    while True:
        await queue.add_bulk(jobs)
        await queue.add("n", {"i": 0})

async def main():
    feeding = asyncio.create_task(feed())
    running = asyncio.create_task(worker.run())
    while not started.is_set():
        await asyncio.sleep(0.001)
    if kind.endswith((" coroutine", " thread")):
        await running
    await asyncio.sleep(moment)
    leaving()
    if kind == "an error":
        raise SystemExit("an error")
    if kind == "an interrupt":
        os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)

async def adding():
    calls = [asyncio.create_task(queue.add("n", {"i": i})) for i in range(500)]
    await asyncio.sleep(moment / 5)
    leaving()
    if kind == "os._exit during adds":
        os._exit(7)

if kind.startswith("loop in a daemon thread"):
    threading.Thread(target=lambda: asyncio.run(main()), daemon=True).start()
    started.wait()
    time.sleep(moment / 2)
    leaving()
elif kind == "loop left open":
    loop = asyncio.new_event_loop()
    loop.run_until_complete(main())
elif "adds" in kind:
    asyncio.run(adding())
else:
    asyncio.run(main())
"""

KINDS = {
    "coroutines": 0,
    "threads": 0,
    "adds": 0,
    "loop left open": 0,
    "loop in a daemon thread": 0,
    "loop in a daemon thread, functions": 0,
    "an error": 1,
    "an interrupt": -signal.SIGINT,
    "an interrupt in a coroutine": -signal.SIGINT,
    "an interrupt in a thread": -signal.SIGINT,
    "os._exit in a thread": 7,
    "os._exit during adds": 7,
}


@pytest.mark.any_server
@pytest.mark.parametrize("kind", KINDS)
def test_exits_neither_crash_nor_hang(redis_server: Server, queue_name: str, kind: str) -> None:
    queue = queue_name.replace(" ", "-")

    def leave(number: int) -> None:
        # At many moments of the work, not always the same one.
        moment = number / EXITS * 0.05
        command = [sys.executable, "-c", PROGRAM, redis_server.url, queue, kind, str(moment)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=20)
        seconds = time.monotonic() - float(result.stdout.split()[0])
        assert result.returncode == KINDS[kind], result
        assert "Fatal" not in result.stderr
        assert "panicked" not in result.stderr
        assert seconds < SECONDS, result

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(leave, range(EXITS)))
