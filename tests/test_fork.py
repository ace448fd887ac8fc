"""A fork after use: what the child inherited is refused clearly, and what it makes itself works. A fork
before use, as servers of web applications do it, changes nothing.
"""

import subprocess
import sys

from support.server import Server
from working import stream_len

PROGRAM = """
import asyncio, os, sys, threading, time, traceback
from chasquimq import Queue, Worker
from chasquimq.errors import ChasquiError

url, name = sys.argv[1:]
queue = Queue(name, redis_url=url)
seen = []

async def handler(job):
    seen.append(job.data)

worker = Worker(name, handler, redis_url=url)

def until(count):
    while len(seen) < count:
        time.sleep(0.01)

async def child():
    for use in (queue.add("n", "inherited"), worker.run()):
        try:
            await use
        except ChasquiError as error:
            assert "was used before fork(); create it in the child" in str(error), error
        else:
            raise AssertionError("the inherited object was not refused")
    async with Queue(name, redis_url=url) as fresh:
        await fresh.add("n", "from the child")

def in_child():
    try:
        asyncio.run(child())
    except BaseException:
        traceback.print_exc()
        os._exit(1)
    os._exit(0)

asyncio.run(queue.add("n", "from the parent"))
thread = threading.Thread(target=lambda: asyncio.run(worker.run()), daemon=True)
thread.start()
until(1)
pid = os.fork()
if pid == 0:
    in_child()
assert os.waitpid(pid, 0)[1] == 0
until(2)
asyncio.run(queue.add("n", "again from the parent"))
until(3)
print(seen)
"""


def test_a_child_is_refused_what_its_parent_used(redis_server: Server, queue_name: str) -> None:
    result = subprocess.run(
        [sys.executable, "-c", PROGRAM, redis_server.url, queue_name],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['from the parent', 'from the child', 'again from the parent']\n"


PRELOADED = """
import asyncio, os, sys, traceback
from chasquimq import Queue, SyncQueue

url, name = sys.argv[1:]
queue, blocking = Queue(name, redis_url=url), SyncQueue(name, redis_url=url)

async def use():
    async with queue:
        await queue.add("n", 1)

for _ in range(2):
    pid = os.fork()
    if pid == 0:
        try:
            blocking.add("n", 2)
            blocking.close()
            asyncio.run(use())
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    assert os.waitpid(pid, 0)[1] == 0
blocking.add("n", 3)
asyncio.run(use())
"""


def test_queues_that_were_made_and_not_used_work_in_every_child(
    redis_server: Server, queue_name: str
) -> None:
    subprocess.run(
        [sys.executable, "-c", PRELOADED, redis_server.url, queue_name], check=True, timeout=30
    )
    assert stream_len(redis_server, queue_name) == 6
