"""``QueueEvents``: follows what happens to the jobs of a queue, from any process."""

import asyncio
import inspect
import logging
import re
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from ._address import locate
from ._credentials import Credentials, asked, native
from ._hub import hub
from ._native import Tail
from ._options import naturals
from .errors import ChasquiError, ConfigError, ShutdownError

__all__ = ["QueueEvent", "QueueEvents"]

logger = logging.getLogger("chasquimq.events")

GAP = "gap"
"""Among the events: some may be missing here."""

NAMES = (
    "completed",
    "failed",
    "retry-scheduled",
    "dlq",
    "delayed",
    "waiting",
    "promoted",
    "active",
    "released",
    "cancelled",
    "replayed",
    "purged",
    GAP,
)
"""Of the events of this version."""

EVERY = "*"
"""For callbacks: whatever happens."""

_ID = re.compile(r"(\d{1,20})-(\d{1,20})(:\d{1,9})?", re.ASCII)
"""What an id looks like; the last part where one entry of the stream holds several events."""


@dataclass(frozen=True, slots=True)
class QueueEvent:
    """Something that happened to a job, or a gap in what is known.

    ================= ======================================= =====================================
    name              what happened                           fields
    ================= ======================================= =====================================
    completed         a run returned, and that is stored      attempt, duration_us
    failed            a run did not                           attempt, duration_us, reason
    retry-scheduled   it will run again                       attempt (the next), backoff_ms
    dlq               it went to the dead-letter queue        attempt, reason
    delayed           it was added for later                  delay_ms
    waiting, promoted it is ready, where that is published
    active            it is about to run, likewise            attempt
    released          a worker handed it back unfinished
    cancelled         a delayed job was taken back
    replayed          it was sent back from the dead-letter queue
    purged            it was deleted from the dead-letter queue
    gap               the stream was cut before it was read:  after
                      events after ``after`` may be missing
    ================= ======================================= =====================================

    Runs count from 1; attempt 0 means that no handler ran. All fields are strings.
    """

    name: str
    """What happened."""
    job_id: str
    """The job; empty for a gap, and when the job's record could not be read."""
    job_name: str
    """The job's name; empty when it has none."""
    fields: dict[str, str]
    """What else there is to say."""
    id: str = ""
    """Its place in the stream: give it as ``last_event_id`` to go on after it."""


Callback = Callable[[QueueEvent], Awaitable[None]] | Callable[[QueueEvent], None]


