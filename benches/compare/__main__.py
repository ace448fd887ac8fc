"""Runs the same workloads on ChasquiMQ and on other queues, in alternation, and writes what they cost.

benches/run starts it, and tells what it does.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from chart import chart
from peers import REPOSITORY, Peer, load
from processes import Adder, Arena, Failed
from report import Report, is_met
from server import SERVER_CORE, Server, newest
from targets import hold
from workloads import Bench

ROUNDS = 9
"""Of a full run; those queues whose `rounds` are fewer take part in some of them."""
TITLES = {
    "add": "W1: one awaited add after another.",
    "add_concurrent": "W2: 50 adds at a time, in one event loop, or in 50 threads where adds block.",
    "bulk_50": "W2: 50 jobs a call, where a call takes many.",
    "bulk_1000": "W2: 1,000 jobs a call.",
    "drain": "W3: preloaded no-op jobs, drained by one process.",
    "four_processes": "W8: the same by four processes, which share the one core.",
    "large": "W6: the same with payloads of 10 KiB.",
    "latency": "W4: from the call of add to the start of the handler; an idle worker, 200 jobs a second.",
    "delayed": "W5: jobs that become due at one moment; late is from then to the start of the handler.",
    "storm": "W7: every other job fails once and is to run again after 0.1 s; the healthy ones are the others.",
}
FOUR = ("ours", "chasquimq")
"""Whose four processes are measured."""

Steps = dict[str, Callable[[], None]]
"""What is measured of a queue, by subject."""


@dataclass
class Lane:
    """A queue used in one way: its row, and what is measured of it by subject."""

    row: str
    steps: Steps


class Suite:
    """A run: all rounds of all queues."""

    def __init__(self, bench: Bench, peers: list[Peer]) -> None:
        self.bench = bench
        self.peers = peers
        self.failures: dict[str, str] = {}

    def round(self, number: int, of: int) -> None:
        """Measure one subject after the other, each of all queues that take part in this round."""
        begin = time.monotonic()
        for report in self.bench.reports.values():
            report.round = number
        with ExitStack() as adders:
            lanes = []
            for peer in self.peers:
                if (number - 1) % max(1, of // peer.rounds) == 0:
                    lanes += self.lanes(peer, adders)
            for subject in TITLES:
                for lane in lanes:
                    if subject in lane.steps:
                        self.attempt(f"{lane.row}: {subject}", lane.steps[subject])
        print(f"round {number}: {time.monotonic() - begin:.0f} s", file=sys.stderr)

    def lanes(self, peer: Peer, adders: ExitStack) -> list[Lane]:
        """Start the adders of a queue; return the ways in which it is measured."""
        lanes: list[Lane] = []

        def start(row: str, variant: str, steps: Callable[[Adder, str], Steps]) -> None:
            adder = adders.enter_context(self.bench.adder(peer, variant))
            if not adder.missing:
                lanes.append(Lane(row, steps(adder, row)))

        for at, variant in enumerate(peer.variants):
            row = f"{peer.title}, {variant}" if at else peer.title
            steps = partial(self.drain if at else self.all, peer, variant)
            self.attempt(row, partial(start, row, variant, steps))
        for variant in peer.adders:
            row = f"{peer.title}, {variant}"
            self.attempt(row, partial(start, row, variant, partial(self.add, peer)))
        return lanes

    def add(self, peer: Peer, adder: Adder, row: str) -> Steps:
        """Return the adds, which are one step."""
        return {"add": lambda: self.bench.add(adder, row, peer.add)}

    def drain(self, peer: Peer, variant: str, adder: Adder, row: str) -> Steps:
        """Return the plain drain."""
        return {"drain": lambda: self.bench.drain("drain", adder, peer, variant, row)}

    def all(self, peer: Peer, variant: str, adder: Adder, row: str) -> Steps:
        """Return the workloads that this queue can do."""
        bench = self.bench
        steps = self.add(peer, adder, row) | self.drain(peer, variant, adder, row)
        steps["latency"] = lambda: bench.latency(adder, peer, row)
        steps["large"] = lambda: bench.drain("large", adder, peer, variant, row, pad=10 * 1024)
        if "delayed" in adder.abilities:
            steps["delayed"] = lambda: bench.delayed(adder, peer, row)
        if "storm" in adder.abilities:
            steps["storm"] = lambda: bench.drain("storm", adder, peer, variant, row, "storm")
        if peer.name in FOUR:
            steps["four_processes"] = lambda: bench.drain(
                "four_processes", adder, peer, variant, row, workers=4
            )
        return steps

    def attempt(self, what: str, step: Callable[[], None]) -> None:
        """Take a step; one that fails leaves its cell empty and is told."""
        try:
            step()
        except Failed as failure:
            self.failures[what] = str(failure)
            print(f"failed: {what}: {failure}", file=sys.stderr)


def machine() -> dict[str, Any]:
    """Return what the figures were measured on; no name of a host."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    models = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    node = subprocess.run(["node", "--version"], capture_output=True, text=True)
    return {
        "cpu": next(models, "unknown"),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
        "node": node.stdout.strip(),
    }


