"""Evaluates a finished run on its own validation and test data, or on other data.

python -m research.evaluate --workdir=DIR [--step=N] [--config.data.valid_path=FILE …] [--no_floors] [--debug]
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path

from research.door import run_door, take_flags


def main(arguments: Sequence[str]) -> int:
    from research.evaluator import evaluate_trained

    overrides, rest = take_flags(arguments)
    parser = argparse.ArgumentParser(prog="research.evaluate", allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=Path, help="of the run to evaluate")
    parser.add_argument("--step", type=int, default=None, help="a checkpoint of it (default: the newest)")
    parser.add_argument("--no_floors", action="store_true", help="leave out what needs no network")
    flags = parser.parse_args(rest)
    result = evaluate_trained(flags.workdir, overrides, step=flags.step, floors=not flags.no_floors)
    print(json.dumps(result))
    return 0


if __name__ == "__main__":
    run_door(main)
