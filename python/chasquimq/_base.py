"""What ``Queue`` and ``SyncQueue`` have in common: all but the waiting."""

from typing import Any, TypedDict

from . import _logs
from ._address import locate
from ._codec import decode
from ._credentials import Credentials, asked, native
from ._native import Mailbox, Producer
from ._options import (
    Durability,
    as_durability,
    check_jobs_an_entry,
    check_optional_text,
    check_text,
    either,
    naturals,
)
from .errors import ConfigError, DecodeError, ShutdownError


class DeadJob(TypedDict):
    """A job in the dead-letter queue."""

    dlq_id: str
    """Its id in the dead-letter queue."""
    source_id: str
    """The stream entry it came from."""
    job_id: str
    """The job's id; empty when its record could not be read."""
    name: str
    reason: str
    """Why it died: ``retries_exhausted``, ``unrecoverable``, ``worker_lost``, ``decode_failed``,
    ``malformed`` or ``oversize_payload``."""
    detail: str | None
    """The text of the last error."""
    attempt: int
    """The run that gave up; 0 when no handler ran."""
    lost: int
    """Deliveries whose worker died."""
    failed_at_ms: int
    """When it died, in milliseconds since the epoch."""
    payload: bytes
    """The data as it is stored."""
    data: Any
    """The data; ``None`` when it cannot be decoded."""


class BaseQueue:
    """A queue to add to, not connected yet."""

    def __init__(
        self,
        name: str,
        *,
        redis_url: str | None = None,
        tls: bool = False,
        max_queue_len: int | None = None,
        max_stream_len: int | None = None,
        max_delay_secs: int | None = None,
        max_payload_bytes: int | None = None,
        events_verbose: bool = False,
        batch: int = 1,
        durability: Durability = "none",
        replicas: int | None = None,
        durability_timeout_ms: int | None = None,
        credentials: Credentials | None = None,
        credential_provider: Credentials | None = None,
    ) -> None:
        naturals(
            max_queue_len=max_queue_len,
            max_stream_len=max_stream_len,
            max_delay_secs=max_delay_secs,
            max_payload_bytes=max_payload_bytes,
            replicas=replicas,
            durability_timeout_ms=durability_timeout_ms,
        )
        check_text(name=name)
        check_optional_text(redis_url=redis_url)
        check_jobs_an_entry("batch", batch)
        _logs.follow_level()
        self._name = name
        self._batch = batch
        self._closed = False
        self._credentials = asked(credentials, credential_provider, self._answering)
        self._producer = Producer(
            locate(redis_url, tls),
            {
                "queue_name": name,
                "max_queue_len": either(max_queue_len=max_queue_len, max_stream_len=max_stream_len),
                "max_delay_secs": max_delay_secs,
                "max_payload_bytes": max_payload_bytes,
                "events_verbose": events_verbose,
                "batch": batch,
                "durability": as_durability(durability),
                "replicas": replicas,
                "durability_timeout_ms": durability_timeout_ms,
                "credentials": native(self._credentials),
            },
        )

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._name!r})"

    @staticmethod
    def _answering() -> Mailbox | None:
        """Return the mailbox that is told of questions; ``None``: that of the last call."""
        return None

    def _check_open(self) -> None:
        if self._closed:
            kind = type(self).__name__
            raise ShutdownError(f"queue {self._name!r} is closed: make a new {kind}")


def checked_job_id(job_id: str) -> str:
    """Return the id for ``add_unique``, which must have one."""
    if not isinstance(job_id, str):
        raise ConfigError(f"job_id is {job_id!r}; add_unique needs a string")
    return job_id


def with_data(dead: list[DeadJob]) -> list[DeadJob]:
    """Return the dead jobs with what of their data can be decoded."""
    for job in dead:
        job["data"] = _decoded(job["payload"])
    return dead


def _decoded(payload: bytes) -> Any:
    try:
        return decode(payload)
    except DecodeError:
        return None
