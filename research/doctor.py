"""Tells whether this machine is fit for a run: versions, drivers, devices, disk and memory, and what mends what is not.

python -m research.doctor [--workdir=DIR] [--json]

Exit code 0 where nothing is wrong, 1 where something is.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from research.checks import device_probe, doctor
from research.checks.machine import gather
from research.door import run_door


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="research.doctor", allow_abbrev=False)
    parser.add_argument("--workdir", type=Path, default=Path("runs"), help="where runs will be kept (default: runs)")
    parser.add_argument("--json", action="store_true", help="print the findings and the facts as JSON")
    flags = parser.parse_args(arguments)
    from research.data.cache import cache_directory

    facts = gather(flags.workdir, cache=cache_directory(), probe=device_probe.probe)
    findings = doctor.examine(facts)
    if flags.json:
        print(json.dumps(doctor.as_json(findings, facts), indent=1))
    else:
        print("\n".join(doctor.table(findings)))
    return doctor.exit_code(findings)


if __name__ == "__main__":
    run_door(main)
