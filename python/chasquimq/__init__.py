"""Background jobs on Redis and Valkey: ``Queue`` adds them, ``Worker`` runs them.

``SyncQueue`` is ``Queue`` for code without an event loop; ``QueueEvents`` tells what happens.

The engine is Rust: it reads, renews leases, retries and settles on threads of its own, whatever the
event loop or a handler does. Python runs the handlers.
"""

from . import errors
from ._handlers import BatchHandler, Handler, Handlers
from ._native import Job, version
from .backoff import BackoffSpec
from .errors import NotSupportedError, UnrecoverableError
from .events import QueueEvent, QueueEvents
from .queue import Queue
from .sync_queue import SyncQueue
from .worker import Worker

__all__ = [
    "BackoffSpec",
    "BatchHandler",
    "Handler",
    "Handlers",
    "Job",
    "NotSupportedError",
    "Queue",
    "QueueEvent",
    "QueueEvents",
    "SyncQueue",
    "UnrecoverableError",
    "Worker",
    "errors",
    "version",
]

__version__ = version()
