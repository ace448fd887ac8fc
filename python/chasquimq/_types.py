"""What crosses the border to the engine, as types."""

from typing import TYPE_CHECKING, Any, TypedDict, Union

if TYPE_CHECKING:
    from ._base import DeadJob
    from ._native import Added, Credentials
    from .backoff import BackoffSpec

When = tuple[int | None, int | None]
"""Milliseconds from now, or a time in milliseconds since the epoch; neither: at once."""

JobOptions = tuple[str | None, When, int | None, "BackoffSpec | None", str | None]
"""Id, when, attempts, backoff, durability."""

Row = tuple[str, bytes, JobOptions | None, Any]
"""A job on its way in: name, encoded data, options, data."""

Choice = tuple[list[str], list[str], list[str]]
"""Job ids, names and reasons of dead jobs; none of a kind means any."""

Told = tuple[str, str, str, dict[str, str], str]
"""The arguments of ``QueueEvent``."""

Reply = Union[bool, int, str, "Added", list["DeadJob"], list[Told], tuple[int, int, int], None]


class ProducerOptions(TypedDict):
    """``None`` means the engine's default."""

    queue_name: str
    max_queue_len: int | None
    max_delay_secs: int | None
    max_payload_bytes: int | None
    events_verbose: bool
    batch: int
    durability: str | None
    replicas: int | None
    durability_timeout_ms: int | None
    credentials: "Credentials | None"


class ConsumerOptions(TypedDict):
    """``None`` means the engine's default."""

    queue_name: str
    group: str
    concurrency: int
    max_attempts: int
    events_enabled: bool
    events_verbose: bool
    delayed_enabled: bool
    consumer_id: str | None
    read_block_ms: int | None
    read_count: int | None
    claim_min_idle_ms: int | None
    max_payload_bytes: int | None
    dlq_max_stream_len: int | None
    prefetch: int | None
    max_lost: int | None
    metrics_addr: str | None
    batch: int | None
    batch_wait_ms: int
    consumer_max_idle_secs: int | None
    credentials: "Credentials | None"


class FollowOptions(TypedDict):
    """``None`` means the engine's default."""

    queue_name: str
    last_event_id: str
    block_ms: int | None
    count: int
    credentials: "Credentials | None"
