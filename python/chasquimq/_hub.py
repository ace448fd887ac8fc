"""The one place where an event loop meets the engine: a mailbox, and a reader that empties it."""

import asyncio
import functools
import itertools
import os
import select
import selectors
from collections.abc import Callable
from typing import Any

from . import _credentials, _logs
from ._answer import Answer
from ._native import Mailbox, Waiter

Receiver = Callable[[bool], None]
"""Is told that a consumer has jobs, or, if so, that it has ended."""

Callback = Callable[[Any, BaseException | None], None]
"""Takes the value or the error of a reply."""

LONGEST_WAIT = 0.005
"""Seconds that a loop waits for a call of its own: signals are handled after it."""

_hubs: dict[asyncio.AbstractEventLoop, "Hub"] = {}


def hub() -> "Hub":
    """Return the hub of the running event loop."""
    loop = asyncio.get_running_loop()
    found = _hubs.get(loop)
    if found is None:
        # In a copy: other threads have event loops of their own, and may be here too.
        for other in list(_hubs):
            if other.is_closed():
                _hubs.pop(other, None)
        found = _hubs[loop] = Hub(loop)
    return found


class Hub:
    """Gives each call a ticket, and each reply to the future that waits for it.

    The engine rings once for many replies; then everything that has come is fetched in one call.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self.mailbox = Mailbox()
        self._tickets = itertools.count(1)
        self._callers: dict[int, Callback] = {}
        self._receivers: dict[int, Receiver] = {}
        self._left = 0
        """What has been fetched and not been handed out yet: no file descriptor tells of it."""
        self._is_watched: bool | None = None
        """Whether the engine sees when the loop has something to do; ``None`` before it must."""
        _logs.follow_level()
        loop.add_reader(self.mailbox.fileno(), self._drain)

    def call(self, method: Callable[..., None], *args: object) -> asyncio.Future[Any]:
        """Call the engine; the future is its reply. Cancelling that does not undo the call."""
        return self._send(next(self._tickets), method, args)

    def ask(self, callback: Callback, method: Callable[..., None], *args: object) -> None:
        """Call the engine, and the callback with its reply."""
        ticket = next(self._tickets)
        method(self.mailbox, ticket, *args)
        self._callers[ticket] = callback

    def wait(self, method: Callable[..., None], *args: object) -> "tuple[Any] | Answer | None":
        """Call the engine and wait for its reply here, not in the loop's selector.

        Then no other thread has to be woken for the call, nor the loop by that. Only a loop waits
        that has nothing else to do: return ``None`` without calling when it has, and a future of
        the reply when it has before that comes. Raises the reply's error.
        """
        seconds = self._idle_seconds()
        if seconds <= 0:
            return None
        waiter = Waiter(self.mailbox)
        method(waiter, 0, *args)
        ticket = next(self._tickets)
        reply = waiter.wait_idly(ticket, seconds)
        if reply is not None:
            return reply
        answer = Answer(loop=self.loop)
        self._callers[ticket] = functools.partial(_resolve, answer)
        return answer

    def _idle_seconds(self) -> float:
        """Return how long the loop would wait in its selector; 0 when nobody knows."""
        if self._is_watched is None:
            self._is_watched = _watch(self.loop, self.mailbox)
        loop: Any = self.loop
        if not self._is_watched or loop._ready or self._left:
            return 0.0
        timers: list[asyncio.TimerHandle] = loop._scheduled
        if not timers:
            return LONGEST_WAIT
        return min(LONGEST_WAIT, timers[0].when() - self.loop.time())

    async def subscribe(self, method: Callable[..., None], receiver: Receiver) -> int:
        """Call the engine, wait for its reply, and have its notices delivered from then on."""
        ticket = next(self._tickets)
        self._receivers[ticket] = receiver
        try:
            await self._send(ticket, method)
        except BaseException:
            self.unsubscribe(ticket)
            raise
        return ticket

    def unsubscribe(self, ticket: int) -> None:
        """Forget a receiver."""
        self._receivers.pop(ticket, None)

    def _send(
        self, ticket: int, method: Callable[..., None], args: tuple[object, ...] = ()
    ) -> asyncio.Future[Any]:
        method(self.mailbox, ticket, *args)
        reply: asyncio.Future[Any] = self.loop.create_future()
        self._callers[ticket] = functools.partial(_resolve, reply)
        return reply

    def _drain(self) -> None:
        replies, notices, questions, lines = self.mailbox.drain()
        _logs.write(lines)
        self._left = len(replies) + len(notices) + len(questions)
        for ticket, value, error in replies:
            self._left -= 1
            caller = self._callers.pop(ticket, None)
            if caller is not None:  # a signal may have ended the wait before there was one
                caller(value, error)
        for ticket, ended in notices:
            self._left -= 1
            receiver = self._receivers.get(ticket)
            if receiver is not None:
                receiver(ended)
        for number in questions:
            self._left -= 1
            _credentials.answer(number)


def _watch(loop: asyncio.AbstractEventLoop, mailbox: Mailbox) -> bool:
    """Have calls be left when the loop has something to do; return whether that can be told.

    It can of asyncio's own loops at an epoll: ``_ready`` holds their callbacks, ``_scheduled`` is a
    heap of their timers. A loop without these waits in its selector.
    """
    selector = getattr(loop, "_selector", None)
    known = isinstance(getattr(loop, "_scheduled", None), list) and hasattr(loop, "_ready")
    epoll: Any = getattr(selectors, "EpollSelector", None)
    if not known or epoll is None or not isinstance(selector, epoll):
        return False
    with select.epoll.fromfd(os.dup(mailbox.watch())) as watched:
        try:
            watched.register(selector, select.EPOLLIN)
        except OSError:  # it holds epolls that hold epolls, of which Linux allows four
            return False
    return True


def _resolve(reply: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if reply.cancelled():
        return
    if error is None:
        reply.set_result(value)
    else:
        reply.set_exception(error)
