"""``chasqui demo``: parse Python's standard library with background jobs.

Each ``.py`` file is a job. Worker processes parse it and count functions and classes. Files that do
not parse are real failures: each is run twice, then it is in the dead-letter queue with its error.
"""

import argparse
import ast
import asyncio
import json
import logging
import os
import sys
import sysconfig
import time
import warnings
from asyncio.subprocess import PIPE, Process
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import BackoffSpec, Job, Queue, Worker
from ._serve import serve

QUEUE = "demo"
RUNS = 2
GRACE = 30.0
BAR = 32


@dataclass
class Tally:
    """What has become of the jobs of this run."""

    enqueued: int = 0
    done: dict[str, dict[str, Any]] = field(default_factory=dict)
    dead: dict[str, str] = field(default_factory=dict)
    first_start: float = 0.0
    last_end: float = 0.0

    @property
    def ended(self) -> int:
        """Jobs that are done or dead."""
        return len(self.done) + len(self.dead)

    def add(self, line: dict[str, Any]) -> None:
        """Count one finished file."""
        self.done[line["file"]] = line
        self.first_start = min(self.first_start or line["start"], line["start"])
        self.last_end = max(self.last_end, line["end"])


def sources() -> Iterator[str]:
    """Return every ``.py`` file of the running Python's standard library."""
    library = Path(sysconfig.get_path("stdlib"))
    for path in sorted(library.rglob("*.py")):
        if "site-packages" not in path.parts:
            yield str(path)


def parse(job: Job) -> None:
    """Parse one file, and tell the parent process what is in it."""
    start = time.time()
    source = Path(job.data["file"]).read_bytes()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        tree = ast.parse(source)
    kinds = Counter(type(node) for node in ast.walk(tree))
    line = {
        "run": job.data["run"],
        "file": job.data["file"],
        "functions": kinds[ast.FunctionDef] + kinds[ast.AsyncFunctionDef],
        "classes": kinds[ast.ClassDef],
        "lines": source.count(b"\n"),
        "retried": job.attempt > 0,
        "wait_ms": start * 1000 - job.created_at_ms,
        "start": start,
        "end": time.time(),
    }
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


async def work(url: str) -> None:
    """Run jobs until SIGTERM or Ctrl-C."""
    logging.getLogger("chasquimq.jobs").setLevel(logging.CRITICAL)  # the report names what failed
    worker = Worker(QUEUE, parse, redis_url=url, concurrency=4)
    failure = await serve([worker], GRACE)
    if failure is not None:
        raise failure


async def demo(url: str, processes: int) -> int:
    """Enqueue, let the workers run, report; 0 when done + dead = enqueued."""
    run = f"{time.time_ns():x}"
    tally = Tally()
    async with Queue(QUEUE, redis_url=url) as queue:
        old = len(await queue.peek_dlq(limit=100_000))
        if old:
            print(f"{old} dead jobs of earlier runs are in the dead-letter queue of {QUEUE!r}")
        files = list(sources())
        began = time.perf_counter()
        how = {"name": "parse", "attempts": RUNS, "backoff": BackoffSpec.fixed(200)}
        jobs = [{**how, "data": {"run": run, "file": file}} for file in files]
        tally.enqueued = len(await queue.add_bulk(jobs))
        took = time.perf_counter() - began
        print(f"{tally.enqueued} files enqueued in {took:.2f} s; {processes} processes parse them")
        workers = [await spawn(url) for _ in range(processes)]
        try:
            await follow(queue, run, tally, workers)
        finally:
            await end(workers)
    report(tally)
    return 0 if tally.ended == tally.enqueued else 1


async def spawn(url: str) -> Process:
    """Start one worker process."""
    return await asyncio.create_subprocess_exec(
        sys.executable, "-m", "chasquimq.demo", "--work", "--url", url, stdout=PIPE
    )


async def follow(queue: Queue, run: str, tally: Tally, workers: list[Process]) -> None:
    """Collect results until every job has ended, or no worker is left."""
    readers = [asyncio.create_task(collect(worker, run, tally)) for worker in workers]
    try:
        while tally.ended < tally.enqueued:
            await asyncio.wait(readers, timeout=0.2)
            tally.dead = await dead_of(queue, run)
            progress(tally)
            if all(reader.done() for reader in readers):
                break
    finally:
        for reader in readers:
            reader.cancel()
        progress(tally, last=True)


async def collect(worker: Process, run: str, tally: Tally) -> None:
    """Read what one worker process has done."""
    assert worker.stdout is not None
    async for text in worker.stdout:
        line = json.loads(text)
        if line["run"] == run:
            tally.add(line)


async def dead_of(queue: Queue, run: str) -> dict[str, str]:
    """Return the dead files of this run, each with the type of its error."""
    dead = await queue.peek_dlq(limit=100_000)
    mine = (job for job in dead if isinstance(job["data"], dict) and job["data"].get("run") == run)
    return {job["data"]["file"]: (job["detail"] or "").partition(":")[0] for job in mine}


async def end(workers: list[Process]) -> None:
    """Stop the worker processes and wait for them."""
    for worker in workers:
        if worker.returncode is None:
            worker.terminate()
    for worker in workers:
        await worker.wait()


def progress(tally: Tally, *, last: bool = False) -> None:
    """Draw the bar, on a terminal."""
    if not sys.stderr.isatty():
        return
    share = tally.ended / max(1, tally.enqueued)
    bar = "█" * round(share * BAR)
    end = "\n" if last else ""
    sys.stderr.write(f"\r{bar:░<{BAR}} {tally.ended}/{tally.enqueued}{end}")
    sys.stderr.flush()


def report(tally: Tally) -> None:
    """Print the table."""
    done = list(tally.done.values())
    waits = sorted(line["wait_ms"] for line in done) or [0.0]
    seconds = max(1e-9, tally.last_end - tally.first_start)
    rows: list[tuple[str, object]] = [
        ("jobs", tally.enqueued),
        ("ok", len(done)),
        ("retried", sum(line["retried"] for line in done) + len(tally.dead)),
        ("dead", len(tally.dead)),
        *((f"  {error}", count) for error, count in Counter(tally.dead.values()).most_common()),
        ("jobs/s", f"{tally.ended / seconds:,.0f}"),
        ("add to start, p50", f"{waits[len(waits) // 2]:,.0f} ms"),
        ("add to start, p99", f"{waits[len(waits) * 99 // 100]:,.0f} ms"),
        ("functions", f"{sum(line['functions'] for line in done):,}"),
        ("classes", f"{sum(line['classes'] for line in done):,}"),
        ("lines", f"{sum(line['lines'] for line in done):,}"),
    ]
    for name, value in rows:
        print(f"{name:<24}{value:>12}")
    missing = tally.enqueued - tally.ended
    print("done + dead = enqueued" if missing == 0 else f"{missing} jobs have not ended")


def main() -> int:
    """Run the demo, or one of its worker processes."""
    parser = argparse.ArgumentParser("chasqui demo", description=(__doc__ or "").partition("\n")[2])
    parser.add_argument("--url", default=os.environ.get("CHASQUIMQ_URL") or "embedded://")
    parser.add_argument("--processes", type=int, default=os.cpu_count() or 1)
    parser.add_argument("--work", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    try:
        if args.work:
            asyncio.run(work(args.url))
            return 0
        return asyncio.run(demo(args.url, max(1, args.processes)))
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
