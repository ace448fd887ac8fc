"""Adds on their way to the engine: those of one turn of the event loop travel together."""

import asyncio
import copy
import functools
from collections.abc import Iterable, Sequence
from typing import Any

from ._answer import Answer
from ._hub import Hub, hub
from ._native import Added, Job, Producer, without_ids
from ._rows import now_ms
from ._types import Row

_Waiting = tuple[list[Row], list[asyncio.Future[Job]]]


class Adding:
    """Adds to one queue, from any event loop."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: dict[Hub, _Waiting] = {}
        self._under_way = 0
        self._crowded = False
        """Whether adds came several at a time of late: then the next turn's are likely to."""

    async def add(self, row: Row) -> Job:
        """Add a job, with those of other callers in this turn of the loop.

        An add that comes alone does not wait for the turn's end.
        """
        here = hub()
        waiting = self._waiting.get(here)
        if waiting is not None or self._under_way or self._crowded:
            return await self._join(here, waiting, row)
        rows, sent_ms = [row], now_ms()
        reply = here.wait(self._producer.add, rows)
        if reply is None:
            alone = Answer(loop=here.loop)
            self._send(here, rows, [alone])
            job: Job = await alone
            return job
        if isinstance(reply, tuple):
            added: Added = reply[0]
        else:
            self._under_way += 1
            try:
                added = await reply
            finally:
                self._under_way -= 1
        (outcome,) = added.jobs(without_ids(rows, sent_ms))
        if isinstance(outcome, Job):
            return outcome
        raise outcome

    def _join(self, here: Hub, waiting: _Waiting | None, row: Row) -> asyncio.Future[Job]:
        """Have a job travel with those that wait for the turn's end; the future is the job."""
        future: asyncio.Future[Job] = here.loop.create_future()
        if waiting is not None:
            rows, futures = waiting
            rows.append(row)
            futures.append(future)
        else:
            self._waiting[here] = [row], [future]
            here.loop.call_soon(self.flush, here)
        return future

    def flush(self, here: Hub) -> None:
        """Send what waits."""
        waiting = self._waiting.pop(here, None)
        if waiting is not None:
            self._crowded = self._under_way > 0 or len(waiting[0]) > 1
            self._send(here, *waiting)

    def _send(self, here: Hub, rows: list[Row], futures: Sequence[asyncio.Future[Job]]) -> None:
        self._under_way += 1
        answered = functools.partial(self._answered, rows, futures, now_ms())
        try:
            here.ask(answered, self._producer.add, rows)
        except Exception as error:
            answered(None, error)

    def _answered(
        self,
        rows: list[Row],
        futures: Sequence[asyncio.Future[Job]],
        sent_ms: int,
        added: Any,
        error: BaseException | None,
    ) -> None:
        self._under_way -= 1
        outcomes: Iterable[Job | BaseException]
        if error is not None:
            # Each caller raises an error of its own.
            outcomes = (copy.copy(error) for _ in futures)
        else:
            outcomes = added.jobs(without_ids(rows, sent_ms))
        for future, outcome in zip(futures, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, Job):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)

    async def add_all(self, rows: list[Row], pack: int) -> list[Job]:
        """Add the jobs of one caller, so many an entry."""
        reply = hub().call(self._producer.add, rows, pack)
        jobs = without_ids(rows, now_ms())  # while they are on their way
        added: Added = await reply
        all_added: list[Any] = added.jobs(jobs)
        return all_added
