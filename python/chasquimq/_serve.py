"""``chasqui worker``: runs a program's workers until a signal ends them.

python -m chasquimq._serve MODULE:NAME SECONDS
"""

import asyncio
import importlib
import logging
import signal
import sys

from .errors import ChasquiError
from .worker import Worker

logger = logging.getLogger("chasquimq.worker")


def load(place: str) -> list[Worker]:
    """Import the workers at ``module:name``; ``name`` is ``worker`` when left out.

    Raises ``ChasquiError`` when there is no such module, or no worker there.
    """
    module_name, _, name = place.partition(":")
    name = name or "worker"
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise
        raise ChasquiError(f"there is no module {error.name!r} here or installed") from None
    found = getattr(module, name, None)
    workers = [found] if isinstance(found, Worker) else found
    if isinstance(workers, list) and workers and all(isinstance(w, Worker) for w in workers):
        return workers
    raise ChasquiError(
        f"{module_name}:{name} is {found!r}; it must be a Worker, or a list of them, such as "
        f'{name} = Worker("emails", handle)'
    )


async def serve(workers: list[Worker], seconds: float) -> None:
    """Run them until SIGTERM or Ctrl-C, and running jobs so much longer, or until another signal.

    Raises what the first of them raises that fails, when the others have been closed.
    """
    closing: set[asyncio.Task[None]] = set()

    def close() -> None:
        left = 0 if closing else seconds
        logger.info("closing within %g s; another signal hands running jobs back at once", left)
        for worker in workers:
            closing.add(asyncio.create_task(worker.close(left)))

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, close)
    try:
        await asyncio.gather(*(worker.run() for worker in workers))
    finally:
        await asyncio.gather(*(worker.close(seconds) for worker in workers))


def main() -> int:
    """Run the command."""
    _, place, seconds = sys.argv
    try:
        workers = load(place)
        logging.basicConfig(
            level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
        )
        asyncio.run(serve(workers, float(seconds)))
    except ChasquiError as error:
        print(f"chasqui worker: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
