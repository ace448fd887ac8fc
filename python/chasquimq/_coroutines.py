"""Runs ``async def`` handlers: a few long-lived tasks, each running one job after the other.

A task a job would cost more than a small job itself. A task whose job left traces in it (a changed
context variable, a cancellation, a timeout) is replaced: jobs do not see each other.
"""

import asyncio
import functools
import logging
from collections import deque
from collections.abc import Awaitable, Callable
from contextvars import copy_context
from typing import Any

from ._endings import Endings
from ._native import Consumer, Job

logger = logging.getLogger("chasquimq.worker")

STREAK = 32
"""Jobs that a runner takes without giving way to the rest of the event loop."""

STUBBORN = 5.0
"""Seconds that a handler may take to end after its timeout has cancelled it."""


class _Runner:
    """A task that runs jobs."""

    __slots__ = ("job", "late", "task", "wakeup")

    def __init__(self) -> None:
        self.task: asyncio.Task[None]
        self.wakeup: asyncio.Future[None]
        self.job: Job | None = None
        self.late = False
        """Its job has run into the timeout."""


class Coroutines:
    """At most ``concurrency`` runners, as few as the work needs."""

    def __init__(
        self,
        handler: Callable[[Job], Awaitable[Any]],
        consumer: Consumer,
        endings: Endings,
        *,
        concurrency: int,
        timeout: float | None,
        on_idle: Callable[[], None],
        on_fatal: Callable[[BaseException], None],
    ) -> None:
        self._loop = asyncio.get_running_loop()
        self._handler = handler
        self._consumer = consumer
        self._endings = endings
        self._concurrency = concurrency
        self._timeout = timeout
        self._on_idle = on_idle
        self._on_fatal = on_fatal
        self._context = copy_context()
        self._jobs: deque[Job] = deque()
        self._runners: set[_Runner] = set()
        self._idle: list[_Runner] = []

    def deliver(self, jobs: list[Job]) -> None:
        """Take jobs to run."""
        self._jobs.extend(jobs)
        self._wake(1)

    def stop(self) -> None:
        """Start no more jobs; those that wait go back."""
        self._endings.release(self._jobs)
        self._jobs.clear()

    def busy(self) -> bool:
        """Tell whether a handler runs."""
        return any(runner.job is not None for runner in self._runners)

    def interrupt(self) -> bool:
        """Cancel what runs, and end the runners; tell whether that may take a moment."""
        for runner in self._runners:
            runner.task.cancel()
        return self.busy()

    def abandon(self) -> None:
        """Hand back what still runs."""
        for runner in self._runners:
            if runner.job is not None:
                logger.warning("%r ignores its cancellation; the job goes back", runner.job)
                self._endings.release([runner.job])

    def is_mine(self, task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task is one of the runners."""
        return any(runner.task is task for runner in self._runners)

    def _wake(self, count: int) -> None:
        """Have up to so many more runners look for jobs."""
        for _ in range(min(count, len(self._jobs))):
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
        self._wake(1)
        if not self.busy():
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
        jobs, endings, begin = self._jobs, self._endings, self._consumer.begin
        handler: Callable[[Job], Awaitable[Any]] = self._handler
        if self._timeout is not None:
            handler = functools.partial(self._within_timeout, runner)
        while jobs or await self._park(runner):
            # Every runner with work in sight wakes two others: many waiting jobs start within a few
            # turns of the loop, and jobs that never wait are left to the few runners they need.
            if len(jobs) > 1:
                self._wake(2)
            for _ in range(STREAK):
                if not jobs:
                    break
                job = runner.job = jobs.popleft()
                begin(job)
                try:
                    await handler(job)
                except Exception as error:
                    endings.fail(job, error)
                except BaseException as error:
                    self._interrupted(runner, job, error)
                    return
                else:
                    job._finish()
                    endings.done.append(job)
                    if not endings.due:
                        endings.schedule()
                runner.job = None
                if runner.late or not self._is_clean():
                    return
            else:
                await asyncio.sleep(0)

    def _is_clean(self) -> bool:
        try:
            return copy_context() == self._context
        except Exception:  # a changed variable whose values cannot be compared
            return False

    def _interrupted(self, runner: _Runner, job: Job, error: BaseException) -> None:
        if isinstance(error, GeneratorExit):
            raise error  # the event loop is gone; the job goes back when it is collected
        if runner.late:
            self._endings.fail_with(job, self._timed_out())
        elif isinstance(error, asyncio.CancelledError):
            self._endings.cancel(job)
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            self._endings.release([job])
            self._on_fatal(error)
        else:
            self._endings.fail(job, error)

    def _timed_out(self) -> str:
        return f"timed out after {self._timeout} s"

    async def _within_timeout(self, runner: _Runner, job: Job) -> None:
        assert self._timeout is not None
        timer = self._loop.call_later(self._timeout, self._expire, runner, job)
        try:
            await self._handler(job)
        finally:
            timer.cancel()

    def _expire(self, runner: _Runner, job: Job) -> None:
        runner.late = True
        runner.task.cancel()
        self._loop.call_later(STUBBORN, self._give_up, runner, job)

    def _give_up(self, runner: _Runner, job: Job) -> None:
        if runner.job is not job or runner not in self._runners:
            return
        logger.warning("%r timed out and ignores its cancellation; its end will not count", job)
        self._endings.fail_with(job, f"{self._timed_out()} and ignored its cancellation")
        self._runners.discard(runner)
        self._wake(1)
