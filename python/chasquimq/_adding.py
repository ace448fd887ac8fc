"""Adds on their way to the engine: those of one turn of the event loop travel together."""

import asyncio
import copy
import time
from collections.abc import Callable, Iterable
from typing import Any

from ._codec import encode
from ._hub import Hub, hub
from ._native import Added, Job, Producer
from ._types import JobOptions
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


class _Batch:
    """Adds of several callers, on their way or waiting for the end of the turn."""

    __slots__ = ("_back", "_futures", "_now_ms", "data", "names", "options", "payloads")

    def __init__(self, back: Callable[[], None]) -> None:
        self._back = back
        self.names: list[str] = []
        self.payloads: list[bytes] = []
        self.data: list[Any] = []
        self.options: list[JobOptions | None] = []
        self._futures: list[asyncio.Future[Job]] = []
        self._now_ms = 0

    def put(
        self,
        loop: asyncio.AbstractEventLoop,
        name: str,
        payload: bytes,
        data: Any,
        options: JobOptions | None,
    ) -> asyncio.Future[Job]:
        """Take one more; the future is its job."""
        self.names.append(name)
        self.payloads.append(payload)
        self.data.append(data)
        self.options.append(options)
        future: asyncio.Future[Job] = loop.create_future()
        self._futures.append(future)
        return future

    def send(self, hub: Hub, producer: Producer) -> None:
        """Hand them to the engine."""
        self._now_ms = time.time_ns() // 1_000_000
        options = self.options if any(self.options) else None
        try:
            hub.ask(
                self._answered, producer.add, self.names, self.payloads, options, one_caller=False
            )
        except Exception as error:
            self._answered(None, error)

    def _answered(self, added: Any, error: BaseException | None) -> None:
        self._back()
        outcomes: Iterable[Job | BaseException]
        if error is not None:
            # Each caller raises an error of its own.
            outcomes = (copy.copy(error) for _ in self._futures)
        else:
            outcomes = added.jobs(self.names, self.data, self._now_ms)
        for future, outcome in zip(self._futures, outcomes, strict=True):
            if future.cancelled():
                continue
            if isinstance(outcome, Job):
                future.set_result(outcome)
            else:
                future.set_exception(outcome)


class Adding:
    """Adds to one queue, from any event loop."""

    def __init__(self, producer: Producer) -> None:
        self._producer = producer
        self._waiting: dict[Hub, _Batch] = {}
        self._under_way = 0
        self._crowded = False
        """Whether adds came several at a time of late: then the next turn's are likely to."""

    def add(
        self, name: str, payload: bytes, data: Any, options: JobOptions | None
    ) -> asyncio.Future[Job]:
        """Add a job, with those of other callers in this turn of the loop; the future is the job.

        An add that comes alone does not wait for the turn's end.
        """
        here = hub()
        batch = self._waiting.get(here)
        if batch is not None:
            return batch.put(here.loop, name, payload, data, options)
        batch = _Batch(self._back)
        future = batch.put(here.loop, name, payload, data, options)
        if self._under_way or self._crowded:
            self._waiting[here] = batch
            here.loop.call_soon(self.flush, here)
        else:
            self._send(batch, here)
        return future

    def flush(self, here: Hub) -> None:
        """Send what waits."""
        batch = self._waiting.pop(here, None)
        if batch is not None:
            self._crowded = self._under_way > 0 or len(batch.names) > 1
            self._send(batch, here)

    def _send(self, batch: _Batch, here: Hub) -> None:
        self._under_way += 1
        batch.send(here, self._producer)

    def _back(self) -> None:
        self._under_way -= 1

    async def add_all(
        self,
        names: list[str],
        payloads: list[bytes],
        data: list[Any],
        options: list[JobOptions | None],
        pack: int,
    ) -> list[Job]:
        """Add the jobs of one caller, so many an entry."""
        now_ms = time.time_ns() // 1_000_000
        given = options if any(options) else None
        added: Added = await hub().call(
            self._producer.add, names, payloads, given, one_caller=True, pack=pack
        )
        jobs: list[Any] = added.jobs(names, data, now_ms)
        return jobs
