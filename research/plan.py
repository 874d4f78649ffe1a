"""Says before a run is launched whether it fits a machine, what it moves and how long it takes; reads no data.

python -m research.plan --config=FILE[:variant] --topology=v5e:16x16 [--search] [--json] [--compile=auto|never|always]
    [--bandwidth=GB/s] [--num_classes=N] [--config.key=value …]
python -m research.plan --config=FILE[:variant] --minutes=N [--tokens=N]     what this machine can train in that time
Exit codes: 0 it fits, 1 it does not, 2 the page or a flag is wrong.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Mapping, Sequence

from research.door import FAILED, OK, run_door, take_flags
from research.environment import add_virtual_devices
from research.planning.topologies import parse_topology


def main(arguments: Sequence[str]) -> int:
    overrides, rest = take_flags(arguments)
    flags = _flags().parse_args(rest)
    if bool(flags.topology) == bool(flags.minutes):
        raise ValueError("give --topology=NAME for a machine to plan for, or --minutes=N to measure this one")
    if flags.bandwidth <= 0.0:
        raise ValueError(f"--bandwidth={flags.bandwidth}: wanted GB/s above 0")
    if flags.minutes:
        from research.affordable import afford

        afford(flags.config, overrides, minutes=flags.minutes, tokens=flags.tokens, as_json=flags.json)
        return OK
    topology = parse_topology(flags.topology)
    _stand_in(topology.num_devices, keep_gpus=topology.chip.platform == "gpu" and flags.compile != "never")

    from research.experiment import complete, load_page
    from research.planned import find_settings, make_plan, read_subject
    from research.planning.report import Plan, as_json, table
    from research.planning.search import as_flags, confirm, describe

    def say(line: str) -> None:
        print(line, file=sys.stderr, flush=True)

    page = complete(load_page(flags.config, overrides))
    page["dtype"] = topology.compute_dtype(page["dtype"])
    subject = read_subject(page, num_classes=flags.num_classes)
    bandwidth = 1e9 * flags.bandwidth
    options = dict(config=flags.config, compiling=flags.compile, bandwidth=bandwidth, say=say)
    if not flags.search:
        plan = make_plan(subject, topology, **options)
        print(json.dumps(as_json(plan), indent=1) if flags.json else table(plan))
        return OK if plan.fits else FAILED
    settings, keys = find_settings(page, subject, topology)
    if not settings:
        print(json.dumps({"fits": False, "settings": []}) if flags.json else describe(settings, keys))
        return FAILED
    print(describe(settings, keys), file=sys.stderr if flags.json else sys.stdout, flush=True)

    def plan_of(chosen: Mapping[str, str]) -> Plan:
        page = complete(load_page(flags.config, [*overrides, *chosen.items()]))
        page["dtype"] = topology.compute_dtype(page["dtype"])
        return make_plan(read_subject(page, num_classes=flags.num_classes), topology, **options)

    chosen, plan = confirm(settings, keys, plan_of, batch_size=page["batch_size"], say=say)
    if flags.json:
        print(json.dumps(as_json(plan) | {"overrides": chosen}, indent=1))
    else:
        print(f"\nthe plan of {as_flags(chosen)}\n\n{table(plan)}")
    return OK if plan.fits else FAILED


def _flags() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="research.plan", allow_abbrev=False)
    parser.add_argument("--config", required=True, metavar="FILE[:variant]")
    parser.add_argument("--topology", default="", metavar="NAME", help="v5e:16x16, 2*v5p:4x4x4, h100:8, cpu:8")
    parser.add_argument("--search", action="store_true", help="look for meshes, remat and microbatches that fit")
    parser.add_argument("--json", action="store_true", help="the plan as JSON")
    parser.add_argument("--compile", default="auto", choices=("auto", "never", "always"))
    parser.add_argument("--bandwidth", type=float, default=1.0, help="GB/s at which checkpoints are written")
    parser.add_argument("--num_classes", type=int, default=0, help="of labelled data")
    parser.add_argument("--minutes", type=float, default=0.0, help="what this machine can train in so long")
    parser.add_argument("--tokens", type=float, default=0.0, help="with --minutes: how many the data have")
    return parser


def _stand_in(num_devices: int, *, keep_gpus: bool) -> None:
    """Virtual CPU devices stand in for those that are not here; it must be said before jax is imported."""
    if "jax" in sys.modules:
        return
    add_virtual_devices(os.environ, num_devices)
    if not keep_gpus:
        os.environ["JAX_PLATFORMS"] = "cpu"


if __name__ == "__main__":
    run_door(main)
