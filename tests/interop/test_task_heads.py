"""Published heads of several labels, of a number and of answers: there and back, told apart, and used by predict."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.conversion import convert, outputs, write_published
from research.interop import read_folder
from research.interop.tensor_files import read_tensors
from research.interop.verify import draw_inputs
from research.predict import main as predict
from research.trained import open_trained
from tests.drawn import BERT_POOLED, FAMILIES, LENGTH, VOCABULARY, draw, write_run

DECODER_POOLED = dict(name="classification", pooling="last", bias=False)
TARGETS = dict(target_mean=-37.25, target_scale=11.5)
DATA = {"multi_label": "text_multi_label", "question_answering": "question_answering"}
TEXTS = {
    "multi_label": ["w5 w6 w7", "w30"],
    "regression": ["w5 w6 w7", "w30", "w20 w21"],
    "question_answering": ["w5 w6\tw20 w21 w22", "w9 w8 w7 w6 w5 w6\tw30 w31 w32 w33 w34 w35 w36 w37 w38 w39"],
}


def answers(place, task, capsys):
    capsys.readouterr()
    predict([f"--workdir={place}", *TEXTS[task]])
    return [json.loads(line) for line in capsys.readouterr().out.splitlines()]


def there_and_back(trained, place):
    """The run, the folder that it becomes, and the run that this becomes."""
    write_run(place / "run", trained)
    convert(place / "run", place / "there", say=lambda line: None)
    convert(place / "there", place / "back", say=lambda line: None)
    return [place / name for name in ("run", "there", "back")]


def settings_of(folder):
    return json.loads((folder / "config.json").read_text())


@pytest.mark.parametrize("family", [name for name in FAMILIES if name.endswith(("multi_label", "question_answering"))])
def test_a_run_comes_back_from_its_folder_to_the_bit(family, tmp_path, capsys):
    trained = draw(*FAMILIES[family])
    task = trained.about["objective"]["name"]
    places = there_and_back(trained, tmp_path)
    wanted = answers(places[0], task, capsys)
    assert len(wanted) == len(TEXTS[task])
    for place in places[1:]:
        again = open_trained(place)
        assert (again.about["objective"], again.about["data"]["name"]) == ({"name": task}, DATA[task])
        assert again.spec.label_names == trained.spec.label_names
        assert jax.tree.structure(again.params) == jax.tree.structure(trained.params)
        jax.tree.map(np.testing.assert_array_equal, again.params, trained.params)
        assert answers(place, task, capsys) == wanted


def test_several_labels_are_told_by_their_own_probabilities(tmp_path, capsys):
    write_published(tmp_path, draw(*FAMILIES["bert multi_label"]))
    settings = settings_of(tmp_path)
    assert settings["architectures"] == ["BertForSequenceClassification"]
    assert settings["problem_type"] == "multi_label_classification"
    assert settings["id2label"] == {"0": "bad", "1": "fair", "2": "good"}
    for answer in answers(tmp_path, "multi_label", capsys):
        found = answer["probabilities"]
        assert list(found) == ["bad", "fair", "good"] and sum(found.values()) != pytest.approx(1.0)
        assert answer["labels"] == [name for name, probability in found.items() if probability > 0.5]


@pytest.mark.parametrize("name", ["bert", "roberta"])
def test_a_number_comes_back_in_its_own_units(name, tmp_path, capsys):
    trained = draw(name, "regression", BERT_POOLED, targets=TARGETS)
    places = there_and_back(trained, tmp_path)
    settings = settings_of(places[1])
    assert settings["problem_type"] == "regression" and settings["id2label"] == {"0": "stars"}
    wanted = [answer["value"] for answer in answers(places[0], "regression", capsys)]
    assert np.ptp(wanted) > 1e-2
    for place in places[1:]:
        again = open_trained(place)
        assert (again.spec.target_mean, again.spec.target_scale) == (0.0, 1.0)
        assert again.about["objective"] == {"name": "regression"}
        assert [answer["value"] for answer in answers(place, "regression", capsys)] == pytest.approx(wanted, rel=1e-6)
    there = read_tensors(places[1])
    convert(places[2], tmp_path / "again", say=lambda line: None)
    for tensor, array in read_tensors(tmp_path / "again").items():  # what is in its own units stays as it is
        np.testing.assert_array_equal(array, there[tensor])


def test_a_number_of_a_bfloat16_model_is_not_rounded(tmp_path):
    trained = draw("bert", "regression", BERT_POOLED, targets=TARGETS)
    halves = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), trained.params)
    halved = dataclasses.replace(trained, params=halves)
    write_published(tmp_path, halved)
    assert settings_of(tmp_path)["dtype"] == "float32"
    inputs = draw_inputs(VOCABULARY, pad_id=0, length=LENGTH)
    single = dataclasses.replace(trained, params=jax.tree.map(lambda leaf: leaf.astype(jnp.float32), halves))
    np.testing.assert_allclose(outputs(open_trained(tmp_path), *inputs)[1], outputs(single, *inputs)[1], rtol=1e-6)


def test_a_head_without_bias_holds_no_mean(tmp_path):
    with pytest.raises(ValueError, match=r"GPT2ForSequenceClassification has no bias for target_mean=-37.25"):
        write_published(tmp_path / "x", draw("gpt2", "regression", DECODER_POOLED, targets=TARGETS))
    assert not (tmp_path / "x").exists()
    for name in ("gpt2", "llama"):
        for targets, scale in (({}, 1.0), (dict(target_scale=2.0), 2.0)):
            folder = tmp_path / f"{name} {scale}"
            trained = draw(name, "regression", DECODER_POOLED, targets=targets)
            write_published(folder, trained)
            again = open_trained(folder)
            assert again.about["objective"] == {"name": "regression"}
            kernels = (np.asarray(each.params["head"]["classifier"]["kernel"]) for each in (trained, again))
            np.testing.assert_array_equal(scale * next(kernels), next(kernels))


@pytest.mark.parametrize(
    ("num_labels", "problem", "task"),
    [
        (1, None, "regression"),
        (1, "regression", "regression"),
        (1, "multi_label_classification", "multi_label"),
        (3, None, "classification"),
        (3, "single_label_classification", "classification"),
        (3, "multi_label_classification", "multi_label"),
    ],
)
@pytest.mark.parametrize("name", ["bert", "gpt2"])
def test_problem_type_and_the_number_of_labels_tell_the_task(name, num_labels, problem, task, tmp_path):
    head = BERT_POOLED if name == "bert" else DECODER_POOLED
    write_published(tmp_path, draw(name, "regression" if num_labels == 1 else "classification", head))
    settings = settings_of(tmp_path)
    settings.pop("problem_type")
    settings |= {"problem_type": problem} if problem else {}
    (tmp_path / "config.json").write_text(json.dumps(settings))
    assert read_folder(tmp_path).task == task
    assert open_trained(tmp_path).about["objective"] == {"name": task}


@pytest.mark.parametrize(
    ("problem", "message"),
    [
        ("regression", "problem_type='regression' with 3 labels; here it can have 1"),
        ("ranking", "BertForSequenceClassification with problem_type='ranking' is not read here"),
    ],
)
def test_problems_that_are_not_had_here_are_named(problem, message, tmp_path):
    write_published(tmp_path, draw(*FAMILIES["bert classifier"]))
    (tmp_path / "config.json").write_text(json.dumps(settings_of(tmp_path) | {"problem_type": problem}))
    with pytest.raises(ValueError, match=f"{tmp_path}: .*{message}"):
        read_folder(tmp_path)


def test_answers_of_llama_are_not_written(tmp_path):
    with pytest.raises(ValueError, match="llama has no question_answering model"):
        write_published(tmp_path / "x", draw("llama", "question_answering", dict(name="spans")))


def test_questions_and_contexts_become_pairs_as_they_were_trained(tmp_path):
    write_published(tmp_path, draw(*FAMILIES["bert question_answering"]))
    tensors = read_tensors(tmp_path)
    assert tensors["qa_outputs.weight"].shape == (2, 16) and tensors["qa_outputs.bias"].shape == (2,)
    found = open_trained(tmp_path).tokenizer.encode("w7 w8", "w20")
    assert found.tokens == ["<bos>", "w7", "w8", "<eos>", "w20", "<eos>"]
    assert found.type_ids == [0, 0, 0, 0, 1, 1]
