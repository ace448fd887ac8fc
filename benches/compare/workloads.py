"""The workloads: what is done, timed and counted in each."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from peers import Peer
from processes import READY_SECONDS, WARM, Adder, Arena, Failed, Session, wait_until
from report import Report
from server import Server

LARGE = 10 * 1024
"""Bytes of the large payload."""
RATE = 200
"""Jobs a second for the worker whose latency is measured."""
PACED = 1_000
"""Jobs of that measurement: the slowest hundredth are ten, too many for one hiccup to decide."""
DRAIN_SECONDS = 60.0
QUICK_SECONDS = 15.0
LEAST_JOBS = 30
SHARES = {"large": 2, "storm": 4}
"""By how much fewer jobs than the plain drain a workload has, as its jobs take longer."""
QUIET_SECONDS = 5.0


def quantile(values: list[float], share: float) -> float:
    """Return the value that this share of the values does not exceed."""
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


class Bench:
    """Runs workloads on one server and notes what they found."""

    def __init__(self, server: Server, arena: Arena, logs: Path, quick: bool) -> None:
        self.server = server
        self.arena = arena
        self.logs = logs
        self.scale = 10 if quick else 1
        self.patience = QUICK_SECONDS if quick else DRAIN_SECONDS
        self.reports: dict[str, Report] = {}
        self.versions: dict[str, str] = {}

    @contextmanager
    def adder(self, peer: Peer, variant: str) -> Iterator[Adder]:
        """Start an adder; end it."""
        log = self.logs / f"{peer.name}.log"
        adder = Adder(peer, variant, self.server, self.arena, log)
        if adder.version:
            self.versions[peer.name] = adder.version
        try:
            yield adder
        finally:
            adder.kill()

    @contextmanager
    def workers(
        self, adder: Adder, peer: Peer, variant: str, workload: str, target: int, count: int = 1
    ) -> Iterator[list[Session]]:
        """Start workers on an empty queue, see that they run and wait until they rest; end them."""
        self.server.flush()
        self.arena.clear()
        role = ["worker", variant, workload, str(WARM + 1), str(target)]
        log = self.logs / f"{peer.name}.log"
        workers = [Session(peer, self.server, self.arena, role, log) for _ in range(count)]
        try:
            if count > 1:
                wait_until_quiet(workers)
            adder.order("load", 1, first=WARM)
            wait_until(lambda: self.arena.started[WARM] != 0, READY_SECONDS, "the worker's start")
            wait_until_quiet(workers)
            yield workers
        finally:
            for worker in workers:
                worker.kill()

    def add(self, adder: Adder, row: str, count: int) -> None:
        """W1 and W2: one awaited add after another, 50 at a time, in bulk."""
        ways: list[tuple[str, str, int, tuple[int, ...]]] = [
            ("add", "one", count, ()),
            ("add_concurrent", "lanes", count, ()),
        ]
        if "bulk" in adder.abilities:
            ways += [
                ("bulk_50", "many", count * 5, (50,)),
                ("bulk_1000", "many", count * 5, (1000,)),
            ]
        for subject, way, jobs, args in ways:
            jobs = max(jobs // self.scale // 1000, 1) * 1000
            self.server.flush()
            adder.order(way, 50, *args)
            self.server.flush()
            cpu = self.server.cpu()
            took = adder.order(way, jobs, *args)
            used = self.server.cpu() - cpu
            self.costs(subject, row, jobs / took["seconds"], used / jobs, took["cpu"] / jobs)
            self.reports[subject].record(row, "RSS MB", took["rss_mb"])

    def drain(
        self,
        subject: str,
        adder: Adder,
        peer: Peer,
        variant: str,
        row: str,
        workload: str = "drain",
        pad: int = 0,
        workers: int = 1,
    ) -> None:
        """W3, W6, W7, W8: run preloaded jobs; timed from the first start to the last."""
        count = max(peer.drain // self.scale // SHARES.get(subject, 1), LEAST_JOBS)
        with self.workers(adder, peer, variant, workload, count, workers) as sessions:
            tell(sessions, signal.SIGSTOP)
            memory = self.server.memory()
            adder.order("load", count, pad=pad, storm=workload == "storm")
            held = (self.server.memory() - memory) / count
            used, cpu = self.server.cpu(), client_cpu(sessions)
            tell(sessions, signal.SIGCONT)
            self.wait_for_starts(count)
            used, cpu = self.server.cpu() - used, client_cpu(sessions) - cpu
            rss = sum(session.memory_mb() for session in sessions)
        starts = self.arena.times("started", count)
        seconds = (max(starts) - min(starts)) / 1e9
        self.costs(subject, row, count / seconds, used / count, cpu / count)
        report = self.reports[subject]
        if workload == "storm":
            healthy = (max(starts[::2]) - min(starts)) / 1e9
            report.record(row, "healthy jobs/s", count / 2 / healthy)
        else:
            report.record(row, "server bytes/queued job", held)
        report.record(row, "RSS MB", rss)

    def latency(self, adder: Adder, peer: Peer, row: str) -> None:
        """W4: from the call of add to the start, 200 jobs a second, an idle worker."""
        count = min(PACED, peer.delayed) // self.scale
        with self.workers(adder, peer, peer.variants[0], "latency", count):
            adder.order("paced", count, RATE)
            self.wait_for_starts(count)
        late = self.lateness(count)
        for share in (0.5, 0.99):
            self.reports["latency"].record(row, f"ms p{share * 100:.0f}", quantile(late, share))

    def delayed(self, adder: Adder, peer: Peer, row: str) -> None:
        """W5: many delayed jobs become due at one moment."""
        count = peer.delayed // self.scale
        with self.workers(adder, peer, peer.variants[0], "delayed", count):
            adder.order("delayed", count, peer.lead if self.scale == 1 else 1.0 + peer.lead / 10)
            self.wait_for_starts(count)
        late, starts = self.lateness(count), self.arena.times("started", count)
        report = self.reports["delayed"]
        report.record(row, "jobs", count)
        report.record(row, "late ms p50", quantile(late, 0.5))
        report.record(row, "late ms p99", quantile(late, 0.99))
        report.record(row, "late ms min", min(late))
        report.record(row, "jobs/s", count / ((max(starts) - min(starts)) / 1e9))

    def lateness(self, count: int) -> list[float]:
        """Return how long after its add, or its due time, each job started, in milliseconds."""
        added, started = self.arena.times("added", count), self.arena.times("started", count)
        return [(start - add) / 1e6 for add, start in zip(added, started, strict=True)]

    def wait_for_starts(self, count: int) -> None:
        """Wait until each of the first jobs has started."""
        reached = 0

        def all_started() -> bool:
            nonlocal reached
            while reached < count and self.arena.started[reached]:
                reached += 1
            return reached == count

        try:
            wait_until(all_started, self.patience, "the last job's start")
        except Failed as failure:
            missing = [job for job in range(count) if not self.arena.started[job]]
            told = f"{len(missing)} of {count} jobs have not started, the first is {missing[:1]}"
            raise Failed(f"{failure} ({told})") from None

    def costs(self, subject: str, row: str, rate: float, server: float, client: float) -> None:
        """Note what most workloads have in common; CPU time in seconds a job."""
        report = self.reports[subject]
        report.record(row, "jobs/s", rate)
        report.record(row, "server µs/job", server * 1e6)
        report.record(row, "client µs/job", client * 1e6)


def tell(sessions: list[Session], number: signal.Signals) -> None:
    """Send a signal to all processes of all sessions."""
    for session in sessions:
        session.signal(number)


def client_cpu(sessions: list[Session]) -> float:
    """Return the CPU time of all of them, in seconds."""
    return sum(session.cpu() for session in sessions)


def wait_until_quiet(sessions: list[Session]) -> None:
    """Wait until processes have started up, which is when they take next to no CPU time any more."""
    deadline = time.monotonic() + QUIET_SECONDS
    before = -1.0
    while time.monotonic() < deadline:
        now = client_cpu(sessions)
        if now > 0 and now - before <= 0.02:
            return
        before = now
        time.sleep(0.2)
