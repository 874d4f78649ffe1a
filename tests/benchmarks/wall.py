"""A pretraining run timed as a user sees it, process start to exit with an empty cache, beside another program's.

python tests/benchmarks/wall.py NAME --repeats=2 --beside='bash nanogpt.sh' --config=configs/pretrain/text_lm_char.py \
    --config.data.path=input.txt
Each repeat runs the other program, then ours; medians and their ratio are kept as NAME.json beside this script. All
flags that are not this script's go to `research.pretrain`.
"""

from __future__ import annotations

import argparse
import json
import os
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keep import origin  # pyright: ignore[reportMissingImports]

HERE = Path(__file__).resolve().parent
PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "tokenizers", "numpy")


def seconds(command: list[str], **environment: str) -> float:
    started = time.perf_counter()
    subprocess.run(command, cwd=HERE.parents[1], check=True, env=os.environ | environment)
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--beside", default="", help="the other program's command line")
    parser.add_argument("--note", default="", help="what the other program is, and what it showed")
    flags, arguments = parser.parse_known_args()
    ours, others, result, seed = [], [], {}, None
    for _ in range(flags.repeats):
        if flags.beside:
            others.append(seconds(shlex.split(flags.beside)))
        with tempfile.TemporaryDirectory() as folder:
            command = [sys.executable, "-m", "research.pretrain", *arguments, f"--workdir={folder}/run"]
            ours.append(seconds(command, GROUNDWORK_CACHE=f"{folder}/cache"))
            result = json.loads(Path(f"{folder}/run/result.json").read_text())
            seed = json.loads(Path(f"{folder}/run/config.json").read_text())["seed"]
    summary = {
        "command": "python -m research.pretrain " + shlex.join(arguments),
        **origin(PACKAGES),
        "seed": seed,
        "process_seconds": ours,
        "result": result,
    }
    if others:
        summary |= {
            "beside": {"command": flags.beside, "note": flags.note, "process_seconds": others},
            "ratio_of_medians": statistics.median(ours) / statistics.median(others),
        }
    (HERE / f"{flags.name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
