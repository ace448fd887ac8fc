"""Index Python's standard library: one job a file, counted by a worker in this process.

python python/examples/index_stdlib.py [URL]     (default: the embedded server)
"""

import ast
import asyncio
import logging
import sys
import sysconfig
import warnings
from pathlib import Path

from chasquimq import BackoffSpec, Job, Queue, Worker

warnings.simplefilter("ignore")  # of the files that are parsed
logging.getLogger("chasquimq.jobs").setLevel(logging.CRITICAL)  # dead files are counted
found: dict[str, tuple[int, int]] = {}


def index(job: Job) -> None:
    """Count functions and classes. A file that does not parse raises, and is run again."""
    nodes = list(ast.walk(ast.parse(Path(job.data).read_bytes())))
    functions = sum(isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) for n in nodes)
    found[job.data] = functions, sum(isinstance(n, ast.ClassDef) for n in nodes)


def library() -> list[str]:
    """List the files of the standard library."""
    files = (str(path) for path in Path(sysconfig.get_path("stdlib")).rglob("*.py"))
    return [file for file in files if "site-packages" not in file]


async def main(url: str) -> int:
    """Add every file, work until each is found or dead, and tell."""
    files = library()
    retry = {"name": "index", "attempts": 2, "backoff": BackoffSpec.fixed(100)}
    async with Queue("index-stdlib", redis_url=url) as queue:
        old = {dead["dlq_id"] for dead in await queue.peek_dlq(limit=100_000)}
        jobs = await queue.add_bulk({**retry, "data": file} for file in files)
        dead = 0
        async with Worker("index-stdlib", index, redis_url=url, concurrency=4):
            while len(found) + dead < len(jobs):
                await asyncio.sleep(0.2)
                everyone = await queue.peek_dlq(limit=100_000)
                dead = sum(job["dlq_id"] not in old for job in everyone)
    functions, classes = (sum(column) for column in zip(*found.values(), strict=True))
    print(f"{len(jobs)} files: {len(found)} parsed, {dead} dead")
    print(f"{functions} functions, {classes} classes")
    return 0 if len(found) + dead == len(jobs) else 1


if __name__ == "__main__":
    sys.exit(asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "embedded://")))
