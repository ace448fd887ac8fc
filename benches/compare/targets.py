"""What the figures are held against."""

from math import inf

from report import Report, ratio

OURS, OLDER, BULLMQ = "ChasquiMQ", "chasquimq 1.3", "BullMQ"
RATE, SERVER, BYTES, P99 = "jobs/s", "server µs/job", "server bytes/queued job", "ms p99"
IN_THREADS = f"{OURS}, def"
BLOCKING = f"{OURS}, SyncQueue"
PACKED = f"{OURS}, packed batch handler"


def hold(reports: dict[str, Report], not_python: set[str]) -> None:
    """Add the targets to the reports whose figures they are about."""
    _adds(reports)
    _drains(reports)
    _best(reports["add"], RATE, not_python)
    _waits(reports)


def _times(report: Report, row: str, other: str, least: float) -> None:
    value = ratio(report.rounds(row, RATE), report.rounds(other, RATE))
    report.check(f"{row}, times the jobs/s of {other}", value, "at least", least)


def _adds(reports: dict[str, Report]) -> None:
    _times(reports["add"], OURS, OLDER, 1.5)
    _times(reports["add_concurrent"], OURS, OLDER, 6)
    _times(reports["bulk_1000"], OURS, OLDER, 3)


def _drains(reports: dict[str, Report]) -> None:
    drain = reports["drain"]
    _times(drain, OURS, OLDER, 10)
    _times(drain, OURS, BULLMQ, 7)
    _times(drain, IN_THREADS, OURS, 1)
    drain.check("packed entries, a batch handler", drain.median(PACKED, RATE), "at least", 400_000)
    server = ratio(drain.rounds(OURS, SERVER), drain.rounds(OLDER, SERVER))
    drain.check(f"server CPU a job, of that of {OLDER}", server, "at most", 1 / 3)
    held = ratio(drain.rounds(OURS, BYTES), drain.rounds(OLDER, BYTES))
    drain.check(f"server bytes a queued job, of those of {OLDER}", held, "at most", 1)
    four = reports["four_processes"]
    value = ratio(four.rounds(OURS, RATE), drain.rounds(OURS, RATE))
    four.check("jobs/s, times those of one process", value, "at least", 1)


def _best(report: Report, unit: str, without: set[str]) -> None:
    others = [row for row in report.rows if row not in without and not row.startswith(OURS)]
    best = max(others, key=lambda row: report.median(row, unit) or 0, default="")
    for row in (OURS, BLOCKING):
        value = ratio(report.rounds(row, unit), report.rounds(best, unit))
        name = f"{row}, times the jobs/s of the best Python peer, {best}"
        report.check(name, value, "at least", 1)


def _waits(reports: dict[str, Report]) -> None:
    latency, delayed = reports["latency"], reports["delayed"]
    others = [row for row in latency.rows if row != OURS]
    best = min(others, key=lambda row: latency.median(row, P99) or inf, default="")
    value = ratio(latency.rounds(OURS, P99), latency.rounds(best, P99))
    latency.check(f"p99, of that of the best peer, {best}", value, "at most", 1)
    late = "late ms p99"
    value = ratio(delayed.rounds(OURS, late), delayed.rounds(OLDER, late))
    delayed.check(f"p99, of that of {OLDER}", value, "at most", 1 / 3)
