"""One plain RESP2 connection, apart from everything under test."""

import socket
from pathlib import Path
from typing import Any, BinaryIO

PATIENCE = 10.0
"""Seconds; a server that has not answered by then hangs."""


class ReplyError(Exception):
    """What the server answered instead of a reply, with its prefix: ``WRONGTYPE …``."""


class Connection:
    """A connection to a server's Unix socket, opened at once."""

    def __init__(self, path: Path, password: str | None = None) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.settimeout(PATIENCE)
        self._socket.connect(str(path))
        self._source: BinaryIO = self._socket.makefile("rb")
        if password is not None:
            self.command("AUTH", password)

    def command(self, *args: str | bytes | float) -> Any:
        """Send a command; return text, bytes, int, None or a list of these.

        Raises ``ReplyError`` when the server answers with an error, ``OSError`` when it does not answer.
        """
        words = [arg if isinstance(arg, bytes) else str(arg).encode() for arg in args]
        request = b"".join(b"$%d\r\n%b\r\n" % (len(word), word) for word in words)
        self._socket.sendall(b"*%d\r\n%b" % (len(words), request))
        reply = self._read()
        if isinstance(reply, ReplyError):
            raise reply
        return reply

    def close(self) -> None:
        """Close the connection."""
        self._source.close()
        self._socket.close()

    def _read(self) -> Any:
        line = self._source.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the connection")
        kind, rest = line[:1], line[1:-2]
        match kind:
            case b"+":
                return rest.decode()
            case b"-":
                return ReplyError(rest.decode(errors="replace"))
            case b":":
                return int(rest)
            case b"$":
                return self._read_bytes(int(rest))
            case b"*":
                return None if int(rest) < 0 else [self._read() for _ in range(int(rest))]
        raise ValueError(f"not RESP2: {line!r}")

    def _read_bytes(self, length: int) -> bytes | None:
        if length < 0:
            return None
        data = self._source.read(length + 2)
        if len(data) < length + 2:
            raise ConnectionResetError("the server closed the connection")
        return data[:-2]
