"""Verifies a page at reduced size before it runs: packed = separate, sharded = single, resumed = unbroken, and more.

python -m research.verify --config=FILE[:variant] [--config.key=value …] [--checks=packed,sharded] [--json] [--debug]
Minutes on a laptop, on eight virtual CPU devices where there is no accelerator; exit code 1 where a property is broken.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence

from research.door import FAILED, OK, run_door, take_flags

VIRTUAL_DEVICES = 8


def main(arguments: Sequence[str]) -> int:
    overrides, rest = take_flags(arguments)
    parser = argparse.ArgumentParser(prog="research.verify", allow_abbrev=False)
    parser.add_argument("--config", required=True, metavar="FILE[:variant]", help="single keys by --config.key=value")
    parser.add_argument("--checks", default="", help="names of those to run, by commas (default: all)")
    parser.add_argument("--json", action="store_true", help="print one JSON object in place of the table")
    flags = parser.parse_args(rest)
    import jax

    from research.checks.verify import chosen, verify
    from research.experiment import load_page
    from research.verified import open_subject

    names = chosen(flags.checks)
    subject = open_subject(load_page(flags.config, overrides))
    found = []
    with jax.default_matmul_precision("highest"):  # accelerators round factors of float32 products otherwise
        for finding in verify(subject, names):
            found.append(finding)
            if not flags.json:
                print(finding.line(), flush=True)
    failed = [finding for finding in found if finding.failed]
    if flags.json:
        told = {"config": flags.config, "passed": not failed, "checks": [finding.as_json() for finding in found]}
        print(json.dumps(told, indent=1))
    for finding in failed:
        print(f"failed: {finding.check}: {finding.sentence}", file=sys.stderr, flush=True)
    return FAILED if failed else OK


if __name__ == "__main__":
    run_door(main, virtual_devices=VIRTUAL_DEVICES)
