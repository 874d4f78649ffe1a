"""The plan's estimate of memory a device beside the compiled step's, on eight CPU devices; nothing is run.

python tests/benchmarks/estimates.py [PAGE …]      all pages without a name; results are merged into estimates.json
Exit code 1 where an estimate is off by more than a quarter.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from keep import ROOT, origin  # pyright: ignore[reportMissingImports]

RESULTS = Path(__file__).with_suffix(".json")
FSDP = "--config.mesh.fsdp=8 --config.mesh.data=1"
# Transformers of texts, and what is not as on the page.
PAGES = [
    ("quickstart.py", FSDP),
    ("pretrain/text_mlm.py", FSDP),
    ("pretrain/text_mlm.py:small", "--config.mesh.data=8"),
    # Here XLA sums the gradients of both tables, 85 % of the parameters, in one operation that holds them all.
    ("pretrain/text_mlm.py:small", FSDP),
    ("pretrain/text_mlm.py:medium", "--config.mesh.fsdp=4 --config.mesh.tensor=2 --config.mesh.data=1"),
    ("pretrain/text_lm.py", FSDP),
    ("pretrain/text_lm_char.py", "--config.mesh.data=8 --config.data.tokenizer.vocab_size=70"),
    ("pretrain/large_lm.py:gpt2", FSDP),
    ("pretrain/text_simcse.py:scratch", FSDP),
    ("pretrain/image_mae.py", FSDP),
]


def main(names: list[str]) -> int:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    wrong = []
    for page, given in [each for each in PAGES if not names or each[0] in names]:
        arguments = [f"--config=configs/{page}", "--topology=cpu:8", "--compile=always", "--json"]
        keys = ["--config.data.path=nowhere", "--config.dtype=float32", *given.split()]
        command = [sys.executable, "-m", "research.plan", *arguments, *keys]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        if done.returncode not in (0, 1):
            print(f"{page}: {done.stderr.strip().splitlines()[-1]}", flush=True)
            wrong.append(page)
            continue
        found = json.loads(done.stdout)
        estimated, compiled = found["memory_estimated"], found["memory"]["total"]
        mesh = " x ".join(part.removeprefix("--config.mesh.") for part in given.split() if ".mesh." in part)
        results[f"{page} on {mesh}"] = {
            "command": " ".join(["python", *command[1:]]),
            **origin(),
            "estimated_mib": round(estimated / 2**20, 2),
            "compiled_mib": round(compiled / 2**20, 2),
            "ratio": round(estimated / compiled, 3),
        }
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        print(f"{page}: {estimated / compiled:.3f}", flush=True)
        if not 0.75 <= estimated / compiled <= 1.25:
            wrong.append(page)
    print("all within a quarter" if not wrong else f"not within a quarter: {', '.join(wrong)}")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
