"""Plans of the large pages, compiled for TPU slices with no TPU: memory a chip, compile time, bound on MFU.

python tests/benchmarks/planning.py [NAME …]      all cases without a name; results are merged into planning.json
Needs libtpu (pip install 'jax[tpu]'); minutes a case on two CPU cores. Exit code 1 where a plan is not as expected.
"""

import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

from keep import ROOT, origin  # pyright: ignore[reportMissingImports]

RESULTS = Path(__file__).with_suffix(".json")
LM, MLM, CLIP, SIMCLR = (
    f"configs/pretrain/{name}.py" for name in ("large_lm", "text_mlm", "image_text_clip", "image_simclr")
)

WHOLE = ("model.remat=none", "accumulate=1")
# Page, topology, overrides (or flags), and whether it is to fit.
CASES: dict[str, tuple[str, str, tuple[str, ...], bool]] = {
    "gpt2 on v5e:2x2": (f"{LM}:gpt2", "v5e:2x2", (), True),
    "bert-large on v5e:4x4": (f"{MLM}:large", "v5e:4x4", (), True),
    "7b on v5p:4x4x4": (f"{LM}:7b", "v5p:4x4x4", (), True),
    "7b on v6e:16x16": (f"{LM}:7b", "v6e:16x16", (), True),
    "70b on v6e:16x16": (f"{LM}:70b", "v6e:16x16", (), True),
    "175b on v5p:16x16x24": (f"{LM}:175b", "v5p:16x16x24", (), True),
    "clip vit-l on v5e:16x16": (f"{CLIP}:vit_l", "v5e:16x16", (), True),
    "simclr on v5e:1x1": (SIMCLR, "v5e:1x1", (), True),
    "7b on 2*v6e:8x8": (f"{LM}:7b", "2*v6e:8x8", ("mesh.replica=2",), True),
    "32b on v5p:4x4x4": (f"{LM}:32b", "v5p:4x4x4", (), True),
    "128b on v5p:4x8x8": (f"{LM}:128b", "v5p:4x8x8", (), True),
    "7b on v5e:2x2, which must not fit": (f"{LM}:7b", "v5e:2x2", (), False),
    "gpt2 in one piece on v5e:2x2, which must not fit": (f"{LM}:gpt2", "v5e:2x2", WHOLE, False),
    "the same, after --search": (f"{LM}:gpt2", "v5e:2x2", (*WHOLE, "--search"), True),
}
# MaxText's README, v5p: MFU with causal attention not halved.
PUBLISHED = {"32b on v5p:4x4x4": 0.715, "128b on v5p:4x8x8": 0.685}


def plan(page: str, topology: str, overrides: tuple[str, ...]) -> dict:
    arguments = [f"--config={page}", f"--topology={topology}", "--json", "--compile=always"]
    keys = [each if each.startswith("--") else f"--config.{each}" for each in ("data.path=nowhere", *overrides)]
    command = [sys.executable, "-m", "research.plan", *arguments, *keys]
    done = subprocess.run(command, cwd=ROOT, env=os.environ, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        raise SystemExit(f"{page} on {topology}: exit code {done.returncode}\n{done.stderr[-2000:]}")
    return json.loads(done.stdout)


def main(names: list[str]) -> int:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wrong = []
    for name in names or CASES:
        page, topology, overrides, fits = CASES[name]
        found = plan(page, topology, overrides)
        compiled, bound = found["compiled"], found["bound"]["mfu"]
        results[name] = {
            "command": f"python tests/benchmarks/planning.py {shlex.quote(name)}",
            **origin(("jax", "jaxlib", "libtpu")),
            "fits": found["fits"],
            "verdict": found["verdict"],
            "gib_a_device": round(found["memory"]["total"] / 2**30, 2),
            "capacity_gib": round(found["capacity"] / 2**30, 2),
            "estimated_gib": round(found["memory_estimated"] / 2**30, 2),
            "parameters": found["parameters"],
            "mesh": found["mesh"],
            "found_by_search": {key: value for key, value in found.get("overrides", {}).items() if value != "1"},
            "compile_seconds": round(compiled["seconds"]),
            "mfu_at_most": round(bound, 3),
            "published_mfu": PUBLISHED.get(name),
            "rematerializations": len(compiled["rematerializations"]),
            "limited_by": found["bound"]["limited_by"],
            "seconds_sending": {axes: round(seconds, 4) for axes, seconds in found["bound"]["sending"].items()},
            "sent": found["sent"],
            "largest": found["largest"][:3],
        }
        expected = found["fits"] == fits and not compiled["rematerializations"]
        if name in PUBLISHED:
            expected &= PUBLISHED[name] <= bound <= 1.35 * PUBLISHED[name]
        if not expected:
            wrong.append(name)
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(
            f"{name}: {results[name]['verdict']}, MFU at most {bound:.1%}, {results[name]['compile_seconds']} s",
            flush=True,
        )
    print("as expected" if not wrong else f"not as expected: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
