"""Runs ``async def`` handlers: a few long-lived tasks, each running one job after the other.

A task a job would cost more than a small job itself. A task whose job left traces in it (a changed
context variable, a cancellation, a timeout) is replaced: jobs do not see each other.
"""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from ._endings import Endings
from ._native import Consumer
from ._work import Work

logger = logging.getLogger("chasquimq.worker")

STREAK = 32
"""Jobs that a runner takes without giving way to the rest of the event loop."""

STUBBORN = 5.0
"""Seconds that a handler may take to end after its timeout has cancelled it."""


class _Runner:
    """A task that runs jobs."""

    __slots__ = ("late", "task", "wakeup", "work")

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.wakeup: asyncio.Future[None]
        self.work: Any = None
        self.late = False
        """Its job has run into the timeout."""


class Coroutines:
    """At most ``concurrency`` runners, as few as the work needs."""

    def __init__(
        self,
        handler: Callable[[Any], Awaitable[Any]],
        consumer: Consumer,
        work: Work,
        endings: Endings,
        *,
        concurrency: int,
        timeout: float | None,
        on_idle: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._look = consumer.look
        self._work = work
        self._endings = endings
        self._concurrency = concurrency
        self._timeout = timeout
        self._on_idle = on_idle
        self._on_fatal = on_fatal
        self._context = copy_context()
        self._runners: set[_Runner] = set()
        self._idle: list[_Runner] = []

    def wake(self) -> None:
        """Have somebody look for work, if there is some."""
        if self._look():
            self._wake(1)

    def stop(self) -> None:
        """Start no more jobs: nothing to do, for there are none to fetch."""

    def busy(self) -> bool:
        """Tell whether a handler runs."""
        return any(runner.work is not None for runner in self._runners)

    def interrupt(self) -> bool:
        """Cancel what runs, and end the runners; tell whether that may take a moment."""
        for runner in self._runners:
            runner.task.cancel()
        return self.busy()

    def abandon(self) -> None:
        """Hand back what still runs."""
        for runner in self._runners:
            if runner.work is not None:
                name = self._work.name(runner.work)
                logger.warning("%s ignores its cancellation and goes back", name)
                self._endings.release(self._work.jobs(runner.work))

    def is_mine(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task is one of the runners."""
        return any(runner.task is task for runner in self._runners)

    def _wake(self, count: int) -> None:
        """Have up to so many more runners look for work."""
        for _ in range(count):
            if self._idle:
                self._idle.pop().wakeup.set_result(None)
            elif len(self._runners) < self._concurrency:
                self._spawn()

    def _spawn(self) -> None:
        runner = _Runner()
        self._runners.add(runner)
        # In a copy of the worker's own context, whoever happens to be running now; and not through
        # the loop's task factory, which may be one that starts tasks at once, inside this one.
        runner.task = self._context.run(self._task, runner)
        runner.task.add_done_callback(functools.partial(self._left, runner))

    def _task(self, runner: _Runner) -> asyncio.Task[None]:
        return asyncio.Task(self._serve(runner), loop=self._loop)

    def _left(self, runner: _Runner, task: asyncio.Task[None]) -> None:
        self._runners.discard(runner)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.error("a runner failed; this is a bug", exc_info=error)
        if not self._endings.closing:
            self.wake()
        elif not self.busy():
            self._on_idle()

    async def _park(self, runner: _Runner) -> bool:
        """Wait for a job; ``False`` when the runner is to end."""
        if self._endings.closing:
            return False
        runner.wakeup = self._loop.create_future()
        self._idle.append(runner)
        try:
            await runner.wakeup
        except asyncio.CancelledError:
            if runner in self._idle:
                self._idle.remove(runner)
            return False
        return True

    async def _serve(self, runner: _Runner) -> None:
        context, look = self._context, self._look
        take: Callable[[], Any] = self._work.take
        finish: Callable[[Any, Any], int] = self._work.finish
        runners, idle, concurrency = self._runners, self._idle, self._concurrency
        handler: Callable[[Any], Awaitable[Any]] = self._handler
        if self._timeout is not None:
            handler = functools.partial(self._within_timeout, runner)
        while True:
            # Every runner with more work in sight wakes two others: many waiting jobs start within
            # few turns of the loop, and jobs that never wait are left to the few runners they need.
            alone = True
            for _ in range(STREAK):
                work = runner.work = take()
                if work is None:
                    break
                if alone and (idle or len(runners) < concurrency) and look():
                    alone = False
                    self._wake(2)
                try:
                    returned = await handler(work)
                except Exception as error:
                    self._endings.fail(self._work.jobs(work), error)
                except BaseException as error:
                    self._interrupted(runner, error)
                    return
                else:
                    finish(work, returned)
                runner.work = returned = None  # nor is what it returned kept while there is no work
                try:
                    is_clean = copy_context() == context
                except Exception:  # a changed variable whose values cannot be compared
                    return
                if runner.late or not is_clean:
                    return
            else:
                await asyncio.sleep(0)
                continue
            if not await self._park(runner):
                return

    def _interrupted(self, runner: _Runner, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            raise error  # the event loop is gone; the job goes back when it is collected
        jobs = self._work.jobs(runner.work)
        if runner.late:
            self._endings.fail_with(jobs, self._timed_out())
        elif isinstance(error, asyncio.CancelledError):
            self._endings.cancel(jobs)
        elif isinstance(error, KeyboardInterrupt):
            self._endings.release(jobs)
            self._on_fatal(error)
        else:
            self._endings.fail(jobs, error)

    def _timed_out(self) -> str:
        return f"timed out after {self._timeout} s"

    async def _within_timeout(self, runner: _Runner, work: Any) -> Any:
        assert self._timeout is not None
        timer = self._loop.call_later(self._timeout, self._expire, runner, work)
        try:
            return await self._handler(work)
        finally:
            timer.cancel()

    def _expire(self, runner: _Runner, work: Any) -> None:
        runner.late = True
        runner.task.cancel()
        self._loop.call_later(STUBBORN, self._give_up, runner, work)

    def _give_up(self, runner: _Runner, work: Any) -> None:
        if runner.work is not work or runner not in self._runners:
            return
        name = self._work.name(work)
        logger.warning("%s timed out and ignores its cancellation; its end will not count", name)
        text = f"{self._timed_out()} and ignored its cancellation"
        self._endings.fail_with(self._work.jobs(work), text)
        self._runners.discard(runner)
        self.wake()
