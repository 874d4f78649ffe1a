"""The checks in order, each by its short name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

from research.checks import equalities, lasting, leaks
from research.checks.measures import Outcome
from research.checks.subject import Subject

CHECKS: dict[str, Callable[[Subject], Outcome]] = {
    "packed": equalities.packed,
    "accumulated": equalities.accumulated,
    "sharded": equalities.sharded,
    "divided": lasting.divided,
    "resumed": lasting.resumed,
    "remat": equalities.rematerialised,
    "bfloat16": equalities.bfloat16,
    "order": lasting.ordered,
    "falls": lasting.falls,
    "reached": leaks.reached,
    "later": leaks.later_tokens,
    "documents": leaks.other_documents,
    "examples": leaks.other_examples,
}


def verify(subject: Subject, names: Sequence[str]) -> Iterator[Outcome]:
    """What each check finds, as soon as it is done."""
    for name in names:
        yield CHECKS[name](subject)


def chosen(names: str) -> list[str]:
    """The checks that are named, by commas, in the order of CHECKS; all of them for none.

    Raises:
      ValueError: no check has such a name.
    """
    wanted = [name.strip() for name in names.split(",") if name.strip()]
    for name in wanted:
        if name not in CHECKS:
            raise ValueError(f"--checks has {name!r}; there are {', '.join(CHECKS)}")
    return [name for name in CHECKS if name in wanted or not wanted]
