"""The engine's lines in ``logging``: whoever drains a mailbox writes those that have come."""

import logging
from collections.abc import Iterable

from ._native import set_log_level

logger = logging.getLogger("chasquimq.engine")
job_logger = logging.getLogger("chasquimq.jobs")
"""Failed runs, at WARNING, and dead jobs, at ERROR."""


def follow_level() -> None:
    """Have the engine keep the lines that the logger wants, as it is set now."""
    set_log_level(min(logging.INFO, max(logger.getEffectiveLevel(), logging.DEBUG)))


def write(lines: Iterable[tuple[int, str, str]]) -> None:
    """Log lines: level, target, text."""
    for level, target, text in lines:
        about = job_logger if target == "chasquimq::jobs" else logger
        about.log(level, "%s", text, extra={"target": target})
