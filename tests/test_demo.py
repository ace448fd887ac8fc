"""The main job on real input: the demo and its short form, as users run them."""

import subprocess
import sys
from pathlib import Path

import pytest

from support.server import Server

EXAMPLE = Path(__file__).parents[1] / "python" / "examples" / "index_stdlib.py"


def rows(output: str) -> dict[str, int]:
    """The numbers of the table's whole-number rows."""
    cells = (line.rsplit(None, 1) for line in output.splitlines())
    return {c[0].strip(): int(c[1]) for c in cells if len(c) == 2 and c[1].isdecimal()}


@pytest.mark.any_server
@pytest.mark.timeout(180)
def test_the_demo_parses_the_standard_library_and_its_sums_agree(own_server: Server) -> None:
    run = [sys.executable, "-m", "chasquimq.demo", "--url", own_server.url]
    first = subprocess.run(run, capture_output=True, text=True, timeout=150)
    assert first.returncode == 0, first.stderr
    table = rows(first.stdout)
    assert table["jobs"] > 500
    assert table["ok"] + table["dead"] == table["jobs"]
    assert table["retried"] >= table["dead"]
    assert "done + dead = enqueued" in first.stdout
    dlq = own_server.command("XLEN", "{chasqui:demo}:dlq")
    assert dlq == table["dead"]


@pytest.mark.any_server
@pytest.mark.timeout(180)
def test_the_example_does_the_same_in_under_sixty_lines(own_server: Server) -> None:
    assert len(EXAMPLE.read_text().splitlines()) < 60
    run = [sys.executable, str(EXAMPLE), own_server.url]
    done = subprocess.run(run, capture_output=True, text=True, timeout=150)
    assert done.returncode == 0, done.stderr
    assert "functions" in done.stdout
