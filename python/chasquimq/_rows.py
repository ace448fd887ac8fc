"""Jobs on their way in: what the caller says of them, checked and encoded as rows."""

import time
from collections.abc import Iterable, Mapping
from datetime import datetime, timedelta
from typing import Any

from ._codec import encode
from ._options import Durability, as_durability, check_jobs_an_entry, refuse, when
from ._types import Row
from .backoff import Backoff, as_backoff
from .errors import ConfigError, EncodeError, NotSupportedError

Given = tuple[
    str | None,
    float | datetime | None,
    timedelta | None,
    int | None,
    Backoff | None,
    Durability | None,
]
"""The options of a job, as ``_OPTIONS`` names them."""

_OPTIONS = ("job_id", "delay_ms", "delay", "attempts", "backoff", "durability")
_NONE_GIVEN: Given = (None, None, None, None, None, None)
_KEYS = {"name", "data", "repeat", "missed_fires", *_OPTIONS}


def row(name: str, data: Any, given: Given = _NONE_GIVEN) -> Row:
    """Return a job that can be sent.

    Raises ``TypeError``, ``ConfigError`` and ``EncodeError`` for what cannot.
    """
    job_id = given[0]
    if not isinstance(name, str):
        raise TypeError(f"name is {name!r}; it must be a string")
    if job_id is not None and not isinstance(job_id, str):
        raise TypeError(f"job_id is {job_id!r}; it must be a string")
    if not name.isascii() or (job_id and not job_id.isascii()):
        try:
            f"{name}{job_id}".encode()
        except UnicodeEncodeError as error:
            raise EncodeError(f"name and job_id must be text of Unicode: {error}") from error
    payload = encode(data)
    if given == _NONE_GIVEN:
        return name, payload, None, data
    _, delay_ms, delay, attempts, backoff, durability = given
    if attempts is not None and (not isinstance(attempts, int) or not 1 <= attempts < 2**32):
        raise ConfigError(f"attempts is {attempts!r}; it must be an integer, at least 1")
    named = None if durability is None else as_durability(durability)
    options = job_id, when(delay_ms, delay), attempts, as_backoff(backoff), named
    return name, payload, options, data


def rows(jobs: Iterable[Mapping[str, Any]], pack: int) -> list[Row]:
    """Return the jobs of a bulk, of which so many are to share an entry.

    Raises what ``row`` raises, and ``ConfigError`` for a pack or keys that cannot be.
    """
    check_jobs_an_entry("pack", pack)
    found: list[Row] = []
    checked: Any = None
    for index, job in enumerate(jobs):
        try:
            name, data = job["name"], job["data"]
        except (KeyError, TypeError):
            raise _bad_keys(index, job) from None
        try:
            if len(job) > 2:
                found.append(row(name, data, _given(job)))
            elif name is checked:
                found.append((name, encode(data), None, data))
            else:
                found.append(row(name, data))
                checked = name  # mostly they have one name
        except (ConfigError, EncodeError, NotSupportedError, TypeError) as error:
            raise type(error)(f"job {index}: {error}") from error
    return found


def now_ms() -> int:
    """Return when rows that are sent now were made, in milliseconds since the epoch."""
    return time.time_ns() // 1_000_000


def _given(job: Mapping[str, Any]) -> Any:
    if job.keys() - _KEYS:
        raise ConfigError(_keys(job))
    refuse(repeat=job.get("repeat"), missed_fires=job.get("missed_fires"))
    return tuple(map(job.get, _OPTIONS))


def _bad_keys(index: int, job: object) -> Exception:
    if isinstance(job, Mapping):
        return ConfigError(f"job {index}: {_keys(job)}")
    return TypeError(f"job {index} is {job!r}; it must be a mapping with name and data")


def _keys(job: Mapping[str, Any]) -> str:
    return (
        f"it has the keys {sorted(job)}; name and data are required, "
        f"{', '.join(sorted(_KEYS - {'name', 'data'}))} are possible"
    )
