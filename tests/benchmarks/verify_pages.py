"""`verify` on every page, with data for those that bring none; the tables are merged into verify_pages.json.

python tests/benchmarks/verify_pages.py [PAGE …]      all pages without a name, one after another: a minute or two each
Pages that finetune start from runs that finetuning.py and representations.py leave in runs/; a small causal model is
trained first for the one that answers prompts. Exit code 1 where a check fails.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from keep import ROOT, origin, train  # pyright: ignore[reportMissingImports]

RESULTS = Path(__file__).with_suffix(".json")
DATA = "../shared/data"
CIFAR = {"data.path": f"{DATA}/cifar10/test.npz"}
EMOJI = {"data.path": f"{DATA}/emoji_pairs"}
SPOKEN = {"data.path": f"{DATA}/fsdd/fsdd.npz"}
TEXTS = {"data.path": f"{DATA}/sst2/train.jsonl.zst"}
PAIRS = {"data.path": "embedded:pairs[train]", "data.text_field": "docstring", "data.pair_field": "body"}
ENCODER = {"init_from": "runs/adapted"}
CAUSAL = "runs/verify_causal"

# Of each page what it needs to be verified; a page of several architectures stands once for each.
PAGES: dict[str, dict[str, str]] = {
    "quickstart.py": {},
    "pretrain/text_mlm.py": TEXTS,
    "pretrain/text_mlm.py:small": TEXTS,
    "pretrain/text_mlm.py:lstm": TEXTS,
    "pretrain/text_mlm.py:large": TEXTS,
    "pretrain/text_mlm.py:continue": TEXTS | ENCODER,
    "pretrain/text_lm.py": TEXTS,
    "pretrain/text_lm_char.py": {"data.path": f"{DATA}/tinyshakespeare/input.txt.zst"},
    "pretrain/text_lm_lstm.py": {"data.path": f"{DATA}/tinyshakespeare/input.txt.zst"},
    "pretrain/large_lm.py:gpt2": TEXTS,
    "pretrain/large_lm.py:70b": TEXTS,
    "pretrain/text_pairs.py": PAIRS | ENCODER,
    "pretrain/text_simcse.py": TEXTS | ENCODER,
    "pretrain/text_simcse.py:scratch": TEXTS | {"data.label_field": "y"},
    "pretrain/image_simclr.py": CIFAR,
    "pretrain/image_simclr.py:small": CIFAR,
    "pretrain/image_moco.py": CIFAR,
    "pretrain/image_mae.py": CIFAR,
    "pretrain/image_classification.py": CIFAR,
    "pretrain/image_classification.py:digits": {},
    "pretrain/image_text_clip.py:glyphs": {},
    "pretrain/image_text_clip.py:emoji": EMOJI,
    "pretrain/image_text_siglip.py:emoji": EMOJI,
    "pretrain/audio_simclr.py": SPOKEN,
    "pretrain/audio_masked.py": SPOKEN,
    "finetune/quickstart.py": {"init_from": "runs/adapted"},
    "finetune/text_classification.py": TEXTS | ENCODER | {"data.label_field": "y"},
    "finetune/multi_label.py": TEXTS | ENCODER | {"data.label_fields": "(y,)"},
    "finetune/regression.py": TEXTS | ENCODER | {"data.label_field": "y"},
    "finetune/tagging.py": ENCODER | {"data.path": f"{DATA}/ud_ewt/dev.jsonl.zst", "data.tags_field": "upos"},
    "finetune/question_answering.py": ENCODER | {"data.path": f"{DATA}/qa_squad/squadshifts_reddit.json.zst"},
    "finetune/text_pairs.py": PAIRS | ENCODER,
    "finetune/prompt_answer.py": {
        "init_from": CAUSAL,
        "data.path": "embedded:pairs[train]",
        "data.prompt_field": "docstring",
        "data.answer_field": "body",
    },
    "finetune/image_classification.py": CIFAR | {"init_from": "runs/cifar_simclr"},
    "finetune/audio_classification.py": SPOKEN | {"init_from": "runs/fsdd_george"},
}


def verify(page: str, keys: dict[str, str]) -> dict:
    command = [
        "research.verify",
        f"--config=configs/{page}",
        *(f"--config.{key}={value}" for key, value in keys.items()),
    ]
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", *command, "--json"], cwd=ROOT, capture_output=True, text=True)
    if done.returncode not in (0, 1):
        return {"command": "python -m " + " ".join(command), "refused": done.stderr.strip().splitlines()[-1]}
    checks = {check["check"]: check for check in json.loads(done.stdout)["checks"]}
    return {
        "command": "python -m " + " ".join(command),
        **origin(),
        "seconds": round(time.perf_counter() - started),
        "passed": [name for name, check in checks.items() if check["verdict"] == "pass"],
        "not_for_it": [name for name, check in checks.items() if check["verdict"] == "-"],
        "failed": {name: check["measures"] for name, check in checks.items() if check["verdict"] not in ("pass", "-")},
    }


def main(names: list[str]) -> int:
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    if not names or "finetune/prompt_answer.py" in names:
        train(CAUSAL, "pretrain", "pretrain/text_lm.py:tiny", {})
    for page in names or PAGES:
        results[page] = verify(page, PAGES[page])
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
        said = (
            results[page].get("refused") or f"{len(results[page]['passed'])} passed, failed: {results[page]['failed']}"
        )
        print(f"{page}: {said}", flush=True)
    return 1 if any(results[page].get("failed", True) for page in names or PAGES) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
