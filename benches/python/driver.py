"""What every queue's driver shares: how the harness tells it what to do, and what its handlers note.

A driver is a program with two roles. `adder` carries out one order a line of its standard input and
answers each with a line of JSON; `worker` runs jobs until it is killed. What a handler sees goes
straight to memory that the harness reads, so that threads, forked processes and event loops alike
are timed by the same few instructions.
"""

import asyncio
import json
import math
import mmap
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

Data = dict[str, Any]
Handler = Callable[[Data], None]

LANES = 50
"""How many adds wait at a time when adds are concurrent."""


class Flaky(Exception):
    """The first run of a job that is to fail once."""


def _array(name: str) -> "memoryview[int]":
    """Return an array of numbers that all processes of a run share."""
    with Path(os.environ["BENCH_ARENA"], name).open("r+b") as file:
        return memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")


added = _array("added")
"""When each job was added, or was due, in nanoseconds of the monotonic clock."""
started = _array("started")
"""When each job's last run began."""
failed = _array("failed")
"""Whether a job has failed once."""


def seen(data: Data) -> None:
    """Do nothing but note that the job has started."""
    started[data["i"]] = time.monotonic_ns()


def seen_or_flaky(data: Data) -> None:
    """Fail the first run of every other job; note the others."""
    index = data["i"]
    if index & 1 and not failed[index]:
        failed[index] = 1
        raise Flaky
    started[index] = time.monotonic_ns()


class Driver:
    """A queue as the harness uses it; what a queue lacks is not overridden, and not measured."""

    package = ""
    """The package whose version is reported."""
    blocks = False
    """Whether `add` blocks, so that concurrent adds need threads."""
    retries = False
    """Whether a job that fails once is run again, about 100 ms later."""

    def __init__(self, url: str, variant: str) -> None:
        self.url = url
        self.variant = variant
        self.storm = False

    def offers(self) -> bool:
        """Whether the installed version has this variant."""
        return True

    async def open(self) -> None:
        """Connect, to add jobs."""

    async def add(self, data: Data) -> None:
        """Add one job."""
        raise NotImplementedError

    async def add_each(self, jobs: Sequence[Data]) -> None:
        """Add one job after another."""
        for job in jobs:
            await self.add(job)

    async def add_many(self, batch: Sequence[Data]) -> None:
        """Add many jobs with one call."""
        raise NotImplementedError

    async def add_at(self, batch: Sequence[Data], due: float) -> None:
        """Add jobs that become due at this time, in seconds since the epoch."""
        raise NotImplementedError

    def work(self, handler: Handler) -> None:
        """Run the handler on every job until killed."""
        raise NotImplementedError

    def abilities(self) -> list[str]:
        """Return what can be measured."""
        own = type(self)
        found = {
            "bulk": own.add_many is not Driver.add_many,
            "delayed": own.add_at is not Driver.add_at,
            "storm": own.retries,
        }
        return [name for name, has in found.items() if has]


class Adder:
    """Carries out what the harness orders."""

    def __init__(self, driver: Driver) -> None:
        self.driver = driver
        self.bulk = "bulk" in driver.abilities()

    async def one(self, jobs: list[Data]) -> None:
        """Add one job after another."""
        await self.driver.add_each(jobs)

    async def lanes(self, jobs: list[Data]) -> None:
        """Keep 50 adds waiting at a time."""
        if self.driver.blocks:
            with ThreadPoolExecutor(LANES) as pool:
                lanes = [pool.submit(asyncio.run, self.one(jobs[at::LANES])) for at in range(LANES)]
            for lane in lanes:
                lane.result()
        else:
            await asyncio.gather(*(self.one(jobs[at::LANES]) for at in range(LANES)))

    async def many(self, jobs: list[Data], size: int) -> None:
        """Add jobs, `size` a call."""
        for at in range(0, len(jobs), size):
            await self.driver.add_many(jobs[at : at + size])

    async def load(self, jobs: list[Data]) -> None:
        """Add jobs the fastest way there is."""
        await (self.many(jobs, 1000) if self.bulk else self.lanes(jobs))

    async def paced(self, jobs: list[Data], rate: float) -> None:
        """Add so many jobs a second, and note when each add was called."""
        begin = time.monotonic()
        for count, job in enumerate(jobs):
            await asyncio.sleep(max(0.0, begin + count / rate - time.monotonic()))
            added[job["i"]] = time.monotonic_ns()
            await self.driver.add(job)

    async def delayed(self, jobs: list[Data], lead: float) -> None:
        """Add jobs that all become due at the full second that is at least `lead` seconds away."""
        due = math.ceil(time.time() + lead)
        clock = time.monotonic_ns() + int((due - time.time()) * 1e9)
        for job in jobs:
            added[job["i"]] = clock
        for at in range(0, len(jobs), 1000):
            await self.driver.add_at(jobs[at : at + 1000], due)
        if time.time() > due:
            raise TimeoutError(f"{len(jobs)} delayed jobs took more than {lead} s to add")

    async def carry_out(self, order: dict[str, Any]) -> dict[str, float]:
        """Add the jobs of an order; return what that took."""
        first, count = order["first"], order["count"]
        pad = {"pad": "x" * order["pad"]} if order.get("pad") else {}
        jobs = [{"i": index, **pad} for index in range(first, first + count)]
        self.driver.storm = bool(order.get("storm"))
        way = getattr(self, order["way"])
        begin, cpu = time.monotonic(), time.process_time()
        await way(jobs, *order.get("args", ()))
        return {
            "seconds": time.monotonic() - begin,
            "cpu": time.process_time() - cpu,
            "rss_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        }

    async def serve(self) -> None:
        """Carry out one order a line."""
        await self.driver.open()
        answer: dict[str, Any] = {
            "version": version(self.driver.package),
            "abilities": self.driver.abilities(),
        }
        while True:
            print(json.dumps(answer), flush=True)
            line = await asyncio.to_thread(sys.stdin.readline)
            if not line:
                return
            try:
                answer = dict(await self.carry_out(json.loads(line)))
            except Exception as error:
                answer = {"error": f"{type(error).__name__}: {error}"}


def main(kind: type[Driver]) -> None:
    """Play the role that the command line names: `adder` or `worker`, URL, variant, workload."""
    role, url, variant, workload = sys.argv[1:5]
    driver = kind(url, variant)
    if not driver.offers():
        print(json.dumps({"missing": variant}))
    elif role == "adder":
        asyncio.run(Adder(driver).serve())
        # What a queue leaves running is no concern of anybody's any more.
        sys.stdout.flush()
        os._exit(0)
    else:
        driver.work(seen_or_flaky if workload == "storm" else seen)
