"""What a check says: what it looked at, what it found, and where something is amiss what mends it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Verdict = Literal["ok", "warning", "wrong"]


@dataclass(frozen=True)
class Finding:
    """A row of the doctor's table. Where it is not ok, `advice` says why, and `command` mends it if one can."""

    check: str
    found: str
    verdict: Verdict = "ok"
    advice: str = ""
    command: str = ""


def warning(check: str, found: str, advice: str, command: str = "") -> Finding:
    """A run will work, but slower or nearer to a limit than it could be."""
    return Finding(check, found, "warning", advice, command)


def wrong(check: str, found: str, advice: str, command: str) -> Finding:
    """A run will fail, or not use what the machine has."""
    return Finding(check, found, "wrong", advice, command)
