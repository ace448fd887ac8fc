"""Reports: rows of medians, and targets met or missed; as JSON and as Markdown, shaped like engine's."""

from dataclasses import dataclass, field
from statistics import median
from typing import Any

Rounds = dict[int, float]
"""What was measured, by the number of the round."""


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
    rows: dict[str, dict[str, Rounds]] = field(default_factory=dict)
    checks: list[tuple[str, float, str, float]] = field(default_factory=list)
    round: int = 1

    def record(self, row: str, unit: str, value: float) -> None:
        """Add what this round measured."""
        self.rows.setdefault(row, {}).setdefault(unit, {})[self.round] = value

    def rounds(self, row: str, unit: str) -> Rounds:
        """Return what the rounds measured."""
        return self.rows.get(row, {}).get(unit, {})

    def median(self, row: str, unit: str) -> float | None:
        """Return the median of the rounds; None when it was not measured."""
        rounds = self.rounds(row, unit)
        return median(rounds.values()) if rounds else None

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
                {"unit": unit, "median": median(rounds.values()), "rounds": list(rounds.values())}
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


def ratio(over: Rounds, under: Rounds) -> float | None:
    """Return the median of the quotients of the rounds that measured both.

    What a round measures is measured within seconds: a machine whose speed changes slows both.
    """
    both = [over[number] / under[number] for number in over if under.get(number)]
    return median(both) if both else None
