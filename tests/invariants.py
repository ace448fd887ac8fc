"""Checks what no compiler checks: who may name what, which modules stay pure, how long a file may be.

Started by tests/lint; crates/README.md lists the invariants. Prints each breach and exits with 1 if any.
"""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
ENGINE = ROOT / "crates" / "chasquimq"

PURE = (
    "acl.rs",
    "consumer/text.rs",
    "events/unpack.rs",
    "job.rs",
    "lifecycle.rs",
    "msgpack.rs",
    "retry.rs",
    "store/replies.rs",
    "store/wire.rs",
    "version.rs",
)
IMPURE = re.compile(r"\basync\b|\bSystemTime\b|\bInstant::now\b|\brand::")
"""A clock, randomness, or waiting."""

NOT_THE_ENGINES = re.compile(
    r"\btokio::signal\b|\bRuntime::new\b|\bruntime::Builder\b|#\[tokio::main"
)
UNBOUNDED = re.compile(r"\bunbounded(_channel)?\s*(::<[^>]*>)?\(")

LONGEST = 500
REASON = "Longer than 500 lines because"
CODE = {".rs", ".py", ".pyi", ".lua", ".sh", ".toml", ""}


def code(path: Path) -> Iterator[tuple[int, str]]:
    """Return the numbered lines of a Rust file without comments and without its inline tests."""
    in_tests, previous = False, ""
    for number, line in enumerate(path.read_text().splitlines(), start=1):
        if re.match(r"mod \w+ \{", line) and previous == "#[cfg(test)]":
            in_tests = True
        if not in_tests:
            yield number, re.sub(r"(?<!:)//.*", "", line)
        if line == "}":
            in_tests = False
        previous = line


def rust_sources(*crates: Path) -> Iterator[Path]:
    """Return the sources of these crates, tests and benches left out."""
    for crate in crates:
        yield from sorted((crate / "src").rglob("*.rs"))


def breaches(path: Path, forbidden: re.Pattern[str], message: str) -> Iterator[str]:
    """Return where a file's code has what it must not have."""
    for number, line in code(path):
        if forbidden.search(line):
            yield f"{path.relative_to(ROOT)}:{number}: {message}"


def names_in_their_place() -> Iterator[str]:
    """Only transport.rs names the client library; only keys.rs builds a key."""
    client, key = re.compile(r"\bfred\b"), re.compile(r"\{chasqui:")
    for path in rust_sources(*ROOT.glob("crates/*")):
        if "store/transport" not in str(path):
            yield from breaches(path, client, "only store/transport.rs names fred")
        if path != ENGINE / "src" / "store" / "keys.rs":
            yield from breaches(path, key, "only store/keys.rs builds a key")
    for path in [*ROOT.glob("python/chasquimq/**/*.py"), *ENGINE.glob("src/**/*.lua")]:
        if key.search(path.read_text()):
            yield f"{path.relative_to(ROOT)}: only store/keys.rs builds a key"


def engine_keeps_to_itself() -> Iterator[str]:
    """Pure modules stay pure; the engine leaves runtime and signals to the program and bounds its channels."""
    for path in rust_sources(ENGINE):
        yield from breaches(path, NOT_THE_ENGINES, "runtime and signals belong to the program")
        yield from breaches(path, UNBOUNDED, "every channel has a bound")
        if str(path.relative_to(ENGINE / "src")) in PURE:
            yield from breaches(path, IMPURE, "this module is pure: pass time and randomness in")


def scripts_have_tests() -> Iterator[str]:
    """Each Lua script is named in a test."""
    files = sorted(ENGINE.glob("src/store/tests*/**/*.rs")) + sorted(
        ENGINE.glob("src/store/tests.rs")
    )
    tests = "\n".join(path.read_text() for path in files)
    for script in sorted(ENGINE.glob("src/store/scripts/*.lua")):
        if not re.search(rf"\b(\w+_)?{script.stem}(_\w+)?\b", tests):
            yield f"{script.relative_to(ROOT)}: no test of the store names it"


def files_are_short() -> Iterator[str]:
    """No file of code is longer than 500 lines without a reason at its head."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    for name in subprocess.check_output(command, cwd=ROOT, text=True).splitlines():
        path = ROOT / name
        if path.suffix not in CODE or path.name == "LICENSE" or not path.is_file():
            continue
        lines = path.read_text(errors="replace").splitlines()
        if len(lines) > LONGEST and REASON not in "\n".join(lines[:20]):
            yield f"{name}: {len(lines)} lines; split it, or say at its head: {REASON} …"


def main() -> int:
    """Print what is broken; return 1 if anything is."""
    checks = (names_in_their_place, engine_keeps_to_itself, scripts_have_tests, files_are_short)
    found = [breach for check in checks for breach in check()]
    for breach in found:
        print(breach)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
