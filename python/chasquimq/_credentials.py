"""User and password that a function tells, asked at each connection.

The engine's questions come to an event loop through its hub. One call answers all that wait, so
that connections that break together ask once.
"""

import asyncio
import contextlib
import functools
import inspect
import itertools
import threading
import traceback
from collections.abc import Awaitable, Callable
from typing import Any
from weakref import WeakValueDictionary

from . import _native
from ._handlers import awaits
from .errors import ConfigError

Login = tuple[str | None, str]
"""User, ``None`` for the server's default user, and password."""

Credentials = (
    Callable[[], Awaitable[Login]]
    | Callable[[], Login]
    | Callable[[str | None], Awaitable[Login]]
    | Callable[[str | None], Login]
)
"""``async def`` for the event loop, ``def`` for a thread; a parameter that it needs is ``None``."""

Answering = Callable[[], _native.Mailbox | None]
"""Tells the mailbox of the event loop that asks; ``None`` for that of the last call."""

PATIENCE = 8.0
"""Seconds that one call may take."""

MOST_CALLS = 4
"""Calls that may still hang when another is begun."""

_numbers = itertools.count(1)
_all: WeakValueDictionary[int, "Asked"] = WeakValueDictionary()


def answer(number: int) -> None:
    """Have the credentials of this number answered; nothing if nobody uses them any more."""
    found = _all.get(number)
    if found is not None:
        found.answer()


def asked(
    credentials: Credentials | None,
    provider: Credentials | None = None,
    answering: Answering = lambda: None,
) -> "Asked | None":
    """Return what asks the function of either name; ``None`` when there is none."""
    if provider is None:
        return None if credentials is None else Asked("credentials", credentials, answering)
    if credentials is not None:
        raise ConfigError("credentials and credential_provider mean the same; give one of them")
    return Asked("credential_provider", provider, answering)


def native(asks: "Asked | None") -> _native.Credentials | None:
    """Return where the engine's questions wait."""
    return None if asks is None else asks.native


class Asked:
    """Asks a function, one call at a time.

    The login is never the result of a task nor an argument of a callback: asyncio shows those.
    """

    def __init__(self, parameter: str, function: Credentials, answering: Answering) -> None:
        self._parameter = parameter
        self._arguments = _arguments(parameter, function)
        self._function: Callable[..., Any] = function
        self._awaits = awaits(function)
        self._deadline: asyncio.TimerHandle | None = None
        """Of the call under way."""
        self._loop: asyncio.AbstractEventLoop | None = None
        self._calls = threading.BoundedSemaphore(MOST_CALLS)
        number = next(_numbers)
        self.native = _native.Credentials(number, answering())
        """Where the engine's questions wait."""
        _all[number] = self

    def answer(self) -> None:
        """Begin a call, unless this event loop has one under way."""
        loop = asyncio.get_running_loop()
        if self._deadline is not None and self._loop is loop:
            return
        if not self._calls.acquire(blocking=False):
            self._refuse(f"hangs in {MOST_CALLS} calls: give what it waits for a timeout")
            return
        self._loop = loop
        if self._awaits:
            task = loop.create_task(self._await())
            deadline = self._deadline = loop.call_later(PATIENCE, self._give_up, task)
            task.add_done_callback(functools.partial(self._end, deadline))
        else:
            deadline = self._deadline = loop.call_later(PATIENCE, self._give_up, None)
            self._start_thread(loop, deadline)

    def _start_thread(self, loop: asyncio.AbstractEventLoop, deadline: asyncio.TimerHandle) -> None:
        args = loop, deadline
        thread = threading.Thread(
            target=self._run, args=args, name="chasquimq-credentials", daemon=True
        )
        try:
            thread.start()
        except RuntimeError as error:  # the system has no more threads to give
            self._calls.release()
            self._end(deadline)
            self._refuse(f"needs a thread: {error}")

    async def _await(self) -> None:
        try:
            self._tell(await self._function(*self._arguments))
        except asyncio.CancelledError:
            self._refuse("was cancelled, by itself or with its event loop")
            raise
        except Exception as error:
            self._refuse(f"raised {_text(error)}")
        finally:
            self._calls.release()

    def _run(self, loop: asyncio.AbstractEventLoop, deadline: asyncio.TimerHandle) -> None:
        try:
            self._tell(self._function(*self._arguments))
        except BaseException as error:
            self._refuse(f"raised {_text(error)}")
        finally:
            self._calls.release()
            with contextlib.suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(self._end, deadline)

    def _end(self, deadline: asyncio.TimerHandle, _call: object = None) -> None:
        deadline.cancel()
        if self._deadline is deadline:
            self._deadline = None

    def _give_up(self, task: asyncio.Task[None] | None) -> None:
        self._deadline = None
        self._refuse(f"did not return within {PATIENCE:g} s: give what it waits for a timeout")
        if task is not None:
            task.cancel()

    def _tell(self, login: object) -> None:
        match login:
            case (None | str() as user, str() as password):
                try:
                    self.native.answer(user, password)
                except UnicodeEncodeError:
                    self._refuse("returned a text that is no Unicode")
            case _:
                if inspect.iscoroutine(login):
                    login.close()
                self._refuse(
                    f"returned {_kind(login)}: it must return a user, or None, and a password as a "
                    "tuple of two strings, and be an async def if it awaits"
                )

    def _refuse(self, why: str) -> None:
        self.native.refuse(f"the function given as {self._parameter} {why}")


def _arguments(parameter: str, function: Callable[..., Any]) -> tuple[None, ...]:
    """Return what the function is called with: nothing if it can be."""
    wanted = "an async def or def function without parameters that returns (user, password)"
    if not callable(function):
        # Not what it is: it may be the password.
        raise TypeError(f"{parameter} is of type {type(function).__name__}; it must be {wanted}")
    try:
        signature = inspect.signature(function)
    except ValueError:  # a built-in that does not tell
        return ()
    for arguments in ((), (None,)):
        with contextlib.suppress(TypeError):
            signature.bind(*arguments)
            return arguments
    raise TypeError(f"{parameter} is {function!r}; it must be {wanted}")


def _kind(login: object) -> str:
    """Return its type, and those of its items, for the values are secret."""
    kind = type(login).__name__
    if not isinstance(login, tuple | list):
        return kind
    return f"{kind} of ({', '.join(type(item).__name__ for item in login[:4])})"


def _text(error: BaseException) -> str:
    return "".join(traceback.format_exception_only(error)).strip()
