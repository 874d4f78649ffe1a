"""Pretrained against its from-scratch twin, several seeds each, on one split: means, 95 % intervals, paired difference.

python tests/benchmarks/seeds.py NAME --seeds=5 --config=configs/finetune/quickstart.py \
    --config.init_from=runs/quickstart
Everything after --seeds goes to `research.finetune`; the result is kept as NAME.json beside this script.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from keep import origin  # pyright: ignore[reportMissingImports]

from research.evaluation.evidence import compare

HERE = Path(__file__).resolve().parent


def finetune(arguments: list[str], *, seed: int, weights: str) -> dict:
    """One run's result.json, with the wall time of the whole process."""
    with tempfile.TemporaryDirectory() as folder:
        more = [f"--workdir={folder}/run", f"--config.seed={seed}", f"--config.weights={weights}"]
        more.append("--config.evaluation.floors=" + ("true" if seed == 0 and weights == "pretrained" else "false"))
        started = time.perf_counter()
        subprocess.run([sys.executable, "-m", "research.finetune", *arguments, *more], cwd=HERE.parents[1], check=True)
        seconds = time.perf_counter() - started
        return json.loads(Path(f"{folder}/run/result.json").read_text()) | {"process_seconds": seconds}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("name")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--metric", default="test/accuracy")
    flags, arguments = parser.parse_known_args()
    started = time.perf_counter()
    results: dict[str, list[dict]] = {"pretrained": [], "scratch": []}
    for seed in range(flags.seeds):
        for weights, found in results.items():
            found.append(finetune(arguments, seed=seed, weights=weights))
            print(f"seed {seed} {weights}: {flags.metric} {found[-1][flags.metric]:.4f}", flush=True)
    scores = {weights: [result[flags.metric] for result in found] for weights, found in results.items()}
    compared = compare(scores["pretrained"], scores["scratch"], {})
    floors = {key: value for key, value in results["pretrained"][0].items() if key.startswith("floor/")}
    summary = {
        "command": f"python tests/benchmarks/seeds.py {' '.join(sys.argv[1:])}",
        **origin(),
        "metric": flags.metric,
        "seeds": flags.seeds,
        **{name: compared[name] for name in ("pretrained", "scratch", "paired_difference")},
        "floors": floors,
        "shared_rows": results["pretrained"][0]["shared_rows"],
        "wall_seconds": time.perf_counter() - started,
        "wall_seconds_of_a_run": [result["process_seconds"] for found in results.values() for result in found],
    }
    (HERE / f"{flags.name}.json").write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary, indent=1))


if __name__ == "__main__":
    main()
