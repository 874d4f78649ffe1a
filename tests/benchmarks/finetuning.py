"""The figures of finetuning in README.md, one run after another; each is kept as NAME.json beside this script.

python tests/benchmarks/finetuning.py [NAME …]
Without a name all of them, from the pretraining on (two hours on two CPU cores with AMX); a finished run is not run
again, and an unfinished one goes on. Data lie in ../shared/data. Nothing here was chosen on a test split.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import zstandard
from keep import HERE, figures  # pyright: ignore[reportMissingImports]

ROOT = HERE.parents[1]
DATA = "../shared/data"
EVIDENCE = {"evidence.seeds": 3, "evidence.budgets": "(300, 0)"}
TEXTS = ("ag_news_10k", "trec", "sst2", "clinc150", "ud_ewt")

# What is pretrained: a page, and what differs from it.
PRETRAINING = {
    "general": (
        "text_mlm.py:medium",
        {
            "data.path": f"('{DATA}/novels_en/train-*.jsonl.zst', '{DATA}/docs_en/train.jsonl.zst')",
            "data.weights": "(0.8, 0.2)",
            "data.valid_fraction": 0.002,
            "num_steps": 8500,
        },
    ),
    # One more pass for all tasks: the texts of their training splits, without labels.
    "adapted": (
        "text_mlm.py:continue",
        {
            "init_from": "runs/general",
            "data.path": "(" + ", ".join(f"'{DATA}/{name}/train.jsonl.zst'" for name in TEXTS) + ")",
            "data.weights": "(0.4, 0.1, 0.2, 0.15, 0.15)",
        },
    ),
    "ag_lstm": (
        "text_mlm.py:lstm",
        {
            "data.path": f"('{DATA}/ag_news_10k/train.jsonl.zst', '{DATA}/docs_en/train.jsonl.zst')",
            "data.weights": "(0.7, 0.3)",
        },
    ),
}


def splits(name: str, *, valid: str = "", test: str = "test") -> dict[str, object]:
    parts = {"path": "train", "valid_path": valid, "test_path": test}
    return {f"data.{key}": f"{DATA}/{name}/{part}.jsonl.zst" for key, part in parts.items() if part}


TREC = splits("trec") | {"data.label_field": "coarse", "data.length": 32}
SST2 = splits("sst2", valid="dev") | {"data.label_field": "y", "data.length": 64}
CLINC = splits("clinc150", valid="val") | {"data.length": 32}
UD_EWT = splits("ud_ewt", valid="dev") | {"data.tags_field": "upos", "data.length": 64}
WNUT = splits("wnut17", valid="dev") | {"data.length": 64, "evidence.metric": "test/f1"}
AG_NEWS = splits("ag_news_10k")

FINETUNING: dict[str, tuple[str, dict[str, object]]] = {
    "table_ag_news": ("text_classification.py", AG_NEWS | EVIDENCE),
    "table_trec": ("text_classification.py", TREC | EVIDENCE),
    "table_sst2": ("text_classification.py", SST2 | EVIDENCE),
    "table_clinc150": ("text_classification.py", CLINC | EVIDENCE),
    "table_ud_ewt": ("tagging.py", UD_EWT | EVIDENCE),
    "table_wnut17": ("tagging.py", WNUT | EVIDENCE),
}


def start(name: str) -> list[str]:
    """The command of a run, in the folder of the checkout."""
    door, table = ("pretrain", PRETRAINING) if name in PRETRAINING else ("finetune", FINETUNING)
    page, keys = table[name]
    if door == "finetune":
        keys = {"init_from": "runs/adapted"} | keys
    given = [f"--config.{key}={value}" for key, value in ({"matmul_dtype": "bfloat16"} | keys).items()]
    return [f"research.{door}", f"--config=configs/{door}/{page}", f"--workdir=runs/{name}", *given]


def main() -> None:
    names = [*PRETRAINING, *FINETUNING]
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    for name in parser.parse_args().names or names:
        workdir = ROOT / "runs" / name
        if not (workdir / "result.json").is_file():
            subprocess.run([sys.executable, "-m", *start(name)], cwd=ROOT, check=True)
        (HERE / f"{name}.json").write_text(json.dumps(figures(workdir), indent=1) + "\n")


if __name__ == "__main__":
    main()
