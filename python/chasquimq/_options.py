"""Arguments of the public classes, checked and turned into what the engine takes."""

import math
import re
from collections.abc import Iterable
from datetime import datetime, timedelta, timezone
from numbers import Real
from typing import Literal, TypeAlias, get_args

from ._types import Choice, When
from .errors import ConfigError, NotSupportedError

_SOCKET_ADDRESS = re.compile(r"((\[[0-9A-Fa-f:.]+(%\w+)?\]|[\w.-]+)?:)?(?P<port>\d{1,5})", re.ASCII)

MOST_PACKED = 256
"""Jobs that may share an entry of the stream."""

Durability = Literal["none", "replica", "aof"]
"""Who must have a job before it counts as added, beside the memory of the primary."""

OneOrMore: TypeAlias = str | Iterable[str]
"""A string, or several."""


def as_durability(value: Durability) -> Durability:
    """Return it; raise ``ConfigError`` for what is none."""
    if value not in get_args(Durability):
        raise ConfigError(f'durability is {value!r}; it must be "none", "replica" or "aof"')
    return value


def refuse(**features: object) -> None:
    """Raise ``NotSupportedError`` for a parameter that belongs to no feature of today."""
    for name, value in features.items():
        if value is not None and value is not False:
            raise NotSupportedError(f"{name} is not supported by this version: leave it out")


def naturals(**values: int | None) -> None:
    """Raise ``ConfigError`` for a number that is no integer or negative."""
    for name, value in values.items():
        if value is not None and (not isinstance(value, int) or not 0 <= value < 2**63):
            raise ConfigError(f"{name} is {value!r}; it must be an integer, at least 0")


def positives(**values: int | None) -> None:
    """Raise ``ConfigError`` for a number that is no integer or less than 1."""
    naturals(**values)
    for name, value in values.items():
        if value == 0:
            raise ConfigError(f"{name} is 0; it must be at least 1")


def choice(job_id: OneOrMore | None, name: OneOrMore | None, reason: OneOrMore | None) -> Choice:
    """Return which dead jobs are meant, as the engine takes it."""
    return _texts("job_id", job_id), _texts("name", name), _texts("reason", reason)


def _texts(name: str, value: OneOrMore | None) -> list[str]:
    """Return them as a list. Nothing means any, but an empty list is refused: it means none."""
    if value is None:
        return []
    if isinstance(value, bytes) or not isinstance(value, Iterable):
        raise TypeError(f"{name} is {value!r}; it must be a string, or several")
    values = [value] if isinstance(value, str) else list(value)
    for each in values:
        check_text(**{name: each})
    if not values:
        raise ConfigError(f"{name} is empty; leave it out to mean any")
    return values


def check_text(**values: object) -> None:
    """Raise ``TypeError`` for what is no string."""
    for name, value in values.items():
        if not isinstance(value, str):
            raise TypeError(f"{name} is {value!r}; it must be a string")


def check_optional_text(**values: object) -> None:
    """Raise ``TypeError`` for what is neither ``None`` nor a string."""
    check_text(**{name: value for name, value in values.items() if value is not None})


def check_seconds(name: str, value: float, most: float = math.inf) -> None:
    """Raise ``ConfigError`` for what is no number of seconds from 0 to ``most``."""
    if not isinstance(value, Real) or not 0 <= value <= most:
        bound = "at least 0" if most == math.inf else f"0 to {most:g}"
        raise ConfigError(f"{name} is {value!r}; it must be {bound} seconds")


def check_jobs_an_entry(name: str, value: object) -> None:
    """Raise ``ConfigError`` for a number of jobs that cannot share an entry of the stream."""
    if not isinstance(value, int) or not 1 <= value <= MOST_PACKED:
        raise ConfigError(f"{name} is {value!r}; it must be 1 to {MOST_PACKED} jobs an entry")


def socket_address(name: str, value: str | None) -> None:
    """Raise ``ConfigError`` for what is neither ``HOST:PORT``, ``:PORT`` nor ``PORT``."""
    if value is None:
        return
    found = _SOCKET_ADDRESS.fullmatch(value) if isinstance(value, str) else None
    if found is None or int(found["port"]) >= 2**16:
        raise ConfigError(
            f'{name} is {value!r}; it must be HOST:PORT, such as "127.0.0.1:9090", or only a port '
            "to listen on 127.0.0.1; port 0 is any free one"
        )


def either(**values: int | None) -> int | None:
    """Return the value of two names for one thing, of which one is set at most."""
    given = {name: value for name, value in values.items() if value is not None}
    if len(given) > 1:
        raise ConfigError(f"{' and '.join(given)} mean the same; give one of them")
    return next(iter(given.values()), None)


def when(delay_ms: float | datetime | None, delay: timedelta | None) -> When:
    """Return when a job is due. A naive datetime is UTC.

    Raises ``ConfigError`` for both at once, and for what is no time.
    """
    if delay is not None:
        if delay_ms is not None:
            raise ConfigError("delay_ms and delay are both given; give one of them")
        if not isinstance(delay, timedelta):
            raise ConfigError(
                f"delay is {delay!r}; it must be a timedelta: delay_ms is for numbers"
            )
        return _milliseconds("delay", delay / timedelta(milliseconds=1)), None
    if isinstance(delay_ms, datetime):
        aware = delay_ms if delay_ms.tzinfo else delay_ms.replace(tzinfo=timezone.utc)
        return None, max(0, round(aware.timestamp() * 1000))
    if delay_ms is None:
        return None, None
    return _milliseconds("delay_ms", delay_ms), None


def _milliseconds(name: str, value: float) -> int:
    if not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < 2**63:
        hint = ": delay is for a timedelta" if isinstance(value, timedelta) else ""
        raise ConfigError(f"{name} is {value!r}; it must be a number, at least 0 and finite{hint}")
    return round(value)
