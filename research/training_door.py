"""What `pretrain` and `finetune` share: from flags to a finished run."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

from research import provenance
from research.door import take_flags
from research.experiment import complete, load_page, open_experiment
from research.run import train


def run_training(door: Literal["pretrain", "finetune"], arguments: Sequence[str]) -> int:
    """A training door's whole work: from flags to the last checkpoint, result.json and report.html."""
    started = time.perf_counter()
    overrides, rest = take_flags(arguments)
    parser = argparse.ArgumentParser(prog=f"research.{door}", allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, metavar="FILE[:variant]", help="a page; single keys by --config.key=value"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="where the run is kept; an unfinished one goes on")
    flags = parser.parse_args(rest)
    page = load_page(flags.config, overrides)
    if door == "finetune" and not page.get("init_from"):
        raise ValueError("finetune starts from a finished run; give --config.init_from=DIR (its --workdir)")
    if door == "pretrain" and page.get("weights", "pretrained") != "pretrained":
        raise ValueError("weights=scratch belongs to finetune; pretrain without init_from starts from scratch")
    if door == "pretrain" and page.get("evidence"):
        raise ValueError("evidence belongs to finetune; remove the block from the page")
    page = complete(page)
    provenance.check_workdir(flags.workdir, page)
    command = [f"research.{door}", *arguments]
    if page["evidence"]:
        from research.evidence import gather

        gather(page, flags.workdir, command=command, started=started)
    else:
        train(open_experiment(page), flags.workdir, command=command, started=started)
    return 0
