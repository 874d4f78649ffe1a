"""猫坐在[MASK][MASK]上: text without spaces, tokenised, masked and filled with several masks at once."""

import json
import random

import pytest

from research.data.tokenizers import WordPiece
from research.predict import main as predict
from research.training_door import run_training
from tests.pages import ROOT

PLACES = ("椅子", "桌子", "草地", "石头")


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    draw = random.Random(5)
    rows = [
        "".join([draw.choice("猫狗鸟鱼"), draw.choice("坐站睡"), "在", draw.choice(PLACES), draw.choice("上边"), "。"])
        for _ in range(400)
    ]
    path = tmp_path_factory.mktemp("chinese") / "rows.jsonl"
    path.write_text("".join(json.dumps({"text": row}, ensure_ascii=False) + "\n" for row in rows))
    return path


def test_each_character_is_a_token(texts):
    rows = [json.loads(line)["text"] for line in texts.read_text().splitlines()]
    tokenizer = WordPiece(vocab_size=64).train(rows)
    assert tokenizer.encode("猫坐在椅子上。").tokens == list("猫坐在椅子上。")
    assert tokenizer.decode(tokenizer.encode("猫坐在椅子上").ids).replace(" ", "") == "猫坐在椅子上"


@pytest.mark.slow
def test_two_masks_are_filled_with_a_word_of_two_characters(texts, tmp_path, capsys):
    keys = {
        "data.path": texts,
        "data.valid_path": "",
        "data.valid_fraction": 0.1,
        "data.packing": "documents",
        "data.tokenizer.name": "wordpiece",
        "data.tokenizer.vocab_size": 64,
        "data.length": 16,
        "model.width": 32,
        "optimizer.name": "adamw",
        "optimizer.peak_rate": 0.01,
        "num_steps": 300,
        "batch_size": 32,
        "mesh.devices": 1,
        "evaluation.samples": "('猫坐在<mask><mask>上。',)",
        "evaluation.floors": "false",
        "log.tensorboard": "false",
    }
    page = f"--config={ROOT / 'configs/quickstart.py'}:tiny"
    run_training("pretrain", [page, f"--workdir={tmp_path / 'run'}", *(f"--config.{k}={v}" for k, v in keys.items())])
    capsys.readouterr()
    predict([f"--workdir={tmp_path / 'run'}", "猫坐在[MASK][MASK]上。", "[MASK]睡在草地边。"])
    two, one = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert two["output"].replace(" ", "") in [f"猫坐在{place}上。" for place in PLACES]
    assert one["output"].replace(" ", "") in [f"{animal}睡在草地边。" for animal in "猫狗鸟鱼"]
