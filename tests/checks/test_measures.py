"""A number that is none holds no bound; trees are compared leaf by leaf; documents are cut where they end."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from research.batch import AXES
from research.checks import equalities
from research.checks.equalities import separate
from research.checks.measures import Measure, Outcome
from research.checks.subject import cosine, difference
from tests.small import packed_batch, separate_documents


@pytest.mark.parametrize(
    ("value", "at_least", "holds"),
    [(1.0, False, True), (1.1, False, False), (1.1, True, True), (0.9, True, False), (float("nan"), True, False)],
)
def test_a_bound_may_be_reached_and_not_passed(value, at_least, holds):
    assert Measure("a", value, 1.0, at_least).holds is holds


def test_a_finding_without_numbers_neither_passes_nor_fails():
    found = Outcome("a = b", note="there is no b")
    assert (found.verdict, found.failed) == ("-", False)
    assert Outcome("a = b", note="refused: it would not be b", refused=True).verdict == "pass"
    assert Outcome("a = b", [Measure("a", float("nan"), 1.0)]).verdict == "FAIL"


def test_a_difference_is_relative_to_each_leaf_and_names_the_worst():
    first = {"large": np.array([100.0, 1.0]), "small": np.array([0.1])}
    second = {"large": np.array([100.0, 1.1]), "small": np.array([0.11])}
    apart, leaf = difference(first, second)
    assert leaf == "small"
    assert apart == pytest.approx(0.1)
    assert difference(first, {"large": np.array([100.0, np.nan]), "small": np.array([0.1])})[1] == "large"


def test_round_off_beside_large_leaves_is_no_difference():
    assert difference({"a": np.ones(3), "b": np.array([1e-9])}, {"a": np.ones(3), "b": np.array([-2e-9])})[0] == 0.0


def test_the_cosine_is_of_whole_trees():
    tree = {"a": np.array([3.0]), "b": np.array([0.0, 4.0])}
    assert cosine(tree, {"a": np.array([6.0]), "b": np.array([0.0, 8.0])}) == pytest.approx(1.0)
    assert cosine(tree, {"a": np.array([0.0]), "b": np.array([1.0, 0.0])}) == pytest.approx(0.0)


def test_packed_rows_are_cut_into_their_documents():
    batch = packed_batch()
    found, wanted = separate({key: batch[key] for key in batch if key != "label"}, AXES), separate_documents(batch)
    assert found.keys() == wanted.keys()
    for key in found:
        np.testing.assert_array_equal(found[key], wanted[key])


def test_what_begins_a_rounding_away_is_the_next_number():
    params = {"kernel": jnp.asarray([1.0, -3.0, 0.0]), "steps": jnp.asarray([7])}
    moved = equalities._a_rounding_away({"params": params, "other": 1}, seed=0)
    away = np.abs(np.asarray(moved["params"]["kernel"]) - np.asarray(params["kernel"]))
    assert (away > 0.0).all() and (away <= np.spacing(np.float32([1.0, 3.0, 0.0]))).all()
    assert moved["params"]["steps"].tolist() == [7] and moved["other"] == 1
