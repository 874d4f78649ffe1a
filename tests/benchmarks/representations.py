"""Pretraining on images, pictures with names, pairs of texts and sounds; each run is kept as NAME.json beside this.

python tests/benchmarks/representations.py [NAME …]
Without a name all of them; a finished run is not run again, and an unfinished one goes on. `digits_…`, `glyphs_…` and
`docstrings…` need no data but what the package has; the others read ../shared/data. The models of digits are the tiny
ones of the tests, trained for longer: they show that an objective learns, not what it can do.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re

from keep import HERE, ROOT, keep, train  # pyright: ignore[reportMissingImports]

Keys = dict[str, object]

DATA = "../shared/data"
DIGITS: Keys = {
    "data.valid_path": "embedded:digits[val]",
    "data.test_path": "embedded:digits[test]",
    "num_steps": 500,
    "batch_size": 64,
    "optimizer.schedule.warmup_steps": 50,
    "evaluation.every": 250,
    "log.every": 50,
}
EMOJI: Keys = {"data.path": f"{DATA}/emoji_pairs"}
PLAIN: Keys = {
    "objective.augmentation.crop_area": "(1.0, 1.0)",
    "objective.augmentation.brightness": 0.0,
    "objective.augmentation.contrast": 0.0,
    "objective.augmentation.saturation": 0.0,
}
CIFAR: Keys = {"data.path": f"{DATA}/cifar10/train.npz", "data.test_path": f"{DATA}/cifar10/test.npz"}
SPEAKERS = ("george", "jackson", "lucas", "nicolas", "theo", "yweweler")
# Trained on what a run is named for, the speaker left out of both; with 10 labels a digit, then with all.
FEW: Keys = {"data.num_labels": 100, "num_steps": 200, "optimizer.schedule.warmup_steps": 20, "evaluation.every": 50}
LABELS = {
    "few_pretrained": FEW,
    "few_scratch": FEW | {"weights": "scratch"},
    "all_pretrained": {"num_steps": 400},
}


def without(speaker: str) -> Keys:
    return {
        "data.path": f"{DATA}/fsdd/fsdd.npz",
        "data.select": f"(speaker!={speaker},)",
        "data.test_select": f"(speaker={speaker},)",
    }


def docstrings(name: str) -> Keys:
    return {f"data.{key}path": f"runs/docstrings_data/{name}_{split}.jsonl" for key, split in _SPLITS[name].items()}


_SPLITS = {"corpus": {"": "train", "valid_": "val"}, "pairs": {"": "train", "valid_": "val", "test_": "test"}}

# Of each run the page and what differs from it.
RUNS: dict[str, tuple[str, Keys]] = {
    "digits_mlp": ("pretrain/image_classification.py:digits", {}),
    "digits_simclr": ("pretrain/image_simclr.py:tiny", DIGITS),
    "digits_moco": ("pretrain/image_moco.py:tiny", DIGITS | {"objective.queue_size": 512, "objective.momentum": 0.99}),
    "digits_mae": ("pretrain/image_mae.py:tiny", DIGITS),
    "glyphs_clip": ("pretrain/image_text_clip.py:glyphs", {}),
    "glyphs_siglip": ("pretrain/image_text_siglip.py:glyphs", {}),
    "docstrings_mlm": ("quickstart.py", docstrings("corpus") | {"num_steps": 1000, "evaluation.samples": "()"}),
    "docstrings": (
        "pretrain/text_pairs.py:docstrings",
        docstrings("pairs") | {"init_from": "runs/docstrings_mlm", "matmul_dtype": "bfloat16"},
    ),
    "digits_resnet": ("pretrain/image_simclr.py:digits", {}),
    "digits_frozen": (
        "finetune/image_classification.py:digits",
        {"init_from": "runs/digits_resnet", "tuning.freeze_backbone": "true"},
    ),
    "cifar_simclr": ("pretrain/image_simclr.py:small", CIFAR),
    **{f"fsdd_{speaker}": ("pretrain/audio_simclr.py", without(speaker)) for speaker in SPEAKERS},
    **{
        f"fsdd_{speaker}_{name}": (
            "finetune/audio_classification.py",
            without(speaker) | {"init_from": f"runs/fsdd_{speaker}"} | keys,
        )
        for speaker in SPEAKERS
        for name, keys in LABELS.items()
    },
    **{
        f"emoji_{name}_{seed}": ("pretrain/image_text_clip.py:emoji", EMOJI | keys | {"seed": seed})
        for name, keys in (("augmented", {}), ("plain", PLAIN))
        for seed in range(2)
    },
}


def split_docstrings() -> None:
    """Writes the standard library's functions and prose by module: 1,000 pairs of unseen modules are the test.

    The embedded split has 367, too few for a recall among 1,000.
    """
    from research.data import embedded

    folder = ROOT / "runs" / "docstrings_data"
    folder.mkdir(parents=True, exist_ok=True)
    for name, splits in _SPLITS.items():
        found = [record for split in embedded.SPLITS for record in embedded.records(name, split)]
        found.sort(key=lambda record: hashlib.sha256(json.dumps(record).encode()).digest())
        for split in splits.values():
            rows = [record for record in found if _split_of(record["module"]) == split]
            lines = [json.dumps(record) + "\n" for record in (rows[:1000] if split == "test" else rows)]
            (folder / f"{name}_{split}.jsonl").write_text("".join(lines))


def _split_of(module: str) -> str:
    place = int(hashlib.sha256(f"docstrings {module}".encode()).hexdigest(), 16) % 100
    return "test" if place < 32 else "val" if place < 40 else "train"


def _of_all_speakers(name: str) -> str:
    """What the runs of one kind are kept as, one for each speaker left out."""
    return re.sub(f"^fsdd_({'|'.join(SPEAKERS)})", "fsdd", name)


def compare_speakers() -> None:
    """Writes fsdd_table.json: accuracy on the speaker left out, over all six; nothing where one is missing."""
    from research.evaluation.evidence import compare, over_runs

    found = {}
    for kind in LABELS:
        path = HERE / f"fsdd_{kind}.json"
        runs = json.loads(path.read_text()) if path.exists() else []
        if not isinstance(runs, list) or len(runs) < len(SPEAKERS):
            return
        for name in ("test/accuracy", "floor/test/mfcc_svm_accuracy"):
            found[kind, name] = [run["result"][name] for run in runs]
    few = compare(
        found["few_pretrained", "test/accuracy"],
        found["few_scratch", "test/accuracy"],
        {"mfcc_svm": found["few_pretrained", "floor/test/mfcc_svm_accuracy"]},
    )
    rest = {name: over_runs(values) for (kind, name), values in found.items() if kind == "all_pretrained"}
    table = {"speakers": SPEAKERS, "ten_labels_a_digit": few, "all_labels": rest}
    (HERE / "fsdd_table.json").write_text(json.dumps(table, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(allow_abbrev=False)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(RUNS))
    for name in parser.parse_args().names or RUNS:
        page, keys = RUNS[name]
        if name == "docstrings_mlm":
            split_docstrings()
        train(f"runs/{name}", "finetune" if page.startswith("finetune") else "pretrain", page, keys)
        alike = [ROOT / "runs" / each for each in RUNS if _of_all_speakers(each) == _of_all_speakers(name)]
        keep(_of_all_speakers(name), [workdir for workdir in alike if (workdir / "result.json").is_file()])
    compare_speakers()


if __name__ == "__main__":
    main()
