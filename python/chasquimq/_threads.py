"""Runs plain ``def`` handlers in threads, so that none of them blocks the event loop.

The threads are daemons: a program ends whatever its handlers do. Each settles its own jobs, so an
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
from ._work import Work

logger = logging.getLogger("chasquimq.worker")

SWIFT = 16
"""Calls begun while another thread came to help: so many mean that it would only be in the way."""

PAUSE = 0.005
"""Seconds between two looks whether the help is needed after all."""


class _Runner(threading.Thread):
    """A thread that runs jobs."""

    work: Any = None
    deadline = float("inf")
    abandoned = False
    """Its jobs were settled by others: the thread ends when the handler returns."""


class Threads:
    """At most ``concurrency`` threads, as few as the work needs.

    A thread that begins a job with more in sight calls one other, which calls the next when it
    begins. Where jobs are over sooner than that, one thread runs them all, and the other only
    watches: threads that hold the interpreter by turns would be slower.
    """

    def __init__(
        self,
        handler: Callable[[Any], Any],
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
        self._consumer = consumer
        self._work = work
        self._endings = endings
        self._concurrency = concurrency
        self._timeout = timeout
        self._on_idle = on_idle
        self._on_fatal = on_fatal
        self._context = copy_context()
        self._spawning = threading.Lock()
        self._runners: list[_Runner] = []
        self._parked: set[_Runner] = set()
        self._wakeups: queue.SimpleQueue[bool] = queue.SimpleQueue()
        """Each wakes one parked thread: to look for work, or, if not so, to end."""
        self._begun = 0
        self._seen = 0
        """How many had begun at the last look of the thread that watches."""
        self._coming = False
        """A thread was called and has not begun yet."""
        self._watch: asyncio.TimerHandle | None = None

    def wake(self) -> None:
        """Have somebody look for work, if there is some."""
        if self._timeout is not None and self._watch is None:
            self._watch_deadlines(self._timeout)
        elif self._consumer.look():
            self._wake()

    def stop(self) -> None:
        """Start no more jobs."""
        for _ in self._runners:
            self._wakeups.put(False)

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
            work = runner.work
            if work is not None:
                name = self._work.name(work)
                logger.warning("%s runs in a thread, which nobody can stop; it goes back", name)
                self._endings.release(self._work.jobs(work))
            self._give_up(runner)

    def is_mine(self, _task: asyncio.Task[Any] | None) -> bool:
        """Tell whether a task is one of the runners."""
        return False

    def _wake(self) -> None:
        if not self._endings.closing and (self._parked or not self._spawn()):
            self._wakeups.put(True)

    def _spawn(self) -> bool:
        """Start a thread unless there are enough."""
        with self._spawning:
            if len(self._runners) >= self._concurrency or self._endings.closing:
                return False
            runner = _Runner(name=f"chasquimq-worker-{len(self._runners)}", daemon=True)
            runner.run = lambda: self._serve(runner)  # type: ignore[method-assign]
            self._runners.append(runner)
            try:
                runner.start()
            except RuntimeError as error:  # the system has no more threads to give
                self._runners.remove(runner)
                logger.error("no more than %d threads: %s", len(self._runners), error)
                return False
        return True

    def _serve(self, runner: _Runner) -> None:
        endings, handler, fresh_context = self._endings, self._handler, self._context.copy
        take: Callable[[], Any] = self._work.take
        finish: Callable[[Any, Any], int] = self._work.finish
        timeout, called = self._timeout, True
        while not runner.abandoned:
            idle = endings.closing or (called and not self._is_needed())
            work = None if idle else take()
            called = work is None
            if work is None:
                if self._park(runner):
                    continue
                break
            self._begun += 1
            if timeout is not None:
                runner.deadline = time.monotonic() + timeout
            runner.work = work
            if not self._coming:
                self._call_help()
            try:
                returned = fresh_context().run(handler, work)
            except BaseException as error:
                settled = self._raised(work, error)
            else:
                if returned is None or not inspect.iscoroutine(returned):
                    settled = finish(work, returned)
                else:
                    returned.close()
                    settled = self._fail(work, _COROUTINE, True)
            if not settled:
                name = self._work.name(work)
                logger.warning("%s ended after it was given up; its end does not count", name)
            runner.work = returned = None  # nor is what it returned kept while there is no work
        self._call(self._left, runner)

    def _park(self, runner: _Runner) -> bool:
        if self._endings.closing:
            return False
        self._parked.add(runner)
        try:
            return self._wakeups.get()
        finally:
            self._parked.discard(runner)

    def _call_help(self) -> None:
        """Have another thread take the work that is left, if there is some."""
        can_come = self._parked or len(self._runners) < self._concurrency
        if can_come and self._consumer.look():
            self._coming, self._seen = True, self._begun
            self._wake()

    def _is_needed(self) -> bool:
        """Tell whether a thread that was called should begin; wait while the others are swift."""
        if not self._coming:
            return True
        needed = True
        while self._begun - self._seen >= SWIFT:
            self._seen = self._begun
            needed = not self._endings.closing and self._consumer.look()
            if not needed:
                break
            time.sleep(PAUSE)
        self._coming = False
        return needed

    def _raised(self, work: Any, error: BaseException) -> int:
        """Settle what the handler left with an error; tell how many jobs that counts for."""
        if isinstance(error, KeyboardInterrupt):
            settled = self._consumer.settle([], [], self._work.jobs(work))
            self._call(self._on_fatal, error)
            return settled
        return self._fail(work, describe(error), is_unrecoverable(error))

    def _fail(self, work: Any, text: str, unrecoverable: bool) -> int:
        jobs: list[Job] = self._work.jobs(work)
        for job in jobs:
            job._finish(len(jobs))
        return self._consumer.settle([], [(job, text, unrecoverable) for job in jobs], [])

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
            work = runner.work
            if work is not None and runner.deadline <= now:
                name = self._work.name(work)
                logger.warning("%s timed out in a thread, which nobody can stop", name)
                self._endings.fail_with(self._work.jobs(work), f"timed out after {timeout} s")
                self._give_up(runner)
        if self._consumer.look():
            self._wake()
        busy = (runner for runner in self._runners if runner.work is not None)
        next_look = min([timeout, *(runner.deadline - now for runner in busy)])
        self._watch = self._loop.call_later(max(next_look, 0), self._watch_deadlines, timeout)


_COROUTINE = (
    "TypeError: the handler is no async def but returned a coroutine, which was not run: declare "
    "it with async def, or mark it with inspect.markcoroutinefunction"
)
