"""The doctor's table: every verdict on a machine's facts, and what mends what is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from typing import Any

from research.checks.accelerators import check_accelerators
from research.checks.devices import check_devices
from research.checks.findings import Finding
from research.checks.host import check_host
from research.checks.machine import Facts
from research.checks.packages import check_packages


def examine(facts: Facts) -> list[Finding]:
    return [
        finding for check in (check_packages, check_accelerators, check_devices, check_host) for finding in check(facts)
    ]


def exit_code(findings: Sequence[Finding]) -> int:
    """1 where something is wrong; warnings let a run begin."""
    return int(any(finding.verdict == "wrong" for finding in findings))


def table(findings: Sequence[Finding]) -> Iterator[str]:
    """The lines to print: a row for each finding, then those that are not ok once more, with what to do."""
    width = max(len(finding.check) for finding in findings)
    yield f"{'check':{width}}  verdict  found"
    for each in findings:
        yield f"{each.check:{width}}  {each.verdict:7}  {each.found}"
    yield ""
    for verdict in ("wrong", "warning"):
        for each in findings:
            if each.verdict == verdict:
                yield f"{verdict}: {each.check}: {each.found}"
                yield f"  {each.advice}"
                if each.command:
                    yield f"  $ {each.command}"
    counts = Counter(each.verdict for each in findings)
    yield f"{counts['ok']} ok, {counts['warning']} to look at, {counts['wrong']} wrong"


def as_json(findings: Sequence[Finding], facts: Facts) -> dict[str, Any]:
    """What `--json` prints: the findings, and the facts that they were made from."""
    shown = {name: value for name, value in asdict(facts).items() if name != "constraints"}
    shown["cpu_flags"] = sorted(facts.cpu_flags)
    return {"findings": [asdict(finding) for finding in findings], "facts": shown}
