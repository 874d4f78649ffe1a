"""Which tokens masked language modelling may hide."""

import dataclasses

import jax
import numpy as np
import pytest

from tests.small import packed_batch, small_objective


@pytest.mark.parametrize(
    "ids", [(0, 1, 2, 3, 4), (0, 12, 13, 14, 15)], ids=["our own", "of a given tokenizer, anywhere"]
)
def test_special_tokens_are_never_hidden(ids):
    pad, unk, bos, eos, mask = ids
    objective = dataclasses.replace(
        small_objective("masked_lm", rate=1.0), pad_id=pad, unk_id=unk, bos_id=bos, eos_id=eos, mask_id=mask
    )
    batch = packed_batch(rows=16)
    batch["tokens"][:, 1] = eos
    batch["tokens"][:, 2] = unk
    corrupted, chosen = jax.device_get(jax.jit(objective.corrupt)(batch, jax.random.key(0)))
    special = np.isin(batch["tokens"], ids)
    real = batch["segment_ids"] > 0
    assert special[real].any() and (real & ~special).any()
    np.testing.assert_array_equal(chosen, real & ~special)
    np.testing.assert_array_equal(corrupted[~chosen], batch["tokens"][~chosen])
    assert (corrupted[chosen] == mask).mean() > 0.6
