"""The one place where an event loop meets the engine: a mailbox, and a reader that empties it."""

import asyncio
import functools
import itertools
import logging
from collections.abc import Callable
from typing import Any

from . import _credentials
from ._native import Mailbox, set_log_level

logger = logging.getLogger("chasquimq.engine")

Receiver = Callable[[bool], None]
"""Is told that a consumer has jobs, or, if so, that it has ended."""

Callback = Callable[[Any, BaseException | None], None]
"""Takes the value or the error of a reply."""

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
        self._mailbox = Mailbox()
        self._tickets = itertools.count(1)
        self._callers: dict[int, Callback] = {}
        self._receivers: dict[int, Receiver] = {}
        set_log_level(min(logging.INFO, max(logger.getEffectiveLevel(), logging.DEBUG)))
        loop.add_reader(self._mailbox.fileno(), self._drain)

    def call(self, method: Callable[..., None], *args: object) -> asyncio.Future[Any]:
        """Call the engine; the future is its reply. Cancelling that does not undo the call."""
        return self._send(next(self._tickets), method, args)

    def ask(self, callback: Callback, method: Callable[..., None], *args: object) -> None:
        """Call the engine, and the callback with its reply."""
        ticket = next(self._tickets)
        method(self._mailbox, ticket, *args)
        self._callers[ticket] = callback

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
        method(self._mailbox, ticket, *args)
        reply: asyncio.Future[Any] = self.loop.create_future()
        self._callers[ticket] = functools.partial(_resolve, reply)
        return reply

    def _drain(self) -> None:
        replies, notices, questions, lines = self._mailbox.drain()
        for level, target, text in lines:
            logger.log(level, "%s", text, extra={"target": target})
        for ticket, value, error in replies:
            self._callers.pop(ticket)(value, error)
        for ticket, ended in notices:
            receiver = self._receivers.get(ticket)
            if receiver is not None:
                receiver(ended)
        for number in questions:
            _credentials.answer(number)


def _resolve(reply: asyncio.Future[Any], value: Any, error: BaseException | None) -> None:
    if reply.cancelled():
        return
    if error is None:
        reply.set_result(value)
    else:
        reply.set_exception(error)
