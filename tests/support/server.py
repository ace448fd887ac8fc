"""A server of one's own: started, hurt, restarted, and gone when closed."""

import itertools
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from support.kinds import REPOSITORY, ServerKind, chosen_server
from support.resp import Connection, ReplyError

START = 10.0
"""Seconds that a server may take until it answers."""

EMPTY = '""'

WATCHDOG = REPOSITORY / "tests" / "servers" / "watchdog"


class PortTakenError(Exception):
    """The server found its port in use."""


class Server:
    """A server on 127.0.0.1 with a folder of its own, running from the start.

    ``aof`` keeps its data on disk, each write before its reply, so that ``restart`` loses nothing;
    ``config`` holds lines of its configuration file; with a certificate among them its port is one of
    TLS. It ends with this process, however that ends.
    """

    def __init__(
        self,
        kind: ServerKind | None = None,
        *,
        aof: bool = False,
        config: Mapping[str, str] | None = None,
    ) -> None:
        self.kind = kind or chosen_server()
        self.name = self.kind.name
        self.version = self.kind.version()
        self.folder = Path(tempfile.mkdtemp(prefix="chasquimq-test-"))
        self._config = {"appendonly": "yes" if aof else "no", **(config or {})}
        self._watchdog: subprocess.Popen[bytes] | None = None
        self._connection: Connection | None = None
        self.pid = 0
        self.port = 0
        try:
            self._start(_free_port)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def url(self) -> str:
        """``redis://127.0.0.1:port``, with a user when ``CHASQUIMQ_TEST_ACL`` tells of one."""
        return f"redis://{_login()}127.0.0.1:{self.port}"

    @property
    def admin_url(self) -> str:
        """The URL of the user who may do everything."""
        return f"redis://127.0.0.1:{self.port}"

    @property
    def socket(self) -> Path:
        """Its Unix socket."""
        return self.folder / "server.sock"

    def command(self, *args: str | bytes | float) -> Any:
        """Send a command over a connection apart from everything under test.

        Returns text, bytes, int, None or a list of these. Raises ``ReplyError`` when the server answers
        with an error, ``OSError`` when it is down or does not answer within 10 s.
        """
        if self._connection is not None:
            try:
                return self._connection.command(*args)
            except ConnectionError:  # from before a restart
                self._disconnect()
            except OSError:
                self._disconnect()
                raise
        self._connection = Connection(self.socket, self._config.get("requirepass"))
        return self._connection.command(*args)

    def kill9(self) -> None:
        """Kill it as the kernel would; nothing is flushed. Nothing happens when it is down."""
        self._disconnect()
        if self._watchdog is None:
            return
        self._watchdog.communicate(b"\n", timeout=START)
        self._watchdog = None

    def restart(self) -> None:
        """Start it again on its port, in its folder; kill it first when it runs."""
        self.kill9()
        self._start(lambda: self.port)

    def stop_signal(self) -> None:
        """Stop it where it stands: connections stay open, nothing is answered."""
        os.kill(self.pid, signal.SIGSTOP)

    def cont(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def close(self) -> None:
        """End it and remove its folder."""
        self.kill9()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, choose_port: Callable[[], int]) -> None:
        deadline = time.monotonic() + START
        while True:
            self.port = choose_port()
            try:
                return self._launch()
            except PortTakenError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.05)

    def _disconnect(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _launch(self) -> None:
        (self.folder / "server.conf").write_text(self._config_file())
        (self.folder / "server.log").write_bytes(b"")
        self._watchdog = subprocess.Popen(
            [WATCHDOG, self.folder, self.kind.path, self.folder / "server.conf"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            # Ctrl-C goes to pytest alone: the server must be there until the tests have ended.
            process_group=0,
        )
        assert self._watchdog.stdout is not None
        self.pid = int(self._watchdog.stdout.readline())
        try:
            self._await_answer()
        except PortTakenError:
            self.kill9()
            raise

    def _await_answer(self) -> None:
        deadline = time.monotonic() + START
        while not self._answers():
            log = (self.folder / "server.log").read_text(errors="replace")
            if "already in use" in log:
                raise PortTakenError(f"port {self.port} is taken")
            if time.monotonic() > deadline or "FATAL CONFIG" in log:
                raise RuntimeError(f"{self.kind.path} does not answer; its log:\n{log}")
            time.sleep(0.005)

    def _answers(self) -> bool:
        # Its Unix socket, since another server might answer on the port.
        try:
            connection = Connection(self.socket)
        except OSError:
            return False
        try:
            connection.command("PING")
        except ReplyError as error:
            return not str(error).startswith("LOADING")
        except OSError:
            return False
        finally:
            connection.close()
        return True

    def _config_file(self) -> str:
        fixed = {
            "bind": "127.0.0.1",
            "port": str(self.port),
            "unixsocket": str(self.socket),
            "dir": str(self.folder),
            "daemonize": "no",
            "save": "",
            "appendfsync": "always",
        }
        if "tls-cert-file" in self._config:
            fixed.update({"port": "0", "tls-port": str(self.port)})
        lines = {**fixed, **self._config}.items()
        user = f"user {rules}\n" if (rules := _rules()) else ""
        return "".join(f"{name} {value or EMPTY}\n" for name, value in lines) + user


def _rules() -> str:
    """Return name and rules of the user as whom everything under test connects; "": no such user.

    ``CHASQUIMQ_TEST_ACL`` is a command as ``chasqui acl print`` has it: ``ACL SETUSER name … >password …``.
    """
    return os.environ.get("CHASQUIMQ_TEST_ACL", "").removeprefix("ACL SETUSER ").strip()


def _login() -> str:
    if not (words := _rules().split()):
        return ""
    password = next(word for word in words if word.startswith(">"))
    return f"{words[0]}:{password[1:]}@"


_steps = itertools.count()


def _free_port() -> int:
    """Return a port below those that the kernel gives to outgoing connections.

    A client that dials a dead server on one of those may connect to itself and hold the port.
    """
    first, count = 12_000, 20_000
    for _ in range(count):
        # Processes that start together spread out by their ids.
        port = first + (os.getpid() * 61 + next(_steps)) % count
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port on 127.0.0.1")
