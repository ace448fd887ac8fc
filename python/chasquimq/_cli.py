"""The console script ``chasqui``: the same commands as the Rust binary's."""

import signal
import sys

from ._address import server_binaries
from ._native import run_cli


def main() -> None:
    """Run the command line of this process and exit with its code."""
    # The command runs in Rust, where Python's own handler for Ctrl-C would not be heard.
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    sys.exit(run_cli(sys.argv, server_binaries(), sys.executable))
