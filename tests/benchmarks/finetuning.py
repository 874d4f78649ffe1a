"""Pretraining and what is finetuned from it, one run after another; each is kept as NAME.json beside this script.

python tests/benchmarks/finetuning.py [NAME …]
Without a name all of them, from the pretraining on, which takes hours; a finished run is not run again, and an
unfinished one goes on. Data lie in ../shared/data. Nothing here was chosen on a test split.
"""

from __future__ import annotations

import argparse
import io
import json

import zstandard
from keep import ROOT, keep, train  # pyright: ignore[reportMissingImports]

DATA = "../shared/data"
BUDGETS = {"evidence.seeds": 3, "evidence.budgets": "(300, 0)"}
TEXTS = ("ag_news_10k", "trec", "sst2", "clinc150", "ud_ewt")
Keys = dict[str, object]


def splits(name: str, *, valid: str = "", test: str = "test") -> Keys:
    parts = {"path": "train", "valid_path": valid, "test_path": test}
    return {f"data.{key}": f"{DATA}/{name}/{part}.jsonl.zst" for key, part in parts.items() if part}


AG_NEWS = splits("ag_news_10k")
# Chosen on validation rows: for TREC from the continued checkpoint (whether its twin from scratch wants another recipe,
# trec_scratch tells), for CLINC150 at 300 labels.
TREC = splits("trec") | {"data.label_field": "coarse", "data.length": 32}
TREC_RECIPE = {
    "head.pooling": "first",
    "objective.token_dropout": 0.3,
    "optimizer.peak_rate": 3e-3,
    "optimizer.adam_rate": 2e-3,
    "num_steps": 800,
}
DECAY = {"tuning.layer_decay": 0.5}
LORA_RECIPE = {key: value for key, value in TREC_RECIPE.items() if key != "optimizer.adam_rate"}  # of muon alone
SST2 = splits("sst2", valid="dev") | {"data.length": 64}
SENTIMENT = SST2 | {"data.label_field": "y", "data.label_names": "(negative, positive)"}
CLINC = splits("clinc150", valid="val") | {
    "data.length": 32,
    "objective.token_dropout": 0.2,
    "optimizer.peak_rate": 2e-3,
    "optimizer.adam_rate": 1.5e-3,
    "num_steps": 700,
}
UD_EWT = splits("ud_ewt", valid="dev") | {"data.tags_field": "upos", "data.length": 64}
WNUT = splits("wnut17", valid="dev") | {"data.length": 64, "num_steps": 300}
STRIPPED = {"data.path": "runs/newsgroups20_data/train.jsonl", "data.test_path": "runs/newsgroups20_data/test.jsonl"}
SQUAD = {
    "data.path": f"{DATA}/qa_squad/squadshifts_*.json.zst",
    "data.test_path": f"{DATA}/qa_squad/squad_v1.1_dev.json.zst",
}
LORA = {
    "tuning.lora_rank": 8,
    "tuning.lora_targets": "(query, key, value, out, up, down)",
    "optimizer.name": "adamw",
}
# A quarter of the parameters: the token table is most of either model.
STUDENT = {"weights": "scratch", "model.name": "modern", "model.width": 80, "model.depth": 1, "model.num_heads": 2}
TEACHER = "runs/table_trec/runs/300-labels-pretrained-{seed}"

