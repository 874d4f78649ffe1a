"""Question answering: the loss is the mean of two softmaxes over the columns that are allowed, and no others."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.types import Keys
from tests.small import LENGTH, VOCAB, difference, small_objective

BORDERS, ENDS = (4, 7, 3, 5, 6), (11, 12, 8, 9, 10)  # of the context: its first column, and the <eos> behind it
STARTS, LASTS = (5, 0, 3, 8, 6), (7, 0, 7, 8, 9)  # row 1 holds no answer


def question_batch():
    rng = np.random.default_rng(9)
    column = np.arange(LENGTH)
    border, end = (np.array(values)[:, None] for values in (BORDERS, ENDS))
    real = column <= end
    tokens = np.where(real, rng.integers(5, VOCAB, (5, LENGTH)), 0)
    batch = {
        "tokens": tokens.astype(np.int32),
        "segment_ids": real.astype(np.int32),
        "positions": np.where(real, column, 0).astype(np.int32),
        "token_types": (real & (column >= border)).astype(np.int32),
        "answer_mask": (column == 0) | ((column >= border) & (column < end)),
        "start": np.array(STARTS, np.int32),
        "end": np.array(LASTS, np.int32),
        "example_id": np.arange(5, dtype=np.uint32),
    }
    return {key: jnp.asarray(value) for key, value in batch.items()}


class Made:
    """An objective with its parameters, compiled once."""

    def __init__(self, model):
        self.objective, self.batch = small_objective("question_answering", model=model), question_batch()
        self.variables = nn.meta.unbox(self.objective.init(jax.random.key(1), self.batch))
        # The initial head is nearly 0: a wrong column would hardly change the loss.
        self.variables["params"]["head"] = jax.tree.map(lambda leaf: 40 * leaf, self.variables["params"]["head"])
        self.outputs = jax.jit(self.objective.outputs)
        self.loss = jax.jit(functools.partial(loss, self.objective))
        self.logits = np.stack([self.outputs(self.variables, self.batch)[name] for name in ("start", "end")])


def loss(objective, variables, batch, *, train=False):
    keys = Keys(jax.random.key(2), jax.random.key(3))
    return objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=train)


@pytest.fixture(scope="module")
def made():
    return Made("modern")


def plain(logits, batch, counts=(True,) * 5):
    """Total, number of exact spans, and gradient [2 B L] of the mean: float64, row by row."""
    total, exact, gradient = 0.0, 0, np.zeros(logits.shape)
    for row in np.flatnonzero(counts):
        allowed = [0, *range(BORDERS[row], ENDS[row])]
        right = 0
        for side, target in enumerate((STARTS[row], LASTS[row])):
            values = np.asarray(logits[side, row], np.float64)[allowed]
            shares = np.exp(values - values.max()) / np.exp(values - values.max()).sum()
            total -= np.log(shares[allowed.index(target)]) / 2
            right += allowed[int(values.argmax())] == target
            gradient[side, row, allowed] = shares / 2
            gradient[side, row, target] -= 0.5
        exact += right == 2
    return total, exact, gradient


def test_the_loss_and_its_gradient_are_those_of_two_plain_softmaxes(made):
    total, exact, gradient = plain(made.logits, made.batch)
    found = made.loss(made.variables, made.batch)
    mean = found.terms["loss"][1]
    assert float(mean.weight) == 5 and float(mean.total) == pytest.approx(total, rel=1e-5)
    assert float(found.metrics["accuracy"].total) == exact

    def of_head(head):
        variables = {"params": {**made.variables["params"], "head": head}}
        return made.loss(variables, made.batch).terms["loss"][1].total

    slopes = jax.grad(of_head)(made.variables["params"]["head"])["outputs"]
    hidden = np.asarray(made.objective.features(made.variables, made.batch).sequence, np.float64)
    assert difference(slopes["kernel"], np.einsum("bld,sbl->ds", hidden, gradient)) < 1e-5
    assert np.abs(np.asarray(slopes["bias"])).max() < 1e-5  # a softmax is blind to it


def test_accuracy_counts_rows_whose_two_columns_are_both_right(made):
    start, end = (jnp.asarray(side.argmax(axis=-1), jnp.int32) for side in made.logits)
    for columns, right in (((start, end), 5), ((start, (end + 1) % LENGTH), 0), (((start + 1) % LENGTH, end), 0)):
        batch = made.batch | dict(zip(("start", "end"), columns, strict=True))
        assert float(made.loss(made.variables, batch).metrics["accuracy"].total) == right


def test_an_answer_is_looked_for_in_the_first_column_and_the_context_alone(made):
    assert made.logits.shape == (2, 5, LENGTH) and made.logits.dtype == np.float32
    allowed = np.broadcast_to(np.asarray(made.batch["answer_mask"]), made.logits.shape)
    np.testing.assert_array_equal(made.logits > np.finfo(np.float32).min, allowed)


def test_rows_that_fill_the_last_batch_do_not_count(made):
    mask = jnp.array([True, False, True, True, False])
    total, exact, _ = plain(made.logits, made.batch, np.asarray(mask))
    found = made.loss(made.variables, made.batch | {"example_mask": mask})
    assert float(found.terms["loss"][1].weight) == 3
    assert float(found.terms["loss"][1].total) == pytest.approx(total, rel=1e-5)
    assert float(found.metrics["accuracy"].total) == exact


def test_the_head_is_a_linear_map_to_two_logits(made):
    head = made.variables["params"]["head"]["outputs"]
    assert head["kernel"].shape == (8, 2) and head["bias"].shape == (2,)
    hidden = np.asarray(made.objective.features(made.variables, made.batch).sequence, np.float64)
    wanted = np.moveaxis(hidden @ np.asarray(head["kernel"], np.float64) + np.asarray(head["bias"]), -1, 0)
    where = np.asarray(made.batch["answer_mask"])
    assert difference(made.logits[:, where], wanted[:, where]) < 1e-5


def test_a_model_of_two_token_types_is_told_which_text_is_the_context():
    made = Made("bert")
    other = made.outputs(made.variables, made.batch | {"token_types": jnp.zeros_like(made.batch["tokens"])})
    change = np.where(np.asarray(made.batch["answer_mask"]), np.abs(made.logits[0] - np.asarray(other["start"])), 0.0)
    assert (change.max(axis=1) > 1e-3).all()


def test_token_dropout_hides_tokens_in_training_only(made):
    noisy = type(made.objective)(made.objective.model, mask_id=4, token_dropout=0.5)
    totals = {
        (each, train): float(loss(each, made.variables, made.batch, train=train).terms["loss"][1].total)
        for each in (made.objective, noisy)
        for train in (True, False)
    }
    assert totals[noisy, False] == totals[made.objective, False] == totals[made.objective, True]
    assert totals[noisy, True] != pytest.approx(totals[noisy, False], rel=1e-4)
    with pytest.raises(ValueError, match="token_dropout hides tokens, and the tokenizer has no mask token"):
        type(made.objective)(made.objective.model, token_dropout=0.5)