class QueueEvents:
    """Follows the events of a queue: every subscriber sees every event.

    ::

        async for ev in QueueEvents("emails"):
            print(ev.name, ev.job_id, ev.fields)

    It begins after ``last_event_id``: ``"$"`` (the default) is the moment at which it connects,
    ``"0"`` the oldest event that is kept, else the ``id`` of an event. It connects at the first
    event that is asked for, or in ``async with``; only then can it raise the errors of the
    connection. From then on it waits through faults of the network and restarts of the server, and
    goes on where it was: no event is missing, none comes twice.

    To go on in another process, save ``last_event_id`` when an event has been dealt with, and give
    it to a new object. When the stream, which is bounded, has been cut past that place, the next
    event is one of the name ``gap``, and a warning is logged.

    ``redis_url``, ``tls`` and ``credentials`` are those of ``Queue``. ``count`` is how many entries
    one read asks for, ``block_ms`` how long it waits for them on the server; neither changes what
    comes.
    """

    def __init__(
        self,
        queue_name: str,
        *,
        redis_url: str | None = None,
        tls: bool = False,
        last_event_id: str = "$",
        block_ms: int = 5000,
        count: int = 100,
        credentials: Credentials | None = None,
    ) -> None:
        naturals(block_ms=block_ms, count=count)
        if count == 0:
            raise ConfigError("count is 0; a read asks for at least one event")
        self._name = queue_name
        self._address = locate(redis_url, tls)
        self._block_ms = block_ms or None
        self._count = count
        self._last_event_id = _checked(last_event_id)
        self._credentials = asked(credentials)
        self._tail = self._new_tail()
        self._opened = False
        self._closed = False
        self._in_use = False
        self._reading: asyncio.Future[list[tuple[Any, ...]]] | None = None
        self._ready: deque[QueueEvent] = deque()
        self._callbacks: list[tuple[str, Callback]] = []

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._name

    @property
    def last_event_id(self) -> str:
        """Where to go on: the id of the last event that was handed out.

        Before the first it is the place where it begins; ``"$"`` becomes an id by connecting.
        """
        return self._last_event_id

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def on(self, name: str, callback: Callback) -> None:
        """Have ``run`` call a function for events of this name, or for all of them with ``"*"``.

        ``async def`` callbacks are awaited. Callbacks run one at a time, in the order of the events
        and then of the calls of ``on``. An error of one is logged and stops nothing.
        """
        if not callable(callback):
            raise TypeError(f"{callback!r} is no callback: give a function that takes the event")
        if name != EVERY and name not in NAMES:
            logger.warning("no event of this version is named %r: %s", name, ", ".join(NAMES))
        self._callbacks.append((name, callback))

    async def run(self) -> None:
        """Call the callbacks until ``close``."""
        async for event in self:
            for name, callback in self._callbacks[:]:
                if name in (event.name, EVERY):
                    await self._tell(callback, event)

    async def close(self) -> None:
        """Disconnect; a loop over the events ends. The place stays readable."""
        if not self._closed:
            self._closed = True
            self._ready.clear()
            await hub().call(self._tail.close)

    def __aiter__(self) -> "QueueEvents":
        if self._closed:
            raise self._shut()
        return self

    async def __anext__(self) -> QueueEvent:
        self._tail.check()
        if self._in_use:
            raise ChasquiError(
                f"{self!r} is being read already: make one for each reader, each sees every event"
            )
        self._in_use = True
        try:
            while not self._ready:
                if self._closed:
                    raise StopAsyncIteration
                await self._fill()
        finally:
            self._in_use = False
        event = self._ready.popleft()
        self._last_event_id = event.id
        if event.name == GAP:
            logger.warning(
                "queue %r: events after %s may be missing: the stream keeps only the newest",
                self._name,
                event.id,
            )
        return event

    async def __aenter__(self) -> "QueueEvents":
        if self._closed:
            raise self._shut()
        await self._open()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"QueueEvents({self._name!r})"

    def _new_tail(self) -> Tail:
        """Return a connection to be, which follows from where this object is."""
        return Tail(
            self._address,
            {
                "queue_name": self._name,
                "last_event_id": self._last_event_id,
                "block_ms": self._block_ms,
                "count": self._count,
                "credentials": native(self._credentials),
            },
        )

    def _rewind(self) -> None:
        """Forget what was read and not handed out: it will be read again."""
        self._reading, self._opened = None, False
        self._tail = self._new_tail()

    async def _open(self) -> None:
        if not self._opened:
            self._last_event_id = await hub().call(self._tail.open)
            self._opened = True

    async def _fill(self) -> None:
        """Wait for events. What a cancelled wait had asked for goes to the next one."""
        loop = asyncio.get_running_loop()
        if self._reading is not None and self._reading.get_loop() is not loop:
            self._rewind()  # the answer goes to an event loop that has ended
        try:
            await self._open()
            self._reading = self._reading or hub().call(self._tail.read)
            batch = await asyncio.shield(self._reading)
        except ChasquiError:
            if self._closed:
                return
            self._rewind()
            raise
        self._reading = None
        if not self._closed:
            self._ready.extend(QueueEvent(*event) for event in batch)

    async def _tell(self, callback: Callback, event: QueueEvent) -> None:
        try:
            result = callback(event)
            if inspect.isawaitable(result):
                await result
        except Exception:
            logger.exception("queue %r: the callback %r failed on %r", self._name, callback, event)

    def _shut(self) -> ShutdownError:
        return ShutdownError(f"{self!r} is closed: make a new one, with its last_event_id")


def _checked(last_event_id: str) -> str:
    if last_event_id in ("$", "0"):
        return last_event_id
    found = _ID.fullmatch(last_event_id) if isinstance(last_event_id, str) else None
    if found is None or max(int(found[1]), int(found[2])) >= 2**64:
        raise ConfigError(
            f'last_event_id is {last_event_id!r}; it must be "$" (from now on), "0" (all that are '
            "kept), or the id of an event, such as 1700000000000-0"
        )
    return last_event_id
