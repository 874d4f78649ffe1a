"""What a check found: numbers beside their bounds, or why there is nothing to measure."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One number and its bound, which it may reach: from above, or from below with `at_least`."""

    name: str
    value: float
    bound: float
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """False for a number that is none."""
        if math.isnan(self.value):
            return False
        return self.value >= self.bound if self.at_least else self.value <= self.bound

    @property
    def limit(self) -> str:
        return f"{'>=' if self.at_least else '<='} {self.bound:.3g}"


@dataclass(frozen=True)
class Outcome:
    """The outcome of one check. Without measures the property does not apply, as `note` says, or what would break it is
    `refused`, which is as good."""

    check: str
    measures: Sequence[Measure] = ()
    note: str = ""
    sentence: str = ""  # the property that is broken where it fails
    refused: bool = False

    @property
    def failed(self) -> bool:
        return not all(measure.holds for measure in self.measures)

    @property
    def verdict(self) -> str:
        return "FAIL" if self.failed else "pass" if self.measures or self.refused else "-"

    def as_json(self) -> dict[str, Any]:
        """A number that is none, or infinite, is null: JSON has no word for it."""
        numbers = [
            {
                "name": each.name,
                "value": each.value if math.isfinite(each.value) else None,
                "bound": each.limit,
                "holds": each.holds,
            }
            for each in self.measures
        ]
        return {"check": self.check, "verdict": self.verdict, "measures": numbers, "note": self.note}

    def line(self) -> str:
        """One line of the table."""
        numbers = "; ".join(f"{each.name} {each.value:.4g} ({each.limit})" for each in self.measures)
        told = ". ".join(part for part in (numbers, self.note) if part)
        return f"{self.verdict:<5} {self.check:<24} {told}"
