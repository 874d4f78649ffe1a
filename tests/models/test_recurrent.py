"""LSTM and GRU against loops in float64 numpy: to 1e-5 of the largest value."""

import jax
import numpy as np
import pytest

from tests.models.test_transformer import encoded, normed
from tests.small import difference, packed_batch, small_model


def sigmoid(values):
    return 1 / (1 + np.exp(-values))


def plain_recurrence(rows, p, kind):
    """One document [L D], from a zero state."""
    hidden = cell = np.zeros(rows.shape[1])
    outputs = []
    for row in rows:
        drive = np.einsum("d,dgf->gf", row, p["input"]["kernel"]) + p["input"]["bias"]
        recurrent = np.einsum("d,dgf->gf", hidden, p["kernel"])
        if kind == "lstm":
            inward, forget, outward, candidate = drive + recurrent
            cell = sigmoid(forget + 1) * cell + sigmoid(inward) * np.tanh(candidate)
            hidden = sigmoid(outward) * np.tanh(cell)
        else:
            reset, update = sigmoid(drive[0] + recurrent[0]), sigmoid(drive[1] + recurrent[1])
            hidden = update * hidden + (1 - update) * np.tanh(drive[2] + reset * recurrent[2])
        outputs.append(hidden)
    return np.stack(outputs)


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_recurrent_model_equals_loops_over_each_document(kind, causal):
    model, batch = small_model(kind, causal=causal), packed_batch(rows=3)
    params, found = encoded(model, batch)
    params = jax.tree.map(lambda leaf: leaf.astype(np.float64), params)
    for row in range(3):
        for segment in range(1, batch["segment_ids"][row].max() + 1):
            where = batch["segment_ids"][row] == segment
            hidden = params["embed"]["embedding"][batch["tokens"][row][where]]
            for layer in range(2):
                p = jax.tree.map(lambda leaf, layer=layer: leaf[layer], params["layers"])
                read = normed(hidden, p["norm"], "layer", 1e-6)
                outputs = plain_recurrence(read, p["forward"], kind)
                if not causal:
                    outputs = outputs + plain_recurrence(read[::-1], p["backward"], kind)[::-1]
                hidden = hidden + outputs
            assert difference(normed(hidden, params["final_norm"], "layer", 1e-6), found[row][where]) < 1e-5
