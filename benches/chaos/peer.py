"""What other queues' workers and producers share under faults: the jobs, and what is written down.

The runner, `chasquimq-chaos`, starts these programs as it starts its own processes, with the same
options, and reads the same lines: its `log.rs` tells what each means.
"""

import argparse
import asyncio
import hashlib
import itertools
import json
import os
import random
import sys
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

Result = TypeVar("Result")
Data = dict[str, Any]

MAX_ATTEMPTS = 3
CONCURRENCY = 10
MOST_OPEN = 64
NUMBERS = 1_000_000_000
"""Numbers of one producer's jobs begin here, times its own number."""


class Fails(Exception):
    """A job that is made to fail."""


def _fingerprint(data: Data) -> int:
    text = json.dumps(data, sort_keys=True).encode()
    return int.from_bytes(hashlib.blake2b(text, digest_size=6).digest(), "big")


def _order(rng: random.Random, number: int) -> tuple[Data, float]:
    """Return a job's data, and its delay in seconds: 10% fail once, 1% always, 5% are delayed."""
    draw, kind = rng.randrange(100), "Plain"
    if draw < 10:
        kind = "FailsOnce"
    elif draw == 10:
        kind = "Poison"
    elif draw < 16:
        kind = "Delayed"
    draw = rng.randrange(100)
    work = 0 if draw < 40 else rng.randrange(5, 60) if draw < 80 else rng.randrange(50, 300)
    data = {"n": number, "kind": kind, "work_ms": work, "filling": "x" * rng.randrange(200)}
    return data, rng.uniform(0.05, 3) if kind == "Delayed" else 0.0


class Log:
    """Appends each line with one write, so that a process that is killed leaves whole lines."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_CREAT | os.O_APPEND | os.O_WRONLY, 0o644)

    def write(self, line: str, /, **fields: Any) -> None:
        """Write a line of this sort; the time is now."""
        text = json.dumps({line: {**fields, "at": time.time_ns()}})
        os.write(self._file, text.encode() + b"\n")


class Handler:
    """Runs jobs, and writes down when each run begins and ends."""

    def __init__(self, worker: str, log: Log) -> None:
        self._worker, self._log = worker, log
        self._runs = itertools.count()

    async def run(self, data: Data, job_id: str, attempt: int) -> None:
        """Run a job that has failed so many times; raise `Fails` if it is made to."""
        run = next(self._runs)
        told = {"n": data["n"], "id": job_id, "hash": _fingerprint(data)}
        self._log.write("Started", worker=self._worker, run=run, **told, attempt=attempt, lost=0)
        await asyncio.sleep(data["work_ms"] / 1000)
        fails = data["kind"] == "Poison" or (data["kind"] == "FailsOnce" and attempt == 0)
        self._log.write("Finished", worker=self._worker, run=run, ok=not fails)
        if fails:
            raise Fails(f"job {data['n']} fails as it was made to")


Add = Callable[[Data, float], Awaitable[None]]


async def _produce(add: Add, log: Log, options: argparse.Namespace) -> None:
    rng = random.Random(options.seed + options.number)
    begin, pause = time.monotonic(), 1 / options.rate
    room = asyncio.Semaphore(MOST_OPEN)

    async def one(data: Data, delay: float) -> None:
        async with room:
            await _add(add, log, data, delay)

    async with asyncio.TaskGroup() as adds:
        for count in itertools.count():
            await asyncio.sleep(max(0.0, begin + count * pause - time.monotonic()))
            if time.monotonic() - begin >= options.millis / 1000:
                break
            adds.create_task(one(*_order(rng, options.number * NUMBERS + count)))


async def _add(add: Add, log: Log, data: Data, delay: float) -> None:
    told = {"n": data["n"], "key": None, "hash": _fingerprint(data), "kind": data["kind"]}
    log.write("Sent", **told, delay_ms=int(delay * 1000))
    try:
        await add(data, delay)
        answer = "Ok"
    except Exception as error:
        print(f"job {data['n']}: {type(error).__name__}: {error}", file=sys.stderr)
        # No queue but ours tells whether a job may have been added.
        answer = "Unknown"
    log.write("Answered", n=data["n"], answer=answer)


def _end_with_parent() -> None:
    """End when the runner does: it holds the other end of stdin."""
    while os.read(0, 1):
        pass
    os._exit(1)


Connect = Callable[[str], Awaitable[Add]]
Work = Callable[[str, Handler], Awaitable[None]]


async def _patiently(act: Callable[[], Awaitable[Result]]) -> Result:
    """Act until it works: a link may be harmed just now, and a worker that gives up is started anew."""
    while True:
        try:
            return await act()
        except Exception as error:  # noqa: PERF203
            print(f"once more after: {error}", file=sys.stderr)
            await asyncio.sleep(0.2)


def main(connect: Connect, work: Work) -> None:
    """Play the role that the command line names."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=["worker", "producer"])
    for name in ("--url", "--name", "--log"):
        parser.add_argument(name)
    for name in ("--number", "--seed", "--millis", "--rate"):
        parser.add_argument(name, type=int)
    options = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    log = Log(options.log)

    async def play() -> None:
        if options.role == "worker":
            handler = Handler(options.name, log)
            await _patiently(lambda: work(options.url, handler))
        else:
            await _produce(await _patiently(lambda: connect(options.url)), log, options)

    asyncio.run(play())
    os._exit(0)
