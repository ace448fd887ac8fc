"""Where a thread meets the engine: it waits for the reply of its call in a mailbox of its own."""

import asyncio
import os
import select
import threading
from collections import deque
from collections.abc import Callable
from typing import Any

from . import _logs
from ._hub import Hub
from ._native import Mailbox
from .errors import ChasquiError

ROUND_MS = 1000
"""How long one look for the reply lasts; the engine ends each call by a deadline of its own."""

MOST_SPARE = 64
"""Mailboxes that are kept for the next calls; each has two file descriptors."""

Poll = Callable[[int], object]

_spare: deque[tuple[Mailbox, Poll]] = deque(maxlen=MOST_SPARE)
"""Each call takes one out, so that no reply can reach another, whether calls are of several threads
or one interrupts the other; of a call that was given up the late reply goes with its mailbox."""


def call(method: Callable[..., None], *args: object) -> Any:
    """Call the engine, wait for its reply and return it, or raise its error.

    Only this thread waits. Raises ``ChasquiError`` where that would stop an event loop.
    """
    refuse_event_loop()
    try:
        mailbox, poll = _spare.pop()
    except IndexError:
        mailbox, poll = _new()
    method(mailbox, 0, *args)
    replies: list[tuple[int, Any, BaseException | None]] = []
    while not replies:
        poll(ROUND_MS)
        replies, _, _, lines = mailbox.drain()
        if lines:
            _logs.write(lines)
    _spare.append((mailbox, poll))
    _, value, error = replies[0]
    if error is not None:
        raise error
    return value


def refuse_event_loop() -> None:
    """Raise ``ChasquiError`` when an event loop runs in this thread."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return
    raise ChasquiError("a SyncQueue would block the event loop that runs here: use Queue and await")


def _new() -> tuple[Mailbox, Poll]:
    mailbox = Mailbox()
    poll = select.poll()
    poll.register(mailbox.fileno(), select.POLLIN)
    _logs.follow_level()
    return mailbox, poll.poll


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
    _spare.clear()
    _inherited.append(_background)
    _background = _Background()


_inherited: list[_Background] = []
"""Never dropped: closing the copy of an event loop would disturb the parent's."""

os.register_at_fork(after_in_child=_forget)
