"""Reports: rows of medians, and targets met or missed; as JSON and as Markdown, shaped like engine's."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any


def short(value: float) -> str:
    """Return three digits or more, thousands apart."""
    if value == 0:
        return "0"
    size = abs(value)
    return f"{value:.2f}" if size < 10 else f"{value:.1f}" if size < 100 else f"{value:,.0f}"


@dataclass
class Report:
    """What one workload found out."""

    subject: str
    title: str
    rows: dict[str, dict[str, list[float]]] = field(default_factory=dict)
    checks: list[tuple[str, float, str, float]] = field(default_factory=list)

    def record(self, row: str, unit: str, value: float) -> None:
        """Add what a round measured."""
        self.rows.setdefault(row, {}).setdefault(unit, []).append(value)

    def median(self, row: str, unit: str) -> float | None:
        """Return the median of the rounds; None when it was not measured."""
        rounds = self.rows.get(row, {}).get(unit)
        return median(rounds) if rounds else None

    def units(self) -> list[str]:
        """Return the columns, in the order in which they were first recorded."""
        return list(dict.fromkeys(unit for cells in self.rows.values() for unit in cells))

    def check(self, name: str, value: float | None, relation: str, target: float) -> None:
        """Hold a value against a target; what was not measured is not held against anything."""
        if value is not None:
            self.checks.append((name, value, relation, target))

    def plain(self) -> dict[str, Any]:
        """Return it as plain values."""
        cells = {
            row: [
                {"unit": unit, "median": median(rounds), "rounds": rounds}
                for unit, rounds in units.items()
            ]
            for row, units in self.rows.items()
        }
        return {
            "subject": self.subject,
            "title": self.title,
            "rows": [{"name": row, "cells": found} for row, found in cells.items()],
            "checks": [
                {"name": name, "value": value, "target": {relation.replace(" ", "_"): target}}
                for name, value, relation, target in self.checks
            ],
        }

    def markdown(self) -> str:
        """Return it as a section: a table, then the targets."""
        units = self.units()
        lines = [f"## {self.subject.replace('_', ' ')}", "", self.title, ""]
        lines += [f"|  | {' | '.join(units)} |", "|---|" + "---:|" * len(units)]
        for row in self.rows:
            values = [self.median(row, unit) for unit in units]
            cells = ["" if value is None else short(value) for value in values]
            lines.append(f"| {row} | {' | '.join(cells)} |")
        lines.append("")
        for name, value, relation, target in self.checks:
            verdict = "met" if is_met(value, relation, target) else "MISSED"
            lines.append(f"- {name}: {short(value)} ({relation} {short(target)}): {verdict}")
        return "\n".join(lines) + "\n"


def is_met(value: float, relation: str, target: float) -> bool:
    """Return whether a value is what it must be."""
    return value >= target if relation == "at least" else value <= target


def ratio(over: float | None, under: float | None) -> float | None:
    """Return the quotient, when both were measured."""
    return over / under if over is not None and under else None
