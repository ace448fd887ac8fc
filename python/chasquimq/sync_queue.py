"""``SyncQueue``: ``Queue`` for code without an event loop."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any

from ._base import BaseQueue, DeadJob, checked_job_id, with_data
from ._native import Added, Job, Mailbox, without_ids
from ._options import Durability, OneOrMore, check_text, choice, naturals, refuse
from ._rows import now_ms, row, rows
from ._types import Row
from ._waiting import background_mailbox, call, refuse_event_loop
from .backoff import Backoff

__all__ = ["SyncQueue"]


class SyncQueue(BaseQueue):
    """Adds jobs to the queue ``name`` and waits: ``Queue`` for views, scripts and threads.

    Parameters, results, errors and what is promised are those of ``Queue``; ``batch`` is for
    ``add_bulk`` alone, since no others travel together. Any number of threads
    may use it at a time; a call blocks its own alone (under gevent and eventlet all greenlets of
    the thread, until it ends). In the thread of a running event loop it raises ``ChasquiError``:
    use ``Queue`` there. One that was used, or has ``credentials``, is refused in a forked child:
    make another there::

        with SyncQueue("emails") as queue:
            job = queue.add("welcome", {"to": "ada@example.com"})

    ``credentials`` may be a ``def`` or an ``async def`` too; a thread in the background asks it.
    What the engine logs between two calls is logged by the next one.
    """

    def add(
        self,
        name: str,
        data: Any,
        *,
        delay_ms: float | datetime | None = None,
        delay: timedelta | None = None,
        attempts: int | None = None,
        backoff: Backoff | None = None,
        job_id: str | None = None,
        durability: Durability | None = None,
        repeat: object = None,
        missed_fires: object = None,
    ) -> Job:
        """Add a job; it is accepted when this returns.

        Parameters and errors are those of ``Queue.add``. After a ``KeyboardInterrupt`` it may have
        been added.
        """
        if repeat is not None or missed_fires is not None:
            refuse(repeat=repeat, missed_fires=missed_fires)
        job = row(name, data, (job_id, delay_ms, delay, attempts, backoff, durability))
        return self._add([job], 1)[0]

    def add_unique(
        self,
        name: str,
        data: Any,
        *,
        job_id: str,
        delay_ms: float | datetime | None = None,
        delay: timedelta | None = None,
        attempts: int | None = None,
        backoff: Backoff | None = None,
        durability: Durability | None = None,
        repeat: object = None,
    ) -> Job:
        """Add a job unless one of this ``job_id`` is waiting, delayed, running or retrying.

        Parameters and errors are those of ``Queue.add``.
        """
        return self.add(
            name,
            data,
            delay_ms=delay_ms,
            delay=delay,
            attempts=attempts,
            backoff=backoff,
            job_id=checked_job_id(job_id),
            durability=durability,
            repeat=repeat,
        )

    def add_bulk(self, jobs: Iterable[Mapping[str, Any]], *, pack: int | None = None) -> list[Job]:
        """Add many jobs in few round trips, whatever their options; return them in order.

        Parameters and errors are those of ``Queue.add_bulk``.
        """
        pack = self._batch if pack is None else pack
        found = rows(jobs, pack)
        self._check_open()
        return self._add(found, pack) if found else []

    def cancel_delayed(self, job_id: str) -> bool:
        """Take back a delayed or retrying job; ``False`` when there is none of this id."""
        check_text(job_id=job_id)
        return bool(self._call(self._producer.cancel_delayed, job_id))

    def peek_dlq(
        self,
        limit: int = 20,
        *,
        job_id: OneOrMore | None = None,
        name: OneOrMore | None = None,
        reason: OneOrMore | None = None,
    ) -> list[DeadJob]:
        """Return the oldest dead jobs; they stay dead.

        ``job_id``, ``name`` and ``reason`` choose among them: a value, or several of which any
        fits; all that are named must fit. ``limit`` holds as well.
        """
        naturals(limit=limit)
        return with_data(self._call(self._producer.peek_dlq, limit, choice(job_id, name, reason)))

    def replay_dlq(
        self,
        limit: int = 100,
        *,
        job_id: OneOrMore | None = None,
        name: OneOrMore | None = None,
        reason: OneOrMore | None = None,
    ) -> int:
        """Send the oldest dead jobs back with fresh attempts; return how many went.

        They are chosen as in ``peek_dlq``.
        """
        naturals(limit=limit)
        return int(self._call(self._producer.replay_dlq, limit, choice(job_id, name, reason)))

    def purge_dlq(
        self,
        limit: int = 100,
        *,
        job_id: OneOrMore | None = None,
        name: OneOrMore | None = None,
        reason: OneOrMore | None = None,
    ) -> int:
        """Delete the oldest dead jobs for good; return how many went.

        They are chosen as in ``peek_dlq``.
        """
        naturals(limit=limit)
        return int(self._call(self._producer.purge_dlq, limit, choice(job_id, name, reason)))

    def close(self) -> None:
        """Disconnect. Calls of other threads that are under way have a second to end.

        The last user of an embedded server waits until it has ended.
        """
        if not self._closed:
            refuse_event_loop()
            self._closed = True
            call(self._producer.close)

    def __enter__(self) -> "SyncQueue":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    @staticmethod
    def _answering() -> Mailbox:
        return background_mailbox()

    def _add(self, rows: list[Row], pack: int) -> list[Job]:
        sent_ms = now_ms()
        added: Added = self._call(self._producer.add, rows, pack)
        jobs: list[Any] = added.jobs(without_ids(rows, sent_ms))
        return jobs

    def _call(self, method: Callable[..., None], *args: object) -> Any:
        if self._closed:
            self._check_open()
        return call(method, *args)
