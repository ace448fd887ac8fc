"""Runs plain ``def`` handlers in threads, so that none of them blocks the event loop.

The threads are daemons: a program ends whatever its handlers do. Each settles its own job, so an
ending does not depend on the event loop.
"""

import asyncio
import inspect
import logging
import queue
import threading
import time
from collections.abc import Callable
from contextvars import copy_context
from typing import Any

from ._endings import Endings
from ._handlers import describe, is_unrecoverable
from ._native import Consumer, Job

logger = logging.getLogger("chasquimq.worker")


class _Runner(threading.Thread):
    """A thread that runs jobs."""

    job: Job | None = None
    deadline = float("inf")
    abandoned = False
    """Its job was settled by others: the thread ends when the handler returns."""


class Threads:
    """At most ``concurrency`` threads, as few as the work needs."""

    def __init__(
        self,
        handler: Callable[[Job], Any],
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
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._runners: list[_Runner] = []
        self._watch: asyncio.TimerHandle | None = None

    def deliver(self, jobs: list[Job]) -> None:
        """Take jobs to run."""
        for job in jobs:
            self._jobs.put(job)
        self._spawn()
        if self._timeout is not None and self._watch is None:
            self._watch_deadlines(self._timeout)

    def stop(self) -> None:
        """Start no more jobs; those that wait go back."""
        try:
            while (job := self._jobs.get_nowait()) is not None:
                self._endings.release([job])
        except queue.Empty:
            pass
        for _ in self._runners:
            self._jobs.put(None)

    def busy(self) -> bool:
        """Tell whether a thread lives; ``stop`` ends those without a job."""
        return bool(self._runners)

    def interrupt(self) -> bool:
        """Tell that threads cannot be interrupted: waiting for them would not help."""
        if self._watch is not None:
            self._watch.cancel()
        return False

    def abandon(self) -> None:
        """Hand back what still runs."""
        for runner in self._runners.copy():
            job = runner.job
            if job is not None:
                logger.warning("%r runs in a thread, which nobody can stop; it goes back", job)
                self._endings.release([job])
            self._give_up(runner)

    def is_mine(self, _task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task is one of the runners."""
        return False

    def _spawn(self) -> None:
        if self._endings.closing:
            return
        idle = sum(runner.job is None for runner in self._runners)
        room = self._concurrency - len(self._runners)
        for _ in range(min(self._jobs.qsize() - idle, room)):
            runner = _Runner(name=f"chasquimq-{len(self._runners)}", daemon=True)
            runner.run = lambda runner=runner: self._serve(runner)  # type: ignore[method-assign,misc]
            try:
                runner.start()
            except RuntimeError as error:  # the system has no more threads to give
                logger.error("no more than %d threads: %s", len(self._runners), error)
                return
            self._runners.append(runner)

    def _serve(self, runner: _Runner) -> None:
        while not runner.abandoned and (job := self._jobs.get()) is not None:
            if self._timeout is not None:
                runner.deadline = time.monotonic() + self._timeout
            runner.job = job
            self._run(job)
            runner.deadline, runner.job = float("inf"), None
        self._call(self._left, runner)

    def _run(self, job: Job) -> None:
        done: list[Job] = []
        failed: list[tuple[Job, str, bool]] = []
        released: list[Job] = []
        self._consumer.begin(job)
        try:
            result = self._context.copy().run(self._handler, job)
        except (KeyboardInterrupt, SystemExit) as error:
            released.append(job)
            self._call(self._on_fatal, error)
        except BaseException as error:
            failed.append((job, describe(error), is_unrecoverable(error)))
        else:
            if inspect.iscoroutine(result):
                result.close()
                failed.append((job, _COROUTINE, True))
            else:
                done.append(job)
        job._finish()
        if not self._consumer.settle(done, failed, released):
            logger.warning("%r ended after it was given up; its end does not count", job)

    def _call(self, function: Callable[..., None], *args: object) -> None:
        try:
            self._loop.call_soon_threadsafe(function, *args)
        except RuntimeError:
            logger.debug("the event loop is closed: %s is not told", function.__name__)

    def _left(self, runner: _Runner) -> None:
        if runner in self._runners:
            self._runners.remove(runner)
        if not self._runners:
            self._on_idle()

    def _give_up(self, runner: _Runner) -> None:
        runner.abandoned = True
        self._runners.remove(runner)

    def _watch_deadlines(self, timeout: float) -> None:
        """Give up what is late. No job can become late before this looks again."""
        now = time.monotonic()
        for runner in self._runners.copy():
            job = runner.job
            if job is not None and runner.deadline <= now:
                logger.warning("%r timed out in a thread, which nobody can stop", job)
                self._endings.fail_with(job, f"timed out after {timeout} s")
                self._give_up(runner)
        self._spawn()
        next_look = min([timeout, *(runner.deadline - now for runner in self._runners)])
        self._watch = self._loop.call_later(max(next_look, 0), self._watch_deadlines, timeout)


_COROUTINE = (
    "TypeError: the handler is no async def but returned a coroutine, which was not run: declare "
    "it with async def, or mark it with inspect.markcoroutinefunction"
)