def markdown(suite: dict[str, Any], peers: list[Peer], reports: list[Report], title: str) -> str:
    """Return the whole run for people."""
    at, quick, rounds = suite["machine"], suite["quick"], suite["rounds"]
    lines = [
        f"# {title}",
        "",
        f"{suite['date']}, Redis {suite['server']}, Python {at['python']}, Node {at['node']}; "
        f"{at['cpu']}, {at['cores']} cores: the server on one, adding and working on another. "
        "One worker process unless said. A round measures one subject of all queues, then the next; "
        f"ChasquiMQ and those beside it whose figures are near take part in all {rounds} rounds, "
        "the others in a third of them. Each figure is the median of its rounds, and each "
        "ratio the median of those of the rounds; an empty cell was not or cannot be measured. "
        "`benches/run` measures them anew.",
    ]
    if quick:
        lines += [
            "",
            "**A quick run: small sizes, one round. It shows that the benchmarks work, not how fast anything is.**",
        ]
    lines += ["", "| queue | version | settings |", "|---|---|---|"]
    for peer in peers:
        lines.append(f"| {peer.title} | {suite['versions'].get(peer.name, '')} | {peer.settings} |")
    text = "\n".join(lines) + "\n"
    for report in reports:
        text += "\n" + report.markdown()
    if suite["failures"]:
        text += "\n## not measured\n\n"
        text += "".join(f"- {what}: {why}\n" for what, why in suite["failures"].items())
    return text


def main() -> int:
    """Run; return 1 if targets were missed and that matters."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="small sizes, one round")
    parser.add_argument("--strict", action="store_true", help="fail when a target was missed")
    parser.add_argument("--out", type=Path, required=True, help="the folder of the results")
    parser.add_argument("--name", default="compare", help="the results' name")
    parser.add_argument("--date", required=True, help="the day of the run")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("peers", nargs="*", help="these queues alone")
    options = parser.parse_args()

    cache = REPOSITORY / ".cache/benches"
    known = load(cache)
    peers = [known[name] for name in options.peers or known]
    for peer in peers:
        if peer.packages:
            peer.install()
    servers = Path(os.environ.get("CHASQUIMQ_CACHE", REPOSITORY / ".cache")) / "servers"
    server = Server(newest(servers))
    os.sched_setaffinity(0, {SERVER_CORE})
    logs = cache / "logs"
    logs.mkdir(parents=True, exist_ok=True)
    try:
        with tempfile.TemporaryDirectory(dir="/dev/shm") as arena:
            bench = Bench(server, Arena(Path(arena)), logs, options.quick)
            bench.reports = {name: Report(name, title) for name, title in TITLES.items()}
            suite = Suite(bench, peers)
            rounds = 1 if options.quick else options.rounds
            for number in range(1, rounds + 1):
                suite.round(number, rounds)
    finally:
        server.close()
    return write(options, suite, server.version)


def write(options: argparse.Namespace, suite: Suite, server: str) -> int:
    """Write the results; return what the command is to end with."""
    reports = suite.bench.reports
    hold(reports, {"BullMQ"})
    filled = [report for report in reports.values() if report.rows]
    result = {
        "date": options.date,
        "quick": options.quick,
        "rounds": 1 if options.quick else options.rounds,
        "server": server,
        "machine": machine(),
        "versions": suite.bench.versions,
        "settings": {peer.name: peer.settings for peer in suite.peers},
        "failures": suite.failures,
        "reports": [report.plain() for report in filled],
    }
    out: Path = options.out
    out.mkdir(parents=True, exist_ok=True)
    title = "Beside other queues" if options.name == "compare" else "The Python side's benchmarks"
    (out / f"{options.name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (out / f"{options.name}.md").write_text(markdown(result, suite.peers, filled, title))
    (out / f"{options.name}.svg").write_text(chart(reports))
    missed = [check for report in filled for check in report.checks if not is_met(*check[1:])]
    for name, value, relation, target in missed:
        print(f"missed: {name}: {value:.2f} ({relation} {target:.2f})", file=sys.stderr)
    return 1 if options.strict and missed else 0


if __name__ == "__main__":
    sys.exit(main())
