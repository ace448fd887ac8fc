"""``chasqui worker``: a process of workers, from the command line to its end."""

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from chasquimq import Queue
from chasquimq._serve import TWICE
from support.server import Server
from working import key, pending, stream_len

CHASQUI = str(Path(sys.executable).parent / "chasqui")

PROGRAM = """
import asyncio, os, sys, time
from chasquimq import Worker

async def wait(job):
    print("began", flush=True)
    while not os.path.exists(job.data):
        await asyncio.sleep(0.01)
    how = open(job.data).read()
    if how == "interrupt":
        raise KeyboardInterrupt
    if how == "thread":
        await asyncio.to_thread(time.sleep, 600)
    if how == "exit":
        await asyncio.gather(leave())

async def leave():
    sys.exit(3)

workers = [Worker(f"{queue}-{n}", wait, concurrency=1) for n in range(2)]
handler = wait
"""


class Program:
    """The program's process: two workers, whose jobs end when the file that they name is there."""

    def __init__(self, server: Server, queue_name: str, folder: Path, *options: str) -> None:
        (folder / "program.py").write_text(f"queue = {queue_name!r}\n{PROGRAM}")
        command = [CHASQUI, "worker", "program:workers", "--url", server.url, *options]
        self._server = server
        self._queues = [f"{queue_name}-{n}" for n in range(2)]
        self._process = subprocess.Popen(
            command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def __enter__(self) -> "Program":
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate(timeout=10)

    async def begin(self, worker: int, *files: str) -> None:
        """Give a worker these jobs, and wait until it runs one."""
        async with Queue(self._queues[worker], redis_url=self._server.url) as queue:
            await queue.add_bulk({"name": "wait", "data": file} for file in files)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "began\n"

    def signal(self, number: int) -> None:
        self._process.send_signal(number)

    def says(self, text: str) -> None:
        """Wait until it logs this."""
        assert self._process.stderr is not None
        assert any(text in line for line in self._process.stderr)

    def is_running(self) -> bool:
        """Whether it has not ended."""
        return self._process.poll() is None

    def code(self) -> int:
        """Wait for its exit code."""
        return self._process.wait(timeout=20)

    def ready(self) -> list[int]:
        """Jobs that are ready, a queue each; none is held by anybody."""
        # A worker that ended before it had connected has left no stream.
        streams = [q for q in self._queues if self._server.command("EXISTS", key(q, "stream"))]
        assert [pending(self._server, queue) for queue in streams] == [0] * len(streams)
        return [stream_len(self._server, name) for name in self._queues]


async def test_a_signal_lets_running_jobs_finish_and_hands_back_the_rest(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    with Program(redis_server, queue_name, tmp_path) as program:
        for worker in range(2):
            await program.begin(worker, "done", "never", "never")
        program.signal(signal.SIGTERM)
        program.signal(signal.SIGTERM)  # some tools send it to the process and to its group
        program.says("closing within 30 s")
        (tmp_path / "done").touch()
        assert program.code() == 0
        assert program.ready() == [2, 2]


async def test_a_thread_that_a_handler_left_behind_holds_the_end_up_until_a_signal(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    (tmp_path / "thread").write_text("thread")
    with Program(redis_server, queue_name, tmp_path, "--grace", "0") as program:
        await program.begin(0, "thread")
        program.signal(signal.SIGTERM)
        signalled = time.monotonic()
        program.says("worker of queue")
        program.says("worker of queue")
        if time.monotonic() - signalled < TWICE / 2:  # on a slow machine it would be another one
            program.signal(signal.SIGTERM)
            assert program.is_running()
        await asyncio.sleep(2)  # until another signal is not the first one again
        assert program.is_running()
        program.signal(signal.SIGTERM)
        assert program.code() == -signal.SIGTERM
        assert program.ready() == [1, 0]


async def test_a_task_of_a_handler_that_exits_is_named(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    (tmp_path / "exit").write_text("exit")
    with Program(redis_server, queue_name, tmp_path) as program:
        await program.begin(0, "exit")
        program.says("a task that a handler has made raised SystemExit(3)")
        assert program.code() == 1
        assert program.ready() == [1, 0]


async def test_another_signal_hands_back_running_jobs_too(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    with Program(redis_server, queue_name, tmp_path) as program:
        for worker in range(2):
            await program.begin(worker, "never")
        program.signal(signal.SIGINT)
        program.says("closing within 30 s")
        await asyncio.sleep(2)  # until another signal is not the first one again
        program.signal(signal.SIGINT)
        assert program.code() == 0
        assert program.ready() == [1, 1]


async def test_without_grace_running_jobs_go_back_at_once(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    with Program(redis_server, queue_name, tmp_path, "--grace", "0") as program:
        for worker in range(2):
            await program.begin(worker, "never")
        program.signal(signal.SIGTERM)
        assert program.code() == 0
        assert program.ready() == [1, 1]


async def test_when_one_worker_fails_the_other_may_finish(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    (tmp_path / "fatal").write_text("interrupt")
    with Program(redis_server, queue_name, tmp_path) as program:
        await program.begin(1, "done")
        await program.begin(0, "fatal")
        program.says(f"worker of queue '{queue_name}-0' failed: KeyboardInterrupt()")
        (tmp_path / "done").touch()
        assert program.code() == -signal.SIGINT, "as Ctrl-C ends a program"
        assert program.ready() == [1, 0]


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("absent:worker", "there is no module 'absent' here or installed"),
        ("program", "program:worker does not exist; it must be a Worker, or a list of them"),
        ("./program", "'./program' is no MODULE:NAME, such as emails:worker for"),
        ("program.py", "'program.py' is no MODULE:NAME"),
        (":worker", "':worker' is no MODULE:NAME"),
        ("program:handler", "program:handler is <function wait"),
        ("program:workers", "refused"),
    ],
)
def test_what_cannot_run_is_said(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "program.py").write_text(f"queue = 'q'\n{PROGRAM}")
    environment = {**os.environ, "CHASQUIMQ_URL": "redis://127.0.0.1:1"}
    command = [CHASQUI, "worker", place]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("program", "said"),
    [
        ("import absent", "No module named 'absent'"),
        ("import chasquimq; worker = chasquimq.Worker('q', 5)", "5 cannot be a handler"),
    ],
)
def test_an_error_of_the_program_itself_keeps_its_traceback(
    tmp_path: Path, program: str, said: str
) -> None:
    (tmp_path / "program.py").write_text(f"{program}\n")
    command = [CHASQUI, "worker", "program"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "program.py" in done.stderr
    assert said in done.stderr.splitlines()[-1]
