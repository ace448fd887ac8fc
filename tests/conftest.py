"""Servers and queue names for all Python tests.

Which server it is says the environment: ``CHASQUIMQ_TEST_SERVER`` names one of ``support.kinds.all_servers``.
"""

import itertools
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from typing import Protocol

import pytest

from support.kinds import chosen_server
from support.server import Server

_queues = itertools.count(1)


class StartServer(Protocol):
    """Starts a server that is closed when the test ends."""

    def __call__(self, *, aof: bool = False, config: Mapping[str, str] | None = None) -> Server:
        """See ``Server``."""


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker by which tests/run leaves tests out on all servers but the first."""
    config.addinivalue_line("markers", "any_server: the result does not depend on the server")


def pytest_report_header() -> str:
    """Say at the head of a run which server it uses."""
    kind = chosen_server()
    return f"server: {kind.name} ({kind.path})"


@pytest.fixture(scope="session")
def redis_server() -> Iterator[Server]:
    """One server for all tests: no FLUSHALL, no CONFIG SET, no kill."""
    with Server() as server:
        yield server


@pytest.fixture
def start_server() -> Iterator[StartServer]:
    """Starts servers for this test alone: ``start_server(aof=True, config={"maxmemory": "1mb"})``."""
    with ExitStack() as servers:

        def start(*, aof: bool = False, config: Mapping[str, str] | None = None) -> Server:
            return servers.enter_context(Server(aof=aof, config=config))

        yield start


@pytest.fixture
def own_server(start_server: StartServer) -> Server:
    """A server for this test alone, without persistence: hurt it as you like."""
    return start_server()


@pytest.fixture
def queue_name(request: pytest.FixtureRequest) -> str:
    """A queue name that no other test of this run uses."""
    test = re.sub(r"[^A-Za-z0-9_]+", "-", request.node.name)[:60]
    return f"{test}-{os.getpid()}-{next(_queues)}"
