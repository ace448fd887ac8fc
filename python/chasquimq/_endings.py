"""How jobs ended: collected, and handed to the engine once a turn of the event loop."""

import asyncio
from collections.abc import Iterable

from ._handlers import describe, is_unrecoverable
from ._native import Consumer, Job


class Endings:
    """The endings of one worker's jobs. Not for threads other than the event loop's."""

    def __init__(self, consumer: Consumer, loop: asyncio.AbstractEventLoop) -> None:
        self._consumer = consumer
        self._loop = loop
        self._failed: list[tuple[Job, str, bool]] = []
        self._released: list[Job] = []
        self._cancelled: list[Job] = []
        self.done: list[Job] = []
        """Jobs done; call ``schedule`` after adding one."""
        self.due = False
        """Whether a hand-over is scheduled."""
        self.closing = False
        """Whether the worker closes: then a cancelled handler is nobody's failure."""

    def schedule(self) -> None:
        """Have everything handed over at the end of this turn."""
        if not self.due:
            self.due = True
            self._loop.call_soon(self.flush)

    def fail(self, job: Job, error: BaseException) -> None:
        """The handler raised."""
        self.fail_with(job, describe(error), unrecoverable=is_unrecoverable(error))

    def fail_with(self, job: Job, text: str, *, unrecoverable: bool = False) -> None:
        """The run failed for this reason."""
        job._finish()
        self._failed.append((job, text, unrecoverable))
        self.schedule()

    def cancel(self, job: Job) -> None:
        """The handler was cancelled. Whether the worker closes may only show later in this turn."""
        job._finish()
        self._cancelled.append(job)
        self.schedule()

    def release(self, jobs: Iterable[Job]) -> None:
        """These go back, attempt unchanged."""
        self._released.extend(jobs)
        self.schedule()

    def flush(self) -> None:
        """Hand everything over now."""
        self.due = False
        if self.closing:
            self._released += self._cancelled
        else:
            self._failed += [(job, "cancelled", False) for job in self._cancelled]
        self._consumer.settle(self.done, self._failed, self._released)
        for ended in (self.done, self._failed, self._released, self._cancelled):
            ended.clear()
