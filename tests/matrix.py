"""Runs the tests on the servers of the matrix and tells what passed where. Started by tests/run.

The first server runs every test, and the engine's a second time as a cluster of one node. The others run
what depends on the server: the Rust tests of the engine and of the chaos run, and the Python tests that are
not marked ``any_server``. There, and in the cluster, the engine's integration tests and Python's run as a
user with the rights that ``chasqui acl print`` prints. Nothing is rebuilt in between: the server is chosen by
environment variables. The log of a suite that fails is printed, all are kept in .cache/logs.
"""

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

from support.kinds import PREFERRED, REPOSITORY, ServerKind, all_servers

CACHE = Path(os.environ.get("CHASQUIMQ_CACHE", REPOSITORY / ".cache"))
LOGS = REPOSITORY / ".cache" / "logs"
ENGINE = REPOSITORY / "crates" / "chasquimq"
CHAOS = REPOSITORY / "crates" / "chasquimq-chaos"
CARGO_TEST = ["cargo", "test", "--workspace"]

BUILD_SECONDS = 2400
SUITE_SECONDS = 900
"""A suite that takes longer hangs."""

TEST_SECONDS = 180
"""So does a single Python test; Rust's harness knows no such limit."""


@dataclass(frozen=True)
class Outcome:
    """How many tests passed and failed."""

    passed: int = 0
    failed: int = 0

    def __add__(self, other: "Outcome") -> "Outcome":
        return Outcome(self.passed + other.passed, self.failed + other.failed)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed"

    def ended(self, status: int) -> "Outcome":
        """Count a crash, a time-out or a broken build, which fail no test, as one failure."""
        return Outcome(self.passed, 1) if status != 0 and self.failed == 0 else self


@dataclass(frozen=True)
class TestBinary:
    """A compiled Rust test target and the folder of its package."""

    path: Path
    package: Path


class SetupError(Exception):
    """What has to be there before any test can run is not."""


def run(
    name: str,
    command: Sequence[str | Path],
    *,
    seconds: float = SUITE_SECONDS,
    folder: Path = REPOSITORY,
    environment: dict[str, str] | None = None,
) -> int:
    """Run a command with its output in ``.cache/logs/<name>.log``; return its exit status."""
    log, started = LOGS / f"{name}.log", time.monotonic()
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            cwd=folder,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired:
            output.write(f"\nstopped: it hangs ({seconds:.0f} s)\n".encode())
            status = 124
        finally:
            end_group(process)
    if status != 0:
        print(log.read_text(errors="replace"))
    verdict = "ok" if status == 0 else f"FAILED (exit status {status})"
    print(f"  {name}: {verdict}, {time.monotonic() - started:.0f} s")
    return status


def end_group(process: "subprocess.Popen[bytes]") -> None:
    """End what a command has left running: nothing outlives its suite."""
    try:
        os.killpg(process.pid, signal.SIGKILL)
    except ProcessLookupError:
        return
    finally:
        process.wait()


def fetch(quick: bool) -> None:
    """Obtain the servers."""
    script = str(REPOSITORY / "tests" / "servers" / "fetch")
    command = [script, "--quick"] if quick else [script]
    if run("servers", command, environment={"PYTHON": sys.executable}) != 0:
        raise SetupError("tests/servers/fetch failed")


def choose(wanted: Sequence[str], quick: bool) -> list[ServerKind]:
    """Return the servers to test, the one that most people run first."""
    servers = sorted(all_servers(), key=lambda kind: (kind.name != PREFERRED, kind.name))
    missing = set(wanted) - {kind.name for kind in servers}
    if missing or not servers:
        raise SetupError(f"no such server: {', '.join(missing) or 'none at all'}")
    chosen = [kind for kind in servers if not wanted or kind.name in wanted]
    return chosen[:1] if quick else chosen


def build() -> tuple[list[TestBinary], Path]:
    """Build all Rust tests and return their binaries, and ``chasqui``.

    They are started directly. Asking cargo for one package would select other features of the
    dependencies than the whole workspace has, and so build them again.
    """
    if run("build-rust", [*CARGO_TEST, "--no-run"], seconds=BUILD_SECONDS) != 0:
        raise SetupError("the Rust tests do not build")
    command = [*CARGO_TEST, "--no-run", "--message-format=json"]
    lines = subprocess.check_output(
        command, cwd=REPOSITORY, text=True, stderr=subprocess.DEVNULL, timeout=BUILD_SECONDS
    )
    messages = [json.loads(line) for line in lines.splitlines() if line.startswith("{")]
    found = [
        TestBinary(Path(message["executable"]), Path(message["manifest_path"]).parent)
        for message in messages
        if message.get("executable") and message["profile"]["test"]
    ]
    programs = [
        Path(message["executable"])
        for message in messages
        if message.get("executable")
        and message["target"]["name"] == "chasqui"
        and not message["profile"]["test"]
    ]
    return sorted(found, key=lambda binary: (binary.package, binary.path)), programs[0]


def environment_of(kind: ServerKind) -> dict[str, str]:
    """Return what makes both languages' tests use this server."""
    pairs = os.pathsep.join(f"{kind.name}={kind.path}" for kind in all_servers())
    return {"CHASQUIMQ_TEST_SERVERS": pairs, "CHASQUIMQ_TEST_SERVER": kind.name}


