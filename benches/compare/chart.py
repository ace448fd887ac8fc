"""A chart of some figures, as SVG: horizontal bars, the best first."""

from html import escape

from report import Report, short

PANELS = (
    ("drain", "jobs/s", "No-op jobs drained, a second", False),
    ("bulk_1000", "jobs/s", "Jobs added a second, 1,000 a call", False),
    ("add_concurrent", "jobs/s", "Jobs added a second, 50 adds at a time", False),
    ("add", "jobs/s", "Jobs added a second, one awaited after another", False),
    ("latency", "ms p99", "From add to start, idle worker, p99 in ms: less is better", True),
    ("delayed", "late ms p99", "Many jobs due at once, p99 late in ms: less is better", True),
)
WIDTH, NAMES, VALUES, BAR, GAP, HEAD = 760, 230, 90, 16, 6, 40
COLOURS = ("#0969da", "#8c959f")
STYLE = """<style>
text { font: 13px system-ui, sans-serif; fill: #1f2328 }
.head { font-weight: 600 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } }
</style>"""


def _panel(report: Report, unit: str, head: str, less: bool, top: int) -> tuple[list[str], int]:
    values = [
        (row, value) for row in report.rows if (value := report.median(row, unit)) is not None
    ]
    values.sort(key=lambda pair: pair[1], reverse=not less)
    most = max((value for _, value in values), default=1.0)
    lines = [f'<text class="head" x="0" y="{top + HEAD - 14}">{escape(head)}</text>']
    at = top + HEAD
    for row, value in values:
        length = max(1.0, (WIDTH - NAMES - VALUES) * value / most)
        colour = COLOURS[0 if row.startswith("ChasquiMQ") else 1]
        lines += [
            f'<text x="{NAMES - 8}" y="{at + 13}" text-anchor="end">{escape(row)}</text>',
            f'<rect x="{NAMES}" y="{at}" width="{length:.1f}" height="{BAR}" fill="{colour}"/>',
            f'<text x="{NAMES + length + 6:.1f}" y="{at + 13}">{short(value)}</text>',
        ]
        at += BAR + GAP
    return lines, at


def chart(reports: dict[str, Report]) -> str:
    """Return the chart of all panels that have figures."""
    lines: list[str] = []
    top = 0
    for subject, unit, head, less in PANELS:
        if reports[subject].rows:
            panel, top = _panel(reports[subject], unit, head, less, top)
            lines += panel
    size = f'width="{WIDTH}" height="{top}" viewBox="0 0 {WIDTH} {top}"'
    body = "\n".join([STYLE, *lines])
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} role="img">\n{body}\n</svg>\n'
