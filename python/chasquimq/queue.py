"""``Queue``: adds jobs, takes delayed ones back, and looks after the dead ones."""

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from types import TracebackType
from typing import Any, TypedDict

from ._adding import Adding, payload_of
from ._address import locate
from ._codec import decode
from ._credentials import Credentials, asked, native
from ._hub import hub
from ._native import Job, Producer
from ._options import Durability, as_durability, either, naturals, refuse, when
from ._types import JobOptions, Row
from .backoff import Backoff, as_backoff
from .errors import ConfigError, DecodeError, ShutdownError

__all__ = ["DeadJob", "Queue"]

MOST_PACKED = 256
"""Jobs that may share an entry of the stream."""


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
    """Why it died: ``retries_exhausted``, ``unrecoverable``, ``worker_lost``, …"""
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


class Queue:
    """Adds jobs to the queue ``name``.

    Nothing is connected before the first call, and that does not block the event loop. Without
    ``redis_url`` the server is that of CHASQUIMQ_URL, else the running embedded one, else
    redis://127.0.0.1:6379; the log says which. ``embedded://`` starts or joins the embedded server.

    ``max_queue_len`` bounds the entries that are ready or running, and the delayed ones apart: one
    more raises ``QueueFull`` (default: no bound; ``max_stream_len`` is its older name).
    ``max_delay_secs`` is the longest delay (default 30 days, 0 for none), ``max_payload_bytes`` the
    largest encoded data (default 1 MiB). ``events_verbose`` publishes ``waiting`` for each job too.

    ``durability`` says who must have a job before it counts as added, beside the memory of the
    primary: ``"replica"``, so that a failover does not lose it, is ``replicas`` (default 1),
    ``"aof"`` the append-only file on disk (Redis and Valkey from 7.2 on). Where they do not have it
    within ``durability_timeout_ms`` (default 1,000), ``OutcomeUnknown`` is raised.

    ``credentials`` is a function that returns ``(user, password)``, for passwords and tokens that
    change (IAM, Entra); a user of ``None`` is the server's default user. It takes the place of
    those in the URL and is asked at each connection and reconnect: an ``async def`` in the event
    loop that used the queue last, a ``def`` in a thread of its own. When it raises, or takes longer
    than 8 s, connecting fails with ``AuthError``; a broken connection is dialled again, and it is
    asked again. It must keep the password out of its errors. ``credential_provider`` is the older
    name; a parameter that the function needs is ``None``::

        async def credentials():
            return "app", await token_of_the_next_15_minutes()

        queue = Queue("emails", redis_url="rediss://cache.example:6379", credentials=credentials)
    """

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
        self._name = name
        self._closed = False
        self._credentials = asked(credentials, credential_provider)
        self._producer = Producer(
            locate(redis_url, tls),
            {
                "queue_name": name,
                "max_queue_len": either(max_queue_len=max_queue_len, max_stream_len=max_stream_len),
                "max_delay_secs": max_delay_secs,
                "max_payload_bytes": max_payload_bytes,
                "events_verbose": events_verbose,
                "durability": as_durability(durability),
                "replicas": replicas,
                "durability_timeout_ms": durability_timeout_ms,
                "credentials": native(self._credentials),
            },
        )
        self._adding = Adding(self._producer)

    @property
    def name(self) -> str:
        """The queue's name."""
        return self._name

    @property
    def is_closed(self) -> bool:
        """Whether ``close`` was called."""
        return self._closed

    async def add(
        self,
        name: str,
        data: Any,
        *,
        delay_ms: float | datetime | None = None,
        delay: timedelta | None = None,
        attempts: int | None = None,
        backoff: Backoff | None = None,
        job_id: str | None = None,
        durability: Durability | None = None,
        repeat: object = None,
        missed_fires: object = None,
    ) -> Job:
        """Add a job; it is accepted when this returns.

        ``delay_ms`` is milliseconds from now or the time at which it becomes ready (naive: UTC),
        ``delay`` the same as a timedelta. ``attempts`` counts all runs, the first included;
        ``backoff`` is the wait between them; both default to the worker's. While a job of this
        ``job_id`` is waiting, delayed, running or retrying, adding it again changes nothing.
        ``durability`` beats the queue's.

        When the connection breaks before the reply, the job is sent again for up to ten seconds,
        and added once all the same, even when it has been done meanwhile.

        Raises ``ConfigError`` and ``EncodeError`` (both are ``ValueError``) before anything is
        sent, ``QueueFull``, the errors of the connection, and ``OutcomeUnknown`` when the job may
        have been added: it carries the id under which adding it again is safe.
        """
        if repeat is not None or missed_fires is not None:
            refuse(repeat=repeat, missed_fires=missed_fires)
        payload = payload_of(name, data, job_id)
        given = (job_id, delay_ms, delay, attempts, backoff, durability)
        options = None if given == _NONE_GIVEN else _options(*given)
        if self._closed:
            self._check_open()
        return await self._adding.add((name, payload, options, data))

    async def add_unique(
        self,
        name: str,
        data: Any,
        *,
        job_id: str,
        delay_ms: float | datetime | None = None,
        delay: timedelta | None = None,
        attempts: int | None = None,
        backoff: Backoff | None = None,
        durability: Durability | None = None,
        repeat: object = None,
    ) -> Job:
        """Add a job unless one of this ``job_id`` is waiting, delayed, running or retrying.

        Parameters and errors are those of ``add``.
        """
        if not isinstance(job_id, str):
            raise ConfigError(f"job_id is {job_id!r}; add_unique needs a string")
        return await self.add(
            name,
            data,
            delay_ms=delay_ms,
            delay=delay,
            attempts=attempts,
            backoff=backoff,
            job_id=job_id,
            durability=durability,
            repeat=repeat,
        )

    async def add_bulk(self, jobs: Iterable[Mapping[str, Any]], *, pack: int = 1) -> list[Job]:
        """Add many jobs in few round trips, whatever their options; return them in order.

        Each is a mapping of the parameters of ``add``; only ``name`` and ``data`` are required.
        Up to 500 immediate ones, or 500 delayed ones, are added all or none. What any of them asks
        for as its ``durability`` is waited for once, for all.

        ``pack`` jobs, 1 to 256, share an entry of the stream: 8 make adding and draining several
        times as fast for the server. An entry goes to one worker as a whole, and what that has no
        free slot for goes back; each job still ends, fails and is retried on its own.

        Raises what ``add`` raises. ``OutcomeUnknown`` carries the ids of all of them, in order.
        """
        if not isinstance(pack, int) or not 1 <= pack <= MOST_PACKED:
            raise ConfigError(f"pack is {pack!r}; it must be 1 to {MOST_PACKED} jobs an entry")
        rows: list[Row] = []
        for index, job in enumerate(jobs):
            try:
                name, value = job["name"], job["data"]
            except KeyError:
                raise _bad_keys(index, job) from None
            extra = _bulk_options(index, job) if len(job) > 2 else None
            rows.append((name, payload_of(name, value, extra and extra[0]), extra, value))
        self._check_open()
        if not rows:
            return []
        return await self._adding.add_all(rows, pack)

    async def cancel_delayed(self, job_id: str) -> bool:
        """Take back a delayed or retrying job; ``False`` when there is none of this id."""
        return bool(await self._call(self._producer.cancel_delayed, job_id))

    async def peek_dlq(self, limit: int = 20) -> list[DeadJob]:
        """Return the oldest dead jobs; they stay dead."""
        naturals(limit=limit)
        dead: list[DeadJob] = await self._call(self._producer.peek_dlq, limit)
        for job in dead:
            job["data"] = _decoded(job["payload"])
        return dead

    async def replay_dlq(self, limit: int = 100) -> int:
        """Send the oldest dead jobs back with fresh attempts; return how many went."""
        naturals(limit=limit)
        return int(await self._call(self._producer.replay_dlq, limit))

    async def close(self) -> None:
        """Disconnect. The last user of an embedded server waits until it has ended."""
        if not self._closed:
            self._closed = True
            here = hub()
            self._adding.flush(here)
            await here.call(self._producer.close)

    async def __aenter__(self) -> "Queue":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"Queue({self._name!r})"

    def _check_open(self) -> None:
        if self._closed:
            raise ShutdownError(f"queue {self._name!r} is closed: make a new Queue")

    async def _call(self, method: Callable[..., None], *args: object) -> Any:
        self._check_open()
        return await hub().call(method, *args)