def few_rights(kind: ServerKind, chasqui: Path) -> dict[str, str]:
    """Return what makes the tested code a user with the rights of every role and no others."""
    roles = [word for role in ("producer", "worker", "observer") for word in ("--role", role)]
    command = [str(chasqui), "acl", "print", *roles, "--all", "--for-server", kind.name]
    rule = subprocess.check_output(command, text=True, stderr=subprocess.DEVNULL, timeout=60)
    return {"CHASQUIMQ_TEST_ACL": rule}


def clustered(kind: ServerKind, binaries: Iterable[TestBinary], user: dict[str, str]) -> Outcome:
    """Run the engine's tests on a server that is a cluster of one node, as this user."""
    name = f"{kind.name}.cluster"
    environment = {**environment_of(kind), **user, "CHASQUIMQ_TEST_TOPOLOGY": "cluster"}
    outcome = Outcome()
    for binary in filter(is_integration_of_engine, binaries):
        inside = {**environment, "CARGO_MANIFEST_DIR": str(binary.package)}
        status = run(name, [binary.path], folder=binary.package, environment=inside)
        outcome += rust_outcome(name).ended(status)
    return outcome


def is_integration_of_engine(binary: TestBinary) -> bool:
    """Whether these are the engine's tests from outside, which get their URLs from the test server."""
    return binary.package == ENGINE and binary.path.name.startswith("it-")


def rust(
    kind: ServerKind, binaries: Iterable[TestBinary], doc_tests: bool, user: dict[str, str]
) -> Outcome:
    """Run Rust test binaries on a server, the engine's integration tests as this user."""
    environment = environment_of(kind)
    outcome = Outcome()
    for binary in binaries:
        target = re.sub(r"-[0-9a-f]{16}$", "", binary.path.name)
        name = f"{kind.name}.{binary.package.name}.{target}"
        inside = {**environment, "CARGO_MANIFEST_DIR": str(binary.package)}
        if is_integration_of_engine(binary):
            inside |= user
        status = run(name, [binary.path], folder=binary.package, environment=inside)
        outcome += rust_outcome(name).ended(status)
    if doc_tests:
        status = run("doc-tests", [*CARGO_TEST, "--doc"], environment=environment)
        outcome += rust_outcome("doc-tests").ended(status)
    return outcome


def rust_outcome(name: str) -> Outcome:
    """Sum the result lines of a log."""
    log = (LOGS / f"{name}.log").read_text(errors="replace")
    found = re.findall(r"^test result: .*? (\d+) passed; (\d+) failed;", log, re.MULTILINE)
    return sum((Outcome(int(passed), int(failed)) for passed, failed in found), Outcome())


def python(kind: ServerKind, everything: bool, user: dict[str, str]) -> Outcome:
    """Run the Python tests on a server, as this user."""
    name = f"{kind.name}.python"
    report = LOGS / f"{name}.xml"
    command = [sys.executable, "-m", "pytest", "tests", "-ra", f"--timeout={TEST_SECONDS}"]
    command += [f"--junitxml={report}", *([] if everything else ["-m", "not any_server"])]
    status = run(name, command, environment={**environment_of(kind), **user})
    if not report.exists():
        return Outcome().ended(status)
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    outcome = Outcome()
    for suite in suites:
        tests, skipped = int(suite.get("tests", 0)), int(suite.get("skipped", 0))
        failed = int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        outcome += Outcome(tests - skipped - failed, failed)
    return outcome.ended(status)


def run_matrix(wanted: Sequence[str], quick: bool) -> Outcome:
    """Run everything and print the table."""
    fetch(quick)
    kinds = choose(wanted, quick)
    binaries, chasqui = build()
    engine = [binary for binary in binaries if binary.package == ENGINE]
    on_all = [binary for binary in binaries if binary.package in (ENGINE, CHAOS)]
    total, rows = Outcome(), [("server", "version", "rust", "python")]
    for kind in kinds:
        first = kind is kinds[0]
        user = {} if first else few_rights(kind, chasqui)
        cells = (rust(kind, binaries if first else on_all, first, user), python(kind, first, user))
        total = total + cells[0] + cells[1]
        rows.append((kind.name, kind.version(), str(cells[0]), str(cells[1])))
        if first:
            outcome = clustered(kind, engine, few_rights(kind, chasqui))
            total += outcome
            rows.append((kind.name, "cluster", str(outcome), ""))
    print()
    for row in rows:
        print("{:<12} {:<9} {:<24} {}".format(*row))
    skipped = CACHE / "servers" / "skipped"
    for line in skipped.read_text().splitlines():
        print("{:<12} skipped: {}".format(*line.split("\t", 1)))
    return total


def main() -> int:
    """Return 0 when there were tests and all of them passed."""
    parser = argparse.ArgumentParser(prog="tests/run", description="Run all tests.")
    parser.add_argument("--quick", action="store_true", help="one server: Redis 7.0")
    parser.add_argument("server", nargs="*", help="these servers instead of all, such as redis-6.2")
    options = parser.parse_args()
    # A suite is a session of its own: ended with us, it must not live on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    shutil.rmtree(LOGS, ignore_errors=True)
    LOGS.mkdir(parents=True)
    try:
        total = run_matrix(options.server, options.quick)
    except SetupError as error:
        print(error)
        total = Outcome(0, 1)
    print(f"\n{total}")
    return 0 if total.passed and not total.failed else 1


if __name__ == "__main__":
    sys.exit(main())
