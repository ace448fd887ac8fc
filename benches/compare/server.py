"""The Redis server that is measured, on a core of its own."""

import os
import socket
import subprocess
import time
from pathlib import Path
from typing import Any

SERVER_CORE, CLIENT_CORE = 0, 1
KINDS = ("redis-8.6", "redis-8.2", "redis-7.0")
"""Those that tests/servers/fetch obtains, the newest first."""
START_SECONDS = 10.0


def pinned(core: int, command: list[str]) -> list[str]:
    """Return the command that runs it on this core alone."""
    return ["taskset", "--cpu-list", str(core), *command]


def newest(servers: Path) -> Path:
    """Return the server to measure: what CHASQUIMQ_TEST_SERVER names, else the newest there is."""
    for kind in filter(None, (os.environ.get("CHASQUIMQ_TEST_SERVER"), *KINDS)):
        for name in ("redis-server", "valkey-server"):
            if (servers / kind / name).exists():
                return servers / kind / name
    raise SystemExit(f"no server in {servers}: run tests/servers/fetch")


class Server:
    """A server without persistence, with what is asked of it between measurements."""

    def __init__(self, binary: Path) -> None:
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = int(free.getsockname()[1])
        self.url = f"redis://127.0.0.1:{self.port}"
        options = ["--port", str(self.port), "--save", "", "--appendonly", "no"]
        command = pinned(SERVER_CORE, [str(binary), *options])
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + START_SECONDS
        while True:
            try:
                self.socket = socket.create_connection(("127.0.0.1", self.port), timeout=30)
                break
            except ConnectionRefusedError:
                if time.monotonic() > deadline or self.process.poll() is not None:
                    raise
                time.sleep(0.01)
        self.reader = self.socket.makefile("rb")
        self.version = self.info("server").get("redis_version", "unknown")

    def call(self, *words: str) -> Any:
        """Send one command; return its simple, numeric or bulk reply."""
        parts = "".join(f"${len(word)}\r\n{word}\r\n" for word in words)
        self.socket.sendall(f"*{len(words)}\r\n{parts}".encode())
        line = self.reader.readline().decode().rstrip()
        if line.startswith("-"):
            raise RuntimeError(f"{words[0]}: {line[1:]}")
        if line.startswith("$"):
            return self.reader.read(int(line[1:]) + 2).decode()
        return line[1:]

    def info(self, section: str) -> dict[str, str]:
        """Return a section of INFO."""
        lines = str(self.call("INFO", section)).splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def cpu(self) -> float:
        """Return the CPU time it has taken, in seconds."""
        info = self.info("cpu")
        return float(info["used_cpu_sys"]) + float(info["used_cpu_user"])

    def memory(self) -> int:
        """Return the bytes it has allocated."""
        return int(self.info("memory")["used_memory"])

    def flush(self) -> None:
        """Forget everything."""
        self.call("FLUSHALL", "SYNC")

    def close(self) -> None:
        """End it."""
        self.socket.close()
        self.process.terminate()
        self.process.wait(timeout=START_SECONDS)
