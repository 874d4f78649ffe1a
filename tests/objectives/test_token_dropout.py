"""Token dropout, which classification and tagging share."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from research.objectives.text import hide_tokens
from research.types import Keys
from tests.small import packed_batch, small_objective


def labelled(rows=64):
    batch = packed_batch(rows=rows)
    return batch | {"label": np.arange(rows, dtype=np.int32) % 3}


def test_tokens_behind_the_first_are_hidden_at_the_stated_rate_by_example():
    batch = labelled(512)

    @jax.jit
    def hide(batch, key):
        return hide_tokens(batch, key, rate=0.3, mask_id=4)["tokens"]

    hidden = np.asarray(hide(batch, jax.random.key(1)))
    may = (batch["segment_ids"] > 0) & (batch["positions"] > 0)
    changed = hidden != batch["tokens"]
    assert not changed[~may].any() and (hidden[changed] == 4).all()
    assert abs(changed[may].mean() - 0.3) < 4 * np.sqrt(0.3 * 0.7 / may.sum())
    order = np.random.default_rng(0).permutation(512)
    shuffled = {key: values[order] for key, values in batch.items()}
    np.testing.assert_array_equal(hide(shuffled, jax.random.key(1)), hidden[order])


def test_nothing_is_hidden_in_evaluation_and_something_is_in_training():
    plain, hiding = (small_objective("classification", token_dropout=share) for share in (0.0, 0.5))
    batch = labelled()
    batch = jax.tree.map(jnp.asarray, batch)
    variables = plain.init(jax.random.key(0), batch)
    keys = Keys(noise=jax.random.key(1), dropout=jax.random.key(2, impl="rbg"))

    def value(objective, train):
        total = objective.loss(variables, batch, rng=keys, step=jnp.int32(0), train=train).terms["loss"][1]
        return float(total.total / total.weight)

    assert value(hiding, False) == value(plain, False)
    assert value(hiding, True) != value(plain, True)


@pytest.mark.parametrize("share", [-0.1, 1.0])
def test_a_share_out_of_range_is_named(share):
    with pytest.raises(ValueError, match="token_dropout"):
        small_objective("classification", token_dropout=share)
