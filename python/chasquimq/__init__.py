"""Background jobs on Redis and Valkey: ``Queue`` adds them, ``Worker`` runs them.

``QueueEvents`` tells what happens to them.

The engine is Rust: it reads, renews leases, retries and settles on threads of its own, whatever the
event loop or a handler does. Python runs the handlers.
"""

from . import errors
from ._handlers import BatchHandler, Handler
from ._native import Job, version
from .backoff import BackoffSpec
from .errors import NotSupportedError, UnrecoverableError
from .events import QueueEvent, QueueEvents
from .queue import Queue
from .worker import Worker

__all__ = [
    "BackoffSpec",
    "BatchHandler",
    "Handler",
    "Job",
    "NotSupportedError",
    "Queue",
    "QueueEvent",
    "QueueEvents",
    "UnrecoverableError",
    "Worker",
    "errors",
    "version",
]

__version__ = version()
