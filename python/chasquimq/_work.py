"""What a handler is called with: a job, or a batch of them, each of which ends on its own."""

from typing import Any

from ._handlers import describe, is_unrecoverable
from ._native import Consumer, Job

Failure = tuple[Job, str, bool]
"""A job, why its run failed, and whether another is pointless."""


class Singles:
    """One job at a time; what its handler returns is not looked at. For any thread.

    ``take`` returns a job for a free slot, ``None`` when a notice will come. ``finish`` settles one
    whose handler returned, and tells how many jobs of it had not been settled before.
    """

    def __init__(self, consumer: Consumer) -> None:
        self.take = consumer.next
        self.finish = consumer.finish

    def jobs(self, work: Any) -> list[Job]:
        """Return the job."""
        return [work]

    def name(self, work: Any) -> str:
        """Return the job as text."""
        return repr(work)


class Batches:
    """A list of jobs at a time; otherwise as ``Singles``."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.take = consumer.next_batch

    def finish(self, work: list[Job], returned: object) -> int:
        """Settle each job: as failed where the handler returned an exception in its place."""
        errors = outcomes(returned, len(work))
        if errors is None:
            return self._consumer.finish_batch(work)
        done: list[Job] = []
        failed: list[Failure] = []
        for job, error in zip(work, errors, strict=True):
            job._finish(len(work))
            if isinstance(error, BaseException):
                failed.append((job, describe(error), is_unrecoverable(error)))
            else:
                done.append(job)
        return self._consumer.settle(done, failed, [])

    def jobs(self, work: Any) -> list[Job]:
        """Return the jobs."""
        jobs: list[Job] = work
        return jobs

    def name(self, work: Any) -> str:
        """Return the number of jobs, and the first."""
        return f"a batch of {len(work)} jobs from {work[0]!r}"


Work = Singles | Batches


def outcomes(returned: object, jobs: int) -> list[Any] | None:
    """Return an outcome a job, ``None`` when all are done.

    A list with an exception among its items tells one by one, as ``asyncio.gather`` with
    ``return_exceptions`` does. When it is of another length, nobody knows whose they are: all fail.
    """
    if not isinstance(returned, list | tuple):
        return None
    if not any(isinstance(item, BaseException) for item in returned):
        return None
    if len(returned) == jobs:
        return list(returned)
    return [
        ValueError(
            f"the handler returned {len(returned)} outcomes, exceptions among them, for a batch of "
            f"{jobs} jobs: return one a job, in their order"
        )
    ] * jobs
