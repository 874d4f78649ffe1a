"""The first ten losses of every objective, as they were when its figures were measured.

A change here is a change of what training does: the figures in README.md that rest on it must be measured again.
`python tests/test_golden.py` writes the file anew.
"""

from __future__ import annotations

import json
import random
import sys
import tempfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

GOLDEN = Path(__file__).with_suffix(".json")
PRETRAINED = ("masked_lm", "causal_lm")
FINETUNED = {  # page, and what it starts from
    "classification": ("text_classification", "masked_lm"),
    "tagging": ("tagging", "masked_lm"),
    "pairs": ("text_pairs", "masked_lm"),
    "question_answering": ("question_answering", "masked_lm"),
    "multi_label": ("multi_label", "masked_lm"),
    "regression": ("regression", "masked_lm"),
    "prompt_answer": ("prompt_answer", "causal_lm"),
}
TINY = {  # page of its own, and where its data are
    "simclr": ("image_simclr", "embedded:digits[train]"),
    "moco": ("image_moco", "embedded:digits[train]"),
    "masked_patches": ("image_mae", "embedded:digits[train]"),
    "simcse": ("text_simcse", "corpus.jsonl"),
    "clip": ("image_text_clip", "pictures/captions.jsonl"),
    "siglip": ("image_text_siglip", "pictures/captions.jsonl"),
}
MORE = {
    "multi_label": {"objective.positive_weight": "balanced"},
    "regression": {"data.label_field": "value"},
}
# Single precision on other processors and other versions of jax; ten steps multiply it a little.
TOLERANCE = 2e-5


def write_corpus(path: Path) -> None:
    draw = random.Random(3)
    words = ["stone", "river", "one", "two", "seven", "cloud", "bird", "tree", "lamp", "night"]
    with path.open("w") as file:
        for index in range(80):
            text = " ".join(draw.choice(words) for _ in range(draw.randint(4, 12)))
            tokens = f"{text} {index}".split()
            tags = ["number" if token in ("one", "two", "seven") or token.isdigit() else "thing" for token in tokens]
            label = "odd" if index % 2 else "even"
            record = {"text": " ".join(tokens), "label": label, "tokens": tokens, "tags": tags}
            record |= {"question": f"after {tokens[1]}", "context": " ".join(tokens), "answers": tokens[2:3]}
            record |= {"labels": sorted({"stone", "bird"} & {*tokens}), "value": len(text)}
            record |= {"prompt": text, "answer": label, "pair": " ".join(reversed(tokens))}
            file.write(json.dumps(record) + "\n")


def write_captions(folder: Path) -> None:
    """Eighty pictures 8 x 8 in grey with names."""
    from tests.media_files import encoded, pictures, write_folder

    shades = pictures(80, height=8, width=8, seed=3)
    write_folder(folder, [encoded(image) for image in shades], [f"{row}.png" for row in range(80)])
    records = [{"file": f"{row}.png", "name": f"shade {row % 7} of {row}", "script": "grey"} for row in range(80)]
    (folder / "captions.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))


def tiny_losses(folder: Path) -> dict[str, list[float]]:
    """Of the objectives that compare vectors or tell patches, whose pages have a tiny form."""
    from research.training_door import run_training
    from tests.pages import ROOT

    write_captions(folder / "pictures")
    write_corpus(folder / "corpus.jsonl")
    changes = {"num_steps": 10, "log.every": 1, "log.tensorboard": "false", "mesh.devices": 1}
    changes |= {"evaluation.every": 0, "evaluation.floors": "false"}
    found = {}
    for objective, (name, path) in TINY.items():
        where = path if path.startswith("embedded:") else folder / path
        more = {"data.path": where} | ({"data.valid_path": ""} if objective == "simcse" else {})
        flags = [f"--config.{key}={value}" for key, value in (changes | more).items()]
        page = f"--config={ROOT / 'configs/pretrain' / name}.py:tiny"
        run_training("pretrain", [page, *flags, f"--workdir={folder / objective}"])
        found[objective] = _train_losses(folder / objective)
    return found


def _train_losses(workdir: Path) -> list[float]:
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [line["train/loss"] for line in lines if "train/loss" in line]


def losses(folder: Path) -> dict[str, list[float]]:
    from research.training_door import run_training
    from tests.pages import ROOT, small_page

    write_corpus(folder / "corpus.jsonl")
    keys = dict(num_steps=10, log__every=1, evaluation__samples="()", model__dropout=0.0)
    found = {}
    for objective in (*PRETRAINED, *FINETUNED):
        workdir = folder / objective
        if objective in FINETUNED:
            name, origin = FINETUNED[objective]
            page = [f"--config={ROOT / 'configs/finetune' / name}.py:tiny"]
            changes = {"data.path": folder / "corpus.jsonl", "data.length": 16, "init_from": folder / origin}
            changes |= {"num_steps": 10, "log.every": 1, "log.tensorboard": "false", "evaluation.floors": "false"}
            changes |= {"mesh.devices": 1} | MORE.get(objective, {})
            if origin == "masked_lm" and objective != "pairs":  # the head is new
                changes |= {"head.dropout": 0.0}
            page += [f"--config.{key}={value}" for key, value in changes.items()]
            run_training("finetune", [*page, f"--workdir={workdir}"])
        else:
            page = small_page(folder / "corpus.jsonl", objective, **keys)
            run_training("pretrain", [*page, f"--workdir={workdir}"])
        found[objective] = _train_losses(workdir)
    return found


@pytest.fixture(scope="module")
def found(tmp_path_factory):
    return losses(tmp_path_factory.mktemp("golden"))


@pytest.fixture(scope="module")
def found_tiny(tmp_path_factory):
    return tiny_losses(tmp_path_factory.mktemp("golden_tiny"))


@pytest.mark.parametrize("objective", (*PRETRAINED, *FINETUNED))
def test_the_first_ten_losses_are_those_of_the_measured_figures(found, objective):
    assert found[objective] == pytest.approx(json.loads(GOLDEN.read_text())[objective], rel=TOLERANCE)


@pytest.mark.parametrize("objective", TINY)
def test_the_first_ten_losses_of_a_tiny_page_are_what_they_were(found_tiny, objective):
    assert len(found_tiny[objective]) == 10
    assert found_tiny[objective] == pytest.approx(json.loads(GOLDEN.read_text())[objective], rel=TOLERANCE)


if __name__ == "__main__":
    sys.path.insert(0, str(GOLDEN.parents[1]))
    with tempfile.TemporaryDirectory() as temporary:
        measured = losses(Path(temporary)) | tiny_losses(Path(temporary))
        GOLDEN.write_text(json.dumps(measured, indent=1) + "\n")
