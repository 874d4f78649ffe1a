"""Slices: groups by value and by quartile, and figures that add up to the whole."""

import numpy as np
import pytest

from research.batch import Split
from research.evaluation.slices import MOST_VALUES, OTHER, by_quartile, by_value, slices

LENGTHS = [3, 5, 2, 7, 4, 3, 6, 5, 4, 8, 11]


def rows(lengths):
    return [{"segment_ids": np.array([1] * length + [0] * (13 - length))} for length in lengths]


def listed(groups):
    return {name: rows.tolist() for name, rows in groups.items()}


def test_values_are_listed_the_most_frequent_first():
    assert listed(by_value(["b", "a", "c", "a", "b", "a"])) == {"a": [1, 3, 5], "b": [0, 4], "c": [2]}
    assert listed(by_value([5, 4, 5, True])) == {"5": [0, 2], "4": [1], "True": [3]}


def test_many_values_are_pooled_with_one_that_has_the_name_of_the_pool():
    column = [f"v{n}" for n in range(MOST_VALUES + 3) for _ in range(2)] + [OTHER] * 5 + ["v7"]
    groups = by_value(column)
    assert len(groups) == MOST_VALUES + 1 and list(groups)[0] == "v7" and list(groups)[-1] == OTHER
    assert len(groups[OTHER]) == 5 + 3 * 2
    assert sorted(np.concatenate(list(groups.values()))) == list(range(len(column)))


def test_many_numbers_are_cut_into_quartiles():
    groups = by_value([0.5 * n for n in range(12, 0, -1)])
    assert list(groups) == ["0.5 to 1.5", "2 to 3", "3.5 to 4.5", "5 to 6"]
    assert listed(groups)["0.5 to 1.5"] == [9, 10, 11]
    assert OTHER in by_value([*range(30), "a"])  # not all are numbers


def test_equal_numbers_stay_together():
    assert listed(by_quartile(np.array([4, 4, 4, 4, 4, 9]))) == {"4": [0, 1, 2, 3, 4], "9": [5]}


@pytest.mark.parametrize("sizes", [[1] * 11, [3, 1, 2, 1, 5, 2, 2, 1, 1, 4, 3]])
def test_slices_add_up_to_the_whole(sizes):
    draw = np.random.default_rng(3)
    values = [draw.random(size) < 0.6 for size in sizes]
    part = Split(rows(LENGTHS), labels=[0, 1] * 5 + [2], fields={"source": list("xxyxyzzzyxx")})
    found = slices(values, "accuracy", part, ("no", "yes", "maybe"))
    assert list(found) == ["label", "length", "source"] and set(found["label"]) == {"no", "yes", "maybe"}
    whole = np.concatenate(values).mean()
    for groups in found.values():
        assert sum(group["rows"] for group in groups.values()) == 11
        assert sum(group["values"] for group in groups.values()) == sum(sizes)
        mean = sum(group["values"] * group["accuracy"] for group in groups.values()) / sum(sizes)
        assert mean == pytest.approx(whole, abs=1e-12)
    assert found["source"]["y"]["accuracy"] == np.concatenate([values[2], values[4], values[8]]).mean()
    assert list(found["length"]) == ["2 to 3", "4 to 5", "6", "7 to 11"]


def test_what_an_example_has_not_is_no_slice():
    values = [np.array([True]), np.array([False])]
    assert set(slices(values, "accuracy", Split(rows([3, 4])), ())) == {"length"}
    assert slices(values, "accuracy", Split(rows([3, 4, 4])), ()) == {}  # an example is not one row


def test_labels_may_be_several_or_numbers():
    rows = [{"segment_ids": np.ones(3, np.int32)}] * 4
    right = [np.array([value]) for value in (1.0, 0.0, 1.0, 1.0)]
    several = Split(rows, labels=[[1, 0], [1, 1], [0, 0], [1, 0]])
    found = slices(right, "accuracy", several, ("red", "tall"))["label"]
    assert {name: figures["rows"] for name, figures in found.items()} == {"red": 2, "no label": 1, "red, tall": 1}
    numbers = Split(rows, labels=[0.5, 2.5, 0.5, 1.0])
    assert slices(right, "mse", numbers, ("stars",))["label"]["0.5"] == {"mse": 1.0, "rows": 2, "values": 2}
