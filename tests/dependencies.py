"""Checks what the package is made of, offline: licences, sources, duplicates, known flaws, bounds.

Started by tests/lint. Prints each objection and exits with 1 if there is any. An allowance that nothing
needs any more is an objection, too.
"""

import json
import re
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import tomllib

ROOT = Path(__file__).parents[1]
CRATES_IO = "registry+https://github.com/rust-lang/crates.io-index"

LICENCES = {
    "Apache-2.0",
    "Apache-2.0 WITH LLVM-exception",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "ISC",
    "MIT",
    "Unicode-3.0",
    "Zlib",
}
"""Licences that ask for no more than their own text beside the program."""

DUPLICATES = {
    "base64": "metrics-exporter-prometheus is older than pem, of the tests' rcgen",
    "bit-vec": "proptest and the tests' rcgen differ; it is in no program",
    "cpufeatures": "sha-1, of fred, is older than chacha20, of rand",
    "getrandom": "each rand has its own",
    "hashbrown": "metrics-util is older than indexmap",
    "r-efi": "each getrandom has its own",
    "rand": "fred wants 0.8, ulid and metrics-util 0.9, the engine and proptest 0.10",
    "rand_chacha": "each rand has its own",
    "rand_core": "each rand has its own",
    "socket2": "fred is older than tokio",
    "syn": "fred's, tracing's and zerocopy's macros are older than the others",
    "synstructure": "the tests' rcgen is older than url; at build time alone",
    "windows-link": "on Windows alone",
    "windows-sys": "on Windows alone",
}
"""Crates of which several versions are built, and why."""

ADVISORIES = {
    "rustls": ((0, 23, 45), "RUSTSEC-2026-0285"),
    "rustls-webpki": ((0, 103, 13), "RUSTSEC-2026-0098, -0099 and -0104"),
}
"""The first version without the flaws that concern us."""


def locked() -> list[dict[str, Any]]:
    """Return all crates of all platforms, as Cargo.lock has them."""
    packages: list[dict[str, Any]] = tomllib.loads((ROOT / "Cargo.lock").read_text())["package"]
    return packages


def built_here() -> list[dict[str, Any]]:
    """Return what Cargo knows of the crates that are built on this platform."""
    versions = subprocess.check_output(["rustc", "-vV"], text=True)
    host = re.search(r"^host: (.+)$", versions, re.MULTILINE)
    assert host, versions
    command = ["cargo", "metadata", "--offline", "--locked", "--format-version", "1"]
    output = subprocess.check_output([*command, "--filter-platform", host[1]], cwd=ROOT)
    packages: list[dict[str, Any]] = json.loads(output)["packages"]
    return packages


def permitted(licence: str) -> bool:
    """Tell whether an SPDX expression, ``/`` for ``OR`` included, leaves a licence of ours to choose."""
    while (flat := re.sub(r"\(([^()]*)\)", lambda m: _verdict(m[1]), licence)) != licence:
        licence = flat
    choices = re.split(r" OR |/", licence)
    return any(all(part.strip() in LICENCES for part in re.split(" AND ", c)) for c in choices)


def _verdict(licence: str) -> str:
    return "MIT" if permitted(licence) else "refused"


def licences() -> Iterator[str]:
    """Every crate that is built may be given away with ours."""
    for crate in built_here():
        licence = crate["license"] or "none"
        if not permitted(licence):
            yield f"{crate['name']} {crate['version']}: its licence is {licence}"


def sources() -> Iterator[str]:
    """Every crate is ours or comes from crates.io, where its content cannot change."""
    ours = {path.parent.name for path in ROOT.glob("crates/*/Cargo.toml")} | {"chasquimq-benches"}
    for crate in locked():
        source = crate.get("source")
        if source is None and crate["name"] not in ours:
            yield f"{crate['name']}: it comes from a folder that is not ours"
        elif source is not None and (source != CRATES_IO or "checksum" not in crate):
            yield f"{crate['name']} {crate['version']}: it comes from {source}, not from crates.io"


def duplicates() -> Iterator[str]:
    """One version of each crate, but for those with a reason."""
    versions = defaultdict(set)
    for crate in locked():
        versions[crate["name"]].add(crate["version"])
    several = {name: found for name, found in versions.items() if len(found) > 1}
    for name in sorted(several.keys() - DUPLICATES.keys()):
        yield f"{name}: built in the versions {', '.join(sorted(several[name]))}"
    for name in sorted(DUPLICATES.keys() - several.keys()):
        yield f"{name}: it has one version; DUPLICATES need not name it"


def advisories() -> Iterator[str]:
    """No crate is older than the mending of a flaw that concerns us."""
    for crate in locked():
        least, flaw = ADVISORIES.get(crate["name"], ((0,), ""))
        numbers = re.match(r"(\d+)\.(\d+)\.(\d+)", crate["version"])
        assert numbers, crate
        if tuple(map(int, numbers.groups())) < least:
            wanted = ".".join(map(str, least))
            yield f"{crate['name']} {crate['version']}: {flaw}; it must be {wanted} or later"


def bounds() -> Iterator[str]:
    """Python packages that we ask for have an upper bound; those of the gate are pinned."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    optional = project["project"]["optional-dependencies"].values()
    asked = [*project["project"]["dependencies"], *project["build-system"]["requires"]]
    for wanted in [*asked, *(package for extra in optional for package in extra)]:
        if "<" not in wanted or ">=" not in wanted:
            yield f"pyproject.toml: {wanted} needs a lower and an upper bound"
    for path in [*ROOT.glob("tests/requirements*.txt"), *ROOT.glob("benches/**/requirements*.txt")]:
        for line in path.read_text().splitlines():
            if line and not line.startswith("#") and "==" not in line:
                yield f"{path.relative_to(ROOT)}: {line} is not pinned"


def main() -> int:
    """Print the objections; return 1 if there are any."""
    checks = (licences, sources, duplicates, advisories, bounds)
    found = [objection for check in checks for objection in check()]
    for objection in found:
        print(objection)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
