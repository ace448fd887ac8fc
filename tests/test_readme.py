"""The README's examples run as printed."""

import os
import re
import subprocess
import sys
from pathlib import Path

from support.server import Server

README = Path(__file__).parents[1] / "README.md"


def test_the_python_examples_run(own_server: Server, tmp_path: Path) -> None:
    adding, working, blocking, following = re.findall(
        r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL
    )
    environment = {**os.environ, "CHASQUIMQ_URL": own_server.url, "PYTHONUNBUFFERED": "1"}

    def said(example: str) -> list[str]:
        command = [sys.executable, "-c", example]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=30)
        assert done.returncode == 0, done.stderr
        return done.stdout.splitlines()

    assert said(adding) == ["Hello, Ada! (run 1)", "Hello, Grace! (run 1)"]
    (added,) = said(blocking)
    assert re.fullmatch(r"greet: [0-9A-Z]{26}", added)
    assert own_server.command("XLEN", "{chasqui:emails}:stream") == 1
    follower = subprocess.Popen(
        [sys.executable, "-c", following], env=environment, stdout=subprocess.PIPE, text=True
    )
    assert follower.stdout is not None
    told = [follower.stdout.readline().split(" ", 2) for _ in range(3)]
    follower.kill()
    follower.communicate(timeout=10)
    assert sorted(name for name, _, _ in told) == ["completed", "completed", "delayed"]
    assert sum("'delay_ms': '500'" in fields for _, _, fields in told) == 1
    (tmp_path / "greetings.py").write_text(working)
    (command,) = re.findall(r"^chasqui (worker \S+)", README.read_text(), flags=re.MULTILINE)
    worker = subprocess.Popen(
        [Path(sys.executable).parent / "chasqui", *command.split()],
        env=environment,
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert worker.stdout is not None
    assert worker.stdout.readline() == "Hello, Edith!\n"
    worker.terminate()
    assert worker.wait(timeout=30) == 0
    assert own_server.command("XLEN", "{chasqui:emails}:stream") == 0


def test_every_figure_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "engine.md").read_text()
    table = README.read_text().partition("## Figures")[2].partition("\n## ")[0]
    figures = re.findall(r"-?\d[\d,]*\.\d+|\d+(?:,\d{3})+(?! \|)", table.partition("|---|")[2])
    assert len(figures) > 10
    assert [figure for figure in figures if f" {figure} " not in results] == []


def test_every_row_about_faults_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "chaos.md").read_text()
    section = README.read_text().partition("## Faults")[2].partition("## ")[0]
    measured = [_cells(line) for line in results.splitlines() if line.startswith("| ")]
    quoted = [_cells(line) for line in section.splitlines() if line.startswith("| ")][1:]
    columns = [measured[0].index(name) for name in QUOTED]
    assert len(quoted) > 5
    assert [
        row for row in quoted if row not in [[row[at] for at in columns] for row in measured]
    ] == []


def test_every_figure_about_the_long_run_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "soak.md").read_text()
    paragraphs = README.read_text().split("\n\n")
    (section,) = [paragraph for paragraph in paragraphs if "soak.md" in paragraph]
    figures = re.findall(r"-?\d[\d,]*\.\d+|\d+(?:,\d{3})+", section)
    assert len(figures) > 4
    assert [figure for figure in figures if f" {figure} " not in results] == []


def test_every_figure_about_other_queues_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "compare.md").read_text()
    section = README.read_text().partition("## Beside other queues")[2].partition("## ")[0]
    head, _, *rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    columns = [_column(results, *COMPARED[name]) for name in head[1:]]
    assert len(rows) > 10
    assert [
        (row, column.get(row[0], ""))
        for row in rows
        for cell, column in zip(row[1:], columns, strict=True)
        if cell != column.get(row[0], "")
    ] == []


def test_what_is_said_of_four_processes_comes_from_the_results() -> None:
    results = (README.parent / "benches" / "results" / "compare.md").read_text()
    text = " ".join(README.read_text().split())
    (rate,) = re.findall(r"four worker processes .*? drain (\S+) times as fast as one", text)
    assert f"- jobs/s, times those of one process: {rate} (" in results


def _column(results: str, subject: str, unit: str) -> dict[str, str]:
    section = results.partition(f"\n## {subject}\n")[2].partition("\n## ")[0]
    head, _, *rows = [_cells(line) for line in section.splitlines() if line.startswith("|")]
    return {row[0]: row[head.index(unit)] for row in rows}


COMPARED = {
    "one add after another": ("add", "jobs/s"),
    "50 adds at a time": ("add concurrent", "jobs/s"),
    "1,000 a call": ("bulk 1000", "jobs/s"),
    "drained": ("drain", "jobs/s"),
    "add to start, ms": ("latency", "ms p99"),
    "late, ms": ("delayed", "late ms p99"),
}

QUOTED = [
    "queue",
    "server",
    "harm",
    "jobs",
    "network faults",
    "workers killed",
    "lost",
    "duplicates",
]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in line.strip("|").split("|")]
