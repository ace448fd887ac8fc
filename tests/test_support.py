"""The servers of the tests themselves: they start, are hurt, come back and never outlive the tests."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from conftest import StartServer
from support.resp import ReplyError
from support.server import Server


def test_servers_of_ones_own_share_nothing(redis_server: Server, own_server: Server) -> None:
    own_server.command("SET", "key", b"\x00\r\n")
    assert own_server.command("GET", "key") == b"\x00\r\n"
    assert redis_server.command("GET", "key") is None
    assert f"_version:{own_server.version}\r\n".encode() in own_server.command("INFO", "server")


@pytest.mark.parametrize(("aof", "kept"), [(True, b"value"), (False, None)])
def test_only_an_aof_keeps_data_over_a_restart(
    start_server: StartServer, aof: bool, kept: bytes | None
) -> None:
    server = start_server(aof=aof)
    server.command("SET", "key", "value")
    port = server.port
    server.restart()
    assert server.port == port
    assert server.command("GET", "key") == kept


def test_a_killed_server_is_unreachable_until_it_is_restarted(own_server: Server) -> None:
    own_server.kill9()
    with pytest.raises(OSError):
        own_server.command("PING")
    squatter = socket.create_server(("127.0.0.1", own_server.port))
    threading.Timer(0.2, squatter.close).start()
    own_server.restart()
    assert own_server.command("PING") == "PONG"


def test_a_stopped_server_answers_once_it_goes_on(own_server: Server) -> None:
    own_server.stop_signal()
    started = time.monotonic()
    threading.Timer(0.2, own_server.cont).start()
    assert own_server.command("PING") == "PONG"
    assert time.monotonic() - started > 0.15


def test_the_configuration_holds(start_server: StartServer) -> None:
    server = start_server(config={"maxmemory": "1mb", "requirepass": "secret"})
    assert server.command("CONFIG", "GET", "maxmemory") == [b"maxmemory", b"1048576"]
    with pytest.raises(ReplyError, match="^WRONGPASS"):
        server.command("AUTH", "wrong")


def test_queue_names_are_valid(queue_name: str) -> None:
    assert queue_name.startswith(f"test_queue_names_are_valid-{os.getpid()}-")


def test_no_server_outlives_a_killed_process() -> None:
    program = (
        "from support.server import Server; s = Server(); print(s.folder, flush=True); input()"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", program],
        cwd=Path(__file__).parent,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert holder.stdout is not None
    folder = Path(holder.stdout.readline().strip())
    assert (folder / "server.sock").exists()
    holder.send_signal(signal.SIGKILL)
    holder.communicate(timeout=5)
    deadline = time.monotonic() + 5
    while folder.exists():  # removed after the server
        assert time.monotonic() < deadline
        time.sleep(0.01)
