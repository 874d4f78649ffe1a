"""Averages trained models of one shape: finetuned runs of several seeds, or a finetuned run and what it began from.

python -m research.average --workdir=DIR [--shares=0.5,0.5] RUN RUN …

The first run gives the head and the labels; runs with another head give their backbone alone. The result is a workdir
that evaluate, predict, convert and finetune open.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from research.door import run_door


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="research.average", allow_abbrev=False)
    parser.add_argument("--workdir", required=True, type=Path, help="a new folder for the average")
    parser.add_argument("--shares", default="", help="of each run, such as 0.7,0.3 (default: equal)")
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="a workdir, or a folder of published weights")
    flags = parser.parse_args(arguments)
    from research.averaging import average

    average(flags.runs, flags.workdir, shares=flags.shares, command=["research.average", *arguments])
    return 0


if __name__ == "__main__":
    run_door(main)
