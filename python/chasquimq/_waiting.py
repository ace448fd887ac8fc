"""Where a thread meets the engine: it waits for the reply of its call."""

import asyncio
import os
import threading
from collections.abc import Callable
from typing import Any

from . import _logs
from ._hub import Hub
from ._native import Mailbox, Waiter, drain_log
from .errors import ChasquiError

ROUND_MS = 100
"""How long one look for the reply lasts: between two, signals are handled and lines are logged."""


def call(method: Callable[..., None], *args: object) -> Any:
    """Call the engine, wait for its reply and return it, or raise its error.

    Only this thread waits. Raises ``ChasquiError`` where that would stop an event loop.
    """
    refuse_event_loop()
    waiter = Waiter()
    try:
        method(waiter, 0, *args)
        while (reply := waiter.wait(ROUND_MS)) is None:
            _logs.write(drain_log())
        return reply[0]
    finally:
        # A traceback keeps this frame, and an interrupted call in it would hold ``close`` up.
        del waiter
        _logs.write(drain_log())


def refuse_event_loop() -> None:
    """Raise ``ChasquiError`` when an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ChasquiError("a SyncQueue would block the event loop that runs here: use Queue and await")


class _Background:
    """An event loop in a thread of its own, for what must be answered between calls."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._hub: Hub | None = None

    def mailbox(self) -> Mailbox:
        """Return the loop's mailbox; start the thread if need be."""
        with self._lock:
            if self._hub is None:
                here = Hub(asyncio.new_event_loop())
                run = here.loop.run_forever
                threading.Thread(target=run, name="chasquimq-background", daemon=True).start()
                self._hub = here
            return self._hub.mailbox


_background = _Background()


def background_mailbox() -> Mailbox:
    """Return a mailbox that is read at all times, by a thread of this process."""
    return _background.mailbox()


def _forget() -> None:
    """Begin anew in a forked child, which has none of the threads."""
    global _background
    _inherited.append(_background)
    _background = _Background()


_inherited: list[_Background] = []
"""Never dropped: closing the copy of an event loop would disturb the parent's."""

os.register_at_fork(after_in_child=_forget)
