"""The queues that are compared, as peers.toml lists them, and how their drivers are started."""

import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

import tomllib

HERE = Path(__file__).parent
REPOSITORY = HERE.parents[1]


@dataclass(frozen=True)
class Peer:
    """One queue."""

    name: str
    title: str
    driver: str
    package: str
    settings: str
    drain: int
    add: int
    lead: float
    variants: list[str]
    cache: Path
    adders: list[str] = field(default_factory=list)
    delayed: int = 10_000
    rounds: int = 3
    packages: list[str] = field(default_factory=list)

    @property
    def is_node(self) -> bool:
        """Whether its driver runs in Node."""
        return self.driver.endswith(".mjs")

    @property
    def folder(self) -> Path:
        """Where it is installed."""
        return self.cache / "peers" / self.name

    @property
    def command(self) -> list[str]:
        """The driver; a Python one must not take the modules beside it for packages."""
        script = str(REPOSITORY / self.driver)
        return ["node", script] if self.is_node else [str(self.folder / "bin/python"), "-P", script]

    @property
    def environment(self) -> dict[str, str]:
        """What the driver needs to find."""
        if self.is_node:
            return {"BENCH_MODULES": str(self.folder)}
        return {"PYTHONPATH": str(REPOSITORY / "benches/python"), "PYTHONDONTWRITEBYTECODE": "1"}

    def install(self) -> None:
        """Install it, unless this very version is installed."""
        marker, wanted = self.folder / "installed", "\n".join(self.packages)
        if marker.exists() and marker.read_text() == wanted:
            return
        print(f"installing {' '.join(self.packages)}", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.is_node:
            self.folder.mkdir(parents=True)
            quiet = ["--silent", "--no-audit", "--no-fund", "--prefix", str(self.folder)]
            subprocess.run(["npm", "install", *quiet, *self.packages], check=True)
        else:
            subprocess.run([sys.executable, "-m", "venv", str(self.folder)], check=True)
            pip = [str(self.folder / "bin/python"), "-m", "pip", "install", "--quiet"]
            subprocess.run([*pip, "--disable-pip-version-check", *self.packages], check=True)
        marker.write_text(wanted)


def load(cache: Path) -> dict[str, Peer]:
    """Return the queues by name; our own is the one without packages to install."""
    table = tomllib.loads((HERE / "peers.toml").read_text())
    return {name: Peer(name=name, cache=cache, **entry) for name, entry in table.items()}


if __name__ == "__main__":
    # Installs the named queues; tells of each its package, version and interpreter.
    known = load(REPOSITORY / ".cache/benches")
    for name in sys.argv[1:]:
        peer = known[name]
        peer.install()
        print(f"{peer.packages[0]}={peer.folder / 'bin/python'}")
