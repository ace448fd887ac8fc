"""How long a failed job waits for its next run."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from .errors import ConfigError


@dataclass(frozen=True)
class BackoffSpec:
    """A rule for the wait between two runs; times are milliseconds.

    A field that is ``None`` follows the worker's own rule.
    """

    kind: Literal["fixed", "exponential"]
    delay_ms: int
    max_delay_ms: int | None = None
    multiplier: float | None = None
    jitter_ms: int | None = None

    @classmethod
    def fixed(cls, delay_ms: int, jitter_ms: int | None = None) -> "BackoffSpec":
        """The same wait every time, plus up to ``jitter_ms`` at random."""
        return cls("fixed", delay_ms, jitter_ms=jitter_ms)

    @classmethod
    def exponential(
        cls,
        initial_ms: int,
        *,
        multiplier: float = 2.0,
        max_ms: int | None = None,
        jitter_ms: int | None = None,
    ) -> "BackoffSpec":
        """``initial_ms``, growing by ``multiplier`` a failure up to ``max_ms``, plus jitter.

        Without ``max_ms`` no wait is longer than 30 s.
        """
        return cls("exponential", initial_ms, max_ms, multiplier, jitter_ms)

    def __post_init__(self) -> None:
        if self.kind not in ("fixed", "exponential"):
            raise ConfigError(f"backoff kind {self.kind!r} is unknown: 'fixed' or 'exponential'")
        for field in ("delay_ms", "max_delay_ms", "jitter_ms"):
            value = getattr(self, field)
            if value is not None and not (isinstance(value, int) and 0 <= value < 2**63):
                raise ConfigError(f"backoff {field} is {value!r}: milliseconds, at least 0")
        if self.multiplier is not None and not 1 <= self.multiplier < float("inf"):
            raise ConfigError(f"backoff multiplier is {self.multiplier!r}: a number, at least 1")


Backoff = int | BackoffSpec | Mapping[str, Any]
"""Milliseconds (fixed), a rule, or a rule's fields as a mapping."""


def as_backoff(backoff: Backoff | None) -> BackoffSpec | None:
    """Return the rule that the caller means.

    Raises ``ConfigError`` when it is none.
    """
    if backoff is None or isinstance(backoff, BackoffSpec):
        return backoff
    if isinstance(backoff, Mapping):
        try:
            return BackoffSpec(**backoff)
        except TypeError as error:
            raise ConfigError(f"backoff {dict(backoff)!r}: {error}") from error
    if not isinstance(backoff, int):
        raise ConfigError(
            f"backoff is {backoff!r}; it must be milliseconds, a BackoffSpec or a mapping of one"
        )
    return BackoffSpec.fixed(backoff)
