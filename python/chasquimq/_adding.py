"""Adds on their way to the engine: those of one turn of the event loop travel together."""

import asyncio
import copy
import functools
import time
from collections.abc import Iterable
from typing import Any

from ._codec import encode
from ._hub import Hub, hub
from ._native import Added, Job, Producer
from ._types import Row
from .errors import EncodeError


def payload_of(name: str, data: object, job_id: str | None) -> bytes:
    """Return the encoded data of a job whose texts can be sent.

    Raises ``TypeError`` and ``EncodeError`` for what cannot.
    """
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; it must be a string")
    if job_id is not None and not isinstance(job_id, str):
        raise TypeError(f"job_id is {job_id!r}; it must be a string")
    if not name.isascii() or (job_id and not job_id.isascii()):
        try:
            f"{name}{job_id}".encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"name and job_id must be text of Unicode: {error}") from error
    return encode(data)


class Adding:
    """Adds to one queue, from any event loop."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: dict[Hub, tuple[list[Row], list[asyncio.Future[Job]]]] = {}
        self._under_way = 0
        self._crowded = False
        """Whether adds came several at a time of late: then the next turn's are likely to."""

    def add(self, row: Row) -> asyncio.Future[Job]:
        """Add a job, with those of other callers in this turn of the loop; the future is the job.

        An add that comes alone does not wait for the turn's end.
        """
        here = hub()
        future: asyncio.Future[Job] = here.loop.create_future()
        waiting = self._waiting.get(here)
        if waiting is not None:
            rows, futures = waiting
            rows.append(row)
            futures.append(future)
        elif self._under_way or self._crowded:
            self._waiting[here] = [row], [future]
            here.loop.call_soon(self.flush, here)
        else:
            self._send(here, [row], [future])
        return future

    def flush(self, here: Hub) -> None:
        """Send what waits."""
        waiting = self._waiting.pop(here, None)
        if waiting is not None:
            self._crowded = self._under_way > 0 or len(waiting[0]) > 1
            self._send(here, *waiting)

    def _send(self, here: Hub, rows: list[Row], futures: list[asyncio.Future[Job]]) -> None:
        self._under_way += 1
        answered = functools.partial(self._answered, rows, futures, _now_ms())
        try:
            here.ask(answered, self._producer.add, rows)
        except Exception as error:
            answered(None, error)

    def _answered(
        self,
        rows: list[Row],
        futures: list[asyncio.Future[Job]],
        now_ms: int,
        added: Any,
        error: BaseException | None,
    ) -> None:
        self._under_way -= 1
        outcomes: Iterable[Job | BaseException]
        if error is not None:
            # Each caller raises an error of its own.
            outcomes = (copy.copy(error) for _ in futures)
        else:
            outcomes = added.jobs(rows, now_ms)
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, Job):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    async def add_all(self, rows: list[Row], pack: int) -> list[Job]:
        """Add the jobs of one caller, so many an entry."""
        now_ms = _now_ms()
        added: Added = await hub().call(self._producer.add, rows, pack)
        jobs: list[Any] = added.jobs(rows, now_ms)
        return jobs


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
