"""Labels are those of the objective, whatever the batch."""

import copy
import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.batch import Spec
from research.data.labelled import encode_rows
from research.data.tokenizers import Byte, facts
from research.inference.classify import classify
from research.inference.multi_label import label
from research.inference.regress import regress
from research.inference.text_model import TextModel
from research.models import MODELS, Model
from research.models.task_heads import ClassificationHead
from research.objectives.classification import Classification
from research.objectives.multi_label import MultiLabel
from research.objectives.regression import Regression

LENGTH, NAMES = 17, ("blue", "green", "red")


@pytest.fixture(scope="module")
def trained():
    tokenizer = Byte().train(["text"])
    spec = Spec(length=LENGTH, label_names=NAMES, **facts(tokenizer))
    config = MODELS["modern"](vocab_size=spec.vocab_size, length=LENGTH, width=6, depth=2, num_heads=3, unroll=1)
    model = Model(config.module(), ClassificationHead(num_classes=3))
    batch = rows(["one"], tokenizer)
    params = jax.eval_shape(lambda: Classification(model, num_classes=3).init(jax.random.key(0), batch))["params"]
    params = jax.tree.map(lambda leaf: leaf.value, params, is_leaf=lambda leaf: hasattr(leaf, "value"))
    draw = np.random.default_rng(1)
    params = jax.tree.map(lambda leaf: jnp.asarray(draw.normal(0.0, 0.5, leaf.shape), jnp.float32), params)
    return TextModel(model, params, tokenizer.to_str(), spec, LENGTH)


def rows(texts, tokenizer):
    tokens, lengths, *_ = encode_rows([(text,) for text in texts], tokenizer, length=LENGTH)
    column = np.arange(LENGTH)[None, :]
    real = column < lengths[:, None]
    positions = np.where(real, column, 0).astype(np.int32)
    batch = {"tokens": tokens, "segment_ids": real.astype(np.int32), "positions": positions}
    return {key: jnp.asarray(values) for key, values in batch.items()}


def test_probabilities_are_those_of_the_objective_in_batches_of_any_size(trained):
    texts = ["one", "two words", "a text that is too long", "four", ""]
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=LENGTH)
    objective = Classification(trained.model, num_classes=3)
    expected = objective.outputs({"params": trained.params}, rows(texts, trained.tokenizer))["probabilities"]
    for batch_size in (2, 7):
        found = list(classify(trained, [(text,) for text in texts], encode=encode, batch_size=batch_size))
        shares = [[result["probabilities"][name] for name in NAMES] for result in found]
        np.testing.assert_allclose(shares, np.asarray(expected), atol=1e-6)
        assert [result["label"] for result in found] == [NAMES[i] for i in np.argmax(expected, axis=1)]
        assert [result["input"] for result in found] == texts
        assert [result["cut"] for result in found] == [False, False, True, False, False]


def test_pairs_are_one_row(trained):
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=LENGTH)
    first, second = classify(trained, [("one", "two"), ("two", "one")], encode=encode)
    assert first["input"] == ["one", "two"]
    assert first["probabilities"] != second["probabilities"]


def test_several_labels_are_those_above_a_half_by_the_objective(trained):
    texts = ["one", "two words", "a text that is too long", "four", ""]
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=LENGTH)
    objective, batch = MultiLabel(trained.model, num_classes=3), rows(texts, trained.tokenizer)
    scores = np.asarray(objective.outputs({"params": trained.params}, batch)["scores"])
    params = copy.deepcopy(trained.params)
    params["head"]["classifier"]["bias"] -= np.median(np.log(scores / (1 - scores)), axis=0)  # some above, some below
    expected = np.asarray(objective.outputs({"params": params}, batch)["scores"])
    trained = dataclasses.replace(trained, params=params)
    found = list(label(trained, [(text,) for text in texts], encode=encode, batch_size=2))
    shares = [[result["probabilities"][name] for name in NAMES] for result in found]
    np.testing.assert_allclose(shares, expected, atol=1e-6)
    said = [[name for name, score in zip(NAMES, row, strict=True) if score > 0.5] for row in expected]
    assert [result["labels"] for result in found] == said and len({len(names) for names in said}) > 1
    assert [result["cut"] for result in found] == [False, False, True, False, False]


def test_numbers_are_those_of_the_objective_in_their_own_units(trained):
    texts = ["one", "two words", "three"]
    encode = functools.partial(encode_rows, tokenizer=trained.tokenizer, length=LENGTH)
    objective = Regression(trained.model, target_mean=70.0, target_scale=11.0)
    expected = objective.outputs({"params": trained.params}, rows(texts, trained.tokenizer))["values"]
    found = list(regress(trained, [(text,) for text in texts], mean=70.0, scale=11.0, encode=encode, batch_size=2))
    np.testing.assert_allclose([result["value"] for result in found], np.asarray(expected), rtol=1e-5)
    assert [result["input"] for result in found] == texts
