"""What `pretrain` and `finetune` share: from flags to a finished run, in one process or in one of many."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import jax

from research import provenance
from research.door import PREEMPTED, complain, describe, exit_code, take_flags
from research.experiment import complete, load_page, open_experiment
from research.run import train
from research.training.distributed import Cluster, Peers, connect
from research.training.step_folder import is_writer


def run_training(door: Literal["pretrain", "finetune"], arguments: Sequence[str]) -> int:
    """A training door's whole work: from flags to the last checkpoint, result.json and report.html."""
    started = time.perf_counter()
    overrides, rest = take_flags(arguments)
    flags = _parse(door, rest)
    names = ("coordinator_address", "num_processes", "process_id", "timeout")
    cluster = Cluster(detect=flags.distributed, **{name: getattr(flags, name) for name in names})
    page = load_page(flags.config, overrides)
    if door == "finetune" and not page.get("init_from"):
        raise ValueError("finetune starts from a finished run; give --config.init_from=DIR (its --workdir)")
    if door == "pretrain" and page.get("weights", "pretrained") != "pretrained":
        raise ValueError("weights=scratch belongs to finetune; pretrain without init_from starts from scratch")
    if door == "pretrain" and page.get("evidence"):
        raise ValueError("evidence belongs to finetune; remove the block from the page")
    page = complete(page)
    if str(flags.workdir).startswith("gs:"):
        raise ValueError(
            f"--workdir={flags.workdir} is a bucket, and workdirs are folders; mount it (gcsfuse BUCKET FOLDER) on "
            "every host and give that folder"
        )
    if page["evidence"] and not cluster.is_one:
        raise ValueError("evidence is many small runs, each in one process; leave the flags of many processes out")
    provenance.check_workdir(flags.workdir, page)
    command = [f"research.{door}", *arguments]
    peers = connect(cluster)
    if peers is None:
        _run(page, flags.workdir, command, started)
    else:
        _run_among(peers, page, flags.workdir, command, started)
    return 0


def _parse(door: str, arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"research.{door}", allow_abbrev=False)
    parser.add_argument(
        "--config", required=True, metavar="FILE[:variant]", help="a page; single keys by --config.key=value"
    )
    parser.add_argument("--workdir", required=True, type=Path, help="where the run is kept; an unfinished one goes on")
    many = parser.add_argument_group("many processes", "the same command in each of them, on a workdir that all see")
    many.add_argument("--distributed", action="store_true", help="find the others: TPU slice, SLURM, GKE, MPI")
    many.add_argument("--coordinator_address", default="", metavar="HOST:PORT", help="of process 0")
    many.add_argument("--num_processes", type=int, default=0, metavar="N")
    many.add_argument("--process_id", type=int, default=-1, metavar="I", help="from 0")
    many.add_argument("--timeout", type=float, default=120.0, help="seconds after which a silent process is given up")
    return parser.parse_args(arguments)


def _run(page: dict[str, Any], workdir: Path, command: Sequence[str], started: float) -> None:
    if page["evidence"]:
        from research.evidence import gather

        gather(page, workdir, command=command, started=started)
    else:
        say = print if is_writer() else _say_nothing
        train(open_experiment(page, say=say), workdir, command=command, started=started)


def _run_among(peers: Peers, page: dict[str, Any], workdir: Path, command: Sequence[str], started: float) -> None:
    """The run as one process of many: whatever ends it here ends it everywhere, and none waits for one that is gone."""
    try:
        peers.compare(provenance.shared_facts(page))
        _run(page, workdir, command, started)
    except Exception as error:
        if exit_code(error) == PREEMPTED:  # all of them stop, at one step
            peers.leave()
            raise
        if isinstance(error, jax.errors.JaxRuntimeError):
            peers.await_verdict()  # a broken connection, perhaps: the watch then says who was lost
        peers.end_all(complain(error, debug="--debug" in sys.argv), describe(error))
    peers.leave()


def _say_nothing(text: str) -> None:
    """Process 0 speaks for all."""
