"""A driver's processes: adders that take orders, and workers that run until they are killed."""

import json
import mmap
import os
import select
import signal
import subprocess
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from typing import Any

from peers import Peer
from server import CLIENT_CORE, Server, pinned

SLOTS = 200_001
"""How many jobs a measurement may have, and one that only shows that the worker is ready."""
WARM = SLOTS - 1
POLL_SECONDS = 0.01
READY_SECONDS = 20.0
ORDER_SECONDS = 60.0
TICK = os.sysconf("SC_CLK_TCK")


class Failed(Exception):
    """A measurement that came to nothing, and why."""


class Arena:
    """What handlers note, in memory shared with them (driver.py tells what)."""

    NAMES = ("added", "started", "failed")

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.arrays: dict[str, memoryview] = {}
        for name in self.NAMES:
            with (folder / name).open("w+b") as file:
                file.truncate(SLOTS * 8)
                self.arrays[name] = memoryview(mmap.mmap(file.fileno(), 0)).cast("Q")
        self.started = self.arrays["started"]

    def clear(self) -> None:
        """Forget what was noted."""
        for noted in self.arrays.values():
            noted[:] = memoryview(bytes(SLOTS * 8)).cast("Q")

    def times(self, name: str, count: int) -> "array[int]":
        """Return what was noted of the first jobs, in nanoseconds."""
        return array("Q", self.arrays[name][:count].tobytes())


class Session:
    """A process and all its children, on the client's core."""

    def __init__(
        self, peer: Peer, server: Server, arena: Arena, role: list[str], log: Path
    ) -> None:
        environment = {**os.environ, **peer.environment, "BENCH_ARENA": str(arena.folder)}
        with log.open("ab") as log_file:
            self.process = subprocess.Popen(
                pinned(CLIENT_CORE, [*peer.command, role[0], server.url, *role[1:]]),
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE if role[0] == "adder" else log_file,
                stderr=log_file,
                start_new_session=True,
                text=True,
            )

    def members(self) -> list[list[str]]:
        """Return the fields of /proc/<pid>/stat after the name, of each process."""
        found = []
        for path in Path("/proc").glob("[0-9]*/stat"):
            try:
                fields = path.read_text().rpartition(")")[2].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            if int(fields[3]) == self.process.pid:
                found.append([path.parent.name, *fields])
        return found

    def cpu(self) -> float:
        """Return the CPU time of all of them, ended children included, in seconds."""
        ticks = sum(sum(int(field) for field in member[12:16]) for member in self.members())
        return ticks / TICK

    def memory_mb(self) -> float:
        """Return what they hold together, shared pages counted once."""
        total = 0
        for pid, *_ in self.members():
            try:
                rollup = Path("/proc", pid, "smaps_rollup").read_text()
            except (FileNotFoundError, ProcessLookupError):
                continue
            total += int(rollup.partition("\nPss:")[2].split()[0])
        return total / 1024

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all of them."""
        for pid, *_ in self.members():
            try:
                os.kill(int(pid), number)
            except ProcessLookupError:
                continue

    def kill(self) -> None:
        """End all of them at once."""
        self.signal(signal.SIGKILL)
        self.process.wait(timeout=READY_SECONDS)


class Adder(Session):
    """Adds jobs when told to."""

    def __init__(self, peer: Peer, variant: str, server: Server, arena: Arena, log: Path) -> None:
        super().__init__(peer, server, arena, ["adder", variant, "add", str(SLOTS), "0"], log)
        hello = self._answer()
        self.missing = "missing" in hello
        self.version = str(hello.get("version", ""))
        self.abilities: list[str] = hello.get("abilities", [])

    def order(self, way: str, count: int, *args: float, **options: Any) -> dict[str, float]:
        """Have jobs added; return what that took."""
        first = options.pop("first", 0)
        told = {"way": way, "first": first, "count": count, "args": args, **options}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(told) + "\n")
        self.process.stdin.flush()
        return self._answer()

    def _answer(self) -> dict[str, Any]:
        assert self.process.stdout is not None
        ready, _, _ = select.select([self.process.stdout], [], [], ORDER_SECONDS)
        if not ready:
            raise Failed(f"the adder has not answered within {ORDER_SECONDS:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise Failed("the adder ended; its log tells why")
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise Failed(answer["error"])
        return answer


def wait_until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    """Wait for a condition, at most so long."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise Failed(f"{what}: not within {seconds:.0f} s")
        time.sleep(POLL_SECONDS)
