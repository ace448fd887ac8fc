"""The engine's lines in ``logging``: whoever drains a mailbox writes those that have come."""

import logging
from collections.abc import Iterable

from ._native import set_log_levels

logger = logging.getLogger("chasquimq.engine")
job_logger = logging.getLogger("chasquimq.jobs")
"""Failed runs, at WARNING, and dead jobs, at ERROR."""


def follow_level() -> None:
    """Have the engine keep the lines that the loggers want, as they are set now."""
    engine = min(logging.INFO, max(logger.getEffectiveLevel(), logging.DEBUG))
    silent = not job_logger.isEnabledFor(logging.ERROR)
    set_log_levels(engine, logging.CRITICAL if silent else logging.WARNING)


def write(lines: Iterable[tuple[int, str, str]]) -> None:
    """Log lines: level, target, text."""
    for level, target, text in lines:
        about = job_logger if target == "chasquimq::jobs" else logger
        about.log(level, "%s", text, extra={"target": target})
