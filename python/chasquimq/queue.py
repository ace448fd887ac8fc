"""``Queue``: adds jobs, takes delayed ones back, and looks after the dead ones."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from functools import cached_property
from types import TracebackType
from typing import Any

from ._adding import Adding
from ._base import BaseQueue, DeadJob, checked_job_id, with_data
from ._hub import hub
from ._native import Job
from ._options import Durability, OneOrMore, check_text, choice, naturals, refuse
from ._rows import row, rows
from .backoff import Backoff

__all__ = ["DeadJob", "Queue"]


class Queue(BaseQueue):
    """Adds jobs to the queue ``name``.

    Nothing is connected before the first call, and that does not block the event loop. Without
    ``redis_url`` the server is that of CHASQUIMQ_URL, else the running embedded one, else
    redis://127.0.0.1:6379; the log says which. ``embedded://`` starts or joins the embedded server.

    ``max_queue_len`` bounds the entries that are ready or running, and the delayed ones apart: one
    more raises ``QueueFull`` (default: no bound; ``max_stream_len`` is its older name).
    ``max_delay_secs`` is the longest delay (default 30 days, 0 for none), ``max_payload_bytes`` the
    largest encoded data (default 1 MiB). ``events_verbose`` publishes ``waiting`` for each job too.

    Up to ``batch`` jobs, 1 to 256 (default 1), that are added in one turn of the event loop share
    an entry of the stream; ``add_bulk`` says what that means. Delayed jobs, and those with a
    ``job_id``, do not.

    ``durability`` says who must have a job before it counts as added, beside the memory of the
    primary: ``"replica"``, so that a failover does not lose it, is ``replicas`` (default 1),
    ``"aof"`` the append-only file on disk (Redis and Valkey from 7.2 on). Where they do not have it
    within ``durability_timeout_ms`` (default 1,000), ``OutcomeUnknown`` is raised.

    ``credentials`` is a function that returns ``(user, password)``, for passwords and tokens that
    change (IAM, Entra); a user of ``None`` is the server's default user. It takes the place of
    those in the URL and is asked at each connection and reconnect: an ``async def`` in the event
    loop that used the queue last, a ``def`` in a thread of its own. When it raises, or takes longer
    than 8 s, connecting fails with ``AuthError``; a broken connection is dialled again, and it is
    asked again. It must keep the password out of its errors. ``credential_provider`` is the older
    name; a parameter that the function needs is ``None``::

        async def credentials():
            return "app", await token_of_the_next_15_minutes()

        queue = Queue("emails", redis_url="rediss://cache.example:6379", credentials=credentials)

    It may be made before a fork and used in the children, if it was not used and has no
    ``credentials``; else a child makes its own.
    """

    @cached_property
    def _adding(self) -> Adding:
        return Adding(self._producer)

    async def add(
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

        ``data`` go as msgpack: ``None``, booleans, numbers, strings, bytes, lists, dicts and
        datetimes with a time zone come to the handler as they were; tuples and sets as lists,
        dataclasses as dicts, enums as their values; dates, naive datetimes, UUIDs and Decimals as
        strings.

        ``delay_ms`` is milliseconds from now or the time at which it becomes ready (naive: UTC),
        ``delay`` the same as a timedelta. ``attempts`` counts all runs, the first included
        (default: the worker's ``max_attempts``); ``backoff`` is the wait between them (default: 100
        ms that double up to 30 s, plus up to 100 ms at random). ``durability`` beats the queue's.

        While a job of this ``job_id`` is waiting, delayed, running or retrying, adding it again
        changes nothing, and nothing tells: the ``Job`` that is returned shows what was given, not
        what is stored. The id is free again when the job is done or dead.

        When the connection breaks before the reply, the job is sent again for up to ten seconds,
        and added once all the same, even when it has been done meanwhile.

        Raises ``ConfigError`` and ``EncodeError`` (both are ``ValueError``) before anything is
        sent, ``QueueFull``, the errors of the connection, and ``OutcomeUnknown`` when the job may
        have been added: it carries the id under which adding it again is safe, with this
        ``Queue`` and within five minutes.
        """
        if repeat is not None or missed_fires is not None:
            refuse(repeat=repeat, missed_fires=missed_fires)
        job = row(name, data, (job_id, delay_ms, delay, attempts, backoff, durability))
        if self._closed:
            self._check_open()
        return await self._adding.add(job)

    async def add_unique(
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

        Parameters and errors are those of ``add``.
        """
        return await self.add(
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

    async def add_bulk(
        self, jobs: Iterable[Mapping[str, Any]], *, pack: int | None = None
    ) -> list[Job]:
        """Add many jobs in few round trips, whatever their options; return them in order.

        Each is a mapping of the parameters of ``add``; only ``name`` and ``data`` are required.
        Up to 500 immediate ones, or 500 delayed ones, are added all or none. What any of them asks
        for as its ``durability`` is waited for once, for all.

        ``pack`` jobs, 1 to 256 (default: the queue's ``batch``), share an entry of the stream: 8
        make adding and draining several times as fast for the server. An entry goes to one worker
        as a whole, and what that has no free slot for goes back; each job still ends, fails and is
        retried on its own.

        Raises what ``add`` raises. ``OutcomeUnknown`` carries the ids of all of them, in order.
        """
        pack = self._batch if pack is None else pack
        found = rows(jobs, pack)
        self._check_open()
        return await self._adding.add_all(found, pack) if found else []

    async def cancel_delayed(self, job_id: str) -> bool:
        """Take back a delayed or retrying job; ``False`` when there is none of this id."""
        check_text(job_id=job_id)
        return bool(await self._call(self._producer.cancel_delayed, job_id))

    async def peek_dlq(
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
        return with_data(
            await self._call(self._producer.peek_dlq, limit, choice(job_id, name, reason))
        )

    async def replay_dlq(
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
        return int(await self._call(self._producer.replay_dlq, limit, choice(job_id, name, reason)))

    async def purge_dlq(
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
        return int(await self._call(self._producer.purge_dlq, limit, choice(job_id, name, reason)))

    async def close(self) -> None:
        """Disconnect. The last user of an embedded server waits until it has ended."""
        if not self._closed:
            self._closed = True
            here = hub()
            self._adding.flush(here)
            await here.call(self._producer.close)

    async def __aenter__(self) -> "Queue":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def _call(self, method: Callable[..., None], *args: object) -> Any:
        self._check_open()
        return await hub().call(method, *args)
