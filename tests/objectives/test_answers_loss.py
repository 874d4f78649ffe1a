"""With a loss mask a causal language model learns the marked tokens, and of prompts nothing."""

import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives import causal_lm
from research.ops.cross_entropy import chunked_cross_entropy
from research.types import Keys
from tests.small import LENGTH, VOCAB, packed_batch, separate_documents, small_objective


def answers_batch():
    """Documents of one row each, of which the tokens from the third on are the answer."""
    batch = separate_documents(packed_batch(rows=3))
    mask = (np.arange(LENGTH) >= 2) & (batch["segment_ids"] > 0)
    return {key: jnp.asarray(values) for key, values in (batch | {"loss_mask": mask}).items()}


@pytest.fixture(scope="module")
def made():
    objective, batch = small_objective("causal_lm"), answers_batch()
    return objective, batch, nn.meta.unbox(objective.init(jax.random.key(1), batch))


def loss(objective, variables, batch):
    keys = Keys(jax.random.key(2), jax.random.key(3))
    return objective.loss(variables, batch, rng=keys, step=jnp.zeros((), jnp.int32), train=True)


@functools.partial(jax.jit, static_argnums=0)
def all_logits(model, variables, batch):
    hidden, _ = model.apply(variables, batch["tokens"], positions=batch["positions"], segment_ids=batch["segment_ids"])
    hidden, table, _ = model.apply(variables, hidden, method="vocabulary")
    return jnp.einsum("bld,vd->blv", hidden, table)


def logits_of(objective, variables, batch):
    return np.asarray(all_logits(objective.model, variables, batch), np.float64)[..., :VOCAB]


def test_the_loss_is_the_mean_over_answers(made):
    objective, batch, variables = made
    logits = logits_of(objective, variables, batch)[:, :-1]
    tokens, mask = np.asarray(batch["tokens"])[:, 1:], np.asarray(batch["loss_mask"])[:, 1:]
    nats = np.log(np.exp(logits).sum(axis=-1)) - np.take_along_axis(logits, tokens[..., None], -1)[..., 0]
    found = loss(objective, variables, batch)
    _, mean = found.terms["loss"]
    assert 0 < float(mean.weight) == mask.sum() < (np.asarray(batch["segment_ids"])[:, 1:] > 0).sum()
    assert float(mean.total) == pytest.approx(nats[mask].sum(), rel=1e-5)
    right = logits.argmax(axis=-1) == tokens
    assert float(found.metrics["accuracy"].total) == right[mask].sum()
    answered = objective.outputs(variables, batch)["answered"]
    np.testing.assert_array_equal(answered, (right | ~mask).all(axis=1))


def test_a_row_is_answered_where_each_token_of_it_is_the_likeliest(made):
    objective, batch, variables = made
    tokens, mask = np.asarray(batch["tokens"]).copy(), np.asarray(batch["loss_mask"])
    for column in range(2, LENGTH):  # what greedy generation writes
        likeliest = logits_of(objective, variables, batch | {"tokens": jnp.asarray(tokens)}).argmax(axis=-1)
        tokens[:, column] = np.where(mask[:, column], likeliest[:, column - 1], tokens[:, column])
    greedy = batch | {"tokens": jnp.asarray(tokens)}
    assert objective.outputs(variables, greedy)["answered"].all()
    last = mask[0].nonzero()[0][-1]
    tokens[0, last] = (tokens[0, last] + 1) % VOCAB
    answered = objective.outputs(variables, batch | {"tokens": jnp.asarray(tokens)})["answered"]
    assert not answered[0] and answered[1:].all()


def test_prompts_have_no_part_in_the_gradient(made, monkeypatch):
    """The gradient by the vectors is zero where the next token is a prompt's, and not where it is an answer's."""
    objective, batch, variables = made
    taken = {}

    def watch(hidden, table, bias, targets, where, **options):
        def total(hidden):
            return chunked_cross_entropy(hidden, table, bias, targets, where, **options)[0].sum()

        taken["gradient"] = np.asarray(jax.grad(total)(hidden))
        return chunked_cross_entropy(hidden, table, bias, targets, where, **options)

    monkeypatch.setattr(causal_lm, "chunked_cross_entropy", watch)
    loss(objective, variables, batch)
    reached = taken["gradient"].reshape(len(batch["tokens"]), LENGTH, -1).any(axis=-1)
    np.testing.assert_array_equal(reached[:, :-1], np.asarray(batch["loss_mask"])[:, 1:])
    assert not reached[:, -1].any()


def test_without_a_mask_all_is_as_before_and_there_are_no_outputs(made):
    objective, batch, variables = made
    plain = {key: values for key, values in batch.items() if key != "loss_mask"}
    marked = plain | {"loss_mask": jnp.ones_like(batch["loss_mask"])}
    first, second = (loss(objective, variables, each).terms["loss"][1] for each in (plain, marked))
    assert float(first.total) == float(second.total) and float(first.weight) == float(second.weight)
    assert objective.outputs(variables, plain) == {}
