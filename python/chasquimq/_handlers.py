"""What a handler may be, and how its failure is told."""

import functools
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ._native import Job
from .errors import DecodeError, UnrecoverableError

Handler = Callable[[Job], Awaitable[Any]] | Callable[[Job], Any]
"""``async def`` for the event loop, ``def`` for threads, or an object called like one of them."""

BatchHandler = Callable[[list[Job]], Awaitable[Any]] | Callable[[list[Job]], Any]
"""The same for batches of jobs."""

Handlers = Mapping[str, Handler]
"""A handler for each name of a job."""

FRAMES = 8
"""The innermost frames of a traceback tell the most."""


def by_name(handlers: Handlers) -> Handler:
    """Return what passes each job on to the handler of its name.

    A job of another name fails and is retried: while a new version is rolled out, a worker that
    knows the name may get it yet.
    """
    handlers = dict(handlers)

    def handle(job: Job) -> Any:
        handler = handlers.get(job.name)
        if handler is None:
            raise LookupError(f"no handler for {job.name!r} here, but for {', '.join(handlers)}")
        return handler(job)

    return handle


def are_async(handlers: Handlers) -> bool:
    """Tell whether all give coroutines; raises ``TypeError`` unless all do or none."""
    kinds = {name: is_async(handler) for name, handler in handlers.items()}
    if len(set(kinds.values())) == 1:
        return True in kinds.values()
    told = (f"{name!r} is {'async def' if kind else 'def'}" for name, kind in kinds.items())
    raise TypeError(
        "handlers by name must be at least one, and all async def or all def "
        f"(asyncio.to_thread runs what blocks): {', '.join(told) or 'there is none'}"
    )


def is_async(handler: object) -> bool:
    """Tell whether calling the handler gives a coroutine.

    Raises ``TypeError`` for what cannot be a handler.
    """
    function = _without_partial(handler)
    if not callable(function) or inspect.isclass(function):
        raise TypeError(_no_handler(handler, "an async def or def function, or an object like one"))
    function = _code(function)
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise TypeError(_no_handler(handler, "a function without yield"))
    _check_signature(handler)
    return inspect.iscoroutinefunction(function)


def awaits(function: object) -> bool:
    """Tell whether calling it gives a coroutine."""
    return inspect.iscoroutinefunction(_code(_without_partial(function)))


def _without_partial(function: Any) -> Any:
    while isinstance(function, functools.partial):
        function = function.func
    return function


def _code(function: Any) -> Any:
    """Return the function that a call of it runs."""
    if inspect.isroutine(function) or inspect.iscoroutinefunction(function):
        return function
    return type(function).__call__


def _check_signature(handler: Any) -> None:
    try:
        signature = inspect.signature(handler)
    except ValueError:  # a built-in that does not tell
        return
    try:
        signature.bind(None)
    except TypeError as error:
        raise TypeError(_no_handler(handler, f"callable with the job alone ({error})")) from None


def _no_handler(handler: object, wanted: str) -> str:
    return f"{handler!r} cannot be a handler: it must be {wanted}"


def is_unrecoverable(error: BaseException) -> bool:
    """Tell whether another attempt is pointless."""
    return isinstance(error, UnrecoverableError | DecodeError)


def describe(error: BaseException) -> str:
    """Return type and text of an error, then the end of its traceback."""
    kind = type(error)
    try:
        text = str(error)
    except Exception:  # an error whose own text fails
        text = "<no text: its __str__ fails>"
    frames = error.__traceback__
    # The outermost frames are ours, where the handler is called.
    while frames is not None and frames.tb_frame.f_globals.get("__package__") == __package__:
        frames = frames.tb_next
    trace = "".join(traceback.format_tb(frames, limit=-FRAMES))
    head = f"{kind.__qualname__}: {text}" if text else kind.__qualname__
    return f"{head}\n{trace}" if trace else head
