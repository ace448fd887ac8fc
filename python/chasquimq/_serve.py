"""``chasqui worker``: runs a program's workers until a signal ends them.

python -m chasquimq._serve MODULE:NAME SECONDS
"""

import asyncio
import importlib
import logging
import signal
import sys
import time

from .errors import ChasquiError
from .worker import Worker

logger = logging.getLogger("chasquimq.worker")


EXAMPLE = 'worker = Worker("emails", handle)'

SIGNALS = (signal.SIGTERM, signal.SIGINT)

TWICE = 1.0
"""Seconds within which a signal is the first one again: some tools send it to the group, too."""


class Unusable(Exception):
    """The command names no worker."""


def load(place: str) -> list[Worker]:
    """Import the workers at ``module:name``; ``name`` is ``worker`` when left out.

    Raises ``Unusable`` when there is no such module, or no worker there.
    """
    module_name, _, name = place.partition(":")
    name = name or "worker"
    if "/" in place or module_name.endswith(".py") or not all(module_name.split(".")):
        raise Unusable(
            f"{place!r} is no MODULE:NAME, such as emails:worker for {EXAMPLE} in emails.py"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise Unusable(f"there is no module {error.name!r} here or installed") from None
    found = getattr(module, name, None)
    workers = [found] if isinstance(found, Worker) else found
    if isinstance(workers, list) and workers and all(isinstance(w, Worker) for w in workers):
        return workers
    is_there = f"is {found!r}" if hasattr(module, name) else "does not exist"
    raise Unusable(
        f"{module_name}:{name} {is_there}; it must be a Worker, or a list of them: {EXAMPLE}"
    )


async def serve(workers: list[Worker], seconds: float) -> BaseException | None:
    """Run them until SIGTERM or Ctrl-C, and running jobs so much longer, or until another signal.

    When one of them fails, the others are closed likewise, and what it raised is returned.
    """
    loop = asyncio.get_running_loop()
    closing: list[asyncio.Task[None]] = []
    failures: list[BaseException] = []
    ignored_until = 0.0

    def close(left: float) -> None:
        closing.extend(loop.create_task(worker.close(left)) for worker in workers)

    def interrupt() -> None:
        nonlocal ignored_until
        now = time.monotonic()
        if not ignored_until:
            ignored_until = now + TWICE
            close(seconds)
            logger.info("closing within %g s; another signal hands running jobs back", seconds)
        elif now > ignored_until:
            close(0)
            logger.info("handing running jobs back")

    async def run(worker: Worker) -> None:
        try:
            await worker.run()
        except (Exception, KeyboardInterrupt) as error:
            failures.append(error)
            logger.error("worker of queue %r failed: %s", worker.name, str(error) or repr(error))
            if not closing:
                close(seconds)

    def end(number: int, _frame: object) -> None:
        if time.monotonic() > ignored_until:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)

    # Not the loop's own handlers, which are gone before the process is.
    for number in SIGNALS:
        signal.signal(number, lambda *_: loop.call_soon_threadsafe(interrupt))
    await asyncio.gather(*map(run, workers))
    await asyncio.gather(*closing)
    # Threads of the handlers' own may hold the process up: then another signal ends it.
    for number in SIGNALS:
        signal.signal(number, end)
    return failures[0] if failures else None


def main() -> int:
    """Run the command; its exit code."""
    _, place, seconds = sys.argv
    try:
        workers = load(place)
    except Unusable as error:
        print(f"chasqui worker: {error}", file=sys.stderr)
        return 1
    logging.basicConfig(
        level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    try:
        failure = asyncio.run(serve(workers, float(seconds)))
    except SystemExit as error:
        logger.error("a task that a handler has made raised SystemExit(%s)", error.code)
        return 1
    if failure is None:
        return 0
    if isinstance(failure, ChasquiError):  # the log has it
        return 1
    raise failure


if __name__ == "__main__":
    sys.exit(main())
