"""Published weights where a run's could stand: as the start of finetuning and of pretraining, and in predict."""

import json
import random

import jax
import numpy as np
import pytest
from tokenizers import Tokenizer, processors

from research.conversion import convert, outputs, write_published
from research.data.labelled import encode_rows
from research.evaluator import evaluate_trained
from research.interop import read_folder
from research.predict import main as predict
from research.predict import make_predict
from research.trained import assemble, open_trained
from research.training_door import run_training
from tests.drawn import FAMILIES, LENGTH, draw
from tests.pages import ROOT

COMMON = {
    "mesh.devices": 1,
    "log.tensorboard": "false",
    "evaluation.floors": "false",
    "evaluation.samples": "()",
    "num_steps": 2,
    "data.length": LENGTH,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("published") / "bert"
    write_published(folder, draw(*FAMILIES["bert"]))
    return folder


@pytest.fixture(scope="module")
def corpus(tmp_path_factory):
    draw_word = random.Random(5)
    place = tmp_path_factory.mktemp("corpus") / "corpus.jsonl"
    with place.open("w") as file:
        for index in range(60):
            words = [f"w{draw_word.randint(5, 39)}" for _ in range(6)]
            record = {"text": " ".join(words), "pair": " ".join(reversed(words)), "label": ["no", "yes"][index % 2]}
            file.write(json.dumps(record) + "\n")
    return place


def run(door, page, workdir, **keys):
    changes = COMMON | {key.replace("__", "."): value for key, value in keys.items()}
    arguments = [f"--config.{key}={value}" for key, value in changes.items()]
    run_training(door, [f"--config={ROOT / page}", f"--workdir={workdir}", *arguments])
    return open_trained(workdir)


def backbone(params):
    return {str(path): np.asarray(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params["backbone"])}


@pytest.mark.slow
def test_finetuning_starts_from_the_published_weights_and_its_twin_does_not(folder, corpus, tmp_path):
    given = backbone(read_folder(folder).params)
    keys = dict(init_from=folder, data__path=corpus, optimizer__peak_rate=1e-9, optimizer__schedule__warmup_steps=0)
    keys |= dict(optimizer__adam_rate=1e-9)
    page = "configs/finetune/text_classification.py:tiny"
    started = backbone(run("finetune", page, tmp_path / "started", **keys).params)
    twin = backbone(run("finetune", page, tmp_path / "twin", weights="scratch", **keys).params)
    assert started.keys() == twin.keys() == given.keys()
    for name, array in given.items():
        np.testing.assert_allclose(started[name], array, atol=1e-6)
    table = next(name for name in given if "embed" in name)
    assert np.abs(twin[table] - given[table]).max() > 0.01


def test_a_classifier_of_pairs_is_published_with_its_labels(folder, corpus, tmp_path, capsys):
    page = "configs/finetune/text_classification.py:tiny"
    keys = dict(data__path=corpus, data__pair_field="pair", head__pooling="first", head__pooler="true")
    keys |= dict(optimizer__schedule__warmup_steps=0)
    run("finetune", page, tmp_path / "run", init_from=folder, **keys)
    convert(tmp_path / "run", tmp_path / "out")
    settings = json.loads((tmp_path / "out" / "config.json").read_text())
    assert settings["architectures"] == ["BertForSequenceClassification"]
    assert settings["id2label"] == {"0": "no", "1": "yes"}
    capsys.readouterr()
    answers = []
    for flags in ([f"--workdir={tmp_path / 'run'}"], [f"--workdir={tmp_path / 'out'}", "--pair_field=pair"]):
        predict([*flags, "w5 w6\tw7"])
        answers.append(json.loads(capsys.readouterr().out)["probabilities"])
    assert set(answers[0]) == {"no", "yes"}
    assert answers[1] == pytest.approx(answers[0], abs=1e-7)  # a head that has hardly learnt tells little apart
    predict([f"--workdir={tmp_path / 'out'}", "w5 w6\tw7"])  # published weights do not say what they read
    assert json.loads(capsys.readouterr().out)["probabilities"] != pytest.approx(answers[0], abs=1e-7)


def test_pretraining_goes_on_with_the_published_head(folder, corpus, tmp_path):
    keys = dict(init_from=folder, data__path=corpus, data__valid_fraction=0.2, optimizer__peak_rate=1e-9)
    page = tmp_path / "page.py"
    page.write_text(
        "from ml_collections import ConfigDict\n"
        "def get_config(variant=''):\n"
        "    return ConfigDict(dict(data=dict(name='text'), objective=dict(name='masked_lm'), batch_size=8,\n"
        "        optimizer=dict(name='adamw', schedule=dict(name='constant')), num_steps=2))\n"
    )
    continued = run("pretrain", page, tmp_path / "continued", **keys)
    assert continued.about["head"]["transform"]
    given = read_folder(folder).params["head"]
    np.testing.assert_allclose(continued.params["head"]["transform"]["kernel"], given["transform"]["kernel"], atol=1e-6)


def test_evaluate_wants_a_run(folder):
    with pytest.raises(ValueError, match="holds no run but published weights"):
        evaluate_trained(folder, [], step=None, floors=False)


def test_predict_fills_masks_with_published_weights(folder, capsys):
    predict([f"--workdir={folder}", "w5 <mask> w7"])
    answer = json.loads(capsys.readouterr().out)
    assert len(answer["masks"]) == 1 and sum(guess["probability"] for guess in answer["masks"][0]) <= 1.0


@pytest.fixture(scope="module")
def encoder():
    return draw("bert", "simcse", dict(name="embedding", pooling="mean", normalize=True), dropout=0.1)


def test_a_sentence_encoder_is_published_and_gives_the_same_vectors(encoder, tmp_path):
    write_published(tmp_path / "out", encoder)
    modules = json.loads((tmp_path / "out" / "modules.json").read_text())
    assert [each["type"].split(".")[-1] for each in modules] == ["Transformer", "Pooling", "Normalize"]
    texts = [("w5 w6 w7",), ("w9",)]
    first, second = (
        [each["embedding"] for each in make_predict(trained, "embed", {}, 2)(texts, 0)]
        for trained in (encoder, open_trained(tmp_path / "out"))
    )
    np.testing.assert_allclose(second, first, rtol=0, atol=1e-6)
    np.testing.assert_allclose(np.linalg.norm(first, axis=1), 1.0, atol=1e-5)


def test_a_model_saved_without_its_pooler_gives_vectors(encoder, tmp_path):
    write_published(tmp_path / "out", encoder)
    (tmp_path / "out" / "modules.json").unlink()  # transformers writes none
    found = open_trained(tmp_path / "out")
    assert not found.about["head"]["pooler"] and found.about["head"]["pooling"] == "first"


@pytest.mark.parametrize(("task", "ends"), [("classification", True), ("causal_lm", False)])
def test_a_published_tokenizer_frames_texts_as_training_did(tmp_path, task, ends):
    """GPT-2's own file puts nothing around a text; a classifier finetuned here has read <bos> text <eos>."""
    head = dict(name="classification", pooling="last", bias=False) if ends else dict(name="language")
    model = draw("gpt2", task, head)
    given = Tokenizer.from_str(model.about["tokenizer"])
    given.post_processor = processors.ByteLevel(trim_offsets=False)
    about = {**model.about, "tokenizer": given.to_str()}
    write_published(tmp_path / "as_it_was", assemble(about, model.params, 0))
    kept = Tokenizer.from_file(str(tmp_path / "as_it_was" / "tokenizer.json"))
    assert kept.encode("w5 w6").ids == given.encode("w5 w6").ids == [5, 6]  # not trained here
    about["data"] = {**about["data"], "path": "labels.jsonl"}
    write_published(tmp_path / "out", assemble(about, model.params, 0))
    written = Tokenizer.from_file(str(tmp_path / "out" / "tokenizer.json"))
    tokens, lengths, *_ = encode_rows([("w5 w6",)], written, length=LENGTH)
    row = tokens[0, : lengths[0]].tolist()
    assert written.encode("w5 w6").ids == (row if ends else row[1:-1])


def test_published_classifiers_read_what_their_file_says(tmp_path):
    """One that was trained elsewhere on bare texts is given bare texts; and still a row where there is no token."""
    head = dict(name="classification", pooling="last", bias=False)
    write_published(tmp_path / "out", draw("gpt2", "classification", head))
    answers = {}
    for kind, processor in (("bare", processors.ByteLevel(trim_offsets=False)), ("ended", None)):
        written = Tokenizer.from_str(draw("gpt2", "classification", head).about["tokenizer"])
        if processor is not None:
            written.post_processor = processor
        written.save(str(tmp_path / "out" / "tokenizer.json"))
        trained = open_trained(tmp_path / "out")
        (found, empty) = make_predict(trained, "classify", {}, 2)([("w5 w6",), ("",)], 0)
        assert sum(empty["probabilities"].values()) == pytest.approx(1.0, abs=1e-5)
        tokens = np.array([[5, 6]] if kind == "bare" else [[2, 5, 6, 3]])
        _, logits = outputs(trained, tokens, np.ones_like(tokens), np.zeros_like(tokens))
        np.testing.assert_allclose(list(found["probabilities"].values()), jax.nn.softmax(logits[0]), atol=1e-5)
        answers[kind] = found["probabilities"]
    assert answers["bare"] != answers["ended"]
