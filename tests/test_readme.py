"""The README's examples run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.server import Server

README = Path(__file__).parents[1] / "README.md"


def test_the_python_example_runs(own_server: Server) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    done = subprocess.run(
        [sys.executable, "-c", example],
        env={**os.environ, "CHASQUIMQ_URL": own_server.url},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["Hello, Ada! (run 1)", "Hello, Grace! (run 1)"]


def test_every_figure_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "engine.md").read_text()
    table = README.read_text().partition("## Figures")[2].partition("## Servers")[0]
    figures = re.findall(r"\d[\d,]*\.\d+|\d+,\d{3}(?! \|)", table.partition("|---|")[2])
    assert len(figures) > 10
    assert [figure for figure in figures if f" {figure} " not in results] == []
