"""Which servers there are on this machine, and which one the tests are to use."""

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

PREFERRED = "redis-7.0"
"""What most people run; so it is the default."""

BINARIES = ("redis-server", "valkey-server")
REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class ServerKind:
    """A server binary and the name by which the tests call it, such as ``redis-7.0``."""

    name: str
    path: Path

    def has_tls(self) -> bool:
        """Whether it is built with TLS; of the servers that tests/servers/fetch gets."""
        return self.name not in ("redis-6.2", "redis-8.2", "valkey-8.1")

    def version(self) -> str:
        """What the binary says, such as ``7.0.15``."""
        text = subprocess.check_output([str(self.path), "--version"], text=True, timeout=10)
        found = re.search(r" v=([\d.]+)", text)
        if found is None:
            raise RuntimeError(f"{self.path} tells no version: {text!r}")
        return found[1]


def all_servers() -> list[ServerKind]:
    """Return those that ``CHASQUIMQ_TEST_SERVERS`` lists (``name=path``, joined as in ``PATH``).

    Without that variable those of the cache folder, and without any there those on ``PATH``.
    """
    listed = os.environ.get("CHASQUIMQ_TEST_SERVERS")
    if listed is not None:
        pairs = (pair.partition("=") for pair in listed.split(os.pathsep) if pair)
        return [ServerKind(name, Path(path)) for name, _, path in pairs]
    cache = Path(os.environ.get("CHASQUIMQ_CACHE", REPOSITORY / ".cache"))
    found = sorted(path for name in BINARIES for path in cache.glob(f"servers/*/{name}"))
    if found:
        return [ServerKind(path.parent.name, path) for path in found]
    paths = ((name, shutil.which(name)) for name in BINARIES)
    return [ServerKind(name, Path(path)) for name, path in paths if path]


def chosen_server() -> ServerKind:
    """Return the one that ``CHASQUIMQ_TEST_SERVER`` names, else Redis 7.0, else the first."""
    servers = {kind.name: kind for kind in all_servers()}
    if not servers:
        raise RuntimeError("no Redis or Valkey server on this machine: run tests/servers/fetch")
    wanted = os.environ.get("CHASQUIMQ_TEST_SERVER")
    if wanted is None:
        return servers.get(PREFERRED) or next(iter(servers.values()))
    if wanted not in servers:
        raise RuntimeError(f"CHASQUIMQ_TEST_SERVER names {wanted!r}; there are {list(servers)}")
    return servers[wanted]
