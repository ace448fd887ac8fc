"""How jobs ended that are not simply done: handed to the engine once a turn of the event loop."""

import asyncio

from ._handlers import describe, is_unrecoverable
from ._native import Consumer, Job
from ._work import Failure


class Endings:
    """The endings of one worker's jobs. Not for threads other than the event loop's."""

    def __init__(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        self._consumer = consumer
        self._loop = loop
        self._failed: list[Failure] = []
        self._released: list[Job] = []
        self._cancelled: list[Job] = []
        self._due = False
        self.closing = False
        """Whether the worker closes: then a cancelled handler is nobody's failure."""

    def fail(self, jobs: list[Job], error: BaseException) -> None:
        """The handler raised."""
        self.fail_with(jobs, describe(error), unrecoverable=is_unrecoverable(error))

    def fail_with(self, jobs: list[Job], text: str, *, unrecoverable: bool = False) -> None:
        """The run failed for this reason."""
        for job in jobs:
            job._finish(len(jobs))
            self._failed.append((job, text, unrecoverable))
        self._schedule()

    def cancel(self, jobs: list[Job]) -> None:
        """The handler was cancelled. Whether the worker closes may only show later in this turn."""
        for job in jobs:
            job._finish(len(jobs))
        self._cancelled += jobs
        self._schedule()

    def release(self, jobs: list[Job]) -> None:
        """These go back, attempt unchanged."""
        self._released.extend(jobs)
        self._schedule()

    def flush(self) -> None:
        """Hand everything over now."""
        self._due = False
        if self.closing:
            self._released += self._cancelled
        else:
            self._failed += [(job, "cancelled", False) for job in self._cancelled]
        self._consumer.settle([], self._failed, self._released)
        for ended in (self._failed, self._released, self._cancelled):
            ended.clear()

    def _schedule(self) -> None:
        if not self._due:
            self._due = True
            self._loop.call_soon(self.flush)