# Of each run the page and what differs from it; with "seeds" it is as many runs.
RUNS: dict[str, tuple[str, Keys]] = {
    "general": (
        "pretrain/text_mlm.py:medium",
        {
            "data.path": f"('{DATA}/novels_en/train-*.jsonl.zst', '{DATA}/docs_en/train.jsonl.zst')",
            "data.weights": "(0.8, 0.2)",
            "data.valid_fraction": 0.002,
            "num_steps": 8500,
        },
    ),
    # It goes on with the texts of the tasks' training splits, without labels.
    "adapted": (
        "pretrain/text_mlm.py:continue",
        {
            "init_from": "runs/general",
            "data.path": "(" + ", ".join(f"'{DATA}/{name}/train.jsonl.zst'" for name in TEXTS) + ")",
            "data.weights": "(0.5, 0.1, 0.15, 0.15, 0.1)",
            "num_steps": 3500,
            "optimizer.peak_rate": 4e-3,
        },
    ),
    # The LSTM has seen the training texts of AG News, newsgroups and docs, as the first transformer (ag_news.json) had.
    "lstm": (
        "pretrain/text_mlm.py:lstm",
        {
            "data.path": f"('{DATA}/ag_news_10k/train.jsonl.zst', '{DATA}/newsgroups20/train.jsonl.zst', "
            f"'{DATA}/docs_en/train.jsonl.zst')",
            "data.weights": "(0.6, 0.3, 0.1)",
            "num_steps": 1500,
        },
    ),
    "table_trec": ("finetune/text_classification.py", TREC | TREC_RECIPE | DECAY | BUDGETS | {"evidence.seeds": 5}),
    "trec_scratch": (
        "finetune/text_classification.py",
        TREC
        | TREC_RECIPE
        | {"head.pooling": "mean", "objective.token_dropout": 0.1, "num_steps": 500}
        | {"weights": "scratch", "seeds": 5},
    ),
    "table_sst2": ("finetune/text_classification.py", SENTIMENT | BUDGETS),
    "table_clinc150": ("finetune/text_classification.py", CLINC | BUDGETS),
    "table_ud_ewt": ("finetune/tagging.py", UD_EWT | BUDGETS),
    "table_wnut17": ("finetune/tagging.py", WNUT | BUDGETS | {"evidence.metric": "test/f1"}),
    "table_ag_news": ("finetune/text_classification.py", AG_NEWS | BUDGETS),
    "ag_news_lstm": ("finetune/text_classification.py", AG_NEWS | {"init_from": "runs/lstm"}),
    "lora_trec": ("finetune/text_classification.py", TREC | LORA_RECIPE | LORA | {"seeds": 3}),
    "lora_sst2": (
        "finetune/text_classification.py",
        SENTIMENT | LORA | {"optimizer.peak_rate": 3e-3, "seeds": 3},
    ),
    # Rate and steps were chosen on validation rows.
    "lora_ud_ewt": (
        "finetune/tagging.py",
        UD_EWT | LORA | {"optimizer.peak_rate": 1e-2, "num_steps": 1000, "seeds": 3},
    ),
    "full_ud_ewt": ("finetune/tagging.py", UD_EWT | {"seeds": 3}),
    "lora_ag_news": (
        "finetune/text_classification.py",
        AG_NEWS | LORA | {"optimizer.peak_rate": 1e-2, "num_steps": 600, "seeds": 3},
    ),
    # Teacher and student have 300 labels; the teacher's soft labels of all training texts are what the student adds.
    "student_alone_trec": (
        "finetune/text_classification.py",
        TREC | TREC_RECIPE | STUDENT | {"data.num_labels": 300, "data.labels_seed": "{seed}", "seeds": 3},
    ),
    "student_trec": (
        "finetune/text_classification.py",
        TREC | TREC_RECIPE | STUDENT | {"teacher": TEACHER, "objective.soft_weight": 1.0, "seeds": 3},
    ),
    "frozen_sst2": (
        "finetune/multi_label.py",
        SST2 | {"data.label_fields": "(y,)", "tuning.freeze_backbone": "true"},
    ),
    "newsgroups20": ("finetune/text_classification.py", STRIPPED | {"data.length": 128, "num_steps": 1000}),
    "squad": ("finetune/question_answering.py", SQUAD | {"num_steps": 1500}),
}


def strip_newsgroups() -> None:
    """Writes 20 Newsgroups without headers, quotes and signatures, as scikit-learn strips them."""
    from sklearn.datasets import _twenty_newsgroups as strip

    folder = ROOT / "runs" / "newsgroups20_data"
    folder.mkdir(parents=True, exist_ok=True)
    for split in ("train", "test"):
        packed = (ROOT / DATA / "newsgroups20" / f"{split}.jsonl.zst").open("rb")
        with packed, (folder / f"{split}.jsonl").open("w") as file:
            for line in io.TextIOWrapper(zstandard.ZstdDecompressor().stream_reader(packed), encoding="utf-8"):
                record = json.loads(line)
                text = strip.strip_newsgroup_quoting(strip.strip_newsgroup_header(record["text"]))
                text = strip.strip_newsgroup_footer(text).strip()
                file.write(json.dumps({"text": text or "-", "label": record["label"]}) + "\n")


def of_seed(keys: Keys, seed: int) -> Keys:
    own = {key: str(value).format(seed=seed) for key, value in keys.items() if key != "seeds"}
    return own | {"seed": seed}


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    for name in parser.parse_args().names or RUNS:
        page, keys = RUNS[name]
        runs = {f"runs/{name}": keys}
        if "seeds" in keys:
            runs = {f"runs/{name}_{seed}": of_seed(keys, seed) for seed in range(int(str(keys["seeds"])))}
        if name == "newsgroups20":
            strip_newsgroups()
        door = page.split("/")[0]
        base: Keys = {"matmul_dtype": "bfloat16"} | ({"init_from": "runs/adapted"} if door == "finetune" else {})
        for workdir, own in runs.items():
            train(workdir, door, page, base | own)
        keep(name, [ROOT / workdir for workdir in runs])


if __name__ == "__main__":
    main()
