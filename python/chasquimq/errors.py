"""What can go wrong, as classes to catch; each text says what happened and what to do."""

from collections.abc import Sequence

__all__ = [
    "AuthError",
    "BrokerOutOfMemory",
    "BrokerUnavailable",
    "ChasquiError",
    "CommandTimeout",
    "ConfigError",
    "ConnectionFailed",
    "DecodeError",
    "EmbeddedServerError",
    "EncodeError",
    "MetricsAddressError",
    "NotSupportedError",
    "OutcomeUnknown",
    "QueueFull",
    "ServerError",
    "ShutdownError",
    "UnrecoverableError",
    "UnsupportedServer",
    "WrongType",
]


class ChasquiError(RuntimeError):
    """The base of all errors that this package raises."""


class ConfigError(ChasquiError, ValueError):
    """A name, limit, delay or URL that cannot work; nothing was sent."""


class EncodeError(ChasquiError, ValueError):
    """Data that cannot be encoded, or that is larger than the limit; nothing was sent."""


class DecodeError(ChasquiError, ValueError):
    """Stored bytes that cannot be read back."""


class QueueFull(ChasquiError):
    """The queue holds as many entries as it may (``max_queue_len``); nothing was added.

    Of a bulk of more than 500, what came before may have been added.
    """


class UnsupportedServer(ChasquiError):
    """The server is too old or lacks something without which jobs could be lost."""


class ConnectionFailed(ChasquiError, ConnectionError):
    """The server could not be reached, or the connection broke before the reply.

    In the latter case the call may have been carried out.
    """


class CommandTimeout(ChasquiError, TimeoutError):
    """No reply came in time; the call may or may not have been carried out."""


class OutcomeUnknown(ConnectionFailed, CommandTimeout):
    """No word of whether jobs were added, however often they were sent.

    ``job_ids`` are theirs, in the order in which they were given. Adding them again under these
    ids, with the same ``Queue`` and within five minutes, adds what is missing and nothing twice::

        try:
            job = await queue.add("send", data)
        except OutcomeUnknown as error:
            job = await queue.add("send", data, job_id=error.job_ids[0])
    """

    def __init__(self, text: str, job_ids: Sequence[str] = ()) -> None:
        super().__init__(text)
        self.job_ids = tuple(job_ids)


class AuthError(ChasquiError, PermissionError):
    """The server refused the user name, the password, or a command for lack of rights."""


class BrokerOutOfMemory(ChasquiError):
    """The server is out of memory; it works again when memory is freed."""


class BrokerUnavailable(ChasquiError):
    """The server cannot serve right now: loading, failing over, read-only, busy."""


class WrongType(ChasquiError):
    """A key of the queue holds another type than the queue wrote."""


class ServerError(ChasquiError):
    """Any other error that the server replied."""


class EmbeddedServerError(ChasquiError):
    """The development server of an ``embedded://`` URL could not be started, joined or stopped."""


class MetricsAddressError(ChasquiError, OSError):
    """Nothing can listen on a worker's ``metrics_addr``: it is in use, or this process may not."""


class ShutdownError(ChasquiError):
    """The queue, worker or subscriber was closed."""


class NotSupportedError(ChasquiError):
    """A parameter of a feature that this version does not have."""


class UnrecoverableError(RuntimeError):
    """Raised by a handler when further attempts are pointless: the job is dead at once."""
