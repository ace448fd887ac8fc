"""A worker's life in one event loop: opened, fed by the engine, and closed by a deadline."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from typing import Any

from ._coroutines import Coroutines
from ._endings import Endings
from ._hub import hub
from ._native import Consumer
from ._threads import Threads
from ._work import Batches, Singles
from .errors import ChasquiError, ShutdownError

logger = logging.getLogger("chasquimq.worker")

INTERRUPT = 0.4
"""Seconds that cancelled handlers may take to end after the deadline of ``close``."""

FLUSH = 0.5
"""Seconds that the engine has to store the last endings, at least."""

LONGEST_FLUSH = 3600.0
"""And at most, however patient ``close`` is."""


class Session:
    """Runs a handler on what a consumer takes, from ``open`` until ``ended`` is done."""

    def __init__(
        self,
        name: str,
        consumer: Consumer,
        handler: Callable[[Any], Any],
        *,
        in_threads: bool,
        in_batches: bool,
        concurrency: int,
        job_timeout: float | None,
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._hub = hub()
        self._name = name
        self._consumer = consumer
        self._endings = Endings(consumer, self._loop)
        self._news = asyncio.Event()
        self._pool = (Threads if in_threads else Coroutines)(
            handler,
            consumer,
            Batches(consumer) if in_batches else Singles(consumer),
            self._endings,
            concurrency=concurrency,
            timeout=job_timeout,
            on_idle=self._news.set,
            on_fatal=self._stop_because,
        )
        self._deadline = float("inf")
        self._closing: asyncio.Task[None] | None = None
        self._ticket: int | None = None
        self.ended: asyncio.Future[None] = self._loop.create_future()
        """Done when nothing runs any more and the engine has disconnected."""
        self.fatal: BaseException | None = None
        """Why it ended by itself."""

    @property
    def is_closing(self) -> bool:
        """Whether ``close`` was called."""
        return self._closing is not None

    def check_loop(self) -> None:
        """Raise ``ChasquiError`` in another event loop than its own."""
        if asyncio.get_running_loop() is not self._loop:
            raise ChasquiError(
                f"the worker of queue {self._name!r} runs in another event loop, where it must be "
                "called: asyncio.run_coroutine_threadsafe(worker.close(), its_loop)"
            )

    async def open(self) -> None:
        """Connect and begin to run jobs."""
        self._ticket = await self._hub.subscribe(self._consumer.start, self._notice)

    def fail(self, error: BaseException) -> None:
        """Tell those who wait for the end that it could not open."""
        if not self.ended.done():  # as after a close in the middle of opening
            self.ended.set_exception(error)
            self.ended.exception()  # whoever opened it has it too: nobody else need wait

    def close(self, timeout: float) -> asyncio.Task[None]:
        """Take no more jobs and end within ``timeout`` seconds; later calls can shorten it."""
        deadline = self._loop.time() + timeout
        if deadline < self._deadline:
            self._deadline = deadline
            self._news.set()
        if self._closing is None:
            self._endings.closing = True
            self._consumer.stop()
            self._pool.stop()
            self._closing = self._loop.create_task(self._end())
        return self._closing

    def is_handler(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task runs a handler of this session."""
        return self._pool.is_mine(task)

    def _notice(self, ended: bool) -> None:
        if self._closing is not None:
            return
        if not ended:
            self._pool.wake()
        else:
            reason = self._consumer.last_error() or "the engine stopped"
            self._stop_because(ShutdownError(f"worker of queue {self._name!r}: {reason}"))

    def _stop_because(self, error: BaseException) -> None:
        self.fatal = self.fatal or error
        self.close(0)

    async def _end(self) -> None:
        try:
            await self._idle_or_deadline()
        except asyncio.CancelledError:  # the event loop is being closed: so hurry, but do not skip
            self._deadline = self._loop.time()
        deadline = self._deadline
        if self._pool.interrupt():
            self._deadline = self._loop.time() + INTERRUPT
            await self._idle_or_deadline()
        self._pool.abandon()
        self._endings.flush()
        left = deadline - self._loop.time()
        await self._disconnect(min(max(FLUSH, left), LONGEST_FLUSH))
        if self._ticket is not None:
            self._hub.unsubscribe(self._ticket)
        if not self.ended.done():
            self.ended.set_result(None)

    async def _idle_or_deadline(self) -> None:
        while self._pool.busy() and (left := self._deadline - self._loop.time()) > 0:
            self._news.clear()
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._news.wait(), left)

    async def _disconnect(self, seconds: float) -> None:
        call = self._hub.call(self._consumer.close, round(seconds * 1000))
        try:
            finished, released, abandoned = await asyncio.wait_for(call, seconds)
        except asyncio.TimeoutError:
            logger.warning(
                "worker of queue %r: the server did not take the last endings within %.1f s; what "
                "they are about comes back within one lease",
                self._name,
                seconds,
            )
        except Exception:
            logger.exception("worker of queue %r: closing failed", self._name)
        else:
            logger.info(
                "worker of queue %r closed: %d runs ended, %d jobs handed back, %d abandoned",
                self._name,
                finished,
                released,
                abandoned,
            )
