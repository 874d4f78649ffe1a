"""What --verify takes for equal, and what it refuses to compare; nothing of transformers is needed."""

import re

import numpy as np
import pytest

from research import conversion
from research.conversion import verify
from research.interop.verify import compare, draw_inputs
from tests.drawn import FAMILIES, draw


def test_scores_of_another_shape_are_a_failure_and_not_left_out():
    real = np.array([[True, True, False]])
    vectors, spans = np.ones((1, 3, 5)), np.ones((1, 3, 2))
    assert compare((vectors, spans), (vectors, 2 * spans), real, head=True) == {"vectors": 0.0, "head": 0.5}
    for shape in ((1, 3), (1, 3, 1), (1, 2), (1, 2, 3)):
        message = f"head: [1, 3, 2] here and {list(shape)} in transformers cannot be compared"
        with pytest.raises(RuntimeError, match=re.escape(message)):
            compare((vectors, spans), (vectors, np.ones(shape)), real, head=True)
    with pytest.raises(RuntimeError, match="and nothing in transformers"):
        compare((vectors, spans), (vectors, None), real, head=True)
    assert compare((vectors, spans), (vectors, None), real, head=False) == {"vectors": 0.0}


def test_padding_is_not_compared_and_a_position_before_it_is():
    real = np.array([[True, True, False]])
    vectors, spans = np.ones((1, 3, 5)), np.ones((1, 3, 2))
    for position, wanted in ((2, 0.0), (1, 0.5)):
        moved = spans.copy()
        moved[0, position] = 0.5
        assert compare((vectors, moved), (vectors, spans), real, head=True)["head"] == wanted


@pytest.mark.parametrize(("head", "code"), [(2e-6, 0), (2e-5, 1), (float("nan"), 1)])
def test_verify_takes_no_nan_for_equal(monkeypatch, tmp_path, head, code):
    monkeypatch.setattr(conversion, "differences", lambda *args, **keys: {"vectors": 1e-6, "head": head})
    assert verify(tmp_path, draw(*FAMILIES["bert"]), say=lambda line: None) == code


def test_inputs_are_rows_of_several_lengths_without_padding_tokens_in_them():
    tokens, mask, types = draw_inputs(40, pad_id=7, length=12)
    assert mask.sum(axis=1).tolist() == [12, 6, 4, 3, 2]
    np.testing.assert_array_equal(tokens == 7, mask == 0)
    assert (types <= mask).all() and types[:2].any(axis=1).all()
    assert draw_inputs(40, pad_id=7, length=2)[1].sum(axis=1).min() == 1
