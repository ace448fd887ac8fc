"""``embedded://``: a development server that lives as long as a queue or worker uses it."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from chasquimq import Job, Queue, Worker, errors
from support.kinds import chosen_server
from working import eventually

pytestmark = pytest.mark.any_server


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home of its own for the embedded servers of a test."""
    monkeypatch.delenv("CHASQUIMQ_URL", raising=False)
    monkeypatch.setenv("CHASQUIMQ_EMBEDDED_HOME", str(tmp_path))
    monkeypatch.setenv("CHASQUIMQ_EMBEDDED_SERVER", str(chosen_server().path))
    yield tmp_path
    _chasqui("stop")


def _chasqui(command: str) -> str:
    chasqui = Path(sys.executable).parent / "chasqui"
    return subprocess.check_output([chasqui, "embedded", command], text=True, timeout=20)


async def _seen(queue: str, url: str | None) -> list[Job]:
    jobs: list[Job] = []

    async def handler(job: Job) -> None:
        jobs.append(job)

    async with Worker(queue, handler, redis_url=url):
        await eventually(lambda: jobs, "the job")
    return jobs


async def test_it_runs_while_used_and_keeps_its_data() -> None:
    async with Queue("q", redis_url="embedded://") as queue:
        await queue.add("n", "kept")
        assert "running" in _chasqui("status")
    assert "stopped" in _chasqui("status")
    (job,) = await _seen("q", "embedded://")
    assert job.data == "kept"


async def test_without_a_url_a_running_one_is_joined_and_none_is_started() -> None:
    async with Queue("q", redis_url="embedded://") as queue:
        await queue.add("n", "found")
        (job,) = await _seen("q", None)
        assert job.data == "found"
    idle = Queue("q")
    with pytest.raises(errors.ConnectionFailed):
        # Nothing listens there on the machines that run this, and nothing may be started here.
        await idle.add("n", 1)
    assert "stopped" in _chasqui("status")


async def test_it_outlives_a_forgotten_queue_by_little() -> None:
    queue = Queue("q", redis_url="embedded://")
    await queue.add("n", 1)
    del queue
    await asyncio.sleep(0)
    async with Queue("q", redis_url="embedded://") as queue:
        await queue.add("n", 2)


async def test_production_has_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CHASQUIMQ_ENV", "production")
    with pytest.raises(errors.EmbeddedServerError, match="CHASQUIMQ_URL"):
        await Queue("q", redis_url="embedded://").add("n", 1)
