"""``chasqui worker``: a process of workers, from the command line to its end."""

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from chasquimq import Queue
from support.server import Server
from working import pending, stream_len

CHASQUI = str(Path(sys.executable).parent / "chasqui")

PROGRAM = """
import asyncio
from chasquimq import Worker

async def wait(job):
    print("began", flush=True)
    await asyncio.sleep(job.data)
    print("ended", flush=True)

workers = [Worker(f"{queue}-{n}", wait, concurrency=1) for n in range(2)]
handler = wait
"""


@asynccontextmanager
async def serving(
    server: Server, queue_name: str, folder: Path, *options: str
) -> AsyncIterator[subprocess.Popen[str]]:
    """The program's process, killed if it has not ended."""
    (folder / "program.py").write_text(f"queue = {queue_name!r}\n{PROGRAM}")
    command = [CHASQUI, "worker", "program:workers", "--url", server.url, *options]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate(timeout=10)


async def begun(
    server: Server, queue_name: str, process: subprocess.Popen[str], *data: int
) -> None:
    """Give each of the two workers these jobs, and wait until each runs one."""
    for n in range(2):
        async with Queue(f"{queue_name}-{n}", redis_url=server.url) as queue:
            await queue.add_bulk({"name": "wait", "data": seconds} for seconds in data)
    assert process.stdout is not None
    assert [process.stdout.readline() for _ in range(2)] == ["began\n"] * 2


async def test_a_signal_lets_running_jobs_finish_and_hands_back_the_rest(
    redis_server: Server, queue_name: str, tmp_path: Path
) -> None:
    async with serving(redis_server, queue_name, tmp_path) as process:
        await begun(redis_server, queue_name, process, 1, 60, 60)
        process.terminate()
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "ended\n" * 2)
    for n in range(2):
        assert stream_len(redis_server, f"{queue_name}-{n}") == 2
        assert pending(redis_server, f"{queue_name}-{n}") == 0


@pytest.mark.parametrize("options", [[], ["--grace", "0"]])
async def test_a_second_signal_and_no_grace_hand_back_running_jobs_too(
    redis_server: Server, queue_name: str, tmp_path: Path, options: list[str]
) -> None:
    async with serving(redis_server, queue_name, tmp_path, *options) as process:
        await begun(redis_server, queue_name, process, 60)
        process.send_signal(signal.SIGINT)
        if not options:
            assert process.stderr is not None
            assert any("closing within 30 s" in line for line in process.stderr)
            process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert (process.returncode, said) == (0, "")
    for n in range(2):
        assert stream_len(redis_server, f"{queue_name}-{n}") == 1
        assert pending(redis_server, f"{queue_name}-{n}") == 0


@pytest.mark.any_server
@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("absent:worker", "there is no module 'absent' here or installed"),
        ("program", "program:worker is None; it must be a Worker, or a list of them"),
        ("program:handler", "program:handler is <function wait"),
        ("program:workers", "refused"),
    ],
)
def test_what_cannot_run_is_said_in_one_line(tmp_path: Path, place: str, said: str) -> None:
    (tmp_path / "program.py").write_text(f"queue = 'q'\n{PROGRAM}")
    environment = {**os.environ, "CHASQUIMQ_URL": "redis://127.0.0.1:1"}
    command = [CHASQUI, "worker", place]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("chasqui worker: ")
    assert said in last


@pytest.mark.any_server
def test_an_error_of_the_program_itself_keeps_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "program.py").write_text("import absent\n")
    command = [CHASQUI, "worker", "program"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "program.py" in done.stderr
    assert done.stderr.endswith("No module named 'absent'\n")