_BULK_OPTIONS = ("job_id", "delay_ms", "delay", "attempts", "backoff", "durability")
_NONE_GIVEN = (None,) * len(_BULK_OPTIONS)
_BULK_KEYS = {"name", "data", "repeat", "missed_fires", *_BULK_OPTIONS}


def _options(
    job_id: str | None,
    delay_ms: float | datetime | None,
    delay: timedelta | None,
    attempts: int | None,
    backoff: Backoff | None,
    durability: Durability | None,
) -> JobOptions:
    if attempts is not None and (not isinstance(attempts, int) or not 1 <= attempts < 2**32):
        raise ConfigError(f"attempts is {attempts!r}; a job runs at least once")
    named = None if durability is None else as_durability(durability)
    return job_id, when(delay_ms, delay), attempts, as_backoff(backoff), named


def _bulk_options(index: int, job: Mapping[str, Any]) -> JobOptions | None:
    if job.keys() - _BULK_KEYS:
        raise _bad_keys(index, job)
    refuse(repeat=job.get("repeat"), missed_fires=job.get("missed_fires"))
    given = tuple(map(job.get, _BULK_OPTIONS))
    return None if given == _NONE_GIVEN else _options(*given)


def _bad_keys(index: int, job: Mapping[str, Any]) -> ConfigError:
    return ConfigError(
        f"job {index} has the keys {sorted(job)}: name and data are required, "
        f"{', '.join(sorted(_BULK_KEYS - {'name', 'data'}))} are possible"
    )


def _decoded(payload: bytes) -> Any:
    try:
        return decode(payload)
    except DecodeError:
        return None
